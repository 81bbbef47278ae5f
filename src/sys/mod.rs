//! System calls as safe functions, one concern per file. Who may call them: anyone.

pub mod cpu;
pub mod process;
pub mod socket;
