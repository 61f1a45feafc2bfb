#!/usr/bin/env python3
"""op_counts.py CISTERN DIR OPS FORM mdc=ADDR osd=ADDR gateway=ADDR: called by op_counts.sh, on a cluster that runs.

Each case runs twice, with few operations and with OPS more (a quarter of that at depth 1); the difference of what each
process counted, divided by that number, is what one operation costs. What a run does once (connecting, opening, reading
the counters) is in both and goes away. What services do by time (signs of life, heartbeats) was counted before, while
nothing ran, and is taken off; the client's own is not, and shows in the second decimal where operations are slow.
"""
import json
import subprocess
import sys
import time

FEW = 100
IDLE_SECONDS = 10
SMALL, SMALL_BYTES = 0.015, 5  # are not shown
# counter -> what it is called in the table
COUNTERS = (
    ("messages_sent", "messages sent"),
    ("send_calls", "doorbells (tcp: sendmsg)"),
    ("work_requests", "send work requests (tcp: frames)"),
    ("inline_sends", "  of these inline"),
    ("signalled", "  of these with a completion"),
    ("fetches", "payloads fetched (RDMA read)"),
    ("pushes", "payloads pushed (RDMA write)"),
    ("recv_calls", "receive postings (tcp: recvmsg)"),
    ("completions", "completions"),
    ("polls", "queue polls"),
    ("wakeups", "completion events (tcp: ready sockets)"),
    ("loop_sleeps", "sleeps of the loop"),
    ("bytes_copied", "bytes copied by the fabric"),
    ("registrations", "memory registrations"),
    ("binds", "memory windows bound"),
    ("invalidations", "memory windows invalidated by a request"),
    ("ended_by_peer", "memory windows invalidated by the reply"),
    ("credit_waits", "waits for credits"),
)


class Cluster:
    def __init__(self, cistern, folder, services):
        self.cistern, self.folder, self.services = cistern, folder, services
        self.idle = {}

    def run(self, *words):
        run = subprocess.run([self.cistern, *words], capture_output=True, text=True, check=False)
        if run.returncode != 0:
            sys.exit(f"op_counts.py: {' '.join(words)}: {run.stderr}")
        return run.stdout

    def counters(self):
        """{process: {counter: value}} of the services."""
        return {name: {c["counter"]: c["value"] for c in json.loads(self.run("--json", "fabric", "counters", addr))}
                for name, addr in self.services.items()}

    def watch_idle(self, seconds):
        """What services do by themselves in a second, with what it costs to ask them taken off."""
        reads = [self.counters() for _ in range(2)]
        begin = time.monotonic()
        time.sleep(seconds)
        end = self.counters()
        seconds = time.monotonic() - begin
        for name, first in reads[0].items():
            self.idle[name] = {c: (end[name][c] - 2 * reads[1][name][c] + first[c]) / seconds for c in first}

    def spend(self, path, op, depth, ops):
        """What one run of the load cost each process, and its seconds."""
        config = f"{self.folder}/{'client' if path == 'direct' else 'gateway'}.conf"
        mine = f"{self.folder}/counters"
        before, begin = self.counters(), time.monotonic()
        out = json.loads(self.run("--config", config, "--json", "bench", "data", f"--{op}", "--depth", str(depth),
                                  "--size", "4k", "--ops", str(ops), "--runtime", "600s", "--counters", mine))
        after, seconds = self.counters(), time.monotonic() - begin
        spent = {name: {c: after[name][c] - before[name][c] - self.idle[name][c] * seconds for c in after[name]}
                 for name in after}
        with open(mine, encoding="ascii") as f:
            spent["client"] = {name: int(value) for name, value in (line.split() for line in f)}
        return spent, out[0]["measured_ns"] / 1e9


def measure(cluster, all_ops):
    cases = []
    cluster.watch_idle(IDLE_SECONDS)
    for path in ("direct", "gateway"):
        for op in ("read", "write"):
            for depth in (1, 32):
                ops = all_ops if depth > 1 else max(all_ops // 4, 1)
                few, _ = cluster.spend(path, op, depth, FEW)
                many, seconds = cluster.spend(path, op, depth, FEW + ops)
                cost = {name: {c: (many[name][c] - few[name][c]) / ops for c in many[name]} for name in many}
                cases.append({"path": path, "op": op, "depth": depth, "seconds": seconds, "cost": cost})
                print(f"{path} {op} at depth {depth}: {seconds:.1f} s", file=sys.stderr)
    return cases


def number(counter, value):
    if abs(value) < (SMALL_BYTES if counter.startswith("bytes") else SMALL):
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}".rstrip("0").rstrip(".")


def table(cases, path):
    chosen = [c for c in cases if c["path"] == path]
    print("| process | per operation | " + " | ".join(f"{c['op']}, depth {c['depth']}" for c in chosen) + " |")
    print("| --- | --- |" + " ---: |" * len(chosen))
    for process in ("client", "gateway", "osd", "mdc"):
        first = process
        for counter, title in COUNTERS:
            values = [number(counter, c["cost"][process].get(counter, 0)) for c in chosen]
            if not any(values):
                continue
            print(f"| {first} | {title} | " + " | ".join(values) + " |")
            first = ""


def main():
    cistern, folder, ops, form = sys.argv[1:5]
    cluster = Cluster(cistern, folder, dict(a.split("=", 1) for a in sys.argv[5:]))
    cases = measure(cluster, int(ops))
    if form == "json":
        print(json.dumps(cases))
        return
    for path in ("direct", "gateway"):
        print(f"\n{'Direct to the module' if path == 'direct' else 'Through a gateway'}:\n")
        table(cases, path)


if __name__ == "__main__":
    main()
