//! A small HTTP/1.1 server over a listener that others hold too, and that can be made to stop accepting without a close.
//!
//! `GET /` answers `rust <pid>`; `POST /append` appends its body to the log and answers the revision. Every answer carries
//! `Connection: close`. One thread accepts, one more runs for each connection.
//!
//! Accepting waits in poll(2) on the listener and on one end of a socketpair, never in accept(2): a thread that sleeps in
//! accept can't be told to stop without closing the listener, and it would take one connection more after it was told.
//! O_NONBLOCK of the listener belongs to all its holders and may change at any time, so both of accept's conducts are
//! provided for.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use std::{process, thread};

use crate::log::Log;

/// How long a client may leave a connection without a byte.
const CLIENT_PATIENCE: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Traffic {
    accepting: bool,
    /// The accepting thread sits between two connections and looks at `accepting` before it takes another.
    parked: bool,
    in_flight: u32,
}

pub struct Server {
    data_dir: PathBuf,
    log: Mutex<Option<Log>>,
    traffic: Mutex<Traffic>,
    changed: Condvar,
    wake: UnixStream,
    woken: UnixStream,
}

impl Server {
    /// Opens the state; the caller holds the data lock.
    pub fn open(data_dir: PathBuf) -> io::Result<Arc<Self>> {
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let log = Mutex::new(Some(Log::open(&data_dir)?));
        let traffic = Mutex::new(Traffic { parked: true, ..Traffic::default() });
        Ok(Arc::new(Self { data_dir, log, traffic, changed: Condvar::new(), wake, woken }))
    }

    /// Starts the thread that accepts, and lets it.
    pub fn serve(self: &Arc<Self>, listener: TcpListener) {
        self.accept_again();
        let server = Arc::clone(self);
        thread::spawn(move || server.accept_all(&listener));
    }

    pub fn accept_again(&self) {
        self.traffic().accepting = true;
        self.changed.notify_all();
    }

    /// Stops accepting and waits for requests in flight; gives how many connections are left at the deadline.
    pub fn drain(&self, deadline: Instant) -> u32 {
        let mut traffic = self.traffic();
        traffic.accepting = false;
        let _ = (&self.wake).write(&[0]);
        while !traffic.parked || traffic.in_flight > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            traffic = self.changed.wait_timeout(traffic, left).expect("no thread panics with the lock").0;
        }
        traffic.in_flight
    }

    /// Closes the log durably; gives the revision. Appends after that are refused.
    pub fn seal(&self) -> io::Result<u64> {
        match self.log().take() {
            Some(log) => log.seal(),
            None => Err(io::Error::other("sealed before")),
        }
    }

    /// Opens the log again from disk, unless it is open; the caller holds the data lock.
    pub fn reopen(&self) -> io::Result<()> {
        let mut log = self.log();
        if log.is_none() {
            *log = Some(Log::open(&self.data_dir)?);
        }
        Ok(())
    }

    pub fn revision(&self) -> u64 {
        self.log().as_ref().map_or(0, Log::revision)
    }

    fn log(&self) -> MutexGuard<'_, Option<Log>> {
        self.log.lock().expect("no thread panics with the lock")
    }

    fn traffic(&self) -> MutexGuard<'_, Traffic> {
        self.traffic.lock().expect("no thread panics with the lock")
    }

    fn accept_all(self: &Arc<Self>, listener: &TcpListener) {
        loop {
            self.wait_until_accepting();
            if !self.wait_for_connection(listener) || !self.traffic().accepting {
                continue;
            }
            match listener.accept() {
                Ok((stream, _)) => self.serve_connection(stream),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(_) => thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    fn wait_until_accepting(&self) {
        let mut traffic = self.traffic();
        traffic.parked = true;
        self.changed.notify_all();
        while !traffic.accepting {
            traffic = self.changed.wait(traffic).expect("no thread panics with the lock");
        }
        traffic.parked = false;
    }

    /// Waits for a connection or a word from `drain`; true for the former.
    fn wait_for_connection(&self, listener: &TcpListener) -> bool {
        let waiting = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let mut both = [waiting(listener.as_raw_fd()), waiting(self.woken.as_raw_fd())];
        // SAFETY: `both` is a live array of the length given.
        unsafe { libc::poll(both.as_mut_ptr(), 2, -1) };
        if both[1].revents != 0 {
            let _ = (&self.woken).read(&mut [0; 64]);
        }
        both[0].revents != 0
    }

    fn serve_connection(self: &Arc<Self>, stream: TcpStream) {
        self.traffic().in_flight += 1;
        let server = Arc::clone(self);
        thread::spawn(move || {
            let _ = server.answer(&stream);
            server.traffic().in_flight -= 1;
            server.changed.notify_all();
        });
    }

    fn answer(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(CLIENT_PATIENCE))?;
        stream.set_nodelay(true)?;
        let (line, body) = read_request(stream)?;
        let (status, text) = match line.as_str() {
            "GET /" => ("200 OK", format!("rust {}", process::id())),
            "POST /append" => match self.log().as_mut().map(|log| log.append(&body)) {
                Some(Ok(revision)) => ("200 OK", revision.to_string()),
                Some(Err(error)) => ("500 Internal Server Error", error.to_string()),
                None => ("503 Service Unavailable", "sealed".into()),
            },
            _ => ("404 Not Found", "no such thing".into()),
        };
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", text.len());
        { stream }.write_all(format!("{head}{text}").as_bytes())?;
        stream.shutdown(Shutdown::Write)
    }
}

/// `METHOD PATH` and the body.
fn read_request(stream: &TcpStream) -> io::Result<(String, String)> {
    let mut reader = BufReader::new(stream);
    let mut start = String::new();
    reader.read_line(&mut start)?;
    let mut length = 0;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some((name, value)) = header.split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().map_err(|_| io::ErrorKind::InvalidData)?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let request: Vec<&str> = start.split(' ').take(2).collect();
    Ok((request.join(" "), String::from_utf8_lossy(&body).into_owned()))
}
