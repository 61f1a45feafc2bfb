#!/usr/bin/env python3
"""op_counts.py CISTERN DIR OPS FORM mdc=ADDR osd=ADDR gateway=ADDR: called by op_counts.sh, on a cluster that runs.

Each case runs twice, with few operations and with OPS more; the difference of what each process counted, divided by OPS,
is what one operation costs. What a run does once (connecting, opening, reading the counters) is in both and goes away;
what goes by time (signs of life, heartbeats) does not, and is less than the rounding where operations are fast.
"""
import json
import subprocess
import sys

FEW = 100
# counter -> what it is called in the table
COUNTERS = (
    ("messages_sent", "messages sent"),
    ("send_calls", "doorbells (tcp: sendmsg)"),
    ("work_requests", "send work requests (tcp: frames)"),
    ("inline_sends", "  of these inline"),
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
    ("invalidations", "memory windows invalidated"),
    ("credit_waits", "waits for credits"),
)


class Cluster:
    def __init__(self, cistern, folder, services):
        self.cistern, self.folder, self.services = cistern, folder, services

    def run(self, *words):
        run = subprocess.run([self.cistern, *words], capture_output=True, text=True, check=False)
        if run.returncode != 0:
            sys.exit(f"op_counts.py: {' '.join(words)}: {run.stderr}")
        return run.stdout

    def counters(self):
        """{process: {counter: value}} of the services."""
        return {name: {c["counter"]: c["value"] for c in json.loads(self.run("--json", "fabric", "counters", addr))}
                for name, addr in self.services.items()}

    def spend(self, path, op, depth, ops):
        """What one run of the load cost each process, and its seconds."""
        config = f"{self.folder}/{'client' if path == 'direct' else 'gateway'}.conf"
        mine = f"{self.folder}/counters"
        before = self.counters()
        out = json.loads(self.run("--config", config, "--json", "bench", "data", f"--{op}", "--depth", str(depth),
                                  "--size", "4k", "--ops", str(ops), "--runtime", "600s", "--counters", mine))
        after = self.counters()
        spent = {name: {c: after[name][c] - before[name].get(c, 0) for c in after[name]} for name in after}
        with open(mine, encoding="ascii") as f:
            spent["client"] = {name: int(value) for name, value in (line.split() for line in f)}
        return spent, out[0]["measured_ns"] / 1e9


def measure(cluster, ops):
    cases = []
    for path in ("direct", "gateway"):
        for op in ("read", "write"):
            for depth in (1, 32):
                few, _ = cluster.spend(path, op, depth, FEW)
                many, seconds = cluster.spend(path, op, depth, FEW + ops)
                cost = {name: {c: (many[name][c] - few[name][c]) / ops for c in many[name]} for name in many}
                cases.append({"path": path, "op": op, "depth": depth, "seconds": seconds, "cost": cost})
                print(f"{path} {op} at depth {depth}: {seconds:.1f} s", file=sys.stderr)
    return cases


def number(value):
    if abs(value) < 0.005:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}".rstrip("0").rstrip(".")


def table(cases, path):
    chosen = [c for c in cases if c["path"] == path]
    print("| process | per operation | " + " | ".join(f"{c['op']}, depth {c['depth']}" for c in chosen) + " |")
    print("| --- | --- |" + " ---: |" * len(chosen))
    for process in ("client", "gateway", "osd", "mdc"):
        first = process
        for counter, title in COUNTERS:
            values = [number(c["cost"][process].get(counter, 0)) for c in chosen]
            if not any(values) or (process == "mdc" and all(float(v or 0) < 0.05 for v in values)):
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
