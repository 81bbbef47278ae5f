//! What a worker of any kind may send that was taken over: frames that are changed at random, and
//! frames of little that would become much. The supervisor reads them without a panic, and within a
//! bound of memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use gemmad::chat::{
    ChatError, ChatEvent, Constraint, Done, Finish, PromptToken, TextAnswer, Timings, TokenLogprob,
    Usage,
};
use gemmad::gemma::layout::Class;
use gemmad::ipc::frame::{self, Decoder};
use gemmad::ipc::{
    Decode, DecodeEvent, DecodedMedium, Extent, Extract, ExtractEvent, Fetch, FetchEvent,
    FileMemory, FileRole, Greeting, LoadedModel, MemorySnapshot, Packing, Page, Part, Progress,
    Protocol, Pull, PullEvent, PullHead, Relay, RelayEvent, Serve, ServeEvent, Shows, Sight,
    TemplateSource, Unseen,
};
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Times the bytes of the largest event that may be held while one is read: what came of the
/// channel, which grows by doubling, and what becomes of it.
const TIMES: usize = 10;
/// What is held whatever the bytes are.
const BESIDE: usize = 1 << 20;
/// Bytes of a frame that shows whether it becomes more than it is.
const SMALL: usize = 64 << 10;
/// Elements of a list: what one may have, and as many as there is room for.
const COUNTS: [usize; 4] = [1 << 16, 1 << 18, 1 << 20, usize::MAX];
/// What is read from the channel at a time.
const PIECE: usize = 16 << 10;

/// Counts what each thread holds.
struct Counting;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static MOST: Cell<usize> = const { Cell::new(0) };
}

fn count(more: usize, less: usize) {
    // While a thread ends there is nothing left to count with.
    let _ = HELD.try_with(|held| {
        held.set((held.get() + more).saturating_sub(less));
        let _ = MOST.try_with(|most| most.set(most.get().max(held.get())));
    });
}

// SAFETY: everything is the system's allocator's; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: by this function's own contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: by this function's own contract.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both are there while the one becomes the other.
        count(size, 0);
        count(0, layout.size());
        // SAFETY: by this function's own contract.
        unsafe { System.realloc(place, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// The most that was held beside what was there before.
fn most_held(act: impl FnOnce()) -> usize {
    let before = HELD.get();
    MOST.set(before);
    act();
    MOST.get() - before
}

/// One of each event, with something in each field.
fn serve() -> Vec<ServeEvent> {
    let bytes = || "é".as_bytes().to_vec();
    let top = || vec![(bytes(), -0.5), (vec![], -2.0)];
    let logprobs = || {
        vec![TokenLogprob {
            bytes: bytes(),
            logprob: -0.25,
            top: top(),
        }]
    };
    let text = || "text".to_owned();
    let rated = PromptToken {
        bytes: bytes(),
        logprob: Some(-1.0),
        top: top(),
    };
    let done = Done {
        finish: Finish::StopString(1),
        usage: Usage::default(),
        timings: Timings::default(),
    };
    let part = Part {
        class: Class::Layer(300),
        bytes: 1 << 40,
        resident: 7,
    };
    let file = FileMemory {
        role: FileRole::Packed,
        parts: vec![part, part],
    };
    let error = ChatError::Constraint {
        part: Constraint::Tool(1),
        name: text(),
        path: text(),
        reason: text(),
    };
    let events = [
        ChatEvent::Accepted {
            relaxed: vec![text(), text()],
        },
        ChatEvent::Started {
            prompt_tokens: 300,
            cached_tokens: 1,
        },
        ChatEvent::Prompt {
            tokens: vec![rated],
        },
        ChatEvent::Thought {
            text: text(),
            logprobs: logprobs(),
        },
        ChatEvent::Text {
            text: text(),
            logprobs: logprobs(),
        },
        ChatEvent::CallStarted { name: text() },
        ChatEvent::CallArguments { json: text() },
        ChatEvent::CallEnded,
        ChatEvent::Done(done),
    ];
    let progress = Progress {
        steps: 1 << 40,
        computing: true,
    };
    let answers = [
        TextAnswer::Tokens(vec![(300, bytes()), (1, vec![])]),
        TextAnswer::Bytes(bytes()),
        TextAnswer::Count(300),
    ];
    let mut all = vec![
        ServeEvent::Loaded(LoadedModel {
            context: 8192,
            floor: 8192,
            slots: 2,
            threads: 2,
            load_us: 1 << 40,
            template: TemplateSource::Replaced { why: text() },
            packing: Packing::New {
                instead: Some(text()),
            },
            cpu_variant: Some(text()),
        }),
        ServeEvent::LoadFailed {
            reason: text(),
            out_of_memory: true,
        },
        ServeEvent::Packed,
        ServeEvent::PackedCorrupt { reason: text() },
        ServeEvent::Memory(MemorySnapshot {
            files: vec![file.clone(), file],
            ..MemorySnapshot::default()
        }),
        ServeEvent::Beat {
            decoder: progress,
            encoder: progress,
        },
        ServeEvent::Trimmed {
            before: 1 << 40,
            after: 1,
        },
        ServeEvent::Failed { id: 300, error },
    ];
    let event = |event| ServeEvent::Event { id: 300, event };
    all.extend(events.map(event));
    let answer = |answer| ServeEvent::Text { id: 300, answer };
    all.extend(answers.map(answer));
    all
}

fn extract() -> Vec<ExtractEvent> {
    let page = |sight| Page {
        text: "text".into(),
        sight,
    };
    let shown = Sight::Shown {
        why: Shows::Pictures(20),
        picture: vec![1, 2, 3],
    };
    let unseen = Sight::Unseen {
        why: Shows::Unreadable(10),
        because: Unseen::Context,
    };
    vec![
        ExtractEvent::Page(page(shown)),
        ExtractEvent::Page(page(unseen)),
        ExtractEvent::Page(page(Sight::Told)),
        ExtractEvent::Read(Extent::default()),
        ExtractEvent::Rejected {
            reason: "text".into(),
        },
    ]
}

fn decode() -> Vec<DecodeEvent> {
    vec![
        DecodeEvent::Decoded(DecodedMedium::Picture {
            width: 480,
            height: 336,
        }),
        DecodeEvent::Decoded(DecodedMedium::Sound {
            samples: 16_000,
            silent: false,
            next: None,
        }),
        DecodeEvent::Needs {
            memory: 1 << 40,
            room: 1 << 40,
        },
        DecodeEvent::Rejected {
            reason: "text".into(),
        },
    ]
}

fn fetch() -> Vec<FetchEvent> {
    vec![
        FetchEvent::Piece(vec![1, 2, 3]),
        FetchEvent::Fetched,
        FetchEvent::Redirected { to: "text".into() },
        FetchEvent::Rejected {
            reason: "text".into(),
        },
    ]
}

fn pull() -> Vec<PullEvent> {
    vec![
        PullEvent::Head(PullHead {
            start: 7,
            part: true,
            total: Some(1 << 40),
            etag: Some("text".into()),
        }),
        PullEvent::Ended,
        PullEvent::Redirected {
            to: "text".into(),
            etag: Some("text".into()),
            bytes: Some(7),
        },
        PullEvent::Refused {
            status: 429,
            retry_after: Some(7),
        },
        PullEvent::Broken {
            reason: "text".into(),
            distrusted: true,
        },
    ]
}

fn relay() -> Vec<RelayEvent> {
    vec![
        RelayEvent::Head {
            status: 429,
            retry_after: Some(7),
        },
        RelayEvent::Piece(vec![1, 2, 3]),
        RelayEvent::Ended,
        RelayEvent::Broken {
            reason: "text".into(),
            distrusted: true,
        },
    ]
}

/// The bodies of their frames.
fn bodies<E: Serialize>(events: &[E]) -> Vec<Vec<u8>> {
    let body = |event| {
        let mut frame = vec![];
        frame::encode(event, &mut frame).unwrap();
        frame.split_off(frame::HEADER)
    };
    events.iter().map(body).collect()
}

/// A kind of worker: what it may say, and how the supervisor reads it.
struct Kind {
    name: &'static str,
    bodies: Vec<Vec<u8>>,
    largest: usize,
    read: fn(&[u8], usize),
}

fn kind<P: Protocol>(events: &[P::Event]) -> Kind {
    Kind {
        name: P::KIND.name(),
        bodies: bodies(events),
        largest: P::LARGEST_EVENT,
        read: read::<P::Event>,
    }
}

fn kinds() -> Vec<Kind> {
    vec![
        kind::<Serve>(&serve()),
        kind::<Extract>(&extract()),
        kind::<Decode>(&decode()),
        kind::<Fetch>(&fetch()),
        kind::<Pull>(&pull()),
        kind::<Relay>(&relay()),
    ]
}

/// Reads a frame of this body, in pieces, as from the channel; twice, as a greeting and as an event.
fn read<E: DeserializeOwned>(body: &[u8], limit: usize) {
    let mut decoder = Decoder::with_limit(limit);
    decoder.feed(&(body.len() as u32).to_le_bytes());
    for piece in body.chunks(PIECE) {
        if decoder.next::<E>().is_err() {
            return;
        }
        decoder.feed(piece);
    }
    let mut greeting = Decoder::with_limit(limit);
    if body.len() <= PIECE {
        greeting.feed(&(body.len() as u32).to_le_bytes());
        greeting.feed(body);
        let _ = greeting.next::<Greeting>();
    }
    while let Ok(Some(_)) = decoder.next::<E>() {}
}

/// A number as postcard writes it.
fn varint(mut number: usize) -> Vec<u8> {
    let mut bytes = vec![];
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// What is done to a body.
#[derive(Clone, Debug)]
enum Change {
    Set(usize, u8),
    Insert(usize, Vec<u8>),
    /// A number that is far too large, where a length may be.
    Length(usize, u64),
    Remove(usize, usize),
    Cut(usize),
    Repeat(usize, usize, usize),
}

impl Change {
    fn apply(&self, body: &mut Vec<u8>) {
        let within = |at: usize, body: &Vec<u8>| at % (body.len() + 1);
        match self {
            Self::Set(at, byte) => {
                let at = within(*at, body);
                if let Some(place) = body.get_mut(at) {
                    *place = *byte;
                }
            }
            Self::Insert(at, bytes) => {
                let at = within(*at, body);
                body.splice(at..at, bytes.iter().copied());
            }
            Self::Length(at, number) => {
                let at = within(*at, body);
                let end = (at + 1).min(body.len());
                body.splice(at..end, varint(*number as usize));
            }
            Self::Remove(at, count) => {
                let at = within(*at, body);
                let end = (at + count).min(body.len());
                body.drain(at..end);
            }
            Self::Cut(at) => {
                let at = within(*at, body);
                body.truncate(at);
            }
            Self::Repeat(at, count, times) => {
                let at = within(*at, body);
                let end = (at + count).min(body.len());
                let bytes = body[at..end].repeat(*times);
                body.splice(at..at, bytes);
            }
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    let place = || 0..1000usize;
    prop_oneof![
        4 => (place(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        2 => (place(), prop::collection::vec(any::<u8>(), 1..20)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        2 => (place(), any::<u64>().prop_map(|number| number >> (number % 64))).prop_map(|(at, number)| Change::Length(at, number)),
        1 => (place(), 1..10usize).prop_map(|(at, count)| Change::Remove(at, count)),
        1 => place().prop_map(Change::Cut),
        1 => (place(), 1..10usize, 1..200usize).prop_map(|(at, count, times)| Change::Repeat(at, count, times)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changed_frames_are_read_without_a_panic_and_in_little_memory(
        which in any::<prop::sample::Index>(),
        sample in any::<prop::sample::Index>(),
        changes in prop::collection::vec(change(), 1..6),
    ) {
        let kinds = kinds();
        let kind = which.get(&kinds);
        let mut body = sample.get(&kind.bodies).clone();
        changes.iter().for_each(|change| change.apply(&mut body));
        let held = most_held(|| (kind.read)(&body, kind.largest));
        let bound = TIMES * body.len() + BESIDE;
        prop_assert!(held <= bound, "{}: {held} bytes for a frame of {}", kind.name, body.len());
    }
}

/// Small things that may be elements: empty texts, numbers, tokens; and tokens with as many rivals as
/// they may have.
fn elements() -> Vec<Vec<u8>> {
    let rivals = |token: &[u8]| [token, &varint(255), &[0; 5 * 255]].concat();
    let mut elements: Vec<Vec<u8>> = [1, 2, 3, 5, 6].map(|bytes| vec![0; bytes]).into();
    elements.extend([vec![1; 2], rivals(&[0, 0]), rivals(&[0; 5])]);
    elements
}

#[test]
fn no_frame_becomes_many_times_what_it_is() {
    for kind in kinds() {
        // A list may begin behind any part of an event: what follows is as many elements as fit,
        // each as small as can be.
        let mut heads: Vec<&[u8]> = kind
            .bodies
            .iter()
            .flat_map(|body| (1..=body.len()).map(|end| &body[..end]))
            .collect();
        heads.sort_unstable();
        heads.dedup();
        let mut most = 0;
        for head in heads {
            for element in elements() {
                let held = |bytes: usize, count: usize| {
                    let room = bytes - head.len() - 5;
                    let count = count.min(room / element.len());
                    let mut body = head.to_vec();
                    body.extend(varint(count));
                    body.extend(element.repeat(count));
                    most_held(|| (kind.read)(&body, kind.largest))
                };
                // Few heads begin a list.
                if held(SMALL, SMALL) < 4 * SMALL {
                    continue;
                }
                for count in COUNTS {
                    let held = held(kind.largest, count);
                    most = most.max(held);
                    assert!(
                        held <= TIMES * kind.largest + BESIDE,
                        "{}: {held} bytes for {head:?}, {count} of {} bytes",
                        kind.name,
                        element.len()
                    );
                }
            }
        }
        println!(
            "{}: at most {} KiB, for frames of {} KiB",
            kind.name,
            most >> 10,
            kind.largest >> 10
        );
    }
}
