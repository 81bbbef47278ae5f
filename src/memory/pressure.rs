//! How short memory is, and being woken when programs begin to wait for it.
//!
//! The kernel says for how long programs have waited for memory (PSI,
//! `Documentation/accounting/psi.rst`), for the machine and for a control group of version 2, and
//! can be told when to wake us. Where it cannot, looking now and then has to do.

use std::path::{Path, PathBuf};

use super::probe::{self, Bound, Room};
use crate::sys::psi::PsiTrigger;
use crate::sys::{cgroup, kernel_file};

const MACHINE: &str = "/proc/pressure/memory";
/// When the kernel wakes us: some program has waited for so many microseconds out of so many. The second
/// one is what programs without CAP_SYS_RESOURCE may ask for, since Linux 6.5.
const TRIGGERS: [&str; 2] = ["some 100000 1000000", "some 200000 2000000"];

/// One look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    pub room: Room,
    /// Microseconds for which some program has waited for memory, on the machine and once more in
    /// our control group; counted from an unknown beginning.
    pub stalled: u64,
}

impl Reading {
    pub fn take() -> Self {
        let stalled = |path: &Path| kernel_file::read(path).map_or(0, |text| some_total(&text));
        let group = own_pressure().map_or(0, |path| stalled(&path));
        Self {
            room: probe::room(),
            stalled: stalled(Path::new(MACHINE)) + group,
        }
    }

    /// What is free, in words.
    pub fn words(&self) -> String {
        let free = self.room.free >> 20;
        match &self.room.bound {
            Bound::Machine => format!("{free} MiB of memory are available"),
            Bound::Group(group) => format!(
                "{free} MiB are left of the memory limit of {}",
                group.display()
            ),
        }
    }
}

/// Processes that the kernel has killed because memory ran out: in our control group, or on the
/// machine if there is none.
pub fn kills() -> u64 {
    let read = |path: PathBuf| kill_count(&kernel_file::read(&path).ok()?);
    let in_group = |group: &PathBuf| {
        read(group.join("memory.events")).or_else(|| read(group.join("memory.oom_control")))
    };
    cgroup::ancestors("memory")
        .iter()
        .find_map(in_group)
        .or_else(|| read("/proc/vmstat".into()))
        .unwrap_or(0)
}

/// `memory.events`, `memory.oom_control` and `/proc/vmstat` all have lines of a name and a number.
fn kill_count(text: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

/// Whose waiting for memory the kernel tells at once; all other is found by looking once a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Triggers {
    pub machine: bool,
    /// Our control group's.
    pub group: bool,
}

/// The kernel's triggers for the machine and for our control group. They cost nothing until they fire.
#[derive(Debug)]
pub struct PressureTrigger {
    machine: Option<PsiTrigger>,
    group: Option<PsiTrigger>,
}

impl PressureTrigger {
    /// Arms it wherever the kernel allows that. Needs tokio.
    pub fn arm() -> Self {
        Self {
            machine: trigger(Path::new(MACHINE)),
            group: own_pressure().and_then(|path| trigger(&path)),
        }
    }

    /// Which of them the kernel took.
    pub fn triggers(&self) -> Triggers {
        Triggers {
            machine: self.machine.is_some(),
            group: self.group.is_some(),
        }
    }

    /// Waits until one fires; for ever, where the kernel allows no triggers.
    pub async fn wait(&self) {
        tokio::select! {
            () = fired(self.machine.as_ref()) => {}
            () = fired(self.group.as_ref()) => {}
        }
    }
}

async fn fired(trigger: Option<&PsiTrigger>) {
    match trigger {
        Some(trigger) => trigger.wait().await,
        None => std::future::pending().await,
    }
}

/// Fires whenever programs have waited for long.
fn trigger(path: &Path) -> Option<PsiTrigger> {
    TRIGGERS
        .iter()
        .find_map(|threshold| PsiTrigger::arm(path, threshold).ok())
}

/// The pressure on our own control group, if that is of version 2.
fn own_pressure() -> Option<PathBuf> {
    cgroup::ancestors("memory")
        .into_iter()
        .map(|group| group.join("memory.pressure"))
        .find(|path| path.exists())
}

/// The time of the line `some`.
fn some_total(pressure: &str) -> u64 {
    let some = pressure.lines().find(|line| line.starts_with("some "));
    some.and_then(|line| line.rsplit_once("total=")?.1.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_lines() {
        let text = "some avg10=0.00 avg60=0.12 avg300=0.01 total=215061270\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=157109468\n";
        assert_eq!((some_total(text), some_total("")), (215_061_270, 0));
        assert_eq!(
            kill_count("low 0\nhigh 3\nmax 4\noom 2\noom_kill 1\noom_group_kill 0\n"),
            Some(1)
        );
        assert_eq!(
            kill_count("oom_kill_disable 0\nunder_oom 0\noom_kill 7\n"),
            Some(7)
        );
        assert_eq!(kill_count("nr_free_pages 5\n"), None);
        let reading = Reading::take();
        assert!(
            reading.room.free > 0 && reading.words().contains(" MiB "),
            "{reading:?}"
        );
    }

    #[tokio::test]
    async fn a_quiet_machine_fires_no_trigger() {
        let armed = PressureTrigger::arm();
        if !Path::new(MACHINE).exists() {
            crate::skip::skip(
                "a trigger that is quiet",
                format!("this kernel has no {MACHINE}"),
            );
            return;
        }
        assert!(
            armed.machine.is_some(),
            "the kernel takes one of the triggers"
        );
        // Another program may be in need right now; what must not happen is that it never
        // stops.
        let fires = async {
            for _ in 0..5 {
                armed.wait().await;
            }
        };
        assert!(
            tokio::time::timeout(std::time::Duration::from_millis(800), fires)
                .await
                .is_err()
        );
    }
}
