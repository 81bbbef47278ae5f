//! Admission: slots, texts beside them, limits of the queue and of time.

use super::*;

#[test]
fn the_first_request_starts_a_worker_and_goes_to_it() {
    let (mut s, t) = state();
    assert_eq!(s.step(t, submit(1, "a")), [spawn(1, "a")]);
    assert_eq!(s.life(), Life::Starting("a"));
    assert_eq!(s.step(t, loaded(1)), [Action::Send { id: 1 }]);
    assert_eq!(s.step(t, Input::Begun { id: 1, shown: true }), []);
    assert_eq!(s.step(t, Input::Ended { id: 1 }), []);
    assert_eq!(s.life(), Life::Ready("a"));
}

#[test]
fn no_more_than_the_slots_run_at_once() {
    let (mut s, t) = state();
    s.step(t, submit(1, "a"));
    s.step(t, submit(2, "a"));
    s.step(t, submit(3, "a"));
    assert_eq!(
        s.step(t, loaded(1)),
        [Action::Send { id: 1 }, Action::Send { id: 2 }]
    );
    assert_eq!(
        s.step(t, Input::HangUp { id: 1 }),
        [Action::Cancel { id: 1 }, Action::Send { id: 3 }]
    );
}

#[test]
fn texts_take_no_slot_and_still_load_the_model() {
    let (mut s, t) = state();
    let ask = |id, model: &str| Input::Submit {
        id,
        owner: PrincipalId::User(1000 + id as u32),
        model: model.into(),
        flexible: false,
        tier: ServiceTier::Default,
        kind: Kind::Text,
    };
    assert_eq!(s.step(t, ask(1, "a")), [spawn(1, "a")]);
    assert_eq!(
        s.step(
            t,
            Input::Loaded {
                generation: 1,
                slots: 1
            }
        ),
        [Action::Send { id: 1 }]
    );
    assert_eq!(
        s.step(t, submit(2, "a")),
        [Action::Send { id: 2 }],
        "1 is not in its way"
    );
    assert_eq!(s.step(t, submit(3, "a")), [], "the slot is taken");
    assert_eq!(
        s.step(t, ask(4, "a")),
        [Action::Send { id: 4 }],
        "3 is not in its way"
    );
    // There is a limit: the rest waits for one of these.
    for id in 10..10 + TEXTS as u64 - 2 {
        assert_eq!(s.step(t, ask(id, "a")), [Action::Send { id }]);
    }
    assert_eq!(s.step(t, ask(5, "a")), []);
    assert_eq!(s.step(t, Input::Ended { id: 1 }), [Action::Send { id: 5 }]);
    // One that was lost with its worker is asked again.
    for id in [4].into_iter().chain(10..10 + TEXTS as u64 - 2) {
        s.step(t, Input::Ended { id });
    }
    s.step(t, Input::Begun { id: 2, shown: true });
    s.step(t, exited(1, "x"));
    assert_eq!(
        s.step(
            t,
            Input::Loaded {
                generation: 2,
                slots: 1
            }
        ),
        [Action::Send { id: 5 }, Action::Send { id: 3 }]
    );
}

#[test]
fn queue_limits_are_named() {
    let (mut s, t) = state();
    for id in 0..4 {
        s.step(t, submit(id, "a"));
    }
    let mine = s.step(t, submit(5, "a"));
    assert_eq!(
        mine,
        [Action::Fail {
            id: 5,
            failure: Failure::UserQueueFull {
                limit: 4,
                retry_after: RETRY_AFTER
            }
        }]
    );
    let submit_as = |id, uid| Input::Submit {
        id,
        owner: PrincipalId::User(uid),
        model: "a".into(),
        flexible: false,
        tier: ServiceTier::Default,
        kind: Kind::Chat,
    };
    for (id, uid) in [(10, 1), (11, 1), (12, 1), (13, 2)] {
        s.step(t, submit_as(id, uid));
    }
    // A user who has nothing waiting would still be admitted.
    let all = s.step(t, submit_as(20, 2));
    assert_eq!(
        all,
        [Action::Fail {
            id: 20,
            failure: Failure::QueueFull {
                limit: 8,
                retry_after: RETRY_AFTER
            }
        }]
    );
}

#[test]
fn a_request_has_a_time_limit_running_or_not() {
    let (mut s, t) = state();
    s.step(t, submit(1, "a"));
    s.step(t, loaded(1));
    let end = t + Duration::from_secs(600);
    assert!(s.next_tick() <= Some(end));
    let limit = Duration::from_secs(600);
    assert_eq!(
        besides_beats(s.step(end, Input::Tick)),
        [
            Action::Cancel { id: 1 },
            Action::Fail {
                id: 1,
                failure: Failure::TimedOut { limit }
            }
        ]
    );
}
