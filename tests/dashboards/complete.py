#!/usr/bin/env python3
"""Whether the dashboards have what each of them must have, in each language alike: descriptions, texts for no data, levels,
annotations, and links that lead to one another.

    complete.py FOLDER      the folder with a folder for each language
"""

import json
import pathlib
import re
import sys

LEVELS = {
    "fleet": ["packets dropped", "CPU steal", "CPU quota used up", "guest memory used", "read latency", "write latency", "flush latency",
              "I/O errors"],
    "hypervisor": ["Packets dropped, by VM", "I/O errors, by VM", "Waiting for I/O, by VM", "Read latency, by VM", "Write latency, by VM",
                   "Guest memory used, by VM"],
    "vm": ["CPU steal", "Guest memory used", "Errors and drops, by interface", "Disk latency, by disk", "I/O errors, by disk",
           "Pressure: waiting for a resource"],
}
WORDS = {"fleet": ["Paused VMs"], "hypervisor": ["libvirt answers"], "vm": ["State now", "QEMU answers", "State"]}
LEADS_TO = {"fleet": {"hypervisor", "vm"}, "hypervisor": {"fleet", "vm"}, "vm": {"hypervisor"}}
# The variables that all three dashboards have.
KEPT = ["datasource", "gather", "tag", "tagged"]
ANNOTATIONS = ["State changes", "Restarts", "Collector in trouble"]


def wrong(name, language, dashboard):
    panels = {panel["title"].removeprefix("Top VMs: "): panel for panel in dashboard["panels"]}
    if len(panels) < len(dashboard["panels"]):
        yield "two panels of one title"
    for title, panel in panels.items():
        defaults = panel["fieldConfig"]["defaults"]
        if not panel["description"].endswith(".") or not defaults["noValue"]:
            yield f"{title}: no description, or no text for no data"
    for title in LEVELS[name]:
        if len(panels[title]["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", [])) != 3:
            yield f"{title}: no levels"
    for title in WORDS[name]:
        if "mappings" not in panels[title]["fieldConfig"]["defaults"]:
            yield f"{title}: no words for numbers"
    if [one["name"] for one in dashboard["annotations"]["list"]] != ANNOTATIONS:
        yield "not the annotations"
    uids = set(re.findall(r'"/d/telegraf-kvm-([a-z]+-[a-z]+)\?', json.dumps(dashboard)))
    if uids - {f"{name}-{language}"} != {f"{other}-{language}" for other in LEADS_TO[name]}:
        yield f"leads to {uids}"
    for url in re.findall(r'"(/d/telegraf-kvm-[^"]*)"', json.dumps(dashboard)):
        if not all(f"${{{variable}:queryparam}}" in url for variable in KEPT):
            yield f"{url} does not keep {KEPT}"
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    covered = [(x, y) for place in places for x in range(place["x"], place["x"] + place["w"])
               for y in range(place["y"], place["y"] + place["h"])]
    if len(covered) != len(set(covered)):
        yield "panels lie on one another"


def main():
    folder, found, shapes = pathlib.Path(sys.argv[1]), [], {}
    for language in ("influxql", "sql", "promql"):
        for name in LEVELS:
            dashboard = json.loads((folder / language / f"{name}.json").read_text())
            found += [f"{language}/{name}: {what}" for what in wrong(name, language, dashboard)]
            shape = [(panel["title"], panel["type"], panel["description"], panel["gridPos"]) for panel in dashboard["panels"]]
            if shapes.setdefault(name, shape) != shape:
                found.append(f"{language}/{name}: not the panels of the other languages")
    print("\n".join(found), file=sys.stderr)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
