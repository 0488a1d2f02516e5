#!/usr/bin/env python3
"""Runs some of the queries over series made for them: what real VMs do too seldom, and what comes by scraping alone.

    made_series.py PROMTOOL
"""

import json
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import grafana  # noqa: E402
from engines import DataFusion  # noqa: E402

VALUES = {"host": "kvm01", "vm": "u1", "tag": "name", "tagged": grafana.Raw(".*")}
STEP, RANGE = 10, 150  # seconds


def runs(field, first, second):
    """A field of two runs of the VM, as promtool writes series: one value each ten seconds."""
    return {f'{field}{{host="kvm01",name="db",uuid="u1",VMID="{run}"}}': values for run, values in ((1, first), (2, second))}


def collector(**fields):
    return {f'vm_collector_{field}{{host="kvm01",uri="qemu:///system"}}': values for field, values in fields.items()}


QUIET = {"up": "1x12", "calls_hanging": "0x12", "dead_mounts": "0x12", "vms_withheld": "0x12"}
ENDED = ("1x5 5x8 stale", "_x8 1x8")
VM, HOST = '{host="kvm01",name="db",uuid="u1"}', '{host="kvm01"}'
# Panel or annotation, series, at which second, labels and value of the answer. Grafana shows the values of annotations that are above 0.
CASES = [
    ("Collector in trouble", collector(**QUIET), 60, []),
    ("Collector in trouble", collector(**QUIET | {"up": "1x5 0x6"}), 60, [(HOST, 1)]),
    ("Collector in trouble", collector(**QUIET | {"calls_hanging": "0x5 1x6"}), 60, [(HOST, 1)]),
    ("Restarts", runs("vm_metrics_uptime_sec", "100+10x5 stale", "_x6 0+10x5"), 60, [(VM, 150)]),
    ("Restarts", runs("vm_metrics_uptime_sec", "100+10x5 stale", "_x6 0+10x5"), 70, []),
    # A run that ended is served beside the next one until its expiration_interval is over. Either may come first.
    ("vCPUs", runs("vm_totals_state", *ENDED) | runs("vm_totals_cpus", "8x13 stale", "_x8 2x8"), 120, [("{}", 2)]),
    ("vCPUs", runs("vm_totals_state", *ENDED[::-1]) | runs("vm_totals_cpus", "_x8 2x8", "8x13 stale"), 120, [("{}", 2)]),
    # The VM was shut off.
    ("vCPUs", runs("vm_totals_state", "1x5 5x1 stale", "_x16") | runs("vm_totals_cpus", "8x7 stale", "_x16"), 120, [("{}", 8)]),
]


def case(expressions, name, series, at, answer):
    query = grafana.with_variables(expressions[name], VALUES)
    return {
        "interval": f"{STEP}s",
        "input_series": [{"series": one, "values": values} for one, values in series.items()],
        "promql_expr_test": [{
            "expr": grafana.promql_macros(query, 0, RANGE * 10**9, STEP), "eval_time": f"{at}s",
            "exp_samples": [{"labels": labels, "value": value} for labels, value in answer],
        }],
    }


def dashboard_of(language):
    return json.loads((HERE.parents[1] / f"telegraf/grafana/{language}/vm.json").read_text())


def troubles_of_two_collectors():
    """In SQL: of two collectors under one host, one has libvirt away all the time, the other has one call that hangs at last."""
    fields = {"calls_hanging": 0, "dead_mounts": 0, "vms_withheld": 0}
    rows = []
    for second in range(STEP, RANGE, STEP):
        for uri, found in (("one", {"up": 0}), ("other", {"up": 1, "calls_hanging": int(second > 100)})):
            rows.append(("vm_collector", {"host": "kvm01", "uri": uri}, fields | found, second * 10**9))
    annotation = next(one for one in dashboard_of("sql")["annotations"]["list"] if one["name"] == "Collector in trouble")
    return DataFusion(rows).events(annotation, VALUES, (0, RANGE * 10**9))


def main():
    if (found := troubles_of_two_collectors()) != [(110 * 10**9, "kvm01: calls hang")]:
        sys.exit(f"two collectors: {found}")
    dashboard = dashboard_of("promql")
    expressions = {panel["title"]: panel["targets"][0]["expr"] for panel in dashboard["panels"]}
    expressions |= {one["name"]: one["expr"] for one in dashboard["annotations"]["list"]}
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump({"evaluation_interval": f"{STEP}s", "tests": [case(expressions, *one) for one in CASES]}, file)
        file.flush()
        sys.exit(subprocess.run([sys.argv[1], "test", "rules", file.name]).returncode)


if __name__ == "__main__":
    main()
