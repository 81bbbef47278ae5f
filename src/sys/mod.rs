//! System calls that std and tokio do not have, as safe functions, and what is made of a few of
//! them. With `worker/llama`, the only home of `unsafe`.

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
