"""./dev bench --stages: where the time of one of our operations goes, from what the services themselves count.

A cluster of ours as in the comparison, with metrics. Per operation: what fio sees; of it what passes between the arrival of the
request at the module and its answer; the rest is the way there and back. Beside it what was done for it: device requests (a
write's also after its answer, when the journal is taken to its place), system calls of the network, sleeps; and CPU time of each
process, of it in the kernel. With several copies "the module" is the primary and the others together, forwarded requests not counted.
Averages over a whole load: sums of the histograms divided by the number of operations.
"""
import json
import os
import re
import shutil
import tempfile
import urllib.request

import engines
import fio
import ours
import procs
import report
import shapes

TICK_US = 1e6 / os.sysconf("SC_CLK_TCK")


class Told:
    """The metrics of some services, added up; and their CPU time in the kernel."""

    def __init__(self, cluster):
        self.values, self.sleeps, self.kernel_us = {}, {}, {}
        for service in cluster.services:
            with urllib.request.urlopen(f"http://127.0.0.1:{cluster.metrics[service.name]}/metrics", timeout=10) as page:
                text = page.read().decode()
            for name, labels, value in re.findall(r"^(\w+)(?:{([^}]*)})? ([\d.eE+-]+)$", text, re.M):
                op = re.search(r'op="(\w+)"', labels)
                key = name + (f".{op.group(1)}" if op else "")
                if service.name != "mdc":
                    self.values[key] = self.values.get(key, 0) + float(value)
            with open(f"/proc/{service.child.pid}/stat", encoding="ascii") as f:
                self.kernel_us[service.name] = int(f.read().rsplit(")", 1)[1].split()[12]) * TICK_US

    def since(self, before):
        """A function of the name: how much it has grown."""
        return lambda key: self.values.get(key, 0) - before.values.get(key, 0)


def stage(contestant, shape, o):
    """One load, and what the modules counted meanwhile."""
    cluster = contestant.backend
    fio.load(shape, o, 7, contestant.fio_arguments(), cluster.services, env=engines.preload(o))  # warm
    warmup, o.warmup = o.warmup, 0
    before = Told(cluster)
    row = fio.load(shape, o, 8, contestant.fio_arguments(), cluster.services, env=engines.preload(o))
    after = Told(cluster)
    o.warmup = warmup
    grown, op = after.since(before), "read" if shapes.is_read(shape) else "write"
    ios = row["ios"]
    handled = grown(f"cistern_module_request_seconds_count.{op}")
    if not handled:
        raise procs.Failed("the modules' metrics tell nothing of this load")

    def device(kind):
        count = grown(f"cistern_store_device_seconds_count.{kind}")
        return {"per_io": count / ios, "us_each": grown(f"cistern_store_device_seconds_sum.{kind}") * 1e6 / count if count else 0}

    return {"shape": shape.name, "client_us": row["avg_us"], "client_p50_us": row["p50_us"], "iops": row["iops"],
            "module_us": grown(f"cistern_module_request_seconds_sum.{op}") * 1e6 / handled,
            "device": {kind: device(kind) for kind in ("read", "write", "flush")},
            "osd_sleeps_per_io": grown("cistern_loop_sleeps_total") / ios,
            "osd_sends_per_io": grown("cistern_fabric_send_calls_total") / ios,
            "osd_receives_per_io": grown("cistern_fabric_recv_calls_total") / ios,
            "bytes_written_per_byte": grown("cistern_store_device_written_bytes_total") /
                                      max(grown("cistern_store_client_written_bytes_total"), 1),
            "cpu_us": {"client": row["client_cpu_us"], **row["services_cpu_us"]},
            "osd_kernel_us": sum(us - before.kernel_us[name] for name, us in after.kernel_us.items() if name != "mdc") / ios}


def table(rows, medium, copies):
    head = ["", "fio sees, us", "way there and back", "in the module", "device work", "device requests per operation (us each)", "OSD sleeps",
            "OSD send / recv calls", "CPU us: client", "OSDs", "of it kernel", "MDC"]
    cells = []
    for r in rows:
        shape = next(s for s in shapes.SHAPES if s.name == r["shape"])
        kinds = [(k, d) for k, d in r["device"].items() if d["per_io"] > 0.02]
        used = " + ".join(f"{d['per_io']:.2f} {k} ({d['us_each']:.0f})" for k, d in kinds)
        device_us = sum(d["per_io"] * d["us_each"] for _k, d in kinds) if shape.depth == 1 else None
        osds = sum(us for name, us in r["cpu_us"].items() if name.startswith("osd"))
        cells.append([shape.title, report.number(r["client_us"]), report.number(r["client_us"] - r["module_us"]),
                      report.number(r["module_us"]), report.number(device_us), used, f"{r['osd_sleeps_per_io']:.2f}",
                      f"{r['osd_sends_per_io']:.2f} / {r['osd_receives_per_io']:.2f}", report.number(r["cpu_us"]["client"]),
                      report.number(osds), report.number(r["osd_kernel_us"]), report.number(r["cpu_us"]["mdc"])])
    return f"### {medium}, {copies} cop{'y' if copies == 1 else 'ies'}\n\n" + report.markdown_table(head, cells)


def keep(o, found, parts):
    """What there is so far: an interrupted run keeps it."""
    if not o.out:
        return
    os.makedirs(o.out, exist_ok=True)
    with open(os.path.join(o.out, "stages.json"), "w", encoding="utf-8") as f:
        json.dump(found, f, indent=1)
        f.write("\n")
    with open(os.path.join(o.out, "stages.md"), "w", encoding="utf-8") as f:
        f.write("\n\n".join(parts) + "\n")


def run(o):
    found, parts = [], []
    for medium in ("ram", "disk"):
        for copies in (1, 2, 3):
            if medium not in o.media or f"cistern-{copies}" not in o.names:
                continue
            base = {"ram": o.ram_dir, "disk": o.disk_dir}[medium]
            folder = tempfile.mkdtemp(prefix="cistern-bench.", dir=base)
            o.scratch = folder
            contestant = ours.Cistern(copies)
            contestant.backend = cluster = ours.Cluster(o, medium, os.path.join(folder, "cluster"), copies)
            cluster.with_metrics = True
            try:
                cluster.ensure()
                contestant.prepare(o)
                if contestant.engine is None:
                    raise procs.Failed("this needs fio's engine of libcistern (./dev bench --fio-engine says why there is none)")
                rows = [stage(contestant, s, o) for s in shapes.SHAPES if s.name in o.shapes]
            finally:
                cluster.stop()
                shutil.rmtree(folder, ignore_errors=True)
            found.append({"medium": medium, "copies": copies, "rows": rows})
            parts.append(table(rows, medium, copies))
            keep(o, found, parts)
    print("\n\n".join(parts))
    return 0
