//! An upstream's streamed answer (`chat.completion.chunk` as server-sent events) as this project's
//! events. Pure: everything in it is what another machine says, and bounded.

use std::time::Duration;

use serde::Deserialize;

use crate::chat::{ChatEvent, Done, Finish, Timings, TokenLogprob, Usage};

/// Bytes of one line, and of a whole answer.
const LONGEST_LINE: usize = 4 << 20;
const LONGEST_ANSWER: usize = 64 << 20;
/// Characters of what a service says went wrong.
const MOST_WORDS: usize = 300;
/// Alternatives of one token.
const MOST_RIVALS: usize = 20;

/// Reads an answer.
#[derive(Debug, Default)]
pub struct AnswerReader {
    line: Vec<u8>,
    bytes: usize,
    /// Whether anything was said.
    begun: bool,
    /// Which call is open.
    call: Option<u32>,
    finish: Option<Finish>,
    usage: Usage,
    ended: bool,
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Counts>,
    error: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    index: u32,
    #[serde(default)]
    delta: Delta,
    finish_reason: Option<String>,
    logprobs: Option<Logprobs>,
}

#[derive(Default, Deserialize)]
struct Delta {
    content: Option<String>,
    reasoning_content: Option<String>,
    /// As vLLM and OpenRouter call it.
    reasoning: Option<String>,
    tool_calls: Option<Vec<Call>>,
    refusal: Option<String>,
}

#[derive(Deserialize)]
struct Call {
    #[serde(default)]
    index: u32,
    #[serde(default)]
    function: Function,
}

#[derive(Default, Deserialize)]
struct Function {
    name: Option<String>,
    arguments: Option<String>,
}

#[derive(Deserialize)]
struct Counts {
    #[serde(default)]
    prompt_tokens: u32,
    #[serde(default)]
    completion_tokens: u32,
    prompt_tokens_details: Option<PromptDetails>,
    completion_tokens_details: Option<CompletionDetails>,
}

#[derive(Deserialize)]
struct PromptDetails {
    cached_tokens: Option<u32>,
}

#[derive(Deserialize)]
struct CompletionDetails {
    reasoning_tokens: Option<u32>,
}

#[derive(Deserialize)]
struct Logprobs {
    content: Option<Vec<Logprob>>,
}

#[derive(Deserialize)]
struct Logprob {
    token: String,
    logprob: f32,
    bytes: Option<Vec<u8>>,
    #[serde(default)]
    top_logprobs: Vec<Logprob>,
}

impl AnswerReader {
    /// Takes bytes as they came.
    ///
    /// # Errors
    /// What makes no sense, or what the service says went wrong; continues "`NAME` ".
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Vec<ChatEvent>, String> {
        self.bytes = self.bytes.saturating_add(bytes.len());
        if self.bytes > LONGEST_ANSWER {
            return Err("answers without end".to_owned());
        }
        let mut events = vec![];
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if self.line.len() > LONGEST_LINE {
                return Err("sends a line without end".to_owned());
            }
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                self.line(&line, &mut events)?;
            }
        }
        Ok(events)
    }

    /// Whether anything of the answer came.
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// Whether it can end: the service has said why.
    pub fn is_whole(&self) -> bool {
        self.finish.is_some()
    }

    /// Whether the service has said that there is no more.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// The end, after what takes this long.
    ///
    /// # Errors
    /// It broke off; continues "`NAME` ".
    pub fn end(&mut self, begin: Duration, answer: Duration) -> Result<Vec<ChatEvent>, String> {
        let Some(finish) = self.finish.take() else {
            return Err("broke off in the middle of its answer".to_owned());
        };
        let mut events = vec![];
        self.begin(&mut events);
        self.end_call(&mut events);
        events.push(ChatEvent::Done(Done {
            finish,
            usage: self.usage,
            timings: Timings {
                prompt_us: begin.as_micros() as u64,
                predicted_us: answer.as_micros() as u64,
            },
        }));
        Ok(events)
    }

    fn line(&mut self, line: &[u8], events: &mut Vec<ChatEvent>) -> Result<(), String> {
        // Comments and names of events say nothing here.
        let Some(data) = line.strip_prefix(b"data:") else {
            return Ok(());
        };
        let data = data.trim_ascii();
        if data == b"[DONE]" {
            self.ended = true;
        }
        if self.ended || data.is_empty() {
            return Ok(());
        }
        let chunk: Chunk = serde_json::from_slice(data)
            .map_err(|_| "sends what is no chunk of an answer".to_owned())?;
        if let Some(error) = chunk.error.filter(|error| !error.is_null()) {
            return Err(format!("failed: {}", words(&error)));
        }
        if let Some(counts) = chunk.usage {
            self.usage = counts.into();
        }
        // There is one choice: no more were asked for.
        for choice in chunk.choices.into_iter().filter(|choice| choice.index == 0) {
            self.choice(choice, events)?;
        }
        Ok(())
    }

    fn choice(&mut self, choice: Choice, events: &mut Vec<ChatEvent>) -> Result<(), String> {
        let Delta {
            content,
            reasoning_content,
            reasoning,
            tool_calls,
            refusal,
        } = choice.delta;
        let said = |text: Option<String>| text.filter(|text| !text.is_empty());
        if let Some(text) = said(reasoning_content).or(said(reasoning)) {
            self.begin(events);
            events.push(ChatEvent::Thought {
                text,
                logprobs: vec![],
            });
        }
        if let Some(text) = said(content).or(said(refusal)) {
            self.begin(events);
            self.end_call(events);
            let tokens = choice.logprobs.and_then(|all| all.content);
            events.push(ChatEvent::Text {
                text,
                logprobs: tokens.unwrap_or_default().into_iter().map(token).collect(),
            });
        }
        for call in tool_calls.unwrap_or_default() {
            self.begin(events);
            self.call(call, events)?;
        }
        if let Some(reason) = choice.finish_reason {
            self.finish = Some(match reason.as_str() {
                "length" => Finish::Length,
                "tool_calls" | "function_call" => Finish::ToolCalls,
                _ => Finish::Stop,
            });
        }
        Ok(())
    }

    fn call(&mut self, call: Call, events: &mut Vec<ChatEvent>) -> Result<(), String> {
        if self.call != Some(call.index) {
            let name = call.function.name.filter(|name| !name.is_empty());
            let Some(name) = name else {
                return Err("goes on with a call that it has ended".to_owned());
            };
            self.end_call(events);
            self.call = Some(call.index);
            events.push(ChatEvent::CallStarted { name });
        }
        if let Some(json) = call.function.arguments.filter(|json| !json.is_empty()) {
            events.push(ChatEvent::CallArguments { json });
        }
        Ok(())
    }

    fn begin(&mut self, events: &mut Vec<ChatEvent>) {
        if !self.begun {
            self.begun = true;
            events.push(ChatEvent::Accepted { relaxed: vec![] });
            // Known at the end alone.
            events.push(ChatEvent::Started {
                prompt_tokens: self.usage.prompt_tokens,
                cached_tokens: self.usage.cached_tokens,
            });
        }
    }

    fn end_call(&mut self, events: &mut Vec<ChatEvent>) {
        if self.call.take().is_some() {
            events.push(ChatEvent::CallEnded);
        }
    }
}

impl From<Counts> for Usage {
    fn from(counts: Counts) -> Self {
        let cached = counts
            .prompt_tokens_details
            .and_then(|all| all.cached_tokens);
        let thought = counts
            .completion_tokens_details
            .and_then(|all| all.reasoning_tokens);
        Self {
            prompt_tokens: counts.prompt_tokens,
            cached_tokens: cached.unwrap_or_default().min(counts.prompt_tokens),
            completion_tokens: counts.completion_tokens,
            reasoning_tokens: thought.unwrap_or_default().min(counts.completion_tokens),
            ..Self::default()
        }
    }
}

fn token(token: Logprob) -> TokenLogprob {
    let bytes = |token: &mut Logprob| {
        let bytes = token.bytes.take();
        bytes.unwrap_or_else(|| token.token.as_bytes().to_vec())
    };
    let mut token = token;
    TokenLogprob {
        bytes: bytes(&mut token),
        logprob: token.logprob,
        top: token
            .top_logprobs
            .into_iter()
            .take(MOST_RIVALS)
            .map(|mut rival| (bytes(&mut rival), rival.logprob))
            .collect(),
    }
}

/// What an error says, in a few words of one line.
fn words(error: &serde_json::Value) -> String {
    let message = [&error["message"], &error["detail"], error]
        .into_iter()
        .find_map(|value| value.as_str().map(str::to_owned));
    let message = message.unwrap_or_else(|| error.to_string());
    message.escape_debug().take(MOST_WORDS).collect()
}

/// What the body of a refusal says.
pub fn refusal(body: &[u8]) -> String {
    match serde_json::from_slice::<serde_json::Value>(body) {
        Ok(body) if !body["error"].is_null() => words(&body["error"]),
        Ok(body) => words(&body),
        Err(_) => String::from_utf8_lossy(body)
            .escape_debug()
            .take(MOST_WORDS)
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<ChatEvent>, String> {
        let mut reader = AnswerReader::default();
        let mut events = vec![];
        // In pieces that respect nothing.
        for piece in text.as_bytes().chunks(7) {
            events.extend(reader.feed(piece)?);
        }
        events.extend(reader.end(Duration::ZERO, Duration::ZERO)?);
        Ok(events)
    }

    #[test]
    fn thoughts_texts_and_calls_are_told_apart() {
        let events = read(
            ": hello\n\ndata: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n\
             data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"hm\"}}]}\n\n\
             data: {\"choices\":[{\"delta\":{\"content\":\"Zürich\"}}]}\r\n\r\n\
             data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"a\",\"function\":{\"name\":\"f\",\"arguments\":\"\"}}]}}]}\n\n\
             data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{}\"}}]}}]}\n\n\
             data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":1,\"function\":{\"name\":\"g\",\"arguments\":\"{}\"}}]},\"finish_reason\":\"tool_calls\"}]}\n\n\
             data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":9,\"prompt_tokens_details\":{\"cached_tokens\":99}}}\n\n\
             data: [DONE]\n\n",
        )
        .unwrap();
        let call = |name: &str| ChatEvent::CallStarted { name: name.into() };
        let arguments = || ChatEvent::CallArguments { json: "{}".into() };
        assert_eq!(
            events[1..events.len() - 1],
            [
                ChatEvent::Started {
                    prompt_tokens: 0,
                    cached_tokens: 0
                },
                ChatEvent::Thought {
                    text: "hm".into(),
                    logprobs: vec![]
                },
                ChatEvent::Text {
                    text: "Zürich".into(),
                    logprobs: vec![]
                },
                call("f"),
                arguments(),
                ChatEvent::CallEnded,
                call("g"),
                arguments(),
                ChatEvent::CallEnded,
            ]
        );
        let Some(ChatEvent::Done(done)) = events.last() else {
            panic!("{events:?}");
        };
        assert_eq!(done.finish, Finish::ToolCalls);
        assert_eq!(
            (done.usage.completion_tokens, done.usage.cached_tokens),
            (9, 5)
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let ended =
            "data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}]}\n";
        assert!(read(ended).is_ok());
        for (text, part) in [
            ("", "broke off"),
            (
                "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n",
                "broke off",
            ),
            ("data: <html>\n", "no chunk"),
            (
                "data: {\"error\":{\"message\":\"too\\nlong\"}}\n",
                "failed: too\\nlong",
            ),
            (
                "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":3,\"function\":{\"arguments\":\"{}\"}}]}}]}\n",
                "a call that it has ended",
            ),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        let mut reader = AnswerReader::default();
        assert!(reader.feed(&vec![b'x'; LONGEST_LINE + 1]).is_err());
    }

    #[test]
    fn refusals_say_what_the_service_says() {
        assert_eq!(refusal(b"{\"error\":{\"message\":\"no\"}}"), "no");
        assert_eq!(refusal(b"{\"detail\":\"nope\"}"), "nope");
        assert_eq!(refusal(b"<html>\n"), "<html>\\n");
    }
}
