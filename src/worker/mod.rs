//! worker

pub mod prompt;
