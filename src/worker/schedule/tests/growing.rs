use super::*;
use crate::worker::schedule::room::{ANSWER, RoomPlan};

/// Two sequences of 1000 tokens, and so much for both.
fn limits(granted: usize, refused: usize) -> Limits {
    Limits {
        room: room::Limits {
            ceiling: 10_000,
            floor: 1000,
            granted,
            refused,
        },
        ..LIMITS
    }
}

fn long(tokens: usize) -> Sequence {
    prompt(&".".repeat(tokens))
}

fn waits(prompt: &Sequence) -> WaitingState<'_> {
    WaitingState {
        prompt,
        owner: OWNER,
        cache_prompt: false,
        rates_prompt: false,
        tier: ServiceTier::Default,
        stops: Stops::default(),
        fetched: None,
    }
}

/// The places of those that are admitted, and what is done about room.
fn plan(
    sequences: &[SequenceState<'_>],
    waiting: &[WaitingState<'_>],
    limits: &Limits,
) -> (Vec<usize>, RoomPlan) {
    let plan = step(sequences, waiting, 0, limits);
    let places = plan.admissions.iter().map(|admission| admission.place);
    (places.collect(), plan.room)
}

fn wants(wanted: usize) -> RoomPlan {
    RoomPlan {
        wanted,
        ..RoomPlan::default()
    }
}

#[test]
fn who_needs_more_than_the_floor_asks_for_it_and_who_does_not_passes() {
    let (empty, large, small) = (Sequence::default(), long(3000), long(100));
    let free = [free(&empty), free(&empty)];
    let waiting = [waits(&large), waits(&large), waits(&small)];
    let total = 1000 + 3000 + ANSWER;
    let (admitted, room) = plan(&free, &waiting, &limits(2000, 0));
    assert_eq!((admitted, room), (vec![2], wants(total)));
    // It is granted; more is asked for the second large one, and the small one passes.
    let (admitted, room) = plan(&free, &waiting, &limits(total, 0));
    assert_eq!((admitted, room), (vec![0, 2], wants(2 * (3000 + ANSWER))));
}

#[test]
fn where_nothing_more_is_granted_free_sequences_are_emptied_and_then_requests_wait_or_fail() {
    let (empty, large, held, small) = (Sequence::default(), long(3000), long(2500), long(100));
    let refused = limits(3500, 9000);
    let waiting = [waits(&large)];
    let idle = SequenceState {
        last_used: 3,
        ..free(&held)
    };
    let (admitted, room) = plan(&[free(&empty), idle], &waiting, &refused);
    assert_eq!((admitted, room.emptied), (vec![], Some(1)));
    // Another runs and will end.
    let running = SequenceState {
        reserved: 3000,
        ..busy(&held, &held, MediumState::Raw)
    };
    let (admitted, room) = plan(&[free(&empty), running], &waiting, &refused);
    assert_eq!((admitted, room), (vec![], RoomPlan::default()));
    // Nobody has anything that could be given.
    let modest = busy(&small, &small, MediumState::Raw);
    let (admitted, room) = plan(&[free(&empty), modest], &waiting, &refused);
    assert_eq!((admitted, room.refused), (vec![], Some((0, 2500))));
}

#[test]
fn answers_get_room_piece_by_piece_and_end_where_there_is_none() {
    let (prompt, held) = (long(900), long(1000));
    let full = busy(&held, &prompt, MediumState::Raw);
    let one = |limits: &Limits| {
        let plan = step(&[full], &[], 0, limits);
        (plan.segments.len(), plan.room)
    };
    let (segments, room) = one(&limits(5000, 0));
    assert_eq!((segments, room.extended), (1, vec![(0, 1000 + ANSWER)]));
    let (segments, room) = one(&limits(1000, 0));
    assert_eq!((segments, room), (0, wants(1000 + ANSWER)));
    let (segments, room) = one(&limits(1000, 5000));
    assert_eq!((segments, room.ended), (0, Some(0)));
    // Two that wait for each other: one ends, so that the other goes on.
    let plan = step(&[full, full], &[], 0, &limits(2000, 5000));
    assert_eq!(plan.room.ended, Some(0));
    // The ceiling is the end of all.
    let held = long(9900);
    let reserved = SequenceState {
        reserved: 9900,
        ..busy(&held, &prompt, MediumState::Raw)
    };
    let plan = step(&[reserved], &[], 0, &limits(20_000, 0));
    assert_eq!(plan.room.extended, [(0, 10_000)]);
}

#[test]
fn what_a_request_goes_on_from_is_not_emptied_for_it() {
    let (held, longer) = (long(2500), long(2600));
    let idle = [free(&held), free(&held)];
    let request = WaitingState {
        cache_prompt: true,
        ..waits(&longer)
    };
    let (admitted, room) = plan(&idle, &[request], &limits(5000, 9000));
    assert!(admitted.is_empty());
    assert_eq!(room.emptied, Some(1));
    let (admitted, _) = plan(&idle, &[request], &limits(2600 + 2500 + ANSWER, 0));
    assert_eq!(admitted, [0]);
}

#[test]
fn what_was_fetched_is_granted_as_a_whole_before_it_is_put_there() {
    let (empty, small) = (Sequence::default(), long(700));
    // Of a long conversation that was kept, the prompt begins with 600 tokens.
    let waiting = |whole| WaitingState {
        cache_prompt: true,
        fetched: Some(FetchedState { tokens: 600, whole }),
        ..waits(&small)
    };
    let admitted = |whole, sequences: &[SequenceState<'_>], granted, refused| {
        let plan = step(sequences, &[waiting(whole)], 0, &limits(granted, refused));
        let admission = plan.admissions.first();
        let admission = admission.map(|admission| (admission.reuse, admission.reserved));
        (admission, plan.room)
    };
    let two = [free(&empty), free(&empty)];
    let alone = 700 + ANSWER;
    // It fits what the request may hold anyway.
    let nothing = RoomPlan::default;
    let (found, room) = admitted(alone, &two, 1000 + alone, 0);
    assert_eq!((found, room), (Some((600, alone)), nothing()));
    // It does not, and is asked for; then it is the request's.
    let (found, room) = admitted(4000, &two, 1000 + alone, 0);
    assert_eq!((found, room), (None, wants(5000)));
    let (found, room) = admitted(4000, &two, 5000, 0);
    assert_eq!((found, room), (Some((600, 4000)), nothing()));
    // It was asked for in vain, or is more than a sequence can hold: the prompt is read.
    for (whole, refused) in [(4000, 5000), (10_001, 0)] {
        let (found, room) = admitted(whole, &two, 1000 + alone, refused);
        assert_eq!((found, room), (Some((0, alone)), nothing()), "{whole}");
    }
    // Nobody's conversation is put away for it.
    let held = long(2500);
    let others = SequenceState {
        owner: None,
        ..free(&held)
    };
    let (found, room) = admitted(4000, &[free(&empty), others], 3800, 6600);
    assert_eq!((found, room), (Some((0, alone)), nothing()));
}
