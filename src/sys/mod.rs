//! System calls that std and tokio do not have, as safe functions, and what is made of a few of
//! them. With `worker/llama`, the only home of `unsafe`.

pub mod accounts;
pub mod allocator;
pub mod cgroup;
pub mod cpu;
pub mod inotify;
pub mod interfaces;
pub mod kernel_file;
pub mod landlock;
pub mod listen_fds;
pub mod mapping;
pub mod mounts;
pub mod pagemap;
pub mod proc_maps;
pub mod process;
pub mod psi;
pub mod residency;
pub mod shortage;
pub mod sigsys;
pub mod socket;
pub mod topology;
pub mod usage;
pub mod write_timeout;
