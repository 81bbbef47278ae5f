//! Log lines: to the journal with a field for each value, where standard error leads there, else on
//! standard error. Never a prompt, never an answer.
//!
//! Names of files, models and users are other people's text. In the journal a value is a field of
//! its own, with its length; on standard error [`write_field`] keeps it from beginning a line,
//! which could look like another of ours or, as systemd reads `<3>`, be of another level.

use std::fmt::Debug;
use std::io::IsTerminal;

use tracing::Subscriber;
use tracing::field::Field;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{self, Format, Full, Writer};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{fmt, reload};

use crate::config::{AUDIT_TARGET, Log, one_line};

/// Changes the level while the daemon runs.
pub type Handle = reload::Handle<Targets, tracing_subscriber::Registry>;

/// Starts logging.
pub fn start(config: &Log) -> Handle {
    let (level, handle) = reload::Layer::new(level(config));
    // `request=7` becomes GEMMAD_REQUEST=7.
    let journal = leads_to_journal()
        .then(|| tracing_journald::layer().ok())
        .flatten()
        .map(|layer| layer.with_field_prefix(Some("GEMMAD".into())));
    let lines = journal.is_none().then(|| {
        let terminal = std::io::stderr().is_terminal();
        lines(terminal).with_writer(std::io::stderr)
    });
    tracing_subscriber::registry()
        .with(level)
        .with(journal)
        .with(lines)
        .init();
    handle
}

/// Log lines for standard error; what reads them has its own clock.
fn lines<S>(terminal: bool) -> fmt::Layer<S, impl for<'w> FormatFields<'w>, Format<Full, ()>>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fmt::layer()
        .with_ansi(terminal)
        .without_time()
        .with_target(true)
        .fmt_fields(format::debug_fn(write_field).delimited(" "))
}

/// Whether standard error is the stream that systemd named (`JOURNAL_STREAM` in systemd.exec(5)).
fn leads_to_journal() -> bool {
    let named = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    rustix::fs::fstat(std::io::stderr())
        .is_ok_and(|stat| named == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// The level that the configuration names; the loader has checked it.
pub fn level(config: &Log) -> Targets {
    let level = config.level.parse().unwrap_or(LevelFilter::INFO);
    // zbus would tell of every message.
    Targets::new()
        .with_default(level)
        .with_target("zbus", level.min(LevelFilter::WARN))
        // Whoever wants no lines of requests says so under [audit].
        .with_target(AUDIT_TARGET, LevelFilter::INFO)
}

/// Writes a value so that it stays in its line, with its name unless it is the message.
fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> std::fmt::Result {
    let value = format!("{value:?}");
    let value = one_line(&value);
    match (field.name(), writer.has_ansi_escapes()) {
        ("message", _) => writer.write_str(&value),
        (name, false) => write!(writer, "{name}={value}"),
        (name, true) => write!(writer, "\u{1b}[3m{name}\u{1b}[0m\u{1b}[2m=\u{1b}[0m{value}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written of an event in which somebody's text stands everywhere.
    fn written(terminal: bool) -> String {
        let (read, write) = std::io::pipe().unwrap();
        let lines = lines(terminal).with_writer(move || write.try_clone().unwrap());
        let subscriber = tracing_subscriber::registry().with(lines);
        tracing::subscriber::with_default(subscriber, || {
            let name = "x\n<3>gemmad: evil\r\u{1b}[2K\u{9b}";
            tracing::warn!(file = %name, model = name, debug = ?name, "not a model: {name}");
        });
        std::io::read_to_string(read).unwrap()
    }

    #[test]
    fn a_name_cannot_begin_a_line() {
        let plain = written(false);
        assert_eq!(plain.matches('\n').count(), 1, "{plain:?}");
        assert!(!plain.trim_end_matches('\n').contains(char::is_control));
        assert_eq!(plain.matches("x\\n<3>gemmad: evil").count(), 4, "{plain}");
        assert!(plain.contains(" file=x"), "{plain}");
        let coloured = written(true);
        assert_eq!(coloured.matches('\n').count(), 1, "{coloured:?}");
        assert!(!coloured.contains("\u{1b}[2K"), "{coloured:?}");
        assert!(coloured.contains("\u{1b}["), "{coloured:?}");
    }
}
