//! One sequence of the context, and the request that it answers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::Instant;

use super::constraint::Masked;
use super::guide::{Client, Guide};
use super::inbox::Turn;
use super::link::Outbox;
use super::llama::{Candidates, Sampler, Token};
use super::load::Engine;
use super::logprob;
use super::media::Medium;
use super::prepare::Prepared;
use super::sequence::{Place, Sequence};
use super::share::Want;
use super::vocab::Vocab;
use crate::chat::{ChatError, ChatEvent, Done, Finish, Timings, TokenLogprob, Usage};
use crate::gemma::parse::{End, Parser, Progress, Summary, Token as Written};
use crate::ipc::RequestId;

/// A sequence of the context.
#[derive(Default)]
pub struct Slot {
    /// What llama.cpp's cache holds for it.
    pub held: Sequence,
    /// When its last request came, counted in requests.
    pub last_used: u64,
    pub work: Option<Work>,
}

impl Slot {
    /// What tokens the next step could read for it.
    pub fn want(&self) -> Want {
        match &self.work {
            None => Want::Idle,
            Some(work) if self.held.len() < work.prompt.len() => {
                match work.prompt.text_from(self.held.len()) {
                    0 => Want::Idle,
                    tokens => Want::Prompt(tokens),
                }
            }
            Some(work) if work.guide.waits() => Want::Idle,
            Some(_) => Want::Decode,
        }
    }

    /// The piece of a medium, of `step` tokens at most, that could be read next.
    pub fn piece(&self, step: usize) -> Option<Piece<'_>> {
        let work = self.work.as_ref()?;
        let (place, rows) = (
            *work.prompt.medium_over(self.held.len())?,
            work.rows.as_ref()?,
        );
        let offset = self.held.len() - place.at;
        let (count, width) = (step.min(place.count - offset), rows.len() / place.count);
        let picture = work.next_medium().is_some_and(|medium| medium.is_picture());
        Some(Piece {
            place,
            count,
            picture,
            rows: &rows[offset * width..(offset + count) * width],
            cancelled: work.cancel_flag(),
        })
    }

    /// Takes note that a piece was read; `true` if it was the medium's last.
    pub fn hold(&mut self, place: Place, count: usize) -> bool {
        let Some(work) = &mut self.work else {
            return false;
        };
        if self.held.len() == place.at {
            self.held.media.push(place);
        }
        let from = self.held.len();
        self.held
            .tokens
            .extend_from_slice(&work.prompt.tokens[from..from + count]);
        let whole = self.held.len() == place.at + place.count;
        if whole {
            work.rows = None;
            work.media.pop_front();
        }
        whole
    }
}

/// A piece of a medium.
pub struct Piece<'a> {
    pub place: Place,
    pub picture: bool,
    /// Tokens.
    pub count: usize,
    pub rows: &'a [f32],
    pub cancelled: Arc<AtomicBool>,
}

/// A request on its way.
pub struct Work {
    pub id: RequestId,
    /// Whether the slot may keep what it read afterwards.
    pub stays: bool,
    cancelled: Arc<AtomicBool>,
    prompt: Sequence,
    /// Pictures and sounds that are not read yet.
    media: VecDeque<Arc<Medium>>,
    /// What the first of them has become, once it was perceived.
    pub rows: Option<Vec<f32>>,
    sampler: Sampler,
    guide: Guide,
    parser: Parser,
    /// Tokens that must be drawn before the model may end its turn.
    min_tokens: u32,
    ignore_ends: bool,
    /// Everything that the model writes is text.
    raw: bool,
    logprobs: Option<u8>,
    usage: Usage,
    /// Tokens that may be drawn.
    limit: u32,
    /// The token that was drawn last.
    last: Token,
    received: Instant,
    /// When the prompt had been read.
    read: Option<Instant>,
}

/// What is the same for every draw.
pub struct Drawing<'a> {
    pub vocab: Vocab,
    pub suppressed: &'a [Token],
    pub candidates: &'a mut Candidates,
}

impl Work {
    /// `cached` tokens of the prompt are in the slot already. `seed` is used if the request has
    /// none; masks for its `slot` are delivered at `ready`.
    pub fn start(
        prepared: Prepared,
        cached: usize,
        seed: u32,
        engine: &Engine,
        (slot, ready): (usize, SyncSender<Turn>),
    ) -> Result<Self, ChatError> {
        let Prepared {
            id,
            request,
            prompt,
            media,
            in_thought,
            raw,
            constraints,
            cancelled,
            received,
        } = prepared;
        let (vocab, limits) = (engine.vocab, &engine.limits);
        let read = prompt
            .media
            .iter()
            .filter(|place| place.at < cached)
            .count();
        let sampler = Sampler::new(
            &request.sampling,
            request.sampling.seed.unwrap_or(seed),
            vocab.len(),
        )
        .ok_or_else(|| ChatError::Inference {
            reason: "llama.cpp made no sampler".to_owned(),
        })?;
        let room = limits.context.saturating_sub(prompt.len() as u32);
        let limit = request
            .output
            .max_tokens
            .unwrap_or(u32::MAX)
            .min(limits.max_output)
            .min(room);
        let tools = (request.tool_choice, request.parallel_tool_calls);
        let thinking = (request.thinking, in_thought);
        let guide = Guide::new(
            engine.marks.clone(),
            constraints,
            tools,
            thinking,
            limit,
            Client { slot, id, ready },
        );
        let usage = Usage {
            prompt_tokens: prompt.len() as u32,
            cached_tokens: cached as u32,
            ..Usage::default()
        };
        Ok(Self {
            id,
            stays: request.cache_prompt,
            cancelled,
            prompt,
            media: media.into_iter().skip(read).collect(),
            rows: None,
            sampler,
            guide,
            parser: Parser::new(request.output.stop, in_thought),
            min_tokens: request.output.min_tokens,
            ignore_ends: request.output.ignore_eos,
            raw,
            logprobs: request.logprobs,
            usage,
            limit,
            last: 0,
            received,
            read: None,
        })
    }

    pub fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    pub fn cancel_flag(&self) -> Arc<AtomicBool> {
        self.cancelled.clone()
    }

    /// The picture or sound to perceive next.
    pub fn next_medium(&self) -> Option<&Arc<Medium>> {
        self.media.front()
    }

    /// The next `count` tokens for a slot that holds `held`.
    pub fn next(&self, held: usize, count: usize) -> &[Token] {
        match self.prompt.tokens.get(held..) {
            Some(rest) if !rest.is_empty() => &rest[..count.min(rest.len())],
            _ => std::slice::from_ref(&self.last),
        }
    }

    /// Whether logits are wanted when the slot holds `held` tokens.
    pub fn draws_at(&self, held: usize) -> bool {
        held >= self.prompt.len()
    }

    /// Whether it waits for something other than its turn.
    pub fn waits(&self) -> bool {
        self.next_medium().is_some() || self.guide.waits()
    }

    /// Takes a mask that it waited for.
    pub fn masked(&mut self, masked: Masked) -> Result<(), ChatError> {
        self.guide.masked(masked)
    }

    /// Draws the next token from `row` and says what it means. `Some` when the answer is complete:
    /// then [`Work::finish`] must follow.
    pub fn draw(
        &mut self,
        row: &[f32],
        with: &mut Drawing<'_>,
        out: &mut Outbox,
    ) -> Result<Option<Finish>, ChatError> {
        if self.read.is_none() {
            self.read = Some(Instant::now());
            let Usage {
                prompt_tokens,
                cached_tokens,
                ..
            } = self.usage;
            out.events(
                self.id,
                [ChatEvent::Started {
                    prompt_tokens,
                    cached_tokens,
                }],
            );
        }
        let goes_on = self.ignore_ends || self.usage.completion_tokens < self.min_tokens;
        let drawn = self.sampler.draw(
            row,
            self.guide.allowed(!goes_on),
            with.suppressed,
            with.candidates,
        );
        let token = drawn.map_err(|error| ChatError::Inference {
            reason: error.to_string(),
        })?;
        self.last = token;
        self.usage.completion_tokens += 1;
        if with.vocab.is_end(token) {
            return Ok(Some(Finish::Stop));
        }
        let bytes = with.vocab.bytes(token);
        self.guide.take(token, &bytes);
        let logprob = self
            .logprobs
            .map(|count| logprob_of(row, token, count, with.vocab));
        let control = if with.vocab.is_marker(token) {
            std::str::from_utf8(&bytes).ok()
        } else {
            None
        };
        let written = match control {
            // A marker is no text, and moves nothing here.
            Some(_) if self.raw => Written::Bytes(&[]),
            Some(marker) => Written::Control(marker),
            None => Written::Bytes(&bytes),
        };
        let mut events = vec![];
        let progress = self.parser.push(written, logprob, &mut events);
        out.events(self.id, events);
        Ok(match progress {
            Progress::Stopped => Some(Finish::Stop),
            Progress::More if self.usage.completion_tokens >= self.limit => Some(Finish::Length),
            Progress::More => None,
        })
    }

    /// Says what is left to say, and that this was it.
    pub fn finish(self, finish: Finish, vocab: Vocab, out: &mut Outbox) {
        let Self {
            id,
            parser,
            last,
            usage,
            received,
            read,
            ..
        } = self;
        let ended = vocab.is_end(last);
        let mut events = vec![];
        let summary = parser.finish(if ended { End::Turn } else { End::Cut }, &mut events);
        let finish = match summary {
            Summary {
                stop: Some(which), ..
            } => Finish::StopString(which),
            Summary { cut_call: true, .. } => Finish::Length,
            Summary { called: true, .. } if ended => Finish::ToolCalls,
            _ => finish,
        };
        let usage = Usage {
            reasoning_tokens: summary.reasoning_tokens,
            ..usage
        };
        let read = read.unwrap_or(received);
        let timings = Timings {
            prompt_us: read.duration_since(received).as_micros() as u64,
            predicted_us: read.elapsed().as_micros() as u64,
        };
        events.push(ChatEvent::Done(Done {
            finish,
            usage,
            timings,
        }));
        out.events(id, events);
    }
}

fn logprob_of(row: &[f32], token: Token, count: u8, vocab: Vocab) -> TokenLogprob {
    let (logprob, top) = logprob::of(row, token as usize, count as usize);
    let top = top
        .into_iter()
        .map(|(token, logprob)| (vocab.bytes(token as Token), logprob))
        .collect();
    TokenLogprob {
        bytes: vocab.bytes(token),
        logprob,
        top,
    }
}
