"""The dashboards' queries: what a panel asks is said once, here it becomes InfluxQL (InfluxDB 1.x, or 2.x and 3 by their
InfluxQL interfaces), SQL (InfluxDB 3) and PromQL (Prometheus; names as Telegraf's outputs make them, MEASUREMENT_FIELD).

Counters: the rate of each series first, then the sum. A series is one run of one VM (host, uuid,
VMID; a device's also devtype and device): a counter begins anew with every VMID, and a step back
within a run (a device plugged anew) gives no rate (in PromQL the rate from 0).

Bins are $__interval wide. A counter's value in a bin is its last (in SQL the greatest, which within
a run is the same), a gauge's its mean. PromQL looks back for $__rate_interval, which is never less than four times
Telegraf's interval: one sample that comes late or not at all leaves no gap.

Prometheus holds no texts: states are numbers there.
"""

from dataclasses import dataclass

from conditions import RANGE, VM_OF_HOST, VMS

RUN = ("host", "uuid", "name", "VMID")
VM = ("host", "uuid", "name")
DEVICE = (*RUN, "devtype", "device")
# Of a gauge: where a bin has two runs of a VM, its device counts once.
DEVICE_NOW = (*VM, "devtype", "device")
WINDOW = "$__rate_interval"


@dataclass
class Query:
    """One query of a panel. `alias` names InfluxQL's series, `display` SQL's; PromQL has a query for each value,
    `promql` are their legends and texts. A table has rows of one moment, with the columns `value`."""

    influxql: str
    sql: str
    promql: dict
    alias: str = "$col"
    display: str = "${__field.name}"
    table: bool = False


def quoted(names):
    return ", ".join(f'"{name}"' for name in names)


def column(name):
    """SQL reads an unquoted name in lower case."""
    return name if name == name.lower() else f'"{name}"'


def columns(names):
    return ", ".join(column(name) for name in names)


def titled(names):
    """How a series is called, in InfluxQL's alias and in SQL's display name: its tags, then its field."""
    tags = [name for name in names if name != "field"]
    alias = " ".join("$col" if name == "field" else f"$tag_{name}" for name in names)
    display = " ".join("${__field.name}" if name == "field" else f"${{__field.labels.{name}}}" for name in names)
    return alias, display if tags else "${__field.name}"


def legend(names, label):
    """The same in PromQL."""
    return " ".join(label if name == "field" else f"{{{{{name}}}}}" for name in names)


def over(function, table, name, where, window=WINDOW):
    """A function of PromQL over a window of one field."""
    return f"{function}({table}_{name}{{{where.promql}}}[{window}])"


def summed(by, expression):
    return f"sum by ({', '.join(by)}) ({expression})" if by else f"sum({expression})"


def promql_rate(table, fields, where, window=WINDOW):
    """The rates of these counters, added up."""
    return " + ".join(over("rate", table, name, where, window) for name in fields)


def divided(expression, divisor):
    return expression if divisor == 1 else f"{expression} / {divisor}"


def influxql_rates(table, values, series, where):
    """The rates of every series, per second; a value is a sum of counters, divided."""
    selected = ", ".join(
        "("
        + " + ".join(f'NON_NEGATIVE_DERIVATIVE(LAST("{field}"), 1s)' for field in fields)
        + f') / {divisor} AS "{label}"'
        for label, (fields, divisor) in values.items()
    )
    return (
        f'SELECT {selected} FROM "{table}" WHERE $timeFilter AND {where.influxql} '
        f"GROUP BY time($__interval), {quoted(series)} FILL(none)"
    )


def sql_rates(table, values, series, where):
    """The same as a table `rates`: bin, the series' tags, one column for each value."""
    fields = [field for fields, _ in values.values() for field in fields]
    over = f"OVER (PARTITION BY {columns(series)} ORDER BY bin)"
    lasts = ", ".join(f"MAX({field}) AS {field}" for field in fields)
    there = " AND ".join(f"{field} IS NOT NULL" for field in fields)
    moved = ", ".join(f"{field} - LAG({field}) {over} AS {field}" for field in fields)
    rates = ", ".join(
        f'({" + ".join(counters)}) / seconds / {divisor} AS "{label}"' for label, (counters, divisor) in values.items()
    )
    return (
        f"WITH bins AS (SELECT $__dateBin(time) AS bin, {columns(series)}, MAX(time) AS at, {lasts} FROM {table} "
        f"WHERE $__timeFilter(time) AND {where.sql} AND {there} GROUP BY bin, {columns(series)}), "
        f"steps AS (SELECT bin, {columns(series)}, {moved}, "
        f"date_part('epoch', at) - LAG(date_part('epoch', at)) {over} AS seconds FROM bins), "
        f"rates AS (SELECT bin, {columns(series)}, {rates} FROM steps "
        f"WHERE {' AND '.join(f'{field} >= 0' for field in fields)}) "
    )


def rates(table, values, where, by, called, series=RUN):
    """Rates over time, summed over the series that have the same tags `by`; `called` names them."""
    sums = ", ".join(f'SUM("{label}") AS "{label}"' for label in values)
    group = f", {quoted(by)}" if by else ""
    alias, display = titled(called)
    return Query(
        f"SELECT {sums} FROM ({influxql_rates(table, values, series, where)}) "
        f"WHERE $timeFilter GROUP BY time($__interval){group} FILL(none)",
        sql_rates(table, values, series, where)
        + f"SELECT {', '.join(['bin AS time', *map(column, by)])}, "
        + sums
        + f" FROM rates GROUP BY {', '.join(['bin', *map(column, by)])} ORDER BY time",
        {
            legend(called, label): divided(summed(by, promql_rate(table, fields, where)), divisor)
            for label, (fields, divisor) in values.items()
        },
        alias,
        display,
    )


def ratio(table, label, above, below, where, by, called, series=RUN):
    """The rate of one counter divided by that of another, such as bytes a request; nothing where the second stands still."""
    values = {label: ([above], 1), "number": ([below], 1)}
    group = f", {quoted(by)}" if by else ""
    alias, display = titled(called)
    rate = {name: summed(by, promql_rate(table, [name], where)) for name in (above, below)}
    return Query(
        f'SELECT SUM("{label}") / SUM("number") AS "{label}" FROM ({influxql_rates(table, values, series, where)}) '
        f'WHERE $timeFilter AND "number" > 0 GROUP BY time($__interval){group} FILL(none)',
        sql_rates(table, values, series, where)
        + f"SELECT {', '.join(['bin AS time', *map(column, by)])}, SUM(\"{label}\") / SUM(\"number\") AS \"{label}\" "
        f"FROM rates WHERE \"number\" > 0 GROUP BY {', '.join(['bin', *map(column, by)])} ORDER BY time",
        {legend(called, label): f"{rate[above]} / ({rate[below]} > 0)"},
        alias,
        display,
    )


def top(table, label, fields, divisor=1, where=VMS, series=RUN):
    """The ten VMs with the highest mean rate; in PromQL over the whole range, also of a VM that ran for a part of it."""
    values = {label: (fields, divisor)}
    return Query(
        f'SELECT TOP("{label}", "host", "name", "uuid", 10) AS "{label}" FROM (SELECT MEAN("{label}") AS "{label}" '
        f"FROM ({influxql_rates(table, values, series, where)}) GROUP BY {quoted(VM)})",
        sql_rates(table, values, series, where)
        + f"SELECT host, name, uuid, AVG(\"{label}\") AS \"{label}\" FROM rates GROUP BY host, name, uuid "
        f"ORDER BY \"{label}\" DESC LIMIT 10",
        {label: f"topk(10, {divided(summed(VM, promql_rate(table, fields, where, '$__range')), divisor)})"},
        table=True,
    )


def top_mean(table, label, field):
    """The ten VMs with the highest mean of a gauge."""
    where = RANGE & VMS
    total, count = (summed(VM, over(f"{what}_over_time", table, field, VMS, "$__range")) for what in ("sum", "count"))
    return Query(
        f'SELECT TOP("{label}", "host", "name", "uuid", 10) AS "{label}" FROM (SELECT MEAN("{field}") AS "{label}" '
        f'FROM "{table}" WHERE {where.influxql} GROUP BY {quoted(VM)})',
        f'SELECT host, name, uuid, AVG({field}) AS "{label}" FROM {table} WHERE {where.sql} AND {field} IS NOT NULL '
        f'GROUP BY host, name, uuid ORDER BY "{label}" DESC LIMIT 10',
        {label: f"topk(10, {total} / {count})"},
        table=True,
    )


def last(table, label, field, where=VM_OF_HOST):
    """The last value of a VM within the range. In PromQL that of the run whose lines are the latest."""
    at = RANGE & where
    state = f"vm_totals_state{{{where.promql}}}"
    # Of runs that are served with one time, that which has not ended.
    run = f"topk(1, max_over_time(timestamp({state})[$__range:$__interval]) - (last_over_time({state}[$__range]) == bool 5))"
    return Query(
        f'SELECT LAST("{field}") AS "{label}" FROM "{table}" WHERE {at.influxql}',
        f'SELECT {field} AS "{label}" FROM {table} WHERE {at.sql} AND {field} IS NOT NULL ORDER BY time DESC LIMIT 1',
        {label: f"max({over('last_over_time', table, field, where, '$__range')} and on (host, uuid, VMID) {run})"},
        table=True,
    )


def gauges(table, values, where, by, called, series=VM):
    """Means over time, summed over the series with the same tags `by`. A value is fields with signs,
    and a factor."""

    def mean(fields, factor, function, quote):
        terms = ""
        for field in fields:
            sign, name = ("-", field[1:]) if field.startswith("-") else ("+", field)
            terms += f" {sign} {function}({quote}{name}{quote})"
        return f"({terms.removeprefix(' + ')}) * {factor}"

    def promql(fields, factor):
        terms = ""
        for field in fields:
            sign, name = ("-", field[1:]) if field.startswith("-") else ("+", field)
            terms += f" {sign} avg by ({', '.join(series)}) ({over('avg_over_time', table, name, where)})"
        total = summed(by, terms.removeprefix(" + "))
        return total if factor == 1 else f"{total} * {factor}"

    influxql = ", ".join(f'{mean(fs, k, "MEAN", chr(34))} AS "{label}"' for label, (fs, k) in values.items())
    sql = ", ".join(f'{mean(fs, k, "AVG", "")} AS "{label}"' for label, (fs, k) in values.items())
    sums = ", ".join(f'SUM("{label}") AS "{label}"' for label in values)
    # Without it, SQL has a series of nothing for a VM without the fields.
    there = " OR ".join(f"{field.lstrip('-')} IS NOT NULL" for fields, _ in values.values() for field in fields)
    group = f", {quoted(by)}" if by else ""
    alias, display = titled(called)
    return Query(
        f"SELECT {sums} FROM (SELECT {influxql} "
        f'FROM "{table}" WHERE $timeFilter AND {where.influxql} GROUP BY time($__interval), {quoted(series)} FILL(none)) '
        f"WHERE $timeFilter GROUP BY time($__interval){group} FILL(none)",
        f"WITH bins AS (SELECT $__dateBin(time) AS bin, {columns(series)}, {sql} FROM {table} "
        f"WHERE $__timeFilter(time) AND {where.sql} AND ({there}) GROUP BY bin, {columns(series)}) "
        f"SELECT {', '.join(['bin AS time', *map(column, by)])}, "
        + sums
        + f" FROM bins GROUP BY {', '.join(['bin', *map(column, by)])} ORDER BY time",
        {legend(called, label): promql(fields, factor) for label, (fields, factor) in values.items()},
        alias,
        display,
    )
