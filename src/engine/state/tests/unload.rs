//! Loading, unloading, idle workers, and the drain.

use super::*;

#[test]
fn load_and_unload() {
    let (mut s, t) = state();
    let load = |id| Input::Submit {
        id,
        owner: PrincipalId::User(0),
        model: "a".into(),
        flexible: false,
        tier: ServiceTier::Default,
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
