//! Which CPUs a thread may run on.

use std::io;

use rustix::thread::{CpuSet, sched_setaffinity};

/// Keeps the calling thread, and every thread it starts from now on, on `cpus`.
///
/// Fails when none of them is online and allowed, or when a number is beyond what the kernel's mask
/// holds.
pub fn pin(cpus: &[u32]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for &cpu in cpus {
        let cpu = cpu as usize;
        if cpu >= CpuSet::MAX_CPU {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("CPU {cpu} is beyond {}", CpuSet::MAX_CPU - 1),
            ));
        }
        set.set(cpu);
    }
    Ok(sched_setaffinity(None, &set)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_stays_where_it_is_pinned() {
        std::thread::spawn(|| {
            let before = rustix::thread::sched_getaffinity(None).unwrap();
            let cpu = (0..CpuSet::MAX_CPU)
                .find(|&cpu| before.is_set(cpu))
                .unwrap();
            pin(&[cpu as u32]).unwrap();
            let after = rustix::thread::sched_getaffinity(None).unwrap();
            assert_eq!((after.count(), after.is_set(cpu)), (1, true));
        })
        .join()
        .unwrap();
    }

    #[test]
    fn an_absurd_cpu_is_an_error() {
        assert!(pin(&[u32::MAX]).is_err());
    }
}
