//! Reads the content of a regular file, or of stdin. All other files are refused, for reading them may wait.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, PROC_SUPER_MAGIC, fstatfs, open};

use crate::blocking_io::read_stdin;

/// The largest size in bytes. No configuration is larger, but a disk image given by mistake is.
pub(super) const LARGEST: u64 = 1 << 20;

/// The names of standard input. They are links to the open file, which may be a pipe.
const STDIN: [&str; 3] = ["/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"];

/// Why a file was not read.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It is not a regular file; the text says what it is.
    Kind(&'static str),
    /// It is larger than [`LARGEST`].
    Size,
    /// The system returned an error.
    System(io::Error),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

/// Reads all of a regular file or of standard input. To open another kind of file may wait (a FIFO) or have an
/// effect (a tape), so the kind is checked before the file is opened, and again afterwards.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::new();
    if STDIN.iter().any(|name| path == Path::new(name)) {
        Stdin.take(LARGEST + 1).read_to_end(&mut bytes)?;
    } else {
        refuse_special(&fs::metadata(path)?)?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = File::from(open(path, flags, Mode::empty()).map_err(io::Error::from)?);
        refuse_special(&file.metadata()?)?;
        // Files of /proc are regular, but reading one may wait: /proc/kmsg, which also loses what is read from it.
        if fstatfs(&file).is_ok_and(|system| system.f_type == PROC_SUPER_MAGIC) {
            return Err(Refusal::Kind(
                "is a file of the kernel (procfs), not a configuration",
            ));
        }
        file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    }
    if bytes.len() as u64 > LARGEST {
        return Err(Refusal::Size);
    }
    Ok(bytes)
}

fn refuse_special(metadata: &fs::Metadata) -> Result<(), Refusal> {
    let kind = metadata.file_type();
    let refuse = |what| Err(Refusal::Kind(what));
    if kind.is_dir() {
        refuse("is a directory; name the file in it")
    } else if kind.is_fifo() {
        refuse("is a FIFO; a configuration is a regular file, or /dev/stdin")
    } else if kind.is_socket() {
        refuse("is a socket; a configuration is a regular file, or /dev/stdin")
    } else if !kind.is_file() {
        refuse("is a device; a configuration is a regular file, or /dev/stdin")
    } else {
        Ok(())
    }
}

struct Stdin;

impl Read for Stdin {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        read_stdin(bytes)
    }
}
