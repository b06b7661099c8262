//! Log records go to standard error: standard output is for what was asked for.

use std::io;

use anstream::{AutoStream, ColorChoice};
use tracing_subscriber::{filter::LevelFilter, fmt};

use crate::config::{Format, Level, Log};

/// Begins to log as configured, the records of libraries and of the probes too. A panic is
/// a record like every other.
pub fn start_for_a_daemon(log: Log) {
    start(log);
    std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
}

/// Begins to log as configured.
fn start(log: Log) {
    let builder = fmt()
        .with_max_level(level(log.level))
        .with_writer(io::stderr)
        .with_ansi(AutoStream::choice(&io::stderr()) != ColorChoice::Never)
        .with_target(false);
    // It fails only if logging has begun already.
    let _ = match log.format {
        Format::Text => builder.try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
}

/// Logging of the verbs whose output a person reads: what went wrong, no more.
pub fn for_a_person() {
    start(Log {
        level: Level::Error,
        format: Format::Text,
    });
}

fn level(level: Level) -> LevelFilter {
    match level {
        Level::Off => LevelFilter::OFF,
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    }
}
