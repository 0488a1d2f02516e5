//! One inspection of the host: what its processes and mounts mean for the VMs of a query.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;

use super::{HostQuery, HostReport};
use crate::gather::scheduler::HostVerdict;
use crate::host::{Mounts, Processes, Storage};
use crate::maps::{HashMap, HashSet};
use crate::vms::CachedDescription;

/// The files that a VM's QEMU accesses when it is asked for block statistics.
struct VmFiles<'t> {
    vm: Uuid,
    known: Option<&'t Arc<CachedDescription>>,
    paths: Vec<&'t Path>,
    /// `paths` are certainly all, and QEMU waits for nothing else.
    complete: bool,
    /// There may be other files.
    unresolved: bool,
}

fn files_of<'t>(
    processes: &'t Processes,
    (vm, known): &'t (Uuid, Option<Arc<CachedDescription>>),
) -> VmFiles<'t> {
    let mut files = VmFiles {
        vm: *vm,
        known: known.as_ref(),
        paths: Vec::new(),
        complete: false,
        unresolved: known.is_none(),
    };
    if let Some(known) = known {
        files.unresolved = known.unresolved;
        files.paths.extend(known.paths());
        for number in known.volumes() {
            match processes.block_node_path(*vm, *number) {
                Some(path) => files.paths.push(path),
                // The volume was plugged in later, or is accessed by a driver of QEMU's own.
                None => files.unresolved = true,
            }
        }
        files.complete = !files.unresolved && !known.waits_for_server();
    }
    files
}

/// Checks the processes of the VMs and the mounts of their files. The counters that the query wants are not
/// read here.
pub(super) fn inspect(
    processes: &mut Processes,
    mounts: &mut Mounts,
    query: &HostQuery,
) -> HostReport {
    let uuids: Vec<Uuid> = query.vms.iter().map(|(uuid, _)| *uuid).collect();
    let process_report = processes.check(&uuids);
    let files: Vec<VmFiles> = query.vms.iter().map(|vm| files_of(processes, vm)).collect();
    let paths: Vec<&Path> = files
        .iter()
        .flat_map(|files| &files.paths)
        .copied()
        .collect();
    let mut storage = mounts.check(&paths);
    accept_firmware(query, mounts, &mut storage);

    let mut no_block = HashSet::default();
    let mut all_disks_local = HashMap::default();
    let mut on_unanswering_mount = HashSet::default();
    let mut on_unknown_storage = HashSet::default();
    let mut dead_mounts: BTreeMap<PathBuf, BTreeSet<Uuid>> = BTreeMap::new();
    for files in &files {
        let uuid = files.vm;
        let is_unseen = process_report.unseen.contains(&uuid);
        // Where our /proc does not show a VM's QEMU, our mounts are not necessarily its mounts.
        let mounts_may_differ = is_unseen && files.paths.iter().any(|path| path.is_absolute());
        if mounts_may_differ || !files.complete {
            no_block.insert(uuid);
        }
        // The storage of an unseen QEMU can never be known, so this is no reason to omit its disks.
        if files.unresolved && !is_unseen {
            on_unknown_storage.insert(uuid);
        }
        let is_local =
            files.complete && !files.paths.iter().any(|path| storage.contains_key(*path));
        if let Some(known) = files.known.filter(|_| is_local) {
            all_disks_local.insert(uuid, Arc::clone(known));
        }
        if storage.is_empty() {
            continue;
        }
        for path in &files.paths {
            match storage.get(*path) {
                Some(Storage::Dead(mount)) => {
                    no_block.insert(uuid);
                    on_unanswering_mount.insert(uuid);
                    dead_mounts.entry(mount.clone()).or_default().insert(uuid);
                }
                Some(Storage::Late(_)) => {
                    no_block.insert(uuid);
                    on_unanswering_mount.insert(uuid);
                }
                Some(Storage::Unknown(_)) => {
                    no_block.insert(uuid);
                    if !is_unseen {
                        on_unknown_storage.insert(uuid);
                    }
                }
                Some(Storage::Local | Storage::Alive) | None => {}
            }
        }
    }
    all_disks_local.retain(|uuid, _| !no_block.contains(uuid));
    HostReport {
        number: query.number,
        all_disks_local,
        verdict: HostVerdict {
            stuck: process_report.stuck,
            no_block,
            ..HostVerdict::default()
        },
        on_unanswering_mount,
        on_unknown_storage,
        dead_mounts,
        unseen: process_report.unseen,
        mounts: mounts.remote(),
        ..HostReport::default()
    }
}

/// Counts the firmware's variables as local if their path is. libvirt keeps them in a folder which no
/// ordinary user may enter, so the storage is unknown to the mount check; but it puts no link there.
fn accept_firmware(query: &HostQuery, mounts: &Mounts, storage: &mut HashMap<PathBuf, Storage>) {
    let paths = query
        .vms
        .iter()
        .filter_map(|(_, known)| known.as_ref()?.description.as_ref())
        .flat_map(|description| &description.firmware)
        .map(Path::new);
    for path in paths {
        if matches!(storage.get(path), Some(Storage::Unknown(_)))
            && mounts.is_local_as_written(path)
        {
            storage.remove(path);
        }
    }
}
