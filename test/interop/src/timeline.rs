//! How long the phases of a handoff took, by the crate's own words.
//!
//! The crate tells its phases as `tracing` events and nothing else: `handoff.prepare`, `.drained`, ... with fields such as
//! `drain_seconds`. This is the smallest subscriber that keeps them. With INTEROP_TRACE=1 it prints every event to stderr;
//! without, warnings and errors only.

use std::fmt::{Debug, Write};
use std::sync::Mutex;
use std::time::Instant;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::settings;

static EVENTS: Mutex<Vec<Told>> = Mutex::new(Vec::new());

struct Told {
    at: Instant,
    target: &'static str,
    /// The event's one duration field, in seconds.
    seconds: Option<f64>,
}

/// The phases of one handoff, in milliseconds; what was not reached is missing.
#[derive(Default, Clone, Copy)]
pub struct Phases {
    /// From the start to PrepareHandoff: both greetings and the start of the successor.
    pub hello_and_spawn: Option<f64>,
    pub drain: Option<f64>,
    pub seal: Option<f64>,
    pub begin_to_ready: Option<f64>,
    /// From PrepareHandoff to Ready: nobody accepts.
    pub gap: Option<f64>,
}

struct Recorder {
    verbose: bool,
}

/// Starts to listen to the crate's events, for the life of the process.
pub fn install() {
    let verbose = settings::variable("INTEROP_TRACE").is_some();
    if tracing::subscriber::set_global_default(Recorder { verbose }).is_err() {
        eprintln!("another subscriber was there before");
    }
}

/// Forgets the events so far.
pub fn reset() {
    if let Ok(mut events) = EVENTS.lock() {
        events.clear();
    }
}

/// The phases told since the last `reset`, of a handoff that began at `start`.
pub fn phases(start: Instant) -> Phases {
    let Ok(events) = EVENTS.lock() else {
        return Phases::default();
    };
    let told = |target: &str| events.iter().find(|event| event.target == target);
    let took = |target: &str| told(target).and_then(|event| event.seconds).map(|seconds| seconds * 1e3);
    let prepare = told("handoff.prepare").map(|event| event.at);
    let ready = told("handoff.ready").map(|event| event.at);
    Phases {
        hello_and_spawn: prepare.map(|at| between(start, at)),
        drain: took("handoff.drained"),
        seal: took("handoff.seal_complete"),
        begin_to_ready: took("handoff.ready"),
        gap: prepare.zip(ready).map(|(from, to)| between(from, to)),
    }
}

/// Milliseconds.
pub fn between(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64() * 1e3
}

#[derive(Default)]
struct Fields {
    seconds: Option<f64>,
    text: String,
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.seconds = Some(value);
        self.record_debug(field, &value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.text, " {}={value:?}", field.name());
    }
}

impl Subscriber for Recorder {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let at = Instant::now();
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        if self.verbose || *metadata.level() <= Level::WARN {
            eprintln!("{} {}:{}", metadata.level(), metadata.target(), fields.text);
        }
        if let Ok(mut events) = EVENTS.lock() {
            events.push(Told { at, target: metadata.target(), seconds: fields.seconds });
        }
    }
}
