use super::trouble::FIRST_PAUSE;
use super::*;
use std::collections::{BTreeSet, HashMap, HashSet};

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
    Input::Submit { id, uid: 1000, model: model.into(), open: false, kind: Kind::Chat }
}

/// A request that left the choice of its model to us.
fn submit_open(id: u64, model: &str) -> Input {
    Input::Submit { id, uid: 1000, model: model.into(), open: true, kind: Kind::Chat }
}

fn choose(id: u64, failure: Failure) -> Action {
    Action::Choose { id, failure }
}

fn chosen(id: u64, model: &str) -> Input {
    Input::Chosen { id, model: Ok(model.into()) }
}

fn exited(generation: u64) -> Input {
    Input::Exited { generation, cause: "0".into(), out_of_memory: false }
}

fn no_room(model: &str) -> Failure {
    Failure::NoRoom { model: model.into(), needs: 9, free: 5, reserve: 1, bound: "there".into(), instead: None }
}

fn bad(reason: &str) -> Failure {
    Failure::BadModel { model: "bad".into(), reason: reason.into() }
}

fn spawn(generation: u64, model: &str) -> Action {
    Action::Spawn { generation, model: model.into(), smaller: 0 }
}

#[test]
fn the_first_request_starts_a_worker_and_goes_to_it() {
    let (mut s, t) = state();
    assert_eq!(s.step(t, submit(1, "a")), [spawn(1, "a")]);
    assert_eq!(s.life(), Life::Starting("a"));
    assert_eq!(s.step(t, Input::Loaded { generation: 1, slots: 2 }), [Action::Send { id: 1 }]);
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
    assert_eq!(s.step(t, Input::Loaded { generation: 1, slots: 2 }), [Action::Send { id: 1 }, Action::Send { id: 2 }]);
    assert_eq!(s.step(t, Input::HangUp { id: 1 }), [Action::Cancel { id: 1 }, Action::Send { id: 3 }]);
}

#[test]
fn texts_take_no_slot_and_still_load_the_model() {
    let (mut s, t) = state();
    let ask = |id, model: &str| Input::Submit { id, uid: 1000 + id as u32, model: model.into(), open: false, kind: Kind::Text };
    assert_eq!(s.step(t, ask(1, "a")), [spawn(1, "a")]);
    assert_eq!(s.step(t, Input::Loaded { generation: 1, slots: 1 }), [Action::Send { id: 1 }]);
    assert_eq!(s.step(t, submit(2, "a")), [Action::Send { id: 2 }], "1 is not in its way");
    assert_eq!(s.step(t, submit(3, "a")), [], "the slot is taken");
    assert_eq!(s.step(t, ask(4, "a")), [Action::Send { id: 4 }], "3 is not in its way");
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
    s.step(t, Input::Exited { generation: 1, cause: "x".into(), out_of_memory: false });
    assert_eq!(s.step(t, Input::Loaded { generation: 2, slots: 1 }), [Action::Send { id: 5 }, Action::Send { id: 3 }]);
}

#[test]
fn another_model_waits_until_the_old_worker_is_gone() {
    let (mut s, t) = state();
    s.step(t, submit(1, "a"));
    s.step(t, Input::Loaded { generation: 1, slots: 2 });
    assert_eq!(s.step(t, submit(2, "b")), [], "1 is still being answered");
    assert_eq!(s.step(t, submit(3, "a")), [], "2 came first");
    assert_eq!(s.step(t, Input::Ended { id: 1 }), [Action::End { generation: 1 }]);
    assert_eq!(s.step(t, Input::Exited { generation: 1, cause: "ended".into(), out_of_memory: false }), [spawn(2, "b")]);
    assert_eq!(s.step(t, Input::Loaded { generation: 2, slots: 2 }), [Action::Send { id: 2 }]);
}

#[test]
fn a_death_in_mid_answer_is_told_and_one_before_it_is_retried_unseen() {
    let (mut s, t) = state();
    s.step(t, submit(1, "a"));
    s.step(t, submit(2, "a"));
    s.step(t, Input::Loaded { generation: 1, slots: 2 });
    s.step(t, Input::Begun { id: 1 });
    let actions = s.step(t, Input::Exited { generation: 1, cause: "SIGKILL".into(), out_of_memory: false });
    assert_eq!(actions, [Action::Fail { id: 1, failure: Failure::WorkerDied { cause: "SIGKILL".into() } }, spawn(2, "a")]);
    assert_eq!(s.step(t, Input::Loaded { generation: 2, slots: 2 }), [Action::Send { id: 2 }]);
    let actions = s.step(t, Input::Exited { generation: 2, cause: "again".into(), out_of_memory: false });
    assert_eq!(actions, [Action::Fail { id: 2, failure: Failure::WorkerDied { cause: "again".into() } }]);
}

#[test]
fn silent_deaths_lead_to_growing_pauses_that_are_told() {
    let (mut s, mut t) = state();
    assert_eq!(s.step(t, submit(1, "a")), [spawn(1, "a")]);
    assert_eq!(
        s.step(t, Input::Exited { generation: 1, cause: "x".into(), out_of_memory: false }),
        [spawn(2, "a")],
        "the first is answered at once"
    );
    let failed = s.step(t, Input::Exited { generation: 2, cause: "x".into(), out_of_memory: false });
    assert_eq!(failed, [Action::Fail { id: 1, failure: Failure::WorkerDied { cause: "x".into() } }]);
    let refused = s.step(t, submit(2, "a"));
    assert_eq!(refused, [Action::Fail { id: 2, failure: Failure::BackingOff { cause: "x".into(), retry_after: FIRST_PAUSE } }]);
    assert_eq!(s.next_tick(), Some(t + FIRST_PAUSE), "the end of the pause is news even when nobody waits");
    t += FIRST_PAUSE;
    assert_eq!((s.step(t, Input::Tick), s.life(), s.next_tick()), (vec![], Life::None, None));
    assert_eq!(s.step(t, submit(3, "a")), [spawn(3, "a")]);
    s.step(t, Input::Exited { generation: 3, cause: "x".into(), out_of_memory: false });
    assert_eq!(s.next_tick(), Some(t + 2 * FIRST_PAUSE), "3 waits for the next attempt");
    t += 2 * FIRST_PAUSE;
    assert_eq!(s.step(t, Input::Tick), [spawn(4, "a")]);
    s.step(t, Input::Loaded { generation: 4, slots: 2 });
    s.step(t, Input::Begun { id: 3 });
    s.step(t, Input::Ended { id: 3 });
    assert_eq!(s.step(t, Input::Exited { generation: 4, cause: "x".into(), out_of_memory: false }), []);
    assert_eq!(s.step(t, submit(4, "a")), [spawn(5, "a")], "an answer ends the trouble");
}

#[test]
fn a_bad_model_fails_its_own_requests_only() {
    let (mut s, t) = state();
    s.step(t, submit(1, "bad"));
    s.step(t, submit(2, "good"));
    let failed = s.step(t, Input::LoadFailed { generation: 1, failure: bad("r"), out_of_memory: false });
    assert_eq!(failed, [Action::Fail { id: 1, failure: bad("r") }]);
    assert_eq!(s.step(t, Input::Exited { generation: 1, cause: "1".into(), out_of_memory: false }), [spawn(2, "good")]);
}

#[test]
fn a_load_that_takes_too_long_is_killed() {
    let (mut s, t) = state();
    s.step(t, submit(1, "a"));
    let late = t + Duration::from_secs(60);
    assert_eq!(s.next_tick(), Some(late));
    let actions = s.step(late, Input::Tick);
    assert!(
        matches!(&actions[..], [Action::Fail { id: 1, failure: Failure::BadModel { .. } }, Action::Kill { generation: 1 }]),
        "{actions:?}"
    );
}

#[test]
fn load_and_unload() {
    let (mut s, t) = state();
    let load = |id| Input::Submit { id, uid: 0, model: "a".into(), open: false, kind: Kind::Load };
    assert_eq!(s.step(t, load(1)), [spawn(1, "a")]);
    assert_eq!(s.step(t, Input::Loaded { generation: 1, slots: 2 }), [Action::LoadDone { id: 1 }]);
    assert_eq!(s.step(t, load(2)), [Action::LoadDone { id: 2 }], "it is up already");
    s.step(t, submit(3, "a"));
    assert_eq!(s.step(t, Input::Unload), [], "3 is finished first");
    assert_eq!(s.step(t, Input::Ended { id: 3 }), [Action::End { generation: 1 }]);
    assert_eq!(s.step(t + END_TIME, Input::Tick), [Action::Kill { generation: 1 }], "it does not go by itself");
    assert_eq!(s.step(t, Input::Exited { generation: 1, cause: "9".into(), out_of_memory: false }), [Action::Unloaded]);
    assert_eq!(s.step(t, Input::Unload), [Action::Unloaded], "nothing to do");
}

#[test]
fn an_idle_worker_goes_and_a_request_in_time_keeps_it() {
    let (mut s, mut t) = state();
    s.step(t, submit(1, "a"));
    s.step(t, Input::Loaded { generation: 1, slots: 2 });
    s.step(t, Input::Ended { id: 1 });
    let idle = Duration::from_secs(1000);
    assert_eq!(s.next_tick(), Some(t + idle));
    t += idle - Duration::from_secs(1);
    assert_eq!(s.step(t, submit(2, "a")), [Action::Send { id: 2 }]);
    t += Duration::from_secs(10);
    assert_eq!(s.step(t, Input::Ended { id: 2 }), [], "the time begins anew");
    t += idle;
    assert_eq!(s.step(t, Input::Tick), [Action::End { generation: 1 }]);
    assert_eq!(s.step(t, submit(3, "a")), [], "it is on its way out");
    assert_eq!(s.step(t, Input::Exited { generation: 1, cause: "asked".into(), out_of_memory: false }), [spawn(2, "a")]);
}

#[test]
fn queue_limits_are_named() {
    let (mut s, t) = state();
    for id in 0..4 {
        s.step(t, submit(id, "a"));
    }
    let mine = s.step(t, submit(5, "a"));
    assert_eq!(mine, [Action::Fail { id: 5, failure: Failure::UserQueueFull { limit: 4, retry_after: RETRY_AFTER } }]);
    for id in 10..14 {
        s.step(t, Input::Submit { id, uid: 1, model: "a".into(), open: false, kind: Kind::Chat });
    }
    let all = s.step(t, Input::Submit { id: 20, uid: 2, model: "a".into(), open: false, kind: Kind::Chat });
    assert_eq!(all, [Action::Fail { id: 20, failure: Failure::QueueFull { limit: 8, retry_after: RETRY_AFTER } }]);
}

#[test]
fn a_request_has_a_time_limit_running_or_not() {
    let (mut s, t) = state();
    s.step(t, submit(1, "a"));
    s.step(t, Input::Loaded { generation: 1, slots: 2 });
    let end = t + Duration::from_secs(600);
    assert_eq!(s.next_tick(), Some(end));
    let limit = Duration::from_secs(600);
    assert_eq!(s.step(end, Input::Tick), [Action::Cancel { id: 1 }, Action::Fail { id: 1, failure: Failure::TimedOut { limit } }]);
}

#[test]
fn drain_refuses_waits_and_then_cuts_off() {
    let (mut s, t) = state();
    for id in 1..=3 {
        s.step(t, submit(id, "a"));
    }
    s.step(t, Input::Loaded { generation: 1, slots: 2 });
    let grace = t + Duration::from_secs(30);
    assert_eq!(s.step(t, Input::Drain { deadline: grace }), [Action::Fail { id: 3, failure: Failure::ShuttingDown }]);
    assert_eq!(s.step(t, submit(4, "a")), [Action::Fail { id: 4, failure: Failure::ShuttingDown }]);
    s.step(t, Input::Ended { id: 1 });
    let cut = s.step(grace, Input::Tick);
    assert_eq!(cut, [Action::Cancel { id: 2 }, Action::Fail { id: 2, failure: Failure::ShuttingDown }, Action::End { generation: 1 }]);
    assert_eq!(s.step(grace, Input::Exited { generation: 1, cause: "0".into(), out_of_memory: false }), [Action::Drained]);
}

#[test]
fn drain_of_an_idle_daemon_is_immediate() {
    let (mut s, t) = state();
    assert_eq!(s.step(t, Input::Drain { deadline: t }), [Action::Drained]);
}

fn smaller(generation: u64, model: &str, smaller: u32) -> Action {
    Action::Spawn { generation, model: model.into(), smaller }
}

fn out_of_memory(generation: u64) -> Input {
    Input::Exited { generation, cause: "SIGKILL".into(), out_of_memory: true }
}

#[test]
fn a_model_that_ran_out_of_memory_is_smaller_for_a_while() {
    let (mut s, t) = state();
    s.step(t, submit(1, "a"));
    s.step(t, submit(2, "a"));
    s.step(t, Input::Loaded { generation: 1, slots: 2 });
    s.step(t, Input::Begun { id: 1 });
    let actions = s.step(t, out_of_memory(1));
    assert_eq!(actions, [Action::Fail { id: 1, failure: Failure::OutOfMemory { cause: "SIGKILL".into() } }, smaller(2, "a", 1)]);
    s.step(t, Input::Loaded { generation: 2, slots: 2 });
    s.step(t, Input::Begun { id: 2 });
    s.step(t, Input::Ended { id: 2 });
    assert_eq!(s.step(t, Input::Unload), [Action::End { generation: 2 }]);
    s.step(t, Input::Exited { generation: 2, cause: "0".into(), out_of_memory: false });
    assert_eq!(s.step(t, submit(3, "b")), [spawn(3, "b")], "another model is as it was");
    let come_and_go = |s: &mut State, t: Instant, generation: u64| {
        s.step(t, Input::Loaded { generation, slots: 2 });
        s.step(t, Input::Begun { id: generation });
        s.step(t, Input::Ended { id: generation });
        s.step(t, Input::Unload);
        s.step(t, Input::Exited { generation, cause: "0".into(), out_of_memory: false });
    };
    come_and_go(&mut s, t, 3);
    let soon = t + Duration::from_secs(599);
    assert_eq!(s.step(soon, submit(4, "a")), [smaller(4, "a", 1)]);
    come_and_go(&mut s, soon, 4);
    assert_eq!(s.step(t + Duration::from_secs(600), submit(5, "a")), [spawn(5, "a")]);
}

#[test]
fn a_load_without_memory_is_retried_smaller_and_then_given_up() {
    let (mut s, t) = state();
    s.step(t, submit(1, "a"));
    let failed = |generation| Input::LoadFailed { generation, failure: bad("r"), out_of_memory: true };
    assert_eq!(s.step(t, failed(1)), []);
    assert_eq!(s.step(t, Input::Exited { generation: 1, cause: "65".into(), out_of_memory: false }), [smaller(2, "a", 1)]);
    let given_up = s.step(t, failed(2));
    assert_eq!(given_up, [Action::Fail { id: 1, failure: bad("r") }]);
}

#[test]
fn a_worker_that_is_to_shrink_finishes_what_it_has_and_gets_nothing_new() {
    let (mut s, t) = state();
    s.step(t, submit(1, "a"));
    s.step(t, Input::Loaded { generation: 1, slots: 2 });
    assert_eq!(s.step(t, Input::Shrink(true)), []);
    assert_eq!(s.step(t, submit(2, "a")), [], "it waits for the next worker");
    assert_eq!(s.step(t, Input::Shrink(false)), [Action::Send { id: 2 }], "there is room after all");
    s.step(t, Input::Shrink(true));
    s.step(t, submit(3, "a"));
    s.step(t, Input::Ended { id: 1 });
    assert_eq!(s.step(t, Input::Ended { id: 2 }), [Action::End { generation: 1 }]);
    assert_eq!(s.step(t, Input::Exited { generation: 1, cause: "0".into(), out_of_memory: false }), [spawn(2, "a")]);
    assert_eq!(s.step(t, Input::Loaded { generation: 2, slots: 2 }), [Action::Send { id: 3 }], "the next one is not to shrink");
}

#[test]
fn giving_up_a_worker_fails_what_had_begun_and_retries_the_rest() {
    let (mut s, t) = state();
    s.step(t, submit(1, "a"));
    s.step(t, submit(2, "a"));
    s.step(t, Input::Loaded { generation: 1, slots: 2 });
    s.step(t, Input::Begun { id: 1 });
    assert_eq!(s.step(t, Input::GiveUp { cause: "5 MiB".into() }), [Action::Kill { generation: 1 }]);
    assert_eq!(s.step(t, Input::Shrink(false)), []);
    let failure = Failure::OutOfMemory { cause: "5 MiB".into() };
    let actions = s.step(t, Input::Exited { generation: 1, cause: "SIGKILL".into(), out_of_memory: false });
    assert_eq!(actions, [Action::Fail { id: 1, failure }, smaller(2, "a", 1)]);
    assert_eq!(s.step(t, Input::Loaded { generation: 2, slots: 2 }), [Action::Send { id: 2 }]);
}

#[test]
fn an_idle_worker_gives_back_once_before_it_goes() {
    let t = Instant::now();
    let release = Duration::from_secs(100);
    let mut s = State::new(Settings { idle_release: Some(release), ..settings() });
    s.step(t, submit(1, "a"));
    s.step(t, Input::Loaded { generation: 1, slots: 2 });
    s.step(t, Input::Ended { id: 1 });
    assert_eq!(s.next_tick(), Some(t + release));
    assert_eq!(s.step(t + release, Input::Tick), [Action::Ease]);
    assert_eq!((s.step(t + release, Input::Tick), s.next_tick()), (vec![], Some(t + Duration::from_secs(1000))));
    s.step(t + release, submit(2, "a"));
    s.step(t + release, Input::Ended { id: 2 });
    assert_eq!(s.step(t + release * 2, Input::Tick), [Action::Ease], "and once more after the next answer");
}

#[test]
fn a_model_keeps_its_turn_in_proportion_to_its_load() {
    let (mut s, t) = state();
    s.step(t, submit(1, "a"));
    let loaded = t + Duration::from_secs(1);
    assert_eq!(s.step(loaded, Input::Loaded { generation: 1, slots: 1 }), [Action::Send { id: 1 }]);
    s.step(loaded, submit(2, "b"));
    s.step(loaded, submit(3, "a"));
    assert_eq!(s.step(loaded, Input::Ended { id: 1 }), [Action::Send { id: 3 }], "another load would cost more");
    let over = loaded + Duration::from_secs(4);
    s.step(over, submit(4, "a"));
    assert_eq!(s.step(over, Input::Ended { id: 3 }), [Action::End { generation: 1 }], "the other has waited long enough");
    s.step(over, Input::Exited { generation: 1, cause: "0".into(), out_of_memory: false });
    s.step(over, Input::Loaded { generation: 2, slots: 1 });
    assert_eq!(s.step(over, Input::Ended { id: 2 }), [Action::End { generation: 2 }]);
}

#[test]
fn a_turn_is_not_kept_for_nobody() {
    let (mut s, t) = state();
    s.step(t, submit(1, "a"));
    let loaded = t + Duration::from_secs(5);
    s.step(loaded, Input::Loaded { generation: 1, slots: 1 });
    s.step(loaded, Input::Ended { id: 1 });
    assert_eq!(s.step(loaded, submit(2, "b")), [Action::End { generation: 1 }]);
}

#[test]
fn what_left_the_choice_to_us_gets_another_model_and_what_was_named_does_not() {
    let (mut s, t) = state();
    for input in [submit_open(1, "large"), submit(2, "large"), submit_open(3, "large")] {
        s.step(t, input);
    }
    let refused = Input::LoadFailed { generation: 1, failure: no_room("large"), out_of_memory: false };
    let told = [choose(1, no_room("large")), choose(3, no_room("large")), Action::Fail { id: 2, failure: no_room("large") }];
    assert_eq!(s.step(t, refused), told);
    assert_eq!(s.step(t, chosen(1, "small")), []);
    assert_eq!(s.step(t, exited(1)), [], "nothing starts before it is known what 3 needs");
    assert_eq!(s.step(t, chosen(3, "small")), [spawn(2, "small")]);
    assert_eq!(s.step(t, Input::Loaded { generation: 2, slots: 2 }), [Action::Send { id: 1 }, Action::Send { id: 3 }]);
}

#[test]
fn what_nothing_fits_fails_with_the_reason_that_was_found() {
    let (mut s, t) = state();
    s.step(t, submit_open(1, "large"));
    s.step(t, submit(2, "other"));
    let damaged = Input::LoadFailed { generation: 1, failure: bad("damaged"), out_of_memory: false };
    assert_eq!(s.step(t, damaged), [choose(1, bad("damaged"))]);
    s.step(t, chosen(1, "middle"));
    assert_eq!(s.step(t, exited(1)), [spawn(2, "middle")], "it kept its place");
    let refused = Input::LoadFailed { generation: 2, failure: no_room("middle"), out_of_memory: false };
    assert_eq!(s.step(t, refused), [choose(1, no_room("middle"))]);
    let nothing = Input::Chosen { id: 1, model: Err(no_room("small")) };
    assert_eq!(s.step(t, nothing), [Action::Fail { id: 1, failure: no_room("small") }]);
    assert_eq!(s.step(t, chosen(1, "small")), [], "it is gone");
    assert_eq!(s.step(t, exited(2)), [spawn(3, "other")]);
}

#[test]
fn a_load_without_memory_is_retried_smaller_before_another_model_is_chosen() {
    let (mut s, t) = state();
    s.step(t, submit_open(1, "large"));
    let killed = Failure::OutOfMemory { cause: "SIGKILL".into() };
    assert_eq!(s.step(t, out_of_memory(1)), [smaller(2, "large", 1)]);
    assert_eq!(s.step(t, out_of_memory(2)), [choose(1, killed)]);
    assert_eq!(s.step(t, chosen(1, "small")), [], "there is a pause after the second silent death");
    assert_eq!(s.step(t + FIRST_PAUSE, Input::Tick), [spawn(3, "small")]);
    assert_eq!(s.step(t + FIRST_PAUSE, out_of_memory(3)), [], "it has another attempt with its new model");
    assert_eq!(s.step(t + 3 * FIRST_PAUSE, Input::Tick), [smaller(4, "small", 1)]);
}

#[test]
fn a_model_that_takes_less_may_do_for_what_had_not_begun_when_memory_ran_out() {
    let (mut s, t) = state();
    s.step(t, submit_open(1, "large"));
    s.step(t, submit(2, "large"));
    s.step(t, Input::Loaded { generation: 1, slots: 2 });
    s.step(t, out_of_memory(1));
    s.step(t, Input::Loaded { generation: 2, slots: 2 });
    let killed = Failure::OutOfMemory { cause: "SIGKILL".into() };
    assert_eq!(s.step(t, out_of_memory(2)), [Action::Fail { id: 2, failure: killed.clone() }, choose(1, killed)]);
}

#[test]
fn a_crash_is_no_reason_for_another_model() {
    let (mut s, t) = state();
    s.step(t, submit_open(1, "large"));
    assert_eq!(s.step(t, exited(1)), [spawn(2, "large")]);
    assert_eq!(s.step(t, exited(2)), [Action::Fail { id: 1, failure: Failure::WorkerDied { cause: "0".into() } }]);
}

#[test]
fn a_worker_that_is_none_for_some_serves_the_others() {
    let (mut s, t) = state();
    for input in [submit_open(1, "blind"), submit(2, "blind"), submit(3, "blind")] {
        s.step(t, input);
    }
    assert_eq!(s.step(t, Input::Refused { id: 1, failure: no_room("blind") }), [choose(1, no_room("blind"))]);
    assert_eq!(s.step(t, chosen(1, "seeing")), []);
    let named = s.step(t, Input::Refused { id: 2, failure: no_room("blind") });
    assert_eq!(named, [Action::Fail { id: 2, failure: no_room("blind") }]);
    let loaded = t + Duration::from_secs(1);
    assert_eq!(s.step(loaded, Input::Loaded { generation: 1, slots: 2 }), [Action::Send { id: 3 }]);
    assert_eq!(s.step(loaded, Input::Ended { id: 3 }), [Action::End { generation: 1 }]);
    assert_eq!(s.step(loaded, exited(1)), [spawn(2, "seeing")]);
}

#[test]
fn who_leaves_while_another_model_is_chosen_delays_nobody() {
    let (mut s, t) = state();
    s.step(t, submit_open(1, "large"));
    s.step(t, submit(2, "other"));
    s.step(t, Input::LoadFailed { generation: 1, failure: no_room("large"), out_of_memory: false });
    assert_eq!(s.step(t, exited(1)), []);
    assert_eq!(s.step(t, Input::HangUp { id: 1 }), [spawn(2, "other")]);
}

/// The world outside the state: what the driver and a worker would do, with dice for what they cannot know.
#[derive(Default)]
struct World {
    alive: Option<(u64, bool)>,
    dying: bool,
    open: BTreeSet<u64>,
    sent: BTreeSet<u64>,
    closed: HashSet<u64>,
    /// Those for whom another model is to be chosen.
    choosing: Vec<u64>,
    /// The model of each that left the choice to us.
    models: HashMap<u64, &'static str>,
}

/// From the largest to the smallest.
const MODELS: [&str; 3] = ["c", "b", "a"];

impl World {
    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Spawn { generation, .. } => {
                    assert_eq!(self.alive, None, "one worker at a time");
                    (self.alive, self.dying) = (Some((generation, false)), false);
                }
                Action::End { generation } | Action::Kill { generation } => {
                    assert_eq!(self.alive.map(|a| a.0), Some(generation));
                    self.dying = true;
                }
                Action::Send { id } => {
                    assert!(matches!(self.alive, Some((_, true))) && !self.dying, "only a loaded worker gets requests");
                    assert!(self.open.contains(&id) && self.sent.insert(id));
                    assert!(self.sent.len() <= 2, "slots");
                }
                Action::Cancel { id } => drop(self.sent.remove(&id)),
                Action::Choose { id, .. } => {
                    assert!(self.open.contains(&id) && self.models.contains_key(&id), "{id} left the choice to us");
                    self.choosing.push(id);
                }
                Action::Fail { id, .. } | Action::LoadDone { id } => self.close(id),
                Action::Ease | Action::Unloaded | Action::Drained => {}
            }
        }
    }

    /// Does what the state wants, and chooses other models as often as it wants that.
    fn step(&mut self, s: &mut State, t: Instant, input: Input) {
        let actions = s.step(t, input);
        self.perform(actions);
        while let Some(id) = self.choosing.pop() {
            let less = MODELS.into_iter().skip_while(|model| *model != self.models[&id]).nth(1);
            if let Some(less) = less {
                self.models.insert(id, less);
            }
            let actions = s.step(t, Input::Chosen { id, model: less.map(str::to_owned).ok_or_else(|| no_room("a")) });
            self.perform(actions);
        }
    }

    fn close(&mut self, id: u64) {
        self.sent.remove(&id);
        assert!(self.open.remove(&id), "{id} was open");
        assert!(self.closed.insert(id), "{id} ends once");
    }
}

proptest::proptest! {
    /// Whatever happens in whatever order, every request ends exactly once, and with a worker that works the
    /// queue empties.
    #[test]
    fn every_request_ends_once(dice in proptest::collection::vec((0u8..15, 0u8..4), 1..200)) {
        let (mut s, mut t) = state();
        let mut world = World::default();
        let mut next = 0;
        for (what, which) in dice {
            t += Duration::from_millis(300);
            let picked = world.sent.iter().nth(usize::from(which)).copied();
            let input = match what {
                0..=3 => {
                    next += 1;
                    world.open.insert(next);
                    let kind = if which == 3 { Kind::Load } else { Kind::Chat };
                    let (model, open) = (MODELS[usize::from(which) % 3], what < 2);
                    if open {
                        world.models.insert(next, model);
                    }
                    Input::Submit { id: next, uid: u32::from(which), model: model.into(), open, kind }
                }
                4 | 5 => match world.alive {
                    Some((generation, false)) if !world.dying => {
                        world.alive = Some((generation, true));
                        Input::Loaded { generation, slots: 2 }
                    }
                    _ => Input::Tick,
                },
                6 => match world.alive {
                    Some((generation, _)) => {
                        (world.alive, world.dying) = (None, false);
                        world.sent.clear();
                        Input::Exited { generation, cause: "dice".into(), out_of_memory: which > 1 }
                    }
                    None => Input::Tick,
                },
                7 => picked.map_or(Input::Tick, |id| Input::Begun { id }),
                8 => match picked {
                    Some(id) => {
                        world.close(id);
                        Input::Ended { id }
                    }
                    None => Input::Tick,
                },
                9 => match world.open.iter().nth(usize::from(which)).copied() {
                    Some(id) => {
                        // The client is gone: nothing more is owed to it.
                        world.open.remove(&id);
                        world.closed.insert(id);
                        world.step(&mut s, t, Input::HangUp { id });
                        continue;
                    }
                    None => Input::Tick,
                },
                10 => Input::Unload,
                11 => Input::Shrink(which < 2),
                12 => Input::GiveUp { cause: "dice".into() },
                13 => match world.alive {
                    Some((generation, false)) => Input::LoadFailed { generation, failure: bad("dice"), out_of_memory: which > 1 },
                    _ => Input::Tick,
                },
                _ => match world.open.iter().nth(usize::from(which)).copied() {
                    Some(id) => Input::Refused { id, failure: no_room("c") },
                    None => Input::Tick,
                },
            };
            world.step(&mut s, t, input);
        }
        for _ in 0..400 {
            t += Duration::from_secs(2);
            let input = match world.alive {
                Some((generation, _)) if world.dying => {
                    (world.alive, world.dying) = (None, false);
                    world.sent.clear();
                    Input::Exited { generation, cause: "asked".into(), out_of_memory: false }
                }
                Some((generation, false)) => {
                    world.alive = Some((generation, true));
                    Input::Loaded { generation, slots: 2 }
                }
                _ => match world.sent.first().copied() {
                    Some(id) => {
                        world.close(id);
                        Input::Ended { id }
                    }
                    None => Input::Tick,
                },
            };
            world.step(&mut s, t, input);
        }
        proptest::prop_assert!(world.open.is_empty(), "left: {:?} {s:?}", world.open);
        proptest::prop_assert_eq!(s.waiting() + s.running(), 0);
    }
}
