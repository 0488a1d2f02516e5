#!/usr/bin/env python3
"""Runs every query of the dashboards as Grafana would, in each language, and holds the answers
against each other and against the rows that Telegraf wrote.

    run_queries.py --rows FILE --influxdb HOST:PORT --prometheus HOST:PORT
        --busy UUID --paused UUID --asleep UUID --again UUID --owner TEXT

InfluxQL on the InfluxDB 1.x at HOST:PORT, whose database telegraf has the rows; PromQL on the Prometheus, to which the same
Telegrafs wrote them; SQL on DataFusion, the engine of InfluxDB 3, over the rows of FILE. The rows: host kvm01 with two
guests at work (one --busy), one in suspend to RAM (--asleep), a paused VM whose QEMU is frozen, one that was paused, ran,
and was started again (--again), and Telegraf's cpu and mem; host kvm02, where libvirt stood still before it fell silent for the
last 35 s at least. The busy VM alone has the tag project, with the value --owner; the queries run with this tag chosen, and all of its values.

Every query gives rows; the languages give the same series, with the same values; each value is
what its unit allows; the busy guest's rates are those of the rows; and some answers are known.
"""

import argparse
import json
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "sql")]
import grafana  # noqa: E402
from differences import differ, same  # noqa: E402
from doc_queries import parse  # noqa: E402
from engines import DataFusion, Influx, Prometheus  # noqa: E402
from grafana import Raw, Wrong  # noqa: E402
from known import known, known_events  # noqa: E402

ROOT = HERE.parents[1]
SECOND = 10**9
# What a value of that unit can be here: a host of some cores and gigabytes, small guests.
PLAUSIBLE = {
    "none": (0, 128), "kbytes": (10 * 1024, 1024**2), "bytes": (10 * 1024**2, 2**42), "Bps": (0, 10**9), "pps": (0, 10**6),
    "iops": (0, 10**6), "percent": (0, 400), "ns": (10**5, 10 * SECOND), "KiBs": (0, 10**6), "cps": (0, 10**7),
    "ms": (0, 10**4), "s": (0, 3600),
}
# The lab's images are small.
SIZES = {
    "Disk sizes, by disk": (0, 8 * 1024**2), "Disk sizes of the VM that was started again": (0, 8 * 1024**2),
    "Size of disks, by VM": (0, 24 * 1024**2),
    "Request size, by disk": (512, 1024**2), "I/O errors, by disk": (0, 10**5), "I/O errors, by VM": (0, 10**5),
    "Top VMs: I/O errors": (0, 10**6),
}


def dashboards(language):
    files = sorted((ROOT / "telegraf/grafana" / language).glob("*.json"))
    return {file.stem: json.loads(file.read_text()) for file in files}


def chosen(dashboard, engine, span, wanted):
    """The variables' values as a reader would choose them: what `wanted` says, else all."""
    values = {"__to": str(span[1] // 10**6), "datasource": "any"}
    choices = {}
    for variable in dashboard["templating"]["list"]:
        name = variable["name"]
        if variable["type"] == "custom":
            choices[name] = {one["text"]: one["value"] for one in variable["options"]}
            values[name] = choices[name]["1m" if name == "stale" else engine.gather]
        elif variable["type"] == "query":
            query = grafana.with_variables(variable["query"], values)
            choices[name] = grafana.options(engine.texts(query, span), variable["regex"])
            if not choices[name]:
                raise Wrong(f"no choices for {name}: {query}")
            everything = Raw(variable["allValue"]) if "allValue" in variable else sorted(choices[name].values())
            values[name] = everything if variable["multi"] else wanted[name]
            if name == "tagged" and "owner" in wanted:
                values[name] = [wanted["owner"]]
            if not variable["multi"] and wanted[name] not in choices[name].values():
                raise Wrong(f"{wanted[name]} is not among {choices[name]}")
    return values, choices


def as_words(answer, mappings):
    """What Grafana shows for numbers by a panel's mappings; a timeline's series become rows."""
    words = {value: one["text"] for mapping in mappings for value, one in mapping["options"].items()}

    def word(value):
        return words.get(str(int(value)), value) if isinstance(value, float) else value

    if isinstance(answer, dict):
        times = sorted({time for points in answer.values() for time in points})
        answer = [{"time": time} | {name: points[time] for name, points in answer.items() if time in points} for time in times]
    return [{name: word(value) if name != "time" else value for name, value in row.items()} for row in answer]


def panel_answers(engine, panel, values, span):
    """Letter -> answer. In PromQL the values of a query in the other languages are several, with one letter."""
    defaults, found = panel["fieldConfig"]["defaults"], {}
    names = panel.get("transformations", [{"options": {"renameByName": {}}}])[0]["options"]["renameByName"]
    for target in panel["targets"]:
        target = target | {"display": defaults.get("displayName", ""), "names": names}
        try:
            answer = engine.query(target, values, span)
        except Wrong as wrong:
            raise Wrong(f"{panel['title']} / {target['refId']}: {wrong}") from None
        letter = target["refId"][0]
        found[letter] = found[letter] | answer if letter in found else answer
    if engine.language == "promql" and panel["type"] in ("table", "state-timeline") and "mappings" in defaults:
        found = {letter: as_words(answer, defaults["mappings"]) for letter, answer in found.items()}
    return found


def answers(engine, span, wanted):
    """(dashboard, panel, letter) -> (unit, answer), (dashboard, variable) -> choices, and (dashboard, annotation) -> events
    of the VM that was started again."""
    found, offered, events = {}, {}, {}
    for name, dashboard in dashboards(engine.language).items():
        values, choices = chosen(dashboard, engine, span, wanted)
        offered |= {(name, variable): one for variable, one in choices.items()}
        for panel in dashboard["panels"]:
            if grafana.with_variables(panel["interval"], values) != engine.gather:
                raise Wrong(f"{panel['title']}: bins of {panel['interval']}")
            try:
                for letter, answer in panel_answers(engine, panel, values, span).items():
                    found[name, panel["title"], letter] = (panel["fieldConfig"]["defaults"]["unit"], answer)
            except Wrong as wrong:
                raise Wrong(f"{name} / {wrong}") from None
        for annotation in dashboard["annotations"]["list"]:
            about = values | {"vm": wanted["again"]}
            # libvirt stood still on the other host.
            if annotation["name"] == "Collector in trouble" and isinstance(values["host"], str):
                about["host"] = "kvm02"
            events[name, annotation["name"]] = engine.events(annotation, about, span)
        if name == "vm":
            sizes = next(panel for panel in dashboard["panels"] if panel["title"] == "Disk sizes, by disk")
            answer = panel_answers(engine, sizes, values | {"vm": wanted["again"]}, span)["A"]
            found[name, "Disk sizes of the VM that was started again", "A"] = ("bytes", answer)
    return found, offered, events


def of_owner(engine, span, wanted):
    """What is answered when one owner is chosen: his VM, and no other."""
    found, offered, _ = answers(engine, span, wanted)
    vm = wanted["vm"]
    values = set(offered["vm", "vm"].values())
    if values != {vm}:
        yield f"VMs of the owner: {values}"
    shown = {row["uuid"] for (_, title, _), (_, rows) in found.items() if title.startswith("Top ") for row in rows}
    if shown != {vm}:
        yield f"the owner's top VMs: {shown}"
    for (name, title, letter), (_, answer) in found.items():
        if name == "hypervisor" and title.endswith(", by VM") and len(answer) != 1:
            yield f"{title}: {list(answer)}"
    counts = [found["fleet", "VMs now", letter][1] for letter in "ABC"]
    if sum(value for rows in counts for row in rows for key, value in row.items() if key != "time") != 1:
        yield f"VMs now: {counts}"


def plausible(answered, tables):
    """Every query has rows, and values as their unit has them. Those of a kernel without pressure stall information have none
    (`known` tells whether that is so)."""
    for where, (unit, answer) in answered.items():
        if "vm_pressure" not in tables and re.search("[Pp]ressure|^Waiting for", where[1]):
            continue
        if not answer or not any(answer.values() if isinstance(answer, dict) else answer):
            yield f"{where} gives no rows"
            continue
        if isinstance(answer, dict):
            values = [value for points in answer.values() for value in points.values()]
        else:
            values = [v for row in answer for k, v in row.items() if k not in ("time", "last_gather")]
            values = [value for value in values if not isinstance(value, str)]
        if unit == "string":
            continue
        low, high = SIZES.get(where[1], PLAUSIBLE[unit])
        wrong = [value for value in values if value is None or not low <= value <= high]
        if wrong or not values:
            yield f"{where}, in {unit}: {wrong or 'no values'}"


def whole_bins(times):
    """From the first line to the last moment of the last bin that has lines to its end."""
    width = grafana.INTERVAL * SECOND
    return min(times), max(times) // width * width - SECOND


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("rows", "influxdb", "prometheus", "busy", "paused", "asleep", "again", "owner"):
        arguments.add_argument(f"--{name}", required=True)
    given = arguments.parse_args()
    rows = [parse(line) for line in pathlib.Path(given.rows).read_text().split("\n") if line]
    wanted = {name: getattr(given, name) for name in ("paused", "asleep", "again")}
    wanted |= {"host": "kvm01", "vm": given.busy, "tag": "project", "title": given.owner}
    times = [row[3] for row in rows]
    # A little later than the last line, as a reader's now is; then kvm02 is silent for long enough.
    span = (min(times), max(times) + 27 * SECOND)
    wrong, all_found = [], {}
    for engine in (DataFusion(rows), Influx(given.influxdb, rows), Prometheus(given.prometheus, rows)):
        try:
            found, offered, events = answers(engine, span, wanted)
            # The means over time: of a last bin of few seconds the languages make different rates.
            means, _, _ = answers(engine, whole_bins(times), wanted)
            owners = list(of_owner(engine, span, wanted | {"owner": given.owner}))
            # The tag that is there without any table [tags], and the dashboards' default.
            by_name, _, _ = answers(engine, span, wanted | {"tag": "name"})
        except Wrong as error:
            sys.exit(f"{engine.language}: {error}")
        all_found[engine.language] = found | {where: answer for where, answer in means.items() if where[1].startswith("Top ")}
        told = (*plausible(found, {row[0] for row in rows}), *known(found, offered, engine.truth, span, wanted), *known_events(events, rows, wanted), *owners)
        wrong += [f"{engine.language}: {what}" for what in told]
        # What is chosen is the same; the owner is another tag then.
        wrong += [f"{engine.language}, all names: {where}" for where in found
                  if where[1] != "Host and owner" and not same(by_name[where][1], found[where][1])]
    sql = all_found.pop("sql")
    for language, found in all_found.items():
        wrong += differ(language, found, sql)
    print(f"{len(sql)} queries and {len(events)} annotations in each language")
    print("\n".join(wrong), file=sys.stderr)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
