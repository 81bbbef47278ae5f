//! The parts of an answer, for shapes that tell where each begins and ends.
//!
//! ```text
//!   Thought… ─▶ one thought     Text… ─▶ one text     CallStarted CallArguments… CallEnded ─▶ one call
//! ```

use crate::api::id;
use crate::chat::{ChatEvent, TokenLogprob};

/// One thought, text or call.
#[derive(Debug)]
pub struct Part {
    pub kind: Kind,
    /// Names it within all answers; shapes put their own prefix before it.
    pub key: String,
    /// What was thought or said, or the call's arguments as JSON.
    pub text: String,
    pub logprobs: Vec<TokenLogprob>,
    /// It has an end: only then are a call's arguments a JSON object.
    pub complete: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Thought,
    Text,
    Call { name: String },
}

/// What an event does to a part.
#[derive(Debug)]
pub enum Change<'a> {
    Opened,
    Grew {
        delta: &'a str,
        logprobs: &'a [TokenLogprob],
    },
    Closed,
}

/// An answer as far as it has come. Bounded by the limit on output tokens.
#[derive(Debug, Default)]
pub struct Parts {
    list: Vec<Part>,
    /// The last of them goes on.
    open: bool,
}

impl Parts {
    pub fn list(&self) -> &[Part] {
        &self.list
    }

    /// Takes an event in and shows every change that it makes, with the part's place.
    pub fn event(&mut self, event: &ChatEvent, mut see: impl FnMut(usize, &Part, Change)) {
        match event {
            ChatEvent::Accepted { .. } | ChatEvent::Started { .. } | ChatEvent::Prompt { .. } => {}
            ChatEvent::Restarted => *self = Self::default(),
            ChatEvent::Thought { text, logprobs } => {
                self.grow(Kind::Thought, text, logprobs, &mut see)
            }
            ChatEvent::Text { text, logprobs } => self.grow(Kind::Text, text, logprobs, &mut see),
            ChatEvent::CallStarted { name } => {
                // Two calls of one function are two parts.
                self.close(true, &mut see);
                self.open(Kind::Call { name: name.clone() }, &mut see);
            }
            ChatEvent::CallArguments { json } => {
                let Some(Part {
                    kind: call @ Kind::Call { .. },
                    ..
                }) = self.list.last().filter(|_| self.open)
                else {
                    return;
                };
                self.grow(call.clone(), json, &[], &mut see);
            }
            ChatEvent::CallEnded => self.close(true, &mut see),
            ChatEvent::Done(_) => {
                let cut = self
                    .list
                    .last()
                    .is_some_and(|part| matches!(part.kind, Kind::Call { .. }));
                self.close(!cut, &mut see);
            }
        }
    }

    fn grow(
        &mut self,
        kind: Kind,
        delta: &str,
        logprobs: &[TokenLogprob],
        see: &mut impl FnMut(usize, &Part, Change),
    ) {
        if !self.open || self.list.last().is_none_or(|part| part.kind != kind) {
            self.close(true, see);
            self.open(kind, see);
        }
        let place = self.list.len() - 1;
        let part = &mut self.list[place];
        part.text.push_str(delta);
        part.logprobs.extend_from_slice(logprobs);
        see(place, part, Change::Grew { delta, logprobs });
    }

    fn open(&mut self, kind: Kind, see: &mut impl FnMut(usize, &Part, Change)) {
        let part = Part {
            kind,
            key: id::random(""),
            text: String::new(),
            logprobs: vec![],
            complete: false,
        };
        see(self.list.len(), &part, Change::Opened);
        self.list.push(part);
        self.open = true;
    }

    fn close(&mut self, complete: bool, see: &mut impl FnMut(usize, &Part, Change)) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        let place = self.list.len() - 1;
        self.list[place].complete = complete;
        see(place, &self.list[place], Change::Closed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{Done, Finish, Timings, Usage};
    use proptest::prelude::*;

    fn text(text: &str) -> ChatEvent {
        ChatEvent::Text {
            text: text.into(),
            logprobs: vec![],
        }
    }

    fn thought(text: &str) -> ChatEvent {
        ChatEvent::Thought {
            text: text.into(),
            logprobs: vec![],
        }
    }

    fn call(name: &str) -> ChatEvent {
        ChatEvent::CallStarted { name: name.into() }
    }

    fn arguments(json: &str) -> ChatEvent {
        ChatEvent::CallArguments { json: json.into() }
    }

    fn done() -> ChatEvent {
        ChatEvent::Done(Done {
            finish: Finish::Stop,
            usage: Usage::default(),
            timings: Timings::default(),
        })
    }

    /// Parts as what they are, what they say, and whether they are complete.
    type Said = Vec<(Kind, String, bool)>;

    /// The parts, as they are in the end and as their changes add up.
    fn run(events: &[ChatEvent]) -> (Said, Said) {
        let (mut parts, mut seen) = (Parts::default(), Said::new());
        for event in events {
            parts.event(event, |place, part, change| match change {
                Change::Opened => {
                    assert_eq!(place, seen.len());
                    seen.push((part.kind.clone(), String::new(), false));
                }
                Change::Grew { delta, .. } => seen[place].1.push_str(delta),
                Change::Closed => seen[place].2 = part.complete,
            });
        }
        let kept = parts
            .list()
            .iter()
            .map(|part| (part.kind.clone(), part.text.clone(), part.complete))
            .collect();
        (kept, seen)
    }

    fn f() -> Kind {
        Kind::Call { name: "f".into() }
    }

    #[test]
    fn each_part_begins_and_ends_once() {
        let events = [
            thought("a"),
            thought("b"),
            text("c"),
            call("f"),
            arguments("{"),
            arguments("}"),
            ChatEvent::CallEnded,
            call("f"),
        ];
        let tail = [arguments("{}"), ChatEvent::CallEnded, text("d"), done()];
        let (kept, seen) = run(&events.into_iter().chain(tail).collect::<Vec<_>>());
        let part = |kind, text: &str| (kind, text.to_owned(), true);
        let calls = [part(f(), "{}"), part(f(), "{}")];
        assert_eq!(
            kept,
            [
                &[part(Kind::Thought, "ab"), part(Kind::Text, "c")],
                &calls[..],
                &[part(Kind::Text, "d")]
            ]
            .concat()
        );
        assert_eq!(seen, kept);
    }

    #[test]
    fn a_call_that_is_cut_off_is_not_complete() {
        assert_eq!(
            run(&[call("f"), arguments("{\"a"), done()]).0,
            [(f(), "{\"a".into(), false)]
        );
        assert_eq!(
            run(&[text("a"), done()]).0,
            [(Kind::Text, "a".into(), true)]
        );
        assert_eq!(run(&[done()]).0, []);
    }

    proptest! {
        /// However a text is cut into events, the parts are the same.
        #[test]
        fn any_split_gives_the_same_parts(kinds in prop::collection::vec((0u8..3, "[a-zé]{1,12}"), 0..8), cut in 1usize..5) {
            let split = |size: usize| {
                let mut events = vec![];
                for (kind, content) in &kinds {
                    let letters: Vec<char> = content.chars().collect();
                    let pieces = letters.chunks(size).map(|piece| piece.iter().collect::<String>());
                    match kind {
                        0 => events.extend(pieces.map(|piece| text(&piece))),
                        1 => events.extend(pieces.map(|piece| thought(&piece))),
                        _ => {
                            events.push(call("f"));
                            events.extend(pieces.map(|piece| arguments(&piece)));
                            events.push(ChatEvent::CallEnded);
                        }
                    }
                }
                events.push(done());
                run(&events)
            };
            let (kept, seen) = split(cut);
            prop_assert_eq!(&kept, &seen);
            prop_assert_eq!(kept, split(usize::MAX).0);
        }
    }
}
