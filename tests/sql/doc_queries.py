#!/usr/bin/env python3
"""Runs every query of docs/queries.md on rows of line protocol, and prints what each gives as JSON.

    doc_queries.py influxql [--rows FILE [--server HOST:PORT]] [--expect FILE] [--docs FOLDER]
    doc_queries.py sql      [--rows FILE] [--expect FILE] [--docs FOLDER]

influxql starts an influxd (1.x) of its own on free ports and a temporary folder; with --server it asks
that one, whose database telegraf has the rows already.
sql runs on DataFusion, the engine of InfluxDB 3; the tables are declared as the
`influxdb3 create table` commands of docs/outputs.md declare them, so a wrong declaration shows here too. As that page
says, those of the VMs have the names in [tags] beside them: project.

Without --rows the hand-made rows beside this file serve; their clock starts at 0, and they are moved
to begin ten full minutes ago, since the queries look back from now. --rows takes rows as Telegraf
wrote them, with their own time stamps.

The exit code is 1 when a query fails, gives no rows, or gives other rows than --expect has.
Times in the output are seconds since the first row.
"""

import argparse
import json
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
DOCS = HERE.parents[1] / "docs"
MINUTE = 60 * 10**9
# A name, tag or number: escaped characters, or any but the separators. Only field values are quoted.
BARE = r"(?:\\.|[^ ,=\\])+"
VALUE = rf'(?:"(?:\\.|[^"\\])*"|{BARE})'


def queries(docs, tag):
    """The queries of all blocks with that tag: a statement ends with ';'."""
    text = (docs / "queries.md").read_text()
    for block in re.findall(rf"^```{tag}\n(.*?)^```", text, re.M | re.S):
        yield from (q.strip() for q in block.split(";\n") if q.strip())


def parse(line):
    """One line -> measurement, tags, fields, nanoseconds."""
    unescape = lambda s: re.sub(r"\\([,= ])", r"\1", s)
    head = re.match(rf"{BARE}(?:,{BARE}={BARE})*", line)[0]
    rest, timestamp = line[len(head) + 1 :].rsplit(" ", 1)
    measurement, *tags = re.split(r"(?<!\\),", head)
    tags = dict(map(unescape, re.split(r"(?<!\\)=", t, maxsplit=1)) for t in tags)
    fields = {}
    for key, value in re.findall(rf"({BARE})=({VALUE})", rest):
        if value.startswith('"'):
            fields[key] = re.sub(r'\\(["\\])', r"\1", value[1:-1])
        else:
            fields[key] = int(value[:-1]) if value.endswith("i") else float(value)
    return unescape(measurement), tags, fields, int(timestamp)


def declared(docs):
    """The documented `influxdb3 create table` commands: table -> (tags, {field: type})."""
    found = {}
    text = (docs / "outputs.md").read_text().replace("\\\n", " ")
    for command in re.findall(r"^influxdb3 create table (.*)$", text, re.M):
        tags = re.search(r"--tags (\S+)", command)[1].split(",")
        # The columns of vm_stats come with the lines.
        fields = re.search(r"--fields (\S+)", command)
        fields = fields[1].split(",") if fields else []
        found[command.split()[-1]] = (tags, dict(f.split(":") for f in fields))
    return found


def with_owner(table, tags):
    """The tags of a table where [tags] has project."""
    return tags if table in ("vm_collector", "vm_host", "vm_info", "vm_pools") else [*tags, "project"]


def sql(docs, lines, _server):
    """Yields each SQL query with its rows, or the error that it gave."""
    import datafusion
    import pyarrow

    types = {"int64": pyarrow.int64(), "float64": pyarrow.float64(), "utf8": pyarrow.string()}
    context = datafusion.SessionContext()
    rows = [parse(line) for line in lines]
    for table, (tags, fields) in declared(docs).items():
        tags = with_owner(table, tags)
        # InfluxDB 3 holds tags as dictionaries and time without a zone.
        schema = [pyarrow.field("time", pyarrow.timestamp("ns"))]
        schema += [pyarrow.field(t, pyarrow.dictionary(pyarrow.int32(), pyarrow.string())) for t in tags]
        schema += [pyarrow.field(f, types[kind]) for f, kind in fields.items()]
        mine = [{"time": ns, **t, **f} for name, t, f, ns in rows if name == table]
        strangers = {k for row in mine for k in row} - {f.name for f in schema}
        if strangers:
            sys.exit(f"{table}: not declared in docs/outputs.md: {', '.join(sorted(strangers))}")
        columns = [pyarrow.array([r.get(f.name) for r in mine], f.type) for f in schema]
        batch = pyarrow.record_batch(columns, schema=pyarrow.schema(schema))
        context.register_record_batches(table, [[batch]])
    first = min(row[3] for row in rows)
    for query in queries(docs, "sql"):
        try:
            table = context.sql(query).to_arrow_table()
        except Exception as error:  # DataFusion raises a bare Exception
            yield query, str(error)
            continue
        for i, field in enumerate(table.schema):
            if pyarrow.types.is_timestamp(field.type):
                table = table.set_column(i, field.name, table[i].cast(pyarrow.int64()))
        yield query, [
            {k: (v - first) // 10**9 if k == "time" else v for k, v in row.items()}
            for row in table.to_pylist()
        ]


def influxql(docs, lines, server):
    """Yields each InfluxQL query with its rows, or the error that it gave."""
    first = min(parse(line)[3] for line in lines)
    if server:
        yield from ((query, ask(server, query, first)) for query in queries(docs, "influxql"))
        return
    with tempfile.TemporaryDirectory() as folder, socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        http, rpc = (f"127.0.0.1:{s.getsockname()[1]}" for s in (one, two))
        one.close()
        two.close()
        config = pathlib.Path(folder, "influxdb.conf")
        config.write_text(
            f'reporting-disabled = true\nbind-address = "{rpc}"\n[meta]\ndir = "{folder}/meta"\n'
            f'[data]\ndir = "{folder}/data"\nwal-dir = "{folder}/wal"\n[http]\nbind-address = "{http}"\n'
        )
        daemon = subprocess.Popen(
            ["influxd", "-config", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            for _ in range(300):
                try:
                    post(http, "/ping", None)
                    break
                except (ConnectionError, urllib.error.URLError):
                    if daemon.poll() is not None:
                        sys.exit("influxd ended at once")
                    time.sleep(0.1)
            post(http, "/query?q=CREATE%20DATABASE%20telegraf", b"")
            post(http, "/write?db=telegraf", "\n".join(lines).encode())
            for query in queries(docs, "influxql"):
                yield query, ask(http, query, first)
        finally:
            daemon.kill()
            daemon.wait()


def post(address, path, body):
    """GET without a body, POST with one."""
    with urllib.request.urlopen(f"http://{address}{path}", body, 30) as answer:
        return answer.read()


def ask(address, query, first):
    """The rows of one InfluxQL query, the tags of GROUP BY among the columns."""
    path = "/query?" + urllib.parse.urlencode({"db": "telegraf", "epoch": "ns", "q": query})
    try:
        result = json.loads(post(address, path, None))["results"][0]
    except urllib.error.HTTPError as error:
        return error.read().decode()
    if "error" in result:
        return result["error"]
    rows = []
    for series in result.get("series", []):
        for values in series["values"]:
            row = series.get("tags", {}) | dict(zip(series["columns"], values))
            if "time" in row:
                # An aggregate without GROUP BY time carries the begin of its range, which is no row's time.
                row["time"] = (row["time"] - first) // 10**9 if row["time"] and row["time"] >= first else None
            rows.append(row)
    return rows


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("language", choices=["influxql", "sql"])
    arguments.add_argument("--docs", type=pathlib.Path, default=DOCS)
    arguments.add_argument("--rows", type=pathlib.Path)
    arguments.add_argument("--server", help="for influxql; needs --rows")
    arguments.add_argument("--expect", type=pathlib.Path)
    given = arguments.parse_args()
    if given.rows:
        lines = [line for line in given.rows.read_text().split("\n") if line]
    else:
        start = (time.time_ns() // MINUTE - 10) * MINUTE
        pairs = (line.rsplit(" ", 1) for line in (HERE / "rows.lp").read_text().splitlines())
        lines = [f"{head} {int(timestamp) + start}" for head, timestamp in pairs]
    answers = dict(globals()[given.language](given.docs, lines, given.server))
    print(json.dumps(answers, indent=1))
    bad = [f"{rows if isinstance(rows, str) else 'no rows'}: {query}"
           for query, rows in answers.items() if isinstance(rows, str) or not rows]
    if not answers:
        bad.append("no queries in docs/queries.md")
    if given.expect:
        expected = json.loads(given.expect.read_text())
        # Through JSON, so that both sides have its types.
        got = json.loads(json.dumps(answers))
        bad += [f"not as expected: {q}" for q in expected.keys() | got.keys() if expected.get(q) != got.get(q)]
    for line in bad:
        print(line, file=sys.stderr)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
