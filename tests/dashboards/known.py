"""What the dashboards must say of the rows of tests/telegraf/dashboards.rs: which VMs are there, in what state, and for
most panels of a VM every number, worked out from the rows without a database."""

import os
import pathlib
import statistics

import grafana
from truth import Windows, close

SECOND = 10**9


def known(found, offered, truth, span, wanted):
    """What must be there, in each language."""
    rows = truth.rows

    def answer(*where):
        return found[where][1]

    def expect(what, got, right):
        if got != right:
            yield f"{what}: {got}, and should be {right}"

    names = {tags["uuid"]: tags["name"] for _, tags, _, _ in rows if "uuid" in tags}
    busy, paused, asleep = (wanted[word] for word in ("vm", "paused", "asleep"))
    yield from expect("hosts", set(offered["fleet", "host"]), {"kvm01", "kvm02"})
    here = {tags["uuid"] for _, tags, _, _ in rows if tags["host"] == "kvm01" and "uuid" in tags}
    yield from expect("VMs of kvm01", set(offered["vm", "vm"].values()), here)
    yield from expect("how many these are", len(here | {busy, paused, asleep, wanted["again"]}), 5)
    plain = {name.replace("\\", ""): uuid for name, uuid in offered["vm", "vm"].items()}
    yield from expect("the busy VM's name", plain.get(names[busy]), busy)
    yield from expect("tags", set(offered["fleet", "tag"]), {"name", "project"})
    yield from expect("disks", set(offered["vm", "disk"]), {"vda", "vdb", "vdc"})
    counts = [answer("fleet", "VMs now", letter)[0] for letter in "ABC"]
    counts = {k: v for one in counts for k, v in one.items() if k != "time"}
    yield from expect("VMs now", counts, {"running": 2, "paused": 2, "other": 1})
    yield from expect("silent hosts", [row["host"] for row in answer("fleet", "Silent hosts", "A")], ["kvm02"])
    stuck = {(row["host"], row["name"], row["uuid"], row["state_reason"]) for row in answer("fleet", "Paused VMs", "A")}
    yield from expect("paused VMs", stuck, {("kvm01", names[uuid], uuid, "user") for uuid in (paused, wanted["again"])})
    for name in ("fleet", "hypervisor"):
        silent = [(row["host"], row["name"], row["uuid"]) for row in answer(name, "VMs that do not answer", "A")]
        yield from expect("VMs that do not answer", silent, [("kvm01", names[paused], paused)])
    dropped = answer("fleet", "Top VMs: packets dropped", "A")
    yield from expect("drops", max(dropped, key=lambda row: row["drops"])["uuid"], paused)
    tops = [row for row in answer("fleet", "Top VMs: disk bytes", "A")]
    yield from expect("the top VM", max(tops, key=lambda row: row["bytes"])["uuid"], busy)
    timeline = answer("vm", "State", "A")

    def latest(table, field, uuid=busy):
        return truth.samples(uuid, table, field, {})[-1][1]

    def one_row(name, panel):
        rows = answer(name, panel, "A") or [{}]
        return {label: value for label, value in rows[0].items() if label != "time"}

    right = {
        ("vm", "State now"): {"state": 1},
        ("vm", "QEMU answers"): {"answers": 1},
        ("vm", "Up for"): {"uptime": latest("vm_metrics", "uptime_sec")},
        ("vm", "vCPUs"): {"vcpus": 1},
        ("vm", "Memory now"): {"memory": latest("vm_totals", "memactual")},
        ("vm", "Host and owner"): {"host": "kvm01", "name": names[busy], "owner": wanted["title"], "vcpus": 1},
        ("hypervisor", "libvirt answers"): {"up": 1},
        ("hypervisor", "vCPUs given"): {"vcpus": 5},
        ("hypervisor", "Memory given"): {"memory": sum(latest("vm_totals", "memactual", uuid) for uuid in here)},
    }
    for where, values in right.items():
        yield from expect(where[1], one_row(*where), values)
    yield from expect("states", {(row["state"], row["state_reason"]) for row in timeline}, {("running", "booted")})
    nic = next(tags["device"] for _, tags, _, _ in rows if tags.get("uuid") == busy and tags.get("devtype") == "nic")
    counters = {
        ("CPU cores", "total"): ("vm_totals", "cputime", SECOND),
        ("CPU cores", "user"): ("vm_totals", "timeusr", SECOND),
        ("CPU cores", "system"): ("vm_totals", "timesys", SECOND),
        ("CPU quota", "periods"): ("vm_totals", "cpu_periods", 1),
        ("CPU quota", "throttled"): ("vm_totals", "cpu_throttled_periods", 1),
        ("CPU cores stopped by the quota", "stopped"): ("vm_totals", "cpu_throttled_ns", SECOND),
        ("Page faults of the guest", "minor"): ("vm_totals", "memminor_fault", 1),
        ("Network bytes, by interface", f"{nic} received"): ("vm_devices", "rxbytes", 1, nic),
        ("Network bytes, by interface", f"{nic} sent"): ("vm_devices", "txbytes", 1, nic),
        ("Packets, by interface", f"{nic} received"): ("vm_devices", "rxpackets", 1, nic),
        ("Packets, by interface", f"{nic} sent"): ("vm_devices", "txpackets", 1, nic),
        ("Disk bytes, by disk", "vda read"): ("vm_devices", "rd_bytes", 1, "vda"),
        ("Disk bytes, by disk", "vdb written"): ("vm_devices", "wr_bytes", 1, "vdb"),
        ("Disk operations, by disk", "vda read"): ("vm_devices", "rd_req", 1, "vda"),
        ("Disk operations, by disk", "vdb written"): ("vm_devices", "wr_reqs", 1, "vdb"),
        ("Flushes, by disk", "vdb flushed"): ("vm_devices", "fl_reqs", 1, "vdb"),
    }
    waits = [tags | {"field": "total_us"} for name, tags, _, _ in rows if name == "vm_pressure" and tags["uuid"] == busy]
    pressure = {(tags["resource"], tags["type"]) for tags in waits}
    # Where the kernel has no pressure stall information of groups, there are no lines of it, and nothing else may be absent.
    yield from expect("lines of vm_pressure", bool(pressure), has_pressure())
    checked = {
        where: (table, field, scale, {"device": one for one in device})
        for where, (table, field, scale, *device) in counters.items()
    } | {
        ("Pressure: waiting for a resource", f"{resource} {kind}"):
            ("vm_pressure", "total_us", 10_000, {"resource": resource, "type": kind}) for resource, kind in pressure
    }
    for (panel, series), (table, field, scale, tags) in checked.items():
        right = truth.rates(busy, table, field, **tags)
        got = answer("vm", panel, "A").get(series, {})
        moves = table != "vm_pressure" or series == "cpu some"
        if len(right) < 2 or moves and not any(rates[0] for rates in right.values()):
            yield f"{panel}, {series}: nothing moved: {right}"
        for time, rates in right.items():
            if not any(abs(got.get(time, -1) - rate / scale) <= 1e-6 * rate / scale for rate in rates):
                yield f"{panel}, {series}: {got.get(time)}, and the rows say {rates} / {scale}"
    for letter, label, device, above, below in (("A", "read", "vda", "rd_bytes", "rd_req"), ("B", "written", "vdb", "wr_bytes", "wr_reqs")):
        sizes, numbers = (truth.rates(busy, "vm_devices", field, device=device) for field in (above, below))
        got = answer("vm", "Request size, by disk", letter).get(f"{device} {label}", {})
        for time in sizes.keys() & numbers.keys():
            size, number = sizes[time][0], numbers[time][0]
            if number and not close(got.get(time, -1), size / number, 1e-6):
                yield f"Request size, {label}: {got.get(time)}, and the rows say {size / number}"

    # Gauges, bin by bin.
    by_bin = {
        ("CPU steal", "steal"): ("vm_features", "cpu_steal_percent"),
        ("Guest memory used", "used"): ("vm_features", "memory_guest_used_percent"),
        ("Age of the guest's memory report", "age"): ("vm_totals", "memstats_age_sec"),
        ("Disk latency, by disk", "vda read"): ("vm_devices", "rd_latency_ms", "vda"),
        ("Disk latency, by disk", "vdb written"): ("vm_devices", "wr_latency_ms", "vdb"),
        ("Disk latency, by disk", "vdb flushed"): ("vm_devices", "fl_latency_ms", "vdb"),
        ("Disk sizes, by disk", "vda capacity"): ("vm_devices", "capacity_bytes", "vda"),
        ("Disk sizes, by disk", "vdb allocation"): ("vm_devices", "allocation_bytes", "vdb"),
        ("Disk sizes, by disk", "vdb physical"): ("vm_devices", "physical_bytes", "vdb"),
        ("I/O errors, by disk", "vda errors"): ("vm_devices", "io_error_events", "vda"),
        ("I/O errors, by disk", "vdc errors"): ("vm_devices", "io_error_events", "vdc"),
    }
    for (panel, series), (table, field, *device) in by_bin.items():
        right = truth.means(busy, table, field, **{"device": one for one in device})
        got = answer("vm", panel, "A").get(series, {})
        if len(right) < 2:
            yield f"{panel}, {series}: {right}"
        for time, value in right.items():
            if not close(got.get(time, -1), value, 1e-6):
                yield f"{panel}, {series}: {got.get(time)}, and the rows say {value}"

    # Of all VMs of a host, the busy one by its name.
    by_vm = {
        "Guest memory used, by VM": ("vm_features", "memory_guest_used_percent"),
        "Read latency, by VM": ("vm_features", "disk_rd_latency_ms"),
        "Write latency, by VM": ("vm_features", "disk_wr_latency_ms"),
    }
    for panel, (table, field) in by_vm.items():
        right, got = truth.means(busy, table, field), answer("hypervisor", panel, "A").get(names[busy], {})
        wrong = {time: (got.get(time), value) for time, value in right.items() if not close(got.get(time, -1), value, 1e-6)}
        if len(right) < 2 or wrong:
            yield f"{panel}: shown, and what the rows say: {wrong or right}"

    # Where a bin has two runs of a VM, its disk counts once.
    capacities = set(answer("vm", "Disk sizes of the VM that was started again", "A").get("vda capacity", {}).values())
    right = {fields["capacity_bytes"] for name, tags, fields, _ in rows
             if name == "vm_devices" and tags["uuid"] == wanted["again"] and "capacity_bytes" in fields}
    yield from expect("capacity of a disk of two runs", capacities, right)
    yield from expect("I/O errors", max(truth.all_values("vm_devices", "io_error_events", device="vdc")) > 0, True)
    # A call may have hung when the VM froze.
    for panel, series, field in (("trouble", "hanging", "calls_hanging"), ("trouble", "up", "up"), ("VMs", "seen", "vms_seen")):
        got = answer("hypervisor", f"Collector: {panel}", "A").get(series, {})
        for time, value in truth.means(None, "vm_collector", field, host="kvm01").items():
            if not close(got.get(time, -1), value, 1e-6):
                yield f"{field}: {got.get(time)}, and the rows say {value}"

    # The highest means.
    tops = {
        "CPU steal": ("steal", "cpu_steal_percent"), "guest memory used": ("used", "memory_guest_used_percent"),
        "read latency": ("latency", "disk_rd_latency_ms"), "write latency": ("latency", "disk_wr_latency_ms"),
        "flush latency": ("latency", "disk_fl_latency_ms"),
    }
    for what, (label, field) in tops.items():
        values = {}
        for name, tags, fields, _ in rows:
            if name == "vm_features" and field in fields:
                values.setdefault(tags["uuid"], []).append(fields[field])
        got = {row["uuid"]: row[label] for row in answer("fleet", f"Top VMs: {what}", "A")}
        yield from expect(f"Top VMs: {what}", got.keys(), values.keys())
        for uuid in got.keys() & values.keys():
            if not close(got[uuid], statistics.mean(values[uuid]), 1e-6):
                yield f"Top VMs: {what}: {got[uuid]}, and the rows say {statistics.mean(values[uuid])}"

    # PromQL's highest rates; of the other languages `differ` compares the means of the bins.
    requests, moved = ["disk_rd_req", "disk_wr_reqs"], ["disk_rd_bytes", "disk_wr_bytes"]
    tops = {
        "CPU cores": ("cores", "vm_totals", ["cputime"], SECOND),
        "network bytes": ("bytes", "vm_totals", ["net_rxbytes", "net_txbytes"], 1),
        "disk bytes": ("bytes", "vm_totals", moved, 1),
        "disk operations": ("operations", "vm_totals", requests, 1),
        "packets": ("packets", "vm_totals", ["net_rxpackets", "net_txpackets"], 1),
        "packets dropped": ("drops", "vm_totals", ["net_rxdrops", "net_txdrops"], 1),
        "CPU quota used up": ("throttled", "vm_totals", ["cpu_throttled_periods"], 1),
        "flushes": ("flushes", "vm_totals", ["disk_fl_reqs"], 1),
        "I/O errors": ("errors_per_hour", "vm_devices", ["io_error_events"], 1 / 3600),
        "waiting for CPU (pressure)": ("waiting", "vm_pressure", ["total_us"], 10_000, "cpu"),
        "waiting for I/O (pressure)": ("waiting", "vm_pressure", ["total_us"], 10_000, "io"),
    }
    for what, (label, table, fields, scale, *resource) in tops.items() if isinstance(truth, Windows) else ():
        tags = {"resource": one for one in resource} | ({"type": "some"} if resource else {})
        right = truth.means_of_rates(table, fields, span, tags)
        got = {row["uuid"]: row[label] for row in answer("fleet", f"Top VMs: {what}", "A")}
        yield from expect(f"Top VMs: {what}", got.keys(), right.keys())
        yield from (f"Top VMs: {what}: {got[uuid]}, and the rows say {right[uuid] / scale}" for uuid in got.keys() & right.keys()
                    if not close(got[uuid], right[uuid] / scale, 1e-6))

    # Gauges: the busy VM's memory, and the host's.
    def mean(field, uuid=busy, table="vm_totals"):
        values = [fields[field] for name, tags, fields, _ in rows if name == table and tags.get("uuid") == uuid and field in fields]
        return statistics.mean(values or [0])

    gauges = {
        ("vm", "Memory", "A", "given"): mean("memory_used_kb", table="vm_metrics"),
        ("vm", "Memory", "A", "in_guest"): mean("memavailable") - mean("memusable"),
        ("vm", "Memory", "A", "resident"): mean("memrss"),
        ("hypervisor", "CPUs given out and used", "A", "given"): 5,
        ("hypervisor", "CPUs given out and used", "B", "installed"): os.cpu_count(),
        ("hypervisor", "Memory given out and used", "A", "given"): 1024 * sum(mean("memactual", uuid) for uuid in here),
        ("hypervisor", "Memory given out and used", "B", "maximum"):
            1024 * sum(mean("memory_max_kb", uuid, "vm_metrics") for uuid in here),
        ("hypervisor", "Memory given out and used", "C", "installed"):
            os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
    }
    for (*where, series), right in gauges.items():
        got = statistics.mean(answer(*where).get(series, {0: 0}).values())
        if not close(got, right, 0.03):
            yield f"{where}, {series}: {got}, and should be {right}"


def has_pressure():
    """Whether control groups of this machine have pressure stall information."""
    return any(pathlib.Path("/sys/fs/cgroup").glob(pattern) for pattern in ("*.pressure", "*/cpu.pressure"))


def known_events(events, rows, wanted):
    """Each event tells of something that happened not long before, and what happened to the VM that was started again and
    to the collector is told."""
    def changed(table, value, happened, **tags):
        """When one value after the other makes it happen; `value` is a field, or a function of the fields."""
        found = []
        for name, mine, fields, time in rows:
            if name == table and tags.items() <= mine.items():
                found.append((time, value(fields) if callable(value) else fields.get(value)))
        found = sorted(one for one in found if one[1] is not None)
        return [time for (_, before), (time, now) in zip(found, found[1:]) if happened(before, now)]

    def trouble(fields):
        return fields["calls_hanging"] + fields["dead_mounts"] + fields["vms_withheld"] - fields["up"]

    again = {"uuid": wanted["again"]}
    right = {
        "State changes": changed("vm_totals", "state", lambda before, now: before != now, **again),
        "Restarts": changed("vm_metrics", "uptime_sec", lambda before, now: now < before, **again),
        "Collector in trouble": changed("vm_collector", trouble, lambda before, now: now > before, host="kvm02"),
    }
    # A bin begins before what happens in it; PromQL sees it at a step after.
    early, late = grafana.INTERVAL * SECOND, 2 * grafana.INTERVAL * SECOND
    for (name, what), found in events.items():
        if not found or not right[what]:
            yield f"{name}, {what}: {found}, and the rows say {right[what]}"
        if not all(text for _, text in found):
            yield f"{name}, {what}: no text: {found}"
        # InfluxQL and PromQL tell the host alone.
        if what == "Collector in trouble" and not {"kvm02", "kvm02: libvirt does not answer"} & {text for _, text in found}:
            yield f"{name}, {what}: {found}"
        mine = [time for time, text in found if "again" in text or "kvm02" in text]
        # Of states that last for less than a bin, none may be told.
        must = right[what][:1] if what == "State changes" else right[what][-1:]
        untold = [time for time in must if not any(time - early <= told <= time + late for told in mine)]
        untrue = [told for told in mine if not any(time - early <= told <= time + late for time in right[what])]
        if untold or untrue:
            yield f"{name}, {what}: {found}; not told: {untold}, not true: {untrue}"
