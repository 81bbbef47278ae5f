//! What is free right now, and what this process has.

pub use crate::sys::usage::Usage;

/// Bytes that new programs can have without swapping: `MemAvailable` of `/proc/meminfo`. 0 where the kernel
/// does not say.
pub fn available() -> u64 {
    std::fs::read_to_string("/proc/meminfo").map_or(0, |text| mem_available(&text))
}

/// What this process has.
pub fn own() -> Usage {
    Usage::own()
}

fn mem_available(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    line.and_then(|rest| rest.split_whitespace().next()).and_then(|kib| kib.parse::<u64>().ok()).map_or(0, |kib| kib.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_line() {
        assert_eq!(mem_available("MemTotal: 8000 kB\nMemFree: 1 kB\nMemAvailable:    4096 kB\n"), 4096 * 1024);
        assert_eq!(mem_available("MemTotal: 8000 kB\n"), 0);
        assert!(available() > 0, "this kernel has MemAvailable");
    }
}
