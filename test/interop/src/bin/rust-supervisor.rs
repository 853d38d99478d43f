//! The S role on the crate's API.
//!
//! Without arguments: the contract of an external fault test, one handoff without listeners, then the end with status 0
//! (committed), 2 (aborted), 3 (error) or 99 (crash point).
//!
//! `rust-supervisor serve`: binds INTEROP_LISTEN (127.0.0.1:0), starts HANDOFF_PRIMITIVE_BINARY cold and takes commands,
//! one a line, answering each with a line of JSON:
//!
//! - `swap BINARY [NAME=VALUE ...]`: a handoff; the variables are added to the successor's environment
//! - `quit [stop]`: ends, leaving the daemon or stopping it; the end of the commands means `quit stop`
//!
//! Words are parted by blanks, so paths must have none. INTEROP_INCUMBENT_ENV holds `NAME=VALUE` words for the first daemon
//! alone. Crash points are the supervisor's own here: daemons see an empty HANDOFF_CRASH_AT unless told otherwise.

use std::io::BufRead;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, io};

use handoff::{SpawnSpec, Supervisor};
use interop::json::Object;
use interop::lines::Conversation;
use interop::settings::{mark, milliseconds, own_pid, required_path, variable};
use interop::swapper::{Environment, Swapper};
use interop::timeline;

fn main() -> ExitCode {
    let serving = env::args().nth(1).as_deref() == Some("serve");
    let ended = if serving { serve().map(|()| 0) } else { hand_off_once() };
    ended.map_or_else(
        |error| {
            eprintln!("rust-supervisor: {error}");
            ExitCode::from(3)
        },
        ExitCode::from,
    )
}

fn hand_off_once() -> Result<u8, String> {
    timeline::install();
    let mut supervisor = Supervisor::new(&required_path("HANDOFF_CONTROL_SOCKET")).map_err(text)?;
    if let Some(journal) = variable("HANDOFF_JOURNAL") {
        supervisor = supervisor.with_journal(PathBuf::from(journal));
    }
    if supervisor.resume_from_journal().map_err(text)?.is_some() {
        mark("supervisor-resume-from-journal", &own_pid());
    }
    let mut spec = SpawnSpec::new(required_path("HANDOFF_PRIMITIVE_BINARY"));
    spec.env = vec![
        ("HANDOFF_CRASH_AT".into(), variable("HANDOFF_CRASH_AT_FOR_N").unwrap_or_default()),
        ("HANDOFF_CRASH_ROLE".into(), "successor".into()),
    ];
    spec.deadline = milliseconds("HANDOFF_TEST_DEADLINE_MS", 60_000);
    spec.drain_grace = milliseconds("HANDOFF_TEST_DRAIN_GRACE_MS", 30_000);
    let outcome = supervisor.perform_handoff(spec).map_err(text)?;
    if outcome.committed {
        mark("supervisor-committed", &own_pid());
        return Ok(0);
    }
    let reason = outcome.abort_reason.unwrap_or_default();
    eprintln!("rust-supervisor: aborted: {reason}");
    mark("supervisor-aborted", &reason);
    Ok(2)
}

fn serve() -> Result<(), String> {
    let mut conversation = Conversation::take().map_err(text)?;
    timeline::install();
    let address = variable("INTEROP_LISTEN").unwrap_or_else(|| "127.0.0.1:0".into());
    let listener = TcpListener::bind(&address).map_err(|error| format!("{address}: {error}"))?;
    let bound = listener.local_addr().map_err(text)?.to_string();
    let journal = variable("HANDOFF_JOURNAL").map(PathBuf::from);
    let mut swapper = Swapper::new(&required_path("HANDOFF_CONTROL_SOCKET"), listener, journal).map_err(text)?;
    swapper.deadline = milliseconds("HANDOFF_TEST_DEADLINE_MS", 60_000);
    swapper.drain_grace = milliseconds("HANDOFF_TEST_DRAIN_GRACE_MS", 25_000);
    conversation.say(&Object::event("listening").text("address", &bound));
    let first = words_of(&variable("INTEROP_INCUMBENT_ENV").unwrap_or_default());
    match swapper.start_cold(&required_path("HANDOFF_PRIMITIVE_BINARY"), &environment("primitive", &first)) {
        Ok(pid) => conversation.say(&Object::event("started").pid("pid", Some(pid))),
        Err(error) => {
            swapper.stop();
            return Err(error);
        }
    }
    if take_commands(&mut conversation, &mut swapper).map_err(text)? {
        swapper.stop();
    }
    conversation.say(&Object::event("ended"));
    Ok(())
}

/// Carries commands out until the last; true when the daemon is to be stopped.
fn take_commands(conversation: &mut Conversation, swapper: &mut Swapper) -> io::Result<bool> {
    loop {
        let mut line = String::new();
        if conversation.commands.read_line(&mut line)? == 0 {
            return Ok(true);
        }
        let words = words_of(&line);
        match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            [] => {}
            ["quit"] => return Ok(false),
            ["quit", "stop"] => return Ok(true),
            ["swap", binary, ..] => {
                let swap = swapper.swap(Path::new(binary), environment("successor", &words[2..]));
                conversation.say(&swap.object());
            }
            _ => conversation.say(&Object::event("refused").text("error", &format!("no such command: {line:?}"))),
        }
    }
}

fn words_of(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn environment(crash_role: &str, words: &[String]) -> Environment {
    let own = [("HANDOFF_CRASH_AT", ""), ("HANDOFF_CRASH_ROLE", crash_role)];
    let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let told = words.iter().filter_map(|word| word.split_once('='));
    own.into_iter().chain(told.map(|(name, value)| (name.to_owned(), value.to_owned()))).collect()
}

fn text(error: impl ToString) -> String {
    error.to_string()
}
