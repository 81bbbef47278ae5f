//! A streamed answer, as server-sent events or as lines of JSON.
//!
//! ```text
//!   Started ─▶ role      Text, Thought, Call… ─▶ a delta each      Done ─▶ finish_reason [, usage], [DONE]
//!                                                                  failure ─▶ error, and no [DONE]
//! ```
//!
//! Lines have no `[DONE]`: they end with the chunk that has a `finish_reason` (or the usage), or
//! with an error.

use axum::body::Bytes;
use serde::Serialize;
use serde_json::json;
use tokio::sync::watch;

use crate::api::choices::{ChoiceEncoder, Total};
use crate::api::error::ApiError;
use crate::api::generation::{Encoder, take, write_event, write_line};
use crate::api::openai::chat::response::{
    ArgumentsOut, CallDelta, CallOut, Chunk, ChunkChoice, Delta, FinishDetails, Head, Logprobs,
};
use crate::api::progress::{Form, Wish};
use crate::api::telling::Teller;
use crate::backend::Failure;
use crate::chat::{ChatEvent, Done, TokenLogprob, Waiting};

const OBJECT: &str = "chat.completion.chunk";

/// What stands around each object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Server-sent events.
    Events,
    Lines,
}

impl Framing {
    fn write(self, buffer: &mut Vec<u8>, data: &impl Serialize) {
        match self {
            Self::Events => write_event(buffer, None, data),
            Self::Lines => write_line(buffer, data),
        }
    }
}

/// What is sent to say how far a request is.
#[derive(Debug)]
pub struct ProgressChunks {
    pub head: Head,
    pub wish: Wish,
    pub framing: Framing,
}

impl ProgressChunks {
    pub fn chunks(&self, waiting: &Waiting) -> Bytes {
        let around = |form| {
            let choices = match form {
                Form::Gemmad => json!([]),
                Form::LlamaCpp => {
                    let delta = json!({ "role": "assistant", "content": null });
                    json!([{ "index": 0, "delta": delta, "finish_reason": null }])
                }
            };
            self.head.around(OBJECT, choices)
        };
        let mut buffer = vec![];
        for chunk in self.wish.told(waiting, around) {
            self.framing.write(&mut buffer, &chunk);
        }
        buffer.into()
    }

    /// Tells of this request, if anything was wished.
    pub fn teller(self, waiting: watch::Receiver<Option<Waiting>>) -> Option<Teller> {
        let is_any = self.wish.is_any();
        is_any.then(|| Teller::new(waiting, move |waiting| self.chunks(waiting)))
    }
}

/// Turns events into what is sent for them.
#[derive(Debug)]
pub struct Chunks {
    head: Head,
    framing: Framing,
    /// Whether a last chunk tells the usage.
    usage: bool,
    /// Whether the client asked for log-probabilities.
    logprobs: bool,
    hides_thoughts: bool,
    /// Calls that have ended, of each answer.
    calls: Vec<u32>,
    /// Of the answers that have ended.
    total: Total,
    /// Kept from event to event for its memory; empty in between.
    buffer: Vec<u8>,
}

impl Chunks {
    pub fn new(head: Head, usage: bool, logprobs: bool) -> Self {
        Self {
            head,
            framing: Framing::Events,
            usage,
            logprobs,
            hides_thoughts: false,
            calls: vec![0],
            total: Total::default(),
            buffer: vec![],
        }
    }

    /// The same for several answers to one prompt.
    pub fn of(self, answers: u32) -> Self {
        Self {
            calls: vec![0; answers as usize],
            ..self
        }
    }

    /// Leaves out what the model thinks, if so.
    pub fn hiding_thoughts(self, hides_thoughts: bool) -> Self {
        Self {
            hides_thoughts,
            ..self
        }
    }

    pub fn framed(self, framing: Framing) -> Self {
        Self { framing, ..self }
    }

    fn call(&mut self, choice: usize, start: Option<&CallOut>, function: Option<ArgumentsOut>) {
        let call = CallDelta {
            index: self.calls[choice],
            start,
            function,
        };
        self.delta(
            choice,
            Delta {
                tool_calls: Some([call]),
                ..Delta::default()
            },
            &[],
            &[],
        );
    }

    fn delta(
        &mut self,
        choice: usize,
        delta: Delta,
        content: &[TokenLogprob],
        thought: &[TokenLogprob],
    ) {
        let any = self.logprobs && !(content.is_empty() && thought.is_empty());
        let logprobs = any.then_some(Logprobs {
            content,
            reasoning_content: thought,
            refusal: (),
        });
        let choices = [ChunkChoice {
            index: choice as u32,
            delta,
            logprobs,
            finish_reason: None,
            finish_details: None,
        }];
        let usage = self.usage.then_some(None);
        self.framing.write(
            &mut self.buffer,
            &Chunk {
                head: &self.head,
                object: OBJECT,
                choices: &choices,
                usage,
                timings: None,
            },
        );
    }

    fn end(&mut self, choice: usize, done: &Done) {
        self.total.add(done, self.total.answers > 0);
        let choices = [ChunkChoice {
            index: choice as u32,
            delta: Delta::default(),
            logprobs: None,
            finish_reason: Some(done.finish.into()),
            finish_details: FinishDetails::of(done.finish),
        }];
        let last = Chunk {
            head: &self.head,
            object: OBJECT,
            choices: &choices,
            usage: self.usage.then_some(None),
            timings: Some(done.into()),
        };
        self.framing.write(&mut self.buffer, &last);
        if (self.total.answers as usize) < self.calls.len() {
            return;
        }
        if self.usage {
            let usage = Some(Some(self.total.usage.into()));
            self.framing.write(
                &mut self.buffer,
                &Chunk {
                    head: &self.head,
                    object: OBJECT,
                    choices: &[],
                    usage,
                    timings: None,
                },
            );
        }
        if self.framing == Framing::Events {
            self.buffer.extend_from_slice(b"data: [DONE]\n\n");
        }
    }
}

impl Encoder for Chunks {
    fn event(&mut self, event: ChatEvent) -> Bytes {
        self.choice(0, event)
    }

    fn failure(&mut self, failure: Failure) -> Bytes {
        self.broken(failure)
    }
}

impl ChoiceEncoder for Chunks {
    fn choice(&mut self, choice: usize, event: ChatEvent) -> Bytes {
        match event {
            ChatEvent::Started { .. } => {
                let start = Delta {
                    role: Some("assistant"),
                    content: Some(""),
                    ..Delta::default()
                };
                self.delta(choice, start, &[], &[]);
            }
            ChatEvent::Text { text, logprobs } => {
                let delta = Delta {
                    content: Some(&text),
                    ..Delta::default()
                };
                self.delta(choice, delta, &logprobs, &[]);
            }
            ChatEvent::Thought { .. } if self.hides_thoughts => {}
            ChatEvent::Thought { text, logprobs } => {
                let delta = Delta {
                    reasoning_content: Some(&text),
                    ..Delta::default()
                };
                self.delta(choice, delta, &[], &logprobs);
            }
            ChatEvent::CallStarted { name } => self.call(choice, Some(&CallOut::new(name)), None),
            ChatEvent::CallArguments { json } => {
                self.call(choice, None, Some(ArgumentsOut { arguments: &json }));
            }
            ChatEvent::Accepted { .. } => {}
            // The next call's first delta says as much.
            ChatEvent::CallEnded => self.calls[choice] += 1,
            // Only answers that are sent whole start over, and only texts have prompts that are rated.
            ChatEvent::Restarted | ChatEvent::Prompt { .. } => {}
            ChatEvent::Done(done) => self.end(choice, &done),
        }
        take(&mut self.buffer)
    }

    fn broken(&mut self, failure: Failure) -> Bytes {
        let error = ApiError::from(failure);
        match self.framing {
            Framing::Events => error.event(),
            Framing::Lines => (error.json() + "\n").into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{ChatError, Finish, Timings, Usage};
    use serde_json::{Value, json};

    fn chunks(usage: bool, logprobs: bool) -> Chunks {
        let head = Head {
            id: "chatcmpl-1".into(),
            created: 7,
            model: "tiny".into(),
            system_fingerprint: "gemmad-test",
        };
        Chunks::new(head, usage, logprobs)
    }

    /// The payloads of server-sent events.
    fn data(bytes: &[u8]) -> Vec<String> {
        let text = std::str::from_utf8(bytes).unwrap();
        assert!(text.ends_with("\n\n"));
        text.split("\n\n")
            .filter(|event| !event.is_empty())
            .map(|event| event.strip_prefix("data: ").unwrap().to_owned())
            .collect()
    }

    fn one(bytes: &[u8]) -> Value {
        let data = data(bytes);
        assert_eq!(data.len(), 1);
        serde_json::from_str(&data[0]).unwrap()
    }

    fn done() -> ChatEvent {
        ChatEvent::Done(Done {
            finish: Finish::Stop,
            usage: Usage {
                prompt_tokens: 10,
                cached_tokens: 4,
                completion_tokens: 20,
                reasoning_tokens: 5,
            },
            timings: Timings {
                prompt_us: 3_000,
                predicted_us: 40_000,
            },
        })
    }

    fn text(text: &str) -> ChatEvent {
        ChatEvent::Text {
            text: text.into(),
            logprobs: vec![],
        }
    }

    #[test]
    fn an_answer_from_start_to_end() {
        let mut chunks = chunks(false, false);
        let chunk = |delta: Value| {
            json!({"id": "chatcmpl-1", "created": 7, "model": "tiny", "system_fingerprint": "gemmad-test",
                "object": "chat.completion.chunk",
                "choices": [{"index": 0, "delta": delta, "logprobs": null, "finish_reason": null}]})
        };
        let started = chunks.event(ChatEvent::Started {
            prompt_tokens: 10,
            cached_tokens: 4,
        });
        assert_eq!(
            one(&started),
            chunk(json!({"role": "assistant", "content": ""}))
        );
        let thought = chunks.event(ChatEvent::Thought {
            text: "hm".into(),
            logprobs: vec![],
        });
        assert_eq!(one(&thought), chunk(json!({"reasoning_content": "hm"})));
        assert_eq!(
            one(&chunks.event(text("a\n\n\"é"))),
            chunk(json!({"content": "a\n\n\"é"}))
        );

        let end = data(&chunks.event(done()));
        assert_eq!(end[1..], ["[DONE]"]);
        let last: Value = serde_json::from_str(&end[0]).unwrap();
        assert_eq!(
            last["choices"],
            json!([{"index": 0, "delta": {}, "logprobs": null, "finish_reason": "stop"}])
        );
        assert_eq!(
            last["timings"],
            json!({"cache_n": 4, "prompt_n": 6, "prompt_ms": 3.0, "prompt_per_second": 2000.0,
                "predicted_n": 20, "predicted_ms": 40.0, "predicted_per_second": 475.0})
        );
        assert!(last.get("usage").is_none());
    }

    #[test]
    fn usage_comes_after_the_end_and_is_null_before() {
        let mut chunks = chunks(true, false);
        let first = one(&chunks.event(text("a")));
        assert_eq!(first.get("usage"), Some(&Value::Null));
        let end = data(&chunks.event(done()));
        assert_eq!(end.len(), 3);
        let finish: Value = serde_json::from_str(&end[0]).unwrap();
        assert_eq!(finish.get("usage"), Some(&Value::Null));
        let usage: Value = serde_json::from_str(&end[1]).unwrap();
        assert_eq!(usage["choices"], json!([]));
        assert_eq!(
            usage["usage"],
            json!({"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30,
                "prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens_details": {"reasoning_tokens": 5}})
        );
    }

    #[test]
    fn calls_are_counted_and_named() {
        let mut chunks = chunks(false, false);
        let mut ids = vec![];
        for (index, name) in ["f", "g"].into_iter().enumerate() {
            let first = one(&chunks.event(ChatEvent::CallStarted { name: name.into() }));
            let call = &first["choices"][0]["delta"]["tool_calls"][0];
            assert_eq!(
                (&call["index"], &call["type"]),
                (&json!(index), &json!("function"))
            );
            assert_eq!(call["function"], json!({"name": name, "arguments": ""}));
            ids.push(call["id"].as_str().unwrap().to_owned());
            let second = one(&chunks.event(ChatEvent::CallArguments {
                json: "{\"a\":1}".into(),
            }));
            let expected = json!([{"index": index, "function": {"arguments": "{\"a\":1}"}}]);
            assert_eq!(second["choices"][0]["delta"]["tool_calls"], expected);
            assert!(chunks.event(ChatEvent::CallEnded).is_empty());
        }
        assert!(ids[0].starts_with("call_"));
        assert_ne!(ids[0], ids[1]);
    }

    #[test]
    fn logprobs_show_what_is_no_text() {
        let mut chunks = chunks(false, true);
        let token = TokenLogprob {
            bytes: vec![0xc3],
            logprob: -0.5,
            top: vec![(b"a".to_vec(), f32::NEG_INFINITY)],
        };
        let chunk = one(&chunks.event(ChatEvent::Text {
            text: "é".into(),
            logprobs: vec![token.clone()],
        }));
        assert_eq!(
            chunk["choices"][0]["logprobs"],
            json!({"content": [{"token": "\u{fffd}", "logprob": -0.5, "bytes": [195],
                "top_logprobs": [{"token": "a", "logprob": -9999.0, "bytes": [97]}]}], "refusal": null})
        );
        let thought = one(&chunks.event(ChatEvent::Thought {
            text: "é".into(),
            logprobs: vec![token],
        }));
        assert_eq!(thought["choices"][0]["logprobs"]["content"], json!([]));
        assert_eq!(
            thought["choices"][0]["logprobs"]["reasoning_content"][0]["bytes"],
            json!([195])
        );
    }

    #[test]
    fn a_broken_answer_has_no_done() {
        let sent = chunks(true, false).failure(Failure::Chat(ChatError::Inference {
            reason: "out of memory".into(),
        }));
        assert_eq!(one(&sent)["error"]["code"], "inference_failed");
    }

    #[test]
    fn lines_are_the_same_objects() {
        let mut lines = chunks(true, false).framed(Framing::Lines);
        let end = lines.event(done());
        let end: Vec<Value> = std::str::from_utf8(&end)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(
            (end.len(), &end[0]["choices"][0]["finish_reason"]),
            (2, &json!("stop"))
        );
        let failure = lines.failure(Failure::ShuttingDown);
        assert!(failure.starts_with(b"{\"error\":") && failure.ends_with(b"\n"));
    }

    #[test]
    fn a_token_costs_microseconds() {
        let mut chunks = chunks(true, false);
        let start = std::time::Instant::now();
        for _ in 0..10_000 {
            std::hint::black_box(chunks.event(text(" word")));
        }
        // About one microsecond; the promise for all of the daemon is 50.
        assert!(
            start.elapsed().as_micros() < 10_000 * 20,
            "{:?} for 10,000 tokens",
            start.elapsed()
        );
    }

    /// What the daemon adds to a token: `cargo test --release --lib -- --ignored --nocapture
    /// parsing_and_rendering`
    #[test]
    #[ignore = "a measurement"]
    fn parsing_and_rendering() {
        use crate::gemma::parse::Parser;
        use crate::gemma::tracker::{AnswerTracker, Token};
        const TOKENS: usize = 100_000;
        let said = "The sky is blue because air scatters short waves of light more than long ones. Größe, 青い空, naïve. ";
        let thought = [Token::Control("<|channel>"), Token::Bytes(b"thought\n")];
        let call = [
            Token::Control("<|tool_call>"),
            Token::Bytes(b"call:write"),
            Token::Bytes(b"{text:"),
            Token::Control("<|\"|>"),
        ];
        for (name, begin) in [("text", &[][..]), ("thoughts", &thought), ("a call", &call)] {
            let mut chunks = chunks(true, false);
            let (mut parser, mut events, mut bytes) =
                (Parser::new(vec!["\n\nUser:".into()], false), vec![], 0);
            let mut tracker = AnswerTracker::new(false);
            let start = std::time::Instant::now();
            for token in begin.iter().copied().chain(
                said.as_bytes()
                    .chunks(4)
                    .cycle()
                    .take(TOKENS)
                    .map(Token::Bytes),
            ) {
                parser.push(token, tracker.take(token), None, &mut events);
                bytes += events
                    .drain(..)
                    .map(|event| chunks.event(event).len())
                    .sum::<usize>();
            }
            let each = start.elapsed() / TOKENS as u32;
            println!("{name}: {each:?} for each of {TOKENS} tokens of 4 bytes, {bytes} bytes sent");
        }
    }
}
