//! gemmactl: asks gemmad from the command line.

fn main() -> std::process::ExitCode {
    gemmad::ctl::main()
}
