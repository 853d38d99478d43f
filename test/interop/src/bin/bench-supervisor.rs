//! Swaps a daemon for itself again and again, and prints what each swap took, one line of JSON each, in milliseconds.
//!
//! `bench-supervisor --dir DIRECTORY [--swaps 500] [--warm-up 20] [--journal] [--daemon PROGRAM]`
//!
//! Socket, data and journal lie in DIRECTORY, so it decides the file system. The daemon is bench-daemon beside this program
//! unless another is named. A swap's time is that of the crate's `perform_handoff`; the time in which the successor's socket
//! comes up and the predecessor ends lies between two swaps and is told apart, as `settled_ms`.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::{env, fs};

use interop::json::Object;
use interop::lines::Conversation;
use interop::swapper::Swapper;
use interop::timeline;

struct Plan {
    directory: PathBuf,
    daemon: PathBuf,
    swaps: u32,
    warm_up: u32,
    journal: bool,
}

fn main() -> ExitCode {
    match plan().and_then(|plan| run(&plan)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-supervisor: {error}");
            ExitCode::FAILURE
        }
    }
}

fn plan() -> Result<Plan, String> {
    let beside = env::current_exe().map_err(|error| error.to_string())?.with_file_name("bench-daemon");
    let mut plan = Plan { directory: PathBuf::new(), daemon: beside, swaps: 500, warm_up: 20, journal: false };
    let mut arguments = env::args().skip(1);
    while let Some(flag) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{flag} needs a value"));
        match flag.as_str() {
            "--dir" => plan.directory = value()?.into(),
            "--daemon" => plan.daemon = value()?.into(),
            "--swaps" => plan.swaps = value()?.parse().map_err(|_| "--swaps is no number")?,
            "--warm-up" => plan.warm_up = value()?.parse().map_err(|_| "--warm-up is no number")?,
            "--journal" => plan.journal = true,
            _ => return Err(format!("no such flag: {flag}")),
        }
    }
    if plan.directory.as_os_str().is_empty() { Err("--dir is missing".into()) } else { Ok(plan) }
}

fn run(plan: &Plan) -> Result<(), String> {
    let mut conversation = Conversation::take().map_err(|error| error.to_string())?;
    timeline::install();
    let data_dir = plan.directory.join("data");
    fs::create_dir_all(&data_dir).map_err(|error| format!("{}: {error}", data_dir.display()))?;
    let socket = plan.directory.join("control.sock");
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    let journal = plan.journal.then(|| plan.directory.join("journal.bin"));
    let mut swapper = Swapper::new(&socket, listener, journal).map_err(|error| error.to_string())?;
    let environment: Vec<(String, String)> = [("HANDOFF_CONTROL_SOCKET", &socket), ("HANDOFF_DATA_DIR", &data_dir)]
        .map(|(name, path)| (name.to_owned(), path.display().to_string()))
        .into();
    let result = swapper.start_cold(&plan.daemon, &environment).and_then(|_| {
        for round in 0..plan.warm_up + plan.swaps {
            let swap = swapper.swap(&plan.daemon, environment.clone());
            if !swap.committed || swap.aftermath.is_some() {
                return Err(format!("swap {round} failed: {}", swap.object().line()));
            }
            if round >= plan.warm_up {
                conversation.say(&swap.object());
            }
        }
        Ok(())
    });
    swapper.stop();
    conversation.say(&Object::event("ended"));
    result
}
