//! Decodes the pictures and sounds that come with a request. A worker of its own does it and then
//! ends: it has nothing but the two files, so a medium that takes it over finds nobody's prompts and
//! no model.

mod picture;
mod sound;

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use super::confinement::confine;
use super::exit::{EXIT_LOAD, EXIT_PROTOCOL, EXIT_SYSTEM};
use super::link::Writer;
use crate::gemma::sound::{MAX_SAMPLES, MAX_SECONDS, RATE};
use crate::ipc::{
    DECODED_MOST, Decode, DecodeEvent, DecodeRequest, DecodedMedium, MediumKind, SAMPLE, SoundPlace,
};
use crate::sandbox::{Needs, Profile};
use crate::sys::mapping::Mapping;

/// Seconds of a CPU that it may cost; the supervisor minds the clock.
const CPU_SECONDS: u64 = 20;
/// Bytes of memory that the process takes besides what its media do.
const OWN_MEMORY: u64 = 16 << 20;
/// Seconds by which what a sound's packets claim may be off.
const SLACK: f64 = 1.0;

/// Decodes all that came, or says what is wrong with the first that cannot be.
pub fn run(
    request: &DecodeRequest,
    files: Vec<OwnedFd>,
    writer: &Writer<Decode>,
) -> Result<ExitCode, u8> {
    let Ok([encoded, decoded]) = <[OwnedFd; 2]>::try_from(files) else {
        eprintln!("media to decode were announced, and their two files did not come");
        return Err(EXIT_PROTOCOL);
    };
    let work = Work {
        request,
        encoded: mapped(&encoded.into(), request).map_err(|_| EXIT_SYSTEM)?,
        decoded: decoded.into(),
        writer,
    };
    // As many bytes as the supervisor has made it: no call that makes it larger is allowed.
    let room = work.decoded.metadata().map_err(|_| EXIT_SYSTEM)?.len();
    confine(&Needs {
        profile: Profile::Decode,
        files: &[],
        largest_file: room,
        memory: Some(request.memory),
        cpu_seconds: Some(CPU_SECONDS),
    })?;
    match work.enough(room).and_then(|()| work.decode(room)) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(last) => {
            // When the channel has ended the reason is not needed.
            let _ = writer.send(&last);
            Err(EXIT_LOAD)
        }
    }
}

/// The media's file, to be read as it is: a copy would be as large again.
fn mapped(file: &File, request: &DecodeRequest) -> io::Result<Mapping> {
    let bytes = request.media.iter().map(|medium| medium.bytes).sum::<u64>();
    Mapping::of_file(file, bytes as usize)
}

struct Work<'a> {
    request: &'a DecodeRequest,
    /// The media, one behind the other.
    encoded: Mapping,
    decoded: File,
    writer: &'a Writer<Decode>,
}

impl Work<'_> {
    /// The media, each with its kind, as they came.
    fn media(&self) -> impl Iterator<Item = (MediumKind, &[u8])> {
        let mut at = 0;
        self.request.media.iter().map(move |medium| {
            let begin = at;
            at += medium.bytes as usize;
            (medium.kind, self.encoded.bytes(begin..at))
        })
    }

    /// Holds what the media's headers claim against the memory that there is, and against the `room` for
    /// what they become.
    fn enough(&self, room: u64) -> Result<(), DecodeEvent> {
        let (mut most, mut becomes) = (0, 0);
        for (kind, file) in self.media() {
            // What is wrong with one is told in its turn.
            let (memory, bytes) = match kind {
                MediumKind::Picture(detail) => (
                    picture::memory(file, detail).unwrap_or(0),
                    kind.most_bytes(),
                ),
                MediumKind::Sound | MediumKind::Piece { .. } => match sound::claims(file) {
                    Ok(claims) if kind == MediumKind::Sound => {
                        let bytes = sound_bytes(claims.seconds + SLACK);
                        (claims.memory, bytes.max(kind.most_bytes()))
                    }
                    Ok(claims) => (claims.memory, kind.most_bytes()),
                    Err(_) => (0, kind.most_bytes()),
                },
            };
            most = most.max(memory);
            becomes += bytes;
        }
        let memory = OWN_MEMORY + most;
        // What is beyond the most is told in its turn.
        let wanted = becomes.min(DECODED_MOST);
        if memory > self.request.memory || wanted > room {
            return Err(DecodeEvent::Needs {
                memory,
                room: wanted,
            });
        }
        Ok(())
    }

    /// Decodes them all into the `room` bytes that there are.
    fn decode(&self, room: u64) -> Result<(), DecodeEvent> {
        let mut at = 0;
        for (kind, file) in self.media() {
            decoded(kind, file, room - at, |decoded, bytes| {
                if at + bytes.len() as u64 > room {
                    return Err(too_much(kind, room));
                }
                self.decoded
                    .write_all_at(bytes, at)
                    .map_err(|error: io::Error| format!("cannot be kept: {error}"))?;
                at += bytes.len() as u64;
                // A supervisor that has gone needs no reason.
                self.writer
                    .send(&DecodeEvent::Decoded(decoded))
                    .map_err(|_| String::new())?;
                Ok(())
            })
            .map_err(|reason| DecodeEvent::Rejected { reason })?;
        }
        Ok(())
    }
}

/// Hands what a medium becomes, and its bytes, to `keep`: once, or for each piece of a sound, of which
/// there is `room` for so many bytes. The error continues "the picture …" or "the sound …".
pub(super) fn decoded(
    kind: MediumKind,
    file: &[u8],
    room: u64,
    mut keep: impl FnMut(DecodedMedium, &[u8]) -> Result<(), String>,
) -> Result<(), String> {
    let (from, longest) = match kind {
        MediumKind::Picture(detail) => {
            picture::memory(file, detail)?;
            let pixels = picture::pixels(file, picture::size(file, detail)?)?;
            let (width, height) = (pixels.size.width, pixels.size.height);
            return keep(DecodedMedium::Picture { width, height }, &pixels.rgb);
        }
        MediumKind::Sound => {
            let seconds = sound::claims(file)?.seconds;
            if seconds > f64::from(MAX_SECONDS) && sound_bytes(seconds) > room {
                return Err(too_much(kind, room));
            }
            (SoundPlace::default(), MAX_SAMPLES)
        }
        MediumKind::Piece {
            from,
            longest,
            limit,
        } => {
            if from == SoundPlace::default() {
                within(sound::claims(file)?.seconds, limit)?;
            }
            (from, longest as usize)
        }
    };
    sound::listen(file, from, longest, |piece| {
        let bytes: Vec<u8> = piece
            .samples
            .iter()
            .flat_map(|sample| sample.to_le_bytes())
            .collect();
        let decoded = DecodedMedium::Sound {
            samples: piece.samples.len() as u32,
            silent: piece.silent,
            next: piece.next,
        };
        keep(decoded, &bytes)?;
        Ok(match decoded.is_last_of(kind) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        })
    })
}

/// Whether a sound of so many seconds is no longer than it may be.
fn within(seconds: f64, limit: u32) -> Result<(), String> {
    if seconds <= f64::from(limit) + SLACK {
        return Ok(());
    }
    Err(format!(
        "lasts {} s; at most {limit} s are allowed (`sound-time` in gemmad.toml)",
        seconds.round()
    ))
}

/// Bytes of the samples of so many seconds.
fn sound_bytes(seconds: f64) -> u64 {
    (seconds * f64::from(RATE)) as u64 * SAMPLE
}

fn too_much(kind: MediumKind, room: u64) -> String {
    let (mib, minutes) = (room >> 20, room / sound_bytes(60.0));
    match kind {
        MediumKind::Picture(_) => format!(
            "is one too many: decoded, the pictures and sounds of a request may take {} MiB; send fewer, or ask for less `detail`",
            DECODED_MOST >> 20
        ),
        _ => format!(
            "is too long: decoded, the pictures and sounds of a request may take {} MiB, of which {mib} MiB, {minutes} min of sound, are left for it;              have it transcribed first (POST /v1/audio/transcriptions), and send the text",
            DECODED_MOST >> 20
        ),
    }
}

/// A decoder that panics has met a file that it should have refused.
fn careful<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err("is damaged in a way that the decoder does not know".into()))
}
