"""The three dashboards: which panels, with what queries and units."""

from panels import (
    BYTES, BYTES_S, CORES, COUNT, DISK, FAULTS_S, HOST, KIB, KIB_S, NIC, NS, OPS_S, PACKETS_S, PERCENT, TELEGRAFS,
    collector, dashboard, devices, graph, hosts, lately, of_vm, per_device, per_host, per_vm, stat, table, timeline, vm,
)
from queries import HOST_BUSY, HOST_CPUS, PAUSED, SILENT, Where, gauges, rates, state_timeline, states, top

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


fleet = dashboard(
    "fleet", "KVM fleet", "All VMs of all hosts: what is up, what is busiest, which host says nothing.",
    [hosts(multi=True), lately],
    [
        stat("VMs now", COUNT, *(states(where, name, False) for name, where in STATES.items()), size=(6, 7),
             description="By the last word of each VM. Other: blocked, suspended, shutdown, shutoff, crashed, no state."),
        table("Silent hosts", COUNT, SILENT, size=(6, 7), hidden=("Time", "time"), order=("host",),
              description="Wrote lines of vm_totals within the range, but none lately: Telegraf, the collector or libvirt "
              "is down there, or the last VM is gone."),
        table("Paused VMs", "string", PAUSED, size=(12, 7), order=("host", "name", "state_reason"),
              description="With libvirt's reason; ioerror is a disk that failed or is full."),
        graph("VMs by state", COUNT, *(states(where, name, True) for name, where in STATES.items()), stack=True),
        graph("vCPUs by host", COUNT, gauges("vm_totals", one("cpus", "cpus"), HOST, ("host",), ("host",)), stack=True,
              description="vCPUs online of each host's VMs. A line that ends is a host that fell silent."),
        top_vms("CPU cores", CORES, "cores", ["cputime"], SECOND),
        top_vms("network bytes", BYTES_S, "bytes", TRAFFIC),
        top_vms("disk bytes", BYTES_S, "bytes", MOVED),
        top_vms("disk operations", OPS_S, "operations", REQUESTS),
        top_vms("packets", PACKETS_S, "packets", PACKETS),
        top_vms("packets dropped", PACKETS_S, "drops", DROPS),
        per_host("CPU cores used, by host", CORES, one("cores", "cputime", divisor=SECOND), size=(8, 8)),
        per_host("Network, by host", BYTES_S, one("bytes", *TRAFFIC), size=(8, 8)),
        per_host("Disk, by host", BYTES_S, one("bytes", *MOVED), size=(8, 8)),
    ],
)

hypervisor = dashboard(
    "hypervisor", "KVM hypervisor", "One host: its VMs stacked, what is given out of what it has, the collector's health.",
    [hosts(multi=False)],
    [
        per_vm("CPU cores used, by VM", CORES, one("cores", "cputime", divisor=SECOND)),
        per_vm("Memory given, by VM", KIB, one("given", "memactual"), gauge=True),
        per_vm("Network received by VMs", BYTES_S, one("received", "net_rxbytes")),
        per_vm("Network sent by VMs", BYTES_S, one("sent", "net_txbytes")),
        per_vm("Disk read, by VM", BYTES_S, one("read", "disk_rd_bytes")),
        per_vm("Disk written, by VM", BYTES_S, one("written", "disk_wr_bytes")),
        per_vm("Disk operations, by VM", OPS_S, one("operations", *REQUESTS)),
        per_vm("Packets, by VM", PACKETS_S, one("packets", *PACKETS)),
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
    [hosts(multi=False), vm, devices("nic", "Interface", "nic"), devices("disk", "Disk", "disk")],
    [
        timeline("State", state_timeline(["state", "state_reason"])),
        of_vm("CPU cores", CORES, one("total", "cputime", divisor=SECOND) | one("user", "timeusr", divisor=SECOND)
              | one("system", "timesys", divisor=SECOND),
              description="total holds what QEMU's own threads use, too; user and system as libvirt tells them."),
        of_vm("CPU use", PERCENT, one("cpu", "cpu_usage_percent"), gauge=True, measurement="vm_features",
              description="100 = every vCPU busy. QEMU's own threads count, so it may pass 100."),
        of_vm("Memory", KIB, one("given", "memactual") | {"in_guest": (["memavailable", "-memusable"], 1)}
              | one("resident", "memrss"), gauge=True,
              description="in_guest: in use inside the guest (memavailable - memusable); needs a balloon driver there and a "
              "statistics period (virsh dommemstat VM --period 5 --live). resident: held of the host's memory."),
        of_vm("Swap of the guest", KIB_S, one("read", "memswap_in") | one("written", "memswap_out")),
        of_vm("Page faults of the guest", FAULTS_S, one("major", "memmajor_fault") | one("minor", "memminor_fault")),
        per_device("Network bytes, by interface", BYTES_S, {"received": "rxbytes", "sent": "txbytes"}, NIC),
        per_device("Packets, by interface", PACKETS_S, {"received": "rxpackets", "sent": "txpackets"}, NIC),
        per_device("Errors and drops, by interface", PACKETS_S,
                   {"rx_errors": "rxerrors", "tx_errors": "txerrors", "rx_drops": "rxdrops", "tx_drops": "txdrops"}, NIC),
        per_device("Disk bytes, by disk", BYTES_S, {"read": "rd_bytes", "written": "wr_bytes"}, DISK),
        per_device("Disk operations, by disk", OPS_S, {"read": "rd_req", "written": "wr_reqs"}, DISK),
    ],
)

DASHBOARDS = {"fleet": fleet, "hypervisor": hypervisor, "vm": machine}
