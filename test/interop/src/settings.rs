//! The environment of a role, and the marker files it writes: the contract of an external fault test.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;
use std::{env, fs, process, thread};

/// The value of a variable, a set but empty one counting as missing.
pub fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// The path in a variable; ends the process with status 3 and a word about it when the variable is missing.
pub fn required_path(name: &str) -> PathBuf {
    match variable(name) {
        Some(value) => PathBuf::from(value),
        None => {
            eprintln!("{name} must be set");
            process::exit(3)
        }
    }
}

/// A number in a variable, or the default when it is missing or no number.
pub fn number<N: FromStr>(name: &str, default: N) -> N {
    variable(name).and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Milliseconds in a variable.
pub fn milliseconds(name: &str, default: u64) -> Duration {
    Duration::from_millis(number(name, default))
}

/// Sleeps for the milliseconds in a variable; not at all when it is missing.
pub fn delay(name: &str) {
    thread::sleep(milliseconds(name, 0));
}

/// Writes `$HANDOFF_MARKER_DIR/<name>.marker`, whole at once, so that who sees the file sees its content too.
pub fn mark(name: &str, content: &str) {
    let Some(directory) = variable("HANDOFF_MARKER_DIR") else {
        return;
    };
    let path = Path::new(&directory).join(format!("{name}.marker"));
    let staging = Path::new(&directory).join(format!(".{name}.{}.tmp", process::id()));
    let written = fs::write(&staging, content).and_then(|()| fs::rename(&staging, &path));
    if let Err(error) = written {
        eprintln!("cannot write {}: {error}", path.display());
    }
}

/// This process's pid, as markers hold it.
pub fn own_pid() -> String {
    process::id().to_string()
}
