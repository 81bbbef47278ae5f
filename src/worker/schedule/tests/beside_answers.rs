//! Prompts and media in a step that has running answers.

use super::*;

#[test]
fn beside_answers_prompts_have_what_fits() {
    let (long, short) = (prompt("...................."), prompt("..."));
    let (begun, done) = (first(&long, 4), first(&short, 3));
    let sequences = [
        busy(&begun, &long, MediumState::Raw),
        busy(&done, &short, MediumState::Raw),
    ];
    let limits = Limits {
        beside_answers: 2,
        ..LIMITS
    };
    let sampled = Segment {
        sequence: 1,
        tokens: ONE,
        logits: 1,
    };
    let plan = step(&sequences, &[], 0, &limits);
    assert_eq!(plan.segments, [prompt_segment(0, 4..6, false), sampled]);
    assert_eq!(plan.counts(), (2, 1));

    // An answer whose mask is still computed waits for the next step, too.
    let mut waits = sequences;
    waits[1].request.as_mut().unwrap().awaits_mask = true;
    let plan = step(&waits, &[], 0, &limits);
    assert_eq!(plan.segments, [prompt_segment(0, 4..7, false)]);

    let plan = step(&sequences[..1], &[], 0, &limits);
    assert_eq!(plan.segments, [prompt_segment(0, 4..12, false)]);
}

#[test]
fn beside_answers_a_medium_comes_in_pieces_that_fit() {
    let (seen, short) = (prompt("a."), prompt("..."));
    let (nothing, done) = (Sequence::default(), first(&short, 3));
    let sequences = [
        busy(&nothing, &seen, MediumState::Encoded),
        busy(&done, &short, MediumState::Raw),
    ];
    let piece = |limits: &Limits| step(&sequences, &[], 0, limits).embeddings.unwrap().count;
    let beside_answers = 2;
    let limits = Limits {
        beside_answers,
        ..LIMITS
    };
    assert_eq!(piece(&limits), 2);
    let whole_media = true;
    assert_eq!(
        piece(&Limits {
            whole_media,
            embeddings: 6,
            ..limits
        }),
        6
    );
    let alone = step(&sequences[..1], &[], 0, &limits);
    assert_eq!(alone.embeddings.unwrap().count, 4);
}

/// The same of the flex tier.
fn flex(mut state: SequenceState<'_>) -> SequenceState<'_> {
    if let Some(request) = &mut state.request {
        request.tier = ServiceTier::Flex;
    }
    state
}

#[test]
fn what_nobody_waits_for_holds_up_nobody() {
    let (long, short) = (prompt("...................."), prompt("..."));
    let (begun, done) = (first(&long, 4), first(&short, 3));
    let limits = Limits {
        beside_answers: 2,
        ..LIMITS
    };
    let sampled = |sequence| Segment {
        sequence,
        tokens: ONE,
        logits: 1,
    };
    let reads = busy(&begun, &long, MediumState::Raw);
    let answers = busy(&done, &short, MediumState::Raw);

    // Its prompt waits for an answer, and its answer takes nothing from a prompt.
    let plan = step(&[flex(reads), answers], &[], 0, &limits);
    assert_eq!(plan.segments, [sampled(1)]);
    let plan = step(&[reads, flex(answers)], &[], 0, &limits);
    let read = prompt_segment(0, 4..11, false);
    assert_eq!(plan.segments, [read, sampled(1)]);

    // By itself it is as any other.
    let plan = step(&[flex(reads), flex(answers)], &[], 0, &limits);
    let read = prompt_segment(0, 4..6, false);
    assert_eq!(plan.segments, [read, sampled(1)]);

    // Whoever has no room may be waiting for what it holds.
    let room = room::Limits {
        ceiling: 100,
        floor: 3,
        granted: 7,
        refused: 100,
    };
    let plan = step(&[flex(reads), answers], &[], 0, &Limits { room, ..limits });
    assert!(
        matches!(plan.segments[..], [Segment { sequence: 0, .. }]),
        "{plan:?}"
    );
}
