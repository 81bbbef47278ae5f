//! An answer that is sent when it is complete.

use crate::api::choices::Total;
use crate::api::openai::chat::response::{
    CallOut, Choice, Completion, FinishDetails, Head, Logprobs, MessageOut,
};
use crate::chat::{ChatEvent, Done, TokenLogprob};

/// Collects events. Bounded by the limit on output tokens.
#[derive(Debug, Default)]
pub struct CompletionBuilder {
    content: String,
    reasoning: String,
    calls: Vec<CallOut>,
    /// A call that has not ended, and may never do so.
    open: Option<CallOut>,
    content_logprobs: Vec<TokenLogprob>,
    reasoning_logprobs: Vec<TokenLogprob>,
    hides_thoughts: bool,
}

impl CompletionBuilder {
    /// One that leaves out what the model thinks, if so.
    pub fn hiding_thoughts(hides_thoughts: bool) -> Self {
        Self {
            hides_thoughts,
            ..Self::default()
        }
    }

    /// Adds an event, or hands back the last one.
    pub fn event(&mut self, event: ChatEvent) -> Option<Done> {
        match event {
            ChatEvent::Accepted { .. } | ChatEvent::Started { .. } | ChatEvent::Prompt { .. } => {}
            ChatEvent::Text { text, mut logprobs } => {
                self.content.push_str(&text);
                self.content_logprobs.append(&mut logprobs);
            }
            ChatEvent::Thought { .. } if self.hides_thoughts => {}
            ChatEvent::Thought { text, mut logprobs } => {
                self.reasoning.push_str(&text);
                self.reasoning_logprobs.append(&mut logprobs);
            }
            ChatEvent::CallStarted { name } => self.open = Some(CallOut::new(name)),
            ChatEvent::CallArguments { json } => self
                .open
                .iter_mut()
                .for_each(|call| call.function.arguments.push_str(&json)),
            ChatEvent::CallEnded => self.calls.extend(self.open.take()),
            ChatEvent::Restarted => *self = Self::hiding_thoughts(self.hides_thoughts),
            ChatEvent::Done(done) => return Some(done),
        }
        None
    }

    /// What was said, without thoughts and calls.
    pub fn into_content(self) -> String {
        self.content
    }

    /// The answer as OpenAI's `chat.completion`.
    pub fn json(&self, head: &Head, done: &Done, logprobs: bool) -> String {
        let mut total = Total::default();
        total.add(done, false);
        let choice = self.choice(0, done, logprobs);
        completion(head, vec![choice], &total)
    }

    /// The answer as one of several.
    pub fn choice(&self, index: usize, done: &Done, logprobs: bool) -> Choice<'_> {
        let only_calls = self.content.is_empty() && !self.calls.is_empty();
        let message = MessageOut {
            role: "assistant",
            content: (!only_calls).then_some(&self.content),
            refusal: (),
            reasoning_content: (!self.reasoning.is_empty()).then_some(&self.reasoning),
            tool_calls: &self.calls,
        };
        let logprobs = logprobs.then_some(Logprobs {
            content: &self.content_logprobs,
            reasoning_content: &self.reasoning_logprobs,
            refusal: (),
        });
        Choice {
            index: index as u32,
            message,
            logprobs,
            finish_reason: done.finish.into(),
            finish_details: FinishDetails::of(done.finish),
        }
    }
}

/// Answers as one `chat.completion`.
pub fn completion(head: &Head, choices: Vec<Choice>, total: &Total) -> String {
    let completion = Completion {
        head,
        object: "chat.completion",
        choices,
        usage: total.usage.into(),
        timings: total.into(),
    };
    // Plain structs always serialise.
    serde_json::to_string(&completion).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{Finish, Timings, Usage};
    use serde_json::{Value, json};

    fn answer(events: Vec<ChatEvent>, finish: Finish, logprobs: bool) -> Value {
        let head = Head {
            id: "chatcmpl-1".into(),
            created: 7,
            model: "tiny".into(),
            system_fingerprint: "gemmad-test",
        };
        let mut completion = CompletionBuilder::default();
        for event in events {
            assert_eq!(completion.event(event), None);
        }
        let usage = Usage {
            prompt_tokens: 10,
            cached_tokens: 0,
            completion_tokens: 2,
            reasoning_tokens: 0,
            drafted: Default::default(),
        };
        let done = Done {
            finish,
            usage,
            timings: Timings {
                prompt_us: 0,
                predicted_us: 1_000,
            },
        };
        let done = completion.event(ChatEvent::Done(done)).unwrap();
        serde_json::from_str(&completion.json(&head, &done, logprobs)).unwrap()
    }

    fn text(text: &str) -> ChatEvent {
        ChatEvent::Text {
            text: text.into(),
            logprobs: vec![TokenLogprob {
                bytes: text.into(),
                logprob: -1.0,
                top: vec![],
            }],
        }
    }

    #[test]
    fn golden() {
        assert_eq!(
            answer(
                vec![
                    ChatEvent::Started {
                        prompt_tokens: 10,
                        cached_tokens: 0,
                    },
                    text("Hello"),
                    text("!")
                ],
                Finish::Length,
                false
            ),
            json!({
                "id": "chatcmpl-1", "created": 7, "model": "tiny", "system_fingerprint": "gemmad-test", "object": "chat.completion",
                "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello!", "refusal": null},
                    "logprobs": null, "finish_reason": "length"}],
                "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12,
                    "prompt_tokens_details": {"cached_tokens": 0}, "completion_tokens_details": {"reasoning_tokens": 0,
                    "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0}},
                "timings": {"cache_n": 0, "prompt_n": 10, "prompt_ms": 0.0, "prompt_per_second": 0.0,
                    "predicted_n": 2, "predicted_ms": 1.0, "predicted_per_second": 1000.0}
            })
        );
    }

    #[test]
    fn calls_and_thoughts() {
        let call = |name: &str| {
            [
                ChatEvent::CallStarted { name: name.into() },
                ChatEvent::CallArguments { json: "{".into() },
            ]
        };
        let end = [
            ChatEvent::CallArguments { json: "}".into() },
            ChatEvent::CallEnded,
        ];
        let thought = ChatEvent::Thought {
            text: "hm".into(),
            logprobs: vec![],
        };
        // The second call was cut off.
        let events = [thought]
            .into_iter()
            .chain(call("f"))
            .chain(end)
            .chain(call("g"))
            .collect();
        let answer = answer(events, Finish::ToolCalls, false);
        let message = &answer["choices"][0]["message"];
        assert_eq!(message["content"], Value::Null);
        assert_eq!(message["reasoning_content"], "hm");
        assert_eq!(
            message["tool_calls"][0]["function"],
            json!({"name": "f", "arguments": "{}"})
        );
        assert_eq!(message["tool_calls"].as_array().unwrap().len(), 1);
        assert_eq!(answer["choices"][0]["finish_reason"], "tool_calls");
    }

    #[test]
    fn an_empty_answer_is_empty_text() {
        assert_eq!(
            answer(vec![], Finish::Stop, false)["choices"][0]["message"]["content"],
            ""
        );
    }

    #[test]
    fn what_a_dead_worker_had_said_is_void() {
        let call = |name: &str| ChatEvent::CallStarted { name: name.into() };
        let before = [text("half of"), call("f"), ChatEvent::Restarted];
        let events = before.into_iter().chain([text("whole")]).collect();
        let answer = answer(events, Finish::Stop, true);
        let choice = &answer["choices"][0];
        assert_eq!(choice["message"]["content"], "whole");
        assert_eq!(choice["message"].get("tool_calls"), None);
        assert_eq!(
            choice["logprobs"]["content"].as_array().map(Vec::len),
            Some(1)
        );
    }

    #[test]
    fn logprobs_of_all_tokens() {
        let answer = answer(vec![text("a"), text("b")], Finish::Stop, true);
        assert_eq!(answer["choices"][0]["logprobs"]["content"][1]["token"], "b");
        assert_eq!(
            answer["choices"][0]["logprobs"]["content"]
                .as_array()
                .map(Vec::len),
            Some(2)
        );
    }
}
