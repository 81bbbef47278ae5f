//! Models whose disk does not answer.

use super::*;

fn opening(generation: u64, model: &str) -> Input {
    Input::Opening {
        generation,
        file: format!("/m/{model}.gguf"),
    }
}

fn opened(model: &str) -> Input {
    Input::Opened {
        model: model.into(),
    }
}

fn names_the_disk(actions: &[Action], id: u64) -> bool {
    let says = |reason: &str| reason.contains("/m/a.gguf does not answer");
    matches!(actions, [Action::Fail { id: failed, failure: Failure::BadModel { model, reason } }]
        if *failed == id && model == "a" && says(reason))
}

#[test]
fn another_model_is_served_while_a_disk_does_not_answer() {
    let (mut s, t) = state();
    let at = |seconds| t + Duration::from_secs(seconds);
    assert_eq!(s.step(t, submit(1, "a")), [spawn(1, "a")]);
    assert_eq!(s.step(t, opening(1, "a")), []);
    assert_eq!(s.step(t, submit(2, "b")), []);
    assert_eq!(s.next_tick(), Some(at(3)));
    assert_eq!(s.step(at(3), Input::Tick), [spawn(2, "b")]);
    s.step(at(3), opening(2, "b"));
    s.step(at(3), opened("b"));
    assert_eq!(s.step(at(4), loaded(2)), [Action::Send { id: 2 }]);
    s.step(at(5), Input::Ended { id: 2 });
    assert_eq!(s.life(), Life::Ready("b"));
    // What is asked of it meanwhile waits as well.
    assert_eq!(s.step(at(40), submit(3, "a")), []);
    assert_eq!(s.next_tick(), Some(at(60)));
    // The disk answers: it has its turn, and more time than before.
    assert_eq!(s.step(at(41), opened("a")), [Action::End { generation: 2 }]);
    assert_eq!(s.step(at(41), exited(2, "asked")), [spawn(3, "a")]);
    s.step(at(41), opening(3, "a"));
    s.step(at(41), submit(4, "b"));
    assert_eq!(s.step(at(46), Input::Tick), []);
    assert_eq!(s.step(at(47), Input::Tick), [spawn(4, "b")]);
}

#[test]
fn who_wants_a_model_whose_disk_does_not_answer_is_told_so() {
    let (mut s, t) = state();
    let at = |seconds| t + Duration::from_secs(seconds);
    s.step(t, submit(1, "a"));
    s.step(t, opening(1, "a"));
    // Nobody wants another one: it is waited for as long as it may take.
    assert_eq!(s.step(at(3), Input::Tick), []);
    assert_eq!(
        (s.life(), s.next_tick()),
        (Life::Starting("a"), Some(at(60)))
    );
    assert!(names_the_disk(&s.step(at(60), Input::Tick), 1));
    assert_eq!((s.life(), s.next_tick()), (Life::None, None));
    assert!(names_the_disk(&s.step(at(61), submit(2, "a")), 2));
    // One that left the choice to us gets another.
    let chosen = s.step(at(62), submit_flexible(3, "a"));
    assert!(matches!(chosen[..], [Action::Choose { id: 3, .. }]));
    let model = Ok("b".to_owned());
    assert_eq!(
        s.step(at(62), Input::Chosen { id: 3, model }),
        [spawn(2, "b")]
    );
    // Its disk answers, and it can be wanted again.
    assert_eq!(s.step(at(63), opened("a")), []);
    s.step(at(63), loaded(2));
    assert_eq!(
        s.step(at(64), submit(4, "a")),
        [Action::AskBeat],
        "it waits"
    );
}
