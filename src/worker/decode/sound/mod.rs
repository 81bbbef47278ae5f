//! Files of sound into samples. Everything is decoded as it comes, and no further than the longest
//! sound.

mod decoder;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::io::Cursor;

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Resampler};
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

use crate::gemma::sound::{FRAME, MAX_SAMPLES, MAX_SECONDS, RATE};
use decoder::{Decoder, opus};

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
/// Samples that are resampled together.
const CHUNK: usize = 1024;

/// The samples of a file, mono, [`RATE`] a second: [`FRAME`] at least, [`MAX_SAMPLES`] at most. The
/// error continues the sentence "the sound …".
pub fn samples(file: &[u8]) -> Result<Vec<f32>, String> {
    careful(|| {
        let file = with_length(file);
        let mut source = Source::open(&file)?;
        let mut mono = source.mono()?;
        if source.rate != RATE {
            mono = resampled(&mono, source.rate)?;
        }
        // What a filter adds at the end, at most.
        mono.truncate(MAX_SAMPLES);
        mono.resize(mono.len().max(FRAME), 0.0);
        Ok(mono)
    })
}

/// Bytes of memory that it takes at most to decode the sound, as its header says: its samples, in
/// a list that is copied when it grows.
pub fn memory(file: &[u8]) -> Result<u64, String> {
    careful(|| {
        let rate = Source::open(&with_length(file))?.rate;
        let samples = u64::from(rate) * u64::from(MAX_SECONDS);
        Ok(2 * file.len() as u64 + 3 * samples * size_of::<f32>() as u64 + TABLES)
    })
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

    /// All of it, its channels in one.
    fn mono(&mut self) -> Result<Vec<f32>, String> {
        let most = u64::from(MAX_SECONDS) * u64::from(self.rate);
        let mut mono = vec![];
        let mut damage = None;
        loop {
            let packet = match self.format.next_packet() {
                Ok(Some(packet)) => packet,
                Ok(None) => break,
                Err(Error::IoError(_)) if self.has_no_length() => break,
                // Another stream follows, as in the recordings of radio stations. The first one is
                // what was sent.
                Err(Error::ResetRequired) => break,
                Err(error) => return Err(reason(&error)),
            };
            if packet.track_id != self.track.id {
                continue;
            }
            // A packet that cannot be decoded is passed over, as every player does: the first one
            // of an MP3 that was cut out of a longer one cannot be.
            damage = self.decoder.decode(&packet, &mut mono).err().or(damage);
            if mono.len() as u64 > most {
                return Err(format!(
                    "is longer than {MAX_SECONDS} s, which is the most that the model hears at once; cut it into pieces"
                ));
            }
        }
        if mono.is_empty() {
            return Err(damage.unwrap_or_else(|| "is silent: it has no samples".to_owned()));
        }
        if mono.iter().any(|sample| !sample.is_finite()) {
            return Err("has samples that are no numbers".into());
        }
        Ok(mono)
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

fn resampled(mono: &[f32], rate: u32) -> Result<Vec<f32>, String> {
    let failed = |error: String| format!("cannot be brought to {RATE} samples a second: {error}");
    let mut resampler = Fft::<f32>::new(rate as usize, RATE as usize, CHUNK, 1, FixedSync::Both)
        .map_err(|error| failed(error.to_string()))?;
    let source =
        InterleavedSlice::new(mono, 1, mono.len()).map_err(|error| failed(error.to_string()))?;
    let resampled = resampler
        .process_all(&source, mono.len(), None)
        .map_err(|error| failed(error.to_string()))?;
    Ok(resampled.take_data())
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
