//! What is asked of a mount, and the process that asks: this program once more, started with
//! [`FLAG`]. It may hang for ever; then nothing of it but itself does.

use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::statvfs;
use rustix::io::Errno;

/// The program's first argument in a checker; the second is the mount point, or nothing in the one
/// that only follows paths on local file systems.
pub const FLAG: &str = "--mount-checker";

/// Ends a question, and an answer. No path holds it.
pub(super) const END: u8 = 0;

/// What came of a look at a mount, or at a path on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CheckResult {
    /// The mount answers; the path is there, and is no symbolic link.
    Alive,
    /// The storage says itself that it is dead.
    Dead,
    /// We may not know, or nothing is there.
    Unknown,
    /// The path is a symbolic link to this.
    Link(PathBuf),
}

impl CheckResult {
    /// A letter, the link's target, and [`END`].
    fn encode(&self) -> Vec<u8> {
        let (letter, target) = match self {
            Self::Alive => (b'A', &b""[..]),
            Self::Dead => (b'D', &b""[..]),
            Self::Unknown => (b'U', &b""[..]),
            Self::Link(target) => (b'L', target.as_os_str().as_bytes()),
        };
        [&[letter], target, &[END]].concat()
    }

    /// From [`CheckResult::encode`]'s bytes without the end; `None`: it never wrote those.
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

/// A checker's whole life: answers what stdin asks until that is closed, hanging or not.
pub fn run(point: &Path) -> ! {
    // Else ps and top call it "exe".
    let paths_only = point.as_os_str().is_empty();
    let name = if paths_only {
        "path resolver"
    } else {
        "mount checker"
    };
    let _ = fs::write("/proc/self/comm", name);
    // A hanging look must not keep it here once nobody waits for the answer. The kernel does not
    // let go of a thread in uninterruptible sleep, but of everything else.
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

/// Answers one question after the other: an empty one means the mount, others are paths on it.
///
/// # Errors
/// Nobody reads the answers.
pub(super) fn serve(
    point: &Path,
    mut questions: impl BufRead,
    mut answers: impl Write,
) -> io::Result<()> {
    let mut question = Vec::new();
    loop {
        question.clear();
        questions.read_until(END, &mut question)?;
        if question.pop() != Some(END) {
            return Ok(());
        }
        let answer = if question.is_empty() {
            check_mount(point)
        } else {
            read_link(Path::new(&OsString::from_vec(question.clone())))
        };
        answers.write_all(&answer.encode())?;
        answers.flush()?;
    }
}

/// One statvfs: the servers of all kinds of mounts must answer it afresh.
fn check_mount(point: &Path) -> CheckResult {
    match statvfs(point) {
        // To users that a FUSE mount does not serve the kernel itself gives success, and nothing in
        // it (fuse_statfs).
        Ok(answer) if answer.f_bsize == 0 => CheckResult::Unknown,
        Ok(_) => CheckResult::Alive,
        Err(error) => classify(error),
    }
}

/// One readlink.
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

/// Whether an error says that the storage is dead, or only that we may not look.
///
/// ENOTCONN and ECONNABORTED come from FUSE whose server is gone, ESTALE from NFS, EHOSTDOWN from
/// CIFS, ESHUTDOWN from Ceph, EIO and ETIMEDOUT from whoever gave up.
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
    fn an_answer_arrives_as_it_was_sent() {
        let odd = OsString::from_vec(b"/a b\n\xff".to_vec());
        let links = [PathBuf::from("A"), odd.into()].map(CheckResult::Link);
        for answer in [CheckResult::Alive, CheckResult::Dead, CheckResult::Unknown]
            .into_iter()
            .chain(links)
        {
            let mut sent = answer.encode();
            assert_eq!(sent.pop(), Some(END));
            assert_eq!(CheckResult::decode(&sent), Some(answer));
        }
        for nonsense in [&b""[..], b"X", b"a"] {
            assert_eq!(CheckResult::decode(nonsense), None);
        }
    }

    #[test]
    fn each_question_has_an_answer_until_they_end() {
        let folder = tempfile::tempdir().unwrap();
        let (file, to_it) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "").unwrap();
        symlink("file", &to_it).unwrap();
        let paths = [&file, &to_it, &folder.path().join("none")];
        let mut questions = vec![END];
        for path in paths {
            questions.extend_from_slice(path.as_os_str().as_bytes());
            questions.push(END);
        }
        // Cut off in the middle: not a question.
        questions.extend_from_slice(b"/");
        let mut answers = Vec::new();
        serve(folder.path(), &questions[..], &mut answers).unwrap();
        assert_eq!(answers, b"A\0A\0Lfile\0U\0");
        let mut answers = Vec::new();
        serve(&folder.path().join("none"), &[END][..], &mut answers).unwrap();
        assert_eq!(answers, b"U\0");
    }

    #[test]
    fn only_storage_itself_says_that_it_is_dead() {
        for (error, answer) in [
            (Errno::STALE, CheckResult::Dead),
            (Errno::NOTCONN, CheckResult::Dead),
            (Errno::ACCESS, CheckResult::Unknown),
            (Errno::NOENT, CheckResult::Unknown),
        ] {
            assert_eq!(classify(error), answer, "{error}");
        }
    }
}
