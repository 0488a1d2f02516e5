#!/usr/bin/env python3
"""Runs every query of the dashboards as Grafana would, in both languages, and holds the answers
against each other and against the rows that Telegraf wrote.

    run_queries.py --rows FILE --server HOST:PORT --busy UUID --paused UUID --asleep UUID --owner TEXT

InfluxQL on the InfluxDB 1.x at HOST:PORT, whose database telegraf has the rows; SQL on DataFusion, the
engine of InfluxDB 3, over the rows of FILE. The rows: host kvm01 with two guests at work (one --busy), one in
suspend to RAM (--asleep), a paused VM whose QEMU is frozen, and Telegraf's cpu and mem; host kvm02, silent for the last
45 s at least. The busy VM alone has the tag project, with the value --owner; the queries run with this tag chosen, and all
of its values.

Every query gives rows; the two languages give the same series, with the same values; each value is
what its unit allows; the busy guest's rates are those of the rows; and some answers are known.
"""

import argparse
import json
import pathlib
import statistics
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "sql")]
import grafana  # noqa: E402
from grafana import Raw, Wrong  # noqa: E402
from known import close, known  # noqa: E402
from doc_queries import DOCS, declared, parse, with_owner  # noqa: E402

ROOT = HERE.parents[1]
SECOND = 10**9
# What a value of that unit can be here: a host of some cores and gigabytes, small guests.
PLAUSIBLE = {
    "none": (0, 128), "kbytes": (10 * 1024, 1024**2), "bytes": (10 * 1024**2, 2**42), "Bps": (0, 10**9), "pps": (0, 10**6),
    "iops": (0, 10**6), "percent": (0, 400), "ns": (10**5, 10 * SECOND), "KiBs": (0, 10**6), "cps": (0, 10**7),
    "ms": (0, 10**4), "s": (0, 3600),
}
# The lab's images are small.
SIZES = {"Disk sizes, by disk": (0, 8 * 1024**2), "Size of disks, by VM": (0, 16 * 1024**2)}


def dashboards(language):
    files = sorted((ROOT / "telegraf/grafana" / language).glob("*.json"))
    return {file.stem: json.loads(file.read_text()) for file in files}


def datafusion_tables(rows):
    """The tables, declared as in docs/outputs.md, with the tag project of the table [tags]; Telegraf's own cpu and mem as
    they came."""
    import datafusion
    import pyarrow

    kinds = {"int64": pyarrow.int64(), "float64": pyarrow.float64(), "utf8": pyarrow.string()}
    types = {int: "int64", float: "float64", str: "utf8"}
    tables = {name: (with_owner(name, tags), fields) for name, (tags, fields) in declared(DOCS).items()}
    for name in ("cpu", "mem"):
        mine = [(tags, fields) for table, tags, fields, _ in rows if table == name]
        fields = {field: types[type(value)] for _, fields in mine for field, value in fields.items()}
        tables[name] = (sorted({tag for tags, _ in mine for tag in tags}), fields)
    # InfluxDB 3 has the information schema.
    context = datafusion.SessionContext(datafusion.SessionConfig().with_information_schema(True))
    for name, (tags, fields) in tables.items():
        # InfluxDB 3 holds tags as dictionaries and time without a zone.
        schema = [pyarrow.field("time", pyarrow.timestamp("ns"))]
        schema += [pyarrow.field(tag, pyarrow.dictionary(pyarrow.int32(), pyarrow.string())) for tag in tags]
        schema += [pyarrow.field(field, kinds[kind]) for field, kind in fields.items()]
        mine = [{"time": time, **tags, **fields} for table, tags, fields, time in rows if table == name]
        arrays = [pyarrow.array([row.get(field.name) for row in mine], field.type) for field in schema]
        batch = pyarrow.record_batch(arrays, schema=pyarrow.schema(schema))
        context.register_record_batches(name, [[batch]])
    return context


class Influx:
    language = "influxql"

    def __init__(self, server):
        self.server = server

    def texts(self, query):
        """For a variable: SHOW TAG VALUES has key and value, SHOW SERIES only the key."""
        return [row[-1] for one in grafana.ask_influxdb(self.server, query) for row in one["values"]]

    def query(self, target, values, span):
        query = grafana.influxql_macros(grafana.with_variables(target["query"], values), *span)
        series = grafana.ask_influxdb(self.server, query)
        if target["resultFormat"] == "table":
            return grafana.influxdb_table(series)
        return grafana.influxdb_series(series, target["alias"])


class DataFusion:
    language = "sql"

    def __init__(self, rows):
        self.context = datafusion_tables(rows)

    def texts(self, query):
        return [next(iter(row.values())) for row in grafana.ask_datafusion(self.context, query).to_pylist()]

    def query(self, target, values, span):
        query = grafana.sql_macros(grafana.with_variables(target["rawSql"], values), *span)
        table = grafana.ask_datafusion(self.context, query)
        if target["format"] == "table":
            return table.to_pylist()
        return grafana.datafusion_series(table, target["display"])


def chosen(dashboard, engine, span, wanted):
    """The variables' values as a reader would choose them: what `wanted` says, else all."""
    values = {"__to": str(span[1] // 10**6), "datasource": "any"}
    choices = {}
    for variable in dashboard["templating"]["list"]:
        name = variable["name"]
        if variable["type"] == "custom":
            choices[name] = {one["text"]: one["value"] for one in variable["options"]}
            values[name] = choices[name]["1m"] if name == "stale" else variable["current"]["value"]
        elif variable["type"] == "query":
            query = grafana.with_variables(variable["query"], values)
            query = grafana.sql_macros(query, *span) if engine.language == "sql" else grafana.whole(query)
            choices[name] = grafana.options(engine.texts(query), variable["regex"])
            if not choices[name]:
                raise Wrong(f"no choices for {name}: {query}")
            everything = Raw(variable["allValue"]) if "allValue" in variable else sorted(choices[name].values())
            values[name] = everything if variable["multi"] else wanted[name]
            if name == "tagged" and "owner" in wanted:
                values[name] = [wanted["owner"]]
            if not variable["multi"] and wanted[name] not in choices[name].values():
                raise Wrong(f"{wanted[name]} is not among {choices[name]}")
    return values, choices


def answers(engine, span, wanted):
    """(dashboard, panel, letter) -> (unit, answer), and (dashboard, variable) -> choices."""
    found, offered = {}, {}
    for name, dashboard in dashboards(engine.language).items():
        values, choices = chosen(dashboard, engine, span, wanted)
        offered |= {(name, variable): one for variable, one in choices.items()}
        for panel in dashboard["panels"]:
            if grafana.with_variables(panel["interval"], values) != f"{grafana.INTERVAL}s":
                raise Wrong(f"{panel['title']}: bins of {panel['interval']}")
            defaults = panel["fieldConfig"]["defaults"]
            for target in panel["targets"]:
                where = (name, panel["title"], target["refId"])
                try:
                    answer = engine.query(target | {"display": defaults.get("displayName", "")}, values, span)
                except Wrong as wrong:
                    raise Wrong(f"{' / '.join(where)}: {wrong}") from None
                found[where] = (defaults["unit"], answer)
    return found, offered


def of_owner(engine, span, wanted):
    """What is answered when one owner is chosen: his VM, and no other."""
    found, offered = answers(engine, span, wanted)
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


def plausible(answered):
    """Every query has rows, and values as their unit has them."""
    for where, (unit, answer) in answered.items():
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


def by_texts(rows):
    """A table's rows, texts -> numbers. Times are left out: InfluxQL's aggregates have none of their own."""
    return {
        tuple(row[k] for k in sorted(row) if isinstance(row[k], str)):
        {k: v for k, v in row.items() if not isinstance(v, str) and k not in ("time", "last_gather")}
        for row in rows
    }


def series_differ(one, other):
    """How two languages' time series differ, if they do."""
    if one.keys() != other.keys():
        yield f"series {sorted(one)} and {sorted(other)}"
        return
    for name in one:
        # InfluxQL looks a bin back for a derivative, so it may begin earlier; and the first and the
        # last bin are not whole.
        times = sorted(one[name].keys() & other[name].keys())
        pairs = [(one[name][t], other[name][t]) for t in times[1:-1]]
        if len(other[name]) > len(times) + 1:
            yield f"{name}: {len(times)} common times of {len(one[name])} and {len(other[name])}"
        elif pairs and not close(*(statistics.mean(values) for values in zip(*pairs))):
            yield f"{name}: {pairs}"


def tables_differ(one, other):
    """The same for tables."""
    one, other = by_texts(one), by_texts(other)
    if one.keys() != other.keys():
        yield f"rows {sorted(one)} and {sorted(other)}"
        return
    for key, numbers in one.items():
        if "kvm02" in key:  # it was there for few bins, and not to the end of its last
            continue
        if numbers.keys() != other[key].keys():
            yield f"{key}: {numbers} and {other[key]}"
            continue
        # InfluxQL divides by the bins' distance, SQL by the samples'; and these come each second, so that a
        # step of a bin is 9 s to 11 s.
        yield from (f"{key}: {k}: {v} and {other[key][k]}" for k, v in numbers.items() if not close(v, other[key][k]))


def same(one, other):
    """Whether two answers in one language are alike. Equal rows of a table may change places."""
    return one == other if isinstance(one, dict) else by_texts(one) == by_texts(other)


def differ(influxql, sql):
    if influxql.keys() != sql.keys():
        yield f"not the same queries: {influxql.keys() ^ sql.keys()}"
    for where in influxql.keys() & sql.keys():
        one, other = influxql[where][1], sql[where][1]
        compare = series_differ if isinstance(one, dict) else tables_differ
        yield from (f"{where}: {how}" for how in compare(one, other))


def whole_bins(times):
    """From the first line to the last moment of the last bin that has lines to its end."""
    width = grafana.INTERVAL * SECOND
    return min(times), max(times) // width * width - SECOND


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("rows", "server", "busy", "paused", "asleep", "owner"):
        arguments.add_argument(f"--{name}", required=True)
    given = arguments.parse_args()
    rows = [parse(line) for line in pathlib.Path(given.rows).read_text().split("\n") if line]
    wanted = {"host": "kvm01", "vm": given.busy, "tag": "project", "paused": given.paused, "asleep": given.asleep}
    times = [row[3] for row in rows]
    # A little later than the last line, as a reader's now is; then kvm02 is silent for long enough.
    span = (min(times), max(times) + 15 * SECOND)
    wrong, both = [], []
    for engine in (Influx(given.server), DataFusion(rows)):
        try:
            found, offered = answers(engine, span, wanted)
            # The means over time: of a last bin of few seconds the languages make different rates.
            means, _ = answers(engine, whole_bins(times), wanted)
            owners = list(of_owner(engine, span, wanted | {"owner": given.owner}))
            # The tag that is there without any table [tags], and the dashboards' default.
            by_name, _ = answers(engine, span, wanted | {"tag": "name"})
        except Wrong as error:
            sys.exit(f"{engine.language}: {error}")
        both.append(found | {where: answer for where, answer in means.items() if where[1].startswith("Top ")})
        told = (*plausible(found), *known(found, offered, rows, wanted), *owners)
        wrong += [f"{engine.language}: {what}" for what in told]
        wrong += [f"{engine.language}, all names: {where}" for where in found if not same(by_name[where][1], found[where][1])]
    wrong += differ(*both)
    print(f"{len(both[0])} queries in InfluxQL, {len(both[1])} in SQL")
    print("\n".join(wrong), file=sys.stderr)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
