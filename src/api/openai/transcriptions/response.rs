//! A transcription, whole or as events.

use serde::Serialize;

use super::segment::Segment;
use super::transcriber::Transcriber;
use crate::chat::Usage;

/// The language that nobody has named (BCP 47: undetermined).
const UNDETERMINED: &str = "und";
/// What whisper's decoder counts in: hundredths of a second.
const SEEKS: f64 = 100.0;

/// The whole answer.
#[derive(Debug, Serialize)]
pub struct Transcription<'a> {
    pub text: &'a str,
    pub usage: TokenUsage,
}

/// The whole answer with times.
#[derive(Debug, Serialize)]
pub struct Verbose<'a> {
    task: &'static str,
    language: &'a str,
    /// Seconds.
    duration: f64,
    text: &'a str,
    segments: Vec<TimedText<'a>>,
    usage: TimeUsage,
}

/// A piece with its times, in seconds.
#[derive(Debug, Serialize)]
struct TimedText<'a> {
    id: usize,
    seek: u64,
    start: f64,
    end: f64,
    text: &'a str,
    avg_logprob: f64,
    temperature: f32,
    /// Nobody measures these three. Clients with types cannot do without, and those that sort out what
    /// whisper was not sure of keep a text that has these.
    tokens: [u32; 0],
    compression_ratio: f32,
    no_speech_prob: f32,
}

#[derive(Debug, Serialize)]
struct TimeUsage {
    r#type: &'static str,
    seconds: f64,
}

impl<'a> Verbose<'a> {
    pub fn of(transcriber: &'a Transcriber, segments: &'a [Segment]) -> Self {
        let wish = transcriber.wish();
        let duration = rounded(transcriber.seconds());
        let segments = segments.iter().enumerate().map(|(id, segment)| TimedText {
            id,
            seek: (segment.begin * SEEKS) as u64,
            start: rounded(segment.begin),
            end: rounded(segment.end),
            text: &segment.text,
            avg_logprob: segment.logprob,
            temperature: wish.temperature,
            tokens: [],
            compression_ratio: 1.0,
            no_speech_prob: 0.0,
        });
        Self {
            task: "transcribe",
            language: wish.language.as_deref().unwrap_or(UNDETERMINED),
            duration,
            text: transcriber.text(),
            segments: segments.collect(),
            usage: TimeUsage {
                r#type: "duration",
                seconds: duration,
            },
        }
    }
}

/// To milliseconds.
fn rounded(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

/// One event of a streamed answer.
#[derive(Debug, Serialize)]
#[serde(tag = "type")]
pub enum Event<'a> {
    #[serde(rename = "transcript.text.delta")]
    Delta { delta: &'a str },
    #[serde(rename = "transcript.text.done")]
    Done { text: &'a str, usage: TokenUsage },
}

/// Tokens in and out.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct TokenUsage {
    r#type: &'static str,
    input_tokens: u32,
    output_tokens: u32,
    total_tokens: u32,
}

impl From<Usage> for TokenUsage {
    fn from(usage: Usage) -> Self {
        let (input_tokens, output_tokens) = (usage.prompt_tokens, usage.completion_tokens);
        Self {
            r#type: "tokens",
            input_tokens,
            output_tokens,
            total_tokens: input_tokens + output_tokens,
        }
    }
}
