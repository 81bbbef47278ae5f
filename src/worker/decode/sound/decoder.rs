//! From a file's packets to samples: symphonia's decoders, and one for Opus, which it has not.

use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder};
use symphonia::core::packet::Packet;

use super::{damaged, reason};
use crate::gemma::sound::RATE;

/// Samples that an Opus packet has at most: 120 ms (RFC 6716, 3.1).
const OPUS_PACKET: usize = RATE as usize / 1000 * 120;
/// Opus counts what is to be skipped in samples of 48 kHz (RFC 7845, 4.2).
const OPUS_CLOCK: u64 = 48_000 / RATE as u64;

pub(super) enum Decoder {
    Other(Box<dyn AudioDecoder>),
    Opus {
        decoder: Box<ropus::Decoder>,
        /// What the samples are multiplied with.
        gain: f32,
        /// Samples at the start that belong to no sound.
        skip: usize,
    },
}

impl Decoder {
    /// What comes first is not the start of the sound.
    pub(super) fn begin_inside(&mut self) {
        if let Self::Opus { skip, .. } = self {
            *skip = 0;
        }
    }

    /// Appends what a packet holds.
    pub(super) fn decode(&mut self, packet: &Packet, mono: &mut Vec<f32>) -> Result<(), String> {
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
pub(super) fn opus(
    params: &AudioCodecParameters,
    delay: u32,
    channels: usize,
) -> Result<Decoder, String> {
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
