//! Who answers at a unix socket's path.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};
use std::{io, mem};

/// The pid of the process that listens at `path`, by SO_PEERCRED of a connection that is closed again at once.
pub fn listening_pid(path: &Path) -> io::Result<u32> {
    let stream = UnixStream::connect(path)?;
    // SAFETY: all-zero is a valid `ucred`.
    let mut credentials: libc::ucred = unsafe { mem::zeroed() };
    let mut length = mem::size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the pointer and the length describe `credentials`, which outlives the call.
    let failed = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &mut length,
        )
    };
    if failed == 0 { Ok(credentials.pid as u32) } else { Err(io::Error::last_os_error()) }
}

/// Waits until the process `pid` listens at `path`. After a commit the crate's successor binds its control socket
/// later than it says Ready, so that a swap right after another may find nobody, or the predecessor.
pub fn wait_for_listener(path: &Path, pid: u32, patience: Duration) -> Result<(), String> {
    let deadline = Instant::now() + patience;
    loop {
        let found = listening_pid(path);
        if matches!(found, Ok(found) if found == pid) {
            return Ok(());
        }
        if Instant::now() > deadline {
            let found = found.map_or_else(|error| error.to_string(), |other| format!("pid {other} listens"));
            return Err(format!("pid {pid} does not listen at {}: {found}", path.display()));
        }
        thread::sleep(Duration::from_micros(200));
    }
}
