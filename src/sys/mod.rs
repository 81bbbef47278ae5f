//! One safe function per system call that std and tokio do not have. With `worker/llama`, the only home of `unsafe`.

pub mod map;
pub mod passed;
pub mod socket;
pub mod topology;
