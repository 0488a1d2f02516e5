"""Whether two languages say the same."""

import re
import statistics

import grafana
from truth import close


def by_texts(rows):
    """A table's rows, texts -> numbers. Times are left out: InfluxQL's aggregates have none of their own."""
    return {
        tuple(row[k] for k in sorted(row) if isinstance(row[k], str)):
        {k: v for k, v in row.items() if not isinstance(v, str) and k not in ("time", "last_gather")}
        for row in rows
    }


# A host and a VM of which hardly a bin is whole.
SHORT = re.compile(r"-again$|^kvm02$")


def series_differ(one, other, by_windows):
    """How two languages' time series differ, if they do."""
    # SQL has a series of nothing for a field that another one's rows lack.
    one, other = ({name: points for name, points in series.items() if points} for series in (one, other))
    if one.keys() != other.keys():
        yield f"series {sorted(one)} and {sorted(other)}"
        return
    for name in one:
        # InfluxQL looks a bin back for a derivative, so it may begin earlier; and the first and the
        # last bin are not whole.
        times = sorted(one[name].keys() & other[name].keys())
        pairs = [(one[name][t], other[name][t]) for t in times[1:-1]]
        if SHORT.search(name):
            continue
        if len(other[name]) > len(times) + 1:
            yield f"{name}: {len(times)} common times of {len(one[name])} and {len(other[name])}"
        elif by_windows:
            yield from (f"{name}: {pair}" for pair in out_of_bounds(one[name], other[name]))
        elif pairs and not close(*(statistics.mean(values) for values in zip(*pairs))):
            yield f"{name}: {pairs}"


def out_of_bounds(windows, bins):
    """PromQL's windows are no bins: each holds one, and a second or two of the bin before. So what happens in a moment may
    count for two windows, and the exact numbers are for `known` to tell. No value is much greater than those of the bins
    around it together, or much less than each."""
    step = grafana.INTERVAL * 10**9
    for time, value in windows.items():
        around = [bins.get(time + i * step) for i in (-1, 0, 1)]
        if None not in around and not 0.2 * min(around) - 1e-9 <= value <= 2.5 * sum(around) + 1e-9:
            yield value, around


def tables_differ(one, other, only_texts):
    """The same for tables."""
    one, other = by_texts(one), by_texts(other)
    if one.keys() != other.keys():
        yield f"rows {sorted(one)} and {sorted(other)}"
        return
    for key, numbers in one.items():
        if any(SHORT.search(text) for text in key):
            continue
        if numbers.keys() != other[key].keys():
            yield f"{key}: {numbers} and {other[key]}"
            continue
        # InfluxQL divides by the bins' distance, SQL by the samples'; and these come each second, so that a
        # step of a bin is 9 s to 11 s.
        if not only_texts:
            yield from (f"{key}: {k}: {v} and {other[key][k]}" for k, v in numbers.items() if not close(v, other[key][k]))


def same(one, other):
    """Whether two answers in one language are alike. Equal rows of a table may change places, and what is added up in another
    order may differ in its last digits."""
    if not isinstance(one, dict):
        one, other = by_texts(one), by_texts(other)
    return one.keys() == other.keys() and all(
        one[name].keys() == other[name].keys() and all(
            value == other[name][key] or close(value, other[name][key], 1e-9) for key, value in one[name].items())
        for name in one
    )


def differ(language, one, other):
    if one.keys() != other.keys():
        yield f"not the same queries: {one.keys() ^ other.keys()}"
    promql = language == "promql"
    for where in one.keys() & other.keys():
        first, second = one[where][1], other[where][1]
        if isinstance(first, dict):
            found = series_differ(first, second, promql)
        else:
            # PromQL's means are those of the whole range: `known` has their numbers.
            found = tables_differ(first, second, promql and where[1].startswith("Top "))
        yield from (f"{language} and SQL, {where}: {how}" for how in found)
