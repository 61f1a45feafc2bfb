"""From all measurements to medians, a table, result files."""
import json
import os
import shutil
import statistics

import shapes

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FIGURES = ("iops", "mb_per_s", "avg_us", "p50_us", "p99_us", "p999_us", "client_cpu_us", "cpu_us", "machine_busy_cpus",
           "load_average")


def add(result, medium, rows):
    """rows: {(shape, contestant): [row, ...]}."""
    order = list(result["contestants"])
    for (shape, contestant), repeats in sorted(rows.items(), key=lambda x: (result["settings"]["shapes"].index(x[0][0]),
                                                                            order.index(x[0][1]))):
        medians = {f: statistics.median(r[f] for r in repeats) for f in FIGURES if f in repeats[0]}
        medians["services_cpu_us"] = {s: statistics.median(r["services_cpu_us"][s] for r in repeats)
                                      for s in repeats[0]["services_cpu_us"]}
        spread = {f: (max(r[f] for r in repeats) - min(r[f] for r in repeats)) / max(medians[f], 1e-9)
                  for f in ("iops", "p50_us", "cpu_us") if f in medians}
        result["results"].append({"medium": medium, "shape": shape, "contestant": contestant, "median": medians,
                                  "spread": spread, "repeats": repeats})


def number(value):
    """Three digits that mean something, and no more than a table needs."""
    if value is None:
        return "-"
    if value >= 100:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


COLUMNS = (("IOPS", "iops"), ("MB/s", "mb_per_s"), ("avg us", "avg_us"), ("p50 us", "p50_us"), ("p99 us", "p99_us"),
           ("p99.9 us", "p999_us"), ("CPU us/IO", "cpu_us"), ("of it client", "client_cpu_us"))


def table_rows(result, medium, shape):
    for r in result["results"]:
        if r["medium"] == medium and r["shape"] == shape.name:
            who = result["contestants"][r["contestant"]]
            yield [who["title"] + (" (floor)" if who["floor"] else ""), *(number(r["median"].get(key)) for _t, key in COLUMNS),
                   f"{r['spread']['iops'] * 100:.0f} %"]


def markdown_table(head, rows, texts=1):
    """Aligned, so that it reads in a terminal too; so many columns from the left are texts."""
    rows = [list(head), *rows]
    width = [max(len(row[i]) for row in rows) for i in range(len(head))]

    def line(cells):
        return "| " + " | ".join(c.ljust(w) if i < texts else c.rjust(w) for i, (c, w) in enumerate(zip(cells, width))) + " |"

    rule = "| " + " | ".join("-" * w if i < texts else "-" * (w - 1) + ":" for i, w in enumerate(width)) + " |"
    return "\n".join([line(rows[0]), rule, *map(line, rows[1:])])


def glance_cell(r, shape):
    if r is None:
        return ""
    m = r["median"]
    main = m["mb_per_s"] if shape.figure == "bytes" else m["avg_us"] if shape.depth == 1 else m["iops"]
    return f"{number(main)}; {number(m['cpu_us'])}"


def glance(result, medium, chosen):
    """One line a contestant: its main figure and CPU time in each shape."""
    found = {(r["contestant"], r["shape"]): r for r in result["results"] if r["medium"] == medium}
    heads = {("iops", 1): "avg us", ("iops", 32): "IOPS", ("bytes", 8): "MB/s"}
    head = ["", *(f"{s.title.replace('random ', '').replace('sequential ', '').replace(', depth ', ' d')}: "
                  f"{heads[s.figure, s.depth]}; CPU us" for s in chosen)]
    rows = [[who["title"] + (" (floor)" if who["floor"] else ""), *(glance_cell(found.get((name, s.name)), s) for s in chosen)]
            for name, who in result["contestants"].items() if any((name, s.name) in found for s in chosen)]
    return markdown_table(head, rows)


def preface(result):
    m, s = result["machine"], result["settings"]
    lines = [f"{m['cpus']} CPUs ({m['cpu']}), {m['memory_bytes'] >> 30} GiB, kernel {m['kernel']}, {m['system']}; "
             f"{result['started']}, revision {result['revision'] or 'unknown'}; load average before: {m['load_average_before'][0]:.1f}.",
             f"Medians of {s['rounds']} rounds of {s['seconds']} s after {s['warmup']} s of warm-up, everybody in turns within each shape; "
             f"volumes of {s['volume_bytes'] >> 20} MiB, written once before. Spread: highest minus lowest IOPS of the rounds, of the median.",
             "CPU: of the client and of all services of the contestant together, per I/O; in the guest of all that the guest did.",
             f"Again: `{result['command']}`"]
    if not result["complete"]:
        lines.insert(0, "**INTERRUPTED: what was measured until then; some medians are of fewer rounds.**")
    if result["sanitizers"]:
        lines.insert(0, "**BUILT WITH SANITIZERS: these figures mean nothing.**")
    return "\n\n".join(lines)


def markdown(result):
    parts = [preface(result)]
    for medium in shapes.MEDIA:
        chosen = [s for s in shapes.SHAPES if any(True for _ in table_rows(result, medium, s))]
        if chosen:
            parts.append(f"## {medium}: {shapes.MEDIA[medium]}")
            parts.append("At a glance: at depth 1 the average latency, at depth 32 IOPS, of 128 KiB MB/s; behind it the CPU time per I/O.")
            parts.append(glance(result, medium, chosen))
        for shape in chosen:
            parts.append(f"### {shape.title} ({medium})")
            parts.append(markdown_table(["", *(t for t, _k in COLUMNS), "spread"], list(table_rows(result, medium, shape))))
        idle = result["idle_cpu_us_per_second"].get(medium)
        if idle:
            parts.append("CPU of the services when idle, ms a second: " +
                         ", ".join(f"{name} {us / 1e3:.1f}" for name, us in idle.items()) + ".")
    parts.append("## Who is who")
    parts.append(markdown_table(["contestant", "what", "a write is done when", "load"],
                                [[c["title"], c["what"], c["durable"], c["client"]] for c in result["contestants"].values()], 4))
    if result["skipped"]:
        parts.append("## Left out")
        parts.append("\n".join(f"* {s['contestant']} on {s['medium']}{', ' + s['shape'] if 'shape' in s else ''}: "
                               f"{s['reason'].splitlines()[0]}" for s in result["skipped"]))
    return "\n\n".join(parts) + "\n"


def summary(result):
    """The result without the single measurements' command lines: small enough to be kept in the repository."""
    kept = {k: v for k, v in result.items() if k != "results"}
    kept["results"] = []
    for r in result["results"]:
        row = {k: v for k, v in r.items() if k != "repeats"}
        row["iops_of_rounds"] = [round(x["iops"], 1) for x in r["repeats"]]
        kept["results"].append(row)
    return kept


def write(result, out, publish):
    text = markdown(result)
    with open(os.path.join(out, "table.md"), "w", encoding="utf-8") as f:
        f.write(text)
    pictures = []
    try:
        import plots
        pictures = plots.draw(result, out)
    except ImportError as e:
        print(f"no pictures: {e} (Debian package python3-matplotlib)")
    print(text)
    print(f"in {out}: result.json, table.md{''.join(', ' + p for p in pictures)}")
    if publish:
        os.makedirs(publish, exist_ok=True)
        for name in ("table.md", *pictures):
            shutil.copy(os.path.join(out, name), publish)
        with open(os.path.join(publish, "summary.json"), "w", encoding="utf-8") as f:
            json.dump(summary(result), f, indent=1)
            f.write("\n")
