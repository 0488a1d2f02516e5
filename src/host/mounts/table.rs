//! The mount table, read from mountinfo (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use crate::maps::{HashMap, HashSet};

/// One mount.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Mount {
    /// The number that the kernel gave it. Numbers are reused some time after a mount was unmounted.
    pub id: u64,
    /// The mount that its mount point lies on. 0 where that mount is not visible.
    parent: u64,
    /// The device number, as text.
    device: String,
    /// Where it is mounted.
    pub point: PathBuf,
    /// How its file system may be accessed.
    pub kind: FileSystemKind,
}

/// What accessing a file system depends on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum FileSystemKind {
    /// Only the kernel itself, so it always answers.
    Kernel,
    /// A disk, which may be unreachable (iSCSI, Fibre Channel) or suspended.
    Disk,
    /// A server, or another process, which may not answer.
    #[default]
    Remote,
    /// An automount: looking up a name in it makes the kernel mount something.
    Automount,
}

/// The file systems without a disk or a server.
const KERNEL: &str = " bpf cgroup cgroup2 configfs debugfs devpts devtmpfs efivarfs hugetlbfs mqueue \
    proc pstore ramfs rootfs securityfs sysfs tmpfs tracefs ";

/// The file systems that need a disk but no server. All others count as remote: taking a local file
/// system for a remote one costs a statvfs per gather, taking a remote one for local hangs QEMU.
const DISK: &str = " bcachefs btrfs cramfs erofs exfat ext2 ext3 ext4 f2fs hfs hfsplus iso9660 jffs2 \
    jfs minix msdos nilfs2 ntfs ntfs3 overlay reiserfs squashfs sysv ubifs udf ufs vfat xfs zfs \
    zonefs ";

impl FileSystemKind {
    fn of(file_system: &str) -> Self {
        let name = format!(" {file_system} ");
        if file_system == "autofs" {
            Self::Automount
        } else if KERNEL.contains(&name) {
            Self::Kernel
        } else if DISK.contains(&name) {
            Self::Disk
        } else {
            Self::Remote
        }
    }
}

/// All mounts that are visible to a process.
#[derive(Debug, Default)]
pub(super) struct MountTable {
    mounts: Vec<Mount>,
    /// The indices of the mounts at a mount point. There may be several, on top of each other or hidden
    /// by another mount.
    by_point: HashMap<PathBuf, Vec<usize>>,
}

impl MountTable {
    /// Parses mountinfo. Lines that are not valid are skipped.
    pub fn parse(text: &[u8]) -> Self {
        let lines = text.split(|byte| *byte == b'\n');
        let mut mounts: Vec<Mount> = lines.filter_map(mount).collect();
        let ids: HashSet<u64> = mounts.iter().map(|mount| mount.id).collect();
        let mut by_point: HashMap<PathBuf, Vec<usize>> = HashMap::default();
        for (index, mount) in mounts.iter_mut().enumerate() {
            // The first mount is its own parent, or has a parent outside our root.
            if mount.parent == mount.id || !ids.contains(&mount.parent) {
                mount.parent = 0;
            }
            by_point.entry(mount.point.clone()).or_default().push(index);
        }
        Self { mounts, by_point }
    }

    /// The mount of this number.
    pub fn get(&self, id: u64) -> Option<&Mount> {
        self.mounts.iter().find(|mount| mount.id == id)
    }

    /// Whether the file system of a mount that was unmounted is mounted at the same place again. Its
    /// device number is not reused while a file on it is open.
    pub fn is_mounted_again(&self, unmounted: &Mount) -> bool {
        self.mounts
            .iter()
            .any(|mount| mount.point == unmounted.point && mount.device == unmounted.device)
    }

    /// The mount on which an absolute path without links, `.` and `..` lies. It is found in the same way
    /// as in the kernel: from the root on, each component leads onto what is mounted there.
    pub fn mount_of(&self, path: &Path) -> Option<&Mount> {
        let mut here = PathBuf::from("/");
        let mut mount = self.topmost(&here, None);
        for component in path.components() {
            if let Component::Normal(name) = component {
                here.push(name);
                mount = self.topmost(&here, mount);
            }
        }
        mount
    }

    /// The topmost mount at `point` above `below`, or `below` itself if nothing is mounted there.
    fn topmost<'a>(&'a self, point: &Path, below: Option<&'a Mount>) -> Option<&'a Mount> {
        let Some(candidates) = self.by_point.get(point) else {
            return below;
        };
        let mut top = below;
        // Each step goes up by one mount. The number of steps is limited, for an invalid table may have
        // a circle.
        for _ in candidates {
            let parent = top.map_or(0, |mount| mount.id);
            let on_top = candidates.iter().rev().map(|index| &self.mounts[*index]);
            match on_top.into_iter().find(|mount| mount.parent == parent) {
                Some(mount) => top = Some(mount),
                None => break,
            }
        }
        top
    }
}

/// `ID PARENT MAJOR:MINOR ROOT POINT OPTIONS [FIELD...] - TYPE SOURCE OPTIONS`
fn mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let mut text = || std::str::from_utf8(fields.next()?).ok();
    let (id, parent) = (text()?.parse().ok()?, text()?.parse().ok()?);
    let device = text()?.to_owned();
    let point = unescape(fields.nth(1)?);
    fields.find(|field| *field == b"-")?;
    let kind = FileSystemKind::of(std::str::from_utf8(fields.next()?).ok()?);
    Some(Mount {
        id,
        parent,
        device,
        point,
        kind,
    })
}

/// In mountinfo space, tab, newline and backslash are written as octal escapes, like `\040`.
fn unescape(field: &[u8]) -> PathBuf {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        });
        match octal {
            Some(byte) if *first == b'\\' => {
                plain.push(byte);
                rest = &after[3..];
            }
            _ => {
                plain.push(*first);
                rest = after;
            }
        }
    }
    OsString::from_vec(plain).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at<'a>(table: &'a MountTable, path: &str) -> Option<(u64, FileSystemKind, &'a str)> {
        let mount = table.mount_of(Path::new(path))?;
        Some((mount.id, mount.kind, mount.point.to_str().unwrap()))
    }

    const TABLE: &[u8] = b"\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
30 22 0:40 / /mnt/nfs rw,relatime - nfs4 server:/export rw,vers=4.2\n\
31 30 0:41 / /mnt/nfs/deep rw - cifs //server/share rw\n\
32 22 0:42 / /with\\040space\\134 rw - fuse.sshfs you@there:/ rw\n\
33 22 0:43 / /net rw - autofs /etc/auto.net rw\n\
34 33 0:44 / /net/host rw - nfs host:/ rw\n\
35 22 254:1 / /cover rw master:7 propagate_from:2 - xfs /dev/vdb rw\n\
36 35 0:45 / /cover/hidden rw - nfs server:/hidden rw\n\
37 35 254:2 / /cover rw - xfs /dev/vdc rw\n\
38 22 0:40 /images /images rw - nfs4 server:/export/images rw\n\
39 22 0:46 / /odd rw - neverheardof x rw\n\
not a line\n";

    #[test]
    fn the_longest_mount_point_by_components_applies() {
        let table = MountTable::parse(TABLE);
        assert_eq!(at(&table, "/"), Some((22, FileSystemKind::Disk, "/")));
        assert_eq!(
            at(&table, "/mnt/nfsx/a"),
            Some((22, FileSystemKind::Disk, "/"))
        );
        let nfs = Some((30, FileSystemKind::Remote, "/mnt/nfs"));
        assert_eq!(at(&table, "/mnt/nfs"), nfs);
        assert_eq!(at(&table, "/mnt/nfs/a/b"), nfs);
        let deep = Some((31, FileSystemKind::Remote, "/mnt/nfs/deep"));
        assert_eq!(at(&table, "/mnt/nfs/deep/a"), deep);
    }

    #[test]
    fn escapes_bind_mounts_automounts_and_unknown_kinds_are_understood() {
        let table = MountTable::parse(TABLE);
        let space = Some((32, FileSystemKind::Remote, "/with space\\"));
        assert_eq!(at(&table, "/with space\\/x"), space);
        let bind = Some((38, FileSystemKind::Remote, "/images"));
        assert_eq!(at(&table, "/images/x"), bind);
        let automount = Some((33, FileSystemKind::Automount, "/net"));
        assert_eq!(at(&table, "/net/other/x"), automount);
        let mounted = Some((34, FileSystemKind::Remote, "/net/host"));
        assert_eq!(at(&table, "/net/host/x"), mounted);
        assert_eq!(
            at(&table, "/odd/x"),
            Some((39, FileSystemKind::Remote, "/odd"))
        );
    }

    #[test]
    fn what_is_mounted_last_hides_what_was_there() {
        let table = MountTable::parse(TABLE);
        let cover = Some((37, FileSystemKind::Disk, "/cover"));
        assert_eq!(at(&table, "/cover/hidden/x"), cover);
    }

    #[test]
    fn a_path_below_no_known_mount_has_none() {
        let table = MountTable::parse(b"40 39 0:5 / /proc rw - proc proc rw\n");
        assert_eq!(at(&table, "/images/x"), None);
        assert_eq!(
            at(&table, "/proc/x"),
            Some((40, FileSystemKind::Kernel, "/proc"))
        );
    }

    #[test]
    fn the_table_of_this_process_is_read() {
        let table = MountTable::parse(&std::fs::read("/proc/self/mountinfo").unwrap());
        let proc = table.mount_of(Path::new("/proc/self")).unwrap();
        assert_eq!(proc.point, Path::new("/proc"));
        assert_eq!(proc.kind, FileSystemKind::Kernel);
    }
}
