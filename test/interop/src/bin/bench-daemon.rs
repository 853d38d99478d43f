//! A daemon that owns nothing but the data lock: what a swap costs when its hooks cost nothing.

use std::net::TcpListener;
use std::path::Path;
use std::time::Instant;

use handoff::drainable::ReadinessSnapshot;
use handoff::{DataDirLock, DrainReport, Drainable, Incumbent, Result, Role, SealReport, StateSnapshot};
use interop::settings::required_path;

struct NoOp;

impl Drainable for NoOp {
    fn drain(&self, _: Instant) -> Result<DrainReport> {
        Ok(DrainReport { open_conns_remaining: 0, accept_closed: true })
    }

    fn seal(&self) -> Result<SealReport> {
        Ok(SealReport::default())
    }

    fn resume_after_abort(&self) -> Result<()> {
        Ok(())
    }

    fn snapshot_state(&self) -> StateSnapshot {
        StateSnapshot::default()
    }
}

fn main() -> Result<()> {
    let socket = required_path("HANDOFF_CONTROL_SOCKET");
    let data_dir = required_path("HANDOFF_DATA_DIR");
    let (incumbent, _listener) = start(&socket, &data_dir)?;
    incumbent.serve(NoOp)
}

/// The listener is only held, nothing is accepted.
fn start(socket: &Path, data_dir: &Path) -> Result<(Incumbent, Option<TcpListener>)> {
    match handoff::detect_role()? {
        Role::ColdStart { mut inherited } => {
            let lock = DataDirLock::acquire_or_break_stale(data_dir)?;
            Ok((Incumbent::bind_cold_start(socket, lock)?, inherited.take("http")))
        }
        Role::Successor(successor) => {
            let mut begun = successor.handshake(Vec::new())?.wait_for_begin()?;
            let listener = begun.take_listener("http");
            let lock = DataDirLock::acquire(data_dir)?;
            let ready = ReadinessSnapshot { healthz_ok: true, ..ReadinessSnapshot::default() };
            Ok((begun.announce_and_bind(ready, socket, lock)?, listener))
        }
    }
}
