#!/usr/bin/env python3
"""What the queries of docs/queries.md must give on rows that Telegraf wrote: computed here in plain Python.

    expected_rows.py influxql ROWS ANSWERS
    expected_rows.py sql      ROWS ANSWERS

ROWS is line protocol, ANSWERS the output of doc_queries.py on these rows. The exit code is 1 when
an answer differs, also when none was expected. The order of an answer's rows is not compared (the
hand-made rows of doc_queries.py do that), and floats must agree to one in a million.

Taken for granted of the rows: one run of each VM, no counter that goes back, at most five VMs, all
within the last 15 minutes.
"""

import collections
import json
import math
import pathlib
import sys

import doc_queries

SECOND = 10**9
MINUTE = 60 * SECOND

Row = collections.namedtuple("Row", "tags fields time")


class Rows:
    """All rows by measurement, in the order of time."""

    def __init__(self, lines):
        parsed = sorted((doc_queries.parse(line) for line in lines), key=lambda row: row[3])
        self.first = parsed[0][3]
        self.of = collections.defaultdict(list)
        for measurement, tags, fields, time in parsed:
            self.of[measurement].append(Row(tags, fields, time))

    def seconds(self, time):
        return (time - self.first) // SECOND

    def series(self, measurement, *tags):
        """Rows by the values of these tags, as a dictionary."""
        found = collections.defaultdict(list)
        for row in self.of[measurement]:
            found[tuple((tag, row.tags[tag]) for tag in tags)].append(row)
        return [(dict(key), rows) for key, rows in found.items()]

    def devices(self, kind):
        """Rows of one devtype by device, and of which VM it is."""
        found = self.series("vm_devices", "host", "uuid", "name", "device", "devtype")
        return [
            ({k: v for k, v in tags.items() if k != "devtype"}, rows)
            for tags, rows in found
            if tags["devtype"] == kind
        ]

    def by_minute(self, rows, fields):
        """Per second, between the last values of consecutive minutes that have any."""
        last = {row.time // MINUTE * MINUTE: row.fields for row in rows}
        for before, after in zip(list(last), list(last)[1:]):
            rate = lambda f: (last[after][f] - last[before][f]) / ((after - before) / SECOND)
            yield {"time": self.seconds(after), **{name: rate(f) for name, f in fields.items()}}

    def mean(self, field):
        """The mean of a field of vm_features by VM; None where it was never there."""
        for tags, rows in self.series("vm_features", "host", "name"):
            known = [row.fields[field] for row in rows if field in row.fields]
            yield tags, sum(known) / len(known) if known else None

    def latencies(self):
        """Milliseconds per read and per write by disk; None where there was no request."""
        def over(rows, time, requests):
            ns, ended = (rows[-1].fields[field] - rows[0].fields[field] for field in (time, requests))
            return ns / ended / 10**6 if ended else None

        for tags, rows in self.series("vm_devices", "host", "uuid", "name", "VMID", "device", "devtype"):
            if tags.pop("devtype") == "disk":
                yield tags, over(rows, "rd_time_ns", "rd_req"), over(rows, "wr_time_ns", "wr_reqs")

    def owners(self):
        """vCPUs and memory of the VMs of each project, None for those without."""
        sums = collections.defaultdict(lambda: [0, 0])
        for _, rows in self.series("vm_metrics", "host", "uuid"):
            last = [row for row in rows if "cpu_count" in row.fields][-1]
            mine = sums[last.tags.get("project")]
            mine[0] += last.fields["cpu_count"]
            mine[1] += last.fields["memory_used_kb"]
        return sums.items()

    def in_use(self):
        """The guest's last memory in use by VM, where the guest tells it."""
        for tags, rows in self.series("vm_totals", "host", "uuid", "name"):
            known = [row for row in rows if "memusable" in row.fields]
            if known:
                fields = known[-1].fields
                yield tags, known[-1].time, fields["memavailable"] - fields["memusable"]

    def paused(self):
        """The last row of each VM that is paused then."""
        for _, rows in self.series("vm_metrics", "host", "uuid"):
            if rows[-1].fields["state"] == "paused":
                yield rows[-1]

    def whole(self, measurement, columns):
        """The rows of the first time with all columns."""
        for row in self.of[measurement]:
            if row.time == self.first:
                yield {c: row.tags.get(c, row.fields.get(c)) for c in columns} | {"time": 0}


# In the page's order: a word of the query, and the rows that it must give. Where LIMIT 1 picks
# among equals, "any" is the key of those that it may pick.


def influxql(rows):
    cores = {"cores": "cputime"}
    counts = collections.Counter(f for row in rows.of["vm_devices"] for f in row.fields)
    tags = {(key, row.tags[key]) for row in rows.of["vm_devices"] for key in ("devtype", "device")}
    columns = {c for row in rows.of["vm_devices"] for c in row.tags | row.fields}
    net = ["net_rxbytes", "net_txbytes"]
    rates = lambda found, fields: [t | r for t, series in found for r in rows.by_minute(series, fields)]
    yield "TOP", [t | {"top": value, "time": None} for t, value in rows.mean("cpu_usage_percent")]
    yield "cputime", [
        row | {"cores": row["cores"] / SECOND}
        for row in rates(rows.series("vm_totals", "host", "uuid", "name"), cores)
    ]
    yield "rxbytes", rates(rows.devices("nic"), {"rx": "rxbytes", "tx": "txbytes"})
    yield "rd_bytes", rates(rows.devices("disk"), {"read": "rd_bytes", "written": "wr_bytes"})
    yield "memusable", [t | {"time": rows.seconds(time), "in_use": n} for t, time, n in rows.in_use()]
    steal = rows.mean("cpu_steal_percent")
    yield "steal", [t | {"top": value, "time": None} for t, value in steal if value is not None]
    yield "SPREAD", [t | {"read_ms": r or 0, "write_ms": w or 0, "time": None} for t, r, w in rows.latencies()]
    yield "project", [
        {"project": project or "", "vcpus": vcpus, "kib": kib, "time": None} for project, (vcpus, kib) in rows.owners()
    ]
    yield "paused", [
        {k: row.tags[k] for k in ("host", "name")}
        | {k: row.fields[k] for k in ("state", "state_reason")}
        | {"time": rows.seconds(row.time)}
        for row in rows.paused()
    ]
    yield "COUNT", [{f"count_{f}": n for f, n in counts.items()} | {"time": None}]
    yield "SHOW TAG", [{"key": key, "value": value} for key, value in tags]
    yield "net_rxbytes", {"any": list(rows.whole("vm_totals", net))}
    yield "*", {"any": list(rows.whole("vm_devices", columns))}


def sql(rows):
    names = lambda tags: {k: tags[k] for k in ("host", "name")}
    tags, fields = doc_queries.declared(doc_queries.DOCS)["vm_devices"]
    steps = []
    for tags_of, series in rows.devices("nic"):
        for before, after in zip(series, series[1:]):
            rate = (after.fields["rxbytes"] - before.fields["rxbytes"]) / ((after.time - before.time) / SECOND)
            steps.append(names(tags_of) | {"device": tags_of["device"], "time": rows.seconds(after.time), "rx": rate})
    devices = {(row.tags["devtype"], row.tags["device"]) for row in rows.of["vm_devices"]}
    totals = rows.whole("vm_totals", ["net_rxbytes", "net_txbytes"])
    yield "cpu_usage_percent", [t | {"cpu": value} for t, value in rows.mean("cpu_usage_percent")]
    yield "rxbytes", steps
    yield "memusable", [names(t) | {"in_use": n} for t, _, n in rows.in_use()]
    yield "steal", [t | {"steal": value} for t, value in rows.mean("cpu_steal_percent")]
    yield "read_ms", [
        {k: t[k] for k in ("host", "name", "device")} | {"read_ms": r, "write_ms": w} for t, r, w in rows.latencies()
    ]
    yield "project", [{"project": project, "vcpus": vcpus, "kib": kib} for project, (vcpus, kib) in rows.owners()]
    yield "paused", [
        {k: row.tags[k] for k in ("host", "name", "VMID")} | {"state_reason": row.fields["state_reason"]}
        for row in rows.paused()
    ]
    yield "COUNT", [{"count(*)": len(rows.of["vm_devices"])}]
    yield "DISTINCT", [{"devtype": kind, "device": device} for kind, device in devices]
    yield "net_rxbytes", {"any": [{k: v for k, v in row.items() if k != "time"} for row in totals]}
    yield "*", {"any": list(rows.whole("vm_devices", [*doc_queries.with_owner("vm_devices", tags), *fields]))}


def same(one, other):
    """Whether two rows agree."""
    number = lambda v: isinstance(v, (int, float))
    return one.keys() == other.keys() and all(
        math.isclose(v, other[k], rel_tol=1e-6, abs_tol=1e-9) if number(v) and number(other[k]) else v == other[k]
        for k, v in one.items()
    )


def agrees(expected, got):
    if isinstance(expected, dict):
        return len(got) == 1 and any(same(row, got[0]) for row in expected["any"])
    left = list(got)
    for row in expected:
        match = next((i for i, other in enumerate(left) if same(row, other)), None)
        if match is None:
            return False
        del left[match]
    return not left


def main():
    language, file, answers = sys.argv[1:]
    rows = Rows([line for line in pathlib.Path(file).read_text().split("\n") if line])
    answers = json.loads(pathlib.Path(answers).read_text())
    expected = list(globals()[language](rows))
    bad = []
    if len(expected) != len(answers):
        bad.append(f"{len(answers)} answers, and {len(expected)} are expected")
    for (word, wanted), (query, got) in zip(expected, answers.items()):
        if word not in query:
            bad.append(f"the query on {word} is expected here: {query}")
        elif not wanted or wanted == {"any": []}:
            bad.append(f"no rows are expected, so nothing is proven: {query}")
        elif not agrees(wanted, got):
            bad.append(f"{query}\n  expected {json.dumps(wanted)}\n  got      {json.dumps(got)}")
    for line in bad:
        print(line, file=sys.stderr)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
