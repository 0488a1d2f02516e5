"""The frame around the panels, as Grafana stores it: variables, places, data sources, links."""

from conditions import VM_OF_HOST, is_
from states import TAGGED, TAGS, TAGS_PATTERN, VM_CHOICE, VM_PATTERN, tag_values

LANGUAGES = {"influxql": "InfluxQL", "sql": "SQL", "promql": "PromQL"}
SOURCES = {"influxql": "influxdb", "sql": "influxdb", "promql": "prometheus"}
# How a link says which host and VM it is about: by the columns of a table's row, by the labels of a series.
HOST_OF = {"fields": "${__data.fields.host}", "labels": "${__field.labels.host}"}
VM_OF = {"fields": "${__data.fields.uuid}", "labels": "${__field.labels.uuid}"}


def source(language):
    return {"type": SOURCES[language], "uid": "${datasource}"}


def targets(queries, language, kind):
    """The queries as the data source's editor stores them. In PromQL those of one `Query` have its letter and a number."""
    made = []
    for letter, query in zip("ABCDEFGH", queries):
        common = {"refId": letter, "datasource": source(language)}
        form = "table" if query.table else "time_series"
        if language == "influxql":
            made.append(common | {"rawQuery": True, "query": query.influxql, "resultFormat": form, "alias": query.alias})
        elif language == "sql":
            made.append(common | {"rawQuery": True, "editorMode": "code", "rawSql": query.sql, "format": form})
        else:
            now = query.table and kind != "state-timeline"
            for number, (legend, expression) in enumerate(query.promql.items(), 1):
                made.append(common | {
                    "refId": letter if len(query.promql) == 1 else f"{letter}{number}",
                    "editorMode": "code", "expr": expression, "legendFormat": legend, "interval": "$gather",
                    "format": "table" if kind == "table" else "time_series", "instant": now, "range": not now,
                })
    return made


def link(language, name, how):
    """To the dashboard of a host or VM, with the range and the variables that all dashboards have."""
    titles = {"fleet": "All hosts", "hypervisor": "This host", "vm": "This VM"}
    url = f"/d/telegraf-kvm-{name}-{language}?${{datasource:queryparam}}&${{__url_time_range}}"
    url += "&${gather:queryparam}&${tag:queryparam}&${tagged:queryparam}"
    if name != "fleet":
        url += f"&var-host={HOST_OF[how]}" if name == "hypervisor" or how == "fields" else "&${host:queryparam}"
    if name == "vm":
        url += f"&var-vm={VM_OF[how]}"
    return {"title": titles[name], "targetBlank": False, "url": url}


def finished(one, language):
    """A panel with its queries, names of series and links in that language."""
    one = dict(one)
    queries, to, order = one.pop("queries"), one.pop("link", None), one.pop("order", None)
    defaults = dict(one["fieldConfig"]["defaults"])
    overrides = list(one["fieldConfig"]["overrides"])
    if language == "sql" and one["type"] in ("timeseries", "state-timeline"):
        defaults["displayName"] = queries[0].display
    if to:
        defaults["links"] = [link(language, *to)]
    if order:
        if "host" in order:
            to_host = {"id": "links", "value": [link(language, "hypervisor", "fields")]}
            overrides.append({"matcher": {"id": "byName", "options": "host"}, "properties": [to_host]})
        # The column of the values has a name of its own in PromQL.
        names = {"Value": name for query in queries for name in query.promql} if language == "promql" else {}
        one["transformations"] = [{"id": "organize", "options": {
            "excludeByName": {}, "renameByName": names, "indexByName": {name: i for i, name in enumerate(order)}}}]
    one["fieldConfig"] = {"defaults": defaults, "overrides": overrides}
    return one | {"datasource": source(language), "interval": "$gather", "targets": targets(queries, language, one["type"])}


def dashboard(name, title, description, variables, annotations, panels):
    def made(language):
        placed, x, y, height = [], 0, 0, 0
        for number, one in enumerate(panels, 1):
            one = finished(one, language)
            width, tall = one.pop("size")
            if x + width > 24:
                x, y, height = 0, y + height, 0
            placed.append(one | {"id": number, "gridPos": {"x": x, "y": y, "w": width, "h": tall}})
            x, height = x + width, max(height, tall)
        others = {
            "type": "dashboards", "title": "telegraf-kvm", "tags": ["telegraf-kvm", language], "asDropdown": False,
            "icon": "external link", "includeVars": True, "keepTime": True, "targetBlank": False, "tooltip": "", "url": "",
        }
        return {
            "uid": f"telegraf-kvm-{name}-{language}", "title": f"{title} ({LANGUAGES[language]})",
            "description": description, "tags": ["telegraf-kvm", language], "schemaVersion": 39, "version": 1,
            "editable": True, "graphTooltip": 1, "timezone": "browser", "refresh": "1m",
            "time": {"from": "now-1h", "to": "now"}, "timepicker": {}, "links": [others],
            "annotations": {"list": [one(language, source(language)) for one in annotations]},
            "templating": {"list": [
                {"name": "datasource", "label": "Data source", "type": "datasource", "query": SOURCES[language], "regex": "",
                 "hide": 0, "skipUrlSync": False, "refresh": 1, "multi": False, "includeAll": False,
                 "current": {}, "options": []},
                *[one(language) for one in variables], gather(),
            ]},
            "panels": placed,
        }

    return made


def choice(name, label, query, language, multi=False, pattern="", everything=".*", current=None):
    """A variable that asks the database. With `multi` all is the default: `everything` is what stands for that."""
    if multi:
        current = {"selected": True, "text": ["All"], "value": ["$__all"]}
    texts = {"influxql": query.influxql, "sql": query.sql, "promql": query.promql.get("")}
    made = {
        "name": name, "label": label, "type": "query", "datasource": source(language), "query": texts[language],
        "refresh": 2, "sort": 1, "regex": pattern, "hide": 0, "skipUrlSync": False,
        "multi": multi, "includeAll": multi, "current": current or {}, "options": [],
    }
    # InfluxQL and PromQL compare by pattern, where one for all is shorter than a list of a thousand hosts. Without it
    # Grafana lists all choices.
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
    return spans("stale", "Gone after", "5m", {text: word if language == "sql" else text for text, word in words.items()})


def gather():
    """Telegraf's interval: no bin is narrower. A panel's own lower limit hides the data source's, and in
    SQL a bin of less than a second would be one of 0 s."""
    return spans("gather", "Telegraf's interval", "10s", {text: text for text in ("1s", "5s", "10s", "15s", "30s", "1m", "5m")})


def all_of(language):
    """What stands for all hosts or devices."""
    return None if language == "sql" else ".*"


def hosts(multi):
    query = tag_values("host", "vm_totals", None, "cpus")
    return lambda language: choice("host", "Host", query, language, multi, everything=all_of(language))


def tag(language):
    """The tag by which VMs are chosen. The one that is always there comes first: nothing is known of the others."""
    return choice(
        "tag", "Tag", TAGS, language, pattern=TAGS_PATTERN, current={"selected": True, "text": "name", "value": "name"}
    )


def tagged(language):
    """Its values. All stands for every VM, also for one without the tag: see `conditions.filtered`."""
    everything = "uuid" if language == "sql" else ".*"
    return choice("tagged", "Value of the tag", TAGGED, language, True, everything=everything)


def vm(language):
    return choice("vm", "VM", VM_CHOICE, language, pattern=VM_PATTERN[language])


def devices(name, label, devtype, field):
    query = tag_values("device", "vm_devices", VM_OF_HOST & is_("devtype", devtype), field)
    return lambda language: choice(name, label, query, language, True, everything=all_of(language))
