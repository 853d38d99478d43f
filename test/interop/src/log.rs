//! The state of the test daemon: a file of lines, each durable before it is acknowledged.
//!
//! A line is `<pid> <text>`, so that a reader can tell which generation wrote it; the revision is the number of lines. A
//! last line without its end is a write that was never acknowledged; opening cuts it off. Each opening is told in a file
//! beside it, `generations`, as `open <pid>`: only with the data lock held.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process;

pub struct Log {
    file: File,
    lines: u64,
}

impl Log {
    /// Opens the state. The caller holds the data lock.
    pub fn open(data_dir: &Path) -> io::Result<Self> {
        let mut generations = OpenOptions::new().create(true).append(true).open(data_dir.join("generations"))?;
        generations.write_all(format!("open {}\n", process::id()).as_bytes())?;
        let mut file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(data_dir.join("log"))?;
        let mut content = Vec::new();
        file.read_to_end(&mut content)?;
        let whole = content.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        file.set_len(whole as u64)?;
        file.seek(SeekFrom::End(0))?;
        let lines = content[..whole].iter().filter(|byte| **byte == b'\n').count() as u64;
        Ok(Self { file, lines })
    }

    /// Appends a line, durably; gives the revision after it.
    pub fn append(&mut self, text: &str) -> io::Result<u64> {
        let line = format!("{} {}\n", process::id(), text.replace(['\n', '\r'], " "));
        self.file.write_all(line.as_bytes())?;
        self.file.sync_data()?;
        self.lines += 1;
        Ok(self.lines)
    }

    pub fn revision(&self) -> u64 {
        self.lines
    }

    /// Makes all durable and closes the file; gives the revision.
    pub fn seal(self) -> io::Result<u64> {
        self.file.sync_all()?;
        Ok(self.lines)
    }
}
