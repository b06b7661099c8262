//! Log records go to standard error: standard output is for what was asked for. One record is one
//! line, whatever text from outside it has in it.

use std::io::{self, Write};

use anstream::{AutoStream, ColorChoice};
use tracing_subscriber::{filter::LevelFilter, fmt};

use crate::{
    config::{Format, Level, Log},
    text::{one_line, styled},
};

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
        .with_writer(|| Records(io::stderr()))
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

/// Takes one record with each write.
struct Records<W>(W);

impl<W: Write> Write for Records<W> {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(record);
        let text = text.strip_suffix('\n').unwrap_or(&text);
        self.0.write_all(shown(text).as_bytes())?;
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn shown(record: &str) -> String {
    styled(record, one_line) + "\n"
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::subscriber::with_default;

    use super::*;

    #[derive(Clone, Debug, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_record_is_one_line_whatever_is_in_it() {
        let forged = "down\n2026-11-30T00:00:00Z  INFO undone\x1b[2J\u{9b}2J";
        for (json, ansi) in [(true, false), (false, false), (false, true)] {
            let sink = Sink::default();
            let writer = sink.clone();
            let builder = fmt()
                .with_ansi(ansi)
                .with_writer(move || Records(writer.clone()));
            let log = || {
                tracing::warn!(status = %forged, list = ?[forged], "the agent answers {forged}");
            };
            match json {
                true => with_default(builder.json().finish(), log),
                false => with_default(builder.finish(), log),
            }
            let text = String::from_utf8(sink.0.lock().expect("no panic").clone()).expect("text");
            assert_eq!(text.lines().count(), 1, "{text}");
            let text = text.trim_end();
            assert!(
                !text.contains("\x1b[2J") && !text.contains('\u{9b}'),
                "{text}"
            );
            if json {
                serde_json::from_str::<serde_json::Value>(text).expect("JSON");
            }
        }
    }
}
