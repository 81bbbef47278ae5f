//! What memory is free, what fits into it, and how short it is.

pub mod fit;
pub mod pressure;
pub mod probe;
pub mod reserved;
