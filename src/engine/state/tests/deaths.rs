//! Workers that die, models that cannot be loaded, and the pauses after that.

use super::*;

#[test]
fn a_death_in_mid_answer_is_told_and_one_before_it_is_retried_unseen() {
    let (mut s, t) = state();
    s.step(t, submit(1, "a"));
    s.step(t, submit(2, "a"));
    s.step(t, loaded(1));
    s.step(t, Input::Begun { id: 1, shown: true });
    let actions = s.step(t, exited(1, "SIGKILL"));
    assert_eq!(
        actions,
        [
            Action::Fail {
                id: 1,
                failure: Failure::WorkerDied {
                    cause: "model `a`: SIGKILL".into()
                }
            },
            spawn(2, "a")
        ]
    );
    assert_eq!(s.step(t, loaded(2)), [Action::Send { id: 2 }]);
    let actions = s.step(t, exited(2, "again"));
    assert_eq!(
        actions,
        [Action::Fail {
            id: 2,
            failure: Failure::WorkerDied {
                cause: "model `a`: again".into()
            }
        }]
    );
}

#[test]
fn an_answer_of_which_nothing_was_seen_is_retried_once() {
    let (mut s, t) = state();
    let begun = |id| Input::Begun { id, shown: false };
    s.step(t, submit(1, "a"));
    s.step(t, loaded(1));
    s.step(t, begun(1));
    assert_eq!(s.step(t, exited(1, "SIGKILL")), [spawn(2, "a")]);
    assert_eq!(s.step(t, loaded(2)), [Action::Send { id: 1 }]);
    s.step(t, begun(1));
    let failure = Failure::WorkerDied {
        cause: "model `a`: SIGKILL".into(),
    };
    assert_eq!(
        s.step(t, exited(2, "SIGKILL")),
        [Action::Fail { id: 1, failure }]
    );
    assert_eq!(
        s.step(t, submit(2, "a")),
        [spawn(3, "a")],
        "both workers had answered: there is no pause"
    );
}

#[test]
fn silent_deaths_lead_to_growing_pauses_that_are_told() {
    let (mut s, mut t) = state();
    assert_eq!(s.step(t, submit(1, "a")), [spawn(1, "a")]);
    assert_eq!(
        s.step(t, exited(1, "x")),
        [spawn(2, "a")],
        "the first is answered at once"
    );
    let failed = s.step(t, exited(2, "x"));
    assert_eq!(
        failed,
        [Action::Fail {
            id: 1,
            failure: Failure::WorkerDied {
                cause: "model `a`: x".into()
            }
        }]
    );
    let refused = s.step(t, submit(2, "a"));
    assert_eq!(
        refused,
        [Action::Fail {
            id: 2,
            failure: Failure::BackingOff {
                cause: "model `a`: x".into(),
                retry_after: FIRST_PAUSE
            }
        }]
    );
    assert_eq!(
        s.next_tick(),
        Some(t + FIRST_PAUSE),
        "the end of the pause is news even when nobody waits"
    );
    t += FIRST_PAUSE;
    assert_eq!(
        (s.step(t, Input::Tick), s.life(), s.next_tick()),
        (vec![], Life::None, None)
    );
    assert_eq!(s.step(t, submit(3, "a")), [spawn(3, "a")]);
    s.step(t, exited(3, "x"));
    assert_eq!(
        s.next_tick(),
        Some(t + 2 * FIRST_PAUSE),
        "3 waits for the next attempt"
    );
    t += 2 * FIRST_PAUSE;
    assert_eq!(s.step(t, Input::Tick), [spawn(4, "a")]);
    s.step(t, loaded(4));
    s.step(t, Input::Begun { id: 3, shown: true });
    s.step(t, Input::Ended { id: 3 });
    assert_eq!(s.step(t, exited(4, "x")), []);
    assert_eq!(
        s.step(t, submit(4, "a")),
        [spawn(5, "a")],
        "an answer ends the trouble"
    );
}

#[test]
fn a_bad_model_fails_its_own_requests_only() {
    let (mut s, t) = state();
    s.step(t, submit(1, "bad"));
    s.step(t, submit(2, "good"));
    let failed = s.step(
        t,
        Input::LoadFailed {
            generation: 1,
            failure: bad("r"),
            out_of_memory: false,
        },
    );
    assert_eq!(
        failed,
        [Action::Fail {
            id: 1,
            failure: bad("r")
        }]
    );
    assert_eq!(s.step(t, exited(1, "1")), [spawn(2, "good")]);
}

#[test]
fn a_load_that_takes_too_long_is_killed() {
    let (mut s, t) = state();
    s.step(t, submit(1, "a"));
    let late = t + Duration::from_secs(60);
    assert_eq!(s.next_tick(), Some(late));
    let actions = s.step(late, Input::Tick);
    assert!(
        matches!(
            &actions[..],
            [
                Action::Fail {
                    id: 1,
                    failure: Failure::BadModel { .. }
                },
                Action::Kill { generation: 1 }
            ]
        ),
        "{actions:?}"
    );
}
