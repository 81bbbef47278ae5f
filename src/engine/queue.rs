//! The queue of jobs, and whose turn is next. Pure.
//!
//! Each user has a lane of jobs, first come first served; the lanes take turns. A user with a
//! hundred waiting requests so delays another user's single one by at most one answer, if both want
//! the same model; between models `state/dispatch` decides. Users who have nothing waiting are
//! admitted beyond the limit, so that many others cannot keep them out. A job of the flex tier waits
//! until no other does, whosever these are.

use std::collections::VecDeque;
use std::time::Instant;

use crate::backend::WaitingUser;
use crate::chat::{PrincipalId, ServiceTier};

/// Users without a waiting job for whom there is room when the queue is full.
const NEWCOMERS: usize = 64;

/// The tiers in the order of their turns.
const TURNS: [ServiceTier; 2] = [ServiceTier::Default, ServiceTier::Flex];

/// Something that needs a model: a request, or a command to load the model and no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    pub id: u64,
    /// Whose it is.
    pub owner: PrincipalId,
    pub model: String,
    /// Whether its client left the choice of the model to us.
    pub flexible: bool,
    pub tier: ServiceTier,
    /// Its model cannot be had, and another is being chosen.
    pub reassigning: bool,
    pub kind: Kind,
    /// When it came.
    pub since: Instant,
    pub deadline: Instant,
    /// Workers that died under this job before it had said anything.
    pub deaths: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Takes a slot of the worker and is answered.
    Chat,
    /// Asked of the worker, beside its slots.
    Text,
    /// Done as soon as the model is up.
    Load,
}

/// Why a job is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    Total,
    User,
}

/// The waiting jobs.
#[derive(Debug)]
pub struct Queue {
    limit: u32,
    limit_per_user: u32,
    /// Never holds an empty lane.
    lanes: VecDeque<Lane>,
}

#[derive(Debug)]
struct Lane {
    /// The account.
    owner: PrincipalId,
    jobs: VecDeque<Job>,
}

impl Queue {
    pub fn new(limit: u32, limit_per_user: u32) -> Self {
        Self {
            limit,
            limit_per_user,
            lanes: VecDeque::new(),
        }
    }

    /// Waiting jobs stay, whatever the new limits.
    pub fn set_limits(&mut self, limit: u32, limit_per_user: u32) {
        self.limit = limit;
        self.limit_per_user = limit_per_user;
    }

    pub fn len(&self) -> usize {
        self.lanes.iter().map(|lane| lane.jobs.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// Admits a new job at the end of its user's lane.
    pub fn push(&mut self, job: Job) -> Result<(), Full> {
        let (waiting, limit) = (self.len(), self.limit as usize);
        let account = job.owner.account();
        match self.lanes.iter_mut().find(|lane| lane.owner == account) {
            Some(lane) if lane.jobs.len() >= self.limit_per_user as usize => {
                return Err(Full::User);
            }
            Some(_) if waiting >= limit => return Err(Full::Total),
            Some(lane) => lane.jobs.push_back(job),
            None if waiting >= limit + NEWCOMERS => return Err(Full::Total),
            None => self.lanes.push_back(Lane {
                owner: account,
                jobs: [job].into(),
            }),
        }
        Ok(())
    }

    /// Puts a job that had its turn already in front of all others; its place is not counted
    /// against the limits.
    pub fn push_front(&mut self, job: Job) {
        let account = job.owner.account();
        match self
            .lanes
            .iter()
            .position(|lane| lane.owner == account)
            .and_then(|i| self.lanes.remove(i))
        {
            Some(mut lane) => {
                lane.jobs.push_front(job);
                self.lanes.push_front(lane);
            }
            None => self.lanes.push_front(Lane {
                owner: account,
                jobs: [job].into(),
            }),
        }
    }

    /// The job whose turn it is among those that `wanted` picks.
    pub fn find(&self, mut wanted: impl FnMut(&Job) -> bool) -> Option<&Job> {
        TURNS.into_iter().find_map(|tier| {
            self.iter()
                .filter(|job| job.tier == tier)
                .find(|job| wanted(job))
        })
    }

    /// Takes that job; its user's next job waits for everyone else's turn.
    pub fn pop(&mut self, wanted: impl Fn(&Job) -> bool) -> Option<Job> {
        let id = self.find(wanted)?.id;
        let (i, j) = self.lanes.iter().enumerate().find_map(|(i, lane)| {
            let place = lane.jobs.iter().position(|job| job.id == id)?;
            Some((i, place))
        })?;
        let mut lane = self.lanes.remove(i)?;
        let job = lane.jobs.remove(j);
        if !lane.jobs.is_empty() {
            self.lanes.push_back(lane);
        }
        job
    }

    /// Takes out every job that `wanted` picks, in the order of their turns within each user.
    pub fn extract(&mut self, mut wanted: impl FnMut(&Job) -> bool) -> Vec<Job> {
        let mut out = Vec::new();
        for lane in &mut self.lanes {
            let (taken, kept) = std::mem::take(&mut lane.jobs)
                .into_iter()
                .partition(|job| wanted(job));
            lane.jobs = kept;
            let taken: VecDeque<Job> = taken;
            out.extend(taken);
        }
        self.lanes.retain(|lane| !lane.jobs.is_empty());
        out
    }

    /// The waiting jobs in the order of their turns, if nothing comes between.
    pub fn in_turn(&self) -> impl Iterator<Item = &Job> {
        let longest = self.lanes.iter().map(|lane| lane.jobs.len()).max();
        let longest = longest.unwrap_or(0);
        TURNS.into_iter().flat_map(move |tier| {
            (0..longest).flat_map(move |turn| {
                self.lanes.iter().filter_map(move |lane| {
                    let mut jobs = lane.jobs.iter().filter(move |job| job.tier == tier);
                    jobs.nth(turn)
                })
            })
        })
    }

    /// How many wait, and since when, of each account; whose turn is next comes first.
    pub fn users(&self) -> Vec<WaitingUser> {
        let user = |lane: &Lane| {
            Some(WaitingUser {
                account: lane.owner,
                waiting: lane.jobs.len() as u32,
                since: lane.jobs.iter().map(|job| job.since).min()?,
            })
        };
        self.lanes.iter().filter_map(user).collect()
    }

    /// Every waiting job, lane by lane.
    pub fn iter(&self) -> impl Iterator<Item = &Job> {
        self.lanes.iter().flat_map(|lane| &lane.jobs)
    }

    /// Every waiting job.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Job> {
        self.lanes.iter_mut().flat_map(|lane| lane.jobs.iter_mut())
    }

    /// The moment at which the first waiting job has waited too long.
    pub fn first_deadline(&self) -> Option<Instant> {
        self.lanes
            .iter()
            .flat_map(|lane| lane.jobs.iter())
            .map(|job| job.deadline)
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(id: u64, uid: u32) -> Job {
        Job {
            id,
            owner: PrincipalId::User(uid),
            model: "m".into(),
            flexible: false,
            tier: ServiceTier::Default,
            reassigning: false,
            kind: Kind::Chat,
            since: Instant::now(),
            deadline: Instant::now(),
            deaths: 0,
        }
    }

    fn order(queue: &mut Queue) -> Vec<u64> {
        std::iter::from_fn(|| queue.pop(|_| true))
            .map(|job| job.id)
            .collect()
    }

    #[test]
    fn users_take_turns() {
        let mut queue = Queue::new(10, 10);
        for id in 0..4 {
            queue.push(job(id, 1000)).unwrap();
        }
        queue.push(job(10, 1001)).unwrap();
        queue.push(job(11, 1001)).unwrap();
        queue.push(job(20, 1002)).unwrap();
        let turns: Vec<_> = queue.in_turn().map(|job| job.id).collect();
        let users = queue.users().into_iter();
        let users: Vec<_> = users.map(|user| (user.account, user.waiting)).collect();
        assert_eq!(
            users,
            [1000, 1001, 1002]
                .map(PrincipalId::User)
                .into_iter()
                .zip([4, 2, 1])
                .collect::<Vec<_>>()
        );
        assert_eq!(turns, [0, 10, 20, 1, 11, 2, 3]);
        assert_eq!(order(&mut queue), [0, 10, 20, 1, 11, 2, 3]);
        assert!(queue.is_empty());
    }

    #[test]
    fn limits_hold_for_all_and_for_each() {
        let mut queue = Queue::new(3, 2);
        queue.push(job(0, 1)).unwrap();
        queue.push(job(1, 1)).unwrap();
        assert_eq!(queue.push(job(2, 1)), Err(Full::User));
        queue.push(job(3, 2)).unwrap();
        assert_eq!(queue.push(job(4, 2)), Err(Full::Total));
        queue.push_front(job(5, 1));
        assert_eq!(queue.len(), 4);
    }

    #[test]
    fn a_full_queue_has_room_for_newcomers() {
        let mut queue = Queue::new(64, 16);
        let greedy = (0..).map(|id| job(id, 1 + id as u32 % 5));
        let admitted = greedy
            .take(100)
            .filter(|job| queue.push(job.clone()).is_ok())
            .count();
        assert_eq!(admitted, 64);
        for id in 0..NEWCOMERS as u64 {
            queue.push(job(1000 + id, 1000 + id as u32)).unwrap();
        }
        assert_eq!(queue.push(job(1001, 1000)), Err(Full::Total));
        assert_eq!(queue.push(job(2000, 2000)), Err(Full::Total));
        let container = |uid| Job {
            owner: PrincipalId::SubUser { uid, owner: 1 },
            ..job(3000, 0)
        };
        assert_eq!(queue.push(container(100_000)), Err(Full::Total));
        // They have their turns like everyone else.
        let first: Vec<u64> = order(&mut queue).into_iter().take(69).collect();
        assert!(first.contains(&1000) && first.contains(&1063));
    }

    #[test]
    fn a_retried_job_is_next() {
        let mut queue = Queue::new(10, 10);
        for (id, uid) in [(0, 1), (1, 2), (2, 2)] {
            queue.push(job(id, uid)).unwrap();
        }
        queue.push_front(job(9, 2));
        assert_eq!(queue.find(|_| true).unwrap().id, 9);
        assert_eq!(order(&mut queue), [9, 0, 1, 2]);
    }

    #[test]
    fn those_of_the_flex_tier_come_last() {
        let mut queue = Queue::new(10, 10);
        for (id, uid) in [(0, 1), (1, 1), (2, 2), (3, 2)] {
            let tier = match id {
                0 | 2 => ServiceTier::Flex,
                _ => ServiceTier::Default,
            };
            queue
                .push(Job {
                    tier,
                    ..job(id, uid)
                })
                .unwrap();
        }
        let turns: Vec<_> = queue.in_turn().map(|job| job.id).collect();
        assert_eq!(turns, [1, 3, 0, 2]);
        assert_eq!(order(&mut queue), [1, 3, 0, 2]);
    }

    #[test]
    fn extract_leaves_no_empty_lane() {
        let mut queue = Queue::new(10, 10);
        for (id, uid) in [(0, 1), (1, 2), (2, 1)] {
            queue.push(job(id, uid)).unwrap();
        }
        assert_eq!(
            queue
                .extract(|j| j.owner == PrincipalId::User(1))
                .iter()
                .map(|j| j.id)
                .collect::<Vec<_>>(),
            [0, 2]
        );
        assert_eq!(queue.len(), 1);
        assert_eq!(order(&mut queue), [1]);
    }
}
