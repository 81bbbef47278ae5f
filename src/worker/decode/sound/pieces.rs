//! A sound in pieces that a model hears at once, each decoded when it is wanted. Memory is held for one
//! of them.

use std::collections::VecDeque;

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Resampler};
use symphonia::core::errors::Error;
use symphonia::core::packet::Packet;

use super::{Source, cut, damaged, reason};
use crate::gemma::sound::{FRAME, RATE};
use crate::ipc::SoundPlace;

/// Packets before the first that is heard that are decoded in vain: with most codecs a packet makes use of
/// what came before it, with MP3 of up to 511 bytes.
const WARM_UP: u64 = 64;
/// Samples that are resampled together.
const CHUNK: usize = 1024;

/// The rest of a sound, from some place on.
pub struct Pieces<'a> {
    source: Source<'a>,
    /// Packets of the sound that were read.
    read: u64,
    /// What was decoded and is not forgotten yet, its channels in one, at the source's rate.
    held: Vec<f32>,
    /// Each packet that has samples in `held`, by its number, and where they begin.
    packets: VecDeque<(u64, usize)>,
    /// Where the next piece begins in `held`.
    begin: usize,
    ended: bool,
    /// What is wrong with a packet that was passed over.
    damage: Option<String>,
}

/// A piece: mono samples, [`RATE`] a second.
pub struct Piece {
    pub samples: Vec<f32>,
    pub silent: bool,
    /// Where the next one begins, if this is not the last.
    pub next: Option<SoundPlace>,
}

impl<'a> Pieces<'a> {
    /// From a place that an earlier one of the same `file` told. The error continues the sentence "the
    /// sound …".
    pub fn open(file: &'a [u8], from: SoundPlace) -> Result<Self, String> {
        let mut pieces = Self {
            source: Source::open(file)?,
            read: 0,
            held: vec![],
            packets: VecDeque::new(),
            begin: usize::try_from(from.skip).map_err(|_| damaged())?,
            ended: false,
            damage: None,
        };
        let warm = from.packet.saturating_sub(WARM_UP);
        if warm > 0 {
            pieces.source.decoder.begin_inside();
        }
        while pieces.read < from.packet {
            let packet = pieces.packet()?.ok_or_else(damaged)?;
            if pieces.read > warm {
                // What it lacks is what makes it sound wrong, and nobody hears it.
                let _ = pieces.source.decoder.decode(&packet, &mut pieces.held);
                pieces.held.clear();
            }
        }
        Ok(pieces)
    }

    /// The next piece, of `longest` samples at most; `None` after the last. There is one at least.
    pub fn next(&mut self, longest: usize) -> Result<Option<Piece>, String> {
        let rate = self.source.rate as usize;
        let most = (longest as u64 * rate as u64 / u64::from(RATE)) as usize;
        // A second more tells whether the end is near.
        self.fill(self.begin.saturating_add(most + rate))?;
        let Some(rest) = self.held.get(self.begin..).filter(|rest| !rest.is_empty()) else {
            return match self.read_any() {
                true => Ok(None),
                false => Err(self.silence()),
            };
        };
        let length = match rest.len() {
            left if self.ended && left <= most => left,
            // What is left is no scrap.
            left if self.ended => cut::place(&rest[..most.min(left * 3 / 4)], rate as u32),
            _ => cut::place(&rest[..most], rate as u32),
        };
        let native = &rest[..length];
        if native.iter().any(|sample| !sample.is_finite()) {
            return Err("has samples that are no numbers".into());
        }
        let silent = cut::is_silent(native);
        let mut samples = match self.source.rate {
            RATE => native.to_vec(),
            rate => resampled(native, rate)?,
        };
        // What a filter adds at the end, at most.
        samples.truncate(longest);
        samples.resize(samples.len().max(FRAME), 0.0);
        self.begin += length;
        self.forget();
        Ok(Some(Piece {
            samples,
            silent,
            next: self.place(),
        }))
    }

    /// The next packet of the sound.
    fn packet(&mut self) -> Result<Option<Packet>, String> {
        let packet = self.source.packet()?;
        self.read += u64::from(packet.is_some());
        Ok(packet)
    }

    /// Decodes until there are so many samples, or no more.
    fn fill(&mut self, samples: usize) -> Result<(), String> {
        while !self.ended && self.held.len() <= samples {
            let number = self.read;
            let Some(packet) = self.packet()? else {
                self.ended = true;
                break;
            };
            let before = self.held.len();
            // A packet that cannot be decoded is passed over, as every player does: the first one
            // of an MP3 that was cut out of a longer one cannot be.
            let decoded = self.source.decoder.decode(&packet, &mut self.held);
            self.damage = decoded.err().or(self.damage.take());
            if self.held.len() > before {
                self.packets.push_back((number, before));
            }
        }
        Ok(())
    }

    /// Lets go of the packets before the one in which the next piece begins.
    fn forget(&mut self) {
        while self.packets.get(1).is_some_and(|(_, at)| *at <= self.begin) {
            self.packets.pop_front();
        }
        let Some(&(_, start)) = self.packets.front() else {
            return;
        };
        self.held.drain(..start);
        self.begin -= start;
        for (_, at) in &mut self.packets {
            *at -= start;
        }
    }

    /// Where the next piece begins, if there is one.
    fn place(&self) -> Option<SoundPlace> {
        let skip = self.begin as u64;
        let front = self
            .packets
            .front()
            .filter(|_| self.begin < self.held.len());
        front.map(|&(packet, _)| SoundPlace { packet, skip })
    }

    /// Whether anything was heard before.
    fn read_any(&self) -> bool {
        !self.held.is_empty()
    }

    fn silence(&mut self) -> String {
        let none = || "is silent: it has no samples".to_owned();
        self.damage.take().unwrap_or_else(none)
    }
}

impl Source<'_> {
    /// The next packet of the track; `None` after the last.
    pub(super) fn packet(&mut self) -> Result<Option<Packet>, String> {
        loop {
            match self.format.next_packet() {
                Ok(Some(packet)) if packet.track_id == self.track.id => return Ok(Some(packet)),
                Ok(Some(_)) => {}
                Ok(None) => return Ok(None),
                Err(Error::IoError(_)) if self.has_no_length() => return Ok(None),
                // Another stream follows, as in the recordings of radio stations. The first one is
                // what was sent.
                Err(Error::ResetRequired) => return Ok(None),
                Err(error) => return Err(reason(&error)),
            }
        }
    }
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
