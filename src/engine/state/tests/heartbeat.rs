//! Workers that live and do nothing.

use super::super::heartbeat::INTERVAL;
use super::LEAST_SILENCE;
use super::*;
use crate::ipc::Progress;

/// A worker that runs two requests; something of the first was seen.
fn running() -> (State, Instant) {
    let (mut s, t) = state();
    s.step(t, submit(1, "a"));
    s.step(t, submit(2, "a"));
    s.step(t, submit(3, "b"));
    s.step(t, loaded(1));
    s.step(t, Input::Begun { id: 1, shown: true });
    (s, t)
}

/// How far the decoder is, which has no media.
fn beat(steps: u64, computing: bool) -> Input {
    both(progress(steps, computing), progress(0, false))
}

fn both(decoder: Progress, encoder: Progress) -> Input {
    Input::Beat {
        generation: 1,
        decoder,
        encoder,
    }
}

fn progress(steps: u64, computing: bool) -> Progress {
    Progress { steps, computing }
}

/// Lets time pass, and has the worker answer each question so; returns the first action that is no
/// question, and after how long it came.
fn pass(
    s: &mut State,
    t: Instant,
    time: Duration,
    mut answer: impl FnMut(u64) -> Option<Input>,
) -> Option<(Duration, Action)> {
    for second in 1..=time.as_secs() {
        let now = t + INTERVAL * second as u32;
        for action in s.step(now, Input::Tick) {
            if action != Action::AskBeat {
                return Some((now - t, action));
            }
            if let Some(input) = answer(second) {
                assert_eq!(s.step(now, input), []);
            }
        }
    }
    None
}

#[test]
fn a_silent_worker_is_ended_and_what_was_not_seen_is_retried() {
    let (mut s, t) = running();
    assert_eq!(s.next_tick(), Some(t + INTERVAL));
    let (after, ended) = pass(&mut s, t, 2 * LEAST_SILENCE, |_| None).unwrap();
    assert_eq!(after, LEAST_SILENCE + INTERVAL);
    assert_eq!(
        ended,
        Action::KillSilent {
            generation: 1,
            what: "it",
            silence: after
        }
    );
    let t = t + after;
    assert_eq!(s.step(t + INTERVAL, Input::Tick), [], "once");
    let told = s.step(t + INTERVAL, exited(1, "SIGKILL"));
    let [
        Action::Fail {
            id: 1,
            failure: Failure::WorkerDied { cause },
        },
        again,
    ] = &told[..]
    else {
        panic!("{told:?}")
    };
    assert!(cause.contains("computed nothing for 181 s"), "{cause}");
    assert_eq!(*again, spawn(2, "a"));
    assert_eq!(s.step(t + INTERVAL, loaded(2)), [Action::Send { id: 2 }]);
}

#[test]
fn the_same_step_over_and_over_is_silence_and_waiting_is_none() {
    let (mut s, t) = running();
    assert_eq!(
        pass(&mut s, t, 5 * LEAST_SILENCE / 2, |_| Some(beat(7, false))),
        None,
        "nothing is computed"
    );
    let (mut s, t) = running();
    assert_eq!(
        pass(&mut s, t, 5 * LEAST_SILENCE / 2, |n| Some(beat(n, true))),
        None
    );
    let (mut s, t) = running();
    let spins = pass(&mut s, t, 5 * LEAST_SILENCE / 2, |_| Some(beat(7, true)));
    assert!(
        matches!(spins, Some((_, Action::KillSilent { generation: 1, .. }))),
        "{spins:?}"
    );
}

#[test]
fn an_encoder_that_hangs_is_seen_whatever_the_decoder_does() {
    for decodes in [false, true] {
        let (mut s, t) = running();
        let hangs = |n| Some(both(progress(n, decodes), progress(3, true)));
        let Some((after, Action::KillSilent { generation: 1, .. })) =
            pass(&mut s, t, 2 * LEAST_SILENCE, hangs)
        else {
            panic!("a hanging encoder was not seen");
        };
        // Its first answer came in the second second.
        assert_eq!(after, LEAST_SILENCE + 2 * INTERVAL);
        let told = s.step(t + after, exited(1, "SIGKILL"));
        let [
            Action::Fail {
                failure: Failure::WorkerDied { cause },
                ..
            },
            _,
        ] = &told[..]
        else {
            panic!("{told:?}")
        };
        assert!(
            cause.contains("its encoder of pictures and sounds computed nothing for 181 s"),
            "{cause}"
        );
    }
}

#[test]
fn an_encoder_that_is_slow_is_waited_for_and_makes_nobody_else_patient() {
    let (mut s, t) = running();
    let step = LEAST_SILENCE.as_secs() / 2;
    let slow = |n: u64| Some(both(progress(n, true), progress(n / step, true)));
    assert_eq!(pass(&mut s, t, 2 * LEAST_SILENCE, slow), None);
    let t = t + 2 * LEAST_SILENCE;
    let hangs = |n: u64| Some(both(progress(7, true), progress(n / step, true)));
    let told = pass(&mut s, t, 2 * LEAST_SILENCE, hangs);
    let Some((after, Action::KillSilent { .. })) = told else {
        panic!("{told:?}")
    };
    assert!(after <= LEAST_SILENCE + 2 * INTERVAL, "{after:?}");
}

#[test]
fn long_steps_make_patient() {
    let (mut s, t) = running();
    let step = LEAST_SILENCE.as_secs() / 2;
    let slow = |n: u64| Some(beat(n / step, true));
    assert_eq!(pass(&mut s, t, LEAST_SILENCE, slow), None);
    let silent = pass(&mut s, t + LEAST_SILENCE, 2 * LEAST_SILENCE, |_| None);
    assert_eq!(silent, None);
}

#[test]
fn a_worker_without_requests_is_not_asked_and_a_stopped_supervisor_blames_nobody() {
    let (mut s, t) = running();
    assert_eq!(
        s.step(t + 2 * LEAST_SILENCE, Input::Tick),
        [Action::AskBeat],
        "whatever time has passed"
    );
    let t = t + 2 * LEAST_SILENCE;
    for id in [1, 2] {
        s.step(t, Input::Ended { id });
    }
    let (mut s, t) = state();
    s.step(t, submit(1, "a"));
    s.step(t, loaded(1));
    s.step(t, Input::Ended { id: 1 });
    assert_eq!(s.step(t + INTERVAL, Input::Tick), []);
}
