"""What the dashboards must say of the rows of tests/telegraf/dashboards.rs: which VMs are there, in what state, and for
some panels every number, worked out from the rows without a database."""

import os
import statistics

import grafana

SECOND = 10**9


def close(one, other, apart=0.1):
    """The same but for what InfluxQL takes for a bin's time: its begin, not that of the last sample."""
    return abs(one - other) <= apart * max(abs(one), abs(other)) + 1e-9


def steps(rows, uuid, table, field, **tags):
    """A counter of that VM (and device), bin by bin: the bin's begin, how far the last value moved since
    the bin before, and in what time. The first and the last bin, which are not whole, are left out."""
    width = grafana.INTERVAL * SECOND
    lasts = {}
    for name, found, fields, time in sorted(rows, key=lambda row: row[3]):
        if name == table and found.get("uuid") == uuid and field in fields and tags.items() <= found.items():
            lasts[time // width * width] = (time, fields[field])
    bins = sorted(lasts)[1:-1]
    for before, this in zip(bins, bins[1:]):
        (earlier, low), (later, high) = lasts[before], lasts[this]
        yield this, high - low, (later - earlier) / SECOND


def means(rows, uuid, table, field, **tags):
    """A gauge of that VM (and device): its mean in each bin. The first and the last bin are left out."""
    width = grafana.INTERVAL * SECOND
    values = {}
    for name, found, fields, time in rows:
        if name == table and found.get("uuid") == uuid and field in fields and tags.items() <= found.items():
            values.setdefault(time // width * width, []).append(fields[field])
    return {bin: statistics.mean(values[bin]) for bin in sorted(values)[1:-1]}


def known(found, offered, rows, wanted):
    """What must be there, in either language."""
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
    yield from expect("how many these are", len(here | {busy, paused, asleep}), 4)
    plain = {name.replace("\\", ""): uuid for name, uuid in offered["vm", "vm"].items()}
    yield from expect("the busy VM's name", plain.get(names[busy]), busy)
    yield from expect("tags", set(offered["fleet", "tag"]), {"name", "project"})
    yield from expect("disks", set(offered["vm", "disk"]), {"vda", "vdb"})
    counts = [answer("fleet", "VMs now", letter)[0] for letter in "ABC"]
    counts = {k: v for one in counts for k, v in one.items() if k != "time"}
    yield from expect("VMs now", counts, {"running": 2, "paused": 1, "other": 1})
    yield from expect("silent hosts", [row["host"] for row in answer("fleet", "Silent hosts", "A")], ["kvm02"])
    stuck = [(row["host"], row["name"], row["uuid"]) for row in answer("fleet", "Paused VMs", "A")]
    yield from expect("paused VMs", stuck, [("kvm01", names[paused], paused)])
    silent = [(row["host"], row["name"], row["uuid"]) for row in answer("fleet", "VMs that do not answer", "A")]
    yield from expect("VMs that do not answer", silent, [("kvm01", names[paused], paused)])
    tops = [row for row in answer("fleet", "Top VMs: disk bytes", "A")]
    yield from expect("the top VM", max(tops, key=lambda row: row["bytes"])["uuid"], busy)
    timeline = answer("vm", "State", "A")
    now = {panel: answer("vm", panel, "A")[0][label] for panel, label in (("QEMU answers", "answers"), ("Up for", "uptime"))}
    uptime = max((time, fields["uptime_sec"]) for name, tags, fields, time in rows
                 if name == "vm_metrics" and tags["uuid"] == busy and "uptime_sec" in fields)[1]
    yield from expect("the busy VM's QEMU", now, {"QEMU answers": 1, "Up for": uptime})
    yield from expect("states", {(row["state"], row["state_reason"]) for row in timeline}, {("running", "booted")})
    nic = next(tags["device"] for _, tags, _, _ in rows if tags.get("uuid") == busy and tags.get("devtype") == "nic")
    counters = {
        ("CPU cores", "total"): ("vm_totals", "cputime", SECOND),
        ("CPU cores", "user"): ("vm_totals", "timeusr", SECOND),
        ("CPU cores", "system"): ("vm_totals", "timesys", SECOND),
        ("CPU quota", "periods"): ("vm_totals", "cpu_periods", 1),
        ("Page faults of the guest", "minor"): ("vm_totals", "memminor_fault", 1),
        ("Network bytes, by interface", f"{nic} received"): ("vm_devices", "rxbytes", 1, nic),
        ("Network bytes, by interface", f"{nic} sent"): ("vm_devices", "txbytes", 1, nic),
        ("Packets, by interface", f"{nic} received"): ("vm_devices", "rxpackets", 1, nic),
        ("Packets, by interface", f"{nic} sent"): ("vm_devices", "txpackets", 1, nic),
        ("Disk bytes, by disk", "vda read"): ("vm_devices", "rd_bytes", 1, "vda"),
        ("Disk bytes, by disk", "vdb written"): ("vm_devices", "wr_bytes", 1, "vdb"),
        ("Disk operations, by disk", "vda read"): ("vm_devices", "rd_req", 1, "vda"),
        ("Disk operations, by disk", "vdb written"): ("vm_devices", "wr_reqs", 1, "vdb"),
    }
    for (panel, series), (table, field, scale, *device) in counters.items():
        moved = list(steps(rows, busy, table, field, **{"device": one for one in device}))
        got = answer("vm", panel, "A")[series]
        if len(moved) < 2 or not any(step for _, step, _ in moved):
            yield f"{panel}, {series}: nothing moved: {moved}"
        for time, step, seconds in moved:
            # InfluxQL divides by the bins' distance, SQL by the samples'.
            right = {step / scale / seconds, step / scale / grafana.INTERVAL}
            if not any(abs(got.get(time, -1) - one) <= 1e-6 * one for one in right):
                yield f"{panel}, {series}: {got.get(time)}, and the rows say {right}"

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
    }
    for (panel, series), (table, field, *device) in by_bin.items():
        right = means(rows, busy, table, field, **{"device": one for one in device})
        got = answer("vm", panel, "A")[series]
        if len(right) < 2:
            yield f"{panel}, {series}: {right}"
        for time, value in right.items():
            if not close(got.get(time, -1), value, 1e-6):
                yield f"{panel}, {series}: {got.get(time)}, and the rows say {value}"

    # A call may have hung when the VM froze.
    got = answer("hypervisor", "Collector: trouble", "A")["hanging"]
    for time, value in means(rows, None, "vm_collector", "calls_hanging").items():
        if not close(got.get(time, -1), value, 1e-6):
            yield f"hanging calls: {got.get(time)}, and the rows say {value}"

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

    # Gauges: the busy VM's memory, and the host's.
    def mean(field, uuid=busy, table="vm_totals"):
        values = [fields[field] for name, tags, fields, _ in rows if name == table and tags.get("uuid") == uuid and field in fields]
        return statistics.mean(values or [0])

    gauges = {
        ("vm", "Memory", "A", "given"): mean("memory_used_kb", table="vm_metrics"),
        ("vm", "Memory", "A", "in_guest"): mean("memavailable") - mean("memusable"),
        ("vm", "Memory", "A", "resident"): mean("memrss"),
        ("hypervisor", "CPUs given out and used", "A", "given"): 4,
        ("hypervisor", "CPUs given out and used", "B", "installed"): os.cpu_count(),
        ("hypervisor", "Memory given out and used", "A", "given"): 1024 * sum(mean("memactual", uuid) for uuid in here),
        ("hypervisor", "Memory given out and used", "B", "maximum"):
            1024 * sum(mean("memory_max_kb", uuid, "vm_metrics") for uuid in here),
        ("hypervisor", "Memory given out and used", "C", "installed"):
            os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        ("hypervisor", "Collector: VMs", "A", "seen"): 4,
        ("hypervisor", "Collector: trouble", "A", "up"): 1,
    }
    for (*where, series), right in gauges.items():
        got = statistics.mean(answer(*where)[series].values())
        if not close(got, right, 0.03):
            yield f"{where}, {series}: {got}, and should be {right}"
