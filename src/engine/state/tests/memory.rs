//! Memory that runs out: smaller workers, and workers that are given up.

use super::*;

#[test]
fn a_model_that_ran_out_of_memory_is_smaller_for_a_while() {
    let (mut s, t) = state();
    s.step(t, submit(1, "a"));
    s.step(t, submit(2, "a"));
    s.step(t, loaded(1));
    s.step(t, Input::Begun { id: 1, shown: true });
    let actions = s.step(t, out_of_memory(1));
    assert_eq!(
        actions,
        [
            Action::Fail {
                id: 1,
                failure: Failure::OutOfMemory {
                    cause: "model `a`: SIGKILL".into()
                }
            },
            downsized(2, "a", 1)
        ]
    );
    s.step(t, loaded(2));
    s.step(t, Input::Begun { id: 2, shown: true });
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
        s.step(
            t,
            Input::Begun {
                id: generation,
                shown: true,
            },
        );
        s.step(t, Input::Ended { id: generation });
        s.step(t, Input::Unload);
        s.step(t, exited(generation, "0"));
    };
    come_and_go(&mut s, t, 3);
    let soon = t + Duration::from_secs(599);
    assert_eq!(s.step(soon, submit(4, "a")), [downsized(4, "a", 1)]);
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
    assert_eq!(s.step(t, exited(1, "65")), [downsized(2, "a", 1)]);
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
    s.step(t, Input::Begun { id: 1, shown: true });
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
        cause: "model `a`: 5 MiB".into(),
    };
    let actions = s.step(t, exited(1, "SIGKILL"));
    assert_eq!(
        actions,
        [Action::Fail { id: 1, failure }, downsized(2, "a", 1)]
    );
    assert_eq!(s.step(t, loaded(2)), [Action::Send { id: 2 }]);
}
