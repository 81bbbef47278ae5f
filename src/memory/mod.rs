//! What memory is free, and what fits into it.

pub mod fit;
pub mod probe;
