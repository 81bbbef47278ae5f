//! What a process has in memory, as the kernel counts it.

/// Bytes, from `/proc/self/status`; see proc(5). 0 where the kernel does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Memory that no file stands behind: `RssAnon`.
    pub anonymous: u64,
    /// Files that are mapped and present: `RssFile`.
    pub file_backed: u64,
    /// The most that both ever were together: `VmHWM`.
    pub peak: u64,
    /// What cannot be evicted because it is locked: `VmLck`.
    pub locked: u64,
}

impl Usage {
    /// The calling process's.
    pub fn own() -> Self {
        Self::parse(&std::fs::read_to_string("/proc/self/status").unwrap_or_default())
    }

    fn parse(status: &str) -> Self {
        let bytes = |name: &str| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
                .map_or(0, |kib| kib << 10)
        };
        Self {
            anonymous: bytes("RssAnon"),
            file_backed: bytes("RssFile"),
            peak: bytes("VmHWM"),
            locked: bytes("VmLck"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_lines() {
        let status = "Name:\tgemmad\nVmLck:\t       4 kB\nVmHWM:\t    5512 kB\nRssAnon:\t     400 kB\nRssFile:\t    5000 kB\n";
        assert_eq!(
            Usage::parse(status),
            Usage {
                anonymous: 400 << 10,
                file_backed: 5000 << 10,
                peak: 5512 << 10,
                locked: 4 << 10
            }
        );
        assert_eq!(Usage::parse(""), Usage::default());
        assert!(Usage::own().anonymous > 0, "this kernel counts");
    }
}
