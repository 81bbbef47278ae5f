//! One model in a process of its own; `gemmad` starts it.

fn main() -> std::process::ExitCode {
    gemmad::worker::main()
}
