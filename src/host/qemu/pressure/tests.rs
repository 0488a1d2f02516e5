use super::*;

const A: Uuid = Uuid::from_u128(1);
const B: Uuid = Uuid::from_u128(2);

/// Of a host with Linux 6.18, under load.
const CPU: &str = "some avg10=57.03 avg60=23.60 avg300=9.54 total=23210537957\n\
                   full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
const MEMORY: &str = "some avg10=0.09 avg60=0.02 avg300=0.00 total=31231075\n\
                      full avg10=0.00 avg60=0.00 avg300=0.00 total=6883117\n";
const IO: &str = "some avg10=9.47 avg60=4.35 avg300=1.26 total=583623863\n\
                  full avg10=1.62 avg60=1.31 avg300=0.49 total=189436929\n";

/// Processes with these texts in `cgroup`, and an empty folder where control groups are mounted.
fn host(processes: &[(u32, &str)], most_files: usize) -> (tempfile::TempDir, PressureFiles) {
    let folder = tempfile::tempdir().unwrap();
    let (proc, root) = (folder.path().join("proc"), folder.path().join("cg"));
    for (pid, text) in processes {
        fs::create_dir_all(proc.join(pid.to_string())).unwrap();
        fs::write(proc.join(format!("{pid}/cgroup")), text).unwrap();
    }
    fs::create_dir_all(&root).unwrap();
    let files = PressureFiles::at(&proc, &root, most_files);
    (folder, files)
}

/// Makes a group with these texts in `cpu.pressure`, `memory.pressure` and `io.pressure`.
fn group(host: &tempfile::TempDir, path: &str, texts: [&str; 3]) {
    let folder = host.path().join("cg").join(path);
    fs::create_dir_all(&folder).unwrap();
    for (resource, text) in RESOURCES.iter().zip(texts) {
        fs::write(folder.join(format!("{resource}.pressure")), text).unwrap();
    }
}

fn pressure(resource: &'static str, kind: &'static str, avg: [f64; 3], total: u64) -> Pressure {
    let [avg10, avg60, avg300] = avg;
    Pressure {
        resource,
        kind,
        avg10,
        avg60,
        avg300,
        total,
    }
}

#[test]
fn each_line_of_each_file_is_read() {
    let (host, mut files) = host(&[(7, "0::/g/emulator\n")], 9);
    group(&host, "g", [CPU, MEMORY, IO]);
    let expected = [
        pressure("cpu", "some", [57.03, 23.6, 9.54], 23_210_537_957),
        pressure("cpu", "full", [0.0; 3], 0),
        pressure("memory", "some", [0.09, 0.02, 0.0], 31_231_075),
        pressure("memory", "full", [0.0; 3], 6_883_117),
        pressure("io", "some", [9.47, 4.35, 1.26], 583_623_863),
        pressure("io", "full", [1.62, 1.31, 0.49], 189_436_929),
    ];
    assert_eq!(files.read(&[(A, 7)])[&A], expected);
}

#[test]
fn what_the_kernel_does_not_have_is_left_out() {
    let (host, mut files) = host(&[(7, "0::/g/emulator\n")], 9);
    let some = CPU.lines().next().unwrap();
    for cpu in [
        // Linux 5.12 and older.
        &format!("{some}\n"),
        &format!("{some}\nfull avg10=0.00 avg60=0.00 avg300=0.00\n"),
        &format!("{some}\nfull avg10=x avg60=0.00 avg300=0.00 total=0\n"),
        &format!("{some}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=-1\n"),
        &format!("{some}\nmost avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"),
        &format!("{some}\nfull\n\n"),
    ] {
        group(&host, "g", [cpu, "", ""]);
        let found = files.read(&[(A, 7)]).remove(&A).unwrap();
        let expected = pressure("cpu", "some", [57.03, 23.6, 9.54], 23_210_537_957);
        assert_eq!(found, [expected], "{cpu}");
    }
}

#[test]
fn the_group_is_that_of_all_processes_of_the_vm() {
    let scope = r"machine.slice/machine-qemu\x2d1\x2da.scope";
    for (inside, whole, mounted) in [
        ("libvirt/emulator", scope, ""),
        // Older versions of libvirt.
        ("emulator", scope, ""),
        // v2 follows processes, and libvirt uses v1.
        ("", scope, "unified/"),
        ("emulator", "machine/qemu-1-a.libvirt-qemu", "unified/"),
        ("emulator", "machine/qemu-1-libvirt.libvirt-qemu", ""),
    ] {
        let path = format!("/{whole}/{inside}");
        let text = format!("4:cpu:/x/emulator\n0::{}\n", path.trim_end_matches('/'));
        let (host, mut files) = host(&[(7, &text)], 9);
        assert!(files.read(&[(A, 7)]).is_empty(), "not there yet");
        group(&host, &format!("{mounted}{whole}"), [CPU, MEMORY, IO]);
        group(&host, &format!("{mounted}{whole}/libvirt"), [""; 3]);
        assert_eq!(files.read(&[(A, 7)])[&A].len(), 6, "{text}");
    }
}

#[test]
fn groups_of_other_processes_and_of_v1_are_not_read() {
    for text in [
        "",
        "4:cpu:/g/emulator\n",
        "0::/\n",
        "0::/g\n",
        "0::/user.slice/session.scope\n",
        "0::/a/machine-qemu-1.slice\n",
        "0::/h/emulator\n",
    ] {
        let (host, mut files) = host(&[(7, text)], 9);
        for place in [
            "",
            "g",
            "user.slice/session.scope",
            "a/machine-qemu-1.slice",
        ] {
            group(&host, place, [CPU, MEMORY, IO]);
        }
        assert!(files.read(&[(A, 7), (B, 8)]).is_empty(), "{text}");
    }
    let (host, mut files) = host(&[(7, "0::/g/emulator\n")], 9);
    group(&host, "g", [CPU, MEMORY, IO]);
    fs::remove_file(host.path().join("cg/g/io.pressure")).unwrap();
    assert!(files.read(&[(A, 7)]).is_empty());
}

/// A folder in the place of a file can be opened, and not be read, like a file without pressure stall information.
#[test]
fn a_file_that_cannot_be_read_is_looked_up_again() {
    let (host, mut files) = host(&[(7, "0::/g/emulator\n")], 9);
    group(&host, "g", [CPU, MEMORY, IO]);
    let io = host.path().join("cg/g/io.pressure");
    fs::remove_file(&io).unwrap();
    fs::create_dir(&io).unwrap();
    assert!(files.read(&[(A, 7)]).is_empty() && files.kept.len() == 0);
    fs::remove_dir(&io).unwrap();
    fs::write(&io, IO).unwrap();
    assert_eq!(files.read(&[(A, 7)])[&A].len(), 6);
}

#[test]
fn files_stay_open_for_the_same_process_within_the_limit() {
    let texts = [(7, "0::/g/emulator\n"), (8, "0::/h/emulator\n")];
    let (host, mut files) = host(&texts, 5);
    group(&host, "g", [CPU, MEMORY, IO]);
    group(&host, "h", [CPU, MEMORY, IO]);
    let both = [(A, 7), (B, 8)];
    for _ in 0..2 {
        assert_eq!(files.read(&both).len(), 2);
        assert_eq!(files.kept.len(), 1, "three files more are too many");
    }
    for name in ["g", "h"] {
        fs::remove_dir_all(host.path().join("cg").join(name)).unwrap();
    }
    assert_eq!(files.read(&both).len(), 1, "an open file");
    assert!(files.read(&[(A, 8)]).is_empty(), "another process");
    assert!(files.kept.len() == 0);
}
