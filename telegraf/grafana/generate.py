#!/usr/bin/env python3
"""Writes the dashboards, influxql/*.json, sql/*.json and promql/*.json, from the panels of dashboards.py.

    telegraf/grafana/generate.py            writes them
    telegraf/grafana/generate.py --check    only tells whether they are what it would write

Needs Python 3.9 or newer and nothing else.
"""

import json
import pathlib
import sys

sys.dont_write_bytecode = True  # nothing but the dashboards is left behind
from dashboards import DASHBOARDS  # noqa: E402
from frame import LANGUAGES  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent


def main():
    check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not check:
        sys.exit(__doc__)
    stale = []
    for language in LANGUAGES:
        for name, dashboard in DASHBOARDS.items():
            file = HERE / language / f"{name}.json"
            text = json.dumps(dashboard(language), indent=2) + "\n"
            if check:
                stale += [file] if not file.exists() or file.read_text() != text else []
            else:
                file.parent.mkdir(exist_ok=True)
                file.write_text(text)
    if stale:
        sys.exit("not what generate.py writes: " + ", ".join(str(file.relative_to(HERE)) for file in stale))


if __name__ == "__main__":
    main()
