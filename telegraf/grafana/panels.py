"""The kinds of panels, as Grafana stores them. Each has a description, and a text for when there is no data."""

from conditions import HOST, VM_OF_HOST, VMS
from queries import DEVICE, DEVICE_NOW, RUN, VM, gauges, last, rates, ratio
from states import REASON_WORDS, STATE_WORDS

# What Grafana calls the units: KiB, bytes and packets a second and so on.
KIB, BYTES, BYTES_S, PACKETS_S, OPS_S, PERCENT, NS = "kbytes", "bytes", "Bps", "pps", "iops", "percent", "ns"
KIB_S, FAULTS_S, CORES, COUNT, MS, SECONDS, PER_S = "KiBs", "cps", "none", "none", "ms", "s", "cps"
COLOURS = {
    "running": "green", "paused": "orange", "blocked": "yellow", "suspended": "blue",
    "shutdown": "purple", "shutoff": "text", "crashed": "red", "no state": "text",
}
NOTHING = "No data in this range: see whether VMs are chosen, and whether lines come (panel Silent hosts)."
# From which value on a panel is orange, and from which red.
STEAL, THROTTLED, MEMORY, LATENCY, DROPS, PRESSURE, ERRORS = (5, 20), (1, 5), (85, 95), (20, 100), (1, 100), (10, 40), (1, 100)


def panel(kind, title, unit, queries, size, description, nothing, options=None, custom=None, overrides=(), levels=None):
    """A panel; it gets its place and its data in `dashboard`."""
    defaults = {"unit": unit, "custom": custom or {}, "color": {"mode": "palette-classic"}, "noValue": nothing}
    if levels:
        steps = [{"color": colour, "value": value} for colour, value in zip(("green", "orange", "red"), (None, *levels))]
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
    return {
        "type": kind,
        "title": title,
        "description": description,
        "fieldConfig": {"defaults": defaults, "overrides": list(overrides)},
        "options": options or {},
        "queries": queries,
        "size": size,
    }


def graph(title, unit, *queries, description, size=(12, 8), stack=False, levels=None, nothing=NOTHING, link=None):
    """`levels` are lines across it. `link` is the dashboard to which its series lead."""
    custom = {
        "drawStyle": "line", "lineInterpolation": "linear", "lineWidth": 1, "showPoints": "auto", "pointSize": 4,
        "fillOpacity": 40 if stack else 10, "spanNulls": False,
        "stacking": {"mode": "normal" if stack else "none", "group": "A"},
        "thresholdsStyle": {"mode": "dashed" if levels else "off"},
    }
    options = {
        "legend": {"showLegend": True, "displayMode": "table", "placement": "right", "calcs": ["mean", "max"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    made = panel("timeseries", title, unit, queries, size, description, nothing, options, custom, levels=levels)
    made["fieldConfig"]["defaults"]["min"] = 0
    return made | {"link": link and (link, "labels")}


def by_name(name, **properties):
    """Other settings for one column."""
    return {
        "matcher": {"id": "byName", "options": name},
        "properties": [{"id": key.replace("_", "."), "value": value} for key, value in properties.items()],
    }


def table(
    title, unit, *queries, description, size=(8, 8), hidden=("Time", "time", "uuid"), order=("host", "name"), by=None,
    levels=None, words=None, colour=None, nothing=NOTHING, link="vm",
):
    """With `by`, the greatest of that column come first; `levels` colour it. `colour` is that of all names. The hosts lead to
    their dashboard, all else to `link`."""
    sort = {"sortBy": [{"displayName": by, "desc": True}]} if by else {}
    overrides = [by_name(name, custom_hidden=True) for name in hidden]
    overrides += [by_name(name, unit="string") for name in order]
    if levels:
        overrides.append(by_name(by, custom_cellOptions={"type": "color-text"}, color={"mode": "thresholds"}))
    made = panel(
        "table", title, unit, queries, size, description, nothing, {"showHeader": True, "cellHeight": "sm"} | sort,
        {"align": "auto", "cellOptions": {"type": "auto"}}, overrides, levels,
    )
    if colour:
        shade = {"mode": "fixed", "fixedColor": colour}
        made["fieldConfig"]["overrides"].append(by_name("name", custom_cellOptions={"type": "color-text"}, color=shade))
    if words:
        made["fieldConfig"]["defaults"]["mappings"] = mapping(words)
    if unit == CORES:
        made["fieldConfig"]["defaults"]["decimals"] = 2
    made["order"] = order
    return made | {"link": link and (link, "fields")}


def stat(title, unit, *queries, description, size=(3, 4), levels=None, words=None, nothing="-", link=None):
    """The last value of each query; `words` are what single values mean: word and colour."""
    options = {
        "colorMode": "value", "graphMode": "none", "justifyMode": "auto", "orientation": "auto",
        "textMode": "value_and_name" if len(queries) > 1 else "value",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    }
    made = panel("stat", title, unit, queries, size, description, nothing, options, levels=levels)
    if levels:
        made["fieldConfig"]["defaults"]["color"] = {"mode": "thresholds"}
    if words:
        made["fieldConfig"]["defaults"]["mappings"] = mapping(words)
    return made | {"link": link and (link, "page")}


def mapping(words):
    """What values mean: value -> word and colour."""
    options = {
        str(value): {"text": word, "index": i} | ({"color": colour} if colour else {})
        for i, (value, (word, colour)) in enumerate(words.items())
    }
    return [{"type": "value", "options": options}]


ANSWERS = {0: ("no", "red"), 1: ("yes", "green")}
NUMBERED_STATES = {number: (word, COLOURS[word]) for number, word in enumerate(STATE_WORDS)}
NUMBERED_REASONS = {
    100 * state + number: (word, None) for state, words in REASON_WORDS.items() for number, word in enumerate(words)
}


def timeline(title, query, description, size=(24, 5), nothing=NOTHING):
    options = {
        "alignValue": "left", "mergeValues": True, "rowHeight": 0.9, "showValue": "auto",
        "legend": {"showLegend": False, "displayMode": "list", "placement": "bottom"},
        "tooltip": {"mode": "single", "sort": "none"},
    }
    custom = {"fillOpacity": 70, "lineWidth": 0}
    made = panel("state-timeline", title, "string", [query], size, description, nothing, options, custom)
    words = {word: (word, colour) for word, colour in COLOURS.items()}
    made["fieldConfig"]["defaults"]["mappings"] = mapping(words | NUMBERED_STATES | NUMBERED_REASONS)
    return made


def per_host(title, unit, values, gauge=False, **more):
    make = gauges if gauge else rates
    return graph(title, unit, make("vm_totals", values, VMS, ("host",), ("host",)), stack=True, link="hypervisor", **more)


def per_vm(title, unit, values, gauge=False, table="vm_totals", where=VMS, series=None, levels=None, **more):
    """Stacked, except where each VM is held against levels."""
    make, usual = (gauges, VM) if gauge else (rates, RUN)
    query = make(table, values, where, ("name", "uuid"), ("name",), series or usual)
    return graph(title, unit, query, stack=not levels, levels=levels, link="vm", **more)


def of_vm(title, unit, values, gauge=False, where=VM_OF_HOST, measurement="vm_totals", **more):
    make = gauges if gauge else rates
    return graph(title, unit, make(measurement, values, where, (), ("field",)), **more)


def per_device(title, unit, fields, where, gauge=False, **more):
    values = {label: ([field], 1) for label, field in fields.items()}
    make, series = (gauges, DEVICE_NOW) if gauge else (rates, DEVICE)
    return graph(title, unit, make("vm_devices", values, where, ("device",), ("device", "field"), series), **more)


def ratio_per_device(title, unit, fields, where, **more):
    """`fields`: label -> one counter, and another one by which it is divided."""
    queries = [
        ratio("vm_devices", label, above, below, where, ("device",), ("device", "field"), DEVICE)
        for label, (above, below) in fields.items()
    ]
    return graph(title, unit, *queries, **more)


def of_vm_now(title, unit, label, field, measurement="vm_metrics", **more):
    """The last value of a field."""
    return stat(title, unit, last(measurement, label, field), **more)


def collector(title, unit, values, **more):
    query = gauges("vm_collector", values, HOST, (), ("field",), ("host", "uri"))
    nothing = "No lines of vm_collector: `measurements` in telegraf-kvm's configuration leaves it out."
    return graph(title, unit, query, size=(8, 7), nothing=nothing, **more)
