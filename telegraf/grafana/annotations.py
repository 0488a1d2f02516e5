"""Annotations on the graphs: a VM's state changed, a VM was restarted, the collector came into trouble.

InfluxQL's and PromQL's look at every $gather or step. One of InfluxQL can only carry what is in the rows: its text is the
name of the VM or host. What is beside the name becomes the title above it: the number of the VM's new state.

In PromQL Grafana shows the steps whose value is above 0.
"""

from conditions import HOST, RANGE
from queries import Query, WINDOW, over
from states import state_of

STEP = " offset $__interval"


def changes(where):
    now, before = state_of(where, WINDOW), state_of(where, WINDOW, STEP)
    return Query(
        'SELECT "name", "state" FROM (SELECT LAST("state") AS "state", DIFFERENCE(LAST("state")) AS "change" '
        f'FROM "vm_totals" WHERE $timeFilter AND {where.influxql} GROUP BY time($gather), "host", "uuid", "name" '
        'FILL(none)) WHERE "change" != 0',
        "SELECT time, concat(name, ': ', state, ', ', state_reason) AS text FROM (SELECT time, name, state, state_reason, "
        f"LAG(state) OVER (PARTITION BY host, uuid ORDER BY time) AS before FROM vm_metrics WHERE {(RANGE & where).sql}) "
        "AS lines WHERE state <> before ORDER BY time",
        {"{{name}}": f'count_values by (name) ("state", {now} != {before})'},
    )


def restarts(where):
    uptime = f"min by (host, name, uuid) ({over('last_over_time', 'vm_metrics', 'uptime_sec', where)})"
    return Query(
        'SELECT "name", "uptime" FROM (SELECT LAST("uptime_sec") AS "uptime", DIFFERENCE(LAST("uptime_sec")) AS "step" '
        f'FROM "vm_metrics" WHERE $timeFilter AND {where.influxql} GROUP BY time($gather), "host", "uuid", "name" '
        'FILL(none)) WHERE "step" < 0',
        "SELECT time, concat(name, ': started again') AS text FROM (SELECT time, name, uptime_sec, "
        f"LAG(uptime_sec) OVER (PARTITION BY host, uuid ORDER BY time) AS before FROM vm_metrics "
        f"WHERE {(RANGE & where).sql} AND uptime_sec IS NOT NULL) AS lines WHERE uptime_sec < before ORDER BY time",
        {"{{name}}": f"{uptime.replace(']', ']' + STEP)} > {uptime}"},
    )


def troubles():
    """libvirt away, more calls that hang, more dead mounts, more VMs without lines."""
    greatest = ("calls_hanging", "dead_mounts", "vms_withheld")
    trouble = " + ".join(over("max_over_time", "vm_collector", name, HOST) for name in greatest)
    trouble = f"max by (host) ({trouble} + 1 - {over('min_over_time', 'vm_collector', 'up', HOST)})"
    return Query(
        'SELECT "host", "more" FROM (SELECT DIFFERENCE("trouble") AS "more" FROM (SELECT '
        + " + ".join(f'MAX("{name}")' for name in greatest)
        + f' - MIN("up") AS "trouble" FROM "vm_collector" WHERE $timeFilter AND {HOST.influxql} '
        'GROUP BY time($gather), "host" FILL(none)) GROUP BY "host") WHERE "more" > 0',
        "SELECT time, concat(host, ': ', CASE WHEN up = 0 THEN 'libvirt does not answer' "
        "WHEN dead_mounts > 0 THEN 'a mount is dead' WHEN calls_hanging > 0 THEN 'calls hang' "
        "ELSE 'VMs without lines' END) AS text FROM (SELECT *, "
        "LAG(trouble) OVER (PARTITION BY host, uri ORDER BY time) AS before FROM (SELECT time, host, uri, up, dead_mounts, calls_hanging, "
        f"{' + '.join(greatest)} - up AS trouble FROM vm_collector WHERE {(RANGE & HOST).sql}) AS lines) AS steps "
        "WHERE trouble > before ORDER BY time",
        {"{{host}}": f"{trouble} > {trouble.replace(']', ']' + STEP)}"},
    )


def annotation(name, colour, query, shown, text):
    """An annotation as Grafana stores it; `text` are those of the columns or labels that say what happened."""

    def made(language, source):
        common = {
            "name": name, "datasource": source, "enable": shown, "hide": False, "iconColor": colour,
        }
        if language == "influxql":
            own = {"query": query.influxql, "textColumn": text["influxql"], "tagsColumn": ""}
            # Since 9 Grafana reads all this from the target, and asks nothing without one.
            target = {"refId": "Anno", "rawQuery": True, "fromAnnotations": True, "textEditor": True, "name": name} | own
            return common | own | {"target": target}
        if language == "sql":
            # Without `query` Grafana takes the target for one of an old version, and drops it.
            target = {"refId": "Anno", "query": query.sql, "rawQuery": True, "editorMode": "code", "rawSql": query.sql, "format": "table"}
            return common | {"target": target}
        (_, expression), = query.promql.items()
        return common | {
            "expr": expression, "step": "$gather", "titleFormat": name, "textFormat": text["promql"],
            "target": {"refId": "Anno", "expr": expression, "interval": "$gather", "range": True},
        }

    return made


def annotations(where, shown=True):
    """The three of a dashboard. Those of VMs can be switched on where they would be too many."""
    return [
        annotation("State changes", "blue", changes(where), shown,
                   {"influxql": "name", "promql": "{{name}}: state {{state}}"}),
        annotation("Restarts", "purple", restarts(where), shown, {"influxql": "name", "promql": "{{name}}: started again"}),
        annotation("Collector in trouble", "red", troubles(), True, {"influxql": "host", "promql": "{{host}}"}),
    ]
