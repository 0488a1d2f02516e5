"""Queries of their own shape: states of VMs, hosts that say nothing, Telegraf's own inputs, variables.

In PromQL a VM's state is the least number among the runs of the VM: one that ended has 5, shutoff, by its last line.
What a run had that ended is left out where its last state is not asked for.
"""

from conditions import EACH_CPU, HOST, LATELY, RANGE, VM_OF_HOST, VMS, Where
from queries import RUN, WINDOW, Query, column, columns, over, quoted

# libvirt's numbers of states and reasons (src/measurements/state.rs). A reason is shown as 100 times the state and itself.
STATE_WORDS = ["no state", "running", "blocked", "paused", "shutdown", "shutoff", "crashed", "suspended"]
REASON_WORDS = {
    1: ["unknown", "booted", "migrated", "restored", "from-snapshot", "unpaused", "migration-canceled", "save-canceled",
        "wakeup", "crashed", "post-copy", "post-copy-failed"],
    2: ["unknown"],
    3: ["unknown", "user", "migration", "save", "dump", "ioerror", "watchdog", "from-snapshot", "shutdown", "snapshot",
        "panicked", "starting-up", "post-copy", "post-copy-failed", "api-error"],
    4: ["unknown", "user"],
    5: ["unknown", "shutdown", "destroyed", "crashed", "migrated", "saved", "failed", "from-snapshot", "daemon"],
    6: ["unknown", "panicked"],
    7: ["unknown"],
}
STATES = {
    "running": Where("= 'running'", "= 'running'", "== 1"),
    "paused": Where("= 'paused'", "= 'paused'", "== 3"),
    "other": Where("!~ /^(running|paused)$/", "NOT IN ('running', 'paused')", "!= 1 != 3"),
}
SAME_RUN = "and on (host, uuid, VMID)"


def state_of(where, window, offset=""):
    """The states of VMs in PromQL."""
    return f"min by (host, name, uuid) ({over('last_over_time', 'vm_totals', 'state', where, window).replace(']', ']' + offset)})"


def states(label, over_time):
    """How many VMs are in a state: over time, or lately as one row."""
    condition = STATES[label]
    when = RANGE if over_time else LATELY
    bins = ("GROUP BY time($__interval), ", " FILL(none)") if over_time else ("GROUP BY ", "")
    outer = "$timeFilter AND " if over_time else ""
    binned, bin_, selected, group = ("", "", "", "")
    if over_time:
        binned, bin_, selected = ("$__dateBin(time) AS bin, ", "bin, ", "bin AS time, ")
        group = " GROUP BY bin ORDER BY time"
    promql = f"count({state_of(VMS, WINDOW if over_time else '$stale')} {condition.promql})"
    return Query(
        f'SELECT COUNT("state") AS "{label}" FROM (SELECT LAST("state") AS "state" FROM "vm_metrics" '
        f'WHERE {(when & VMS).influxql} {bins[0]}"host", "uuid"{bins[1]}) '
        f'WHERE {outer}"state" {condition.influxql}' + (" GROUP BY time($__interval) FILL(none)" if over_time else ""),
        f"WITH bins AS (SELECT {binned}time, host, uuid, state FROM vm_metrics WHERE {(when & VMS).sql}), "
        f"aged AS (SELECT {bin_}state, ROW_NUMBER() OVER (PARTITION BY {bin_}host, uuid ORDER BY time DESC) AS age "
        "FROM bins) "
        f"SELECT {selected}COUNT(*) AS \"{label}\" FROM aged WHERE age = 1 AND state {condition.sql}{group}",
        {label: promql if over_time else f"{promql} or vector(0)"},
        table=not over_time,
    )


def state_timeline():
    """The last word of each bin, for the chosen VM."""
    fields = ["state", "state_reason"]
    lasts = ", ".join(f'LAST("{field}") AS "{field}"' for field in fields)
    state, reason = (over("last_over_time", "vm_totals", field, VM_OF_HOST) for field in fields)
    return Query(
        f'SELECT {lasts} FROM "vm_metrics" WHERE $timeFilter AND {VM_OF_HOST.influxql} '
        "GROUP BY time($__interval) FILL(none)",
        f"WITH bins AS (SELECT $__dateBin(time) AS bin, time, {columns(fields)} FROM vm_metrics "
        f"WHERE {(RANGE & VM_OF_HOST).sql}), aged AS (SELECT bin, {columns(fields)}, "
        "ROW_NUMBER() OVER (PARTITION BY bin ORDER BY time DESC) AS age FROM bins) "
        f"SELECT bin AS time, {columns(fields)} FROM aged WHERE age = 1 ORDER BY time",
        {"state": f"min({state})", "state_reason": f"min({state} * 100 + {reason})"},
        table=True,
    )


PAUSED = Query(
    'SELECT "host", "name", "state_reason", "uuid" FROM (SELECT LAST("state") AS "state", "state_reason" '
    f'FROM "vm_metrics" WHERE {(LATELY & VMS).influxql} GROUP BY "host", "uuid", "name") '
    "WHERE \"state\" = 'paused'",
    "SELECT time, host, name, state_reason, uuid FROM (SELECT time, host, name, uuid, state, state_reason, "
    "ROW_NUMBER() OVER (PARTITION BY host, uuid ORDER BY time DESC) AS age FROM vm_metrics "
    f"WHERE {(LATELY & VMS).sql}) AS latest WHERE age = 1 AND state = 'paused' ORDER BY host, name",
    {"state_reason": f"max by (host, name, uuid) (300 + {over('last_over_time', 'vm_totals', 'state_reason', VMS, '$stale')} "
                     f"{SAME_RUN} {over('last_over_time', 'vm_totals', 'state', VMS, '$stale')} == 3)"},
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
    {"answers": f"max by (host, name, uuid) ({over('last_over_time', 'vm_metrics', 'answers', VMS, '$stale')} == 0 "
                f"{SAME_RUN} {over('last_over_time', 'vm_totals', 'state', VMS, '$stale')} != 5)"},
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
    {"lines": f"sum by (host) ({over('count_over_time', 'vm_totals', 'cpus', HOST, '$__range')}) unless on (host) "
              f"{over('count_over_time', 'vm_totals', 'cpus', HOST, '$stale')}"},
    table=True,
)

HOST_CPUS = Query(
    'SELECT COUNT("idle") AS "installed" FROM (SELECT LAST("usage_idle") AS "idle" FROM "cpu" '
    f'WHERE $timeFilter AND {EACH_CPU.influxql} GROUP BY time($__interval), "host", "cpu" FILL(none)) '
    "WHERE $timeFilter GROUP BY time($__interval) FILL(none)",
    f"SELECT $__dateBin(time) AS time, COUNT(DISTINCT cpu) AS installed FROM cpu "
    f"WHERE {(RANGE & EACH_CPU).sql} GROUP BY 1 ORDER BY 1",
    {"installed": f"count({over('last_over_time', 'cpu', 'usage_idle', EACH_CPU)})"},
)
HOST_BUSY = Query(
    'SELECT SUM("busy") AS "busy" FROM (SELECT (100 - MEAN("usage_idle")) / 100 AS "busy" FROM "cpu" '
    f'WHERE $timeFilter AND {EACH_CPU.influxql} GROUP BY time($__interval), "host", "cpu" FILL(none)) '
    "WHERE $timeFilter GROUP BY time($__interval) FILL(none)",
    "WITH bins AS (SELECT $__dateBin(time) AS bin, cpu, (100 - AVG(usage_idle)) / 100 AS busy FROM cpu "
    f"WHERE {(RANGE & EACH_CPU).sql} GROUP BY bin, cpu) "
    'SELECT bin AS time, SUM(busy) AS "busy" FROM bins GROUP BY bin ORDER BY time',
    {"busy": f"sum(100 - {over('avg_over_time', 'cpu', 'usage_idle', EACH_CPU)}) / 100"},
)

# One row for the chosen VM: where it is and whose, with its number of vCPUs.
PLACE = Query(
    'SELECT "host", "name", "${tag}" AS "owner", "vcpus" FROM (SELECT LAST("cpus") AS "vcpus" FROM "vm_totals" '
    f'WHERE {(RANGE & VM_OF_HOST).influxql} GROUP BY "host", "name", "${{tag}}")',
    f'SELECT host, name, "${{tag}}" AS owner, cpus AS vcpus FROM vm_totals WHERE {(RANGE & VM_OF_HOST).sql} '
    "AND cpus IS NOT NULL ORDER BY time DESC LIMIT 1",
    {"vcpus": "max by (host, name, owner) (label_join("
              f"{over('last_over_time', 'vm_totals', 'cpus', VM_OF_HOST, '$__range')}, \"owner\", \"\", \"${{tag}}\"))"},
    table=True,
)


# Whether libvirt answers; of one host with several URIs, whether all do.
UP = Query(
    'SELECT MIN("up") AS "up" FROM (SELECT LAST("up") AS "up" FROM "vm_collector" '
    f'WHERE {(LATELY & HOST).influxql} GROUP BY "uri")',
    "SELECT MIN(up) AS up FROM (SELECT up, ROW_NUMBER() OVER (PARTITION BY uri ORDER BY time DESC) AS age FROM vm_collector "
    f"WHERE {(LATELY & HOST).sql}) AS latest WHERE age = 1",
    {"up": f"min({over('last_over_time', 'vm_collector', 'up', HOST, '$stale')})"},
    table=True,
)


def given(label, field):
    """The sum of a field of vm_totals over the runs that have not ended, by their last lines."""
    last, state = (over("last_over_time", "vm_totals", name, VMS, "$stale") for name in (field, "state"))
    return Query(
        f'SELECT SUM("{label}") AS "{label}" FROM (SELECT LAST("{field}") AS "{label}", LAST("state") AS "state" '
        f'FROM "vm_totals" WHERE {(LATELY & VMS).influxql} GROUP BY {quoted(RUN)}) WHERE "state" != 5',
        f'SELECT SUM({field}) AS "{label}" FROM (SELECT {field}, state, ROW_NUMBER() OVER (PARTITION BY {columns(RUN)} '
        f"ORDER BY time DESC) AS age FROM vm_totals WHERE {(LATELY & VMS).sql}) AS latest WHERE age = 1 AND state <> 5",
        {label: f"sum({last} {SAME_RUN} {state} != 5)"},
        table=True,
    )


def tag_values(tag, table, where, field):
    """For a variable: the values of a tag. InfluxQL's list of series knows no time; SQL has the range's. `field` is
    always there."""
    return Query(
        f'SHOW TAG VALUES FROM "{table}" WITH KEY = "{tag}"' + (f" WHERE {where.influxql}" if where else ""),
        f"SELECT DISTINCT {column(tag)} FROM {table} WHERE $__timeFilter(time)"
        + (f" AND {where.sql}" if where else "")
        + f" ORDER BY {column(tag)}",
        {"": f"label_values({table}_{field}{{{where.promql if where else ''}}}, {tag})"},
    )


# The tags by which VMs can be chosen: their names, and those of the table [tags] (and of Telegraf's global_tags) which
# have been written. A query may name no column of InfluxDB 3 that is not there.
TAGS = Query(
    'SHOW TAG KEYS FROM "vm_totals"',
    "SELECT column_name FROM information_schema.columns WHERE table_name = 'vm_totals' "
    "AND data_type LIKE 'Dictionary%' ORDER BY column_name",
    {"": "label_names(vm_totals_cpus)"},
)
TAGS_PATTERN = "/^(?!(?:VMID|host|uuid|__name__|instance|job)$)(?<text>(?<value>.+))$/"
TAGGED = Query(
    f'SHOW TAG VALUES FROM "vm_totals" WITH KEY = "${{tag}}" WHERE {HOST.influxql}',
    f'SELECT DISTINCT "${{tag}}" FROM vm_totals WHERE {(RANGE & HOST).sql} AND "${{tag}}" IS NOT NULL ORDER BY "${{tag}}"',
    # With braces around the name, Grafana's editor of variables does not read it.
    {"": f"label_values(vm_totals_cpus{{{HOST.promql}}}, $tag)"},
)

# A VM is chosen by its uuid and shown by its name: both are in one text, the variable's pattern parts
# them. In InfluxQL a series' key has both; a name with a comma or a blank shows its backslashes.
VM_CHOICE = Query(
    f'SHOW SERIES FROM "vm_totals" WHERE {VMS.influxql}',
    "SELECT DISTINCT concat(name, ' ', uuid) AS vm FROM vm_totals WHERE "
    f"{(RANGE & VMS).sql} ORDER BY vm",
    {"": f"query_result(count by (name, uuid) ({over('last_over_time', 'vm_totals', 'cpus', VMS, '$__range')}))"},
)
VM_PATTERN = {
    "influxql": r"/,name=(?<text>(?:\\.|[^,\\])+),(?:.*,)?uuid=(?<value>[^,]+)/",
    "sql": "/^(?<text>.*) (?<value>[^ ]+)$/",
    "promql": r'/^\{name="(?<text>.*)",uuid="(?<value>[^"]*)"\}/',
}
