use super::backoff::FIRST_PAUSE;
use super::*;
use crate::chat::PrincipalId;
use crate::engine::queue::Kind;

mod fallback;
mod stall;
mod world;

fn settings() -> Settings {
    Settings {
        queue: 8,
        queue_per_user: 4,
        request_time: Duration::from_secs(600),
        load_time: Duration::from_secs(60),
        idle_unload: Some(Duration::from_secs(1000)),
        idle_release: None,
    }
}

fn state() -> (State, Instant) {
    (State::new(settings()), Instant::now())
}

fn submit(id: u64, model: &str) -> Input {
    Input::Submit {
        id,
        owner: PrincipalId::User(1000),
        model: model.into(),
        flexible: false,
        kind: Kind::Chat,
    }
}

/// A request that left the choice of its model to us.
fn submit_flexible(id: u64, model: &str) -> Input {
    Input::Submit {
        id,
        owner: PrincipalId::User(1000),
        model: model.into(),
        flexible: true,
        kind: Kind::Chat,
    }
}

fn loaded(generation: u64) -> Input {
    Input::Loaded {
        generation,
        slots: 2,
    }
}

fn exited(generation: u64, cause: &str) -> Input {
    Input::Exited {
        generation,
        cause: cause.into(),
        out_of_memory: false,
    }
}

fn no_room(model: &str) -> Failure {
    Failure::NoRoom {
        model: model.into(),
        needs: 9,
        free: 5,
        reserve: 1,
        bound: "there".into(),
        instead: None,
    }
}

fn bad(reason: &str) -> Failure {
    Failure::BadModel {
        model: "bad".into(),
        reason: reason.into(),
    }
}

fn spawn(generation: u64, model: &str) -> Action {
    Action::Spawn {
        generation,
        model: model.into(),
        smaller: 0,
    }
}

fn smaller(generation: u64, model: &str, smaller: u32) -> Action {
    Action::Spawn {
        generation,
        model: model.into(),
        smaller,
    }
}

fn out_of_memory(generation: u64) -> Input {
    Input::Exited {
        generation,
        cause: "SIGKILL".into(),
        out_of_memory: true,
    }
}

#[test]
fn the_first_request_starts_a_worker_and_goes_to_it() {
    let (mut s, t) = state();
    assert_eq!(s.step(t, submit(1, "a")), [spawn(1, "a")]);
    assert_eq!(s.life(), Life::Starting("a"));
    assert_eq!(s.step(t, loaded(1)), [Action::Send { id: 1 }]);
    assert_eq!(s.step(t, Input::Begun { id: 1 }), []);
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
    s.step(t, Input::Begun { id: 2 });
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
fn another_model_waits_until_the_old_worker_is_gone() {
    let (mut s, t) = state();
    s.step(t, submit(1, "a"));
    s.step(t, loaded(1));
    assert_eq!(s.step(t, submit(2, "b")), [], "1 is still being answered");
    assert_eq!(s.step(t, submit(3, "a")), [], "2 came first");
    assert_eq!(
        s.step(t, Input::Ended { id: 1 }),
        [Action::End { generation: 1 }]
    );
    assert_eq!(s.step(t, exited(1, "ended")), [spawn(2, "b")]);
    assert_eq!(s.step(t, loaded(2)), [Action::Send { id: 2 }]);
}

#[test]
fn a_death_in_mid_answer_is_told_and_one_before_it_is_retried_unseen() {
    let (mut s, t) = state();
    s.step(t, submit(1, "a"));
    s.step(t, submit(2, "a"));
    s.step(t, loaded(1));
    s.step(t, Input::Begun { id: 1 });
    let actions = s.step(t, exited(1, "SIGKILL"));
    assert_eq!(
        actions,
        [
            Action::Fail {
                id: 1,
                failure: Failure::WorkerDied {
                    cause: "SIGKILL".into()
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
                cause: "again".into()
            }
        }]
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
            failure: Failure::WorkerDied { cause: "x".into() }
        }]
    );
    let refused = s.step(t, submit(2, "a"));
    assert_eq!(
        refused,
        [Action::Fail {
            id: 2,
            failure: Failure::BackingOff {
                cause: "x".into(),
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
    s.step(t, Input::Begun { id: 3 });
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

#[test]
fn load_and_unload() {
    let (mut s, t) = state();
    let load = |id| Input::Submit {
        id,
        owner: PrincipalId::User(0),
        model: "a".into(),
        flexible: false,
        kind: Kind::Load,
    };
    assert_eq!(s.step(t, load(1)), [spawn(1, "a")]);
    assert_eq!(s.step(t, loaded(1)), [Action::LoadDone { id: 1 }]);
    assert_eq!(
        s.step(t, load(2)),
        [Action::LoadDone { id: 2 }],
        "it is up already"
    );
    s.step(t, submit(3, "a"));
    assert_eq!(s.step(t, Input::Unload), [], "3 is finished first");
    assert_eq!(
        s.step(t, Input::Ended { id: 3 }),
        [Action::End { generation: 1 }]
    );
    assert_eq!(
        s.step(t + END_TIME, Input::Tick),
        [Action::Kill { generation: 1 }],
        "it does not go by itself"
    );
    assert_eq!(s.step(t, exited(1, "9")), [Action::Unloaded]);
    assert_eq!(
        s.step(t, Input::Unload),
        [Action::Unloaded],
        "nothing to do"
    );
}

#[test]
fn an_idle_worker_goes_and_a_request_in_time_keeps_it() {
    let (mut s, mut t) = state();
    s.step(t, submit(1, "a"));
    s.step(t, loaded(1));
    s.step(t, Input::Ended { id: 1 });
    let idle = Duration::from_secs(1000);
    assert_eq!(s.next_tick(), Some(t + idle));
    t += idle - Duration::from_secs(1);
    assert_eq!(s.step(t, submit(2, "a")), [Action::Send { id: 2 }]);
    t += Duration::from_secs(10);
    assert_eq!(
        s.step(t, Input::Ended { id: 2 }),
        [],
        "the time begins anew"
    );
    t += idle;
    assert_eq!(s.step(t, Input::Tick), [Action::End { generation: 1 }]);
    assert_eq!(s.step(t, submit(3, "a")), [], "it is on its way out");
    assert_eq!(s.step(t, exited(1, "asked")), [spawn(2, "a")]);
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
    for id in 10..14 {
        s.step(
            t,
            Input::Submit {
                id,
                owner: PrincipalId::User(1),
                model: "a".into(),
                flexible: false,
                kind: Kind::Chat,
            },
        );
    }
    let all = s.step(
        t,
        Input::Submit {
            id: 20,
            owner: PrincipalId::User(2),
            model: "a".into(),
            flexible: false,
            kind: Kind::Chat,
        },
    );
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
    assert_eq!(s.next_tick(), Some(end));
    let limit = Duration::from_secs(600);
    assert_eq!(
        s.step(end, Input::Tick),
        [
            Action::Cancel { id: 1 },
            Action::Fail {
                id: 1,
                failure: Failure::TimedOut { limit }
            }
        ]
    );
}

#[test]
fn drain_refuses_waits_and_then_cuts_off() {
    let (mut s, t) = state();
    for id in 1..=3 {
        s.step(t, submit(id, "a"));
    }
    s.step(t, loaded(1));
    let grace = t + Duration::from_secs(30);
    assert_eq!(
        s.step(t, Input::Drain { deadline: grace }),
        [Action::Fail {
            id: 3,
            failure: Failure::ShuttingDown
        }]
    );
    assert_eq!(
        s.step(t, submit(4, "a")),
        [Action::Fail {
            id: 4,
            failure: Failure::ShuttingDown
        }]
    );
    s.step(t, Input::Ended { id: 1 });
    let cut = s.step(grace, Input::Tick);
    assert_eq!(
        cut,
        [
            Action::Cancel { id: 2 },
            Action::Fail {
                id: 2,
                failure: Failure::ShuttingDown
            },
            Action::End { generation: 1 }
        ]
    );
    assert_eq!(s.step(grace, exited(1, "0")), [Action::Drained]);
}

#[test]
fn drain_of_an_idle_daemon_is_immediate() {
    let (mut s, t) = state();
    assert_eq!(s.step(t, Input::Drain { deadline: t }), [Action::Drained]);
}

#[test]
fn a_model_that_ran_out_of_memory_is_smaller_for_a_while() {
    let (mut s, t) = state();
    s.step(t, submit(1, "a"));
    s.step(t, submit(2, "a"));
    s.step(t, loaded(1));
    s.step(t, Input::Begun { id: 1 });
    let actions = s.step(t, out_of_memory(1));
    assert_eq!(
        actions,
        [
            Action::Fail {
                id: 1,
                failure: Failure::OutOfMemory {
                    cause: "SIGKILL".into()
                }
            },
            smaller(2, "a", 1)
        ]
    );
    s.step(t, loaded(2));
    s.step(t, Input::Begun { id: 2 });
    s.step(t, Input::Ended { id: 2 });
    assert_eq!(s.step(t, Input::Unload), [Action::End { generation: 2 }]);
    s.step(t, exited(2, "0"));
    assert_eq!(
        s.step(t, submit(3, "b")),
        [spawn(3, "b")],
        "another model is as it was"
    );
    let come_and_go = |s: &mut State, t: Instant, generation: u64| {
        s.step(t, loaded(generation));
        s.step(t, Input::Begun { id: generation });
        s.step(t, Input::Ended { id: generation });
        s.step(t, Input::Unload);
        s.step(t, exited(generation, "0"));
    };
    come_and_go(&mut s, t, 3);
    let soon = t + Duration::from_secs(599);
    assert_eq!(s.step(soon, submit(4, "a")), [smaller(4, "a", 1)]);
    come_and_go(&mut s, soon, 4);
    assert_eq!(
        s.step(t + Duration::from_secs(600), submit(5, "a")),
        [spawn(5, "a")]
    );
}

#[test]
fn a_load_without_memory_is_retried_smaller_and_then_given_up() {
    let (mut s, t) = state();
    s.step(t, submit(1, "a"));
    let failed = |generation| Input::LoadFailed {
        generation,
        failure: bad("r"),
        out_of_memory: true,
    };
    assert_eq!(s.step(t, failed(1)), []);
    assert_eq!(s.step(t, exited(1, "65")), [smaller(2, "a", 1)]);
    let given_up = s.step(t, failed(2));
    assert_eq!(
        given_up,
        [Action::Fail {
            id: 1,
            failure: bad("r")
        }]
    );
}

#[test]
fn a_worker_that_is_to_shrink_finishes_what_it_has_and_gets_nothing_new() {
    let (mut s, t) = state();
    s.step(t, submit(1, "a"));
    s.step(t, loaded(1));
    assert_eq!(s.step(t, Input::EndWhenIdle(true)), []);
    assert_eq!(
        s.step(t, submit(2, "a")),
        [],
        "it waits for the next worker"
    );
    assert_eq!(
        s.step(t, Input::EndWhenIdle(false)),
        [Action::Send { id: 2 }],
        "there is room after all"
    );
    s.step(t, Input::EndWhenIdle(true));
    s.step(t, submit(3, "a"));
    s.step(t, Input::Ended { id: 1 });
    assert_eq!(
        s.step(t, Input::Ended { id: 2 }),
        [Action::End { generation: 1 }]
    );
    assert_eq!(s.step(t, exited(1, "0")), [spawn(2, "a")]);
    assert_eq!(
        s.step(t, loaded(2)),
        [Action::Send { id: 3 }],
        "the next one is not to shrink"
    );
}

#[test]
fn giving_up_a_worker_fails_what_had_begun_and_retries_the_rest() {
    let (mut s, t) = state();
    s.step(t, submit(1, "a"));
    s.step(t, submit(2, "a"));
    s.step(t, loaded(1));
    s.step(t, Input::Begun { id: 1 });
    assert_eq!(
        s.step(
            t,
            Input::GiveUp {
                cause: "5 MiB".into()
            }
        ),
        [Action::Kill { generation: 1 }]
    );
    assert_eq!(s.step(t, Input::EndWhenIdle(false)), []);
    let failure = Failure::OutOfMemory {
        cause: "5 MiB".into(),
    };
    let actions = s.step(t, exited(1, "SIGKILL"));
    assert_eq!(
        actions,
        [Action::Fail { id: 1, failure }, smaller(2, "a", 1)]
    );
    assert_eq!(s.step(t, loaded(2)), [Action::Send { id: 2 }]);
}

#[test]
fn an_idle_worker_gives_back_once_before_it_goes() {
    let t = Instant::now();
    let release = Duration::from_secs(100);
    let mut s = State::new(Settings {
        idle_release: Some(release),
        ..settings()
    });
    s.step(t, submit(1, "a"));
    s.step(t, loaded(1));
    s.step(t, Input::Ended { id: 1 });
    assert_eq!(s.next_tick(), Some(t + release));
    assert_eq!(s.step(t + release, Input::Tick), [Action::Trim]);
    assert_eq!(
        (s.step(t + release, Input::Tick), s.next_tick()),
        (vec![], Some(t + Duration::from_secs(1000)))
    );
    s.step(t + release, submit(2, "a"));
    s.step(t + release, Input::Ended { id: 2 });
    assert_eq!(
        s.step(t + release * 2, Input::Tick),
        [Action::Trim],
        "and once more after the next answer"
    );
}

#[test]
fn a_model_keeps_its_turn_in_proportion_to_its_load() {
    let (mut s, t) = state();
    s.step(t, submit(1, "a"));
    let later = t + Duration::from_secs(1);
    assert_eq!(
        s.step(
            later,
            Input::Loaded {
                generation: 1,
                slots: 1
            }
        ),
        [Action::Send { id: 1 }]
    );
    s.step(later, submit(2, "b"));
    s.step(later, submit(3, "a"));
    assert_eq!(
        s.step(later, Input::Ended { id: 1 }),
        [Action::Send { id: 3 }],
        "another load would cost more"
    );
    let over = later + Duration::from_secs(4);
    s.step(over, submit(4, "a"));
    assert_eq!(
        s.step(over, Input::Ended { id: 3 }),
        [Action::End { generation: 1 }],
        "the other has waited long enough"
    );
    s.step(over, exited(1, "0"));
    s.step(
        over,
        Input::Loaded {
            generation: 2,
            slots: 1,
        },
    );
    assert_eq!(
        s.step(over, Input::Ended { id: 2 }),
        [Action::End { generation: 2 }]
    );
}

#[test]
fn a_turn_is_not_kept_for_nobody() {
    let (mut s, t) = state();
    s.step(t, submit(1, "a"));
    let later = t + Duration::from_secs(5);
    s.step(
        later,
        Input::Loaded {
            generation: 1,
            slots: 1,
        },
    );
    s.step(later, Input::Ended { id: 1 });
    assert_eq!(
        s.step(later, submit(2, "b")),
        [Action::End { generation: 1 }]
    );
}
