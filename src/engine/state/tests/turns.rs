//! Models take turns.

use super::*;

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

#[test]
fn what_nobody_waits_for_leaves_a_slot_and_the_turn_to_others() {
    let (mut s, t) = state();
    let flex = |id| Input::Submit {
        id,
        owner: PrincipalId::User(1001),
        model: "a".into(),
        flexible: false,
        tier: ServiceTier::Flex,
        kind: Kind::Chat,
    };
    assert_eq!(s.step(t, flex(1)), [spawn(1, "a")]);
    assert_eq!(s.step(t, loaded(1)), [Action::Send { id: 1 }]);
    assert_eq!(s.step(t, flex(2)), [], "the last slot is kept");
    assert_eq!(s.step(t, submit(3, "a")), [Action::Send { id: 3 }]);
    assert_eq!(s.step(t, submit(4, "a")), []);
    let done = |id| Input::Ended { id };
    assert_eq!(s.step(t, done(1)), [Action::Send { id: 4 }]);
    assert_eq!(s.step(t, done(3)), [], "one of them still runs");
    assert_eq!(s.step(t, done(4)), [Action::Send { id: 2 }]);
}
