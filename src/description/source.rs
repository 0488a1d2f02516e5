//! `<source>` elements: the local paths in them, and whether QEMU may wait for a server because of one.

use quick_xml::XmlVersion;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesRef, BytesStart};

/// The elements of a disk, or of the firmware's variables, that hold a source, and the source itself.
pub(super) const NAMES: [&str; 4] = ["source", "backingStore", "mirror", "dataStore"];

/// The types of a disk, of an element of its backing chain and of the like (libvirt: virStorageType) that are known here.
const TYPES: [&str; 8] = [
    "file",
    "block",
    "dir",
    "network",
    "volume",
    "nvme",
    "vhostuser",
    "vhostvdpa",
];

/// The protocols of network disks (libvirt: virStorageNetProtocol) for which the block group does not make QEMU wait.
///
/// libvirt asks for it by `query-named-block-nodes`, which calls of each node's driver, in the main thread,
/// `bdrv_co_getlength`, `bdrv_co_get_allocated_file_size`, `bdrv_co_get_info`, `bdrv_get_specific_info` and
/// `bdrv_snapshot_list` (QEMU: block/qapi.c). These drivers have none of the last four that leaves the process, and
/// their lengths come from memory: block/nbd.c, block/iscsi.c, block/curl.c, block/ssh.c.
///
/// Not so the others: rbd reads the image's first bytes for its specific info (qemu_rbd_get_specific_info, from QEMU 6.1
/// on) and may refresh its header for the list of snapshots; nfs (libnfs) and gluster ask the server for the allocated
/// size; sheepdog for the snapshots. vxhs, and whatever is not known here, is not trusted.
const ANSWERED_FROM_MEMORY: [&str; 8] = [
    "nbd", "iscsi", "http", "https", "ftp", "ftps", "tftp", "ssh",
];

/// Options of QEMU that make a block node.
const BLOCK_OPTIONS: [&str; 14] = [
    "drive",
    "blockdev",
    "hda",
    "hdb",
    "hdc",
    "hdd",
    "cdrom",
    "fda",
    "fdb",
    "pflash",
    "mtdblock",
    "sd",
    "readconfig",
    "snapshot",
];

/// What a `<source>` is.
pub(super) enum Source {
    /// QEMU looks at the paths in it, and waits for nothing else.
    Known,
    /// A volume of a pool, with the number of its block node. Its path is in its pool's XML.
    Volume(u32),
    /// A network disk for which QEMU may wait for its server.
    Server,
    /// QEMU may look at something else.
    Unknown,
}

/// Adds the local paths in a `<source>`, and says whether these are all.
pub(super) fn read(element: &BytesStart, paths: &mut Vec<String>) -> Result<Source, String> {
    let (mut resolved, mut server) = (true, false);
    let (mut is_volume, mut number) = (false, None);
    for attribute in element.attributes() {
        let attribute = attribute.map_err(|error| error.to_string())?;
        let key = attribute.key.into_inner();
        if !["file", "dev", "dir", "protocol", "pool", "index", "fdgroup"].contains(&key) {
            continue;
        }
        let value = attribute.normalized_value(XmlVersion::Implicit1_0);
        let value = value.map_err(|error| format!("attribute {key}: {error}"))?;
        match key {
            "file" | "dev" | "dir" => paths.push(value.into_owned()),
            "protocol" => server = !ANSWERED_FROM_MEMORY.contains(&&*value),
            "pool" => is_volume = true,
            "index" => number = value.parse().ok(),
            // A file that a client of libvirt opened and passed, for which the path is only a name.
            _ => resolved = false,
        }
    }
    Ok(match number {
        _ if !resolved => Source::Unknown,
        Some(number) if is_volume => Source::Volume(number),
        None if is_volume => Source::Unknown,
        _ if server => Source::Server,
        _ => Source::Known,
    })
}

/// Whether an element's type of source, if it has one, is one of those whose sources can be read.
pub(super) fn type_is_known(element: &BytesStart) -> Result<bool, String> {
    let of_type = super::walk::attribute(element, "type")?;
    // `<loader type='pflash'>` is another kind of type.
    let is_known = |word: &str| TYPES.contains(&word) || word == "pflash";
    Ok(of_type.is_none_or(|word| is_known(&word)))
}

/// Whether this is an argument of `<qemu:commandline>` that makes a block node, of which libvirt's XML knows nothing.
pub(super) fn is_block_argument(element: &BytesStart) -> Result<bool, String> {
    if element.local_name().into_inner() != "arg" {
        return Ok(false);
    }
    let value = super::walk::attribute(element, "value")?.unwrap_or_default();
    // `-drive` or `--drive`.
    let option = value.strip_prefix('-').unwrap_or_default();
    let option = option.strip_prefix('-').unwrap_or(option);
    Ok(BLOCK_OPTIONS.contains(&option))
}

/// The text that an entity stands for.
pub(super) fn resolved(entity: &BytesRef) -> Option<String> {
    if let Ok(Some(character)) = entity.resolve_char_ref() {
        return Some(character.into());
    }
    resolve_predefined_entity(entity).map(str::to_owned)
}
