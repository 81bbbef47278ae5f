//! What memory is free right now, what limits it, and what this process has.

use std::path::{Path, PathBuf};

pub use crate::sys::usage::Usage;
use crate::sys::{cgroup, kernel_file};

/// A limit of the first version of control groups that is none: it is as large as an address space.
const NO_LIMIT: u64 = 1 << 60;

/// What a new program could have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes that it could have without swapping or being killed.
    pub free: u64,
    /// What sets the bound.
    pub bound: Bound,
    /// Bytes of RAM, or of the narrowest limit above us.
    pub whole: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bound {
    /// `MemAvailable` of the machine.
    Machine,
    /// The limit of this control group.
    Group(PathBuf),
}

/// What there is room for. 0 where the kernel does not say.
pub fn room() -> Room {
    let groups = cgroup::ancestors("memory");
    let limited = groups.iter().filter_map(|folder| read_group(folder));
    let all: Vec<_> = std::iter::once(machine()).chain(limited).collect();
    let whole = all.iter().map(|room| room.whole).min().unwrap_or(0);
    all.into_iter().min_by_key(|room| room.free).map_or(
        Room {
            free: 0,
            bound: Bound::Machine,
            whole,
        },
        |room| Room { whole, ..room },
    )
}

/// Bytes that new programs can have without swapping: `MemAvailable` of `/proc/meminfo`. 0 where
/// the kernel does not say.
pub fn available() -> u64 {
    machine().free
}

/// What the machine has, whatever the limits of control groups. 0 where the kernel does not say.
fn machine() -> Room {
    let meminfo = kernel_file::read(Path::new("/proc/meminfo")).unwrap_or_default();
    Room {
        free: field(&meminfo, "MemAvailable:"),
        bound: Bound::Machine,
        whole: field(&meminfo, "MemTotal:"),
    }
}

/// What this process has.
pub fn own() -> Usage {
    Usage::own()
}

/// A size of `/proc/meminfo`, which has KiB.
fn field(meminfo: &str, name: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next())
        .and_then(|kib| kib.parse::<u64>().ok())
        .map_or(0, |kib| kib.saturating_mul(1024))
}

/// What a group's limit leaves; `None` without a limit. Pages of files count as free: they can be
/// evicted.
fn read_group(folder: &Path) -> Option<Room> {
    let number = |name: &str| {
        kernel_file::read(&folder.join(name))
            .ok()?
            .trim()
            .parse::<u64>()
            .ok()
    };
    let stat = kernel_file::read(&folder.join("memory.stat")).ok()?;
    let limits = ["memory.max", "memory.high", "memory.limit_in_bytes"]
        .into_iter()
        .filter_map(number);
    let limit = limits.min().filter(|limit| *limit < NO_LIMIT)?;
    let used = number("memory.current").or_else(|| number("memory.usage_in_bytes"))?;
    Some(left(limit, used, &stat, folder))
}

fn left(limit: u64, used: u64, stat: &str, folder: &Path) -> Room {
    // The first version counts the groups below in the fields that begin with `total_`.
    let line = |name: &str| {
        stat.lines().find_map(|line| {
            line.strip_prefix(name)?
                .strip_prefix(' ')?
                .trim()
                .parse::<u64>()
                .ok()
        })
    };
    let evictable: u64 = ["active_file", "inactive_file"]
        .into_iter()
        .filter_map(|name| line(&format!("total_{name}")).or_else(|| line(name)))
        .sum();
    Room {
        free: limit.saturating_sub(used.saturating_sub(evictable)),
        bound: Bound::Group(folder.to_owned()),
        whole: limit,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use sysinfo::{MemoryRefreshKind, System};

    use super::*;

    #[test]
    fn reads_the_kernels_lines() {
        let text = "MemTotal: 8000 kB\nMemFree: 1 kB\nMemAvailable:    4096 kB\n";
        assert_eq!(
            (field(text, "MemAvailable:"), field(text, "MemTotal:")),
            (4096 * 1024, 8000 * 1024)
        );
        assert_eq!(field("MemTotal: 8000 kB\n", "MemAvailable:"), 0);
        let room = room();
        assert!(
            room.free > 0 && room.free <= room.whole,
            "this kernel says what is free: {room:?}"
        );
    }

    /// Against sysinfo, which reads the machine on its own. Other programs take and free memory all the
    /// time, so ours is compared with a reading before it and one after it.
    #[test]
    fn the_machines_memory_is_what_sysinfo_says() {
        /// What may change and change back between two readings.
        const SLACK: u64 = 32 << 20;
        let mut system = System::new();
        let mut theirs = || {
            system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
            (system.total_memory(), system.available_memory())
        };
        let (total, before) = theirs();
        let ours = available();
        let (_, after) = theirs();
        let least = before.min(after).saturating_sub(SLACK);
        let most = before.max(after) + SLACK;
        assert!(
            (least..=most).contains(&ours),
            "{least} <= {ours} <= {most}"
        );
        assert_eq!(machine().whole, total);
    }

    #[test]
    fn what_can_be_evicted_is_free() {
        let v2 = "anon 100\nfile 500\nactive_file 200\ninactive_file 250\n";
        assert_eq!(left(1000, 700, v2, Path::new("/g")).free, 1000 - 250);
        let v1 = "active_file 1\ninactive_file 1\ntotal_active_file 200\ntotal_inactive_file 250\n";
        assert_eq!(left(1000, 700, v1, Path::new("/g")).free, 1000 - 250);
        assert_eq!(left(1000, 2000, "", Path::new("/g")).free, 0);
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read_group(folder.path()), None);
        for (name, text) in [
            ("memory.max", "max\n"),
            ("memory.current", "700\n"),
            ("memory.stat", v2),
        ] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        assert_eq!(read_group(folder.path()), None);
        fs::write(folder.path().join("memory.high"), "900\n").unwrap();
        assert_eq!(read_group(folder.path()).unwrap().free, 900 - 250);
    }
}
