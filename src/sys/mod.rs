//! sys

pub mod map;
