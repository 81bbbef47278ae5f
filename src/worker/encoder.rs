//! The encoder thread: encodes pictures and sounds with the projector, one after the other, beside
//! the llama thread.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::llama::{self, Projector};
use super::media::{Form, Medium};
use super::messages::{Encoded, ServerMessage};
use super::progress::Progress;
use crate::chat::ChatError;
use crate::ipc::{ProjectorPlan, RequestId};

/// Media that wait to be encoded. Each slot waits for one at most; what is above that was
/// cancelled.
const MAX_WAITING: usize = 256;
/// A projector that was not needed for so long is freed. Reading it again takes about a second
/// for each GB.
const IDLE: Duration = Duration::from_secs(120);

/// A medium that a slot waits for.
pub struct EncodeJob {
    pub slot: usize,
    pub id: RequestId,
    /// Weak, so that no file outlives the request that it came with.
    pub medium: Weak<Medium>,
    pub cancelled: Arc<AtomicBool>,
}

/// What the encoder thread needs.
pub struct EncoderConfig {
    pub plan: ProjectorPlan,
    pub file: OwnedFd,
    /// Numbers in a row of the model's.
    pub width: usize,
    pub threads: u32,
    /// The worker is ending.
    pub ending: Arc<AtomicBool>,
    pub progress: Arc<Progress>,
}

/// A handle of the encoder thread, which ends when this is dropped.
pub struct MediaEncoder {
    commands: SyncSender<Command>,
    progress: Arc<Progress>,
}

enum Command {
    Encode(EncodeJob),
    /// Free the projector.
    Unload,
}

impl MediaEncoder {
    /// Starts the thread. It loads the projector when the first medium comes.
    pub fn spawn(config: EncoderConfig, ready: SyncSender<ServerMessage>) -> std::io::Result<Self> {
        let (commands, waiting) = sync_channel(MAX_WAITING);
        let progress = config.progress.clone();
        std::thread::Builder::new()
            .name("encoder".into())
            .spawn(move || config.run(waiting, &ready))?;
        Ok(Self { commands, progress })
    }

    /// Answered by a [`ServerMessage::Encoded`], unless the request ends before.
    pub fn encode(&self, job: EncodeJob) -> Result<(), ChatError> {
        // What waits counts as well: a thread that does not take it is one that hangs.
        self.progress.encoder.begin();
        let reason = match self.commands.try_send(Command::Encode(job)) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(_)) => {
                format!("more than {MAX_WAITING} pictures and sounds wait")
            }
            Err(TrySendError::Disconnected(_)) => "the encoder has ended".to_owned(),
        };
        self.progress.encoder.end();
        Err(ChatError::Inference { reason })
    }

    /// Has the projector freed; the next medium loads it again.
    pub fn unload(&self) {
        // A full queue means that the projector is needed.
        let _ = self.commands.try_send(Command::Unload);
    }
}

impl EncoderConfig {
    fn run(self, waiting: Receiver<Command>, ready: &SyncSender<ServerMessage>) {
        let mut projector = None;
        loop {
            let command = match projector {
                Some(_) => waiting.recv_timeout(IDLE),
                None => waiting.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            let EncodeJob {
                slot,
                id,
                medium,
                cancelled,
            } = match command {
                Ok(Command::Encode(job)) => job,
                Ok(Command::Unload) | Err(RecvTimeoutError::Timeout) => {
                    projector = None;
                    llama::trim();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let Some(medium) = medium
                .upgrade()
                .filter(|_| !cancelled.load(Ordering::Relaxed))
            else {
                self.progress.encoder.end();
                continue;
            };
            let rows = self.rows(&mut projector, &medium, &cancelled);
            self.progress.encoder.end();
            if ready
                .send(ServerMessage::Encoded(Box::new(Encoded { slot, id, rows })))
                .is_err()
            {
                return;
            }
        }
    }

    fn rows(
        &self,
        loaded: &mut Option<Projector>,
        medium: &Medium,
        cancelled: &Arc<AtomicBool>,
    ) -> Result<Vec<f32>, ChatError> {
        let failed = |reason| ChatError::Inference { reason };
        match medium.form {
            Form::Picture(size) => {
                let rgb = medium.rgb()?;
                self.projector(loaded)?
                    .encode_image(&rgb, size, medium.tokens, cancelled)
                    .map_err(failed)
            }
            Form::Sound => {
                let samples = medium.samples()?;
                self.projector(loaded)?
                    .encode_audio(&samples, medium.tokens, cancelled)
                    .map_err(failed)
            }
        }
    }

    fn projector<'a>(
        &self,
        loaded: &'a mut Option<Projector>,
    ) -> Result<&'a mut Projector, ChatError> {
        match loaded {
            Some(projector) => Ok(projector),
            None => {
                let projector = Projector::load(
                    &self.file,
                    self.width,
                    self.threads,
                    self.ending.clone(),
                    self.progress.clone(),
                );
                let failed = |reason| {
                    format!(
                        "the projector {} cannot be loaded: {reason}",
                        self.plan.name
                    )
                };
                Ok(
                    loaded.insert(projector.map_err(|reason| ChatError::Inference {
                        reason: failed(reason),
                    })?),
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::FileExt;
    use std::path::Path;

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::Value;

    use super::*;
    use crate::chat::{DecodedMedia, Detail, Pixels, Samples};
    use crate::gemma::sound::Hearing;
    use crate::ipc::{DecodedMedium, MediumKind};
    use crate::worker::decode;
    use crate::worker::llama::alone;

    #[test]
    fn media_become_what_transformers_makes_of_them() {
        let _alone = alone();
        for (member, hearing) in [("e2b", Hearing::Spectrum), ("12b", Hearing::Frames)] {
            compare(member, hearing);
        }
    }

    /// Compares the directions of the rows with those that transformers computes in float32:
    /// `models/tiny/trainer/embeddings.py` wrote them.
    fn compare(member: &str, hearing: Hearing) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let (tiny, data) = (root.join("models/tiny"), root.join("tests/data"));
        let references: Vec<Value> = serde_json::from_slice(
            &fs::read(data.join(format!("embeddings/{member}.json"))).unwrap(),
        )
        .unwrap();
        let config = EncoderConfig {
            plan: ProjectorPlan {
                name: member.into(),
                longest_side: 4096,
                hearing: None,
            },
            file: File::open(tiny.join(format!("tiny-{member}-mmproj-f16.gguf")))
                .unwrap()
                .into(),
            width: references[0]["width"].as_u64().unwrap() as usize,
            threads: 1,
            ending: Arc::default(),
            progress: Arc::default(),
        };
        let mut projector = None;
        for reference in references {
            let name = reference["file"].as_str().unwrap();
            let file = fs::read(data.join(name)).unwrap();
            let medium = decoded(name.starts_with("pictures"), &file, hearing);
            let rows = config
                .rows(&mut projector, &medium, &Arc::default())
                .unwrap();
            let expected = STANDARD
                .decode(reference["rows"].as_str().unwrap())
                .unwrap();
            assert_eq!(rows.len(), expected.len(), "{member}, {name}");
            let width = reference["width"].as_u64().unwrap() as usize;
            let least = rows
                .chunks(width)
                .zip(expected.chunks(width))
                .map(|(found, expected)| cosine(found, expected))
                .fold(1.0, f64::min);
            println!(
                "{member}, {name}: {} rows, least cosine {least:.5}",
                rows.len() / width
            );
            assert!(least >= 0.999, "{member}, {name}: {least}");
        }
    }

    /// What a file becomes on its way here.
    fn decoded(is_picture: bool, file: &[u8], hearing: Hearing) -> Medium {
        let detail = Detail::Auto;
        let kind = match is_picture {
            true => MediumKind::Picture(detail),
            false => MediumKind::Sound,
        };
        let mut all = vec![];
        decode::decoded(kind, file, kind.most_bytes(), |decoded, bytes| {
            all.push((decoded, bytes.to_vec()));
            Ok(())
        })
        .unwrap();
        let (decoded, bytes) = all.pop().unwrap();
        // Something lies before it.
        let at = 5;
        let media = tempfile::tempfile().unwrap();
        media.write_all_at(&bytes, at).unwrap();
        let media = DecodedMedia::new(media);
        let medium = match decoded {
            DecodedMedium::Picture { width, height } => {
                let pixels = Pixels {
                    width,
                    height,
                    detail,
                    at,
                };
                Medium::picture(&pixels, &media, 0, 0)
            }
            DecodedMedium::Sound { samples: count, .. } => {
                Medium::sound(&Samples { count, at }, &media, hearing, 0, 0)
            }
        };
        medium.unwrap()
    }

    fn cosine(found: &[f32], expected: &[u8]) -> f64 {
        let pairs = || {
            found
                .iter()
                .map(|x| f64::from(*x))
                .zip(expected.iter().map(|x| f64::from(x.cast_signed())))
        };
        let dot: f64 = pairs().map(|(a, b)| a * b).sum();
        let squares: (f64, f64) = pairs().fold((0.0, 0.0), |(a, b), (x, y)| (a + x * x, b + y * y));
        dot / (squares.0 * squares.1).sqrt()
    }
}
