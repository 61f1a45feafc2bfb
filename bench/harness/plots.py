"""Pictures of a result: rates, latencies and CPU time, a PNG for each medium and subject, a panel for each shape."""
import os

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402  the backend must be chosen first
from PIL import Image  # noqa: E402  matplotlib needs it too

import shapes  # noqa: E402

COLOURS = (("cistern-nbd", "#74a9cf"), ("cistern", "#1f6fb2"), ("ceph", "#d9822b"), ("nbdkit", "#5a9e4b"), ("tgt", "#9467a9"),
           ("nvmet", "#b0413e"))
FLOOR = "#9a9a9a"


def colour(result, name):
    if result["contestants"][name]["floor"]:
        return FLOOR
    return next((c for prefix, c in COLOURS if name.startswith(prefix)), "#555555")


def panels(result, medium, draw_panel, title, path):
    chosen = [s for s in shapes.SHAPES if any(r["medium"] == medium and r["shape"] == s.name for r in result["results"])]
    columns = 2
    lines = (len(chosen) + 1) // columns
    most = max(sum(r["medium"] == medium and r["shape"] == s.name for r in result["results"]) for s in chosen)
    figure, axes = pyplot.subplots(lines, columns, figsize=(13, lines * (0.9 + 0.27 * most)), squeeze=False)
    for i, axis in enumerate(axes.flat):
        if i >= len(chosen):
            axis.set_visible(False)
            continue
        rows = [r for r in result["results"] if r["medium"] == medium and r["shape"] == chosen[i].name]
        axis.set_title(chosen[i].title, fontsize=10)
        draw_panel(axis, chosen[i], rows)
        axis.set_yticks(range(len(rows)))
        axis.set_yticklabels([result["contestants"][r["contestant"]]["title"] for r in rows], fontsize=8)
        axis.invert_yaxis()
        axis.tick_params(axis="x", labelsize=8)
        axis.grid(axis="x", alpha=0.3)
        axis.set_axisbelow(True)
    what = "BUILT WITH SANITIZERS: means nothing" if result["sanitizers"] else result["started"][:10]
    figure.suptitle(f"{title} ({shapes.MEDIA[medium].split(',')[0]}; {what})", fontsize=11)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    pyplot.close(figure)
    with Image.open(path) as picture:  # few colours: a third of the size
        picture.convert("RGB").quantize(32).save(path, optimize=True)


def with_rounds(result, key, unit):
    """Bars of medians, with a line from the lowest to the highest round."""
    def draw_panel(axis, shape, rows):
        figure = "mb_per_s" if key == "rate" and shape.figure == "bytes" else "iops" if key == "rate" else key
        values = [r["median"][figure] for r in rows]
        low = [v - min(x[figure] for x in r["repeats"]) for v, r in zip(values, rows)]
        high = [max(x[figure] for x in r["repeats"]) - v for v, r in zip(values, rows)]
        axis.barh(range(len(rows)), values, xerr=[low, high], color=[colour(result, r["contestant"]) for r in rows],
                  error_kw={"elinewidth": 0.9, "ecolor": "#333333"})
        axis.set_xlabel(unit or ("MB/s" if figure == "mb_per_s" else "IOPS"), fontsize=8)
        for i, v in enumerate(values):
            axis.annotate(f" {v:,.0f}" if v >= 10 else f" {v:.1f}", (v + high[i], i), va="center", fontsize=7)
        axis.margins(x=0.14)

    return draw_panel


def latencies(result):
    def draw_panel(axis, _shape, rows):
        for i, r in enumerate(rows):
            m, c = r["median"], colour(result, r["contestant"])
            if "p50_us" in m:
                axis.plot([m["p50_us"], m["p999_us"]], [i, i], color=c, linewidth=1.5)
                for figure, mark in (("p50_us", "o"), ("p99_us", "s"), ("p999_us", "D")):
                    axis.plot([m[figure]], [i], mark, color=c, markersize=5)
            axis.plot([m["avg_us"]], [i], "|", color="black", markersize=9)
        axis.set_xscale("log")
        axis.set_xlabel("us: o p50, | average, square p99, diamond p99.9", fontsize=8)

    return draw_panel


def draw(result, out):
    """Names of the files made."""
    made = []
    subjects = (("rate", "Rate", with_rounds(result, "rate", None)), ("latency", "Latency", latencies(result)),
                ("cpu", "CPU time per I/O, client and services", with_rounds(result, "cpu_us", "us")))
    for medium in shapes.MEDIA:
        if not any(r["medium"] == medium for r in result["results"]):
            continue
        for name, title, panel in subjects:
            made.append(f"{medium}-{name}.png")
            panels(result, medium, panel, title, os.path.join(out, made[-1]))
    return made
