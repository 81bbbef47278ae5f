//! Answers of `/api/chat` and `/api/generate`: whole, or as lines of JSON of which the last says why the
//! answer ends and what it took.
//!
//! A call is told when it is complete; one that was cut off is left out.

use std::time::{Duration, Instant, SystemTime};

use axum::body::Bytes;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::api::error::ApiError;
use crate::api::generation::{Encoder, take, write_line};
use crate::api::ollama::error::OllamaError;
use crate::api::ollama::models::shown;
use crate::api::ollama::request::{Endpoint, Kind};
use crate::api::openai::chat::response::{FinishDetails, tokens};
use crate::api::{id, render};
use crate::backend::Failure;
use crate::chat::timestamp::rfc3339;
use crate::chat::{ChatEvent, Done, Finish, TokenLogprob};

/// A piece of an answer, or all of it.
#[derive(Serialize)]
struct Piece<'a> {
    model: &'a str,
    created_at: String,
    #[serde(flatten)]
    said: SaidOut<'a>,
    done: bool,
    #[serde(flatten)]
    end: Option<End>,
    #[serde(skip_serializing_if = "<[_]>::is_empty", serialize_with = "rated")]
    logprobs: &'a [TokenLogprob],
}

/// What is said, as each endpoint has it.
#[derive(Serialize)]
#[serde(untagged)]
enum SaidOut<'a> {
    Chat {
        message: MessageOut<'a>,
    },
    Generate {
        response: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        thinking: &'a str,
    },
}

#[derive(Serialize)]
struct MessageOut<'a> {
    role: &'static str,
    content: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    thinking: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    tool_calls: &'a [CallOut],
}

#[derive(Debug, Serialize)]
struct CallOut {
    id: String,
    function: FunctionOut,
}

#[derive(Debug, Serialize)]
struct FunctionOut {
    index: usize,
    name: String,
    /// An object.
    arguments: Box<RawValue>,
}

/// Times are nanoseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct End {
    done_reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    finish_details: Option<FinishDetails>,
    total_duration: u64,
    /// Until the prompt's turn came: the queue, and the model if it was not in memory.
    load_duration: u64,
    prompt_eval_count: u32,
    prompt_eval_duration: u64,
    eval_count: u32,
    eval_duration: u64,
}

fn rated<S: Serializer>(list: &&[TokenLogprob], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(tokens(list))
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// When what happened to a request.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    asked: Instant,
    /// From there until the prompt was read.
    read: Duration,
}

impl Clock {
    /// It is asked now.
    pub fn start() -> Self {
        Self {
            asked: Instant::now(),
            read: Duration::ZERO,
        }
    }

    fn end(self, done: &Done) -> End {
        let prompt = Duration::from_micros(done.timings.prompt_us);
        let eval = Duration::from_micros(done.timings.predicted_us);
        let total = self.asked.elapsed();
        // What passes between the processes is in none of the worker's times, or in two.
        let load = self.read.saturating_sub(prompt);
        let load = load.min(total.saturating_sub(prompt + eval));
        End {
            done_reason: match done.finish {
                Finish::Stop | Finish::StopString(_) | Finish::ToolCalls => "stop",
                Finish::Length | Finish::Repetition => "length",
            },
            finish_details: FinishDetails::of(done.finish),
            total_duration: nanos(total),
            load_duration: nanos(load),
            prompt_eval_count: done.usage.prompt_tokens,
            prompt_eval_duration: nanos(prompt),
            eval_count: done.usage.completion_tokens,
            eval_duration: nanos(eval),
        }
    }

    /// The end of a request that asked nothing.
    fn idle(self, done_reason: &'static str) -> End {
        let took = nanos(self.asked.elapsed());
        End {
            done_reason,
            total_duration: took,
            load_duration: took,
            ..End::default()
        }
    }
}

/// What a call has of itself so far.
#[derive(Debug)]
struct OpenCall {
    name: String,
    arguments: String,
}

/// What was said since it was last told. Bounded by the limit on output tokens.
#[derive(Debug, Default)]
struct Said {
    content: String,
    thinking: String,
    calls: Vec<CallOut>,
    logprobs: Vec<TokenLogprob>,
}

impl Said {
    fn out(&self, kind: Kind) -> SaidOut<'_> {
        match kind {
            Kind::Chat => SaidOut::Chat {
                message: MessageOut {
                    role: "assistant",
                    content: &self.content,
                    thinking: &self.thinking,
                    tool_calls: &self.calls,
                },
            },
            Kind::Generate => SaidOut::Generate {
                response: &self.content,
                thinking: &self.thinking,
            },
        }
    }

    fn is_empty(&self) -> bool {
        let Self {
            content,
            thinking,
            calls,
            logprobs,
        } = self;
        content.is_empty() && thinking.is_empty() && calls.is_empty() && logprobs.is_empty()
    }

    fn clear(&mut self) {
        self.content.clear();
        self.thinking.clear();
        self.calls.clear();
        self.logprobs.clear();
    }
}

/// An answer that comes, told in pieces or whole.
pub struct Telling {
    endpoint: Endpoint,
    /// As clients of this API know it.
    model: String,
    clock: Clock,
    said: Said,
    open: Option<OpenCall>,
    /// Calls that have ended.
    calls: usize,
    buffer: Vec<u8>,
}

impl Telling {
    /// The answer of the model of this id.
    pub fn new(endpoint: Endpoint, model: &str, clock: Clock) -> Self {
        Self {
            endpoint,
            model: shown(model),
            clock,
            said: Said::default(),
            open: None,
            calls: 0,
            buffer: vec![],
        }
    }

    /// Takes an event in, or hands back the last one.
    pub fn hear(&mut self, event: ChatEvent) -> Option<Done> {
        match event {
            ChatEvent::Accepted { .. } | ChatEvent::Prompt { .. } => {}
            ChatEvent::Started { .. } => self.clock.read = self.clock.asked.elapsed(),
            ChatEvent::Text { text, mut logprobs } => {
                self.said.content.push_str(&text);
                self.said.logprobs.append(&mut logprobs);
            }
            ChatEvent::Thought { text, mut logprobs } => {
                self.said.thinking.push_str(&text);
                self.said.logprobs.append(&mut logprobs);
            }
            ChatEvent::CallStarted { name } => {
                self.open = Some(OpenCall {
                    name,
                    arguments: String::new(),
                });
            }
            ChatEvent::CallArguments { json } => {
                if let Some(call) = &mut self.open {
                    call.arguments.push_str(&json);
                }
            }
            ChatEvent::CallEnded => {
                let call = self.open.take();
                let ended = call.and_then(|OpenCall { name, arguments }| {
                    let arguments = RawValue::from_string(arguments).ok()?;
                    let index = self.calls;
                    Some(CallOut {
                        id: id::random("call_"),
                        function: FunctionOut {
                            index,
                            name,
                            arguments,
                        },
                    })
                });
                self.calls += usize::from(ended.is_some());
                self.said.calls.extend(ended);
            }
            ChatEvent::Restarted => {
                self.said.clear();
                (self.open, self.calls) = (None, 0);
            }
            ChatEvent::Done(done) => return Some(done),
        }
        None
    }

    fn piece(&self, end: Option<End>) -> Piece<'_> {
        Piece {
            model: &self.model,
            created_at: rfc3339(SystemTime::now()),
            said: self.said.out(self.endpoint.kind),
            done: end.is_some(),
            end,
            logprobs: &self.said.logprobs,
        }
    }

    /// All that was said, by the model of this id.
    pub fn whole(&mut self, model: &str, done: &Done) -> String {
        self.model = shown(model);
        render(&self.piece(Some(self.clock.end(done))))
    }

    /// The answer to a request that asked nothing.
    pub fn idle(&self, done_reason: &'static str) -> String {
        render(&self.piece(Some(self.clock.idle(done_reason))))
    }
}

impl Encoder for Telling {
    fn event(&mut self, event: ChatEvent) -> Bytes {
        let done = self.hear(event);
        let mut buffer = std::mem::take(&mut self.buffer);
        // What came last is told before the end, in a line of its own.
        if !self.said.is_empty() {
            write_line(&mut buffer, &self.piece(None));
            self.said.clear();
        }
        if let Some(done) = done {
            write_line(&mut buffer, &self.piece(Some(self.clock.end(&done))));
        }
        self.buffer = buffer;
        take(&mut self.buffer)
    }

    fn failure(&mut self, failure: Failure) -> Bytes {
        let error = ApiError::failure(failure, |place| self.endpoint.field(place));
        OllamaError(error).line()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{Timings, Usage};
    use serde_json::{Value, json};

    fn telling(kind: Kind) -> Telling {
        let endpoint = Endpoint {
            kind,
            system: false,
        };
        Telling::new(endpoint, "tiny", Clock::start())
    }

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

    fn done(finish: Finish) -> ChatEvent {
        ChatEvent::Done(Done {
            finish,
            usage: Usage {
                prompt_tokens: 10,
                cached_tokens: 4,
                completion_tokens: 3,
                reasoning_tokens: 0,
                drafted: Default::default(),
            },
            timings: Timings {
                prompt_us: 5,
                predicted_us: 7,
            },
        })
    }

    /// The lines that these events become, without their times.
    fn lines(kind: Kind, events: Vec<ChatEvent>) -> Vec<Value> {
        let mut telling = telling(kind);
        let mut lines = vec![];
        for event in events {
            let bytes = telling.event(event);
            let text = std::str::from_utf8(&bytes).unwrap();
            assert!(text.is_empty() || text.ends_with('\n'));
            lines.extend(text.lines().map(untimed));
        }
        lines
    }

    fn untimed(line: &str) -> Value {
        let mut line: Value = serde_json::from_str(line).unwrap();
        let fields = line.as_object_mut().unwrap();
        assert!(
            fields
                .remove("created_at")
                .unwrap()
                .as_str()
                .unwrap()
                .ends_with('Z')
        );
        for name in ["total_duration", "load_duration"] {
            fields.remove(name);
        }
        line
    }

    fn call(name: &str, arguments: &[&str]) -> Vec<ChatEvent> {
        let mut events = vec![ChatEvent::CallStarted { name: name.into() }];
        events.extend(arguments.iter().map(|json| ChatEvent::CallArguments {
            json: (*json).into(),
        }));
        events
    }

    fn end(reason: &str) -> Value {
        json!({"done_reason": reason, "prompt_eval_count": 10, "prompt_eval_duration": 5000, "eval_count": 3, "eval_duration": 7000})
    }

    fn with(mut line: Value, end: Value) -> Value {
        line.as_object_mut()
            .unwrap()
            .extend(end.as_object().unwrap().clone());
        line
    }

    #[test]
    fn a_chat_in_lines() {
        let started = ChatEvent::Started {
            prompt_tokens: 10,
            cached_tokens: 4,
        };
        let mut events = vec![started, thought("hm"), text("a")];
        events.extend(call("f", &["{\"z\":1,", "\"a\":2}"]));
        events.push(ChatEvent::CallEnded);
        // It is cut off.
        events.extend(call("g", &["{"]));
        events.push(done(Finish::Length));
        let lines = lines(Kind::Chat, events);
        let piece =
            |message: Value| json!({"model": "tiny:latest", "message": message, "done": false});
        assert_eq!(
            lines[0],
            piece(json!({"role": "assistant", "content": "", "thinking": "hm"}))
        );
        assert_eq!(
            lines[1],
            piece(json!({"role": "assistant", "content": "a"}))
        );
        let called = &lines[2]["message"]["tool_calls"][0];
        assert_eq!(
            called["function"].to_string(),
            r#"{"index":0,"name":"f","arguments":{"z":1,"a":2}}"#
        );
        assert!(called["id"].as_str().unwrap().starts_with("call_"));
        let last = json!({"model": "tiny:latest", "message": {"role": "assistant", "content": ""}, "done": true});
        assert_eq!(lines[3], with(last, end("length")));
        assert_eq!(lines.len(), 4);
    }

    #[test]
    fn a_text_in_lines() {
        let lines = lines(
            Kind::Generate,
            vec![thought("hm"), text("a"), done(Finish::StopString(0))],
        );
        let piece = |response: &str, done: bool| json!({"model": "tiny:latest", "response": response, "done": done});
        assert_eq!(lines[0], with(piece("", false), json!({"thinking": "hm"})));
        assert_eq!(lines[1], piece("a", false));
        assert_eq!(lines[2], with(piece("", true), end("stop")));
    }

    #[test]
    fn a_whole_answer_has_everything_once() {
        let mut telling = telling(Kind::Chat);
        let mut events = vec![
            text("void"),
            ChatEvent::Restarted,
            thought("h"),
            thought("m"),
        ];
        events.extend([text("a"), text("b")]);
        events.extend(call("f", &["{}"]));
        events.push(ChatEvent::CallEnded);
        for event in events {
            assert_eq!(telling.hear(event), None);
        }
        let ended = telling.hear(done(Finish::Repetition)).unwrap();
        let whole = untimed(&telling.whole("other", &ended));
        assert_eq!(
            (
                &whole["model"],
                &whole["message"]["content"],
                &whole["message"]["thinking"]
            ),
            (&json!("other:latest"), &json!("ab"), &json!("hm"))
        );
        assert_eq!(whole["message"]["tool_calls"].as_array().unwrap().len(), 1);
        assert_eq!(
            (&whole["done_reason"], &whole["finish_details"]["type"]),
            (&json!("length"), &json!("repetition"))
        );
    }

    #[test]
    fn log_probabilities_come_with_their_text() {
        let rated = ChatEvent::Text {
            text: "a".into(),
            logprobs: vec![TokenLogprob {
                bytes: b"a".into(),
                logprob: -0.5,
                top: vec![(b"b".into(), -1.5)],
            }],
        };
        let lines = lines(Kind::Generate, vec![rated, done(Finish::Stop)]);
        assert_eq!(
            lines[0]["logprobs"],
            json!([{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": [{"token": "b", "logprob": -1.5, "bytes": [98]}]}])
        );
        assert_eq!(lines[1].get("logprobs"), None);
    }

    #[test]
    fn an_answer_that_breaks_off_ends_with_an_error() {
        let line = telling(Kind::Chat).failure(Failure::ShuttingDown);
        assert_eq!(&line[..], b"{\"error\":\"the daemon is shutting down\"}\n");
    }
}
