//! What the model may write next in each part of an answer: thoughts, text, calls, the end.
//!
//! Free text and thoughts cost nothing here. Text of a given form and calls are held to their
//! grammars; the slot waits while the next mask is computed.

use std::collections::VecDeque;
use std::sync::Arc;

use super::constraint::{CompiledGrammar, Constraints, Mask, Masks};
use super::llama::{Allowed, Token};
use super::mask_thread::{MaskReceiver, MaskThread, Taken};
use super::vocab::Vocab;
use crate::chat::{ChatError, Constraint, Thinking, ToolChoice};
use crate::gemma::marker;
use crate::gemma::tracker::{AnswerPart, AnswerStep};

/// Of an answer's tokens, thoughts may use all but one in so many.
const ANSWER_SHARE: u32 = 4;
/// Tokens that the shortest thought has, with its name and its markers.
const LEAST_THOUGHT: u32 = 6;
/// Near the end of the budget a thought ends with its line. How near: one in so many tokens of it,
/// and so many at most.
const GRACE_SHARE: u32 = 8;
const MOST_GRACE: u32 = 64;

/// The tokens that lead from one part of an answer to another.
#[derive(Debug)]
pub struct ControlTokens {
    channel: Option<Token>,
    channel_end: Option<Token>,
    call: Option<Token>,
    /// A line break, which the format has before the end of a thought.
    line: Option<Token>,
    /// Those that end a turn which waits for nothing.
    ends: Vec<Token>,
    /// Those that end a turn with calls.
    call_ends: Vec<Token>,
}

impl ControlTokens {
    pub fn of(vocab: Vocab) -> Self {
        let named = |text| vocab.named(text);
        let mut line = vec![];
        vocab.tokenize("\n", false, &mut line);
        let ends: Vec<Token> = vocab.ends();
        let waits = named(marker::TOOL_RESPONSE);
        Self {
            channel: named(marker::CHANNEL),
            channel_end: named(marker::CHANNEL_END),
            call: named(marker::TOOL_CALL),
            line: Some(line.as_slice())
                .filter(|line| line.len() == 1)
                .map(|line| line[0]),
            ends: ends
                .iter()
                .copied()
                .filter(|&token| waits != Some(token))
                .collect(),
            call_ends: ends,
        }
    }
}

/// The part of a request that an answer is held to.
pub struct Guide {
    control: Arc<ControlTokens>,
    /// Tokens that may still be thought; `None` if thoughts may not be begun.
    thoughts: Option<u32>,
    grace: u32,
    /// The last token ended a line.
    at_line_end: bool,
    constraints: Constraints,
    choice: ToolChoice,
    parallel: bool,
    /// Computes the masks of the running text or call, if a grammar holds for it.
    mask_thread: Option<MaskThread>,
    /// What may come next, where a grammar says so, and behind each of the tokens `ahead`; none while
    /// they are being computed.
    masks: VecDeque<Mask>,
    /// Tokens that may come next, in their order: there is a mask behind each.
    ahead: VecDeque<Token>,
    /// What was sampled since the masks were computed.
    taken: Vec<Token>,
    receiver: MaskReceiver,
    /// Kept for its memory.
    list: Vec<Token>,
}

impl Guide {
    /// `limit`: tokens that the answer may have.
    pub fn new(
        control: Arc<ControlTokens>,
        constraints: Constraints,
        (choice, parallel): (ToolChoice, bool),
        (thinking, in_thought): (Thinking, bool),
        limit: u32,
        receiver: MaskReceiver,
    ) -> Self {
        let budget = match thinking {
            Thinking::Off => None,
            Thinking::On { budget } => {
                Some(budget.unwrap_or(u32::MAX).min(limit - limit / ANSWER_SHARE))
            }
        };
        // A thought that the prompt has begun goes on, but not without end.
        let thoughts = budget.or(in_thought.then_some(limit - limit / ANSWER_SHARE));
        Self {
            control,
            thoughts,
            grace: thoughts.map_or(0, |budget| (budget / GRACE_SHARE).min(MOST_GRACE)),
            at_line_end: in_thought,
            constraints,
            choice,
            parallel,
            mask_thread: None,
            masks: VecDeque::new(),
            ahead: VecDeque::new(),
            taken: vec![],
            receiver,
            list: vec![],
        }
    }

    /// Whether the slot must wait for a mask.
    pub fn waits(&self) -> bool {
        self.mask_thread.is_some() && self.masks.is_empty()
    }

    /// How many tokens can be sampled in `part`, after the next one, if they are those that were
    /// guessed.
    pub fn reach(&self, part: AnswerPart) -> usize {
        match part {
            AnswerPart::Start | AnswerPart::Text if self.is_free() => usize::MAX,
            AnswerPart::Text | AnswerPart::Call => self.ahead.len(),
            // A text or a call begins behind it, whose second mask is not there yet.
            AnswerPart::Start | AnswerPart::Called => 0,
            AnswerPart::Thought => usize::MAX,
        }
    }

    /// Whether a grammar holds whose next masks are there.
    pub fn has_masks(&self) -> bool {
        self.mask_thread.is_some() && !self.masks.is_empty()
    }

    /// Has the next masks computed, if the slot waits for them: also behind what must follow, or behind
    /// those of `guesses` that may, `ahead` in all.
    pub fn look_ahead(&mut self, guesses: impl Iterator<Item = Token>, ahead: usize) {
        if let Some(thread) = &self.mask_thread
            && self.masks.is_empty()
            && !self.taken.is_empty()
        {
            thread.take(Taken {
                tokens: std::mem::take(&mut self.taken),
                guesses: guesses.collect(),
                ahead,
            });
        }
    }

    /// The token that must come next by the grammar, if there is just one.
    pub fn only(&self) -> Option<Token> {
        self.mask_thread.as_ref().and(self.masks.front())?.single()
    }

    /// Takes masks that were computed for `part`.
    pub fn mask_ready(
        &mut self,
        masks: Result<Masks, String>,
        part: AnswerPart,
    ) -> Result<(), ChatError> {
        let part = if part == AnswerPart::Call {
            Constraint::Tool(0)
        } else {
            Constraint::Format
        };
        let masks = masks.map_err(|reason| ChatError::Constraint {
            name: String::new(),
            part,
            path: String::new(),
            reason,
        })?;
        self.masks = masks.masks.into();
        self.ahead = masks.tokens.into();
        Ok(())
    }

    /// What may be sampled next, in `part`. `may_end`: where the text is free, the model may end its
    /// turn.
    pub fn allowed(&mut self, part: AnswerPart, may_end: bool) -> Allowed<'_> {
        let mut list = std::mem::take(&mut self.list);
        list.clear();
        let only = self.fill(&mut list, part, may_end);
        self.list = list;
        if only {
            let mask = match part {
                AnswerPart::Start if self.holds_text() => self
                    .constraints
                    .format
                    .as_ref()
                    .map(|grammar| &grammar.first),
                AnswerPart::Text | AnswerPart::Call => self.masks.front(),
                _ => None,
            };
            return Allowed::Only {
                mask: mask.map_or(&[], |mask| mask.allowed.as_slice()),
                also: &self.list,
            };
        }
        Allowed::Except(&self.list)
    }

    /// Whether only certain tokens are allowed: those of the mask, if there is one, and those of
    /// `list`. Otherwise all are but those of `list`.
    fn fill(&self, list: &mut Vec<Token>, part: AnswerPart, may_end: bool) -> bool {
        let control = &*self.control;
        let must_call = self.must_call();
        match part {
            AnswerPart::Start | AnswerPart::Text if self.is_free() => {
                list.extend(control.channel.filter(|_| !self.may_think()));
                list.extend(control.call.filter(|_| self.constraints.call.is_none()));
                if !may_end {
                    list.extend(&control.call_ends);
                }
                false
            }
            AnswerPart::Start => {
                list.extend(control.channel.filter(|_| self.may_think()));
                list.extend(control.call.filter(|_| self.constraints.call.is_some()));
                if !must_call
                    && self
                        .constraints
                        .format
                        .as_ref()
                        .is_some_and(|grammar| grammar.first.may_end)
                {
                    list.extend(&control.ends);
                }
                true
            }
            AnswerPart::Thought => {
                if let Some(forced) = self.forced() {
                    list.push(forced);
                    return true;
                }
                list.extend(control.channel);
                list.extend(control.call.filter(|_| self.constraints.call.is_none()));
                if !may_end || !self.is_free() {
                    list.extend(&control.call_ends);
                }
                false
            }
            AnswerPart::Text | AnswerPart::Call => {
                if self.masks.front().is_some_and(|mask| mask.may_end) {
                    list.extend(&control.ends);
                }
                true
            }
            AnswerPart::Called => {
                list.extend(control.call.filter(|_| self.may_call_again()));
                list.extend(&control.call_ends);
                true
            }
        }
    }

    /// Takes the token that was sampled, with the bytes that it stands for and what it did.
    pub fn take(&mut self, token: Token, bytes: &[u8], step: AnswerStep) {
        if step.from == AnswerPart::Thought || step.to == AnswerPart::Thought {
            self.thoughts = self.thoughts.map(|left| left.saturating_sub(1));
            self.at_line_end = bytes.ends_with(b"\n");
        }
        if !step.is_new {
            return self.advance_grammar(token);
        }
        self.mask_thread = None;
        self.masks.clear();
        self.ahead.clear();
        self.taken.clear();
        match step.to {
            AnswerPart::Text => {
                if let Some(grammar) = self.constraints.format.clone() {
                    self.constrain(grammar);
                    self.advance_grammar(token);
                }
            }
            AnswerPart::Call => {
                if let Some(grammar) = self.constraints.call.clone() {
                    self.masks.push_back(grammar.first.clone());
                    self.constrain(grammar);
                }
            }
            AnswerPart::Start | AnswerPart::Thought | AnswerPart::Called => {}
        }
    }

    fn constrain(&mut self, grammar: Arc<CompiledGrammar>) {
        self.mask_thread = Some(MaskThread::spawn(grammar, &self.receiver));
    }

    fn advance_grammar(&mut self, token: Token) {
        if self.mask_thread.is_some() {
            self.taken.push(token);
            self.masks.pop_front();
            if self.ahead.pop_front() != Some(token) {
                self.masks.clear();
                self.ahead.clear();
            }
        }
    }

    fn must_call(&self) -> bool {
        self.choice != ToolChoice::Auto
    }

    /// Whether text may be anything.
    fn is_free(&self) -> bool {
        self.constraints.format.is_none() && !self.must_call()
    }

    fn holds_text(&self) -> bool {
        self.constraints.format.is_some() && !self.must_call()
    }

    fn may_think(&self) -> bool {
        self.thoughts.is_some_and(|left| left >= LEAST_THOUGHT)
    }

    fn may_call_again(&self) -> bool {
        self.parallel && !matches!(self.choice, ToolChoice::Named(_))
    }

    /// The token that ends the running thought, if it must end now: a line break and then the
    /// marker.
    fn forced(&self) -> Option<Token> {
        let left = self.thoughts?;
        let end = self.control.channel_end?;
        if self.at_line_end && left <= self.grace.max(2) {
            return Some(end);
        }
        (left <= 2).then(|| self.control.line.filter(|_| left == 2).unwrap_or(end))
    }
}
