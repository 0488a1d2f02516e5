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
    yield from expect("disks", set(offered["vm", "disk"]), {"vda", "vdb"})
    counts = [answer("fleet", "VMs now", letter)[0] for letter in "ABC"]
    counts = {k: v for one in counts for k, v in one.items() if k != "time"}
    yield from expect("VMs now", counts, {"running": 2, "paused": 1, "other": 1})
    yield from expect("silent hosts", [row["host"] for row in answer("fleet", "Silent hosts", "A")], ["kvm02"])
    stuck = [(row["host"], row["name"], row["uuid"]) for row in answer("fleet", "Paused VMs", "A")]
    yield from expect("paused VMs", stuck, [("kvm01", names[paused], paused)])
    tops = [row for row in answer("fleet", "Top VMs: disk bytes", "A")]
    yield from expect("the top VM", max(tops, key=lambda row: row["bytes"])["uuid"], busy)
    timeline = answer("vm", "State", "A")
    yield from expect("states", {(row["state"], row["state_reason"]) for row in timeline}, {("running", "booted")})
    nic = next(tags["device"] for _, tags, _, _ in rows if tags.get("uuid") == busy and tags.get("devtype") == "nic")
    counters = {
        ("CPU cores", "total"): ("vm_totals", "cputime", SECOND),
        ("CPU cores", "user"): ("vm_totals", "timeusr", SECOND),
        ("CPU cores", "system"): ("vm_totals", "timesys", SECOND),
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


    # Gauges: the busy VM's memory, and the host's.
    def mean(field, uuid=busy, table="vm_totals"):
        values = [fields[field] for name, tags, fields, _ in rows if name == table and tags.get("uuid") == uuid and field in fields]
        return statistics.mean(values)

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
        ("hypervisor", "Collector: trouble", "A", "hanging"): 0,
    }
    for (*where, series), right in gauges.items():
        got = statistics.mean(answer(*where)[series].values())
        if not close(got, right, 0.03):
            yield f"{where}, {series}: {got}, and should be {right}"
