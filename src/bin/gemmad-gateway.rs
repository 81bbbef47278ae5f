//! The gateway: TLS and TCP for the daemon's socket.

/// What was said must not stay behind in memory that was given back.
#[global_allocator]
static WIPING: zeroizing_alloc::ZeroAlloc<std::alloc::System> =
    zeroizing_alloc::ZeroAlloc(std::alloc::System);

fn main() -> std::process::ExitCode {
    gemmad::gateway::main()
}
