//! What can be typed to have a sound written down.

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser as NotEmpty;
use clap::{Args, ValueEnum, ValueHint};
use clap_complete::ArgValueCandidates;

use crate::ctl::completion::model_names;

#[derive(Debug, Args)]
pub struct TranscribeArgs {
    /// The sound: WAV, AIFF, CAF, MP3, FLAC, Ogg, M4A, MP4 or WebM, 25 MiB at most; `-` is standard input
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,

    /// What to print: the text as it is heard, subtitles, or the API's JSON with times, when all was heard
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Transcript::Text)]
    pub format: Transcript,

    /// The language that is spoken, as a code like `de`
    #[arg(long, value_name = "CODE", value_parser = NotEmpty::new())]
    pub language: Option<String>,

    /// What came before, or names and words that occur
    #[arg(long, value_name = "TEXT", value_parser = NotEmpty::new())]
    pub prompt: Option<String>,

    /// The model's id (see `gemmactl models`); it must be one that hears
    #[arg(long, value_name = "MODEL", default_value = "auto", value_parser = NotEmpty::new(), add = ArgValueCandidates::new(model_names))]
    pub model: String,
}

/// The shapes of a transcript.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Transcript {
    Text,
    Srt,
    Vtt,
    Json,
}
