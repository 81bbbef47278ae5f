//! The vocabulary both processes speak: a validated request, the events that answer it, and how it
//! can fail.
//!
//! Everything here is plain data. Front doors build a [`ChatRequest`] from what a client sent and
//! [`ChatRequest::check`] it once; after that no one needs to look again.

pub mod bounded;
mod check;
mod document;
mod event;
mod form;
pub mod lanes;
mod media;
mod modality;
mod place;
mod principal;
mod remote;
mod speculation;
mod text;
mod thinking;
pub mod timestamp;
mod waiting;

pub use check::{
    Invalid, MAX_DOCUMENT_BYTES, MAX_NAME_BYTES, MAX_PICTURE_BYTES, MAX_SOUND_BYTES,
    MAX_STOP_BYTES, MAX_TEXT_BYTES, PENALTIES, PROBABILITIES, REPEAT_PENALTIES, TEMPERATURES,
};
pub use document::{Document, Source};
pub use event::{ChatError, ChatEvent, Done, Finish, PromptToken, Timings, TokenLogprob, Usage};
pub use form::{Constraint, Format, ToolChoice};
pub use media::{BUDGETS, DecodedMedia, Detail, Picture, Pixels, Samples, Sound};
pub use modality::{Modalities, Modality};
pub use place::{PartKind, Place};
pub use principal::{AppName, PrincipalId};
pub use remote::{Barred, MAX_URL_BYTES, Networks, Remote, RemoteKind};
pub use speculation::{Drafted, MOST_DRAFT, Speculation, Tally};
pub use text::{TextAnswer, TextTask};
pub use thinking::Thinking;
pub use waiting::{Reading, Stage, Waiting};

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// One conversation to continue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChatRequest {
    /// The conversation so far, oldest first; empty only if there is a `prompt`.
    pub messages: Vec<Message>,
    /// For each message, the client's own that it is or stands beside, of which the worker speaks in
    /// its place. Empty: they are the client's.
    pub origins: Vec<u32>,
    /// A text to go on with as it is, control tokens that it spells included, in place of a
    /// conversation.
    pub prompt: Option<RawPrompt>,
    /// The last message is the beginning of the answer, which is gone on with: an assistant's that
    /// says something and calls nothing.
    pub continues: bool,
    /// Functions the model may call.
    pub tools: Vec<Tool>,
    pub tool_choice: ToolChoice,
    /// Whether the model may call several functions in one turn.
    pub parallel_tool_calls: bool,
    pub format: Format,
    /// How the next token is drawn.
    pub sampling: Sampling,
    /// When the answer ends.
    pub output: OutputLimits,
    pub thinking: Thinking,
    /// `Some(n)`: report the log-probability of each token and of its `n` best rivals.
    pub logprobs: Option<u8>,
    /// Whether the same is reported of the tokens of the `prompt`, which must be there
    /// ([`ChatEvent::Prompt`]).
    pub prompt_logprobs: bool,
    /// Whether the prompt may reuse, and stay in, the prefix cache.
    pub cache_prompt: bool,
    /// How long what was read is kept.
    pub retention: Retention,
    pub tier: ServiceTier,
    /// Whether several tokens are tried in a step; `None`: as the configuration says.
    pub speculation: Option<Speculation>,
    /// What the answer may be, by the client's guess: it changes its speed alone.
    pub prediction: Option<String>,
    /// Nobody sees anything of the answer before its end, so that it may start over
    /// ([`ChatEvent::Restarted`]). The worker need not know.
    #[serde(skip)]
    pub whole: bool,
    /// What its pictures and sounds were decoded to. It goes to the worker beside the message.
    #[serde(skip)]
    pub decoded: Option<DecodedMedia>,
}

/// How long what the model has made of a prompt may be kept, so that the next one goes on from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Retention {
    /// Until the daemon stops.
    #[default]
    InMemory,
    /// For a day, restarts of the daemon included.
    Day,
}

impl Retention {
    /// As OpenAI names them in `prompt_cache_retention`.
    pub const NAMES: [(&str, Self); 2] = [("in_memory", Self::InMemory), ("24h", Self::Day)];
}

/// Whose turn comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ServiceTier {
    /// Somebody waits for the answer.
    #[default]
    Default,
    /// Nobody does: all others come first.
    Flex,
}

impl ServiceTier {
    /// As OpenAI names it in `service_tier`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Flex => "flex",
        }
    }
}

/// A text that is gone on with as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RawPrompt {
    /// The model's vocabulary turns it into tokens, behind the one that begins every prompt.
    Text(String),
    /// Nothing is added to them.
    Tokens(Vec<u32>),
}

impl RawPrompt {
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::Tokens(tokens) => tokens.is_empty(),
        }
    }

    /// Bytes of memory that it takes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Tokens(tokens) => size_of_val(&tokens[..]),
        }
    }

    /// Tokens that it can have at most, with the one that begins it.
    pub fn most_tokens(&self) -> usize {
        match self {
            Self::Text(text) => text.len() + 1,
            Self::Tokens(tokens) => tokens.len(),
        }
    }
}

/// Who speaks in a message. `developer` is OpenAI's newer name for `system`; Gemma has one turn for
/// both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    System,
    User,
    Assistant,
    Tool,
}

/// One turn, or the result of one tool call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    pub role: Role,
    /// What was said, in order. Empty only for an assistant message that calls tools.
    pub content: Vec<Part>,
    /// Assistant only: what it thought. The template keeps it inside a tool loop and drops it
    /// elsewhere.
    pub reasoning: Option<String>,
    /// Assistant only: the calls it made.
    pub tool_calls: Vec<ToolCall>,
    /// Tool only: the call this answers.
    pub tool_call_id: Option<String>,
    /// Tool only: the function's name, for results whose call is not in the conversation.
    pub name: Option<String>,
}

impl ChatRequest {
    /// A conversation with every wish at its default.
    pub fn new(messages: Vec<Message>) -> Self {
        Self {
            messages,
            origins: vec![],
            prompt: None,
            continues: false,
            tools: vec![],
            tool_choice: ToolChoice::Auto,
            parallel_tool_calls: true,
            format: Format::Text,
            sampling: Sampling::default(),
            output: OutputLimits::default(),
            thinking: Thinking::Off,
            logprobs: None,
            prompt_logprobs: false,
            cache_prompt: true,
            retention: Retention::InMemory,
            tier: ServiceTier::Default,
            speculation: None,
            prediction: None,
            whole: false,
            decoded: None,
        }
    }

    /// A text to go on with.
    pub fn raw(prompt: RawPrompt) -> Self {
        Self {
            prompt: Some(prompt),
            ..Self::new(vec![])
        }
    }

    /// The pictures and sounds, those in files as well, each with its message and its part of that
    /// message.
    pub fn media(&self) -> impl Iterator<Item = (usize, usize, &Part)> {
        self.parts()
            .filter(|(_, _, part)| part.modality().is_some())
    }

    /// [`ChatRequest::media`], to be replaced by what is decoded of them.
    pub fn media_mut(&mut self) -> impl Iterator<Item = (usize, usize, &mut Part)> {
        let pieces = self
            .parts_mut()
            .flat_map(|(i, j, part)| part.pieces_mut().iter_mut().map(move |piece| (i, j, piece)));
        pieces.filter(|(_, _, piece)| piece.modality().is_some())
    }

    /// The file with its decoded media, where it has such.
    pub fn media_file(&self) -> Option<&DecodedMedia> {
        self.decoded.as_ref().filter(|_| self.has_decoded_media())
    }

    /// Whether some of its media are decoded: then they are in a file, which comes with the request.
    pub fn has_decoded_media(&self) -> bool {
        self.parts()
            .any(|(_, _, part)| matches!(part, Part::Pixels(_) | Part::Samples(_)))
    }

    /// Everything that was said, each piece with its message and its place there. What stands in a
    /// file has the file's place.
    pub fn parts(&self) -> impl Iterator<Item = (usize, usize, &Part)> {
        self.messages.iter().enumerate().flat_map(|(i, message)| {
            message
                .content
                .iter()
                .enumerate()
                .flat_map(move |(j, part)| part.pieces().iter().map(move |piece| (i, j, piece)))
        })
    }

    /// The parts as they were sent, each with its message and its place there, to be replaced by
    /// what they become.
    pub fn parts_mut(&mut self) -> impl Iterator<Item = (usize, usize, &mut Part)> {
        let messages = self.messages.iter_mut().enumerate();
        messages.flat_map(|(i, message)| {
            message
                .content
                .iter_mut()
                .enumerate()
                .map(move |(j, part)| (i, j, part))
        })
    }

    /// Bytes of what is said and shown in it.
    pub fn bytes(&self) -> usize {
        self.parts().map(|(_, _, part)| part.bytes()).sum()
    }

    /// What besides text it takes to read it.
    pub fn modalities(&self) -> Modalities {
        let has = |modality| {
            self.parts()
                .any(|(_, _, part)| part.modality() == Some(modality))
        };
        Modalities {
            image: has(Modality::Image),
            audio: has(Modality::Audio),
        }
    }
}

impl Message {
    /// A message that is nothing but text.
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self {
            role,
            content: vec![Part::Text(text.into())],
            reasoning: None,
            tool_calls: vec![],
            tool_call_id: None,
            name: None,
        }
    }

    /// Bytes of memory that a copy of it takes: all but its files, which are shared.
    pub fn copied_bytes(&self) -> usize {
        let own = |part: &Part| match part {
            Part::Picture(_)
            | Part::Sound(_)
            | Part::Document(Document {
                source: Source::File(_),
                ..
            }) => 0,
            part => part.bytes(),
        };
        let calls = self
            .tool_calls
            .iter()
            .map(|call| call.id.len() + call.name.len() + call.arguments.len());
        let texts = [&self.reasoning, &self.tool_call_id, &self.name];
        let pieces = self.content.iter().flat_map(Part::pieces);
        size_of::<Self>()
            + pieces
                .map(|part| size_of::<Part>() + own(part))
                .sum::<usize>()
            + calls.sum::<usize>()
            + texts.into_iter().flatten().map(String::len).sum::<usize>()
    }

    /// Bytes of memory that it takes, its files included.
    pub fn bytes(&self) -> usize {
        let pieces = self.content.iter().flat_map(Part::pieces);
        let files = pieces.filter_map(Part::file).map(|file| file.len());
        self.copied_bytes() + files.sum::<usize>()
    }
}

/// One piece of a message's content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Part {
    Text(String),
    Picture(Picture),
    Sound(Sound),
    /// What a picture is replaced by before a model's worker gets the request.
    Pixels(Pixels),
    /// What a sound is replaced by.
    Samples(Samples),
    /// Read, and replaced by what it says, before a worker gets the request.
    Document(Document),
    /// Fetched, and replaced by what came, before that.
    Remote(Remote),
    /// What stands in a document: texts and pictures.
    Read(Vec<Part>),
}

impl Part {
    /// What it consists of: itself, or what stands in it.
    pub fn pieces(&self) -> &[Part] {
        match self {
            Self::Read(parts) => parts,
            part => std::slice::from_ref(part),
        }
    }

    /// [`Part::pieces`], to be replaced.
    fn pieces_mut(&mut self) -> &mut [Part] {
        match self {
            Self::Read(parts) => parts,
            part => std::slice::from_mut(part),
        }
    }

    /// What besides text it takes to read it, files apart.
    pub fn modality(&self) -> Option<Modality> {
        match self {
            Self::Picture(_) | Self::Pixels(_) => Some(Modality::Image),
            Self::Sound(_) | Self::Samples(_) => Some(Modality::Audio),
            Self::Text(_) | Self::Document(_) | Self::Remote(_) | Self::Read(_) => None,
        }
    }

    /// The file that it is, as it was sent.
    pub fn file(&self) -> Option<&Arc<[u8]>> {
        match self {
            Self::Picture(picture) => Some(&picture.file),
            Self::Sound(sound) => Some(&sound.file),
            Self::Document(Document {
                source: Source::File(file),
                ..
            }) => Some(file),
            Self::Document(_)
            | Self::Text(_)
            | Self::Remote(_)
            | Self::Read(_)
            | Self::Pixels(_)
            | Self::Samples(_) => None,
        }
    }

    /// Bytes that it takes; what is decoded is elsewhere.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Picture(picture) => picture.file.len(),
            Self::Sound(sound) => sound.file.len(),
            Self::Document(Document {
                source: Source::File(file),
                ..
            }) => file.len(),
            Self::Document(Document {
                source: Source::Kept(id),
                ..
            }) => id.len(),
            Self::Remote(remote) => remote.url.len(),
            Self::Read(parts) => parts.iter().map(Self::bytes).sum(),
            Self::Pixels(_) | Self::Samples(_) => 0,
        }
    }
}

/// A function call by the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    /// Names the call within its conversation.
    pub id: String,
    pub name: String,
    /// A JSON object as text.
    pub arguments: String,
}

/// A function the model may call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tool {
    pub name: String,
    pub description: String,
    /// The JSON schema of the arguments (an object) as text; `None` for a function without
    /// arguments.
    pub parameters: Option<String>,
    /// As in [`Format::JsonSchema`].
    pub strict: bool,
}

/// How the next token is drawn. The defaults are those published for Gemma 4: temperature 1.0,
/// top-k 64, top-p 0.95, min-p 0 (`general.sampling.*` in the published files).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// 0 takes the likeliest token always.
    pub temperature: f32,
    /// 0 switches the cut off.
    pub top_k: u32,
    /// 1 switches the cut off.
    pub top_p: f32,
    pub min_p: f32,
    /// The same seed, request and model give the same answer; `None` draws one.
    pub seed: Option<u32>,
    pub frequency_penalty: f32,
    pub presence_penalty: f32,
    /// 1 switches it off.
    pub repeat_penalty: f32,
    /// Added to the logits of single tokens before anything else.
    pub logit_bias: Vec<(u32, f32)>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 64,
            top_p: 0.95,
            min_p: 0.0,
            seed: None,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            repeat_penalty: 1.0,
            logit_bias: vec![],
        }
    }
}

/// When the answer ends.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OutputLimits {
    /// Tokens at most, thoughts included; `None` leaves it to the daemon's limit and the context.
    pub max_tokens: Option<u32>,
    /// The end-of-turn token is not drawn before this many tokens.
    pub min_tokens: u32,
    /// The answer ends before the first of these; thoughts are not searched.
    pub stop: Vec<String>,
    /// Go on after the model ended its turn (for measuring).
    pub ignore_eos: bool,
    /// Go on for ever with the same, if the model does.
    pub may_repeat: bool,
}
