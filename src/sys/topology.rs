//! The CPUs this process may use, as the kernel tells.

use std::fs;
use std::path::{Path, PathBuf};

use super::cgroup;

/// One CPU that the daemon may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpu {
    pub id: u32,
    /// CPUs with the same number are hardware threads of one core.
    pub core: u32,
    /// Speed relative to the fastest core of the machine, which has 1024 (the kernel's
    /// `cpu_capacity`).
    pub capacity: u32,
}

/// What the machine and the cgroup allow.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Topology {
    pub cpus: Vec<Cpu>,
    /// CPU time per time, from the cgroup; `None` is without limit.
    pub quota: Option<f64>,
}

/// What is known of the machine's CPUs; unreadable facts take the value that harms least.
pub fn probe() -> Topology {
    let allowed = allowed_cpus();
    let frequencies: Vec<Option<u64>> = allowed
        .iter()
        .map(|id| read_number(&cpu_file(*id, "cpufreq/cpuinfo_max_freq")))
        .collect();
    let fastest = frequencies.iter().flatten().copied().max();
    let cpus = allowed.iter().zip(frequencies).map(|(&id, frequency)| {
        let by_frequency = fastest
            .zip(frequency)
            .and_then(|(fastest, mine)| (mine * 1024).checked_div(fastest));
        let capacity = read_number(&cpu_file(id, "cpu_capacity"))
            .or(by_frequency)
            .unwrap_or(1024);
        // The first CPU of the list of siblings names the core, on every package.
        let siblings =
            fs::read_to_string(cpu_file(id, "topology/thread_siblings_list")).unwrap_or_default();
        let core = siblings
            .split([',', '-'])
            .next()
            .and_then(|first| first.trim().parse().ok())
            .unwrap_or(id);
        Cpu {
            id,
            core,
            capacity: capacity.min(1024) as u32,
        }
    });
    Topology {
        cpus: cpus.collect(),
        quota: quota(),
    }
}

/// The CPUs of this process's affinity mask.
fn allowed_cpus() -> Vec<u32> {
    match rustix::thread::sched_getaffinity(None) {
        Ok(set) => (0..rustix::thread::CpuSet::MAX_CPU)
            .filter(|id| set.is_set(*id))
            .map(|id| id as u32)
            .collect(),
        Err(_) => vec![0],
    }
}

fn cpu_file(id: u32, name: &str) -> PathBuf {
    PathBuf::from(format!("/sys/devices/system/cpu/cpu{id}/{name}"))
}

fn read_number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// CPU time per time that the tightest cgroup above us allows; both versions of cgroups.
fn quota() -> Option<f64> {
    cgroup::ancestors("cpu")
        .iter()
        .filter_map(|folder| group_quota(folder))
        .min_by(f64::total_cmp)
}

fn group_quota(dir: &Path) -> Option<f64> {
    if let Ok(max) = fs::read_to_string(dir.join("cpu.max")) {
        let (quota, period) = max.trim().split_once(' ')?;
        return Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?);
    }
    let quota = fs::read_to_string(dir.join("cpu.cfs_quota_us"))
        .ok()?
        .trim()
        .parse::<f64>()
        .ok()
        .filter(|q| *q > 0.0)?;
    Some(quota / read_number(&dir.join("cpu.cfs_period_us"))? as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_cpu() {
        let topology = probe();
        assert!(!topology.cpus.is_empty());
        assert!(
            topology
                .cpus
                .iter()
                .all(|cpu| (1..=1024).contains(&cpu.capacity))
        );
    }

    #[test]
    fn limits_are_read() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("cpu.max"), "max 100000\n").unwrap();
        assert_eq!(group_quota(dir.path()), None);
        fs::write(dir.path().join("cpu.max"), "150000 100000\n").unwrap();
        assert_eq!(group_quota(dir.path()), Some(1.5));
    }
}
