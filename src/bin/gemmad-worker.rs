//! One model. The worker's code is this program's own: see `src/lib.rs`.

#[path = "../worker/mod.rs"]
mod worker;

use gemmad::{chat, gemma, ipc, sandbox, sys};

/// What was said must not stay behind in memory that was given back.
#[global_allocator]
static WIPING: zeroizing_alloc::ZeroAlloc<std::alloc::System> =
    zeroizing_alloc::ZeroAlloc(std::alloc::System);

fn main() -> std::process::ExitCode {
    worker::main()
}
