"""A run: for each medium starts everybody, measures everybody in turns, stops everybody; then reports."""
import json
import os
import shutil
import sys
import tempfile
import time

import guests
import machine
import procs
import report
import shapes

QUICK_SECONDS = 95  # after that a --quick run does no second rounds
START_SECONDS = 0.5  # of one measurement, beside its load: fio's own start; corrected as the run goes


def say(text):
    print(text, file=sys.stderr, flush=True)


class Progress:
    """Lines with the time that is left."""

    def __init__(self, steps, seconds_each, rewrite):
        self.rewrite = rewrite  # the line, on a terminal
        self.steps, self.done, self.begin = steps, 0, time.monotonic()
        self.guess = seconds_each

    def step(self, text):
        each = (time.monotonic() - self.begin) / self.done if self.done >= 5 else self.guess
        left = (self.steps - self.done) * each
        line = f"[{self.done + 1}/{self.steps}] {text}; {left // 60:.0f} min {left % 60:02.0f} s left"
        self.done += 1
        if self.rewrite:
            print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
        elif self.done % 10 == 1:
            say(line)

    def end(self):
        if self.rewrite:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


class Keeper:
    """Where a run's result goes, as it comes: whatever ends the run, what was measured until then is there."""

    def __init__(self, result, path):
        self.result, self.path = result, path
        result["complete"] = False

    def so_far(self, medium=None, rows=None):
        """The result with the measurements of the medium that is under way."""
        part = dict(self.result, results=list(self.result["results"]))
        if rows:
            report.add(part, medium, rows)
        return part

    def keep(self, medium=None, rows=None):
        self.latest = self.so_far(medium, rows)
        write_json(self.latest, self.path, None)

    def end(self):
        self.result["complete"] = True
        write_json(self.result, self.path, 1)


class Round:
    """One medium: its contestants with their backends."""

    def __init__(self, o, medium, base, skipped, keeper):
        self.o, self.medium, self.keeper = o, medium, keeper
        self.folder = tempfile.mkdtemp(prefix="cistern-bench.", dir=base)
        o.scratch = os.path.join(self.folder, "scratch")
        os.mkdir(o.scratch)
        self.skipped = skipped
        self.backends, self.running = {}, []

    def start(self):
        for c in self.o.everybody:
            if c.name not in self.o.names or self.medium not in c.media:
                continue
            if self.o.quick and c.slow and not self.o.only:
                say(f"not in a --quick run: {c.name} (--only {c.name} asks for it)")
                continue
            why = c.unavailable(self.o)
            if not why:
                why = self.start_one(c)
            if why:
                say(f"skipped: {c.name} on {self.medium}: {why}")
                self.skipped.append({"contestant": c.name, "medium": self.medium, "reason": why})

    def start_one(self, c):
        """Why it could not be started; empty: it runs."""
        begin = time.monotonic()
        key = c.backend_key()
        if key not in self.backends:
            self.backends[key] = c.make_backend(self.o, self.medium, os.path.join(self.folder, key))
        c.backend = self.backends[key]
        try:
            c.backend.ensure()
            c.prepare(self.o)
        except procs.Failed as e:
            c.close()
            return str(e)
        self.running.append(c)
        say(f"started {c.name} on {self.medium} in {time.monotonic() - begin:.1f} s")
        return ""

    def idle(self, seconds):
        """CPU that each contestant's services use when nobody asks for anything, us a second."""
        before = {c.name: sum(s.cpu_ns() for s in c.services()) for c in self.running}
        time.sleep(seconds)
        return {c.name: (sum(s.cpu_ns() for s in c.services()) - before[c.name]) / 1e3 / seconds for c in self.running}

    def measure(self):
        """{(shape, contestant): [row, ...]}: within a shape the contestants take turns, in another order each round."""
        o, rows = self.o, {}
        chosen = [s for s in shapes.SHAPES if s.name in o.shapes]
        steps = o.rounds * sum(c.takes(s) for s in chosen for c in self.running)
        progress = Progress(steps, o.seconds + o.warmup + START_SECONDS, sys.stderr.isatty() and not o.inside)
        for shape in chosen:
            for number in range(o.rounds):
                turns = [c for c in self.running if c.takes(shape)]
                turns = turns[number % len(turns):] + turns[:number % len(turns)] if turns else []
                if number > 0 and o.quick and time.monotonic() > o.begin + QUICK_SECONDS:
                    continue
                for c in turns if number % 2 == 0 else reversed(turns):
                    progress.step(f"{self.medium}, {shape.title}, round {number + 1}: {c.name}")
                    self.measure_one(shape, c, number, rows)
        progress.end()
        return rows

    def measure_one(self, shape, c, number, rows):
        try:
            row = c.measure(shape, self.o, 1000 + number)
        except procs.Failed as e:
            say(f"\nfailed: {c.name}, {shape.name} on {self.medium}: {e}")
            self.skipped.append({"contestant": c.name, "medium": self.medium, "shape": shape.name, "round": number,
                                 "reason": str(e)})
            return
        row["round"] = number
        row["services"] = sorted(row["services_cpu_us"])
        rows.setdefault((shape.name, c.name), []).append(row)
        self.keeper.keep(self.medium, rows)

    def stop(self):
        for c in self.running:
            c.close()
        for backend in self.backends.values():
            backend.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def run_medium(o, medium, result, keeper):
    base = {"ram": o.ram_dir, "disk": o.disk_dir, "guest": o.ram_dir}[medium]
    if medium == "guest":
        guests.make_disks(o)
    part = Round(o, medium, base, result["skipped"], keeper)
    try:
        part.start()
        for c in part.running:
            result["contestants"].setdefault(c.name, {
                "title": c.title, "what": c.what, "durable": c.durable, "copies": c.copies, "floor": c.floor,
                "client": c.client(o)})
            result["versions"].update(c.versions())
        result["idle_cpu_us_per_second"][medium] = part.idle(2 if not o.quick else 1)
        report.add(result, medium, part.measure())
    finally:
        part.stop()


def settings(o):
    return {"rounds": o.rounds, "seconds": o.seconds, "warmup": o.warmup, "volume_bytes": o.volume_bytes,
            "shapes": o.shapes, "media": o.media, "contestants": o.names, "quick": o.quick}


def write_json(result, path, indent):
    """Whole or not at all, also when it is interrupted."""
    with open(path + ".new", "w", encoding="utf-8") as f:
        json.dump(result, f, indent=indent)
        f.write("\n")
    os.replace(path + ".new", path)


def measure_all(o, result, keeper):
    for medium in o.media:
        if medium == "guest" and not o.inside:
            guests.run_guest(o, result, say)
        else:
            run_medium(o, medium, result, keeper)
        keeper.keep()


def run(o):
    started, o.begin = time.time(), time.monotonic()
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(started))
    result = {"schema": 1, "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
              "command": " ".join(["./dev bench", *sys.argv[1:]]), "settings": settings(o), "revision": machine.revision(report.TOP),
              "sanitizers": o.sanitized, "machine": machine.describe({"ram": o.ram_dir, "disk": o.disk_dir}),
              "versions": {}, "contestants": {}, "skipped": [], "idle_cpu_us_per_second": {}, "results": []}
    out = o.out or os.path.join(report.TOP, "build", f"bench-{stamp}")
    if not o.inside:
        os.makedirs(out, exist_ok=True)
    keeper = Keeper(result, o.inside or os.path.join(out, "result.json"))
    keeper.keep()
    try:
        measure_all(o, result, keeper)
    except BaseException:
        if keeper.latest["results"] and not o.inside:
            report.write(keeper.latest, out, None)
        raise
    result["seconds"] = round(time.time() - started)
    keeper.end()
    if o.inside:
        return 0
    report.write(result, out, o.publish)
    return 0 if result["results"] else 1
