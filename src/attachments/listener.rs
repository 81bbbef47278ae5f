//! A sound of any length, decoded piece by piece: each by a worker of its own, when it is wanted. What is
//! held meanwhile is the file as it was sent, and one piece.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use super::decoder::{MEDIA_LEAST, Means, Media, WHAT};
use super::{Attachments, Refused, not_started};
use crate::access::quota::Share;
use crate::backend::Failure;
use crate::chat::{ChatError, DecodedMedia, Modalities, Part, PrincipalId, Samples};
use crate::ipc::{DecodedMedium, EncodedMedium, MediumKind, SOUND_RATE, SoundPlace};

/// How often, and after which pause, a piece is tried again for which there is nothing free: what was
/// heard before it would be lost.
const TRIES: u32 = 12;
const PAUSE: Duration = Duration::from_secs(5);
/// Seconds by which the pieces may be longer together than the sound claims to be.
const SLACK: u64 = 2;

/// How a sound is heard.
#[derive(Clone, Copy, Debug)]
pub struct Listening {
    /// Seconds of a piece at most.
    pub longest: u32,
    /// How long the whole may be.
    pub limit: Duration,
}

/// Hears a sound piece by piece.
#[derive(Debug)]
pub struct Listener {
    attachments: Attachments,
    account: PrincipalId,
    file: File,
    bytes: u64,
    longest: u32,
    /// Seconds of the whole.
    limit: u32,
    means: Option<Means>,
    /// Where the next piece begins, if there is one.
    next: Option<SoundPlace>,
    /// Samples that were heard.
    heard: u64,
}

/// A piece of a sound.
#[derive(Debug)]
pub struct Heard {
    /// Seconds from the start of the sound to that of the piece, and to its end.
    pub begin: f64,
    pub end: f64,
    /// There is nothing to hear in it.
    pub silent: bool,
    /// Nothing comes after it.
    pub is_last: bool,
    /// What a message has of it, and the file in which its samples are.
    pub part: Part,
    pub decoded: DecodedMedia,
}

impl Attachments {
    /// Begins to hear a sound that `model` is to be asked about. `share`, which has the sound's bytes
    /// already, holds what its pieces take.
    ///
    /// # Errors
    ///
    /// A model that cannot hear, or nothing free to begin with.
    pub async fn listen(
        &self,
        sound: &[u8],
        model: &str,
        listening: Listening,
        share: &mut Share,
    ) -> Result<Listener, Refused> {
        let audio = Modalities {
            audio: true,
            ..Modalities::default()
        };
        let takes = self.backends.takes(share.account(), model, audio);
        takes.await.map_err(Refused::Failure)?;
        let mut held = share.beside(self.decoder.held());
        held.grow(MEDIA_LEAST).map_err(Refused::Full)?;
        share.hold(held);
        let file = in_memory(sound).map_err(|error| Refused::Failure(not_started(WHAT, &error)))?;
        Ok(Listener {
            attachments: self.clone(),
            account: share.account(),
            file,
            bytes: sound.len() as u64,
            longest: listening.longest * SOUND_RATE,
            limit: u32::try_from(listening.limit.as_secs()).unwrap_or(u32::MAX),
            means: None,
            next: Some(SoundPlace::default()),
            heard: 0,
        })
    }
}

impl Listener {
    /// The next piece; `None` after the last. There is one at least.
    ///
    /// # Errors
    ///
    /// What is wrong with the sound, or nothing free to decode it.
    pub async fn next(&mut self) -> Result<Option<Heard>, Failure> {
        let Some(from) = self.next else {
            return Ok(None);
        };
        let mut tries = 1;
        let (decoded, medium) = loop {
            match self.decode(from).await {
                Err(Failure::NoRoomForFile { .. } | Failure::NotNow { .. })
                    if self.heard > 0 && tries < TRIES =>
                {
                    tries += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                Err(failure) => return Err(failure),
                Ok(decoded) => break decoded,
            }
        };
        let DecodedMedium::Sound {
            samples: count,
            silent,
            next,
        } = medium
        else {
            return Ok(None);
        };
        let begin = self.heard;
        self.heard += u64::from(count);
        if self.heard > (u64::from(self.limit) + SLACK) * u64::from(SOUND_RATE) {
            return Err(self.too_long());
        }
        self.next = next;
        let seconds = |samples: u64| samples as f64 / f64::from(SOUND_RATE);
        Ok(Some(Heard {
            begin: seconds(begin),
            end: seconds(self.heard),
            silent,
            is_last: next.is_none(),
            part: Part::Samples(Samples { count, at: 0 }),
            decoded: DecodedMedia::new(decoded),
        }))
    }

    async fn decode(&mut self, from: SoundPlace) -> Result<(File, DecodedMedium), Failure> {
        let kind = MediumKind::Piece {
            from,
            longest: self.longest,
            limit: self.limit,
        };
        let media = Media::of_one(EncodedMedium {
            kind,
            bytes: self.bytes,
        });
        let attachments = &self.attachments;
        let turn = attachments
            .decoder
            .turn(&attachments.waiting_for(self.account))
            .await?;
        // What the first piece took, the others will take.
        let means = self.means.get_or_insert_with(|| media.means());
        let decoded = attachments
            .decoder
            .by_workers(&media, &self.file, means)
            .await;
        drop(turn);
        let (file, all) = decoded?;
        match all.into_iter().flatten().next() {
            Some(medium) => Ok((file, medium)),
            None => Err(media.refuse(0, "could not be decoded".to_owned())),
        }
    }

    fn too_long(&self) -> Failure {
        Failure::Chat(ChatError::Sound {
            message: 0,
            part: 0,
            reason: format!(
                "lasts more than {} s, which is the limit (`sound-time` in gemmad.toml)",
                self.limit
            ),
        })
    }
}

/// The file in memory, as it is for ever.
fn in_memory(sound: &[u8]) -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(memfd_create("sound", flags)?);
    file.write_all_at(sound, 0)?;
    let all = SealFlags::GROW | SealFlags::SHRINK | SealFlags::WRITE | SealFlags::SEAL;
    fcntl_add_seals(file.as_fd(), all)?;
    Ok(file)
}
