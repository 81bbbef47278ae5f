//! The supervisor.

fn main() -> std::process::ExitCode {
    gemmad::daemon::main()
}
