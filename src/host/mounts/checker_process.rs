//! The process that checks a mount, or follows paths on local file systems: this program once more,
//! started with [`FLAG`]. It may hang for ever without holding up this program.

use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::statvfs;
use rustix::io::Errno;

/// The program's first argument in a checker. The second is the mount point. It is empty in the checker
/// that only follows paths on local file systems.
pub const FLAG: &str = "--mount-checker";

/// Ends a request and a result. No path contains it.
pub(super) const END: u8 = 0;

/// The result of checking a mount, or a path on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CheckResult {
    /// The mount answers; the path exists and is not a symbolic link.
    Alive,
    /// The storage itself reports that it is dead.
    Dead,
    /// Access is denied, or nothing is there.
    Unknown,
    /// The path is a symbolic link with this target.
    Link(PathBuf),
}

impl CheckResult {
    /// A letter, the target of a link, and [`END`].
    fn encode(&self) -> Vec<u8> {
        let (letter, target) = match self {
            Self::Alive => (b'A', &b""[..]),
            Self::Dead => (b'D', &b""[..]),
            Self::Unknown => (b'U', &b""[..]),
            Self::Link(target) => (b'L', target.as_os_str().as_bytes()),
        };
        [&[letter], target, &[END]].concat()
    }

    /// Reads what [`CheckResult::encode`] has written, without the [`END`]. `None` for anything else.
    pub(super) fn decode(text: &[u8]) -> Option<Self> {
        let (letter, target) = text.split_first()?;
        Some(match letter {
            b'A' => Self::Alive,
            b'D' => Self::Dead,
            b'U' => Self::Unknown,
            b'L' => Self::Link(OsString::from_vec(target.to_vec()).into()),
            _ => return None,
        })
    }
}

/// Runs a checker: serves the requests on stdin until stdin is closed. It then ends even if a request
/// hangs.
pub fn run(point: &Path) -> ! {
    // Otherwise ps and top show it as "exe".
    let paths_only = point.as_os_str().is_empty();
    let name = if paths_only {
        "path resolver"
    } else {
        "mount checker"
    };
    let _ = fs::write("/proc/self/comm", name);
    // A request that hangs must not keep the process once its result is not wanted any more. A thread in
    // uninterruptible sleep cannot be ended, but all others can, and the descriptors are closed.
    let watch = || {
        let stdin = rustix::stdio::stdin();
        loop {
            let mut closed = [PollFd::new(&stdin, PollFlags::empty())];
            if poll(&mut closed, None) != Err(Errno::INTR) {
                signal_hook::low_level::exit(0);
            }
        }
    };
    if thread::Builder::new().spawn(watch).is_ok() {
        let _ = serve(point, io::stdin().lock(), io::stdout());
    }
    signal_hook::low_level::exit(0)
}

/// Serves one request after the other. An empty request means the mount, others are paths on it.
///
/// # Errors
/// The results are not read any more.
pub(super) fn serve(
    point: &Path,
    mut requests: impl BufRead,
    mut results: impl Write,
) -> io::Result<()> {
    let mut request = Vec::new();
    loop {
        request.clear();
        requests.read_until(END, &mut request)?;
        if request.pop() != Some(END) {
            return Ok(());
        }
        let result = if request.is_empty() {
            check_mount(point)
        } else {
            read_link(Path::new(&OsString::from_vec(request.clone())))
        };
        results.write_all(&result.encode())?;
        results.flush()?;
    }
}

/// Checks the mount with one statvfs, which on every kind of mount the server itself has to answer.
fn check_mount(point: &Path) -> CheckResult {
    match statvfs(point) {
        // Where a FUSE mount does not serve this user, the kernel itself returns success with an empty
        // result (fuse_statfs).
        Ok(result) if result.f_bsize == 0 => CheckResult::Unknown,
        Ok(_) => CheckResult::Alive,
        Err(error) => classify(error),
    }
}

/// Checks a path with one readlink.
pub(super) fn read_link(path: &Path) -> CheckResult {
    match fs::read_link(path) {
        Ok(target) => CheckResult::Link(target),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::INVAL) => CheckResult::Alive,
            Some(error) => classify(error),
            None => CheckResult::Unknown,
        },
    }
}

/// Whether an error means that the storage is dead, or only that the access is not possible.
///
/// ENOTCONN and ECONNABORTED come from a FUSE mount whose server has ended, ESTALE from NFS, EHOSTDOWN
/// from CIFS, ESHUTDOWN from Ceph, EIO and ETIMEDOUT from any client that gave up.
fn classify(error: Errno) -> CheckResult {
    let dead = [
        Errno::NOTCONN,
        Errno::CONNABORTED,
        Errno::CONNREFUSED,
        Errno::CONNRESET,
        Errno::HOSTDOWN,
        Errno::HOSTUNREACH,
        Errno::NETDOWN,
        Errno::NETUNREACH,
        Errno::IO,
        Errno::REMOTEIO,
        Errno::NODEV,
        Errno::SHUTDOWN,
        Errno::STALE,
        Errno::TIMEDOUT,
    ];
    if dead.contains(&error) {
        CheckResult::Dead
    } else {
        CheckResult::Unknown
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_result_is_received_as_it_was_sent() {
        let odd = OsString::from_vec(b"/a b\n\xff".to_vec());
        let links = [PathBuf::from("A"), odd.into()].map(CheckResult::Link);
        for result in [CheckResult::Alive, CheckResult::Dead, CheckResult::Unknown]
            .into_iter()
            .chain(links)
        {
            let mut sent = result.encode();
            assert_eq!(sent.pop(), Some(END));
            assert_eq!(CheckResult::decode(&sent), Some(result));
        }
        for nonsense in [&b""[..], b"X", b"a"] {
            assert_eq!(CheckResult::decode(nonsense), None);
        }
    }

    #[test]
    fn each_request_has_a_result_until_stdin_ends() {
        let folder = tempfile::tempdir().unwrap();
        let (file, to_it) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "").unwrap();
        symlink("file", &to_it).unwrap();
        let paths = [&file, &to_it, &folder.path().join("none")];
        let mut requests = vec![END];
        for path in paths {
            requests.extend_from_slice(path.as_os_str().as_bytes());
            requests.push(END);
        }
        // Cut off in the middle, so not a request.
        requests.extend_from_slice(b"/");
        let mut results = Vec::new();
        serve(folder.path(), &requests[..], &mut results).unwrap();
        assert_eq!(results, b"A\0A\0Lfile\0U\0");
        let mut results = Vec::new();
        serve(&folder.path().join("none"), &[END][..], &mut results).unwrap();
        assert_eq!(results, b"U\0");
    }

    #[test]
    fn only_errors_of_the_storage_itself_mean_that_it_is_dead() {
        for (error, result) in [
            (Errno::STALE, CheckResult::Dead),
            (Errno::NOTCONN, CheckResult::Dead),
            (Errno::ACCESS, CheckResult::Unknown),
            (Errno::NOENT, CheckResult::Unknown),
        ] {
            assert_eq!(classify(error), result, "{error}");
        }
    }
}
