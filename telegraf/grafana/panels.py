"""What the dashboards are made of: panels, variables, and the frame around them, as Grafana stores them."""

from queries import (
    DEVICE, HOST, TAGGED, TAGS, TAGS_PATTERN, VM_CHOICE, VM_PATTERN, VMS, gauges, is_, last, rates, tag_values, variable,
)

# What Grafana calls the units: KiB, bytes and packets a second and so on.
KIB, BYTES, BYTES_S, PACKETS_S, OPS_S, PERCENT, NS = "kbytes", "bytes", "Bps", "pps", "iops", "percent", "ns"
KIB_S, FAULTS_S, CORES, COUNT, MS, SECONDS, PER_S = "KiBs", "cps", "none", "none", "ms", "s", "cps"
COLOURS = {
    "running": "green", "paused": "orange", "blocked": "yellow", "suspended": "blue",
    "shutdown": "purple", "shutoff": "text", "crashed": "red", "no state": "text",
}
LANGUAGES = {"influxql": "InfluxQL", "sql": "SQL"}
VM_OF_HOST = HOST & variable("uuid", "vm")
NIC = VM_OF_HOST & is_("devtype", "nic") & variable("device", "nic")
DISK = VM_OF_HOST & is_("devtype", "disk") & variable("device", "disk")


def source():
    return {"type": "influxdb", "uid": "${datasource}"}


def target(query, language, number):
    """A query as the data source's editor stores it."""
    common = {"refId": chr(ord("A") + number), "datasource": source(), "rawQuery": True}
    form = "table" if query.table else "time_series"
    if language == "sql":
        return common | {"editorMode": "code", "rawSql": query.sql, "format": form}
    return common | {"query": query.influxql, "resultFormat": form, "alias": query.alias}


def panel(kind, title, unit, queries, size, description="", options=None, custom=None, overrides=(), decimals=None):
    """A panel; it gets its place and its data in `dashboard`."""
    defaults = {"unit": unit, "custom": custom or {}, "color": {"mode": "palette-classic"}}
    if decimals is not None:
        defaults["decimals"] = decimals
    return {
        "type": kind,
        "title": title,
        "description": description,
        "fieldConfig": {"defaults": defaults, "overrides": list(overrides)},
        "options": options or {},
        "queries": queries,
        "size": size,
    }


def graph(title, unit, *queries, size=(12, 8), stack=False, description="", minimum=0):
    custom = {
        "drawStyle": "line", "lineInterpolation": "linear", "lineWidth": 1, "showPoints": "auto", "pointSize": 4,
        "fillOpacity": 40 if stack else 10, "spanNulls": False,
        "stacking": {"mode": "normal" if stack else "none", "group": "A"},
    }
    options = {
        "legend": {"showLegend": True, "displayMode": "table", "placement": "right", "calcs": ["mean", "max"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    made = panel("timeseries", title, unit, queries, size, description, options, custom)
    made["fieldConfig"]["defaults"]["min"] = minimum
    return made


def table(
    title, unit, *queries, size=(8, 8), description="", hidden=("Time", "time", "uuid"), order=("host", "name"), by=None
):
    """With `by`, the greatest of that column come first."""
    sort = {"sortBy": [{"displayName": by, "desc": True}]} if by else {}
    hide = [
        {"matcher": {"id": "byName", "options": name}, "properties": [{"id": "custom.hidden", "value": True}]}
        for name in hidden
    ]
    plain = [
        {"matcher": {"id": "byName", "options": name}, "properties": [{"id": "unit", "value": "string"}]} for name in order
    ]
    made = panel(
        "table", title, unit, queries, size, description, {"showHeader": True, "cellHeight": "sm"} | sort,
        {"align": "auto", "cellOptions": {"type": "auto"}}, hide + plain, decimals=2 if unit == CORES else None,
    )
    made["transformations"] = [
        {"id": "organize", "options": {
            "excludeByName": {}, "renameByName": {}, "indexByName": {name: i for i, name in enumerate(order)}}}
    ]
    made["vm_link"] = "uuid" in hidden
    return made


def stat(title, unit, *queries, size=(12, 4), description=""):
    options = {
        "colorMode": "value", "graphMode": "none", "justifyMode": "auto", "orientation": "auto", "textMode": "value_and_name",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    }
    return panel("stat", title, unit, queries, size, description, options)


def timeline(title, query, size=(24, 5), description=""):
    options = {
        "alignValue": "left", "mergeValues": True, "rowHeight": 0.9, "showValue": "auto",
        "legend": {"showLegend": False, "displayMode": "list", "placement": "bottom"},
        "tooltip": {"mode": "single", "sort": "none"},
    }
    made = panel("state-timeline", title, "string", [query], size, description, options, {"fillOpacity": 70, "lineWidth": 0})
    words = {word: {"color": colour, "index": i} for i, (word, colour) in enumerate(COLOURS.items())}
    made["fieldConfig"]["defaults"]["mappings"] = [{"type": "value", "options": words}]
    return made


def choice(name, label, query, language, multi=False, pattern="", everything=".*", current=None):
    """A variable that asks the database. With `multi` all is the default: `everything` is what stands for that."""
    if multi:
        current = {"selected": True, "text": ["All"], "value": ["$__all"]}
    made = {
        "name": name, "label": label, "type": "query", "datasource": source(),
        "query": query.sql if language == "sql" else query.influxql,
        "refresh": 2, "sort": 1, "regex": pattern, "hide": 0, "skipUrlSync": False,
        "multi": multi, "includeAll": multi, "current": current or {}, "options": [],
    }
    # InfluxQL compares by pattern, where one for all is shorter than a list of a thousand hosts. Without it Grafana lists
    # all choices.
    if multi and everything:
        made["allValue"] = everything
    return made


def spans(name, label, chosen, values):
    """A variable that is a span of time, text -> value."""
    return {
        "name": name, "label": label, "type": "custom", "hide": 0, "skipUrlSync": False,
        "query": ", ".join(f"{text} : {value}" for text, value in values.items()),
        "current": {"selected": True, "text": chosen, "value": values[chosen]},
        "options": [{"selected": text == chosen, "text": text, "value": value} for text, value in values.items()],
        "multi": False, "includeAll": False,
    }


def lately(language):
    """After how long without a line a VM or a host counts as gone."""
    words = {"1m": "1 minute", "2m": "2 minutes", "5m": "5 minutes", "15m": "15 minutes", "1h": "1 hour"}
    return spans("stale", "Gone after", "5m", {text: text if language == "influxql" else word for text, word in words.items()})


def gather():
    """Telegraf's interval: no bin is narrower. A panel's own lower limit hides the data source's, and in
    SQL a bin of less than a second would be one of 0 s."""
    return spans("gather", "Telegraf's interval", "10s", {text: text for text in ("1s", "5s", "10s", "30s", "1m", "5m")})


def dashboard(name, title, description, variables, panels):
    def made(language):
        placed, x, y, height = [], 0, 0, 0
        for number, one in enumerate(panels, 1):
            one = dict(one)
            width, tall = one.pop("size")
            if x + width > 24:
                x, y, height = 0, y + height, 0
            queries, link = one.pop("queries"), one.pop("vm_link", False)
            one |= {
                "id": number, "datasource": source(), "interval": "$gather",
                "gridPos": {"x": x, "y": y, "w": width, "h": tall},
                "targets": [target(query, language, i) for i, query in enumerate(queries)],
            }
            one["fieldConfig"] = {**one["fieldConfig"], "defaults": dict(one["fieldConfig"]["defaults"])}
            if language == "sql" and one["type"] in ("timeseries", "state-timeline"):
                one["fieldConfig"]["defaults"]["displayName"] = queries[0].display
            if link:
                one["fieldConfig"]["defaults"]["links"] = [{
                    "title": "This VM", "targetBlank": False,
                    "url": f"/d/telegraf-kvm-vm-{language}?${{datasource:queryparam}}&${{__url_time_range}}"
                    "&var-host=${__data.fields.host}&var-vm=${__data.fields.uuid}",
                }]
            placed.append(one)
            x, height = x + width, max(height, tall)
        link = {
            "type": "dashboards", "title": "telegraf-kvm", "tags": ["telegraf-kvm", language], "asDropdown": False,
            "icon": "external link", "includeVars": True, "keepTime": True, "targetBlank": False, "tooltip": "", "url": "",
        }
        return {
            "uid": f"telegraf-kvm-{name}-{language}", "title": f"{title} ({LANGUAGES[language]})",
            "description": description, "tags": ["telegraf-kvm", language], "schemaVersion": 39, "version": 1,
            "editable": True, "graphTooltip": 1, "timezone": "browser", "refresh": "1m",
            "time": {"from": "now-1h", "to": "now"}, "timepicker": {}, "links": [link], "annotations": {"list": []},
            "templating": {"list": [
                {"name": "datasource", "label": "Data source", "type": "datasource", "query": "influxdb", "regex": "",
                 "hide": 0, "skipUrlSync": False, "refresh": 1, "multi": False, "includeAll": False,
                 "current": {}, "options": []},
                *[one(language) for one in variables], gather(),
            ]},
            "panels": placed,
        }

    return made


def all_of(language):
    """What stands for all hosts or devices."""
    return ".*" if language == "influxql" else None


def hosts(multi):
    return lambda language: choice(
        "host", "Host", tag_values("host", "vm_totals", None), language, multi, everything=all_of(language)
    )


def tag(language):
    """The tag by which VMs are chosen. The one that is always there comes first: nothing is known of the others."""
    return choice(
        "tag", "Tag", TAGS, language, pattern=TAGS_PATTERN, current={"selected": True, "text": "name", "value": "name"}
    )


def tagged(language):
    """Its values. All stands for every VM, also for one without the tag: see `queries.filtered`."""
    everything = ".*" if language == "influxql" else "uuid"
    return choice("tagged", "Owner (values of the tag)", TAGGED, language, True, everything=everything)


def vm(language):
    return choice("vm", "VM", VM_CHOICE, language, pattern=VM_PATTERN[language])


def devices(name, label, devtype):
    where = VM_OF_HOST & is_("devtype", devtype)
    return lambda language: choice(name, label, tag_values("device", "vm_devices", where), language, True, everything=all_of(language))


def per_host(title, unit, values, gauge=False, **more):
    make = gauges if gauge else rates
    return graph(title, unit, make("vm_totals", values, VMS, ("host",), ("host",)), stack=True, **more)


def per_vm(title, unit, values, gauge=False, **more):
    names = ("name", "field") if len(values) > 1 else ("name",)
    make = gauges if gauge else rates
    return graph(title, unit, make("vm_totals", values, VMS, ("name", "uuid"), names), stack=True, **more)


def of_vm(title, unit, values, gauge=False, where=VM_OF_HOST, measurement="vm_totals", **more):
    make = gauges if gauge else rates
    return graph(title, unit, make(measurement, values, where, (), ("field",)), **more)


def per_device(title, unit, fields, where, gauge=False, **more):
    values = {label: ([field], 1) for label, field in fields.items()}
    make = gauges if gauge else rates
    return graph(title, unit, make("vm_devices", values, where, ("device",), ("device", "field"), DEVICE), **more)


def of_vm_now(title, unit, label, field, words=None, **more):
    """The last value of a field of vm_metrics; `words` are what single values mean: word and colour."""
    made = stat(title, unit, last("vm_metrics", label, field, VM_OF_HOST), **more)
    if words:
        options = {str(value): {"text": word, "color": colour, "index": value} for value, (word, colour) in words.items()}
        made["fieldConfig"]["defaults"]["mappings"] = [{"type": "value", "options": options}]
    return made


def collector(title, unit, values, counters=False, **more):
    if counters:
        query = rates("vm_collector", values, HOST, (), ("field",), ("host", "uri"))
    else:
        query = gauges("vm_collector", values, HOST, (), ("field",), ("host", "uri"))
    return graph(title, unit, query, size=(8, 7), description=COLLECTOR, **more)


COLLECTOR = "From vm_collector, which `measurements` in telegraf-kvm's configuration can leave out."
TELEGRAFS = "What the host has comes from Telegraf's own inputs.cpu and inputs.mem."
