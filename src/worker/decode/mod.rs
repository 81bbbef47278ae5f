//! Decodes the pictures and sounds that come with a request. A worker of its own does it and then
//! ends: it has nothing but the two files, so a medium that takes it over finds nobody's prompts and
//! no model.

mod picture;
mod sound;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use super::confinement::confine;
use super::exit::{EXIT_LOAD, EXIT_PROTOCOL, EXIT_SYSTEM};
use super::link::Writer;
use crate::ipc::{Decode, DecodeEvent, DecodeRequest, DecodedMedium, MediumKind};
use crate::sandbox::{Needs, Profile};

/// Seconds of a CPU that it may cost; the supervisor minds the clock.
const CPU_SECONDS: u64 = 20;
/// Bytes of memory that the process takes besides what its media do.
const OWN_MEMORY: u64 = 16 << 20;

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
        encoded: encoded.into(),
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
    match work.enough_memory().and_then(|()| work.decode(room)) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(last) => {
            // When the channel has ended the reason is not needed.
            let _ = writer.send(&last);
            Err(EXIT_LOAD)
        }
    }
}

struct Work<'a> {
    request: &'a DecodeRequest,
    encoded: File,
    decoded: File,
    writer: &'a Writer<Decode>,
}

impl Work<'_> {
    /// The media, each with its kind, as they came.
    fn media(&self) -> impl Iterator<Item = Result<(MediumKind, Vec<u8>), DecodeEvent>> {
        let mut at = 0;
        self.request.media.iter().map(move |medium| {
            let mut file = vec![0; medium.bytes as usize];
            self.encoded
                .read_exact_at(&mut file, at)
                .map_err(|error| rejected(format!("cannot be read: {error}")))?;
            at += medium.bytes;
            Ok((medium.kind, file))
        })
    }

    /// Holds what the media's headers claim against the memory that there is.
    fn enough_memory(&self) -> Result<(), DecodeEvent> {
        let mut most = 0;
        for medium in self.media() {
            let (kind, file) = medium?;
            // What is wrong with one is told in its turn.
            let memory = match kind {
                MediumKind::Picture(detail) => picture::memory(&file, detail),
                MediumKind::Sound => sound::memory(&file),
            };
            most = most.max(memory.unwrap_or(0));
        }
        let memory = OWN_MEMORY + most;
        if memory > self.request.memory {
            return Err(DecodeEvent::Needs { memory });
        }
        Ok(())
    }

    /// Decodes them all into the `room` bytes that there are.
    fn decode(&self, room: u64) -> Result<(), DecodeEvent> {
        let mut at = 0;
        for medium in self.media() {
            let (kind, file) = medium?;
            let (decoded, bytes) = decoded(kind, &file).map_err(rejected)?;
            if at + bytes.len() as u64 > room {
                return Err(rejected(format!(
                    "is one too many: decoded, the pictures and sounds of a request may take {} MiB; send fewer, or ask for less `detail`",
                    room >> 20
                )));
            }
            self.decoded
                .write_all_at(&bytes, at)
                .map_err(|error: io::Error| rejected(format!("cannot be kept: {error}")))?;
            at += bytes.len() as u64;
            // A supervisor that has gone needs no reason.
            self.writer
                .send(&DecodeEvent::Decoded(decoded))
                .map_err(|_| rejected(String::new()))?;
        }
        Ok(())
    }
}

fn rejected(reason: String) -> DecodeEvent {
    DecodeEvent::Rejected { reason }
}

/// What a medium becomes, and its bytes. The error continues "the picture …" or "the sound …".
pub(super) fn decoded(kind: MediumKind, file: &[u8]) -> Result<(DecodedMedium, Vec<u8>), String> {
    match kind {
        MediumKind::Picture(detail) => {
            let pixels = picture::pixels(file, picture::size(file, detail)?)?;
            let (width, height) = (pixels.size.width, pixels.size.height);
            Ok((DecodedMedium::Picture { width, height }, pixels.rgb))
        }
        MediumKind::Sound => {
            let samples = sound::samples(file)?;
            let bytes = samples
                .iter()
                .flat_map(|sample| sample.to_le_bytes())
                .collect();
            let samples = samples.len() as u32;
            Ok((DecodedMedium::Sound { samples }, bytes))
        }
    }
}

/// A decoder that panics has met a file that it should have refused.
fn careful<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err("is damaged in a way that the decoder does not know".into()))
}
