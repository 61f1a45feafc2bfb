#!/usr/bin/env python3
"""Runs the cases of run.sh in turns, takes medians, prints ratios. usage: measure.py DIR [options of run.sh]

DIR has a folder per side ("this", perhaps "versus"), each with bin, client.conf and the services' NAME.pid.
"""
import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time

TICK_NS = 10**9 // os.sysconf("SC_CLK_TCK")


def run(command, **options):
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if done.returncode != 0:
        sys.exit(f"measure.py: {' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


class Side:
    """One cluster and its programs."""

    def __init__(self, name, folder):
        self.name, self.folder = name, folder
        self.pids = {}
        for entry in sorted(os.listdir(folder)):
            if entry.endswith(".pid"):
                with open(os.path.join(folder, entry), encoding="ascii") as f:
                    self.pids[entry[:-4]] = int(f.read())

    def program(self, name):
        return os.path.join(self.folder, "bin", name)

    def cpu_ns(self, service):
        """CPU time that a service has used so far, threads that ended included, in ticks (proc(5): utime and stime)."""
        with open(f"/proc/{self.pids[service]}/stat", encoding="utf-8") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) * TICK_NS

    def loop_cpu_ns(self, service):
        """CPU time of a service's first thread, which runs its loop; to the ns where the kernel keeps that."""
        try:
            with open(f"/proc/{self.pids[service]}/schedstat", encoding="ascii") as f:
                return int(f.read().split()[0])
        except (OSError, ValueError, IndexError):
            return self.cpu_ns(service)

    def all_cpu_ns(self):
        return sum(self.cpu_ns(s) for s in self.pids)

    def cistern(self, *words):
        config = os.path.join(self.folder, "client.conf")
        return run([self.program("cistern"), "--config", config, *words])


# ---- cases: each returns {"avg_ns", "p50_ns", "p99_ns", "iops", "bytes_per_second", "cpu_ns", ...}, what it has ----


def bench(*words):
    def case(side, o):
        before = side.all_cpu_ns()
        rows = json.loads(side.cistern("--json", "bench", "bench", "--runtime", f"{o.seconds}s", "--warmup", "300ms",
                                       *words))
        row = rows[0]
        # The services also worked during the warm-up: about as much per operation.
        share = row["measured_ns"] / (row["measured_ns"] + 300 * 10**6)
        row["service_cpu_ns_per_op"] = (side.all_cpu_ns() - before) * share / max(row["ops"], 1)
        return row

    return case


def through_gateway(*words):
    def case(side, o):
        with open(os.path.join(side.folder, "client.conf"), encoding="utf-8") as f:
            gateway = [line.split("=", 1)[1].strip() for line in f if line.startswith("gateway")][0]
        return bench(*words, "--gateway", gateway)(side, o)

    return case


def lookup(side, _o):
    return {"ns": json.loads(run([side.program("table_lookup")]))["table_route_ns"]}


def pingpong(side, o):
    return json.loads(run([side.program("tcp_pingpong"), "--request", "4k", "--reply", "4k", "--runtime",
                           f"{o.seconds}s"]))


def raw(kind, size, depth, *words):
    """A plain file beside the cluster's, through io_uring and O_DIRECT."""
    def case(side, o):
        out = run(["fio", "--name=raw", f"--filename={side.folder}/raw.img", "--size=256M", "--ioengine=io_uring",
                   "--direct=1", f"--rw={kind}", f"--bs={size}", f"--iodepth={depth}", "--time_based",
                   f"--runtime={o.seconds}", "--ramp_time=300ms", "--lat_percentiles=1", "--clat_percentiles=0",
                   "--output-format=json", *words])
        job = json.loads(out[out.index("{"):])["jobs"][0]
        r = job["read"] if "read" in kind else job["write"]
        if "--fdatasync=1" in words:  # fio times the write and the flush behind it apart
            s = job["sync"]["lat_ns"]
            return {"avg_ns": r["lat_ns"]["mean"] + s["mean"], "iops": r["iops"],
                    "p50_ns": r["lat_ns"]["percentile"]["50.000000"] + s["percentile"]["50.000000"]}
        return {"avg_ns": r["lat_ns"]["mean"], "p50_ns": r["lat_ns"]["percentile"]["50.000000"],
                "p99_ns": r["lat_ns"]["percentile"]["99.000000"],
                "iops": r["iops"], "bytes_per_second": r["bw_bytes"]}

    return case


CASES = {
    "lookup": lookup,
    "tcp ping-pong 4k": pingpong,
    "file read 4k d1": raw("randread", "4k", 1),
    "file write 4k d1, fdatasync": raw("randwrite", "4k", 1, "--fdatasync=1"),
    "file read 4k d32": raw("randread", "4k", 32),
    "file write 4k d32, dsync": raw("randwrite", "4k", 32, "--sync=dsync"),
    "file read 128k d8": raw("read", "128k", 8),
    "file write 128k d8, dsync": raw("write", "128k", 8, "--sync=dsync"),
    "read 4k d1": bench("--read"),
    "write 4k d1": bench("--write"),
    "read 4k d32": bench("--read", "--depth", "32"),
    "write 4k d32": bench("--write", "--depth", "32"),
    "read 128k d8": bench("--read", "--sequential", "--size", "128k", "--depth", "8"),
    "write 128k d8": bench("--write", "--sequential", "--size", "128k", "--depth", "8"),
    "gateway read 4k d1": through_gateway("--read"),
    "gateway write 4k d1": through_gateway("--write"),
}


# ---- ratios: name, value from a function of the medians, what it should be ----


def floor(m, hops, device):
    return hops * m["tcp ping-pong 4k"]["p50_ns"] + m[device]["p50_ns"]


# At depth 1 the medians are compared: what else the machine does shows in the averages.
RATIOS = (
    ("table lookup, ns", lambda m: m["lookup"]["ns"], "below 20"),
    ("read d1 / (ping-pong + file read)",
     lambda m: m["read 4k d1"]["p50_ns"] / floor(m, 1, "file read 4k d1"), "1 is the floor"),
    ("write d1 / (ping-pong + file write and fdatasync)",
     lambda m: m["write 4k d1"]["p50_ns"] / floor(m, 1, "file write 4k d1, fdatasync"), "1 is the floor"),
    ("gateway read d1 / (2 x ping-pong + file read)",
     lambda m: m["gateway read 4k d1"]["p50_ns"] / floor(m, 2, "file read 4k d1"), "1 is the floor"),
    ("gateway write d1 / (2 x ping-pong + file write and fdatasync)",
     lambda m: m["gateway write 4k d1"]["p50_ns"] / floor(m, 2, "file write 4k d1, fdatasync"), "1 is the floor"),
    ("read d32, of the file's ops/s", lambda m: m["read 4k d32"]["iops"] / m["file read 4k d32"]["iops"], ""),
    ("write d32, of the file's ops/s (dsync)",
     lambda m: m["write 4k d32"]["iops"] / m["file write 4k d32, dsync"]["iops"], ""),
    ("read 128k d8, of the file's bytes/s",
     lambda m: m["read 128k d8"]["bytes_per_second"] / m["file read 128k d8"]["bytes_per_second"], ""),
    ("write 128k d8, of the file's bytes/s (dsync)",
     lambda m: m["write 128k d8"]["bytes_per_second"] / m["file write 128k d8, dsync"]["bytes_per_second"], ""),
)


def measure(sides, o):
    """{side: {case: {figure: median}}}; every round runs every case on every side, the sides in turns."""
    seen = {side.name: {case: [] for case in o.cases} for side in sides}
    for number in range(o.rounds):
        for i, (name, case) in enumerate(o.cases.items()):
            for side in sides if (number + i) % 2 == 0 else reversed(sides):
                if sys.stderr.isatty():
                    print(f"\r\033[Kround {number + 1} of {o.rounds}: {name} ({side.name})", end="", file=sys.stderr)
                seen[side.name][name].append(case(side, o))
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    medians = {}
    for side, cases in seen.items():
        medians[side] = {}
        for case, rows in cases.items():
            numbers = [k for k, v in rows[0].items() if isinstance(v, (int, float)) and not isinstance(v, bool)]
            medians[side][case] = {k: statistics.median(r[k] for r in rows) for k in numbers}
            main = "ns" if "ns" in rows[0] else "p50_ns"
            values = [r[main] for r in rows]
            medians[side][case]["spread"] = (max(values) - min(values)) / max(medians[side][case][main], 1)
    return medians


def idle(side, seconds):
    """Microseconds of CPU per second of each service when nobody asks for anything."""
    before = {s: side.loop_cpu_ns(s) for s in side.pids}
    time.sleep(seconds)
    return {s: (side.loop_cpu_ns(s) - before[s]) / 1000 / seconds for s in side.pids}


def machine(folder):
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        models = [line.split(":", 1)[1].strip() for line in f if line.startswith("model name")]
    filesystem = run(["stat", "-f", "-c", "%T", folder]).strip()
    return {"cpus": os.cpu_count(), "cpu": models[0] if models else platform.machine(), "kernel": platform.release(),
            "filesystem": filesystem, "load_before": os.getloadavg()[0]}


# ---- report ----


def us(row, key):
    return f"{row[key] / 1000:.1f}" if key in row else ""


def figures(name, m):
    print(f"\n### {name}: medians\n")
    print("| case | avg us | p50 us | p99 us | ops/s | MB/s | client CPU us/op | services CPU us/op | spread of p50 |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for case, row in m.items():
        if case == "lookup":
            continue
        iops = f"{row['iops']:.0f}" if "iops" in row else ""
        rate = f"{row['bytes_per_second'] / 1e6:.0f}" if "bytes_per_second" in row else ""
        print(f"| {case} | {us(row, 'avg_ns')} | {us(row, 'p50_ns')} | {us(row, 'p99_ns')} | {iops} | {rate} | "
              f"{us(row, 'cpu_ns_per_op')} | {us(row, 'service_cpu_ns_per_op')} | {row['spread'] * 100:.0f} % |")


def ratios(medians):
    found = []
    for name, value, aim in RATIOS:
        try:
            found.append((name, {side: value(m) for side, m in medians.items()}, aim))
        except KeyError:
            continue  # a case did not run
    return found


def report(result):
    m = result["machine"]
    print(f"{m['cpus']} CPUs ({m['cpu']}), kernel {m['kernel']}, {m['filesystem']}; load before {m['load_before']:.1f}; "
          f"{result['rounds']} rounds of {result['seconds']} s, one copy, tcp loopback, three OSDs on files.")
    if m["load_before"] > 0.5:
        print("Other loads were running: take ratios only.")
    sides = list(result["medians"])
    print("\n| ratio | " + " | ".join(sides) + " | aim |\n| --- | " + "---: | " * len(sides) + "--- |")
    for name, values, aim in ratios(result["medians"]):
        print(f"| {name} | " + " | ".join(f"{values[s]:.2f}" for s in sides) + f" | {aim} |")
    for side, medians in result["medians"].items():
        figures(side, medians)
    print("\n### CPU when idle, us per second\n")
    for side, services in result["idle_us_per_second"].items():
        print(f"{side}: " + ", ".join(f"{name} {value:.0f}" for name, value in services.items()))


def options():
    p = argparse.ArgumentParser(usage="run.sh [--quick] [--json] [--versus BIN_DIR] [--rounds N] [--seconds N]")
    p.add_argument("folder")
    p.add_argument("--quick", action="store_true")
    p.add_argument("--json", action="store_true")
    p.add_argument("--versus")
    p.add_argument("--rounds", type=int)
    p.add_argument("--seconds", type=int)
    o = p.parse_args()
    o.rounds = o.rounds or (2 if o.quick else 5)
    o.seconds = o.seconds or (1 if o.quick else 3)
    o.cases = dict(CASES)
    if shutil.which("fio") is None:
        print("measure.py: fio is not installed: no figures of the bare file (./dev deps)", file=sys.stderr)
        o.cases = {k: v for k, v in CASES.items() if not k.startswith("file ")}
    return o


def main():
    o = options()
    sides = [Side(n, os.path.join(o.folder, n)) for n in ("this", "versus") if os.path.isdir(os.path.join(o.folder, n))]
    result = {"machine": machine(o.folder), "rounds": o.rounds, "seconds": o.seconds}
    volume = 256 if o.quick else 768
    for side in sides:
        side.cistern("volume", "create", "bench", f"{volume}M")
        # Holes read faster than data: everything is written once.
        side.cistern("bench", "bench", "--write", "--sequential", "--size", "1M", "--depth", "4", "--ops", str(volume))
    result["idle_us_per_second"] = {side.name: idle(side, 3 if o.quick else 5) for side in sides}
    result["medians"] = measure(sides, o)
    result["ratios"] = {name: values for name, values, _aim in ratios(result["medians"])}
    if o.json:
        json.dump(result, sys.stdout, indent=1)
        print()
    else:
        report(result)


if __name__ == "__main__":
    main()
