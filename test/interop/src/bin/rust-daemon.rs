//! The role program for O and N on the crate's API: the contract of an external fault test, and a small HTTP server on the
//! first inherited listener.
//!
//! The crate's own crash points fire inside it; those of the successor and of the hooks are asked for here.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use handoff::crash::maybe_crash;
use handoff::drainable::ReadinessSnapshot;
use handoff::{
    DataDirLock, DrainReport, Drainable, Error, Incumbent, Result, Role, SealReport, StateSnapshot, Successor,
};
use interop::server::Server;
use interop::settings::{delay, mark, own_pid, required_path, variable};
use interop::timeline;

struct Hooks {
    server: Arc<Server>,
    seal_fails: AtomicBool,
}

impl Hooks {
    fn new(server: Arc<Server>) -> Self {
        let seal_fails = AtomicBool::new(variable("HANDOFF_SEAL_FAILS_ONCE").as_deref() == Some("1"));
        Self { server, seal_fails }
    }
}

impl Drainable for Hooks {
    fn drain(&self, deadline: Instant) -> Result<DrainReport> {
        mark("drain-called", &own_pid());
        maybe_crash("o-inside-drain");
        let open_conns_remaining = self.server.drain(deadline);
        delay("HANDOFF_DRAIN_DELAY_MS");
        Ok(DrainReport { open_conns_remaining, accept_closed: true })
    }

    fn seal(&self) -> Result<SealReport> {
        mark("seal-called", &own_pid());
        maybe_crash("o-inside-seal");
        delay("HANDOFF_SEAL_DELAY_MS");
        if self.seal_fails.swap(false, Ordering::SeqCst) {
            return Err(Error::Protocol("the seal fails once, as HANDOFF_SEAL_FAILS_ONCE asks".into()));
        }
        let revision = self.server.seal()?;
        Ok(SealReport { last_revision_per_shard: vec![revision], data_dir_fingerprint: [0; 32] })
    }

    fn resume_after_abort(&self) -> Result<()> {
        self.server.reopen()?;
        self.server.accept_again();
        mark("resume-called", &own_pid());
        Ok(())
    }

    fn snapshot_state(&self) -> StateSnapshot {
        StateSnapshot { last_revision_per_shard: vec![self.server.revision()], ..StateSnapshot::default() }
    }
}

struct Paths {
    control_socket: PathBuf,
    data_dir: PathBuf,
    /// Name of descriptor 3. The crate keeps the names in a map and forgets their order.
    first_listener: String,
}

fn main() -> ExitCode {
    timeline::install();
    let names = variable("LISTEN_FDNAMES").unwrap_or_default();
    let paths = Paths {
        control_socket: required_path("HANDOFF_CONTROL_SOCKET"),
        data_dir: required_path("HANDOFF_DATA_DIR"),
        first_listener: names.split(':').next().unwrap_or_default().to_owned(),
    };
    match run(&paths) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rust-daemon {}: {error}", own_pid());
            ExitCode::FAILURE
        }
    }
}

fn run(paths: &Paths) -> Result<()> {
    match handoff::detect_role()? {
        Role::ColdStart { mut inherited } => start_cold(paths, inherited.take(&paths.first_listener)),
        Role::Successor(successor) => succeed(paths, successor),
    }
}

fn start_cold(paths: &Paths, listener: Option<TcpListener>) -> Result<()> {
    let lock = DataDirLock::acquire_or_break_stale(&paths.data_dir)?;
    let server = Server::open(paths.data_dir.clone())?;
    let incumbent = Incumbent::bind_cold_start(&paths.control_socket, lock)?;
    serve(&server, listener);
    mark("serving", &own_pid());
    mark("incumbent-pid", &own_pid());
    incumbent.with_build_id(build_id()).serve(Hooks::new(server))
}

fn succeed(paths: &Paths, successor: Successor) -> Result<()> {
    mark("successor-pid", &own_pid());
    maybe_crash("n-before-handshake");
    let acquainted = successor.handshake(build_id())?;
    mark("successor-handshake", &own_pid());
    maybe_crash("n-after-handshake");
    let mut begun = acquainted.wait_for_begin()?;
    mark("successor-begin", &own_pid());
    maybe_crash("n-after-begin");
    let listener = begun.take_listener(&paths.first_listener);
    let lock = DataDirLock::acquire(&paths.data_dir)?;
    let server = Server::open(paths.data_dir.clone())?;
    {
        let _heartbeats = begun.start_heartbeats();
        delay("HANDOFF_READY_DELAY_MS");
    }
    maybe_crash("n-before-announce-ready");
    let ready = ReadinessSnapshot {
        listening_on: listener.iter().filter_map(|each| each.local_addr().ok()).map(|each| each.to_string()).collect(),
        healthz_ok: true,
        advertised_revision_per_shard: vec![server.revision()],
    };
    let incumbent = begun.announce_and_bind(ready, &paths.control_socket, lock)?;
    serve(&server, listener);
    mark("successor-ready", &own_pid());
    incumbent.with_build_id(build_id()).serve(Hooks::new(server))
}

fn serve(server: &Arc<Server>, listener: Option<TcpListener>) {
    if let Some(listener) = listener {
        server.serve(listener);
    }
}

fn build_id() -> Vec<u8> {
    b"rust-daemon".to_vec()
}
