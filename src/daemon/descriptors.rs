//! File descriptors: how many there may be, and how many connections that leaves room for.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Limits;

/// What all but connections need: sockets, the bus, workers and their files, files on their way, and
/// the decoded media of 144 requests, which are as many as there can be (`attachments/decoder`).
const KEPT: u64 = 128 + 144;
/// More than this is never asked for: whatever goes through all descriptors would take long.
const MOST: u64 = 1 << 18;
/// Front doors, each of which has `connections`; one over D-Bus has two descriptors.
const DOORS: u64 = 3;
/// A quota lets administrators have an eighth more than its limit.
const WITH_RESERVE: (u64, u64) = (9, 8);

/// Raises the soft limit as far as it is of use, and lowers `connections` where the hard limit is
/// too small for them (systemd's default for the soft one is 1,024).
pub fn provide(limits: &mut Limits) {
    let wanted = needed(limits.connections.into()).min(MOST);
    let given = raise(wanted);
    let connections = fitting(given).min(limits.connections.into()) as u32;
    if connections < limits.connections {
        tracing::warn!(
            descriptors = given,
            connections,
            "the limit of open files (LimitNOFILE=, `ulimit -Hn`) leaves room for fewer connections than configured"
        );
        limits.connections = connections;
        limits.connections_per_user = limits.connections_per_user.min(connections);
    }
}

/// Descriptors for so many connections at each door.
fn needed(connections: u64) -> u64 {
    KEPT + DOORS * (connections * WITH_RESERVE.0).div_ceil(WITH_RESERVE.1)
}

/// Connections at each door for which so many descriptors are enough; one at least.
fn fitting(descriptors: u64) -> u64 {
    let each = descriptors.saturating_sub(KEPT) / DOORS;
    (each * WITH_RESERVE.1 / WITH_RESERVE.0).max(1)
}

/// Sets the soft limit to `wanted`, or as near to it as the hard one allows; says what holds now.
fn raise(wanted: u64) -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let current = current.unwrap_or(u64::MAX);
    let target = wanted.min(maximum.unwrap_or(u64::MAX));
    if current >= target {
        return current;
    }
    let raised = Rlimit {
        current: Some(target),
        maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => target,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files cannot be raised");
            current
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_and_descriptors_fit_each_other() {
        assert!(needed(2048) < 1 << 13);
        for descriptors in [0, KEPT, 200, 1024, 4096, MOST] {
            let connections = fitting(descriptors);
            assert!(connections >= 1);
            assert!(
                connections == 1 || needed(connections) <= descriptors,
                "{descriptors}"
            );
        }
        assert_eq!(fitting(1024), 222);
    }
}
