//! On which CPUs a worker runs. Pure.
//!
//! ggml gives every thread the same share of each matrix, so a thread on a slow core holds all
//! others back, two threads on one core share what one could use, and more threads than the quota
//! pays for use it up before the period is over, when the kernel puts all of them to sleep. So a
//! quota counts in whole CPUs, rounded down.

use crate::sys::topology::{Cpu, Topology};

/// Cores slower than this share of the fastest are left to other programs: the LITTLE cores of
/// big.LITTLE.
const BIG_CORE: f64 = 0.7;

/// The CPUs for a worker's threads, one thread each, fastest first. `wanted` 0 takes what is best;
/// another number is honoured as far as there are CPUs. Never empty.
pub fn choose(topology: &Topology, wanted: u32) -> Vec<u32> {
    let mut cpus = topology.cpus.clone();
    cpus.sort_by_key(|cpu| (std::cmp::Reverse(cpu.capacity), cpu.id));
    let fastest = cpus.first().map_or(0, |cpu| cpu.capacity);
    // One thread of each core first, the hardware's second threads after all of those.
    let mut seen = std::collections::BTreeSet::new();
    let (first, second): (Vec<&Cpu>, Vec<&Cpu>) =
        cpus.iter().partition(|cpu| seen.insert(cpu.core));
    let ids = |cpus: &[&Cpu]| cpus.iter().map(|cpu| cpu.id).collect::<Vec<_>>();
    let mut chosen = if wanted == 0 {
        let big: Vec<&Cpu> = first
            .into_iter()
            .filter(|cpu| f64::from(cpu.capacity) >= BIG_CORE * f64::from(fastest))
            .collect();
        let mut ids = ids(&big);
        if let Some(quota) = topology.quota {
            ids.truncate(quota.max(1.0) as usize);
        }
        ids
    } else {
        let mut ids = [ids(&first), ids(&second)].concat();
        ids.truncate(wanted as usize);
        ids
    };
    if chosen.is_empty() {
        chosen.push(0);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(cpus: &[(u32, u32, u32)], quota: Option<f64>) -> Topology {
        Topology {
            cpus: cpus
                .iter()
                .map(|&(id, core, capacity)| Cpu { id, core, capacity })
                .collect(),
            quota,
        }
    }

    #[test]
    fn machines() {
        let pi5 = machine(
            &[(0, 0, 1024), (1, 1, 1024), (2, 2, 1024), (3, 3, 1024)],
            None,
        );
        let rk3588 = machine(
            &[
                (0, 0, 530),
                (1, 1, 530),
                (2, 2, 530),
                (3, 3, 530),
                (4, 4, 1024),
                (5, 5, 1024),
                (6, 6, 1010),
                (7, 7, 1010),
            ],
            None,
        );
        let smt = machine(
            &[(0, 0, 1024), (1, 0, 1024), (2, 1, 1024), (3, 1, 1024)],
            None,
        );
        let pinned = machine(&[(3, 3, 1024)], None);
        let table: [(&str, &Topology, u32, &[u32]); 7] = [
            ("all equal", &pi5, 0, &[0, 1, 2, 3]),
            ("big cores only", &rk3588, 0, &[4, 5, 6, 7]),
            (
                "asked for more than the big ones",
                &rk3588,
                6,
                &[4, 5, 6, 7, 0, 1],
            ),
            ("one thread a core", &smt, 0, &[0, 2]),
            ("second threads when asked for", &smt, 3, &[0, 2, 1]),
            ("affinity", &pinned, 0, &[3]),
            ("never more than there are", &pinned, 9, &[3]),
        ];
        for (name, topology, wanted, expected) in table {
            assert_eq!(choose(topology, wanted), expected, "{name}");
        }
        assert_eq!(choose(&Topology::default(), 0), [0], "nothing known");
    }

    #[test]
    fn a_quota_is_rounded_down_to_whole_cpus() {
        let cores = [(0, 0, 1024), (1, 1, 1024), (2, 2, 1024), (3, 3, 1024)];
        for (quota, threads) in [
            (0.05, 1),
            (0.99, 1),
            (1.0, 1),
            (1.5, 1),
            (1.99, 1),
            (2.0, 2),
            (3.7, 3),
            (4.0, 4),
            (64.0, 4),
        ] {
            let chosen = choose(&machine(&cores, Some(quota)), 0);
            assert_eq!(chosen.len(), threads, "{quota}");
        }
        assert_eq!(choose(&machine(&cores, Some(1.5)), 3).len(), 3, "as asked");
    }
}
