//! The control groups that this process is in (cgroups(7)), of both versions.

use std::path::{Path, PathBuf};

use super::kernel_file;

/// Where the control groups are mounted.
const MOUNT: &str = "/sys/fs/cgroup";

/// The folders of all groups above this process that have a say on what `controller` governs
/// (`memory`, `cpu`), each version's narrowest first. Empty where the kernel does not say.
pub fn ancestors(controller: &str) -> Vec<PathBuf> {
    folders(
        &kernel_file::read(Path::new("/proc/self/cgroup")).unwrap_or_default(),
        controller,
    )
}

/// [`ancestors`], by the lines of `/proc/self/cgroup`. A group of version 2 has every controller,
/// each of version 1 a mount of its own.
fn folders(membership: &str, controller: &str) -> Vec<PathBuf> {
    let groups = membership.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let root = match controllers {
            "" => PathBuf::from(MOUNT),
            many if many.split(',').any(|one| one == controller) => {
                Path::new(MOUNT).join(controller)
            }
            _ => return None,
        };
        Some((root, Path::new(path.trim_start_matches('/'))))
    });
    groups
        .flat_map(|(root, group)| group.ancestors().map(move |folder| root.join(folder)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_above_us_counts() {
        let membership =
            "12:memory:/system.slice/gemmad.service\n3:cpu,cpuacct:/x\n0::/user.slice\n";
        let memory = [
            "/sys/fs/cgroup/memory/system.slice/gemmad.service",
            "/sys/fs/cgroup/memory/system.slice",
            "/sys/fs/cgroup/memory/",
            "/sys/fs/cgroup/user.slice",
            "/sys/fs/cgroup/",
        ];
        assert_eq!(folders(membership, "memory"), memory.map(PathBuf::from));
        let cpu = [
            "/sys/fs/cgroup/cpu/x",
            "/sys/fs/cgroup/cpu/",
            "/sys/fs/cgroup/user.slice",
            "/sys/fs/cgroup/",
        ];
        assert_eq!(folders(membership, "cpu"), cpu.map(PathBuf::from));
        assert!(folders("nonsense\n1:cpuset:/a\n", "cpu").is_empty());
    }
}
