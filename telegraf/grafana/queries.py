"""The dashboards' queries, each in both languages: what a panel asks is said once, here it becomes
InfluxQL (InfluxDB 1.x, or 2.x and 3 by their InfluxQL interfaces) and SQL (InfluxDB 3).

Counters: the rate of each series first, then the sum. A series is one run of one VM (host, uuid,
VMID; a device's also devtype and device): a counter begins anew with every VMID, and a step back
within a run (a device plugged anew) gives no rate.

Bins are $__interval wide. A counter's value in a bin is its last (in SQL the greatest, which within
a run is the same), a gauge's its mean.
"""

from dataclasses import dataclass

RUN = ("host", "uuid", "name", "VMID")
VM = ("host", "uuid", "name")
DEVICE = (*RUN, "devtype", "device")


@dataclass
class Query:
    """One query of a panel. `alias` names InfluxQL's series, `labels` are SQL's label columns."""

    influxql: str
    sql: str
    alias: str = "$col"
    display: str = "${__field.name}"
    table: bool = False


@dataclass
class Where:
    """A condition in both languages."""

    influxql: str
    sql: str

    def __and__(self, other):
        return Where(f"{self.influxql} AND {other.influxql}", f"{self.sql} AND {other.sql}")


def variable(tag, name):
    """The tag has (one of) the value(s) of the dashboard's variable."""
    return Where(f'"{tag}" =~ /^${{{name}:regex}}$/', f"{tag} IN (${{{name}:sqlstring}})")


def is_(tag, value):
    return Where(f"\"{tag}\" = '{value}'", f"{tag} = '{value}'")


def filtered(tag, values):
    """Of VMs: the tag that the variable `tag` names has one of the values of the variable `values`. A VM without that tag
    passes when all are chosen: what then stands for all of them fits every uuid. No value of a tag is a VM's uuid else."""
    return Where(
        f'("${{{tag}}}" =~ /^${{{values}:regex}}$/ OR "uuid" =~ /^${{{values}:regex}}$/)',
        f'("${{{tag}}}" IN (${{{values}:sqlstring}}) OR uuid IN (${{{values}:sqlstring}}))',
    )


RANGE = Where("$timeFilter", "$__timeFilter(time)")
# The end of the range, not the present: the dashboards look into the past as well.
LATELY = Where(
    "time > ${__to}ms - $stale AND time <= ${__to}ms",
    "time > $__timeTo() - INTERVAL '$stale' AND time <= $__timeTo()",
)
HOST = variable("host", "host")
# The VMs of the chosen hosts whose owner, or another tag, is chosen.
VMS = HOST & filtered("tag", "tagged")


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
        alias,
        display,
    )


def top(table, label, fields, divisor=1):
    """The ten VMs with the highest mean rate."""
    values = {label: (fields, divisor)}
    return Query(
        f'SELECT TOP("{label}", "host", "name", "uuid", 10) AS "{label}" FROM (SELECT MEAN("{label}") AS "{label}" '
        f"FROM ({influxql_rates(table, values, RUN, VMS)}) GROUP BY {quoted(VM)})",
        sql_rates(table, values, RUN, VMS)
        + f"SELECT host, name, uuid, AVG(\"{label}\") AS \"{label}\" FROM rates GROUP BY host, name, uuid "
        f"ORDER BY \"{label}\" DESC LIMIT 10",
        table=True,
    )


def top_mean(table, label, field):
    """The ten VMs with the highest mean of a gauge."""
    where = RANGE & VMS
    return Query(
        f'SELECT TOP("{label}", "host", "name", "uuid", 10) AS "{label}" FROM (SELECT MEAN("{field}") AS "{label}" '
        f'FROM "{table}" WHERE {where.influxql} GROUP BY {quoted(VM)})',
        f'SELECT host, name, uuid, AVG({field}) AS "{label}" FROM {table} WHERE {where.sql} AND {field} IS NOT NULL '
        f'GROUP BY host, name, uuid ORDER BY "{label}" DESC LIMIT 10',
        table=True,
    )


def last(table, label, field, where):
    """The last value within the range."""
    where = RANGE & where
    return Query(
        f'SELECT LAST("{field}") AS "{label}" FROM "{table}" WHERE {where.influxql}',
        f'SELECT {field} AS "{label}" FROM {table} WHERE {where.sql} AND {field} IS NOT NULL ORDER BY time DESC LIMIT 1',
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
        alias,
        display,
    )


def states(condition, label, over_time):
    """How many VMs are in a state: over time, or lately as one row."""
    when = RANGE if over_time else LATELY
    bins = ("GROUP BY time($__interval), ", " FILL(none)") if over_time else ("GROUP BY ", "")
    outer = "$timeFilter AND " if over_time else ""
    binned, bin_, selected, group = ("", "", "", "")
    if over_time:
        binned, bin_, selected = ("$__dateBin(time) AS bin, ", "bin, ", "bin AS time, ")
        group = " GROUP BY bin ORDER BY time"
    return Query(
        f'SELECT COUNT("state") AS "{label}" FROM (SELECT LAST("state") AS "state" FROM "vm_metrics" '
        f'WHERE {(when & VMS).influxql} {bins[0]}"host", "uuid"{bins[1]}) '
        f'WHERE {outer}"state" {condition.influxql}' + (" GROUP BY time($__interval) FILL(none)" if over_time else ""),
        f"WITH bins AS (SELECT {binned}time, host, uuid, state FROM vm_metrics WHERE {(when & VMS).sql}), "
        f"aged AS (SELECT {bin_}state, ROW_NUMBER() OVER (PARTITION BY {bin_}host, uuid ORDER BY time DESC) AS age "
        "FROM bins) "
        f"SELECT {selected}COUNT(*) AS \"{label}\" FROM aged WHERE age = 1 AND state {condition.sql}{group}",
        table=not over_time,
    )


def state_timeline(fields):
    """The last word of each bin, for VMs chosen by host and uuid."""
    lasts = ", ".join(f'LAST("{field}") AS "{field}"' for field in fields)
    where = HOST & variable("uuid", "vm")
    return Query(
        f'SELECT {lasts} FROM "vm_metrics" WHERE $timeFilter AND {where.influxql} GROUP BY time($__interval) FILL(none)',
        f"WITH bins AS (SELECT $__dateBin(time) AS bin, time, {columns(fields)} FROM vm_metrics "
        f"WHERE {(RANGE & where).sql}), aged AS (SELECT bin, {columns(fields)}, "
        "ROW_NUMBER() OVER (PARTITION BY bin ORDER BY time DESC) AS age FROM bins) "
        f"SELECT bin AS time, {columns(fields)} FROM aged WHERE age = 1 ORDER BY time",
        table=True,
    )


PAUSED = Query(
    'SELECT "host", "name", "state_reason", "uuid" FROM (SELECT LAST("state") AS "state", "state_reason" '
    f'FROM "vm_metrics" WHERE {(LATELY & VMS).influxql} GROUP BY "host", "uuid", "name") '
    "WHERE \"state\" = 'paused'",
    "SELECT time, host, name, state_reason, uuid FROM (SELECT time, host, name, uuid, state, state_reason, "
    "ROW_NUMBER() OVER (PARTITION BY host, uuid ORDER BY time DESC) AS age FROM vm_metrics "
    f"WHERE {(LATELY & VMS).sql}) AS latest WHERE age = 1 AND state = 'paused' ORDER BY host, name",
    table=True,
)

# QEMUs that did not answer in the last gather.
STUCK = Query(
    'SELECT "host", "name", "answers", "uuid" FROM (SELECT LAST("answers") AS "answers" '
    f'FROM "vm_metrics" WHERE {(LATELY & VMS).influxql} GROUP BY "host", "uuid", "name") '
    'WHERE "answers" = 0',
    "SELECT time, host, name, answers, uuid FROM (SELECT time, host, name, uuid, answers, "
    "ROW_NUMBER() OVER (PARTITION BY host, uuid ORDER BY time DESC) AS age FROM vm_metrics "
    f"WHERE {(LATELY & VMS).sql} AND answers IS NOT NULL) AS latest WHERE age = 1 AND answers = 0 ORDER BY host, name",
    table=True,
)

# The first sum is all zeros: it gives every host of the range a number to compare.
SILENT = Query(
    'SELECT "host", "lines" FROM (SELECT SUM("lately") AS "lately", SUM("lines") AS "lines" FROM '
    '(SELECT COUNT("cpus") * 0 AS "lately", COUNT("cpus") AS "lines" FROM "vm_totals" '
    f'WHERE {(RANGE & HOST).influxql} GROUP BY "host"), '
    f'(SELECT COUNT("cpus") AS "lately" FROM "vm_totals" WHERE {(LATELY & HOST).influxql} GROUP BY "host") '
    'GROUP BY "host") WHERE "lately" = 0',
    f'SELECT host, COUNT(cpus) AS "lines", MAX(time) AS last_gather FROM vm_totals WHERE {(RANGE & HOST).sql} '
    "GROUP BY host HAVING MAX(time) <= $__timeTo() - INTERVAL '$stale' ORDER BY last_gather",
    table=True,
)

# Telegraf's own inputs: a core is a series of its own there (percpu = true, the default).
CORES = Where("\"cpu\" != 'cpu-total' AND " + HOST.influxql, "cpu <> 'cpu-total' AND " + HOST.sql)
HOST_CPUS = Query(
    'SELECT COUNT("idle") AS "installed" FROM (SELECT LAST("usage_idle") AS "idle" FROM "cpu" '
    f'WHERE $timeFilter AND {CORES.influxql} GROUP BY time($__interval), "host", "cpu" FILL(none)) '
    "WHERE $timeFilter GROUP BY time($__interval) FILL(none)",
    f"SELECT $__dateBin(time) AS time, COUNT(DISTINCT cpu) AS installed FROM cpu "
    f"WHERE {(RANGE & CORES).sql} GROUP BY 1 ORDER BY 1",
)
HOST_BUSY = Query(
    'SELECT SUM("busy") AS "busy" FROM (SELECT (100 - MEAN("usage_idle")) / 100 AS "busy" FROM "cpu" '
    f'WHERE $timeFilter AND {CORES.influxql} GROUP BY time($__interval), "host", "cpu" FILL(none)) '
    "WHERE $timeFilter GROUP BY time($__interval) FILL(none)",
    "WITH bins AS (SELECT $__dateBin(time) AS bin, cpu, (100 - AVG(usage_idle)) / 100 AS busy FROM cpu "
    f"WHERE {(RANGE & CORES).sql} GROUP BY bin, cpu) "
    'SELECT bin AS time, SUM(busy) AS "busy" FROM bins GROUP BY bin ORDER BY time',
)


def tag_values(tag, table, where):
    """For a variable: the values of a tag. InfluxQL's list of series knows no time; SQL has the range's."""
    return Query(
        f'SHOW TAG VALUES FROM "{table}" WITH KEY = "{tag}"' + (f" WHERE {where.influxql}" if where else ""),
        f"SELECT DISTINCT {column(tag)} FROM {table} WHERE $__timeFilter(time)"
        + (f" AND {where.sql}" if where else "")
        + f" ORDER BY {column(tag)}",
    )


# The tags by which VMs can be chosen: their names, and those of the table [tags] (and of Telegraf's global_tags) which
# have been written. A query may name no column of InfluxDB 3 that is not there.
TAGS = Query(
    'SHOW TAG KEYS FROM "vm_totals"',
    "SELECT column_name FROM information_schema.columns WHERE table_name = 'vm_totals' "
    "AND data_type LIKE 'Dictionary%' ORDER BY column_name",
)
TAGS_PATTERN = "/^(?!(?:VMID|host|uuid)$)(?<text>(?<value>.+))$/"
TAGGED = Query(
    f'SHOW TAG VALUES FROM "vm_totals" WITH KEY = "${{tag}}" WHERE {HOST.influxql}',
    f'SELECT DISTINCT "${{tag}}" FROM vm_totals WHERE {(RANGE & HOST).sql} AND "${{tag}}" IS NOT NULL ORDER BY "${{tag}}"',
)

# A VM is chosen by its uuid and shown by its name: both are in one text, the variable's pattern parts
# them. In InfluxQL a series' key has both; a name with a comma or a blank shows its backslashes.
VM_CHOICE = Query(
    f'SHOW SERIES FROM "vm_totals" WHERE {VMS.influxql}',
    "SELECT DISTINCT concat(name, ' ', uuid) AS vm FROM vm_totals WHERE "
    f"{(RANGE & VMS).sql} ORDER BY vm",
)
VM_PATTERN = {
    "influxql": r"/,name=(?<text>(?:\\.|[^,\\])+),(?:.*,)?uuid=(?<value>[^,]+)/",
    "sql": "/^(?<text>.*) (?<value>[^ ]+)$/",
}
