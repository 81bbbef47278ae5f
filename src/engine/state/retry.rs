//! What becomes of the jobs that a worker leaves behind when it dies. Pure.

use crate::backend::Failure;
use crate::engine::queue::Job;

/// Workers that may die under a job before the job is given up.
pub const DEATHS_PER_JOB: u32 = 2;

/// A job that the worker has.
#[derive(Debug)]
pub struct Running {
    pub job: Job,
    /// The worker has said something of the answer.
    pub begun: bool,
    /// The client has seen something of it.
    pub shown: bool,
}

/// How a worker came to its end.
#[derive(Clone, Debug)]
pub struct Exit {
    pub cause: String,
    /// Memory is what was missing.
    pub of_memory: bool,
}

impl Exit {
    pub fn new(cause: String, of_memory: bool) -> Self {
        Self { cause, of_memory }
    }

    /// The failure of the answers that ended with the worker.
    pub fn failure(&self) -> Failure {
        let cause = self.cause.clone();
        if self.of_memory {
            Failure::OutOfMemory { cause }
        } else {
            Failure::WorkerDied { cause }
        }
    }
}

/// The jobs that are tried again, the last one first, and the ids of those that fail: what was
/// seen already, what has seen too many workers die, and everything while the daemon is `draining`.
/// `another`: a job that left the choice of its model to us may have another one instead.
pub fn split(
    lost: impl DoubleEndedIterator<Item = Running>,
    another: bool,
    draining: bool,
) -> (Vec<Job>, Vec<u64>) {
    let (mut again, mut fail) = (vec![], vec![]);
    for Running { mut job, shown, .. } in lost.rev() {
        job.deaths += 1;
        let spent = job.deaths >= DEATHS_PER_JOB && !(another && job.flexible);
        if shown || spent || draining {
            fail.push(job.id);
        } else {
            again.push(job);
        }
    }
    (again, fail)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::chat::{PrincipalId, ServiceTier};
    use crate::engine::queue::Kind;

    #[test]
    fn what_was_seen_or_died_too_often_fails() {
        for (deaths, shown, flexible, another, draining, is_retried) in [
            (0, false, false, false, false, true),
            (0, true, false, false, false, false),
            (0, false, false, false, true, false),
            (1, false, false, false, false, false),
            (1, false, true, false, false, false),
            (1, false, false, true, false, false),
            (1, false, true, true, false, true),
            (1, true, true, true, false, false),
        ] {
            let job = Job {
                id: 1,
                owner: PrincipalId::User(1),
                model: "m".into(),
                flexible,
                tier: ServiceTier::Default,
                reassigning: false,
                kind: Kind::Chat,
                since: Instant::now(),
                deadline: Instant::now(),
                deaths,
            };
            let running = Running {
                job,
                begun: true,
                shown,
            };
            let (again, fail) = split([running].into_iter(), another, draining);
            let case = (deaths, shown, flexible, another, draining);
            assert_eq!(
                (again.len() == 1, fail == [1]),
                (is_retried, !is_retried),
                "{case:?}"
            );
            assert!(again.iter().all(|job| job.deaths == deaths + 1));
        }
    }
}
