//! A model whose workers die delays its own jobs only.

use super::*;

fn died(model: &str) -> Failure {
    Failure::WorkerDied {
        cause: format!("model `{model}`: abort"),
    }
}

fn backing_off(model: &str, retry_after: Duration) -> Failure {
    Failure::BackingOff {
        cause: format!("model `{model}`: abort"),
        retry_after,
    }
}

fn fail(id: u64, failure: Failure) -> Action {
    Action::Fail { id, failure }
}

fn choose(id: u64, failure: Failure) -> Action {
    Action::Choose { id, failure }
}

fn chosen(id: u64, model: &str) -> Input {
    Input::Chosen {
        id,
        model: Ok(model.into()),
    }
}

/// A request for `bad` has killed two workers, so that `bad` is backed off from.
fn backed_off() -> (State, Instant) {
    let (mut s, t) = state();
    s.step(t, submit(1, "bad"));
    s.step(t, exited(1, "abort"));
    assert_eq!(
        s.step(t, exited(2, "abort")),
        [fail(1, died("bad"))],
        "the request that killed two workers is refused, and names the model"
    );
    (s, t)
}

#[test]
fn a_bad_models_deaths_delay_no_job_of_another() {
    let (mut s, t) = state();
    s.step(t, submit(1, "bad"));
    s.step(t, submit(2, "good"));
    assert_eq!(s.step(t, exited(1, "abort")), [spawn(2, "bad")]);
    assert_eq!(
        s.step(t, exited(2, "abort")),
        [fail(1, died("bad")), spawn(3, "good")],
        "at once"
    );
    assert_eq!(
        s.step(t, submit(3, "bad")),
        [fail(3, backing_off("bad", FIRST_PAUSE))]
    );
    assert_eq!(s.step(t, submit(4, "good")), []);
    assert_eq!(
        s.step(t, loaded(3)),
        [Action::Send { id: 2 }, Action::Send { id: 4 }]
    );
}

#[test]
fn the_loaded_good_model_stays_while_the_bad_one_is_backed_off_from() {
    let (mut s, t) = backed_off();
    assert_eq!(
        s.life(),
        Life::BackingOff {
            cause: "model `bad`: abort",
            until: t + FIRST_PAUSE
        }
    );
    assert_eq!(s.step(t, submit(2, "good")), [spawn(3, "good")]);
    assert_eq!(s.life(), Life::Starting("good"));
    s.step(t, loaded(3));
    let later = t + FIRST_PAUSE / 2;
    s.step(later, Input::Ended { id: 2 });
    assert_eq!(
        s.step(later, submit(3, "bad")),
        [fail(3, backing_off("bad", FIRST_PAUSE / 2))]
    );
    assert_eq!(s.life(), Life::Ready("good"));
    assert_eq!(
        s.step(t + FIRST_PAUSE, submit(4, "bad")),
        [Action::End { generation: 3 }],
        "its pause is over, and it has its turn"
    );
}

#[test]
fn who_waits_for_the_end_of_a_pause_gets_the_next_attempt_from_a_loaded_model() {
    let (mut s, t) = backed_off();
    let t = t + FIRST_PAUSE;
    s.step(t, submit(2, "bad"));
    s.step(t, submit(3, "good"));
    assert_eq!(
        s.step(t, exited(3, "abort")),
        [spawn(4, "good")],
        "2 has seen one death only, and waits"
    );
    s.step(t, loaded(4));
    s.step(t, Input::Ended { id: 3 });
    assert_eq!(s.next_tick(), Some(t + 2 * FIRST_PAUSE));
    assert_eq!(
        s.step(t + 2 * FIRST_PAUSE, Input::Tick),
        [Action::End { generation: 4 }]
    );
    assert_eq!(
        s.step(t + 2 * FIRST_PAUSE, exited(4, "0")),
        [spawn(5, "bad")]
    );
}

#[test]
fn flexible_jobs_move_to_a_good_model() {
    let (mut s, t) = state();
    s.step(t, submit_flexible(1, "bad"));
    s.step(t, exited(1, "abort"));
    s.step(t, submit_flexible(2, "bad"));
    assert_eq!(
        s.step(t, exited(2, "abort")),
        [
            choose(1, died("bad")),
            choose(2, backing_off("bad", FIRST_PAUSE))
        ],
        "those that it killed twice, and those that would wait"
    );
    s.step(t, chosen(1, "good"));
    assert_eq!(s.step(t, chosen(2, "good")), [spawn(3, "good")]);
    assert_eq!(
        s.step(t, submit_flexible(3, "bad")),
        [choose(3, backing_off("bad", FIRST_PAUSE))]
    );
    s.step(t, chosen(3, "good"));
    assert_eq!(s.waiting(), 3);
    assert_eq!(
        s.step(t, submit_flexible(4, "bad")),
        [choose(4, backing_off("bad", FIRST_PAUSE))]
    );
    let none = Input::Chosen {
        id: 4,
        model: Err(backing_off("bad", FIRST_PAUSE)),
    };
    assert_eq!(
        s.step(t, none),
        [fail(4, backing_off("bad", FIRST_PAUSE))],
        "where there is no other it is told when to come again"
    );
}

#[test]
fn a_choice_that_is_backed_off_from_is_no_choice() {
    let (mut s, t) = backed_off();
    let unread = Input::LoadFailed {
        generation: 3,
        failure: no_room("large"),
        out_of_memory: false,
    };
    s.step(t, submit_flexible(2, "large"));
    assert_eq!(s.step(t, unread), [choose(2, no_room("large"))]);
    assert_eq!(
        s.step(t, chosen(2, "bad")),
        [choose(2, backing_off("bad", FIRST_PAUSE))]
    );
    s.step(t, chosen(2, "good"));
    assert_eq!(s.step(t, exited(3, "0")), [spawn(4, "good")]);
}

#[test]
fn a_request_that_kills_a_model_that_has_answered_is_refused_and_does_not_move() {
    let (mut s, t) = state();
    s.step(t, submit(1, "a"));
    s.step(t, loaded(1));
    s.step(t, Input::Begun { id: 1, shown: true });
    s.step(t, Input::Ended { id: 1 });
    assert_eq!(s.step(t, submit_flexible(2, "a")), [Action::Send { id: 2 }]);
    assert_eq!(s.step(t, exited(1, "abort")), [spawn(2, "a")]);
    s.step(t, loaded(2));
    assert_eq!(s.step(t, exited(2, "abort")), [fail(2, died("a"))]);
}

#[test]
fn a_request_on_which_an_untried_model_aborts_moves() {
    let (mut s, t) = state();
    s.step(t, submit_flexible(1, "a"));
    s.step(t, loaded(1));
    s.step(t, exited(1, "abort"));
    s.step(t, loaded(2));
    assert_eq!(s.step(t, exited(2, "abort")), [choose(1, died("a"))]);
    assert_eq!(s.step(t, chosen(1, "good")), [spawn(3, "good")]);
}
