//! Log lines: to the journal with a field for each value, where standard error leads there, else on
//! standard error. Never a prompt, never an answer.

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{fmt, reload};

use crate::config::Log;

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
    let terminal = std::io::stderr().is_terminal();
    // The journal has its own clock.
    let lines = journal.is_none().then(|| {
        fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(terminal)
            .without_time()
            .with_target(true)
    });
    tracing_subscriber::registry()
        .with(level)
        .with(journal)
        .with(lines)
        .init();
    handle
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
}
