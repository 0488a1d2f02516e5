//! `<source>` elements: their local paths, and whether QEMU may wait for a server.

use quick_xml::XmlVersion;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesRef, BytesStart};

/// `<source>` and the elements of a disk or of the firmware's variables that contain one.
pub(super) const NAMES: [&str; 4] = ["source", "backingStore", "mirror", "dataStore"];

/// The known types of a disk, of an element of its backing chain and the like (virStorageType in libvirt).
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

/// The protocols of network disks (virStorageNetProtocol in libvirt) with which the block group does not make QEMU
/// wait.
///
/// For the block group libvirt sends `query-named-block-nodes` to QEMU, whose main thread then calls
/// `bdrv_co_getlength`, `bdrv_co_get_allocated_file_size`, `bdrv_co_get_info`, `bdrv_get_specific_info` and
/// `bdrv_snapshot_list` of each node's driver (block/qapi.c in QEMU). In the drivers of these protocols, none of the
/// last four leaves the process, and the length comes from memory: block/nbd.c, block/iscsi.c, block/curl.c,
/// block/ssh.c.
///
/// The others may wait. rbd reads the first bytes of the image (qemu_rbd_get_specific_info, from QEMU 6.1 on) and may
/// refresh its header for the list of snapshots. nfs (libnfs) and gluster ask the server for the allocated size,
/// sheepdog for the snapshots. vxhs and unknown protocols are not trusted.
const ANSWERED_FROM_MEMORY: [&str; 8] = [
    "nbd", "iscsi", "http", "https", "ftp", "ftps", "tftp", "ssh",
];

/// QEMU's options that create a block node.
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

/// The kind of a `<source>`.
pub(super) enum SourceKind {
    /// QEMU looks at its local paths and waits for nothing else.
    Known,
    /// A volume of a pool, with the number of its block node. Its path is in the XML of the pool.
    Volume(u32),
    /// A network disk for which QEMU may wait for its server.
    Server,
    /// QEMU may look at other paths than those in it.
    Unknown,
}

/// Adds the local paths of a `<source>` to `paths`; returns its kind.
pub(super) fn read(element: &BytesStart, paths: &mut Vec<String>) -> Result<SourceKind, String> {
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
            // fdgroup: a client of libvirt opened the file, so the path is only a name.
            _ => resolved = false,
        }
    }
    Ok(match number {
        _ if !resolved => SourceKind::Unknown,
        Some(number) if is_volume => SourceKind::Volume(number),
        None if is_volume => SourceKind::Unknown,
        _ if server => SourceKind::Server,
        _ => SourceKind::Known,
    })
}

/// Whether the element's type of source, if it has one, is known.
pub(super) fn type_is_known(element: &BytesStart) -> Result<bool, String> {
    let of_type = super::parser::attribute(element, "type")?;
    // `<loader type='pflash'>` is another kind of type.
    let is_known = |word: &str| TYPES.contains(&word) || word == "pflash";
    Ok(of_type.is_none_or(|word| is_known(&word)))
}

/// Whether this is an argument of `<qemu:commandline>` that creates a block node, which the rest of the XML does not
/// have.
pub(super) fn is_block_argument(element: &BytesStart) -> Result<bool, String> {
    if element.local_name().into_inner() != "arg" {
        return Ok(false);
    }
    let value = super::parser::attribute(element, "value")?.unwrap_or_default();
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
