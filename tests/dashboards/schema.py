#!/usr/bin/env python3
"""Holds dashboards against Grafana's published schema, as the package grafana-foundation-sdk carries it.

    schema.py FILE...

Grafana Labs generates that package's classes from the schemas of Grafana (here of 11.4). A file is
right when it can be read into them and written again with nothing lost or changed (what the schema
does not know is lost), and when every value is of its field's type.
"""

import enum
import json
import sys
import typing

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import dashboard

# Of an annotation the schema knows the frame; these are the data source's own, which Grafana keeps as they are:
# packages/grafana-prometheus/src/annotations.ts, public/app/plugins/datasource/influxdb/datasource.ts.
OF_THE_SOURCE = ("query", "textColumn", "tagsColumn", "expr", "step", "titleFormat", "textFormat")


def lost(given, kept, path=""):
    """Where `kept` lacks or changes something of `given`; what it has beside it are defaults."""
    if isinstance(given, dict) and isinstance(kept, dict):
        for key, value in given.items():
            # An empty object means a default, which may be no object.
            if key in kept:
                yield from lost(value, kept[key], f"{path}/{key}")
            else:
                yield f"{path}/{key} is not in the schema"
    elif isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        for i, (one, other) in enumerate(zip(given, kept)):
            yield from lost(one, other, f"{path}/{i}")
    elif given != kept:
        yield f"{path} is {given!r}, which the schema reads as {kept!r}"


def fits(value, kind):
    """Is the value of that type, as far as Python's annotations tell it?"""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind is object or kind is typing.Any:
        return True
    if origin is typing.Union:
        return any(fits(value, one) for one in inner)
    if origin is typing.Literal:
        return value in inner
    if origin is list:
        return isinstance(value, list) and all(fits(one, inner[0]) for one in value)
    if origin is dict:
        return isinstance(value, dict) and all(fits(one, inner[1]) for one in value.values())
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return value in [one.value for one in kind] or value in list(kind)
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind in (str, bool, type(None)):
        return isinstance(value, kind)
    # A class of the package, or an interface that panels' options and queries of any source fulfil.
    return hasattr(value, "__dict__") or isinstance(value, dict)


def misfits(thing, path=""):
    """Fields, all the way down, whose value is not of its type."""
    if isinstance(thing, (list, tuple)):
        for i, one in enumerate(thing):
            yield from misfits(one, f"{path}/{i}")
    elif isinstance(thing, dict):
        for key, one in thing.items():
            yield from misfits(one, f"{path}/{key}")
    elif type(thing).__module__.startswith("grafana_foundation_sdk.models") and not isinstance(thing, enum.Enum):
        for name, kind in typing.get_type_hints(type(thing)).items():
            value = getattr(thing, name)
            if not fits(value, kind):
                yield f"{path}/{name} is {value!r}, and should be {kind}"
            yield from misfits(value, f"{path}/{name}")


def main():
    register_default_plugins()
    wrong = []
    for file in sys.argv[1:]:
        with open(file) as opened:
            given = json.load(opened)
        for annotation in given["annotations"]["list"]:
            for key in (*OF_THE_SOURCE, "target"):
                annotation.pop(key, None)
        read = dashboard.Dashboard.from_json(given)
        kept = json.loads(json.dumps(read, cls=JSONEncoder))
        # Of a kind of panel that it does not know, the package keeps the options as they are.
        strange = [f"no panel type {panel.type_val}" for panel in read.panels if isinstance(panel.options, dict)]
        wrong += [f"{file}: {what}" for what in (*lost(given, kept), *misfits(read), *strange)]
    print("\n".join(wrong), file=sys.stderr)
    sys.exit(1 if wrong or not sys.argv[1:] else 0)


if __name__ == "__main__":
    main()
