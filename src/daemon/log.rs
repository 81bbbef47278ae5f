//! Log lines on standard error, where the journal picks them up. Never a prompt, never an answer.

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{fmt, reload};

use crate::config::Log;

/// Changes the level while the daemon runs.
pub type Handle = reload::Handle<LevelFilter, tracing_subscriber::Registry>;

/// Starts logging.
pub fn start(config: &Log) -> Handle {
    let (level, handle) = reload::Layer::new(level(config));
    let terminal = std::io::stderr().is_terminal();
    // The journal has its own clock.
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(terminal).without_time().with_target(true);
    tracing_subscriber::registry().with(level).with(lines).init();
    handle
}

/// The level that the configuration names; the loader has checked it.
pub fn level(config: &Log) -> LevelFilter {
    config.level.parse().unwrap_or(LevelFilter::INFO)
}
