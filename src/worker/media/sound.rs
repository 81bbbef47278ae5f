//! Files of sound into samples. Everything is decoded as it comes, and no further than the longest
//! sound.

use std::io::Cursor;

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Resampler};
use symphonia::core::codecs::CodecParameters;
use symphonia::core::codecs::audio::well_known::CODEC_ID_OPUS;
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::common::Limit;
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, Track, TrackType};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::meta::MetadataOptions;
use symphonia::core::packet::Packet;

use super::careful;
use crate::gemma::sound::{FRAME, MAX_SAMPLES, MAX_SECONDS, RATE};

/// Samples a second that a file may have.
const MAX_RATE: u32 = 192_000;
/// Channels that a file may have; they are heard together.
const MAX_CHANNELS: usize = 8;
/// Bytes of titles, pictures and the like that are read on the way to the sound, each.
const MAX_TAG: usize = 64 << 10;
/// Samples that an Opus packet has at most: 120 ms (RFC 6716, 3.1).
const OPUS_PACKET: usize = RATE as usize / 1000 * 120;
/// Opus counts what is to be skipped in samples of 48 kHz (RFC 7845, 4.2).
const OPUS_CLOCK: u64 = 48_000 / RATE as u64;
/// Bytes of sound from which on a header does not mean what it says: whoever wrote it did not know
/// the length.
const UNKNOWN_LENGTH: u64 = 0x7FFF_0000;
/// Samples that are resampled together.
const CHUNK: usize = 1024;

/// The samples of a file, mono, [`RATE`] a second: [`FRAME`] at least, [`MAX_SAMPLES`] at most. The
/// error continues the sentence "the sound …".
pub fn samples(file: &[u8]) -> Result<Vec<f32>, String> {
    careful(|| {
        let mut source = Source::open(file)?;
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

/// A file whose header was read.
struct Source<'a> {
    format: Box<dyn FormatReader + 'a>,
    track: Track,
    decoder: Decoder,
    /// Samples a second that the decoder makes.
    rate: u32,
}

enum Decoder {
    Other(Box<dyn AudioDecoder>),
    Opus {
        decoder: Box<ropus::Decoder>,
        /// What the samples are multiplied with.
        gain: f32,
        /// Samples at the start that belong to no sound.
        skip: usize,
    },
}

impl<'a> Source<'a> {
    fn open(file: &'a [u8]) -> Result<Self, String> {
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
            Error::Unsupported(_) => "is no WAV, MP3, FLAC or Ogg file (Vorbis or Opus)".to_owned(),
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

    /// Whether it is a WAV file whose header was written when nobody knew yet how long the sound
    /// would be.
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

impl Decoder {
    /// Appends what a packet holds.
    fn decode(&mut self, packet: &Packet, mono: &mut Vec<f32>) -> Result<(), String> {
        match self {
            Self::Other(decoder) => {
                let decoded = decoder.decode(packet).map_err(|error| reason(&error))?;
                let channels = decoded.spec().channels().count().max(1);
                let mut interleaved: Vec<f32> = vec![];
                decoded.copy_to_vec_interleaved(&mut interleaved);
                mono.extend(
                    interleaved
                        .chunks_exact(channels)
                        .map(|frame| frame.iter().sum::<f32>() / channels as f32),
                );
            }
            Self::Opus {
                decoder,
                gain,
                skip,
            } => {
                let mut samples = [0.0; OPUS_PACKET];
                let decoded =
                    decoder.decode_float(&packet.data, &mut samples, ropus::DecodeMode::Normal);
                let count = decoded.map_err(|_| damaged())?;
                let skipped = count.min(*skip);
                *skip -= skipped;
                let end = count.saturating_sub((packet.trim_end.get() / OPUS_CLOCK) as usize);
                mono.extend(
                    samples[..end]
                        .iter()
                        .skip(skipped)
                        .map(|sample| sample * *gain),
                );
            }
        }
        Ok(())
    }
}

/// A decoder for what follows the header of an Opus stream (RFC 7845, 5.1).
fn opus(params: &AudioCodecParameters, delay: u32, channels: usize) -> Result<Decoder, String> {
    if channels > 2 {
        return Err(format!(
            "is Opus with {channels} channels; at most two are supported"
        ));
    }
    let gain = params
        .extra_data
        .as_deref()
        .and_then(|head| head.get(16..18))
        .map_or(0, |gain| i16::from_le_bytes([gain[0], gain[1]]));
    let decoder = ropus::Decoder::new(RATE, ropus::Channels::Mono)
        .map_err(|error| format!("cannot be decoded: {error}"))?;
    let gain = 10_f32.powf(f32::from(gain) / (20.0 * 256.0));
    Ok(Decoder::Opus {
        decoder: Box::new(decoder),
        gain,
        skip: (u64::from(delay) / OPUS_CLOCK) as usize,
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WAV: &[u8] = include_bytes!("../../../tests/data/sounds/tone-1.wav");
    const MP3: &[u8] = include_bytes!("../../../tests/data/sounds/tone-1.mp3");
    const FLAC: &[u8] = include_bytes!("../../../tests/data/sounds/tone-1.flac");
    const OGG: &[u8] = include_bytes!("../../../tests/data/sounds/tone-1.ogg");
    const OPUS: &[u8] = include_bytes!("../../../tests/data/sounds/tone-1.opus");

    /// A file of 16-bit samples, its channels interleaved.
    fn wav(rate: u32, channels: u16, samples: &[i16]) -> Vec<u8> {
        let bytes = samples.len() as u32 * 2;
        let mut file = [
            &b"RIFF"[..],
            &(36 + bytes).to_le_bytes(),
            b"WAVEfmt \x10\0\0\0\x01\0",
            &channels.to_le_bytes(),
        ]
        .concat();
        file.extend(rate.to_le_bytes());
        file.extend((rate * u32::from(channels) * 2).to_le_bytes());
        file.extend((channels * 2).to_le_bytes());
        file.extend(b"\x10\0data");
        file.extend(bytes.to_le_bytes());
        file.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
        file
    }

    /// A second of a sine of `pitch` Hz, and what its samples are multiplied with.
    fn sine(rate: u32, pitch: f32, loudness: f32) -> Vec<i16> {
        let angle = |i: u32| std::f32::consts::TAU * pitch * i as f32 / rate as f32;
        (0..rate)
            .map(|i| (angle(i).sin() * loudness * 32767.0) as i16)
            .collect()
    }

    fn loudness(samples: &[f32]) -> f32 {
        (samples.iter().map(|sample| sample * sample).sum::<f32>() / samples.len() as f32).sqrt()
    }

    /// How alike two sounds are, in decibels of what differs.
    fn likeness(a: &[f32], b: &[f32]) -> f32 {
        let difference: Vec<f32> = a.iter().zip(b).map(|(a, b)| a - b).collect();
        20.0 * (loudness(a) / loudness(&difference)).log10()
    }

    #[test]
    fn every_format_has_the_same_sound() {
        let exact = samples(WAV).unwrap();
        assert_eq!(exact.len(), (WAV.len() - 44) / 2);
        assert_eq!(samples(FLAC).unwrap(), exact);
        // What compression loses is the noise, 6 dB or more below the tone.
        for (file, name, least) in [
            (MP3, "MP3", 15.0),
            (OGG, "Vorbis", 15.0),
            (OPUS, "Opus", 10.0),
        ] {
            let heard = samples(file).unwrap();
            assert!(
                heard.len().abs_diff(exact.len()) <= 1,
                "{name}: {} of {}",
                heard.len(),
                exact.len()
            );
            assert!(
                likeness(&exact, &heard) > least,
                "{name}: {} dB",
                likeness(&exact, &heard)
            );
        }
    }

    #[test]
    fn every_rate_becomes_the_familys() {
        for rate in [
            8000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000, 44_101,
        ] {
            let heard = samples(&wav(rate, 1, &sine(rate, 440.0, 0.5))).unwrap();
            assert!(
                heard.len().abs_diff(RATE as usize) <= 1,
                "{rate}: {}",
                heard.len()
            );
            // The ends are where the filter meets silence. A whole number of periods, so that sine
            // and cosine are apart.
            let heard = &heard[2000..14_000];
            let wave = |at: fn(f32) -> f32| -> Vec<f32> {
                (0..heard.len())
                    .map(|i| at(std::f32::consts::TAU * 440.0 * i as f32 / RATE as f32))
                    .collect()
            };
            let [sine, cosine] = [wave(f32::sin), wave(f32::cos)];
            let share = |wave: &[f32]| {
                2.0 * wave.iter().zip(heard).map(|(a, b)| a * b).sum::<f32>() / heard.len() as f32
            };
            let (a, b) = (share(&sine), share(&cosine));
            let tone: Vec<f32> = sine
                .iter()
                .zip(&cosine)
                .map(|(sine, cosine)| a * sine + b * cosine)
                .collect();
            assert!(
                likeness(&tone, heard) > 40.0,
                "{rate}: {} dB",
                likeness(&tone, heard)
            );
            assert!((a.hypot(b) - 0.5).abs() < 0.01, "{rate}: {}", a.hypot(b));
        }
        // What the family's rate has no place for is left out and not folded.
        let high = samples(&wav(48_000, 1, &sine(48_000, 12_000.0, 0.5))).unwrap();
        assert!(loudness(&high[1000..15_000]) < 0.001, "{}", loudness(&high));
    }

    #[test]
    fn channels_are_heard_together() {
        let (left, right) = (sine(RATE, 440.0, 0.5), sine(RATE, 660.0, 0.25));
        let both: Vec<i16> = left
            .iter()
            .zip(&right)
            .flat_map(|(left, right)| [*left, *right])
            .collect();
        let heard = samples(&wav(RATE, 2, &both)).unwrap();
        let mean = |i: usize| (f32::from(left[i]) + f32::from(right[i])) / 65536.0;
        assert!(
            heard
                .iter()
                .enumerate()
                .all(|(i, sample)| (sample - mean(i)).abs() < 1e-4)
        );
    }

    #[test]
    fn long_and_short_sounds() {
        let most = MAX_SAMPLES;
        assert_eq!(
            samples(&wav(RATE, 1, &vec![1000; most])).unwrap().len(),
            most
        );
        let error = samples(&wav(RATE, 1, &vec![1000; most + 20_000])).unwrap_err();
        assert!(error.contains("longer than 30 s"), "{error}");
        assert_eq!(
            samples(&wav(44_100, 1, &vec![1000; 44_100 * 30]))
                .unwrap()
                .len(),
            most
        );
        let short = samples(&wav(RATE, 1, &[1000; 3])).unwrap();
        assert_eq!((short.len(), short[2] > 0.0, short[3]), (FRAME, true, 0.0));
        assert!(
            samples(&wav(RATE, 1, &[]))
                .unwrap_err()
                .contains("no samples")
        );
    }

    #[test]
    fn a_recording_that_never_learned_its_length_is_heard() {
        let mut file = WAV.to_vec();
        for length in [u32::MAX, 0x7FFF_F000] {
            file[4..8].copy_from_slice(&length.saturating_add(36).to_le_bytes());
            file[40..44].copy_from_slice(&length.to_le_bytes());
            assert_eq!(
                samples(&file).unwrap().len(),
                (WAV.len() - 44) / 2,
                "{length}"
            );
        }
    }

    #[test]
    fn what_cannot_be_heard_is_named() {
        for file in [
            &b""[..],
            b"hello",
            b"\x89PNG\r\n\x1a\n",
            b"RIFF\0\0\0\0AVI LIST",
            &[0; 5000],
        ] {
            let error = samples(file).unwrap_err();
            assert!(
                error.contains("WAV, MP3, FLAC or Ogg") || error.contains("damaged"),
                "{error}"
            );
        }
        for (file, name) in [
            (WAV, "WAV"),
            (FLAC, "FLAC"),
            (OGG, "Vorbis"),
            (OPUS, "Opus"),
        ] {
            assert!(
                samples(&file[..file.len() / 2])
                    .unwrap_err()
                    .contains("cut off"),
                "{name}"
            );
        }
        let mut file = wav(RATE, 1, &[0; 100]);
        file[24..28].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(
            samples(&file)
                .unwrap_err()
                .contains("4294967295 samples a second")
        );
        assert!(
            samples(&wav(RATE, 9, &[0; 900]))
                .unwrap_err()
                .contains("9 channels")
        );
    }

    proptest! {
        #[test]
        fn damage_is_refused_or_heard(at in 0usize..9000, byte: u8, cut in 0usize..9000, which in 0usize..5) {
            let mut file = [WAV, MP3, FLAC, OGG, OPUS][which].to_vec();
            let (at, cut) = (at % file.len(), cut % file.len());
            file[at] = byte;
            for file in [&file[..], &file[..cut]] {
                if let Ok(heard) = samples(file) {
                    prop_assert!((FRAME..=MAX_SAMPLES).contains(&heard.len()));
                    prop_assert!(heard.iter().all(|sample| sample.is_finite()));
                }
            }
        }
    }
}
