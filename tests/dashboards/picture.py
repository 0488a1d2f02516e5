#!/usr/bin/env python3
"""Draws panels of the dashboards as Grafana would about plot them, from rows that Telegraf wrote.

    picture.py ROWS PICTURE.png

Titles, units, stacking, levels, words, queries, annotations and names of series are those of the dashboards' files; the
queries run in SQL on DataFusion. Needs matplotlib beside what run_queries.py needs. The rows are those of
`rows_for_the_picture` in tests/telegraf/dashboards.rs.
"""

import math
import pathlib
import sys
from datetime import datetime, timezone

import matplotlib

matplotlib.use("Agg")
import matplotlib.dates as dates
import matplotlib.pyplot as plot
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator
from PIL import Image

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "sql")]
from doc_queries import parse  # noqa: E402
from engines import DataFusion  # noqa: E402
from run_queries import chosen, dashboards  # noqa: E402

HEAD = ["State now", "QEMU answers", "Up for", "vCPUs", "Memory now", "Host and owner"]
PANELS = [
    ("hypervisor", "CPU cores used, by VM"),
    ("hypervisor", "CPUs given out and used"),
    ("hypervisor", "CPU cores waited for, by VM"),
    ("hypervisor", "CPU cores stopped by the quota, by VM"),
    ("hypervisor", "Waiting for CPU, by VM"),
    ("vm", "CPU steal"),
    ("vm", "Disk latency, by disk"),
    ("vm", "Request size, by disk"),
    ("vm", "Flushes, by disk"),
    ("vm", "I/O errors, by disk"),
    ("vm", "Disk sizes, by disk"),
    ("vm", "Guest memory used"),
    ("vm", "State"),
]
PALETTE = ["#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#ca95e5", "#37872d"]
BACK, PANEL, GRID, TEXT = "#111217", "#181b1f", "#2c3035", "#ccccdc"
COLOURS = {"green": "#73bf69", "orange": "#ff9830", "text": "#8e8e8e", "red": "#f2495c", "blue": "#5794f2", "purple": "#b877d9"}


def scaled(value, unit):
    """A number with Grafana's prefixes for that unit."""
    base, names = {
        "Bps": (1000, ["B/s", "kB/s", "MB/s"]), "kbytes": (1024, ["KiB", "MiB", "GiB"]),
        "bytes": (1024, ["B", "KiB", "MiB", "GiB"]), "iops": (1000, ["io/s", "kio/s"]), "none": (1000, [""]),
        "percent": (1000, ["%"]), "s": (60, ["s", "min"]), "ms": (1000, ["ms", "s"]),
    }.get(unit, (1000, [unit]))
    for name in names[:-1]:
        if abs(value) < base:
            return f"{value:.3g} {name}"
        value /= base
    return f"{value:.3g} {names[-1]}"


def clock(ns):
    return datetime.fromtimestamp(ns / 1e9, timezone.utc)


def lines(axes, panel, found):
    unit = panel["fieldConfig"]["defaults"]["unit"]
    stacked = panel["fieldConfig"]["defaults"]["custom"]["stacking"]["mode"] == "normal"
    times = sorted({time for values in found.values() for time in values})
    floor = [0.0] * len(times)
    # The biggest at the bottom, as a reader would sort them.
    order = sorted(found, key=lambda name: (-sum(found[name].values()), name))
    for above, (colour, name) in enumerate(zip(PALETTE, order)):
        values = [found[name].get(time) for time in times]
        x = [clock(time) for time in times]
        mean = sum(found[name].values()) / len(found[name])
        label = f"{name}   {scaled(mean, unit)}"
        if stacked:
            top = [below + (value or 0) for below, value in zip(floor, values)]
            axes.fill_between(x, floor, top, color=colour, alpha=0.45, linewidth=0)
            axes.plot(x, top, color=colour, linewidth=1.1, label=label, zorder=20 - above)
            floor = top
        else:
            x, values = zip(*[(t, value) for t, value in zip(x, values) if value is not None])
            axes.fill_between(x, 0, values, color=colour, alpha=0.08, linewidth=0)
            axes.plot(x, values, color=colour, linewidth=1.1, label=label)
    axes.margins(y=0.15)
    axes.autoscale()
    axes.set_ylim(bottom=0)
    top = axes.get_ylim()[1]
    for step in panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", [])[1:]:
        if step["value"] < top:
            axes.axhline(step["value"], color=COLOURS[step["color"]], linewidth=1, linestyle=(0, (5, 3)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: scaled(value, unit)))
    if unit == "bytes":
        axes.yaxis.set_major_locator(MultipleLocator(2 ** math.ceil(math.log2(top / 5))))
    else:
        axes.yaxis.set_major_locator(MultipleLocator(50 * 1024) if unit == "kbytes" else MaxNLocator(5))
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), frameon=False, fontsize=8, labelcolor=TEXT, handlelength=1.2)


def bars(axes, panel, rows, begin):
    words = panel["fieldConfig"]["defaults"]["mappings"][0]["options"]
    for row, field in enumerate(("state_reason", "state")):
        for one, after in zip(rows, rows[1:]):
            word = one[field]
            colour = COLOURS[words[word]["color"]] if word in words else "#8ab8ff"
            start, stop = dates.date2num(clock(one["time"])), dates.date2num(clock(after["time"]))
            axes.barh(row, stop - start, left=start, height=0.8, color=colour, linewidth=0)
        changes = [one for i, one in enumerate(rows) if i == 0 or one[field] != rows[i - 1][field]]
        for one in changes:
            start = max(clock(one["time"]), begin)
            axes.text(dates.date2num(start), row, f"  {one[field]}", va="center", fontsize=9, color=BACK)
    axes.set_yticks([0, 1], ["reason", "state"])
    axes.xaxis_date()


def word(panel, value):
    """A single value as Grafana shows it, and its colour."""
    defaults = panel["fieldConfig"]["defaults"]
    for mapping in defaults.get("mappings", []):
        if str(value) in mapping["options"]:
            shown = mapping["options"][str(value)]
            return shown["text"], COLOURS[shown["color"]]
    return scaled(value, defaults["unit"]), PALETTE[0]


def head(figure, grid, dashboard, engine, values, span):
    """The row of single values at the top of a VM's dashboard."""
    row = grid.subgridspec(1, len(HEAD), width_ratios=[1, 1, 1, 1, 1, 2.2], wspace=0.06)
    for cell, title in zip(row, HEAD):
        panel = next(one for one in dashboard["panels"] if one["title"] == title)
        (answer,) = engine.query(panel["targets"][0], values, span)
        answer.pop("time", None)
        axes = figure.add_subplot(cell)
        axes.set_xticks([])
        axes.set_yticks([])
        for edge in axes.spines.values():
            edge.set_visible(False)
        axes.text(0.03, 0.93, title, fontsize=8.5, color="#ffffff", va="top", fontweight="bold", transform=axes.transAxes)
        if panel["type"] == "table":
            names = [name for name in ("host", "name", "owner") if name in answer]
            for i, name in enumerate(names):
                x = 0.03 + 0.33 * i
                axes.text(x, 0.5, name, fontsize=8, color="#8e8e9a", va="center", transform=axes.transAxes)
                axes.text(x, 0.2, answer[name].split("-")[-1], fontsize=10, color=TEXT, va="center", transform=axes.transAxes)
        else:
            (value,) = answer.values()
            text, colour = word(panel, value)
            axes.text(0.5, 0.4, text, fontsize=16, color=colour, ha="center", va="center", transform=axes.transAxes)


def main():
    rows = [parse(line) for line in pathlib.Path(sys.argv[1]).read_text().split("\n") if line]
    span = (min(row[3] for row in rows), max(row[3] for row in rows))
    begin, end = clock(span[0] + 10 * 10**9), clock(span[1] - 5 * 10**9)
    engine, files = DataFusion(rows), dashboards("sql")
    by_name = {tags["name"].split("-")[-1]: tags["uuid"] for table, tags, _, _ in rows if table == "vm_metrics"}

    def choose(name, vm):
        return chosen(files[name], engine, span, {"host": "kvm01", "vm": by_name[vm], "tag": "project"})[0]

    plot.rcParams |= {
        "font.family": "DejaVu Sans", "font.size": 8.5, "text.color": TEXT, "axes.edgecolor": GRID, "axes.labelcolor": TEXT,
        "xtick.color": TEXT, "ytick.color": TEXT, "axes.facecolor": PANEL, "figure.facecolor": BACK,
    }
    figure = plot.figure(figsize=(15.5, 16.4), dpi=80)
    grid = figure.add_gridspec(8, 2, height_ratios=[0.4, *[1] * 6, 0.42], hspace=0.42, wspace=0.5,
                               left=0.062, right=0.885, top=0.985, bottom=0.03)
    head(figure, grid[0, :], files["vm"], engine, choose("vm", "db"), span)
    for number, (name, title) in enumerate(PANELS, 2):
        dashboard = files[name]
        vm = "mail" if title == "State" else "db"
        values = choose(name, vm)
        panel = next(one for one in dashboard["panels"] if one["title"] == title)
        axes = figure.add_subplot(grid[number // 2, number % 2] if number < 14 else grid[7, :])
        found = {}
        for target in panel["targets"]:
            display = panel["fieldConfig"]["defaults"]["displayName"]
            answer = engine.query(target | {"display": display}, values, span)
            if isinstance(answer, list):
                bars(axes, panel, answer, begin)
            else:
                # Without the lab's prefix of the name; the first bin is not whole. SQL has series of nothing, too.
                found |= {series.split("-")[-1]: points for series, points in answer.items() if points}
        if found:
            lines(axes, panel, found)
            for annotation in dashboard["annotations"]["list"]:
                for time, _ in engine.events(annotation, values, span):
                    colour = COLOURS[annotation["iconColor"]]
                    axes.axvline(clock(time), color=colour, linewidth=1, linestyle=(0, (3, 3)))
                    axes.plot([clock(time)], [0], marker="^", color=colour, markersize=7, clip_on=False, zorder=30)
        where = "kvm01" if name == "hypervisor" else f"kvm01 / {vm}"
        axes.set_title(title, loc="left", fontsize=10.5, color="#ffffff", fontweight="bold")
        axes.set_title(f"{dashboard['title'].split(' (')[0]}: {where}", loc="right", fontsize=8.5, color="#8e8e9a")
        axes.grid(color=GRID, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.set_xlim(begin, end)
        axes.xaxis.set_major_formatter(dates.DateFormatter("%H:%M"))
        axes.xaxis.set_major_locator(dates.MinuteLocator())
        for edge in axes.spines.values():
            edge.set_visible(False)
        axes.tick_params(length=0)
    figure.canvas.draw()
    # 256 colours are enough, and a quarter of the bytes.
    image = Image.frombuffer("RGBA", figure.canvas.get_width_height(), figure.canvas.buffer_rgba()).convert("RGB")
    image.quantize(256).save(sys.argv[2], optimize=True)


if __name__ == "__main__":
    main()
