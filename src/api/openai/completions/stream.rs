//! Streamed texts, as server-sent events.

use axum::body::Bytes;
use serde_json::json;
use tokio::sync::watch;

use super::request;
use super::response::{Choice, Completion, Logprobs, OBJECT};
use crate::api::choices::{ChoiceEncoder, Total};
use crate::api::error::ApiError;
use crate::api::generation::{take, write_event};
use crate::api::openai::chat::response::{FinishDetails, Head};
use crate::api::progress::{Form, Wish};
use crate::api::telling::Teller;
use crate::backend::Failure;
use crate::chat::{ChatEvent, PromptToken, TokenLogprob, Waiting};

/// Tells how far the first of the texts is, if that is wished.
pub fn teller(head: Head, wish: Wish, waiting: watch::Receiver<Option<Waiting>>) -> Option<Teller> {
    let chunks = move |waiting: &Waiting| {
        let around = |form| {
            let none = json!({ "index": 0, "text": "", "logprobs": null, "finish_reason": null });
            let choices = match form {
                Form::Gemmad => json!([]),
                Form::LlamaCpp => json!([none]),
            };
            head.around(OBJECT, choices)
        };
        let mut buffer = vec![];
        for chunk in wish.told(waiting, around) {
            write_event(&mut buffer, None, &chunk);
        }
        buffer.into()
    };
    wish.is_any().then(|| Teller::new(waiting, chunks))
}

/// Streamed texts, which come side by side.
pub struct Pieces {
    head: Head,
    /// What is sent before each answer.
    echoes: Vec<String>,
    /// Characters of each answer whose tokens were reported.
    offsets: Vec<usize>,
    /// Answers to each prompt.
    per_prompt: usize,
    /// Whether a last chunk tells the usage.
    usage: bool,
    logprobs: bool,
    /// Of the answers that have ended.
    total: Total,
    buffer: Vec<u8>,
}

impl Pieces {
    /// `echoes`: what is sent before each answer. There are `per_prompt` to each prompt.
    pub fn new(
        head: Head,
        echoes: Vec<String>,
        per_prompt: usize,
        usage: bool,
        logprobs: bool,
    ) -> Self {
        Self {
            head,
            offsets: vec![0; echoes.len()],
            echoes,
            per_prompt,
            usage,
            logprobs,
            total: Total::default(),
            buffer: vec![],
        }
    }

    fn text(&mut self, choice: usize, text: &str, prompt: &[PromptToken], drawn: &[TokenLogprob]) {
        let any = self.logprobs && !(prompt.is_empty() && drawn.is_empty());
        let logprobs = any.then(|| Logprobs::new(prompt, drawn, &mut self.offsets[choice]));
        self.write(&[Choice {
            index: choice as u32,
            text,
            logprobs,
            finish_reason: None,
            finish_details: None,
        }]);
    }

    fn write(&mut self, choices: &[Choice]) {
        let usage = self.usage.then_some(None);
        let chunk = Completion {
            head: &self.head,
            object: OBJECT,
            choices,
            usage,
            timings: None,
        };
        write_event(&mut self.buffer, None, &chunk);
    }

    /// The last chunk of an answer, and behind that of the last answer what there is to all.
    fn end(&mut self, choice: usize, done: &crate::chat::Done) {
        self.total
            .add(done, !choice.is_multiple_of(self.per_prompt));
        let choices = [Choice {
            index: choice as u32,
            text: "",
            logprobs: None,
            finish_reason: Some(done.finish.into()),
            finish_details: FinishDetails::of(done.finish),
        }];
        let last = Completion {
            head: &self.head,
            object: OBJECT,
            choices: &choices,
            usage: self.usage.then_some(None),
            timings: Some(done.into()),
        };
        write_event(&mut self.buffer, None, &last);
        if (self.total.answers as usize) < self.offsets.len() {
            return;
        }
        if self.usage {
            let chunk = Completion {
                head: &self.head,
                object: OBJECT,
                choices: &[],
                usage: Some(Some(self.total.usage.into())),
                timings: None,
            };
            write_event(&mut self.buffer, None, &chunk);
        }
        self.buffer.extend_from_slice(b"data: [DONE]\n\n");
    }
}

impl ChoiceEncoder for Pieces {
    fn choice(&mut self, choice: usize, event: ChatEvent) -> Bytes {
        match event {
            ChatEvent::Started { .. } => {
                let echo = std::mem::take(&mut self.echoes[choice]);
                self.text(choice, &echo, &[], &[]);
            }
            ChatEvent::Prompt { tokens } => self.text(choice, "", &tokens, &[]),
            ChatEvent::Text { text, logprobs } => self.text(choice, &text, &[], &logprobs),
            ChatEvent::Done(done) => self.end(choice, &done),
            _ => {}
        }
        take(&mut self.buffer)
    }

    fn broken(&mut self, failure: Failure) -> Bytes {
        ApiError::failure(failure, request::field).event()
    }
}
