//! CPU time of VMs by their control groups, where libvirt's `cpu` group has it from
//! (virCgroupGetCpuacctUsage, virCgroupGetCpuacctStat): a read of a file here, a call that waits for
//! QEMU's monitor there (since libvirt 7.1 and QEMU 7.1, for a figure that we do not write).
//!
//! What is read need not be what libvirt reads (another hierarchy, another namespace): whoever uses
//! it compares the two first.

use std::fs::{self, File};
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::{RawDir, SeekFrom, seek};
use rustix::io::pread;
use uuid::Uuid;

use crate::maps::HashMap;

/// What a VM's control group says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuUsage {
    /// When it was read.
    pub at: Instant,
    /// CPU time in ns, all of it,
    pub time: u64,
    /// in user mode,
    pub user: u64,
    /// and in the kernel.
    pub system: u64,
    /// How many groups of a vCPU are below it: libvirt makes one for each that is online (if QEMU
    /// gives it a thread of its own), beside the emulator's and those of I/O threads.
    pub vcpus: u64,
    /// In which steps the three times are counted, ns.
    pub resolution: [u64; 3],
}

/// The control groups of the VMs asked for last. One or two descriptors a VM stay open.
#[derive(Debug)]
pub struct Cgroups {
    proc: PathBuf,
    root: PathBuf,
    known: HashMap<Uuid, (u32, Option<VmCgroup>)>,
}

#[derive(Debug)]
struct VmCgroup {
    folder: File,
    files: CpuFiles,
}

#[derive(Debug)]
enum CpuFiles {
    /// `cpu.stat` of cgroup v2.
    V2(File),
    /// `cpuacct.usage` and `cpuacct.stat` of cgroup v1.
    V1(File, File),
}

impl Default for Cgroups {
    fn default() -> Self {
        Self::at(Path::new("/proc"), Path::new("/sys/fs/cgroup"))
    }
}

impl Cgroups {
    /// Those below other mount points.
    #[must_use]
    pub fn at(proc: &Path, root: &Path) -> Self {
        Self {
            proc: proc.into(),
            root: root.into(),
            known: HashMap::default(),
        }
    }

    /// Reads the groups that these QEMU processes are in; the others are forgotten. Who has none in
    /// sight is missing from the answer.
    pub fn read(&mut self, qemus: &[(Uuid, u32)]) -> HashMap<Uuid, CpuUsage> {
        let mut before = std::mem::take(&mut self.known);
        let mut usages = HashMap::with_capacity_and_hasher(qemus.len(), Default::default());
        for &(uuid, pid) in qemus {
            let known = before.remove(&uuid).filter(|(of, _)| *of == pid);
            // A QEMU that has just started is not in its place yet.
            let group = match known.and_then(|(_, group)| group) {
                Some(group) => Some(group),
                None => VmCgroup::of(&self.proc, &self.root, pid),
            };
            let usage = group.as_ref().and_then(VmCgroup::read);
            usages.extend(usage.map(|usage| (uuid, usage)));
            // One that cannot be read any more, for it was removed, is looked up anew.
            let group = group.filter(|_| usage.is_some());
            self.known.insert(uuid, (pid, group));
        }
        usages
    }
}

impl VmCgroup {
    /// libvirt puts QEMU's main thread in a group `emulator` of the VM's own.
    fn of(proc: &Path, root: &Path, pid: u32) -> Option<Self> {
        let text = fs::read_to_string(proc.join(format!("{pid}/cgroup"))).ok()?;
        let lines = text.lines().filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?);
            let path = path.strip_suffix("/emulator")?.trim_start_matches('/');
            Some((controllers, path))
        });
        let find = |wanted: &str| {
            let mut lines = lines.clone();
            lines.find(|(controllers, _)| controllers.split(',').any(|name| name == wanted))
        };
        // Where libvirt uses v2 it has CPU time from there, whatever v1 has beside it
        // (VIR_CGROUP_BACKEND_TYPE_V2 is asked first).
        if let Some((_, path)) = find("") {
            // Beside v1's hierarchies v2's is mounted in a folder of its own.
            let mut roots = [root.to_path_buf(), root.join("unified")].into_iter();
            roots.find_map(|root| {
                let folder = root.join(path);
                let files = CpuFiles::V2(File::open(folder.join("cpu.stat")).ok()?);
                Self::with(&folder, files)
            })
        } else {
            let folder = root.join("cpuacct").join(find("cpuacct")?.1);
            let open = |name| File::open(folder.join(name)).ok();
            let files = CpuFiles::V1(open("cpuacct.usage")?, open("cpuacct.stat")?);
            Self::with(&folder, files)
        }
    }

    fn with(folder: &Path, files: CpuFiles) -> Option<Self> {
        let folder = File::open(folder).ok()?;
        Some(Self { folder, files })
    }

    fn read(&self) -> Option<CpuUsage> {
        let mut buffer = [0; 1024];
        let at = Instant::now();
        let ([time, user, system], resolution) = match &self.files {
            CpuFiles::V2(file) => {
                let keys = ["usage_usec", "user_usec", "system_usec"];
                let times = figures(text(file, &mut buffer)?, keys, 1_000)?;
                (times, [1_000; 3])
            }
            CpuFiles::V1(usage, stat) => {
                let time = text(usage, &mut buffer)?.trim().parse().ok()?;
                let tick = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
                let [user, system] = figures(text(stat, &mut buffer)?, ["user", "system"], tick)?;
                ([time, user, system], [1, tick, tick])
            }
        };
        let vcpus = self.vcpus()?;
        Some(CpuUsage {
            at,
            time,
            user,
            system,
            vcpus,
            resolution,
        })
    }

    fn vcpus(&self) -> Option<u64> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        seek(&self.folder, SeekFrom::Start(0)).ok()?;
        let mut entries = RawDir::new(&self.folder, &mut buffer);
        let mut vcpus = 0;
        while let Some(entry) = entries.next() {
            let entry = entry.ok()?;
            let number = entry.file_name().to_bytes().strip_prefix(b"vcpu");
            if number.is_some_and(|n| !n.is_empty() && n.iter().all(u8::is_ascii_digit)) {
                vcpus += 1;
            }
        }
        Some(vcpus)
    }
}

fn text<'b>(file: &File, buffer: &'b mut [u8]) -> Option<&'b str> {
    let length = pread(file, &mut *buffer, 0).ok()?;
    std::str::from_utf8(buffer.get(..length)?).ok()
}

/// `KEY NUMBER`, a line each; each number times `unit`.
fn figures<const N: usize>(text: &str, keys: [&str; N], unit: u64) -> Option<[u64; N]> {
    let mut found = [None; N];
    for (key, number) in text.lines().filter_map(|line| line.split_once(' ')) {
        if let Some(place) = keys.iter().position(|wanted| *wanted == key) {
            found[place] = number.trim().parse::<u64>().ok()?.checked_mul(unit);
        }
    }
    let mut figures = [0; N];
    for (figure, found) in figures.iter_mut().zip(found) {
        *figure = found?;
    }
    Some(figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Uuid = Uuid::from_u128(1);

    /// A process of this `cgroup` text, and folders for a hierarchy.
    fn host(cgroup: &str) -> (tempfile::TempDir, Cgroups) {
        let folder = tempfile::tempdir().unwrap();
        let (proc, root) = (folder.path().join("proc"), folder.path().join("cg"));
        fs::create_dir_all(proc.join("7")).unwrap();
        fs::create_dir_all(&root).unwrap();
        fs::write(proc.join("7/cgroup"), cgroup).unwrap();
        let cgroups = Cgroups::at(&proc, &root);
        (folder, cgroups)
    }

    fn group(root: &Path, path: &str, files: &[(&str, &str)]) {
        let folder = root.join("cg").join(path);
        fs::create_dir_all(&folder).unwrap();
        for (name, text) in files {
            fs::write(folder.join(name), text).unwrap();
        }
    }

    const STAT: &str = "usage_usec 30\nuser_usec 10\nsystem_usec 20\nnr_periods 0\n";

    #[test]
    fn v2_by_systemd_and_without() {
        for (path, mounted) in [
            ("machine.slice/machine-qemu\\x2d1\\x2da b.scope/libvirt", ""),
            ("machine/qemu-1-a.libvirt-qemu", "unified/"),
        ] {
            let (folder, mut cgroups) = host(&format!("1:cpu:/\n0::/{path}/emulator\n"));
            assert_eq!(cgroups.read(&[(A, 7)]), HashMap::default());
            let place = format!("{mounted}{path}");
            group(folder.path(), &place, &[("cpu.stat", STAT)]);
            let usage = cgroups.read(&[(A, 7)])[&A];
            let figures = (usage.time, usage.user, usage.system);
            assert_eq!(figures, (30_000, 10_000, 20_000));
            assert!(cgroups.read(&[]).is_empty());
            assert!(cgroups.known.is_empty());
        }
    }

    #[test]
    fn v1_counts_in_ticks() {
        let path = "machine.slice/machine-qemu\\x2d1\\x2da.scope/libvirt";
        let lines = format!(
            "5:memory:/x/emulator\n4:cpu,cpuacct:/{path}/emulator\n0::/machine.slice/x.scope\n"
        );
        let (folder, mut cgroups) = host(&lines);
        let files = [
            ("cpuacct.usage", "123456789\n"),
            ("cpuacct.stat", "user 7\nsystem 5\n"),
        ];
        group(folder.path(), &format!("cpuacct/{path}"), &files);
        let usage = cgroups.read(&[(A, 7)])[&A];
        let tick = 1_000_000_000 / rustix::param::clock_ticks_per_second();
        assert_eq!(
            (usage.time, usage.user, usage.system),
            (123_456_789, 7 * tick, 5 * tick)
        );
    }

    #[test]
    fn where_libvirt_uses_both_versions_it_has_cpu_time_from_v2() {
        let path = "machine/qemu-1-a.libvirt-qemu";
        let lines = format!("4:cpu,cpuacct:/{path}/emulator\n0::/{path}/emulator\n");
        let (folder, mut cgroups) = host(&lines);
        let split = [
            ("cpuacct.usage", "30001\n"),
            ("cpuacct.stat", "user 0\nsystem 0\n"),
        ];
        group(folder.path(), &format!("cpuacct/{path}"), &split);
        assert_eq!(
            cgroups.read(&[(A, 7)]),
            HashMap::default(),
            "v2 is out of sight"
        );
        group(
            folder.path(),
            &format!("unified/{path}"),
            &[("cpu.stat", STAT)],
        );
        assert_eq!(cgroups.read(&[(A, 7)])[&A].time, 30_000);
    }

    #[test]
    fn groups_of_vcpus_are_counted_anew_each_time() {
        let (folder, mut cgroups) = host("0::/g/emulator\n");
        group(folder.path(), "g", &[("cpu.stat", STAT)]);
        let mut vcpus = |remove: &[&str], make: &[&str]| {
            let place = folder.path().join("cg/g");
            for name in remove {
                fs::remove_dir(place.join(name)).unwrap();
            }
            for name in make {
                fs::create_dir(place.join(name)).unwrap();
            }
            cgroups.read(&[(A, 7)])[&A].vcpus
        };
        assert_eq!(vcpus(&[], &["emulator", "iothread1", "vcpu", "vcpux"]), 0);
        assert_eq!(vcpus(&[], &["vcpu0"]), 1);
        // As many groups as before.
        assert_eq!(vcpus(&["iothread1"], &["vcpu17"]), 2);
        let many: Vec<String> = (100..400).map(|n| format!("vcpu{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(vcpus(&["vcpu0"], &many), 301);
    }

    #[test]
    fn what_is_not_libvirts_or_not_readable_is_passed_over() {
        for (lines, file, text) in [
            ("0::/user.slice/x\n", "cpu.stat", STAT),
            (
                "0::/g/emulator\n",
                "cpu.stat",
                "usage_usec 1\nuser_usec 1\n",
            ),
            (
                "0::/g/emulator\n",
                "cpu.stat",
                "usage_usec x\nuser_usec 1\nsystem_usec 1\n",
            ),
            ("0::/g/emulator\n", "other", STAT),
            ("4:cpu:/g/emulator\n", "cpu.stat", STAT),
            ("", "cpu.stat", STAT),
        ] {
            let (folder, mut cgroups) = host(lines);
            group(folder.path(), "g", &[(file, text)]);
            assert_eq!(
                cgroups.read(&[(A, 7), (Uuid::nil(), 8)]),
                HashMap::default()
            );
        }
    }
}
