//! Files of sound into samples, in pieces that a model hears at once. Everything is decoded as it comes.

mod cut;
mod decoder;
mod pieces;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::io::Cursor;
use std::ops::ControlFlow;

use symphonia::core::codecs::CodecParameters;
use symphonia::core::codecs::audio::AudioDecoderOptions;
use symphonia::core::codecs::audio::well_known::CODEC_ID_OPUS;
use symphonia::core::common::Limit;
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, Track, TrackType};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::meta::MetadataOptions;

use super::careful;

use crate::gemma::sound::{MAX_SECONDS, RATE};
use crate::ipc::SoundPlace;
use decoder::{Decoder, opus};
use pieces::{Piece, Pieces};

/// Samples a second that a file may have.
const MAX_RATE: u32 = 192_000;
/// Channels that a file may have; they are mixed into one.
const MAX_CHANNELS: usize = 8;
/// Bytes of titles, pictures and the like that are read on the way to the sound, each.
const MAX_TAG: usize = 64 << 10;
/// Bytes of sound from which on a header's length is not the real one: the writer did not know it.
const UNKNOWN_LENGTH: u64 = 0x7FFF_0000;
/// Bytes of a decoder's tables and of a packet, generously.
const TABLES: u64 = 16 << 20;

/// What a file's header says.
pub struct Claims {
    /// Seconds that it lasts.
    pub seconds: f64,
    /// Bytes of memory that it takes at most to decode a piece of it: its samples, in a list that is
    /// copied when it grows.
    pub memory: u64,
}

/// What the sound's header and packets say of it; nothing is decoded. The error continues the sentence
/// "the sound …".
pub fn claims(file: &[u8]) -> Result<Claims, String> {
    careful(|| {
        let file = with_length(file);
        let mut source = Source::open(&file)?;
        // With what is decoded of the next piece to find where one ends.
        let samples = u64::from(source.rate) * u64::from(MAX_SECONDS + 2);
        let copy = match &file {
            Cow::Owned(copy) => copy.len() as u64,
            Cow::Borrowed(_) => 0,
        };
        let memory = copy + 3 * samples * size_of::<f32>() as u64 + TABLES;
        let tick = source.track.time_base;
        let (mut ticks, mut first, mut last) = (0_u64, None, 0);
        // What is wrong behind the last that can be heard is told in its turn.
        while let Ok(Some(packet)) = source.packet() {
            ticks = ticks.saturating_add(packet.dur.get());
            // WebM has no more than their times.
            last = packet.pts.get();
            first.get_or_insert(last);
        }
        let ticks = ticks.max(last.abs_diff(first.unwrap_or(last)));
        let tick = tick.map_or(1.0 / f64::from(source.rate), |base| {
            f64::from(base.numer.get()) / f64::from(base.denom.get())
        });
        Ok(Claims {
            seconds: ticks as f64 * tick,
            memory,
        })
    })
}

/// Has pieces of a file heard, from a place on, until `each` has enough. The error continues the
/// sentence "the sound …".
pub fn listen(
    file: &[u8],
    from: SoundPlace,
    longest: usize,
    mut each: impl FnMut(Piece) -> Result<ControlFlow<()>, String>,
) -> Result<(), String> {
    let file = careful(|| Ok(with_length(file)))?;
    let mut pieces = careful(|| Pieces::open(&file, from))?;
    while let Some(piece) = careful(|| pieces.next(longest))? {
        if each(piece)?.is_break() {
            break;
        }
    }
    Ok(())
}

/// A file whose header was read.
struct Source<'a> {
    format: Box<dyn FormatReader + 'a>,
    track: Track,
    decoder: Decoder,
    /// Samples a second that the decoder makes.
    rate: u32,
}

impl<'a> Source<'a> {
    fn open(file: &'a [u8]) -> Result<Self, String> {
        if is_speex(file) {
            return Err("is Speex, which is not read; convert it to Opus or WAV".into());
        }
        let stream = MediaSourceStream::new(Box::new(Cursor::new(file)), Default::default());
        let tags = MetadataOptions::default()
            .limit_tag_bytes(Limit::Maximum(MAX_TAG))
            .limit_visual_bytes(Limit::Maximum(MAX_TAG));
        let format = symphonia::default::get_probe().probe(
            &Hint::new(),
            stream,
            FormatOptions::default(),
            tags,
        );
        let format = format.map_err(|error| match error {
            Error::Unsupported(_) => other_kind(file).to_owned(),
            other => reason(&other),
        })?;
        let track = format
            .default_track(TrackType::Audio)
            .ok_or("has nothing to hear in it")?
            .clone();
        let Some(CodecParameters::Audio(params)) = &track.codec_params else {
            return Err("has nothing to hear in it".into());
        };
        let channels = params
            .channels
            .as_ref()
            .map_or(1, |channels| channels.count());
        let rate = params.sample_rate.unwrap_or(RATE);
        if channels == 0 || channels > MAX_CHANNELS {
            return Err(format!(
                "has {channels} channels; at most {MAX_CHANNELS} are allowed"
            ));
        }
        if rate == 0 || rate > MAX_RATE {
            return Err(format!(
                "has {rate} samples a second; at most {MAX_RATE} are allowed"
            ));
        }
        if params.codec == CODEC_ID_OPUS {
            let decoder = opus(params, track.delay.unwrap_or(0), channels)?;
            return Ok(Self {
                format,
                decoder,
                track,
                rate: RATE,
            });
        }
        let decoder = symphonia::default::get_codecs()
            .make_audio_decoder(params, &AudioDecoderOptions::default());
        let decoder = Decoder::Other(decoder.map_err(|error| reason(&error))?);
        Ok(Self {
            format,
            decoder,
            track,
            rate,
        })
    }

    /// Whether it is a WAV file whose header was written before the length of the sound was known.
    fn has_no_length(&self) -> bool {
        let Some(CodecParameters::Audio(params)) = &self.track.codec_params else {
            return false;
        };
        let bits = u64::from(
            params
                .bits_per_coded_sample
                .or(params.bits_per_sample)
                .unwrap_or(0),
        );
        let channels = params
            .channels
            .as_ref()
            .map_or(1, |channels| channels.count() as u64);
        let claims = |frames: u64| frames.saturating_mul(channels).saturating_mul(bits / 8);
        self.format.format_info().short_name == "wave"
            && self
                .track
                .num_frames
                .is_none_or(|frames| claims(frames) >= UNKNOWN_LENGTH)
    }
}

/// What a file is that is none of the formats. Continues "the sound …".
fn other_kind(file: &[u8]) -> &'static str {
    match file.starts_with(b"#!AMR") {
        true => "is AMR, which is not read; convert it to Opus or WAV",
        false => "is no WAV, AIFF, CAF, MP3, FLAC, Ogg, M4A, MP4, WebM or Matroska file",
    }
}

/// The first packet of an Ogg stream says what it has, behind the page's header of 28 bytes or so.
fn is_speex(file: &[u8]) -> bool {
    let head = &file[..file.len().min(64)];
    file.starts_with(b"OggS") && head.windows(8).any(|part| part == b"Speex   ")
}

/// A WAV file with the length of its sound in its header, where a recorder has left zeros there for a
/// later that never came.
fn with_length(file: &[u8]) -> Cow<'_, [u8]> {
    /// `RIFF`, its length, `WAVE`; then chunks: a name, a length, and as many bytes, rounded up.
    const CHUNKS: usize = 12;
    let mut at = CHUNKS;
    while file.starts_with(b"RIFF")
        && let Some((name, length)) = file.get(at..).and_then(|rest| {
            let (name, rest) = rest.split_first_chunk::<4>()?;
            Some((name, u32::from_le_bytes(*rest.first_chunk()?)))
        })
    {
        let begin = at + 8;
        if name == b"data" {
            let rest = file.len() - begin;
            if length != 0 || rest == 0 {
                break;
            }
            let mut mended = file.to_vec();
            mended[4..8].copy_from_slice(&((file.len() - 8) as u32).to_le_bytes());
            mended[at + 4..begin].copy_from_slice(&(rest as u32).to_le_bytes());
            return mended.into();
        }
        at = begin
            .saturating_add(length as usize)
            .saturating_add(length as usize % 2);
    }
    file.into()
}

fn reason(error: &Error) -> String {
    match error {
        Error::Unsupported(what) => format!("is of a sort that is not supported ({what})"),
        Error::LimitError(what) => format!("goes beyond a limit of its decoder ({what})"),
        _ => damaged(),
    }
}

fn damaged() -> String {
    "is damaged or cut off".into()
}
