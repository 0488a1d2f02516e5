"""What Grafana does with a dashboard's query before a database sees it, and with the answer after.

After Grafana's sources: packages/grafana-data (variables' formats), public/app/features/variables
(a variable's pattern), pkg/tsdb/influxdb (InfluxQL's and SQL's macros, names of series), the
plugin SDK's data/sqlutil, and packages/grafana-prometheus with pkg/promlib (PromQL's macros, variables, steps).
"""

import json
import re
import urllib.error
import urllib.parse
import urllib.request
from datetime import datetime, timezone

INTERVAL = 10  # seconds: what panels ask for at the least, so what Grafana takes for a short range


class Wrong(Exception):
    pass


def formatted(value, form):
    """A variable's value in a query; a list is a choice of several."""
    values = value if isinstance(value, list) else [value]
    if form == "regex":
        escaped = [re.sub(r"[\\^$*+?.()|\[\]{}/]", r"\\\g<0>", one) for one in values]
        return "(" + "|".join(escaped) + ")" if isinstance(value, list) and len(values) > 1 else escaped[0]
    if form == "sqlstring":
        return ",".join("'" + one.replace("'", "''") + "'" for one in values)
    if form is None and isinstance(value, str):
        return value
    raise Wrong(f"no format {form} for {value}")


def with_variables(query, values):
    """${name:format}, ${name} and $name. A value of All that the variable gives itself stays as it is."""

    def put(match):
        name, form = match[1] or match[3], match[2]
        if name not in values:
            if name.startswith("__") or name in ("timeFilter",):
                return match[0]
            raise Wrong(f"no variable {name} in {query}")
        value = values[name]
        return value.raw if isinstance(value, Raw) else formatted(value, form)

    return re.sub(r"\$\{(\w+)(?::(\w+))?\}|\$(\w+)", put, query)


class Raw:
    """allValue."""

    def __init__(self, raw):
        self.raw = raw


def influxql_macros(query, start, end):
    """Times are nanoseconds."""
    query = query.replace("$timeFilter", f"time >= {start // 10**6}ms and time <= {end // 10**6}ms")
    return whole(query.replace("$__interval", f"{INTERVAL}s"))


def sql_macros(query, start, end):
    first, last = (datetime.fromtimestamp(t // 10**9, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ") for t in (start, end))
    query = re.sub(r"\$__timeFilter\((\w+)\)", rf"\1 >= '{first}' AND \1 <= '{last}'", query)
    query = query.replace("$__timeFrom()", f"cast('{first}' as timestamp)").replace("$__timeTo()", f"cast('{last}' as timestamp)")
    bins = rf"date_bin(interval '{INTERVAL} second', \1, timestamp '1970-01-01T00:00:00Z')"
    return whole(re.sub(r"\$__dateBin\((\w+)\)", bins, query))


def promql_macros(query, start, end, gather):
    """`gather` is Telegraf's interval as the dashboard has it, which is the least step of a query."""
    window = max(INTERVAL + gather, 4 * gather)
    query = query.replace("$__rate_interval", f"{window}s").replace("$__interval", f"{INTERVAL}s")
    return whole(query.replace("$__range", f"{round((end - start) / 1e9)}s"))


def whole(query):
    """Nothing of Grafana's may be left for the database to stumble over; $ ends a pattern in InfluxQL."""
    if re.search(r"\$(?!/)", query):
        raise Wrong(f"not replaced: {query}")
    return query


def ask_influxdb(server, query):
    """The series of the answer."""
    path = "/query?" + urllib.parse.urlencode({"db": "telegraf", "epoch": "ns", "q": query})
    try:
        with urllib.request.urlopen(f"http://{server}{path}", None, 30) as answer:
            result = json.load(answer)["results"][0]
    except urllib.error.HTTPError as error:
        raise Wrong(f"{error.read().decode()}: {query}") from None
    if "error" in result:
        raise Wrong(f"{result['error']}: {query}")
    return result.get("series", [])


def influxdb_table(series):
    """As Grafana's tables: the rows of all series, their tags among the columns."""
    rows = []
    for one in series:
        # More tags would come in an order of chance, in some versions of Grafana.
        if len(one.get("tags", {})) > 1:
            raise Wrong(f"a table with tags {one['tags']}")
        rows += [one.get("tags", {}) | dict(zip(one["columns"], values)) for values in one["values"]]
    return rows


def influxdb_series(series, alias):
    """As Grafana's time series: name -> {nanoseconds: value}."""
    found = {}
    for one in series:
        for i, column in enumerate(one["columns"][1:], 1):
            fill = lambda match: column if match[1] == "col" else one["tags"][match[1].removeprefix("tag_")]
            name = re.sub(r"\$(\w+)", fill, alias)
            if name in found:
                raise Wrong(f"two series called {name}")
            found[name] = {values[0]: values[i] for values in one["values"] if values[i] is not None}
    return found


def ask_datafusion(context, query):
    """The answer's table; its types are those that Grafana's reader of Arrow knows."""
    import pyarrow.types as types

    try:
        table = context.sql(query).to_arrow_table()
    except Exception as error:  # DataFusion raises a bare Exception
        raise Wrong(f"{error}: {query}") from None
    known = (types.is_string, types.is_integer, types.is_floating, types.is_boolean)
    for i, field in enumerate(table.schema):
        kind = field.type
        if types.is_dictionary(kind):  # InfluxDB sends a tag's text, not its number
            kind = kind.value_type
        if types.is_timestamp(kind):
            if kind.unit != "ns":
                raise Wrong(f"{field.name} is {kind}: Grafana takes all times for nanoseconds: {query}")
            table = table.set_column(i, field.name, table[i].cast("int64"))
        elif not any(knows(kind) for knows in known):
            raise Wrong(f"{field.name} is {kind}, which Grafana does not read: {query}")
    return table


def datafusion_series(table, display):
    """Long to wide, as Grafana does it: texts are labels, numbers values; times must ascend."""
    import pyarrow.types as types

    def is_text(kind):
        return types.is_string(kind) or types.is_dictionary(kind)

    if table.schema.names[0] != "time":
        raise Wrong(f"columns {table.schema.names}: the first should be time")
    labels = [field.name for field in table.schema if is_text(field.type)]
    rows, found, before = table.to_pylist(), {}, 0
    for row in rows:
        if row["time"] is None or row["time"] < before:
            raise Wrong("times do not ascend")
        before = row["time"]
        for column in set(row) - set(labels) - {"time"}:
            names = {"__field.name": column} | {f"__field.labels.{label}": row[label] for label in labels}
            name = re.sub(r"\$\{([^}]+)\}", lambda match: names[match[1]], display)
            key = tuple(row[label] for label in labels)
            mine = found.setdefault((name, key), {})
            if row["time"] in mine:
                raise Wrong(f"two values of {name} at one time")
            if row[column] is not None:
                mine[row["time"]] = row[column]
    if len({name for name, _ in found}) < len(found):
        raise Wrong(f"two series of one name among {list(found)}")
    return {name: values for (name, _), values in found.items()}


def options(texts, pattern):
    """A variable's choices, text -> value, by its pattern with the groups text and value."""
    if not pattern:
        return {text: text for text in texts}
    matcher = re.compile(pattern.strip("/").replace("(?<", "(?P<"))
    matches = [matcher.search(text) for text in texts]
    return {match["text"]: match["value"] for match in matches if match}


def ask_prometheus(server, path, **parameters):
    """The data of the answer."""
    url = f"http://{server}/api/v1/{path}?" + urllib.parse.urlencode(parameters)
    try:
        with urllib.request.urlopen(url, None, 30) as answer:
            return json.load(answer)["data"]
    except urllib.error.HTTPError as error:
        raise Wrong(f"{error.read().decode()}: {parameters}") from None


def prometheus_choices(server, query, start, end):
    """The texts of a variable: label_values, label_names or query_result."""
    times = {"start": start // 10**9, "end": end // 10**9}
    if match := re.fullmatch(r"label_values\((.+), (\w+)\)", query):
        return ask_prometheus(server, f"label/{match[2]}/values", **{"match[]": match[1]}, **times)
    if match := re.fullmatch(r"label_names\((.+)\)", query):
        return ask_prometheus(server, "labels", **{"match[]": match[1]}, **times)
    if match := re.fullmatch(r"query_result\((.+)\)", query):
        found = ask_prometheus(server, "query", query=match[1], time=times["end"])["result"]
        labels = [",".join(f'{label}="{value}"' for label, value in one["metric"].items()) for one in found]
        return [f"{{{text}}} {one['value'][1]}" for text, one in zip(labels, found)]
    raise Wrong(f"no variable's query: {query}")


def legend(form, labels):
    return re.sub(r"{{(\w+)}}", lambda match: labels.get(match[1], ""), form)


def prometheus_now(server, query, end):
    """Labels and value of each series at the end of the range."""
    found = ask_prometheus(server, "query", query=query, time=end / 1e9)["result"]
    return [(one["metric"], float(one["value"][1])) for one in found]


def prometheus_series(server, query, start, end, form):
    """As Grafana's time series: name -> {nanoseconds: value}. Grafana moves both ends of the range to whole steps."""
    step = INTERVAL * 10**9
    times = {"start": start // step * INTERVAL, "end": end // step * INTERVAL}
    found = {}
    for one in ask_prometheus(server, "query_range", query=query, step=INTERVAL, **times)["result"]:
        name = legend(form, one["metric"])
        if name in found:
            raise Wrong(f"two series called {name}: {query}")
        found[name] = {round(time * 10**9): float(value) for time, value in one["values"]}
    return found
