"""The three dashboards: which panels, with what queries and units."""

from annotations import annotations
from conditions import DISK, HOST, NIC, VMS, VM_OF_HOST, is_
from frame import dashboard, devices, hosts, lately, tag, tagged, vm
from panels import (
    ANSWERS, BYTES, BYTES_S, CORES, COUNT, DROPS, ERRORS, FAULTS_S, KIB, KIB_S, LATENCY, MEMORY, MS, NS,
    NUMBERED_REASONS, NUMBERED_STATES, OPS_S, PACKETS_S, PER_S, PERCENT, PRESSURE, SECONDS, STEAL, THROTTLED, collector,
    graph, of_vm, of_vm_now, per_device, per_host, per_vm, ratio_per_device, stat, table, timeline,
)
from queries import RUN, VM, gauges, rates, top, top_mean
from states import (
    HOST_BUSY, HOST_CPUS, PAUSED, PLACE, SILENT, STATES, STUCK, UP, given, state_timeline, states,
)

SECOND = 1_000_000_000  # ns
PACKETS = ["net_rxpackets", "net_txpackets"]
TRAFFIC = ["net_rxbytes", "net_txbytes"]
DROPPED = ["net_rxdrops", "net_txdrops"]
REQUESTS = ["disk_rd_req", "disk_wr_reqs"]
MOVED = ["disk_rd_bytes", "disk_wr_bytes"]
MICROSECONDS_OF_PERCENT = 10_000  # in a second

# Why a panel may be empty though all is well, and what its figures mean.
NO_STEAL = "No steal: /proc does not show the vCPU threads here (remote URI, container), see vcpu_delay."
NO_QUOTA = "No VM with a CPU quota."
NO_REPORT = "No guest reports its memory: virsh dommemstat VM --period 5 --live"
NO_REQUEST = "No request ended in this range."
NO_FLUSH = "No flush ended in this range."
NO_SIZES = "No sizes: disks are read one by one, or there are none."
NO_EVENTS = "No counts: libvirt's events do not come."
NO_PRESSURE = "No lines of vm_pressure: name it in `measurements`; it needs cgroup v2 and a kernel with PSI."
STEAL_IS = "Time in which vCPUs were ready to run and had no CPU of the host; 100 = every vCPU, all the time."
LATENCY_IS = "Time per request, between two gathers; nothing where none ended."
SIZES_ARE = (
    "capacity: what the guest sees; allocation: the end of the highest offset written; physical: what the image takes up on "
    "the host's storage. Absent while disks are read one by one."
)
PRESSURE_IS = "Share of the time in which a thread of the VM waited for the resource, by the kernel (PSI, some); vm_pressure."
COLLECTOR_IS = "From vm_collector. "
TELEGRAFS = "What the host has comes from Telegraf's own inputs.cpu and inputs.mem."


def one(label, *fields, divisor=1):
    """One value: the sum of these fields, divided (a rate) or multiplied (a gauge)."""
    return {label: (list(fields), divisor)}


def waiting(resource):
    """The lines of vm_pressure for one resource."""
    return is_("resource", resource) & is_("type", "some")


def top_vms(what, unit, label, fields, divisor=1, measurement="vm_totals", where=VMS, series=RUN, **more):
    more = {"description": f"The ten VMs with the most, by the mean over the range: {what}."} | more
    return table(f"Top VMs: {what}", unit, top(measurement, label, fields, divisor, where, series), by=label, **more)


def top_gauges(what, unit, label, field, **more):
    """By the mean of a field of vm_features, over the gathers that have it."""
    return table(f"Top VMs: {what}", unit, top_mean("vm_features", label, field), by=label, **more)


def top_pressure(resource, name):
    where, series = VMS & waiting(resource), (*RUN, "resource", "type")
    return top_vms(f"waiting for {name}", PERCENT, "waiting", ["total_us"], MICROSECONDS_OF_PERCENT, "vm_pressure", where, series,
                   description=PRESSURE_IS, levels=PRESSURE, nothing=NO_PRESSURE, size=(6, 8))


def vm_states(**more):
    return stat("VMs now", COUNT, *(states(name, False) for name in STATES), size=(5, 7),
                description="By the last word of each VM. Other: blocked, suspended, shutdown, shutoff, crashed, no state.", **more)


fleet = dashboard(
    "fleet", "KVM fleet", "All VMs of all hosts: what is up, what is busiest, which host says nothing.",
    [hosts(multi=True), tag, tagged, lately],
    annotations(VMS, shown=False),
    [
        vm_states(),
        table("Silent hosts", COUNT, SILENT, size=(4, 7), hidden=("Time", "time"), order=("host",), link="hypervisor",
              nothing="None",
              description="Wrote lines of vm_totals within the range, but none lately: Telegraf, the collector or libvirt "
              "is down there, or the last VM is gone."),
        table("Paused VMs", "string", PAUSED, size=(9, 7), order=("host", "name", "state_reason"), nothing="None",
              words=NUMBERED_REASONS,
              description="With libvirt's reason; ioerror is a disk that failed or is full."),
        table("VMs that do not answer", COUNT, STUCK, size=(6, 7), hidden=("Time", "time", "uuid", "answers"), nothing="None",
              colour="red",
              description="Their QEMU did not answer in the last gather: it is frozen, stopped, or waits for its storage."),
        graph("VMs by state", COUNT, *(states(name, True) for name in STATES), stack=True,
              description="How many VMs were in which state, by the last word of each VM in each bin."),
        graph("vCPUs by host", COUNT, gauges("vm_totals", one("cpus", "cpus"), VMS, ("host",), ("host",)), stack=True,
              link="hypervisor",
              description="vCPUs online of each host's VMs. A line that ends is a host that fell silent."),
        top_vms("CPU cores", CORES, "cores", ["cputime"], SECOND),
        top_vms("network bytes", BYTES_S, "bytes", TRAFFIC),
        top_vms("disk bytes", BYTES_S, "bytes", MOVED),
        top_vms("disk operations", OPS_S, "operations", REQUESTS),
        top_vms("packets", PACKETS_S, "packets", PACKETS),
        top_vms("packets dropped", PACKETS_S, "drops", DROPPED, levels=DROPS),
        top_gauges("CPU steal", PERCENT, "steal", "cpu_steal_percent", description=STEAL_IS, levels=STEAL, nothing=NO_STEAL),
        top_vms("CPU quota used up", PER_S, "throttled", ["cpu_throttled_periods"], levels=THROTTLED, nothing=NO_QUOTA,
                description="Periods in which the VM had used up its CPU quota and was stopped; there are 10 a second by default."),
        top_gauges("guest memory used", PERCENT, "used", "memory_guest_used_percent", levels=MEMORY, nothing=NO_REPORT,
                   description="(memavailable - memusable) / memavailable, of guests that report it."),
        top_gauges("read latency", MS, "latency", "disk_rd_latency_ms", description=LATENCY_IS, levels=LATENCY, nothing=NO_REQUEST),
        top_gauges("write latency", MS, "latency", "disk_wr_latency_ms", description=LATENCY_IS, levels=LATENCY, nothing=NO_REQUEST),
        top_gauges("flush latency", MS, "latency", "disk_fl_latency_ms", description=LATENCY_IS, levels=LATENCY, nothing=NO_FLUSH),
        top_vms("flushes", OPS_S, "flushes", ["disk_fl_reqs"], size=(6, 8)),
        top_vms("I/O errors", COUNT, "errors_per_hour", ["io_error_events"], 1 / 3600, "vm_devices", series=(*RUN, "device"),
                size=(6, 8), levels=ERRORS, nothing=NO_EVENTS,
                description="I/O errors of all disks an hour, by the mean over the range: the ten VMs with the most."),
        top_pressure("cpu", "CPU (pressure)"),
        top_pressure("io", "I/O (pressure)"),
        per_host("CPU cores used, by host", CORES, one("cores", "cputime", divisor=SECOND), size=(8, 8),
                 description="CPU time of each host's VMs, QEMU's own threads included."),
        per_host("Network, by host", BYTES_S, one("bytes", *TRAFFIC), size=(8, 8),
                 description="Received and sent by each host's VMs."),
        per_host("Disk, by host", BYTES_S, one("bytes", *MOVED), size=(8, 8), description="Read and written by each host's VMs."),
    ],
)

hypervisor = dashboard(
    "hypervisor", "KVM hypervisor", "One host: its VMs, what is given out of what it has, the collector's health.",
    [hosts(multi=False), tag, tagged, lately],
    annotations(VMS),
    [
        vm_states(link="fleet"),
        stat("libvirt answers", COUNT, UP, words=ANSWERS, size=(3, 7),
             description=COLLECTOR_IS + "Whether libvirt answered in the last gather."),
        stat("vCPUs given", COUNT, given("vcpus", "cpus"), size=(3, 7),
             description="vCPUs online of the host's VMs, by their last lines."),
        stat("Memory given", KIB, given("memory", "memactual"), size=(4, 7),
             description="The sizes of the VMs' balloons, by their last lines."),
        table("VMs that do not answer", COUNT, STUCK, size=(9, 7), hidden=("Time", "time", "uuid", "answers"), nothing="None",
              colour="red",
              description="Their QEMU did not answer in the last gather: it is frozen, stopped, or waits for its storage."),
        per_vm("CPU cores used, by VM", CORES, one("cores", "cputime", divisor=SECOND),
               description="CPU time, QEMU's own threads included."),
        per_vm("CPU cores waited for, by VM", CORES, one("waited", "vcpu_delay_ns", divisor=SECOND), nothing=NO_STEAL,
               description="Time in which vCPUs were ready to run and had no CPU of the host (steal, in cores)."),
        per_vm("CPU cores stopped by the quota, by VM", CORES, one("stopped", "cpu_throttled_ns", divisor=SECOND), size=(8, 8), nothing=NO_QUOTA,
               description="Time in which vCPUs were stopped, because the VM had used up its CPU quota."),
        per_vm("Memory given, by VM", KIB, one("given", "memactual"), gauge=True, size=(8, 8),
               description="The sizes of the VMs' balloons."),
        per_vm("Guest memory used, by VM", PERCENT, one("used", "memory_guest_used_percent"), gauge=True, table="vm_features",
               size=(8, 8), levels=MEMORY, nothing=NO_REPORT,
               description="(memavailable - memusable) / memavailable, of guests that report it."),
        per_vm("Network received by VMs", BYTES_S, one("received", "net_rxbytes"), description="By all interfaces of each VM."),
        per_vm("Network sent by VMs", BYTES_S, one("sent", "net_txbytes"), description="By all interfaces of each VM."),
        per_vm("Packets, by VM", PACKETS_S, one("packets", *PACKETS), description="Received and sent."),
        per_vm("Packets dropped, by VM", PACKETS_S, one("drops", *DROPPED), levels=DROPS,
               description="Dropped on their way to the VM or from it. A guest that does not read its packets is a frequent cause."),
        per_vm("Disk read, by VM", BYTES_S, one("read", "disk_rd_bytes"), description="From all disks of each VM."),
        per_vm("Disk written, by VM", BYTES_S, one("written", "disk_wr_bytes"), description="To all disks of each VM."),
        per_vm("Disk operations, by VM", OPS_S, one("operations", *REQUESTS), description="Reads and writes that ended."),
        per_vm("Flushes, by VM", OPS_S, one("flushes", "disk_fl_reqs"), description="The guest had its data written to stable storage."),
        *(per_vm(f"{name} latency, by VM", MS, one("latency", f"disk_{short}_latency_ms"), gauge=True, table="vm_features",
                 levels=LATENCY, nothing=NO_REQUEST, description=LATENCY_IS)
          for short, name in {"rd": "Read", "wr": "Write"}.items()),
        per_vm("Size of disks, by VM", BYTES, one("physical", "disk_physical_bytes"), gauge=True, nothing=NO_SIZES,
               description="What the images take up on the host's storage."),
        per_vm("I/O errors, by VM", COUNT, one("errors", "io_error_events"), gauge=True, table="vm_devices", nothing=NO_EVENTS,
               levels=ERRORS, series=(*VM, "device"),
               description="Of all disks, since the collector began to watch this run of the VM."),
        *(per_vm(f"Waiting for {name}, by VM", PERCENT, one("waiting", "total_us", divisor=MICROSECONDS_OF_PERCENT),
                 table="vm_pressure", where=VMS & waiting(resource), series=(*RUN, "resource", "type"), size=(8, 8),
                 levels=PRESSURE, nothing=NO_PRESSURE, description=PRESSURE_IS)
          for resource, name in {"cpu": "CPU", "memory": "memory", "io": "I/O"}.items()),
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
        collector("Collector: time of a gather", NS, one("gather", "gather_ns"), description=COLLECTOR_IS + "How long a gather took."),
        collector("Collector: VMs", COUNT, {name: ([f"vms_{name}"], 1) for name in ("seen", "complete", "partial", "withheld")},
                  description=COLLECTOR_IS + "partial: their QEMU does not answer, or libvirtd has no free worker; withheld: no line at all."),
        collector("Collector: trouble", COUNT,
                  one("up", "up") | one("hanging", "calls_hanging") | one("dead_mounts", "dead_mounts"),
                  description=COLLECTOR_IS + "up: 1 while libvirt answers; calls that hang; mounts with disks that do not answer."),
    ],
)

machine = dashboard(
    "vm", "KVM virtual machine", "One VM: CPU, memory, network by interface, disk by disk, its state.",
    [hosts(multi=False), tag, tagged, vm, devices("nic", "Interface", "nic", "rxbytes"), devices("disk", "Disk", "disk", "rd_req")],
    annotations(VM_OF_HOST),
    [
        of_vm_now("State now", COUNT, "state", "state", "vm_totals", words=NUMBERED_STATES,
                  description="The last state within the range."),
        of_vm_now("QEMU answers", COUNT, "answers", "answers", words=ANSWERS,
                  description="Whether the VM's QEMU answered in the last gather; no: it is frozen, stopped, or waits for its storage."),
        of_vm_now("Up for", SECONDS, "uptime", "uptime_sec",
                  description="Since its QEMU process was started: from 0 again on the target of a migration."),
        of_vm_now("vCPUs", COUNT, "vcpus", "cpus", "vm_totals", description="vCPUs online."),
        of_vm_now("Memory now", KIB, "memory", "memactual", "vm_totals", description="The size of its balloon."),
        table("Host and owner", COUNT, PLACE, size=(9, 4), hidden=("Time", "time", "vcpus"), order=("host", "name", "owner"),
              link="hypervisor",
              description="Where it runs, and the value of the chosen tag. The host leads to its dashboard."),
        timeline("State", state_timeline(), description="libvirt's state and its reason, by the last word in each bin."),
        of_vm("CPU cores", CORES, one("total", "cputime", divisor=SECOND) | one("user", "timeusr", divisor=SECOND)
              | one("system", "timesys", divisor=SECOND),
              description="total holds what QEMU's own threads use, too; user and system as libvirt reports them."),
        of_vm("CPU use", PERCENT, one("cpu", "cpu_usage_percent"), gauge=True, measurement="vm_features", levels=(80, 100),
              description="100 = every vCPU busy. QEMU's own threads count, so it may pass 100."),
        of_vm("CPU steal", PERCENT, one("steal", "cpu_steal_percent"), gauge=True, measurement="vm_features", description=STEAL_IS,
              levels=STEAL, nothing=NO_STEAL),
        of_vm("CPU quota", PER_S, one("periods", "cpu_periods") | one("throttled", "cpu_throttled_periods"), nothing=NO_QUOTA,
              description="Periods of the quota in which the VM ran, and those in which it used the quota up and was stopped. "
              "Nothing for a VM without a quota."),
        of_vm("CPU cores stopped by the quota", CORES, one("stopped", "cpu_throttled_ns", divisor=SECOND), nothing=NO_QUOTA,
              description="Time in which vCPUs were stopped, because the VM had used up its CPU quota."),
        graph("Pressure: waiting for a resource", PERCENT,
              rates("vm_pressure", one("waiting", "total_us", divisor=MICROSECONDS_OF_PERCENT), VM_OF_HOST, ("resource", "type"),
                    ("resource", "type"), (*RUN, "resource", "type")),
              levels=PRESSURE, nothing=NO_PRESSURE,
              description="Share of the time in which a thread of the VM (some) or all of them (full) waited, by the kernel (PSI); vm_pressure."),
        of_vm("Memory", KIB, one("given", "memactual") | {"in_guest": (["memavailable", "-memusable"], 1)}
              | one("resident", "memrss"), gauge=True,
              description="in_guest: in use inside the guest (memavailable - memusable); needs a balloon driver there and a "
              "statistics period (virsh dommemstat VM --period 5 --live). resident: held of the host's memory."),
        of_vm("Guest memory used", PERCENT, one("used", "memory_guest_used_percent"), gauge=True, measurement="vm_features",
              levels=MEMORY, nothing=NO_REPORT,
              description="(memavailable - memusable) / memavailable. It ends when the guest's report is older than "
              "guest_memory_max_age."),
        of_vm("Age of the guest's memory report", SECONDS, one("age", "memstats_age_sec"), gauge=True, levels=(60, 300),
              nothing=NO_REPORT,
              description="A guest that is suspended or hangs sends no report, and the figures of the last one get old."),
        of_vm("Swap of the guest", KIB_S, one("read", "memswap_in") | one("written", "memswap_out"), nothing=NO_REPORT,
              description="Read back from the guest's swap, and written to it."),
        of_vm("Page faults of the guest", FAULTS_S, one("major", "memmajor_fault") | one("minor", "memminor_fault"), nothing=NO_REPORT,
              description="major: those that needed the disk."),
        per_device("Network bytes, by interface", BYTES_S, {"received": "rxbytes", "sent": "txbytes"}, NIC,
                   description="As the VM sees it."),
        per_device("Packets, by interface", PACKETS_S, {"received": "rxpackets", "sent": "txpackets"}, NIC,
                   description="As the VM sees it."),
        per_device("Errors and drops, by interface", PACKETS_S,
                   {"rx_errors": "rxerrors", "tx_errors": "txerrors", "rx_drops": "rxdrops", "tx_drops": "txdrops"}, NIC,
                   levels=DROPS,
                   description="rx_drops: on the way to the VM, often because the guest does not read its packets fast enough."),
        per_device("Disk bytes, by disk", BYTES_S, {"read": "rd_bytes", "written": "wr_bytes"}, DISK, description="Read and written."),
        per_device("Disk operations, by disk", OPS_S, {"read": "rd_req", "written": "wr_reqs"}, DISK,
                   description="Requests that ended."),
        per_device("Flushes, by disk", OPS_S, {"flushed": "fl_reqs"}, DISK, description="The guest had its data written to stable storage."),
        ratio_per_device("Request size, by disk", BYTES, {"read": ("rd_bytes", "rd_req"), "written": ("wr_bytes", "wr_reqs")}, DISK,
                         nothing=NO_REQUEST, description="Bytes per request, the mean; nothing where none ended."),
        per_device("Disk latency, by disk", MS, {"read": "rd_latency_ms", "written": "wr_latency_ms", "flushed": "fl_latency_ms"},
                   DISK, gauge=True, description=LATENCY_IS, levels=LATENCY, nothing=NO_REQUEST),
        per_device("Disk sizes, by disk", BYTES,
                   {"capacity": "capacity_bytes", "allocation": "allocation_bytes", "physical": "physical_bytes"}, DISK,
                   gauge=True, description=SIZES_ARE, nothing=NO_SIZES),
        per_device("I/O errors, by disk", COUNT, {"errors": "io_error_events"}, DISK, gauge=True, levels=ERRORS, nothing=NO_EVENTS,
                   description="Since the collector began to watch this run of the VM."),
    ],
)

DASHBOARDS = {"fleet": fleet, "hypervisor": hypervisor, "vm": machine}
