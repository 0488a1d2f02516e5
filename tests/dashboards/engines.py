"""The databases that answer the queries: an InfluxDB 1.x, DataFusion and a Prometheus, each asked as Grafana asks it.

`texts` are what a variable's query gives, `query` gives a panel's answer, `events` an annotation's times and texts, `truth`
the rows as that language takes them."""

import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "sql"))
import grafana  # noqa: E402
from doc_queries import DOCS, declared, with_owner  # noqa: E402
from truth import Bins, Windows  # noqa: E402

SECOND = 10**9


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
    gather = "10s"

    def __init__(self, server, rows):
        self.server, self.truth = server, Bins(rows)

    def texts(self, query, _span):
        """For a variable: SHOW TAG VALUES has key and value, SHOW SERIES only the key."""
        return [row[-1] for one in grafana.ask_influxdb(self.server, grafana.whole(query)) for row in one["values"]]

    def query(self, target, values, span):
        query = grafana.influxql_macros(grafana.with_variables(target["query"], values), *span)
        series = grafana.ask_influxdb(self.server, query)
        if target["resultFormat"] == "table":
            return grafana.influxdb_table(series)
        return grafana.influxdb_series(series, target["alias"])

    def events(self, annotation, values, span):
        """Times and texts. Grafana 9 and newer read the target alone, ask nothing without a query in it, and split the texts of
        the tags' column; older ones read the annotation itself."""
        target = annotation.get("target") or {}
        if not target.get("query") or not target.get("fromAnnotations"):
            return []
        if any(annotation[key] != target[key] for key in ("query", "textColumn", "tagsColumn")):
            raise grafana.Wrong(f"{annotation['name']}: the target has other queries or columns")
        rows = self.query(target | {"resultFormat": "table"}, values, span)
        tags = [row[target["tagsColumn"]] for row in rows] if target["tagsColumn"] else []
        if not all(isinstance(tag, str) for tag in tags):
            raise grafana.Wrong(f"{annotation['name']}: tags {tags} are no texts")
        return [(row["time"], row[target["textColumn"]]) for row in rows]


class DataFusion:
    language = "sql"
    gather = "10s"

    def __init__(self, rows):
        self.context, self.truth = datafusion_tables(rows), Bins(rows)

    def texts(self, query, span):
        table = grafana.ask_datafusion(self.context, grafana.sql_macros(query, *span))
        return [next(iter(row.values())) for row in table.to_pylist()]

    def query(self, target, values, span):
        query = grafana.sql_macros(grafana.with_variables(target["rawSql"], values), *span)
        table = grafana.ask_datafusion(self.context, query)
        if target["format"] == "table":
            return table.to_pylist()
        return grafana.datafusion_series(table, target["display"])

    def events(self, annotation, values, span):
        """Grafana replaces a target without `query` by one of its own, which asks nothing."""
        if not annotation["target"].get("query"):
            return []
        return [(row["time"], row["text"]) for row in self.query(annotation["target"], values, span)]


class Prometheus:
    """Telegraf's interval is 1 s here, and Grafana asks for a value every ten seconds: a window has 11 s."""

    language = "promql"
    gather = "1s"

    def __init__(self, server, rows):
        version = grafana.ask_prometheus(server, "status/buildinfo")["version"]
        self.server, self.truth = server, Windows(rows, 11, tuple(int(part) for part in version.split(".")[:2]))

    def expression(self, query, values, span):
        return grafana.promql_macros(grafana.with_variables(query, values), *span, int(self.gather[:-1]))

    def texts(self, query, span):
        return grafana.prometheus_choices(self.server, self.expression(query, {}, span), *span)

    def query(self, target, values, span):
        query, form = self.expression(target["expr"], values, span), target["legendFormat"]
        if target["range"]:
            found = grafana.prometheus_series(self.server, query, *span, form)
            # By the begin of the time that a value is about, as the bins of the others.
            return {name: {time - grafana.INTERVAL * SECOND: value for time, value in points.items()}
                    for name, points in found.items()}
        now = grafana.prometheus_now(self.server, query, span[1])
        if target["format"] == "table":
            return [labels | {target["names"].get("Value", "Value"): value} for labels, value in now]
        return [{grafana.legend(form, labels): value} for labels, value in now]

    def events(self, annotation, values, span):
        """Grafana leaves out values that are not above 0."""
        query = self.expression(annotation["expr"], values, span)
        found = grafana.prometheus_series(self.server, query, *span, annotation["textFormat"])
        return [(time, text) for text, points in found.items() for time, value in points.items() if value > 0]
