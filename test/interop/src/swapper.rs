//! A supervisor that lives on between handoffs, on the crate's API: it starts the first daemon, swaps, and says what each
//! swap took.

use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use handoff::{SpawnSpec, Supervisor, pass_listener_fds_on_spawn};

use crate::json::Object;
use crate::peer::wait_for_listener;
use crate::timeline::{self, Phases, between};

const PATIENCE: Duration = Duration::from_secs(10);

pub type Environment = Vec<(String, String)>;

pub struct Swapper {
    supervisor: Supervisor,
    socket: PathBuf,
    listener: TcpListener,
    current: Option<Child>,
    pub deadline: Duration,
    pub drain_grace: Duration,
}

/// What a swap came to.
pub struct Swap {
    pub handoff_id: Option<String>,
    pub committed: bool,
    pub abort_reason: Option<String>,
    /// The crate's error, where it gave no outcome.
    pub error: Option<String>,
    /// What went wrong after a committed swap: the control socket did not answer, or the predecessor did not end.
    pub aftermath: Option<String>,
    pub ms: f64,
    /// From the verdict to the moment at which the successor's control socket answers.
    pub settled_ms: Option<f64>,
    pub phases: Phases,
    pub pid: Option<u32>,
    pub predecessor: Option<u32>,
}

impl Swapper {
    /// `listener` is passed on under the name http.
    pub fn new(socket: &Path, listener: TcpListener, journal: Option<PathBuf>) -> handoff::Result<Self> {
        let supervisor = Supervisor::new(socket)?
            .with_listener("http", listener.as_raw_fd())
            .with_build_id(b"rust-supervisor".to_vec());
        let supervisor = match journal {
            Some(path) => supervisor.with_journal(path),
            None => supervisor,
        };
        supervisor.resume_from_journal()?;
        Ok(Self {
            supervisor,
            socket: socket.to_path_buf(),
            listener,
            current: None,
            deadline: Duration::from_secs(60),
            drain_grace: Duration::from_secs(25),
        })
    }

    /// Starts a daemon with the listener and without a predecessor, as the crate's reference supervisor does, and waits
    /// until its control socket answers.
    pub fn start_cold(&mut self, binary: &Path, environment: &Environment) -> Result<u32, String> {
        let mut command = Command::new(binary);
        command.stdin(Stdio::null()).envs(environment.iter().map(|(name, value)| (name, value)));
        let listeners = [("http".to_owned(), self.listener.as_raw_fd())];
        pass_listener_fds_on_spawn(&mut command, &listeners, None);
        let child = command.spawn().map_err(|error| format!("{}: {error}", binary.display()))?;
        let pid = child.id();
        self.current = Some(child);
        wait_for_listener(&self.socket, pid, PATIENCE)?;
        Ok(pid)
    }

    pub fn swap(&mut self, binary: &Path, environment: Environment) -> Swap {
        let mut spec = SpawnSpec::new(binary);
        spec.env = environment;
        spec.deadline = self.deadline;
        spec.drain_grace = self.drain_grace;
        timeline::reset();
        let start = Instant::now();
        let outcome = self.supervisor.perform_handoff(spec);
        let end = Instant::now();
        let mut swap = Swap {
            handoff_id: None,
            committed: false,
            abort_reason: None,
            error: None,
            aftermath: None,
            ms: between(start, end),
            settled_ms: None,
            phases: timeline::phases(start),
            pid: self.current.as_ref().map(Child::id),
            predecessor: None,
        };
        match outcome {
            Ok(outcome) => {
                swap.handoff_id = Some(outcome.handoff_id.to_string());
                swap.committed = outcome.committed;
                swap.abort_reason = outcome.abort_reason;
                if let Some(child) = outcome.child {
                    self.settle(child, &mut swap, end);
                }
            }
            Err(error) => swap.error = Some(error.to_string()),
        }
        swap
    }

    /// Waits until the successor can be swapped itself and its predecessor is gone.
    fn settle(&mut self, successor: Child, swap: &mut Swap, verdict: Instant) {
        let pid = successor.id();
        let predecessor = self.current.replace(successor);
        swap.predecessor = predecessor.as_ref().map(Child::id);
        swap.pid = Some(pid);
        match wait_for_listener(&self.socket, pid, PATIENCE) {
            Ok(()) => swap.settled_ms = Some(between(verdict, Instant::now())),
            Err(error) => swap.aftermath = Some(error),
        }
        if let Some(predecessor) = predecessor
            && let Err(error) = reap(predecessor)
        {
            swap.aftermath = Some(error);
        }
    }

    /// Asks the daemon to stop with SIGTERM, and kills it when it doesn't.
    pub fn stop(&mut self) {
        let Some(mut child) = self.current.take() else {
            return;
        };
        // SAFETY: the child is not reaped yet, so the pid is its own.
        unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGTERM) };
        if !ended(&mut child, PATIENCE) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn reap(mut child: Child) -> Result<(), String> {
    if ended(&mut child, PATIENCE) {
        return Ok(());
    }
    let _ = child.kill();
    let _ = child.wait();
    Err(format!("the predecessor, pid {}, did not end by itself after the commit", child.id()))
}

fn ended(child: &mut Child, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        match child.try_wait() {
            Ok(Some(_)) => return true,
            Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_micros(500)),
            _ => return false,
        }
    }
}

impl Swap {
    pub fn object(&self) -> Object {
        Object::event("swap")
            .boolean("committed", self.committed)
            .text_or_null("abort_reason", self.abort_reason.as_deref())
            .text_or_null("error", self.error.as_deref())
            .text_or_null("aftermath", self.aftermath.as_deref())
            .text_or_null("handoff_id", self.handoff_id.as_deref())
            .pid("pid", self.pid)
            .pid("predecessor", self.predecessor)
            .milliseconds("ms", Some(self.ms))
            .milliseconds("hello_and_spawn_ms", self.phases.hello_and_spawn)
            .milliseconds("drain_ms", self.phases.drain)
            .milliseconds("seal_ms", self.phases.seal)
            .milliseconds("begin_to_ready_ms", self.phases.begin_to_ready)
            .milliseconds("gap_ms", self.phases.gap)
            .milliseconds("settled_ms", self.settled_ms)
    }
}
