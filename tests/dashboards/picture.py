#!/usr/bin/env python3
"""Draws panels of the dashboards as Grafana would about plot them, from rows that Telegraf wrote.

    picture.py ROWS PICTURE.png

Titles, units, stacking, queries and names of series are those of the dashboards' files; the queries run
in SQL on DataFusion. Needs matplotlib beside what run_queries.py needs. The rows are those of
`rows_for_the_picture` in tests/telegraf/dashboards.rs.
"""

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
from run_queries import DataFusion, chosen, dashboards  # noqa: E402

PANELS = [
    ("hypervisor", "CPU cores used, by VM"),
    ("hypervisor", "CPUs given out and used"),
    ("hypervisor", "Network sent by VMs"),
    ("hypervisor", "Disk written, by VM"),
    ("vm", "CPU cores"),
    ("vm", "Memory"),
    ("vm", "Disk bytes, by disk"),
    ("vm", "Disk operations, by disk"),
    ("vm", "State"),
]
PALETTE = ["#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9"]
BACK, PANEL, GRID, TEXT = "#111217", "#181b1f", "#2c3035", "#ccccdc"
COLOURS = {"green": "#73bf69", "orange": "#ff9830", "text": "#8e8e8e", "red": "#f2495c"}


def scaled(value, unit):
    """A number with Grafana's prefixes for that unit."""
    base, names = {
        "Bps": (1000, ["B/s", "kB/s", "MB/s"]), "kbytes": (1024, ["KiB", "MiB", "GiB"]),
        "bytes": (1024, ["B", "KiB", "MiB", "GiB"]), "iops": (1000, ["io/s", "kio/s"]), "none": (1000, [""]),
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
    axes.set_ylim(bottom=0)
    axes.margins(y=0.15)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: scaled(value, unit)))
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


def main():
    rows = [parse(line) for line in pathlib.Path(sys.argv[1]).read_text().split("\n") if line]
    span = (min(row[3] for row in rows), max(row[3] for row in rows))
    begin, end = clock(span[0] + 10 * 10**9), clock(span[1] - 5 * 10**9)
    engine = DataFusion(rows)
    by_name = {tags["name"].split("-")[-1]: tags["uuid"] for table, tags, _, _ in rows if table == "vm_metrics"}
    plot.rcParams |= {
        "font.family": "DejaVu Sans", "font.size": 8.5, "text.color": TEXT, "axes.edgecolor": GRID, "axes.labelcolor": TEXT,
        "xtick.color": TEXT, "ytick.color": TEXT, "axes.facecolor": PANEL, "figure.facecolor": BACK,
    }
    figure = plot.figure(figsize=(15.5, 12.2), dpi=80)
    grid = figure.add_gridspec(5, 2, height_ratios=[1, 1, 1, 1, 0.42], hspace=0.42, wspace=0.5,
                               left=0.062, right=0.885, top=0.955, bottom=0.035)
    for number, (name, title) in enumerate(PANELS):
        dashboard = dashboards("sql")[name]
        vm = "mail" if title == "State" else "db"
        values, _ = chosen(dashboard, engine, span, {"host": "kvm01", "vm": by_name[vm], "tag": "name"})
        panel = next(one for one in dashboard["panels"] if one["title"] == title)
        axes = figure.add_subplot(grid[number // 2, number % 2] if number < 8 else grid[4, :])
        found = {}
        for target in panel["targets"]:
            display = panel["fieldConfig"]["defaults"]["displayName"]
            answer = engine.query(target | {"display": display}, values, span)
            if isinstance(answer, list):
                bars(axes, panel, answer, begin)
            else:
                # Without the lab's prefix of the name; the first bin is not whole.
                found |= {series.split("-")[-1]: points for series, points in answer.items()}
        if found:
            lines(axes, panel, found)
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
