use super::*;
use crate::memory::probe::{Bound, Room};

const MIB: u64 = 1 << 20;
/// Of the machine that the tests run on: its floor is 64 MiB.
const WHOLE: u64 = 4096 * MIB;
const FLOOR_MIB: u64 = 64;

/// Memory over time, and a worker that does as it is told.
struct World {
    policy: MemoryPolicy,
    start: Instant,
    now: Instant,
    stalled: u64,
    has_model: bool,
    idle: bool,
    has_attachments: bool,
    steps: Vec<(Duration, Step)>,
}

impl World {
    fn new() -> Self {
        let start = Instant::now();
        Self {
            policy: MemoryPolicy::default(),
            start,
            now: start,
            stalled: 0,
            has_model: true,
            idle: false,
            has_attachments: false,
            steps: vec![],
        }
    }

    /// A quarter of a second, or a whole one in calm times, later.
    fn look(&mut self, free_mib: u64, stalled: bool) -> Option<Step> {
        let pause = Duration::from_millis(if self.policy.level() == Level::Calm {
            1000
        } else {
            250
        });
        self.now += pause;
        self.stalled += if stalled {
            pause.as_micros() as u64 / 4
        } else {
            0
        };
        let room = Room {
            free: free_mib * MIB,
            bound: Bound::Machine,
            whole: WHOLE,
        };
        let step = self.policy.step(
            self.now,
            &Reading {
                room,
                stalled: self.stalled,
            },
            Users {
                has_model: self.has_model,
                is_idle: self.idle,
                has_attachments: self.has_attachments,
            },
        );
        self.steps
            .extend(step.map(|step| (self.now - self.start, step)));
        match (step, self.policy.level()) {
            (Some(Step::EndAttachments), _) => self.has_attachments = false,
            (Some(Step::EndNow), _) => self.policy.gone(self.now),
            (_, Level::Draining) if self.idle => self.policy.gone(self.now),
            _ => {}
        }
        step
    }

    fn looks(&mut self, seconds: u64, free_mib: u64, stalled: bool) {
        let end = self.now + Duration::from_secs(seconds);
        while self.now < end {
            self.look(free_mib, stalled);
        }
    }

    fn kinds(&self) -> Vec<Step> {
        self.steps.iter().map(|(_, step)| *step).collect()
    }
}

#[test]
fn plenty_of_memory_calls_for_nothing() {
    let mut world = World::new();
    world.looks(600, 2000, false);
    assert_eq!(world.kinds(), []);
}

#[test]
fn a_slow_leak_is_met_in_steps() {
    let mut world = World::new();
    let mut free = 400;
    while free > 2 {
        world.look(free, false);
        free -= 1;
    }
    assert_eq!(
        world.kinds()[..3],
        [Step::Trim, Step::EndWhenIdle, Step::EndNow]
    );
    assert!(
        world.kinds()[3..].iter().all(|step| *step == Step::Trim),
        "the next worker has its minute"
    );
}

#[test]
fn a_sudden_hog_is_met_within_two_seconds() {
    let mut world = World::new();
    world.looks(10, 2000, false);
    let begun = world.now;
    while world.now < begun + Duration::from_secs(2) {
        world.look(10, false);
    }
    assert_eq!(world.kinds(), [Step::Trim, Step::EndWhenIdle, Step::EndNow]);
}

#[test]
fn an_idle_worker_is_ended_and_need_not_be_killed() {
    let mut world = World {
        idle: true,
        ..World::new()
    };
    world.looks(3, 10, false);
    assert_eq!(world.kinds()[..2], [Step::Trim, Step::EndWhenIdle]);
    assert!(!world.kinds().contains(&Step::EndNow));
}

#[test]
fn running_requests_may_finish_while_a_little_is_left() {
    let mut world = World::new();
    world.looks(30, FLOOR_MIB - 10, false);
    assert_eq!(world.kinds(), [Step::Trim, Step::EndWhenIdle]);
    // It becomes better by itself, but not at once.
    world.looks(55, 2000, false);
    assert_eq!(world.policy.level(), Level::Draining);
    world.looks(10, 2000, false);
    assert_eq!(
        (world.policy.level(), world.kinds().last()),
        (Level::Trimmed, Some(&Step::GoOn))
    );
    world.looks(55, 2000, false);
    assert_eq!(world.policy.level(), Level::Trimmed);
    world.looks(10, 2000, false);
    assert_eq!(world.policy.level(), Level::Calm);
}

#[test]
fn a_sawtooth_does_not_make_it_flap() {
    let mut world = World::new();
    for _ in 0..60 {
        world.looks(5, FLOOR_MIB + 10, false);
        world.looks(5, 1000, false);
    }
    let eases = world
        .steps
        .iter()
        .filter(|(_, step)| *step == Step::Trim)
        .count();
    assert!(
        eases <= 11 && world.kinds().iter().all(|step| *step == Step::Trim),
        "{:?}",
        world.steps
    );
}

#[test]
fn waiting_programs_end_an_idle_worker_but_not_one_that_makes_them_wait() {
    let mut busy = World::new();
    busy.looks(50, 2000, true);
    assert_eq!(
        busy.kinds(),
        [Step::Trim],
        "a worker that reads its weights waits for memory by itself"
    );
    let mut idle = World {
        idle: true,
        ..World::new()
    };
    idle.looks(9, 2000, true);
    assert_eq!(idle.kinds(), [Step::Trim]);
    idle.looks(6, 2000, true);
    assert_eq!(idle.kinds()[..2], [Step::Trim, Step::EndWhenIdle]);
    assert!(
        idle.kinds()[2..].iter().all(|step| *step == Step::Trim),
        "the next worker has its minute"
    );
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(1000))]

    /// Ten minutes of any memory, requests and stalls.
    #[test]
    fn it_never_flaps_and_always_reacts(
        trace in proptest::collection::vec((0u64..300, 1u64..40, proptest::bool::ANY, proptest::bool::weighted(0.2)), 30..60)
    ) {
        let mut world = World::new();
        let mut steps_back: Vec<Instant> = vec![];
        // Since when memory has been below the floor without any answer.
        let mut unanswered: Option<Instant> = None;
        for (free, seconds, idle, stalled) in trace {
            world.idle = idle;
            let end = world.now + Duration::from_secs(seconds);
            while world.now < end {
                let before = world.policy.level();
                let step = world.look(free, stalled);
                if step == Some(Step::GoOn) {
                    steps_back.push(world.now);
                }
                let answered = step.is_some() || before != Level::Calm;
                unanswered = if free >= FLOOR_MIB || answered { None } else { unanswered.or(Some(world.now)) };
                proptest::prop_assert!(unanswered.is_none_or(|since| world.now - since < Duration::from_secs(2)));
            }
        }
        proptest::prop_assert!(steps_back.windows(2).all(|pair| pair[1] - pair[0] >= PAUSE), "{:?}", world.steps);
        let ends: Vec<_> = world.steps.iter().filter(|(_, step)| *step == Step::EndWhenIdle).map(|(at, _)| *at).collect();
        proptest::prop_assert!(ends.windows(2).all(|pair| pair[1] - pair[0] >= PAUSE), "{:?}", world.steps);
    }
}

#[test]
fn attachments_are_ended_before_the_models_worker() {
    let mut world = World::new();
    world.has_attachments = true;
    world.looks(1, FLOOR_MIB + 10, false);
    assert_eq!(world.kinds(), [Step::Trim], "near the floor");
    world.look(FLOOR_MIB - 10, false);
    world.look(FLOOR_MIB - 10, false);
    assert_eq!(world.kinds()[1..], [Step::EndAttachments], "half a second");
    // Others come at once: the model's worker is asked for its part all the same.
    world.has_attachments = true;
    world.looks(1, FLOOR_MIB - 10, false);
    assert_eq!(world.kinds()[2..], [Step::EndWhenIdle]);
}

#[test]
fn without_a_model_attachments_alone_are_ended() {
    let mut world = World::new();
    world.has_model = false;
    world.has_attachments = true;
    world.looks(1, FLOOR_MIB + 10, false);
    assert_eq!(world.kinds(), [], "there is nothing to trim");
    world.looks(1, FLOOR_MIB - 10, false);
    world.has_attachments = true;
    world.looks(1, FLOOR_MIB - 10, false);
    assert_eq!(world.kinds(), [Step::EndAttachments, Step::EndAttachments]);
    world.looks(61, 2000, false);
    assert_eq!(world.policy.level(), Level::Calm);
}
