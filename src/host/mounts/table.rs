//! What is mounted where, as proc_pid_mountinfo(5) has it.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use crate::maps::{HashMap, HashSet};

/// One mount.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Mount {
    /// The kernel's number of it; reused some time after it was unmounted.
    pub id: u64,
    /// The mount that its mount point lies on; 0 when that one is out of our sight.
    parent: u64,
    /// Device number, as text.
    device: String,
    /// Where it is mounted.
    pub point: PathBuf,
    /// What may be done with it.
    pub kind: FileSystemKind,
}

/// What may be done with a file system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum FileSystemKind {
    /// Answers from this kernel alone.
    Kernel,
    /// Answers from this kernel and its disks, which may be out of reach (iSCSI, Fibre Channel) or
    /// suspended.
    Disk,
    /// Somebody else has to answer, who may not: a server, or a process.
    #[default]
    Remote,
    /// Looking for a name in it makes the kernel mount something.
    Automount,
}

/// File systems without a disk or a server below them.
const KERNEL: &str = " bpf cgroup cgroup2 configfs debugfs devpts devtmpfs efivarfs hugetlbfs mqueue \
    proc pstore ramfs rootfs securityfs sysfs tmpfs tracefs ";

/// File systems that need no server. Whatever stands in neither list is looked at with care: a
/// remote one too many costs a statvfs per gather, a remote one too few hangs QEMU.
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

/// All mounts that a process sees.
#[derive(Debug, Default)]
pub(super) struct MountTable {
    mounts: Vec<Mount>,
    /// Several may have one mount point: on top of each other, or hidden below another mount.
    at: HashMap<PathBuf, Vec<usize>>,
}

impl MountTable {
    /// From the text of mountinfo. Lines that make no sense are passed over.
    pub fn parse(text: &[u8]) -> Self {
        let lines = text.split(|byte| *byte == b'\n');
        let mut mounts: Vec<Mount> = lines.filter_map(mount).collect();
        let ids: HashSet<u64> = mounts.iter().map(|mount| mount.id).collect();
        let mut at: HashMap<PathBuf, Vec<usize>> = HashMap::default();
        for (index, mount) in mounts.iter_mut().enumerate() {
            // The first of all is its own parent, or has one outside our root.
            if mount.parent == mount.id || !ids.contains(&mount.parent) {
                mount.parent = 0;
            }
            at.entry(mount.point.clone()).or_default().push(index);
        }
        Self { mounts, at }
    }

    /// The mount of this number.
    pub fn get(&self, id: u64) -> Option<&Mount> {
        self.mounts.iter().find(|mount| mount.id == id)
    }

    /// Whether the file system of this mount, which was unmounted, is mounted in its place again. Its
    /// device number is not reused as long as anything holds a file on it.
    pub fn is_mounted_again(&self, gone: &Mount) -> bool {
        let same = |mount: &Mount| mount.point == gone.point && mount.device == gone.device;
        self.mounts.iter().any(same)
    }

    /// The mount on which an absolute path without links, `.` and `..` lies, found as the kernel
    /// does it: from the root on, at each component climbing onto what is mounted there.
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

    /// What is mounted at `point`, on top of `below`; `below` itself if nothing is.
    fn topmost<'a>(&'a self, point: &Path, below: Option<&'a Mount>) -> Option<&'a Mount> {
        let Some(candidates) = self.at.get(point) else {
            return below;
        };
        let mut top = below;
        // Each step climbs by one; a table that goes in circles ends with its candidates.
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

/// Space, tab, newline and backslash stand there as `\040` and the like.
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
    fn the_longest_mount_point_by_components_counts() {
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
    fn a_root_that_is_no_mount_point_is_no_known_ground() {
        let table = MountTable::parse(b"40 39 0:5 / /proc rw - proc proc rw\n");
        assert_eq!(at(&table, "/images/x"), None);
        assert_eq!(
            at(&table, "/proc/x"),
            Some((40, FileSystemKind::Kernel, "/proc"))
        );
    }

    #[test]
    fn our_own_table_makes_sense() {
        let table = MountTable::parse(&std::fs::read("/proc/self/mountinfo").unwrap());
        let proc = table.mount_of(Path::new("/proc/self")).unwrap();
        assert_eq!(proc.point, Path::new("/proc"));
        assert_eq!(proc.kind, FileSystemKind::Kernel);
    }
}
