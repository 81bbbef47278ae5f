mod beside_answers;
mod growing;
mod simulated;

use std::ops::Range;

use super::*;

const OWNER: PrincipalId = PrincipalId::User(1000);

const LIMITS: Limits = Limits {
    batch: 8,
    beside_answers: 8,
    outputs: 4,
    embeddings: 4,
    whole_media: false,
    window: 100,
    room: ROOM,
};

/// Everybody has all that they may have.
const ROOM: room::Limits = room::Limits {
    ceiling: 1 << 20,
    floor: 1 << 20,
    granted: 1 << 30,
    refused: 0,
};

/// A prompt: `.` is a token of text, a letter a medium of six tokens.
fn prompt(text: &str) -> Sequence {
    let mut sequence = Sequence::default();
    for c in text.bytes() {
        match c {
            b'.' => sequence.tokens.push(7),
            medium => sequence.insert([medium; 32], 9, 6),
        }
    }
    sequence
}

/// The first `len` tokens of what a prompt holds.
fn first(prompt: &Sequence, len: usize) -> Sequence {
    let mut cached = prompt.clone();
    cached.truncate(len);
    cached
}

fn free(cached: &Sequence) -> SequenceState<'_> {
    SequenceState {
        cached,
        first_position: Some(0),
        checkpoint: None,
        owner: Some(OWNER),
        last_used: 0,
        reserved: cached.len(),
        request: None,
    }
}

fn busy<'a>(cached: &'a Sequence, prompt: &'a Sequence, medium: MediumState) -> SequenceState<'a> {
    SequenceState {
        request: Some(RunningState {
            prompt,
            fresh: usize::from(cached.len() >= prompt.len()),
            draft: 0,
            medium,
            awaits_mask: false,
            rates_prompt: false,
            tier: ServiceTier::Default,
            stops: Stops::default(),
        }),
        ..free(cached)
    }
}

fn prompt_segment(sequence: usize, range: Range<usize>, logits: bool) -> Segment {
    Segment {
        sequence,
        tokens: Tokens::Prompt(range),
        logits: usize::from(logits),
    }
}

fn sampled(sequence: usize) -> Segment {
    Segment {
        sequence,
        tokens: ONE,
        logits: 1,
    }
}

/// The one token that was sampled last.
const ONE: Tokens = Tokens::Sampled { fresh: 1, draft: 0 };

#[test]
fn tokens_are_tried_where_there_is_room_for_them() {
    let prompt = prompt("..");
    let long = super::tests::prompt(&".".repeat(50));
    let answer = |fresh, draft| {
        let mut state = busy(&prompt, &prompt, MediumState::Raw);
        let request = state.request.as_mut().unwrap();
        (request.fresh, request.draft) = (fresh, draft);
        state
    };
    let segment = |sequence, fresh, draft| Segment {
        sequence,
        tokens: Tokens::Sampled { fresh, draft },
        logits: draft + 1,
    };
    let segments =
        |states: &[SequenceState<'_>], limits: &Limits| step(states, &[], 0, limits).segments;
    // As many as there are rows for.
    assert_eq!(segments(&[answer(1, 2)], &LIMITS), [segment(0, 1, 2)]);
    assert_eq!(segments(&[answer(1, 8)], &LIMITS), [segment(0, 1, 3)]);
    assert_eq!(
        segments(&[answer(3, 8), answer(1, 8)], &LIMITS),
        [segment(0, 3, 2), segment(1, 1, 0)]
    );
    let few = Limits { batch: 4, ..LIMITS };
    assert_eq!(segments(&[answer(2, 8)], &few), [segment(0, 2, 2)]);
    // No further than it may hold.
    let room = room::Limits {
        ceiling: 4,
        floor: 4,
        ..ROOM
    };
    let small = Limits { room, ..LIMITS };
    assert_eq!(segments(&[answer(1, 8)], &small), [segment(0, 1, 1)]);
    // A prompt beside it has what is left; one that is rated has all rows.
    let empty = Sequence::default();
    let mut reading = busy(&empty, &long, MediumState::Raw);
    assert_eq!(
        segments(&[answer(1, 1), reading], &LIMITS),
        [segment(0, 1, 1), prompt_segment(1, 0..6, false)]
    );
    reading.request.as_mut().unwrap().rates_prompt = true;
    let all = Segment {
        logits: 3,
        ..prompt_segment(1, 0..3, false)
    };
    assert_eq!(
        segments(&[answer(1, 1), reading], &LIMITS),
        [segment(0, 1, 0), all]
    );
    let alone = step(&[answer(2, 1)], &[], 0, &LIMITS);
    assert_eq!((alone.lone_answer(), alone.counts()), (Some(3), (0, 1)));
    assert_eq!(step(&[reading], &[], 0, &LIMITS).lone_answer(), None);
}

#[test]
fn nothing_to_do_is_waiting() {
    let empty = Sequence::default();
    let plan = step(&[free(&empty), free(&empty)], &[], 0, &LIMITS);
    let receive = Receive::Wait { idle: true };
    assert_eq!(
        plan,
        StepPlan {
            receive,
            ..StepPlan::default()
        }
    );
}

#[test]
fn a_request_is_admitted_and_decoded_in_one_step() {
    let (empty, prompt) = (Sequence::default(), prompt("...."));
    let cached = first(&prompt, 3);
    let waiting = WaitingState {
        prompt: &prompt,
        owner: OWNER,
        cache_prompt: true,
        rates_prompt: false,
        tier: ServiceTier::Default,
        stops: Stops::default(),
        fetched: None,
    };
    let plan = step(&[free(&empty), free(&cached)], &[waiting], 0, &LIMITS);
    let [one, two] = [(0, 1, 3), (1, 0, 0)].map(|(place, sequence, reuse)| Admission {
        place,
        sequence,
        reserved: prompt.len() + room::ANSWER,
        reuse,
        from: From::Sequence,
    });
    assert_eq!(plan.admissions, [one]);
    assert_eq!(plan.segments, [prompt_segment(1, 3..4, true)]);
    assert_eq!(plan.receive, Receive::Poll, "the other sequence is free");
    // The third has to wait.
    let plan = step(&[free(&empty), free(&cached)], &[waiting; 3], 0, &LIMITS);
    assert_eq!(plan.admissions, [one, two]);
    assert_eq!(plan.receive, Receive::Skip);
}

#[test]
fn answers_and_prompts_share_a_batch() {
    let long = prompt(&".".repeat(50));
    let (some, all) = (first(&long, 10), long.clone());
    let plan = step(
        &[
            busy(&some, &long, MediumState::Raw),
            busy(&all, &long, MediumState::Raw),
        ],
        &[],
        0,
        &LIMITS,
    );
    assert_eq!(
        plan.segments,
        [prompt_segment(0, 10..17, false), sampled(1)]
    );
    assert_eq!(plan.receive, Receive::Skip);
}

#[test]
fn prompts_that_are_rated_share_the_outputs() {
    let long = prompt(&".".repeat(50));
    let (some, all) = (first(&long, 10), long.clone());
    let rated = |cached| {
        let mut state = busy(cached, &long, MediumState::Raw);
        state.request.as_mut().unwrap().rates_prompt = true;
        state
    };
    let segments = |states: &[SequenceState<'_>]| step(states, &[], 0, &LIMITS).segments;
    let all_of = |sequence, range: Range<usize>| Segment {
        logits: range.len(),
        ..prompt_segment(sequence, range, false)
    };
    assert_eq!(segments(&[rated(&some)]), [all_of(0, 10..14)]);
    assert_eq!(
        segments(&[rated(&some), busy(&all, &long, MediumState::Raw)]),
        [all_of(0, 10..13), sampled(1)]
    );
    let other = busy(&some, &long, MediumState::Raw);
    assert_eq!(
        segments(&[rated(&some), other, rated(&some)]),
        [
            all_of(0, 10..11),
            prompt_segment(1, 10..16, false),
            all_of(2, 10..11)
        ]
    );
    // Once it is read it is an answer like any other.
    assert_eq!(segments(&[rated(&all)]), [sampled(0)]);
    // Nothing is gone on from: what is not computed has no logits.
    let waiting = WaitingState {
        prompt: &long,
        owner: OWNER,
        cache_prompt: true,
        rates_prompt: true,
        tier: ServiceTier::Default,
        stops: Stops::default(),
        fetched: Some(FetchedState {
            tokens: 7,
            whole: 7,
        }),
    };
    let plan = step(&[free(&some)], &[waiting], 0, &LIMITS);
    assert_eq!(plan.admissions[0].reuse, 0);
    assert_eq!(plan.segments, [all_of(0, 0..4)]);
}

#[test]
fn an_answer_that_awaits_its_mask_is_left_out() {
    let prompt = prompt("..");
    let mut state = busy(&prompt, &prompt, MediumState::Raw);
    state.request.as_mut().unwrap().awaits_mask = true;
    let plan = step(&[state], &[], 0, &LIMITS);
    assert_eq!(plan.segments, []);
    assert_eq!(plan.receive, Receive::Wait { idle: false });
    let plan = step(
        &[state, busy(&prompt, &prompt, MediumState::Raw)],
        &[],
        0,
        &LIMITS,
    );
    assert_eq!(
        (plan.segments, plan.receive),
        (vec![sampled(1)], Receive::Poll)
    );
}

#[test]
fn a_medium_is_encoded_while_the_text_before_it_is_decoded() {
    let prompt = prompt("..a.b.");
    let (empty, at_a, in_a) = (first(&prompt, 0), first(&prompt, 2), first(&prompt, 6));
    let plan = |cached, medium| step(&[busy(cached, &prompt, medium)], &[], 0, &LIMITS);
    let raw = plan(&empty, MediumState::Raw);
    assert_eq!(raw.encode, [0]);
    assert_eq!(raw.segments, [prompt_segment(0, 0..2, false)]);
    assert_eq!((raw.embeddings, raw.receive), (None, Receive::Poll));
    let encoding = plan(&at_a, MediumState::Encoding);
    assert_eq!((encoding.encode, encoding.segments), (vec![], vec![]));
    assert_eq!(encoding.receive, Receive::Wait { idle: false });
    let piece = |offset, count| {
        Some(EmbeddingsSegment {
            sequence: 0,
            span: prompt.media[0],
            offset,
            count,
        })
    };
    // The text before it and the first piece are of one step.
    let encoded = plan(&empty, MediumState::Encoded);
    assert_eq!(encoded.segments, [prompt_segment(0, 0..2, false)]);
    assert_eq!(encoded.embeddings, piece(0, 4));
    assert_eq!(plan(&in_a, MediumState::Encoded).embeddings, piece(4, 2));
}

#[test]
fn encoded_media_take_turns() {
    let prompt = prompt("a.");
    let empty = Sequence::default();
    let both = [busy(&empty, &prompt, MediumState::Encoded); 2];
    for (turn, sequence) in [(0, 0), (1, 1), (2, 0)] {
        let embeddings = step(&both, &[], turn, &LIMITS).embeddings;
        assert_eq!(embeddings.unwrap().sequence, sequence);
    }
}
