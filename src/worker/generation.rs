//! A request that is being answered: its prompt, and what is sampled behind it.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::Instant;

use super::guide::Guide;
use super::link::{Outbox, Writer};
use super::llama::{Candidates, Sampler, Token};
use super::load::{Engine, EngineLimits};
use super::logprob;
use super::mask_thread::MaskReceiver;
use super::media::Medium;
use super::messages::{Prepared, ServerMessage};
use super::progress::TOLD_EVERY;
use super::repetition::RepetitionGuard;
use super::schedule::{EmbeddingsSegment, MediumState, RunningState, Stops, Tokens};
use super::sequence::Sequence;
use super::sequences::{KvCache, Piece, Sequences};
use super::speculation::{Costs, MOST, Speculator};
use super::vocab::Vocab;
use crate::chat::{
    ChatError, ChatEvent, ChatRequest, Format, PromptToken, Reading, ServiceTier, Speculation,
    TokenLogprob, Usage,
};
use crate::gemma::parse::Parser;
use crate::gemma::tracker::AnswerTracker;
use crate::ipc::{RequestId, ServeEvent};

mod sampling;

/// Tokens of a prompt that are reported in one event.
const RATED_AT_ONCE: usize = 128;

/// A request that has a sequence of the cache.
pub struct Generation {
    pub id: RequestId,
    /// What its sequence holds may be reused afterwards.
    pub cache_prompt: bool,
    tier: ServiceTier,
    cancelled: Arc<AtomicBool>,
    prompt: Sequence,
    stops: Stops,
    /// Pictures and sounds that are not read yet.
    media: VecDeque<Arc<Medium>>,
    /// How far the first of them is.
    medium: NextMedium,
    sampler: Sampler,
    tracker: AnswerTracker,
    guide: Guide,
    parser: Parser,
    /// Tokens that must be sampled before the model may end its turn.
    min_tokens: u32,
    ignore_ends: bool,
    /// Ends the answer when it says the same for ever; `None` if it may, or has a given form.
    repetition: Option<RepetitionGuard>,
    /// Everything that the model writes is text.
    raw: bool,
    logprobs: Option<u8>,
    /// The prompt's own tokens, as far as they are rated; `None` if that is not wanted.
    rated: Option<Vec<PromptToken>>,
    /// The token that ends the answer is reported as well.
    rates_end: bool,
    usage: Usage,
    /// Tokens that may be sampled.
    limit: u32,
    /// Tokens that were sampled, or taken because nothing else was possible, and are not decoded; the
    /// last of the answer is among them.
    fresh: Vec<Token>,
    /// Tokens that `fresh` may have.
    most_fresh: usize,
    speculator: Speculator,
    received: Instant,
    /// When its prompt had its turn.
    begun: Instant,
    /// When it was told last how far that is read.
    told: Option<Instant>,
    /// When the prompt had been read.
    read: Option<Instant>,
}

/// The medium that comes next.
enum NextMedium {
    /// It was not sent to the encoder yet, or there is none.
    Raw,
    Encoding,
    /// Its embeddings, one row after the other.
    Encoded(Vec<f32>),
}

/// What is the same for every sample.
pub struct SampleScratch<'a> {
    pub vocab: Vocab,
    pub suppressed: &'a [Token],
    pub candidates: &'a mut Candidates,
}

impl Generation {
    /// `cached` tokens of the prompt are in its sequence already, and at `stops` its states are noted. `seed` is used if the request has
    /// none; masks are delivered at `ready` for its `sequence`.
    pub fn start(
        mut prepared: Prepared,
        (cached, stops): (usize, Stops),
        seed: u32,
        engine: &Engine,
        (sequence, ready): (usize, SyncSender<ServerMessage>),
    ) -> Result<Self, ChatError> {
        let speculation = speculation(&prepared.request, &engine.limits);
        let speculator = Speculator::new(speculation, std::mem::take(&mut prepared.prediction));
        let Prepared {
            id,
            request,
            prompt,
            media,
            in_thought,
            raw,
            adds_bos,
            constraints,
            cancelled,
            received,
            ..
        } = prepared;
        let read = prompt.media.partition_point(|place| place.at < cached);
        let usage = Usage::of_prompt(prompt.len(), cached);
        let sampler = sampler(&request, seed, engine.vocab)?;
        let limit = output_limit(&request, prompt.len(), &engine.limits);
        let repetition = repetition_guard(&request);
        let first = prompt.tokens.first().filter(|_| !adds_bos);
        let rated = rated_so_far(&request, first, engine.vocab);
        let receiver = MaskReceiver::new(sequence, id, ready, engine.vocab);
        let guide = Guide::new(
            engine.control.clone(),
            constraints,
            (request.tool_choice, request.parallel_tool_calls),
            (request.thinking, in_thought),
            limit,
            receiver,
        );
        let most_fresh = engine.limits.batch / engine.limits.slots;
        Ok(Self {
            id,
            cache_prompt: request.cache_prompt,
            tier: request.tier,
            cancelled,
            prompt,
            stops,
            media: media.into_iter().skip(read).collect(),
            medium: NextMedium::Raw,
            sampler,
            guide,
            tracker: AnswerTracker::new(in_thought),
            parser: Parser::new(request.output.stop, in_thought),
            min_tokens: request.output.min_tokens,
            ignore_ends: request.output.ignore_eos,
            repetition,
            raw,
            logprobs: request.logprobs,
            rated,
            rates_end: request.prompt_logprobs,
            usage,
            limit,
            fresh: vec![],
            most_fresh: (most_fresh as usize).clamp(1, MOST),
            speculator,
            received,
            begun: Instant::now(),
            told: None,
            read: None,
        })
    }

    pub fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    pub fn cancel_flag(&self) -> Arc<AtomicBool> {
        self.cancelled.clone()
    }

    /// Its state for the schedule. `is_alone`: no other request runs.
    pub fn state(&self, costs: &Costs, is_alone: bool) -> RunningState<'_> {
        RunningState {
            fresh: self.fresh.len(),
            draft: self.draft(costs, is_alone),
            prompt: &self.prompt,
            medium: match &self.medium {
                NextMedium::Raw => MediumState::Raw,
                NextMedium::Encoding => MediumState::Encoding,
                NextMedium::Encoded(_) => MediumState::Encoded,
            },
            awaits_mask: self.guide.waits(),
            rates_prompt: self.rates_prompt(),
            tier: self.tier,
            stops: self.stops,
        }
    }

    /// What is expected of its guesses is what earlier answers were like.
    pub fn expect(&mut self, costs: &Costs) {
        self.speculator.expect(costs);
    }

    /// Has `costs` know what its guesses were like.
    pub fn teach(&self, costs: &mut Costs) {
        self.speculator.teach(costs);
    }

    /// Whether the next token is sampled behind these of its tokens: the last of its prompt are
    /// among them, or they are no prompt.
    pub fn samples_behind(&self, tokens: &Tokens) -> bool {
        match tokens {
            Tokens::Prompt(range) => range.end == self.prompt.len(),
            Tokens::Sampled { .. } => true,
        }
    }

    /// Whether the tokens of its prompt are to be rated.
    pub fn rates_prompt(&self) -> bool {
        self.rated.is_some()
    }

    /// Rates the prompt's token at `at` by the logits behind the one before it. There is none behind
    /// the prompt.
    pub fn rate(&mut self, row: &[f32], at: usize, vocab: Vocab) {
        let (Some(rated), Some(&token)) = (&mut self.rated, self.prompt.tokens.get(at)) else {
            return;
        };
        let TokenLogprob {
            bytes,
            logprob,
            top,
        } = logprob::told(row, token, self.logprobs.unwrap_or_default(), vocab);
        rated.push(PromptToken {
            bytes,
            logprob: Some(logprob),
            top,
        });
    }

    /// What is to be told now and then as long as its prompt is read, of which the cache holds `done`
    /// tokens.
    fn due_reading(&mut self, done: usize) -> Option<ServeEvent> {
        let is_due = self.told.is_none_or(|at| at.elapsed() >= TOLD_EVERY);
        (self.read.is_none() && is_due).then(|| {
            self.told = Some(Instant::now());
            self.reading(done)
        })
    }

    fn reading(&self, done: usize) -> ServeEvent {
        let reading = Reading {
            total: self.usage.prompt_tokens,
            cached: self.usage.cached_tokens,
            done: done as u32,
            time_ms: self.begun.elapsed().as_millis() as u64,
        };
        let id = self.id;
        ServeEvent::Reading { id, reading }
    }

    /// What is said when the prompt was read: how long it is, and what its tokens are rated at.
    fn started(&mut self, out: &mut Outbox) {
        out.push(&self.reading(self.prompt.len()));
        self.read = Some(Instant::now());
        let Usage {
            prompt_tokens,
            cached_tokens,
            ..
        } = self.usage;
        let started = ChatEvent::Started {
            prompt_tokens,
            cached_tokens,
        };
        out.events(self.id, [started]);
        let mut tokens = self.rated.take().unwrap_or_default().into_iter().peekable();
        while tokens.peek().is_some() {
            let tokens = tokens.by_ref().take(RATED_AT_ONCE).collect();
            out.events(self.id, [ChatEvent::Prompt { tokens }]);
        }
    }

    /// Where the states of its prompt are noted.
    pub fn stops(&self) -> Stops {
        self.stops
    }

    /// The tokens of a segment.
    pub fn tokens(&self, tokens: &Tokens) -> Cow<'_, [Token]> {
        match tokens {
            Tokens::Prompt(range) => Cow::Borrowed(&self.prompt.tokens[range.clone()]),
            Tokens::Sampled { fresh, draft } => {
                let fresh = self.fresh.iter().copied().take(*fresh);
                let draft = self.speculator.proposal().take(*draft);
                Cow::Owned(fresh.chain(draft).collect())
            }
        }
    }

    /// The picture or sound whose encoding is to be asked for now, if there is one.
    pub fn encode_next(&mut self) -> Option<&Arc<Medium>> {
        let medium = self.media.front()?;
        self.medium = NextMedium::Encoding;
        Some(medium)
    }

    /// Takes the embeddings of the medium that it waited for.
    pub fn encoded(&mut self, rows: Vec<f32>) {
        self.medium = NextMedium::Encoded(rows);
    }

    /// A piece of the encoded medium.
    pub fn piece(&self, segment: &EmbeddingsSegment) -> Option<Piece<'_>> {
        let NextMedium::Encoded(rows) = &self.medium else {
            return None;
        };
        let (span, end) = (segment.span, segment.offset + segment.count);
        let width = rows.len() / span.count;
        Some(Piece {
            span,
            tokens: &self.prompt.tokens[span.at + segment.offset..span.at + end],
            rows: &rows[segment.offset * width..end * width],
            is_picture: self.media.front().is_some_and(|medium| medium.is_picture()),
        })
    }

    /// A piece of the encoded medium was decoded.
    pub fn piece_decoded(&mut self, segment: &EmbeddingsSegment) {
        if segment.offset + segment.count == segment.span.count {
            self.medium = NextMedium::Raw;
            self.media.pop_front();
        }
    }
}

/// Tells of those whose prompts are being read how far that is, a few times a second.
pub fn tell_reading<C: KvCache>(
    running: &mut [Option<Generation>],
    held: &Sequences<C>,
    writer: &Writer,
) {
    for (sequence, generation) in running.iter_mut().enumerate() {
        let done = held.cached(sequence).len();
        let due = generation.as_mut().and_then(|one| one.due_reading(done));
        // A failed write is seen by the reader as the end of the channel.
        let _ = due.map(|event| writer.send(&event));
    }
}

/// The sampler of a request; `seed` is used if it has none.
fn sampler(request: &ChatRequest, seed: u32, vocab: Vocab) -> Result<Sampler, ChatError> {
    let seed = request.sampling.seed.unwrap_or(seed);
    Sampler::new(&request.sampling, seed, vocab.len()).ok_or_else(|| ChatError::Inference {
        reason: "llama.cpp made no sampler".to_owned(),
    })
}

/// What watches over an answer that goes on for as long as the model likes. A given form is an end of
/// its own, and who wants no end gets none.
fn repetition_guard(request: &ChatRequest) -> Option<RepetitionGuard> {
    let output = &request.output;
    let watched = !output.may_repeat && !output.ignore_eos && request.format == Format::Text;
    watched.then(RepetitionGuard::new)
}

/// Whether tokens are tried ahead. Where the configuration has switched it off there is no room for them.
fn speculation(request: &ChatRequest, limits: &EngineLimits) -> Speculation {
    match limits.speculation {
        Speculation::Off => Speculation::Off,
        usual => request.speculation.unwrap_or(usual),
    }
}

/// Tokens that an answer may have: as many as were asked for, as far as the worker's limit and the
/// context go.
fn output_limit(request: &ChatRequest, prompt: usize, limits: &EngineLimits) -> u32 {
    let room = limits.context.saturating_sub(prompt as u32);
    let asked = request.output.max_tokens.unwrap_or(u32::MAX);
    asked.min(limits.max_output).min(room)
}

/// The first token of a prompt that is rated, unless the vocabulary put it there: it stands before
/// everything that it could be rated by.
fn rated_so_far(
    request: &ChatRequest,
    first: Option<&Token>,
    vocab: Vocab,
) -> Option<Vec<PromptToken>> {
    let unrated = first.map(|&token| PromptToken {
        bytes: vocab.bytes(token),
        logprob: None,
        top: vec![],
    });
    request
        .prompt_logprobs
        .then(|| unrated.into_iter().collect())
}
