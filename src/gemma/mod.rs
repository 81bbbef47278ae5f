//! gemma

pub mod variant;
