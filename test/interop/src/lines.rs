//! The streams on which a test talks with a supervisor, out of its daemons' way.
//!
//! The crate starts a successor with the supervisor's own stdin, stdout and stderr. A daemon could then eat commands,
//! or write in the middle of a line of JSON, or make the pipe non-blocking (it belongs to all its holders). So the
//! conversation moves to close-on-exec copies, stdin becomes /dev/null, and stdout becomes stderr.

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};

use crate::json::Object;

pub struct Conversation {
    pub commands: BufReader<File>,
    answers: File,
}

impl Conversation {
    /// Takes over stdin and stdout. To be called before anything else opens a descriptor: the copies then get the low
    /// numbers, and nothing of std's own lies where the crate places a successor's descriptors.
    pub fn take() -> io::Result<Self> {
        let commands = BufReader::new(copy(libc::STDIN_FILENO)?);
        let answers = copy(libc::STDOUT_FILENO)?;
        let nothing = File::open("/dev/null")?;
        replace(libc::STDIN_FILENO, nothing.as_raw_fd())?;
        replace(libc::STDOUT_FILENO, libc::STDERR_FILENO)?;
        Ok(Self { commands, answers })
    }

    /// Writes one line. A reader that is gone is no error: the commands end then too.
    pub fn say(&mut self, object: &Object) {
        let _ = self.answers.write_all(object.line().as_bytes());
    }
}

fn copy(fd: RawFd) -> io::Result<File> {
    // SAFETY: the call touches no memory; the number it gives is a new descriptor that nobody else owns.
    match unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) } {
        -1 => Err(io::Error::last_os_error()),
        new => Ok(unsafe { File::from_raw_fd(new) }),
    }
}

fn replace(target: RawFd, source: RawFd) -> io::Result<()> {
    // SAFETY: the call touches no memory; 0 and 1 stay open, referring to something else.
    if unsafe { libc::dup2(source, target) } == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
