"""The three dashboards: which panels, with what queries and units."""

from panels import (
    BYTES, BYTES_S, CORES, COUNT, DISK, FAULTS_S, HOST, KIB, KIB_S, MS, NIC, NS, OPS_S, PACKETS_S, PER_S, PERCENT,
    SECONDS, TELEGRAFS, collector, dashboard, devices, graph, hosts, lately, of_vm, of_vm_now, per_device, per_host, per_vm,
    stat, table, tag, tagged, timeline, vm,
)
from queries import (
    HOST_BUSY, HOST_CPUS, PAUSED, SILENT, STUCK, VMS, Where, gauges, rates, state_timeline, states, top, top_mean,
)

SECOND = 1_000_000_000  # ns
STATES = {
    "running": Where("= 'running'", "= 'running'"),
    "paused": Where("= 'paused'", "= 'paused'"),
    "other": Where("!~ /^(running|paused)$/", "NOT IN ('running', 'paused')"),
}
PACKETS = ["net_rxpackets", "net_txpackets"]
TRAFFIC = ["net_rxbytes", "net_txbytes"]
DROPS = ["net_rxdrops", "net_txdrops"]
REQUESTS = ["disk_rd_req", "disk_wr_reqs"]
MOVED = ["disk_rd_bytes", "disk_wr_bytes"]


def one(label, *fields, divisor=1):
    """One value: the sum of these fields, divided (a rate) or multiplied (a gauge)."""
    return {label: (list(fields), divisor)}


def top_vms(what, unit, label, fields, divisor=1):
    return table(f"Top VMs: {what}", unit, top("vm_totals", label, fields, divisor), by=label)


def top_gauges(what, unit, label, field):
    """By the mean of a field of vm_features, over the gathers that have it."""
    return table(f"Top VMs: {what}", unit, top_mean("vm_features", label, field), by=label)


LATENCY = "Time per request, between two gathers; nothing where none ended."
STEAL = "Time in which vCPUs were ready to run and had no CPU of the host; 100 = every vCPU, all the time."

fleet = dashboard(
    "fleet", "KVM fleet", "All VMs of all hosts: what is up, what is busiest, which host says nothing.",
    [hosts(multi=True), tag, tagged, lately],
    [
        stat("VMs now", COUNT, *(states(where, name, False) for name, where in STATES.items()), size=(5, 7),
             description="By the last word of each VM. Other: blocked, suspended, shutdown, shutoff, crashed, no state."),
        table("Silent hosts", COUNT, SILENT, size=(4, 7), hidden=("Time", "time"), order=("host",),
              description="Wrote lines of vm_totals within the range, but none lately: Telegraf, the collector or libvirt "
              "is down there, or the last VM is gone."),
        table("Paused VMs", "string", PAUSED, size=(9, 7), order=("host", "name", "state_reason"),
              description="With libvirt's reason; ioerror is a disk that failed or is full."),
        table("VMs that do not answer", COUNT, STUCK, size=(6, 7), hidden=("Time", "time", "uuid", "answers"),
              description="Their QEMU did not answer in the last gather: it is frozen, stopped, or waits for its storage."),
        graph("VMs by state", COUNT, *(states(where, name, True) for name, where in STATES.items()), stack=True),
        graph("vCPUs by host", COUNT, gauges("vm_totals", one("cpus", "cpus"), VMS, ("host",), ("host",)), stack=True,
              description="vCPUs online of each host's VMs. A line that ends is a host that fell silent."),
        top_vms("CPU cores", CORES, "cores", ["cputime"], SECOND),
        top_vms("network bytes", BYTES_S, "bytes", TRAFFIC),
        top_vms("disk bytes", BYTES_S, "bytes", MOVED),
        top_vms("disk operations", OPS_S, "operations", REQUESTS),
        top_vms("packets", PACKETS_S, "packets", PACKETS),
        top_vms("packets dropped", PACKETS_S, "drops", DROPS),
        top_gauges("CPU steal", PERCENT, "steal", "cpu_steal_percent"),
        top_vms("CPU quota used up", PER_S, "throttled", ["cpu_throttled_periods"]),
        top_gauges("guest memory used", PERCENT, "used", "memory_guest_used_percent"),
        top_gauges("read latency", MS, "latency", "disk_rd_latency_ms"),
        top_gauges("write latency", MS, "latency", "disk_wr_latency_ms"),
        top_gauges("flush latency", MS, "latency", "disk_fl_latency_ms"),
        per_host("CPU cores used, by host", CORES, one("cores", "cputime", divisor=SECOND), size=(8, 8)),
        per_host("Network, by host", BYTES_S, one("bytes", *TRAFFIC), size=(8, 8)),
        per_host("Disk, by host", BYTES_S, one("bytes", *MOVED), size=(8, 8)),
    ],
)

hypervisor = dashboard(
    "hypervisor", "KVM hypervisor", "One host: its VMs stacked, what is given out of what it has, the collector's health.",
    [hosts(multi=False), tag, tagged],
    [
        per_vm("CPU cores used, by VM", CORES, one("cores", "cputime", divisor=SECOND)),
        per_vm("CPU cores waited for, by VM", CORES, one("waited", "vcpu_delay_ns", divisor=SECOND),
               description="Time in which vCPUs were ready to run and had no CPU of the host (steal, in cores)."),
        per_vm("Memory given, by VM", KIB, one("given", "memactual"), gauge=True),
        per_vm("Network received by VMs", BYTES_S, one("received", "net_rxbytes")),
        per_vm("Network sent by VMs", BYTES_S, one("sent", "net_txbytes")),
        per_vm("Disk read, by VM", BYTES_S, one("read", "disk_rd_bytes")),
        per_vm("Disk written, by VM", BYTES_S, one("written", "disk_wr_bytes")),
        per_vm("Disk operations, by VM", OPS_S, one("operations", *REQUESTS)),
        per_vm("Packets, by VM", PACKETS_S, one("packets", *PACKETS)),
        per_vm("Size of disks, by VM", BYTES, one("physical", "disk_physical_bytes"), gauge=True,
               description="What the images take up on the host's storage."),
        graph("CPUs given out and used", CORES,
              gauges("vm_totals", one("given", "cpus"), HOST, (), ("field",)), HOST_CPUS,
              rates("vm_totals", one("used", "cputime", divisor=SECOND), HOST, (), ("field",)), HOST_BUSY,
              description="given: vCPUs online; installed: the host's cores; used: by VMs; busy: cores that all programs there keep busy. " + TELEGRAFS),
        graph("Memory given out and used", BYTES,
              gauges("vm_totals", one("given", "memactual", divisor=1024) | one("resident", "memrss", divisor=1024),
                     HOST, (), ("field",)),
              gauges("vm_metrics", one("maximum", "memory_max_kb", divisor=1024), HOST, (), ("field",)),
              gauges("mem", one("installed", "total") | {"used": (["total", "-available"], 1)}, HOST, (), ("field",), ("host",)),
              description="given: the balloons' sizes; maximum: what they may grow to; resident: what VMs hold of the "
              "host's memory; used: total less available. " + TELEGRAFS),
        collector("Collector: time of a gather", NS, one("gather", "gather_ns")),
        collector("Collector: VMs", COUNT, {name: ([f"vms_{name}"], 1) for name in ("seen", "complete", "partial", "withheld")}),
        collector("Collector: trouble", COUNT,
                  one("up", "up") | one("hanging", "calls_hanging") | one("dead_mounts", "dead_mounts")),
    ],
)

machine = dashboard(
    "vm", "KVM virtual machine", "One VM: CPU, memory, network by interface, disk by disk, its state.",
    [hosts(multi=False), tag, tagged, vm, devices("nic", "Interface", "nic"), devices("disk", "Disk", "disk")],
    [
        timeline("State", state_timeline(["state", "state_reason"]), size=(16, 5)),
        of_vm_now("QEMU answers", COUNT, "answers", "answers", {0: ("no", "red"), 1: ("yes", "green")}, size=(4, 5)),
        of_vm_now("Up for", SECONDS, "uptime", "uptime_sec", size=(4, 5),
                  description="Since its QEMU process was started: from 0 again on the target of a migration."),
        of_vm("CPU cores", CORES, one("total", "cputime", divisor=SECOND) | one("user", "timeusr", divisor=SECOND)
              | one("system", "timesys", divisor=SECOND),
              description="total holds what QEMU's own threads use, too; user and system as libvirt tells them."),
        of_vm("CPU use", PERCENT, one("cpu", "cpu_usage_percent"), gauge=True, measurement="vm_features",
              description="100 = every vCPU busy. QEMU's own threads count, so it may pass 100."),
        of_vm("CPU steal", PERCENT, one("steal", "cpu_steal_percent"), gauge=True, measurement="vm_features", description=STEAL),
        of_vm("CPU quota", PER_S, one("periods", "cpu_periods") | one("throttled", "cpu_throttled_periods"),
              description="Periods of the quota in which the VM ran, and those in which it used the quota up and was stopped. "
              "Nothing for a VM without a quota."),
        of_vm("Memory", KIB, one("given", "memactual") | {"in_guest": (["memavailable", "-memusable"], 1)}
              | one("resident", "memrss"), gauge=True,
              description="in_guest: in use inside the guest (memavailable - memusable); needs a balloon driver there and a "
              "statistics period (virsh dommemstat VM --period 5 --live). resident: held of the host's memory."),
        of_vm("Guest memory used", PERCENT, one("used", "memory_guest_used_percent"), gauge=True, measurement="vm_features",
              description="(memavailable - memusable) / memavailable. It ends when the guest's report is older than "
              "guest_memory_max_age."),
        of_vm("Age of the guest's memory report", SECONDS, one("age", "memstats_age_sec"), gauge=True),
        of_vm("Swap of the guest", KIB_S, one("read", "memswap_in") | one("written", "memswap_out")),
        of_vm("Page faults of the guest", FAULTS_S, one("major", "memmajor_fault") | one("minor", "memminor_fault")),
        per_device("Network bytes, by interface", BYTES_S, {"received": "rxbytes", "sent": "txbytes"}, NIC),
        per_device("Packets, by interface", PACKETS_S, {"received": "rxpackets", "sent": "txpackets"}, NIC),
        per_device("Errors and drops, by interface", PACKETS_S,
                   {"rx_errors": "rxerrors", "tx_errors": "txerrors", "rx_drops": "rxdrops", "tx_drops": "txdrops"}, NIC),
        per_device("Disk bytes, by disk", BYTES_S, {"read": "rd_bytes", "written": "wr_bytes"}, DISK),
        per_device("Disk operations, by disk", OPS_S, {"read": "rd_req", "written": "wr_reqs"}, DISK),
        per_device("Disk latency, by disk", MS, {"read": "rd_latency_ms", "written": "wr_latency_ms", "flushed": "fl_latency_ms"},
                   DISK, gauge=True, description=LATENCY),
        per_device("Disk sizes, by disk", BYTES,
                   {"capacity": "capacity_bytes", "allocation": "allocation_bytes", "physical": "physical_bytes"}, DISK,
                   gauge=True,
                   description="capacity: what the guest sees; allocation: the end of the highest offset written; physical: what "
                   "the image takes up on the host's storage. Absent while disks are read one by one."),
        per_device("I/O errors, by disk", COUNT, {"errors": "io_error_events"}, DISK, gauge=True,
                   description="Since the collector began to watch this run of the VM."),
    ],
)

DASHBOARDS = {"fleet": fleet, "hypervisor": hypervisor, "vm": machine}
