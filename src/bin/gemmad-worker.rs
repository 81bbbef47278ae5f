//! One model. The worker's code is this program's own: see `src/lib.rs`.

#[path = "../worker/mod.rs"]
mod worker;

use gemmad::{chat, gemma, ipc, sandbox, sys};

fn main() -> std::process::ExitCode {
    worker::main()
}
