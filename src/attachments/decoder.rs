//! Has the pictures and sounds of a request decoded by a worker that lives for them alone. What they
//! become lies in a file in memory that this process makes, bounds and closes against changes, and
//! into which it never looks.

use std::fs::File;
use std::io;
use std::mem;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

use super::turns::{Turn, Turns, Waiting};
use super::{MAX_REASON, Refused, killed, no_room, not_started, reserve};
use crate::access::quota::{Quota, Share};
use crate::backend::Failure;
use crate::chat::{ChatError, ChatRequest, DecodedMedia, Detail, Part, Pixels, Samples};
use crate::engine::one_shot::{self, Failed};
use crate::ipc::{
    DECODE_MEMORY, DECODE_MEMORY_MOST, DECODED_MOST, Decode, DecodeEvent, DecodeRequest,
    DecodedMedium, EncodedMedium, MediumKind,
};
use crate::memory::reserved::ReservedMemory;

/// Requests whose media are decoded at the same time.
const MAX_CONCURRENT: usize = 2;
/// In messages.
pub(super) const WHAT: &str = "pictures and sounds cannot be decoded";
/// How long the media of one may take by the clock.
const DECODE_TIME: Duration = Duration::from_secs(30);
/// Bytes of decoded media that a user's requests, and so each of them, may hold until they are
/// answered, and users who can hold as much at the same time.
pub const MEDIA_PER_USER: u64 = DECODED_MOST;
const MEDIA_USERS: u64 = 2;
/// Bytes that each request with media counts as at least, because it holds a descriptor.
pub(super) const MEDIA_LEAST: u64 = 2 << 20;

/// Starts them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct MediaDecoder {
    worker: Arc<PathBuf>,
    turns: Turns,
    memory: ReservedMemory,
    /// Bytes of what was decoded.
    held: Arc<Quota>,
}

/// The media of a request, in the order in which they are decoded.
#[derive(Default)]
pub(super) struct Media {
    /// Each with its message and its place there.
    places: Vec<(usize, usize)>,
    encoded: Vec<EncodedMedium>,
    files: Vec<Arc<[u8]>>,
}

impl Media {
    fn of(request: &ChatRequest) -> Self {
        let mut media = Self::default();
        for (message, part, content) in request.media() {
            let (kind, file) = match content {
                Part::Picture(picture) => (MediumKind::Picture(picture.detail), &picture.file),
                Part::Sound(sound) => (MediumKind::Sound, &sound.file),
                _ => continue,
            };
            let bytes = file.len() as u64;
            media.places.push((message, part));
            media.encoded.push(EncodedMedium { kind, bytes });
            media.files.push(file.clone());
        }
        media
    }

    /// One that is in a file already.
    pub(super) fn of_one(encoded: EncodedMedium) -> Self {
        Self {
            places: vec![(0, 0)],
            encoded: vec![encoded],
            files: vec![],
        }
    }

    /// Bytes that they may become, if no sound is longer than the model hears at once.
    fn most_bytes(&self) -> u64 {
        let most = self.encoded.iter().map(|medium| medium.kind.most_bytes());
        most.sum::<u64>().min(MEDIA_PER_USER)
    }

    /// What their worker may use at first.
    pub(super) fn means(&self) -> Means {
        Means {
            memory: DECODE_MEMORY,
            room: self.most_bytes(),
        }
    }

    /// That there is something wrong with one of them, or with what was wanted behind the last.
    pub(super) fn refuse(&self, which: usize, reason: String) -> Failure {
        let which = which.min(self.places.len().saturating_sub(1));
        let (Some(&(message, part)), Some(medium)) =
            (self.places.get(which), self.encoded.get(which))
        else {
            return Failure::Chat(ChatError::Inference { reason });
        };
        let (message, part) = (message as u32, part as u32);
        Failure::Chat(match medium.kind {
            MediumKind::Picture(_) => ChatError::Picture {
                message,
                part,
                reason,
            },
            MediumKind::Sound | MediumKind::Piece { .. } => ChatError::Sound {
                message,
                part,
                reason,
            },
        })
    }

    /// The files one behind the other, in memory.
    fn in_memory(&self) -> io::Result<File> {
        let all = File::from(memfd_create("media", MemfdFlags::CLOEXEC)?);
        let mut at = 0;
        for file in &self.files {
            all.write_all_at(file, at)?;
            at += file.len() as u64;
        }
        Ok(all)
    }
}

/// What a worker may use: bytes of memory, and of the file for what it decodes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Means {
    memory: u64,
    room: u64,
}

/// What came of a worker.
enum Outcome {
    /// What each medium has become: one thing, or the pieces of a sound.
    All(Vec<Vec<DecodedMedium>>),
    Needs(Means),
}

impl MediaDecoder {
    pub fn new(worker: PathBuf, memory: ReservedMemory) -> Self {
        Self {
            worker: Arc::new(worker),
            turns: Turns::new(MAX_CONCURRENT),
            memory,
            held: Quota::new(MEDIA_PER_USER * MEDIA_USERS, MEDIA_PER_USER),
        }
    }

    /// Bytes of what was decoded.
    pub(super) fn held(&self) -> &Arc<Quota> {
        &self.held
    }

    /// A turn to have something decoded.
    pub(super) async fn turn(&self, waiting: &Waiting) -> Result<Turn, Failure> {
        self.turns.turn(waiting).await
    }

    /// Puts what the request's pictures and sounds become in their place. What that takes is held by
    /// `share`.
    pub async fn decode(
        &self,
        request: &mut ChatRequest,
        share: &mut Share,
        waiting: &Waiting,
    ) -> Result<(), Refused> {
        let media = Media::of(request);
        if media.files.is_empty() {
            return Ok(());
        }
        let failed = |error: io::Error| Refused::Failure(not_started(WHAT, &error));
        let encoded = media.in_memory().map_err(failed)?;
        let turn = self.turn(waiting).await.map_err(Refused::Failure)?;
        let mut means = media.means();
        let decoded = self.by_workers(&media, &encoded, &mut means).await;
        let (file, decoded) = decoded.map_err(Refused::Failure)?;
        drop(turn);
        let bytes = total(&decoded);
        let mut held = share.beside(&self.held);
        held.grow(bytes.max(MEDIA_LEAST)).map_err(Refused::Full)?;
        share.hold(held);
        replace(request, decoded);
        request.decoded = Some(DecodedMedia::new(file));
        Ok(())
    }

    /// Has them decoded; by a second worker if their headers say that what the first may use is not
    /// enough, which is in `means` afterwards.
    pub(super) async fn by_workers(
        &self,
        media: &Media,
        encoded: &File,
        means: &mut Means,
    ) -> Result<(File, Vec<Vec<DecodedMedium>>), Failure> {
        let failed = |error: io::Error| not_started(WHAT, &error);
        for _ in 0..2 {
            let decoded = bounded(means.room).map_err(failed)?;
            match self.by_worker(media, encoded, &decoded, *means).await? {
                Outcome::All(all) => {
                    if let Err(error) = close(&decoded, total(&all)) {
                        tracing::error!(%error, "a decoder left something else than it says");
                        return Err(mistaken(media, 0));
                    }
                    return Ok((decoded, all));
                }
                Outcome::Needs(more) => {
                    let memory = more.memory.max(means.memory);
                    let room = more.room.max(means.room);
                    *means = Means { memory, room };
                    if memory > DECODE_MEMORY_MOST || room > DECODED_MOST {
                        break;
                    }
                }
            }
        }
        tracing::error!(?means, "a decoder asks for what makes no sense");
        Err(mistaken(media, 0))
    }

    async fn by_worker(
        &self,
        media: &Media,
        encoded: &File,
        decoded: &File,
        means: Means,
    ) -> Result<Outcome, Failure> {
        let takes = means.memory + means.room;
        let reservation = reserve(&self.memory, takes).await?;
        let request = DecodeRequest {
            media: media.encoded.clone(),
            memory: means.memory,
        };
        let mut done = Done::of(media, means.room);
        let ended = one_shot::run::<Decode, _>(
            &self.worker,
            &request,
            &[encoded, decoded],
            DECODE_TIME,
            &reservation,
            |event| done.hear(event),
        )
        .await;
        let refuse = |reason: String| Err(media.refuse(done.media.len(), reason));
        match ended {
            Ok(Ok(None)) => Ok(Outcome::All(done.media)),
            Ok(Ok(Some(means))) => Ok(Outcome::Needs(means)),
            Ok(Err(reason)) => refuse(reason),
            Err(Failed::Start(error)) => Err(not_started(WHAT, &error)),
            Err(Failed::Late) => refuse(format!(
                "takes more than {} s to decode",
                DECODE_TIME.as_secs()
            )),
            Err(Failed::Ended) => {
                refuse("is damaged, or takes too much time or memory to decode".to_owned())
            }
            Err(Failed::Killed) => Err(killed(WHAT)),
            Err(Failed::Revoked) => Err(no_room(&self.memory, takes)),
            Err(Failed::Mistaken) => Err(mistaken(media, done.media.len())),
        }
    }
}

/// What a worker has said so far.
struct Done<'a> {
    encoded: &'a [EncodedMedium],
    /// Bytes that are left for what comes.
    room: u64,
    /// What the media have become, those of which all is there.
    media: Vec<Vec<DecodedMedium>>,
    /// The pieces of the next, a sound.
    pieces: Vec<DecodedMedium>,
}

/// What a worker has come to: all of it, or what it needs, or what is wrong with the next medium.
type Ended = Result<Option<Means>, String>;

impl<'a> Done<'a> {
    fn of(media: &'a Media, room: u64) -> Self {
        Self {
            encoded: &media.encoded,
            room,
            media: vec![],
            pieces: vec![],
        }
    }

    fn hear(&mut self, event: DecodeEvent) -> ControlFlow<Result<Ended, DecodeEvent>> {
        match event {
            DecodeEvent::Decoded(decoded) => {
                let encoded = self.encoded.get(self.media.len());
                let Some(kind) = encoded
                    .map(|encoded| encoded.kind)
                    .filter(|kind| decoded.is_of(*kind) && decoded.bytes() <= self.room)
                else {
                    return ControlFlow::Break(Err(event));
                };
                self.room -= decoded.bytes();
                self.pieces.push(decoded);
                if decoded.is_last_of(kind) {
                    self.media.push(mem::take(&mut self.pieces));
                }
                match self.media.len() == self.encoded.len() {
                    true => ControlFlow::Break(Ok(Ok(None))),
                    false => ControlFlow::Continue(()),
                }
            }
            DecodeEvent::Needs { memory, room }
                if self.media.is_empty() && self.pieces.is_empty() =>
            {
                ControlFlow::Break(Ok(Ok(Some(Means { memory, room }))))
            }
            DecodeEvent::Rejected { reason } if reason.len() <= MAX_REASON => {
                ControlFlow::Break(Ok(Err(reason)))
            }
            other => ControlFlow::Break(Err(other)),
        }
    }
}

/// Bytes of all of it.
fn total(media: &[Vec<DecodedMedium>]) -> u64 {
    media.iter().flatten().map(|medium| medium.bytes()).sum()
}

/// A worker that was taken over has said or left what makes no sense.
fn mistaken(media: &Media, which: usize) -> Failure {
    media.refuse(which, "could not be decoded".to_owned())
}

/// A file in memory that nobody can make longer than `most` bytes. It takes what is written to it.
fn bounded(most: u64) -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(memfd_create("decoded", flags)?);
    ftruncate(&file, most)?;
    fcntl_add_seals(&file, SealFlags::GROW)?;
    Ok(file)
}

/// Leaves the first `bytes` bytes of it, and closes it against all changes. Fails if it is shorter, or
/// if a worker still has it in its memory, to be written to.
fn close(file: &File, bytes: u64) -> io::Result<()> {
    ftruncate(file, bytes)?;
    let all = SealFlags::SHRINK | SealFlags::WRITE | SealFlags::SEAL;
    Ok(fcntl_add_seals(file, all)?)
}

/// Puts what the media have become in their places.
fn replace(request: &mut ChatRequest, decoded: Vec<Vec<DecodedMedium>>) {
    let (mut at, mut decoded) = (0, decoded.into_iter());
    for (_, _, part) in request.parts_mut() {
        if !part.pieces().iter().any(|piece| piece.modality().is_some()) {
            continue;
        }
        let mut pieces = vec![];
        for piece in part.pieces() {
            if piece.modality().is_none() {
                pieces.push(piece.clone());
                continue;
            }
            let detail = match piece {
                Part::Picture(picture) => picture.detail,
                _ => Default::default(),
            };
            for medium in decoded.next().unwrap_or_default() {
                pieces.push(placed(medium, detail, at));
                at += medium.bytes();
            }
        }
        *part = match part {
            Part::Read(_) => Part::Read(pieces),
            _ => match pieces.pop() {
                Some(only) if pieces.is_empty() => only,
                last => {
                    pieces.extend(last);
                    Part::Read(pieces)
                }
            },
        };
    }
}

/// What a medium has become, which begins `at` this byte of the file.
fn placed(medium: DecodedMedium, detail: Detail, at: u64) -> Part {
    match medium {
        DecodedMedium::Picture { width, height } => Part::Pixels(Pixels {
            width,
            height,
            detail,
            at,
        }),
        DecodedMedium::Sound { samples: count, .. } => Part::Samples(Samples { count, at }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::chat::{Detail, Message, Picture, PrincipalId, Role, Sound};
    use crate::ipc::{Greeting, SoundPlace, frame};

    fn request(parts: Vec<Part>) -> ChatRequest {
        let message = Message {
            content: parts,
            ..Message::text(Role::User, "")
        };
        ChatRequest::new(vec![message])
    }

    fn picture(detail: Detail) -> Part {
        let file = b"\x89PNG"[..].into();
        Part::Picture(Picture { file, detail })
    }

    fn sound() -> Part {
        let file = b"OggS"[..].into();
        Part::Sound(Sound { file })
    }

    /// A decoder that sends the greeting, and then these events, the last of them for ever.
    fn liar(folder: &std::path::Path, events: &[DecodeEvent]) -> MediaDecoder {
        let program = folder.join("worker");
        let write = |name: &str, bytes: Vec<u8>| fs::write(folder.join(name), bytes).unwrap();
        let mut hello = vec![];
        frame::encode(&Greeting::OURS, &mut hello).unwrap();
        let mut last = vec![];
        for event in events {
            hello.append(&mut last);
            frame::encode(event, &mut last).unwrap();
        }
        write("hello", hello);
        write("last", last);
        // Its standard input is the channel, both ways.
        let script = format!(
            "#!/bin/sh\ncd {}\ncat hello >&0\nwhile cat last >&0; do :; done\n",
            folder.display()
        );
        write("worker", script.into());
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
        MediaDecoder::new(program, ReservedMemory::default())
    }

    fn share() -> Share {
        Quota::new(1 << 20, 1 << 20).share(PrincipalId::User(1), false)
    }

    async fn decode(decoder: &MediaDecoder, request: &mut ChatRequest) -> Result<Share, Refused> {
        let waiting = Waiting {
            account: PrincipalId::User(1),
            limit: DECODE_TIME,
            end: tokio::time::Instant::now() + DECODE_TIME,
        };
        let mut share = share();
        let decoded = decoder.decode(request, &mut share, &waiting).await;
        decoded.map(|()| share)
    }

    fn shown(width: u32, height: u32) -> DecodeEvent {
        DecodeEvent::Decoded(DecodedMedium::Picture { width, height })
    }

    fn heard(samples: u32) -> DecodeEvent {
        piece(samples, None)
    }

    fn piece(samples: u32, next: Option<SoundPlace>) -> DecodeEvent {
        DecodeEvent::Decoded(DecodedMedium::Sound {
            samples,
            silent: false,
            next,
        })
    }

    /// What is said of the second of two media, a sound and a picture.
    async fn refusal(events: &[DecodeEvent]) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        let decoder = liar(folder.path(), events);
        let mut request = request(vec![sound(), picture(Detail::Low)]);
        // What is held for one that is decoded is given back with it.
        let refused = decode(&decoder, &mut request).await.map(drop);
        assert_eq!(decoder.held.in_use(), 0);
        match refused {
            Ok(()) => None,
            Err(Refused::Failure(Failure::Chat(
                ChatError::Picture {
                    message: 0,
                    part: 1,
                    reason,
                }
                | ChatError::Sound {
                    message: 0,
                    part: 0,
                    reason,
                },
            ))) => Some(reason),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_decoder_that_was_taken_over_is_ended() {
        let needs = |memory, room| DecodeEvent::Needs { memory, room };
        let more = Some(SoundPlace::default());
        let rejected = |bytes| DecodeEvent::Rejected {
            reason: "x".repeat(bytes),
        };
        let lies: [&[DecodeEvent]; 13] = [
            // Too many pixels, of a size that no picture has, and samples.
            &[heard(640), shown(960, 672)],
            &[heard(640), shown(480, 335)],
            &[heard(640), shown(u32::MAX, u32::MAX)],
            &[heard(480_001)],
            &[heard(1)],
            // The other medium.
            &[shown(480, 336)],
            &[heard(640), heard(640)],
            // Memory that nobody gives, and the same again.
            &[needs(u64::MAX, 0)],
            &[needs(DECODE_MEMORY, u64::MAX)],
            &[needs(DECODE_MEMORY + 1, 0)],
            // Pieces without an end, for which there is no room, and of next to nothing.
            &[piece(480_000, more)],
            &[piece(640, more)],
            &[rejected(MAX_REASON + 1)],
        ];
        for lie in lies {
            let reason = refusal(lie).await;
            assert_eq!(reason.as_deref(), Some("could not be decoded"), "{lie:?}");
        }
        let endless = refusal(&[rejected(1 << 20)]).await;
        assert!(endless.unwrap().starts_with("is damaged, or takes"));
        assert_eq!(refusal(&[rejected(3)]).await.as_deref(), Some("xxx"));
        assert_eq!(refusal(&[heard(640), shown(480, 336)]).await, None);
    }

    #[tokio::test]
    async fn what_was_decoded_is_held_until_its_request_is_answered() {
        let folder = tempfile::tempdir().unwrap();
        let decoder = liar(folder.path(), &[heard(640), shown(480, 336)]);
        let parts = || vec![sound(), Part::Read(vec![picture(Detail::Low)])];
        let mut one = request(parts());
        let share = decode(&decoder, &mut one).await.unwrap();
        assert_eq!(decoder.held.in_use(), MEDIA_LEAST);
        let pixels = Pixels {
            width: 480,
            height: 336,
            detail: Detail::Low,
            at: 4 * 640,
        };
        assert_eq!(
            one.messages[0].content,
            [
                Part::Samples(Samples { count: 640, at: 0 }),
                Part::Read(vec![Part::Pixels(pixels)])
            ]
        );
        let file = one.media_file().unwrap();
        let mut last = [1];
        file.read(&mut last, pixels.at + pixels.bytes() - 1)
            .unwrap();
        assert!(file.read(&mut last, pixels.at + pixels.bytes()).is_err());
        assert_eq!(decoder.memory.bytes(), 0);
        // As many as a user may have, and no more.
        let most = MEDIA_PER_USER / MEDIA_LEAST;
        let mut held = vec![share];
        let full = loop {
            match decode(&decoder, &mut request(parts())).await {
                Ok(share) => held.push(share),
                Err(Refused::Full(full)) => break full,
                Err(other) => panic!("{other:?}"),
            }
        };
        assert!(held.len() as u64 <= most, "{full:?}");
        drop(held);
        assert_eq!(decoder.held.in_use(), 0);
    }

    #[test]
    fn a_file_of_decoded_media_is_bounded_and_then_closed() {
        let file = bounded(100).unwrap();
        file.write_all_at(b"pixels", 94).unwrap();
        assert!(file.write_all_at(b"pixels", 95).is_err());
        close(&file, 100).unwrap();
        assert!(file.write_all_at(b"x", 0).is_err());
        assert!(file.set_len(1).is_err() && file.set_len(101).is_err());
        let shorter = bounded(100).unwrap();
        shorter.set_len(50).unwrap();
        assert!(close(&shorter, 60).is_err());
        let longer = bounded(100).unwrap();
        close(&longer, 60).unwrap();
        assert_eq!(longer.metadata().unwrap().len(), 60);
    }
}
