#!/usr/bin/env python3
"""Plants one bug at a time (planted.py) in the simulated cluster, and looks whether the simulator finds it.

    run.py BUILD [--only NAME,...]            replays the seeds that are known to find each (killers.txt)
    run.py BUILD --hunt [--only NAME,...]     looks for such seeds, and writes killers.txt anew for those that it looked at

BUILD is a build directory with bin/cistern-sim in it. Only the changed file is compiled, outside of the tree, and linked
before the library of all others. A bug counts as found when one of its seeds fails; without the bug all of these seeds must
pass. Ends with 1 when a bug that was found is not found any more, or cannot be planted: then the lists have to follow the code."""
import argparse
import concurrent.futures
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
KILLERS = os.path.join(HERE, "killers.txt")
ENOUGH = 3  # seeds to keep for each
sys.path.insert(0, HERE)
sys.dont_write_bytecode = True
from planted import MUTATIONS  # noqa: E402


class Builder:
    """Compiles changed files with the commands of the build, and links them before everything else."""

    def __init__(self, build):
        self.build = os.path.abspath(build)
        with open(os.path.join(self.build, "compile_commands.json")) as f:
            entries = json.load(f)
        self.entries = {e["file"]: e for e in entries if "/cistern_sim_quick.dir/" in e["command"]}
        commands = subprocess.run(["ninja", "-C", self.build, "-t", "commands", "bin/cistern-sim"], capture_output=True, text=True)
        self.link = [w for w in shlex.split(commands.stdout.strip().split("\n")[-1]) if w not in (":", "&&")]
        self.plain = os.path.join(self.build, "bin/cistern-sim")

    def changed(self, work, texts):
        """Writes the texts below work; returns the files that have to be compiled: themselves, and who includes a header."""
        for path, text in texts.items():
            os.makedirs(os.path.dirname(os.path.join(work, path)), exist_ok=True)
            with open(os.path.join(work, path), "w") as f:
                f.write(text)
        again = {p for p in texts if p.endswith(".c")}
        for header in (p for p in texts if p.endswith(".h")):
            for file in self.entries:
                with open(file) as f:
                    if f'#include "{header}"' in f.read():
                        again.add(os.path.relpath(file, TOP))
        return sorted(again)

    def compile(self, work, path, number):
        entry = self.entries[os.path.join(TOP, path)]
        source = os.path.join(work, path)
        if not os.path.exists(source):
            source = os.path.join(TOP, path)
        args = [a for a in shlex.split(entry["command"]) if a not in ("-g", "-Werror")]
        args.insert(1, "-I" + work)
        args[args.index(entry["file"])] = source
        target = os.path.join(work, f"{number}.o")
        args[args.index("-o") + 1] = target
        run = subprocess.run(args + ["-w"], cwd=entry["directory"], capture_output=True, text=True)
        return target, run.stderr if run.returncode else None

    def plant(self, work, mutation):
        """(program, None) or (None, what is wrong)."""
        texts = {}
        for path, old, new in mutation["edits"]:
            if path not in texts:
                with open(os.path.join(TOP, path)) as f:
                    texts[path] = f.read()
            if texts[path].count(old) != 1:
                return None, f"does not apply: {texts[path].count(old)} places in {path}"
            texts[path] = texts[path].replace(old, new)
        objects = []
        directory = tempfile.mkdtemp(dir=work)
        for number, path in enumerate(self.changed(directory, texts)):
            target, error = self.compile(directory, path, number)
            if error:
                return None, "does not build: " + error[-400:]
            objects.append(target)
        program = os.path.join(work, mutation["name"])
        link = list(self.link)
        link[link.index("-o") + 1] = program
        library = next(i for i, w in enumerate(link) if w.endswith("libcistern_sim_quick.a"))
        linked = subprocess.run(link[:library] + objects + link[library:], cwd=self.build, capture_output=True, text=True)
        if linked.returncode:
            return None, "does not link: " + linked.stderr[-400:]
        return program, None


def runs(program, work, lines, limit, stop, jobs):
    """Runs lines (seed, copies, kind); returns [(line, how)] of those that failed, in the order of lines."""
    handle, path = tempfile.mkstemp(dir=work)
    with os.fdopen(handle, "w") as f:
        f.writelines(f"{seed} {copies} {kind}\n" for seed, copies, kind in lines)
    run = subprocess.run([program, "--file", path, "--limit", str(limit), "--jobs", str(jobs)] + (["--stop"] if stop else []),
                         capture_output=True, text=True)
    os.unlink(path)
    bad = {}
    for m in re.finditer(r"^seed (\d+) copies (\d+) ?(moves|rot|) ?FAILED: (.*)$", run.stdout, re.M):
        bad[int(m.group(1)), int(m.group(2)), m.group(3)] = m.group(4)
    # only too slow: says more of this machine than of the bug
    return [(line, bad[line]) for line in lines if line in bad and not bad[line].startswith("took too long")]


def spell(line):
    """(seed, copies, kind) as killers.txt has it."""
    return "/".join(str(x) for x in line if x != "")


def unspell(word):
    seed, copies, *kind = word.split("/")
    return int(seed), int(copies), kind[0] if kind else ""


def read_killers():
    table = {}
    if os.path.exists(KILLERS):
        with open(KILLERS) as f:
            for line in f:
                words = line.split("#")[0].split()
                if words:
                    table[words[0]] = ([unspell(w) for w in words[1:]], line.split("#", 1)[1].strip())
    return table


def write_killers(table):
    with open(KILLERS, "w") as f:
        f.write("# NAME SEED/COPIES[/moves|/rot] ... # how the first of them fails. Written by run.py --hunt.\n")
        for name in [m["name"] for m in MUTATIONS if m["name"] in table]:
            seeds, how = table[name]
            f.write(f"{name} {' '.join(spell(s) for s in seeds)} # {how}\n")


def brief(how):
    return re.sub(r"\s+", " ", re.sub(r"\b[0-9a-f]*\d[0-9a-f]*\b", "N", how.split("(see it again")[0])).strip()[:110]


def copies_of(mutation, seed):
    choice = mutation.get("copies", (1, 2, 3))
    return choice[seed % len(choice)]


def hunt(program, plain, work, mutation, first, seeds, jobs):
    """(killers, how the first failed, seeds tried)"""
    found, tried, chunk = [], 0, 20
    while tried < seeds and len(found) < ENOUGH and not (found and tried >= 100):
        n = min(chunk, seeds - tried)
        lines = [(s, copies_of(mutation, s), mutation["kind"]) for s in range(first + tried, first + tried + n)]
        bad = runs(program, work, lines, 60, False, jobs)
        innocent = {line for line, _ in runs(plain, work, [b[0] for b in bad[:ENOUGH + 3]], 60, False, jobs)} if bad else ()
        found += [b for b in bad[:ENOUGH + 3] if b[0] not in innocent]
        tried += n
        chunk = 20 if tried < 60 else 60
    return found[:ENOUGH], brief(found[0][1]) if found else "", tried


def one(builder, work, mutation, a, table):
    begun = time.time()
    program, error = builder.plant(work, mutation)
    name = mutation["name"]
    if error:
        return name, error, None
    try:
        if a.hunt:
            found, how, tried = hunt(program, builder.plain, work, mutation, a.first, a.seeds, a.jobs_each)
            if not found:
                return name, f"not in {tried} seeds ({time.time() - begun:.0f} s)", []
            return name, None, ([b[0] for b in found], f"{how} ({len(found)} of {tried})")
        if name not in table:
            return name, None if mutation.get("missed") else "no seed is known", None
        bad = runs(program, work, table[name][0], 60, True, 1)
        return name, None if bad else "its seeds do not find it any more", None
    finally:
        os.unlink(program)


def unchanged(builder, work, table):
    """Killing seeds that fail without any bug."""
    lines = sorted({line for seeds, _ in table.values() for line in seeds})
    return runs(builder.plain, work, lines, 60, False, os.cpu_count()) if lines else []


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("build")
    p.add_argument("--hunt", action="store_true")
    p.add_argument("--only", default="", help="names, with commas")
    p.add_argument("--first", type=int, default=1)
    p.add_argument("--seeds", type=int, default=2000, help="hunt at most so many seeds for each")
    p.add_argument("--jobs", type=int, default=os.cpu_count(), help="bugs at once")
    p.add_argument("--jobs-each", type=int, default=1, help="processes for each")
    p.add_argument("--table", action="store_true", help="print the table for the documents, from killers.txt")
    a = p.parse_args()
    only = [n for n in a.only.split(",") if n]
    chosen = [m for m in MUTATIONS if not only or m["name"] in only]
    table, missed = read_killers(), 0
    if a.table:
        for m in MUTATIONS:
            seeds, how = table.get(m["name"], (None, None))
            found = f"{seeds[0][0]} ({' '.join(str(x) for x in seeds[0][1:] if x != '')})" if seeds else "no: " + m.get("missed", "?")
            print(f"| {m['name']} | {m['contract']} | {found} |")
        return 0
    builder = Builder(a.build)
    with tempfile.TemporaryDirectory() as work, concurrent.futures.ThreadPoolExecutor(a.jobs) as pool:
        if not a.hunt:
            for line, how in unchanged(builder, work, {m["name"]: table[m["name"]] for m in chosen if m["name"] in table}):
                print(f"seed {spell(line)} fails without any bug planted: {how[:200]}", flush=True)
                missed += 1
        for name, error, result in pool.map(lambda m: one(builder, work, m, a, table), chosen):
            if error:
                missed += 1
                print(f"{name}: {error}", flush=True)
                if a.hunt and result == []:
                    table.pop(name, None)
            elif result:
                table[name] = result
                write_killers(table)
                print(f"{name}: {' '.join(spell(s) for s in result[0])} # {result[1]}", flush=True)
            elif not a.hunt:
                print(f"{name}: found" if name in table else f"{name}: known not to be found", flush=True)
        if a.hunt:
            write_killers(table)
    print(f"{len(chosen) - missed} of {len(chosen)} as expected" if not a.hunt else f"{len(chosen) - missed} of {len(chosen)} found")
    return 1 if missed else 0


sys.exit(main())
