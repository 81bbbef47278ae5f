//! What the model writes, token by token, becomes events: thoughts, text, function calls. Pure.
//!
//! [`super::tracker::AnswerTracker`] says to which part a token belongs, and the parser what of it is delivered.
//!
//! Only control tokens move the parser: text that spells a marker is text. Markers out of place are
//! dropped, and the end of a turn closes whatever is open. Nothing is held without limit: of text
//! the longest beginning of a stop string, of a thought its last newline, of a call a key or a
//! number.

use super::call::{Call, CallDelta};
use super::marker;
use super::stop::{Found, Stops};
use super::text_buffer::TextBuffer;
use super::tracker::{AnswerPart, AnswerStep, Token};
use crate::chat::{ChatEvent, TokenLogprob};

/// Whether the answer goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    More,
    /// A stop string came; nothing after it is delivered.
    Stopped,
}

/// Why the tokens end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The model ended its turn.
    Turn,
    /// The token limit or the end of the context.
    Cut,
}

/// What was left when the tokens ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// At least one call was delivered.
    pub called: bool,
    /// A call was begun that has no end, so the answer is incomplete.
    pub cut_call: bool,
    /// The stop string that came, by its place in the list.
    pub stop: Option<u8>,
    /// Tokens of the thinking channel, its markers included.
    pub reasoning_tokens: u32,
}

/// The parser of one answer.
#[derive(Debug)]
pub struct Parser {
    text: TextBuffer,
    thought: TextBuffer,
    /// The name line of the running thought was passed.
    named: bool,
    /// Decodes what goes into a call.
    call: TextBuffer,
    /// The running call; `None` in what was begun as a call and is none.
    running: Option<Call>,
    stops: Stops,
    /// The stop string that came.
    stopped: Option<u8>,
    called: bool,
    cut_call: bool,
    reasoning_tokens: u32,
}

impl Parser {
    /// `in_thought`: the prompt ends inside an open thinking channel, behind its name line.
    pub fn new(stops: Vec<String>, in_thought: bool) -> Self {
        Self {
            text: TextBuffer::default(),
            thought: TextBuffer::default(),
            named: in_thought,
            call: TextBuffer::default(),
            running: None,
            stops: Stops::new(stops),
            stopped: None,
            called: false,
            cut_call: false,
            reasoning_tokens: 0,
        }
    }

    /// Takes the next token, with what the [`super::tracker::AnswerTracker`] says of it, and appends what became
    /// certain to `out`. After [`Progress::Stopped`] it takes nothing.
    ///
    /// [`super::tracker::AnswerTracker`]: super::tracker::AnswerTracker
    pub fn push(
        &mut self,
        token: Token<'_>,
        step: AnswerStep,
        logprob: Option<TokenLogprob>,
        out: &mut Vec<ChatEvent>,
    ) -> Progress {
        if self.stopped.is_none() {
            match token {
                Token::Control(text) => self.control(text, step, logprob, out),
                Token::Bytes(bytes) => self.bytes(bytes, step.to, logprob, out),
            }
        }
        if self.stopped.is_some() {
            Progress::Stopped
        } else {
            Progress::More
        }
    }

    /// No token follows the last one, which has led to `part`: delivers what is held.
    pub fn finish(mut self, part: AnswerPart, end: End, out: &mut Vec<ChatEvent>) -> Summary {
        if self.stopped.is_none() {
            match (part, end) {
                (AnswerPart::Call, End::Cut) => self.cut_call = true,
                (AnswerPart::Call, End::Turn) => self.end_call(out),
                (AnswerPart::Thought, _) => self.end_thought(false, out),
                _ => {}
            }
        }
        if self.stopped.is_none() {
            self.text.settle();
            self.deliver(out);
        }
        if self.stopped.is_none() {
            let (text, mut logprobs) = self.text.end(self.text.held().len());
            logprobs.extend(self.text.leftovers());
            if !text.is_empty() || !logprobs.is_empty() {
                out.push(ChatEvent::Text { text, logprobs });
            }
        }
        Summary {
            called: self.called,
            cut_call: self.cut_call,
            stop: self.stopped,
            reasoning_tokens: self.reasoning_tokens,
        }
    }

    fn bytes(
        &mut self,
        bytes: &[u8],
        part: AnswerPart,
        logprob: Option<TokenLogprob>,
        out: &mut Vec<ChatEvent>,
    ) {
        match part {
            AnswerPart::Start | AnswerPart::Text | AnswerPart::Called => {
                self.text.feed(bytes, logprob);
                self.deliver(out);
            }
            AnswerPart::Thought => {
                self.reasoning_tokens += 1;
                self.thought.feed(bytes, logprob);
                self.think(out);
            }
            AnswerPart::Call => {
                self.text.note(logprob);
                if self.running.is_some() {
                    self.call.feed(bytes, None);
                    self.advance_call(None, out);
                }
            }
        }
    }

    fn control(
        &mut self,
        text: &str,
        step: AnswerStep,
        logprob: Option<TokenLogprob>,
        out: &mut Vec<ChatEvent>,
    ) {
        let thinks = step.to == AnswerPart::Thought
            || (step.from == AnswerPart::Thought && text == marker::CHANNEL_END);
        self.reasoning_tokens += u32::from(thinks);
        self.text.settle();
        match (step.from, step.to) {
            // A thought's markers are neither thought nor text.
            (_, AnswerPart::Thought) if step.is_new => {}
            (AnswerPart::Thought, _) if text == marker::CHANNEL_END => {}
            (AnswerPart::Thought, AnswerPart::Thought) => self.thought.note(logprob),
            _ => self.text.note(logprob),
        }
        match step.from {
            AnswerPart::Thought if step.is_new => self.end_thought(text != marker::CHANNEL, out),
            AnswerPart::Call if step.is_new => self.end_call(out),
            AnswerPart::Call => {
                self.call.settle();
                self.advance_call(Some(text), out);
            }
            _ => {}
        }
        match step.to {
            AnswerPart::Thought if step.is_new => self.named = false,
            AnswerPart::Call if step.is_new => {
                // A call that broke may have left the beginning of a character.
                self.call = TextBuffer::default();
                self.running = Some(Call::default());
            }
            _ => {}
        }
        if self.stopped.is_none() {
            self.deliver(out);
        }
    }

    /// Delivers thought text, all but the newline that the format puts before the closing marker.
    fn think(&mut self, out: &mut Vec<ChatEvent>) {
        if !self.named {
            let held = self.thought.held();
            if held.len() < marker::THOUGHT_NAME.len() && marker::THOUGHT_NAME.starts_with(held) {
                return;
            }
            self.named = true;
            if held.starts_with(marker::THOUGHT_NAME) {
                self.thought.skip(marker::THOUGHT_NAME.len());
            }
        }
        let held = self.thought.held();
        let ready = held.strip_suffix('\n').unwrap_or(held).len();
        release_thought(&mut self.thought, ready, out);
    }

    /// Ends a thought. `trim`: its last newline belongs to the format.
    fn end_thought(&mut self, trim: bool, out: &mut Vec<ChatEvent>) {
        self.thought.settle();
        let held = self.thought.held();
        if !self.named && marker::THOUGHT_NAME.starts_with(held) {
            self.thought.skip(held.len());
        } else {
            self.think(out);
            let held = self.thought.held().len();
            if trim {
                self.thought.skip(held);
            } else {
                release_thought(&mut self.thought, held, out);
            }
        }
        // What its text did not take is of the format as well.
        self.thought.leftovers();
    }

    /// Delivers what is certain of the running call, with the control token that came, if one did.
    fn advance_call(&mut self, control: Option<&str>, out: &mut Vec<ChatEvent>) {
        let Some(call) = &mut self.running else {
            return;
        };
        let mut delta = CallDelta::default();
        let text = self
            .call
            .release(self.call.held().len())
            .map_or_else(String::new, |(text, _)| text);
        let outcome = call
            .text(&text, &mut delta)
            .and_then(|()| control.map_or(Ok(()), |control| call.control(control, &mut delta)));
        out.extend(delta.name.map(|name| ChatEvent::CallStarted { name }));
        if !delta.json.is_empty() {
            out.push(ChatEvent::CallArguments { json: delta.json });
        }
        if outcome.is_err() {
            (self.running, self.cut_call) = (None, true);
        }
    }

    /// Ends a call: it is complete, or lost.
    fn end_call(&mut self, out: &mut Vec<ChatEvent>) {
        self.call.settle();
        self.advance_call(None, out);
        match self.running.take() {
            Some(call) if call.is_whole() => {
                self.called = true;
                out.push(ChatEvent::CallEnded);
            }
            _ => self.cut_call = true,
        }
    }

    /// Delivers the text that can no longer become a part of a stop string.
    fn deliver(&mut self, out: &mut Vec<ChatEvent>) {
        match self.stops.look(self.text.held()) {
            Found::Free(len) => out.extend(
                self.text
                    .release(len)
                    .map(|(text, logprobs)| ChatEvent::Text { text, logprobs }),
            ),
            Found::Stop { at, which } => {
                self.stopped = Some(which);
                let (text, logprobs) = self.text.end(at);
                if !text.is_empty() || !logprobs.is_empty() {
                    out.push(ChatEvent::Text { text, logprobs });
                }
            }
        }
    }
}

fn release_thought(buffer: &mut TextBuffer, len: usize, out: &mut Vec<ChatEvent>) {
    out.extend(
        buffer
            .release(len)
            .map(|(text, logprobs)| ChatEvent::Thought { text, logprobs }),
    );
}

#[cfg(test)]
mod tests;
