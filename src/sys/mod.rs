//! One safe function per system call that std and tokio do not have. With `worker/llama`, the only home of `unsafe`.

pub mod cpu;
pub mod folders;
pub mod landlock;
pub mod map;
pub mod pagemap;
pub mod pages;
pub mod passed;
pub mod process;
pub mod socket;
pub mod space;
pub mod topology;
pub mod trigger;
pub mod usage;
pub mod violation;
