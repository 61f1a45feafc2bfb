"""fio as the load of every contestant, and what its JSON says."""
import bisect
import contextlib
import json
import os
import threading
import time

import procs
import shapes

PERCENTILES = (("p50_us", "50.000000"), ("p99_us", "99.000000"), ("p999_us", "99.900000"))


def command(shape, seconds, warmup, seed, arguments):
    return ["fio", f"--name={shape.name}", f"--rw={shape.rw}", f"--bs={shape.block}", f"--iodepth={shape.depth}",
            "--time_based", f"--runtime={int(seconds * 1000)}ms", f"--ramp_time={int(warmup * 1000)}ms",
            "--norandommap", f"--randseed={seed}", "--lat_percentiles=1", "--clat_percentiles=0",
            "--percentile_list=50:99:99.9", "--output-format=json", *arguments]


def figures(text):
    """The figures of fio's only job."""
    try:
        job = json.loads(text[text.index("{"):])["jobs"][0]
    except (ValueError, KeyError, IndexError) as e:
        raise procs.Failed(f"fio printed no result:\n{text[-2000:]}") from e
    r = job["read"] if job["read"]["total_ios"] else job["write"]
    if job["error"] or not r["total_ios"]:
        raise procs.Failed(f"fio did nothing (error {job['error']}):\n{text[-2000:]}")
    row = {"ios": r["total_ios"], "iops": r["iops"], "mb_per_s": r["bw_bytes"] / 1e6, "avg_us": r["lat_ns"]["mean"] / 1e3,
           "max_us": r["lat_ns"]["max"] / 1e3, "seconds": r["runtime"] / 1e3}
    for name, key in PERCENTILES:
        row[name] = r["lat_ns"]["percentile"][key] / 1e3
    return row


class Sampler(threading.Thread):
    """Notes, some fifty times a second, how much CPU time processes have used, so that it can be told for any span of time."""

    def __init__(self, clocks):
        super().__init__(daemon=True)
        self.clocks = clocks  # {name: function that returns ns}
        self.times, self.seen = [], {name: [] for name in clocks}
        self.enough = threading.Event()

    def run(self):
        while not self.enough.is_set():
            try:
                now = {name: clock() for name, clock in self.clocks.items()}
            except OSError:  # a process has ended
                return
            self.times.append(time.time())
            for name, value in now.items():
                self.seen[name].append(value)
            self.enough.wait(0.02)

    def at(self, name, when):
        """Between two samples in proportion; beyond the ends the first and the last."""
        i = bisect.bisect_left(self.times, when)
        values = self.seen[name]
        if i == 0 or i == len(self.times):
            return values[0 if i == 0 else -1]
        t0, t1 = self.times[i - 1], self.times[i]
        return values[i - 1] + (values[i] - values[i - 1]) * (when - t0) / (t1 - t0)

    def used_ns(self, begin, end):
        return {name: self.at(name, end) - self.at(name, begin) for name in self.clocks}


def load(shape, o, seed, arguments, services=(), env=None):
    """One measurement: fio over a shape, with the CPU time of fio and of the services in the time that fio measured.

    fio's own figure of CPU time is of the one thread that submits, and knows nothing of an engine's threads: so all threads of
    its process are counted from outside. That time ends when fio runs the command of exec_postrun, whose output file's time of
    change says when, and begins as much earlier as it took.
    """
    mark = os.path.join(o.scratch, f"{shape.name}.postrun.txt")
    words = [*command(shape, o.seconds, o.warmup, seed, arguments), "--thread", "--exec_postrun=true"]
    with contextlib.suppress(FileNotFoundError):
        os.unlink(mark)
    child = procs.Service("fio", words, os.path.join(o.scratch, "fio.out"), env=env, fresh=True)
    sampler = Sampler({"client": child.cpu_ns, "machine": procs.machine_busy_ns, **{s.name: s.cpu_ns for s in services}})
    try:
        sampler.start()
        child.wait(60 + 20 * (o.seconds + o.warmup))
    finally:
        sampler.enough.set()
        child.stop(hard=True)
    sampler.join()
    row = figures(procs.tail(child.log, 10000))
    end = os.stat(mark).st_mtime
    used = sampler.used_ns(end - row["seconds"], end)
    row["client_cpu_us"] = used["client"] / 1e3 / row["ios"]
    row["services_cpu_us"] = {s.name: used[s.name] / 1e3 / row["ios"] for s in services}
    return finish(row, used["machine"] / 1e9 / row["seconds"], " ".join(words))


def finish(row, busy_cpus, command_line):
    """What every measurement has: the sum of the CPU times, how busy the whole machine was, how to do it again."""
    row["cpu_us"] = row["client_cpu_us"] + sum(row["services_cpu_us"].values())
    row["machine_busy_cpus"] = busy_cpus
    row["load_average"] = os.getloadavg()[0]
    row["command"] = command_line
    return row


class Meter:
    """For loads other than fio's: the CPU time of services from now until finish().

    The load's figures, its CPU time among them, are of the time after its warm-up. The services worked during the warm-up too,
    at the same rate, so they are given the share of the rest.
    """

    def __init__(self, services):
        self.services = services
        self.before = [s.cpu_ns() for s in services]
        self.busy_ns, self.begin = procs.machine_busy_ns(), time.monotonic()

    def finish(self, row, o, command_line):
        busy_ns, elapsed = procs.machine_busy_ns() - self.busy_ns, time.monotonic() - self.begin
        share = row["seconds"] / (row["seconds"] + o.warmup)
        row["services_cpu_us"] = {s.name: (s.cpu_ns() - before) * share / 1e3 / row["ios"]
                                  for s, before in zip(self.services, self.before)}
        return finish(row, busy_ns / 1e9 / elapsed, command_line)


def fill(o, arguments, env=None):
    """Writes all of the medium once: what was never written reads faster than data."""
    procs.run(["fio", "--name=fill", "--rw=write", "--bs=1M", "--iodepth=4", f"--size={o.volume_bytes}",
               "--output-format=json", *arguments], timeout=600, env=env)


def is_read(shape):
    return shapes.is_read(shape)
