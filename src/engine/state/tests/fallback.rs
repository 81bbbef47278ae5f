//! Requests that left the choice of their model to us get another one when theirs cannot be had.

use super::*;

fn choose(id: u64, failure: Failure) -> Action {
    Action::Choose { id, failure }
}

fn chosen(id: u64, model: &str) -> Input {
    Input::Chosen {
        id,
        model: Ok(model.into()),
    }
}

#[test]
fn what_left_the_choice_to_us_gets_another_model_and_what_was_named_does_not() {
    let (mut s, t) = state();
    for input in [
        submit_flexible(1, "large"),
        submit(2, "large"),
        submit_flexible(3, "large"),
    ] {
        s.step(t, input);
    }
    let refused = Input::LoadFailed {
        generation: 1,
        failure: no_room("large"),
        out_of_memory: false,
    };
    let told = [
        choose(1, no_room("large")),
        choose(3, no_room("large")),
        Action::Fail {
            id: 2,
            failure: no_room("large"),
        },
    ];
    assert_eq!(s.step(t, refused), told);
    assert_eq!(s.step(t, chosen(1, "small")), []);
    assert_eq!(
        s.step(t, exited(1, "0")),
        [],
        "nothing starts before it is known what 3 needs"
    );
    assert_eq!(s.step(t, chosen(3, "small")), [spawn(2, "small")]);
    assert_eq!(
        s.step(t, loaded(2)),
        [Action::Send { id: 1 }, Action::Send { id: 3 }]
    );
}

#[test]
fn what_nothing_fits_fails_with_the_reason_that_was_found() {
    let (mut s, t) = state();
    s.step(t, submit_flexible(1, "large"));
    s.step(t, submit(2, "other"));
    let damaged = Input::LoadFailed {
        generation: 1,
        failure: bad("damaged"),
        out_of_memory: false,
    };
    assert_eq!(s.step(t, damaged), [choose(1, bad("damaged"))]);
    s.step(t, chosen(1, "middle"));
    assert_eq!(
        s.step(t, exited(1, "0")),
        [spawn(2, "middle")],
        "it kept its place"
    );
    let refused = Input::LoadFailed {
        generation: 2,
        failure: no_room("middle"),
        out_of_memory: false,
    };
    assert_eq!(s.step(t, refused), [choose(1, no_room("middle"))]);
    let nothing = Input::Chosen {
        id: 1,
        model: Err(no_room("small")),
    };
    assert_eq!(
        s.step(t, nothing),
        [Action::Fail {
            id: 1,
            failure: no_room("small")
        }]
    );
    assert_eq!(s.step(t, chosen(1, "small")), [], "it is gone");
    assert_eq!(s.step(t, exited(2, "0")), [spawn(3, "other")]);
}

#[test]
fn a_load_without_memory_is_retried_smaller_before_another_model_is_chosen() {
    let (mut s, t) = state();
    s.step(t, submit_flexible(1, "large"));
    let killed = Failure::OutOfMemory {
        cause: "model `large`: SIGKILL".into(),
    };
    assert_eq!(s.step(t, out_of_memory(1)), [downsized(2, "large", 1)]);
    assert_eq!(s.step(t, out_of_memory(2)), [choose(1, killed)]);
    assert_eq!(
        s.step(t, chosen(1, "small")),
        [spawn(3, "small")],
        "the pause is the other model's"
    );
    assert_eq!(
        s.step(t, out_of_memory(3)),
        [downsized(4, "small", 1)],
        "it has another attempt with its new model"
    );
}

#[test]
fn a_model_that_takes_less_may_do_for_what_had_not_begun_when_memory_ran_out() {
    let (mut s, t) = state();
    s.step(t, submit_flexible(1, "large"));
    s.step(t, submit(2, "large"));
    s.step(t, loaded(1));
    s.step(t, out_of_memory(1));
    s.step(t, loaded(2));
    let killed = Failure::OutOfMemory {
        cause: "model `large`: SIGKILL".into(),
    };
    assert_eq!(
        s.step(t, out_of_memory(2)),
        [
            Action::Fail {
                id: 2,
                failure: killed.clone()
            },
            choose(1, killed)
        ]
    );
}

#[test]
fn a_worker_that_is_none_for_some_serves_the_others() {
    let (mut s, t) = state();
    for input in [
        submit_flexible(1, "blind"),
        submit(2, "blind"),
        submit(3, "blind"),
    ] {
        s.step(t, input);
    }
    assert_eq!(
        s.step(
            t,
            Input::Refused {
                id: 1,
                failure: no_room("blind")
            }
        ),
        [choose(1, no_room("blind"))]
    );
    assert_eq!(s.step(t, chosen(1, "seeing")), []);
    let named = s.step(
        t,
        Input::Refused {
            id: 2,
            failure: no_room("blind"),
        },
    );
    assert_eq!(
        named,
        [Action::Fail {
            id: 2,
            failure: no_room("blind")
        }]
    );
    let later = t + Duration::from_secs(1);
    assert_eq!(s.step(later, loaded(1)), [Action::Send { id: 3 }]);
    assert_eq!(
        s.step(later, Input::Ended { id: 3 }),
        [Action::End { generation: 1 }]
    );
    assert_eq!(s.step(later, exited(1, "0")), [spawn(2, "seeing")]);
}

#[test]
fn who_leaves_while_another_model_is_chosen_delays_nobody() {
    let (mut s, t) = state();
    s.step(t, submit_flexible(1, "large"));
    s.step(t, submit(2, "other"));
    s.step(
        t,
        Input::LoadFailed {
            generation: 1,
            failure: no_room("large"),
            out_of_memory: false,
        },
    );
    assert_eq!(s.step(t, exited(1, "0")), []);
    assert_eq!(s.step(t, Input::HangUp { id: 1 }), [spawn(2, "other")]);
}

#[test]
fn where_the_output_is_no_number_who_left_the_choice_gets_another_model() {
    let (mut s, t) = state();
    for input in [
        submit_flexible(1, "bad"),
        submit(2, "bad"),
        submit_flexible(3, "bad"),
        submit(4, "bad"),
    ] {
        s.step(t, input);
    }
    // It has its turn for a while.
    let t = t + Duration::from_secs(1);
    s.step(t, loaded(1));
    let failure = Failure::Unsound {
        model: "bad".into(),
    };
    let unsound = |id, of_model| Input::Unfit {
        id,
        failure: Failure::Unsound {
            model: "bad".into(),
        },
        of_model,
    };
    // Those that wait need not find it out themselves, unless they have named it.
    let told = [choose(1, failure.clone()), choose(3, failure.clone())];
    assert_eq!(s.step(t, unsound(1, true)), told);
    s.step(t, chosen(3, "good"));
    assert_eq!(s.step(t, chosen(1, "good")), [Action::Send { id: 4 }]);
    let failed = |id| Action::Fail {
        id,
        failure: failure.clone(),
    };
    assert_eq!(s.step(t, unsound(2, true)), [failed(2)]);
    let actions = s.step(t, unsound(4, false));
    assert_eq!(actions, [failed(4), Action::End { generation: 1 }]);
    assert_eq!(s.step(t, exited(1, "0")), [spawn(2, "good")]);
    s.step(t, loaded(2));
    // What was shown cannot be taken back.
    s.step(t, Input::Begun { id: 1, shown: true });
    assert_eq!(s.step(t, unsound(1, false)), [failed(1)]);
    assert_eq!(s.step(t, unsound(1, false)), [], "it is gone");
}
