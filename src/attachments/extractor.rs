//! Has files read by workers that live for one file each.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::document::{self, ReadFile};
use super::turns::{Turns, Waiting};
use super::{Fault, MAX_REASON, killed, no_room, not_started, reserve};
use crate::backend::Failure;
use crate::chat::{ChatError, ChatRequest, Detail, Document, Part, Picture, Source};
use crate::engine::one_shot::{self, Failed};
use crate::ipc::kind::{self, Reader};
use crate::ipc::{
    DocumentKind, EXTRACT_MEMORY, EXTRACT_PAGES, EXTRACT_PICTURES, EXTRACT_TEXT, Extent, Extract,
    ExtractEvent, Page,
};
use crate::memory::reserved::ReservedMemory;

/// Files that are read at the same time.
const MAX_CONCURRENT: usize = 2;
/// In messages.
const WHAT: &str = "files cannot be read";
/// How long one may take by the clock.
const READ_TIME: Duration = Duration::from_secs(30);

/// Starts them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Extractor {
    worker: Arc<PathBuf>,
    turns: Turns,
    memory: ReservedMemory,
}

impl Extractor {
    pub fn new(worker: PathBuf, memory: ReservedMemory) -> Self {
        Self {
            worker: Arc::new(worker),
            turns: Turns::new(MAX_CONCURRENT),
            memory,
        }
    }

    /// Puts what stands in the request's files in their place; says of each how much that is.
    pub async fn read(
        &self,
        request: &mut ChatRequest,
        waiting: &Waiting,
    ) -> Result<Vec<ReadFile>, Failure> {
        let mut read = vec![];
        for (i, j, part) in request.parts_mut() {
            let Part::Document(document) = part else {
                continue;
            };
            let failed = |error| match error {
                Fault::File(reason) => Failure::Chat(ChatError::Document {
                    message: i as u32,
                    part: j as u32,
                    reason,
                }),
                Fault::Failure(failure) => failure,
            };
            let (parts, extent) = self.document(document, waiting).await.map_err(failed)?;
            read.push(ReadFile {
                name: document.name.clone(),
                extent,
            });
            *part = Part::Read(parts);
        }
        Ok(read)
    }

    async fn document(
        &self,
        document: &Document,
        waiting: &Waiting,
    ) -> Result<(Vec<Part>, Extent), Fault> {
        let complete = Extent {
            pages: 1,
            read: 1,
            ..Extent::default()
        };
        let Source::File(file) = &document.source else {
            let reason = "names a file that was sent before, and there is none here";
            return Err(reason.to_owned().into());
        };
        match kind::reader(&document.name, file)? {
            Reader::Text(text) => Ok((vec![document::quoted(&document.name, &text)], complete)),
            Reader::Picture => Ok((
                vec![Part::Picture(Picture {
                    file: file.clone(),
                    detail: Detail::Auto,
                })],
                complete,
            )),
            Reader::Worker(kind) => {
                let (pages, extent) = self.by_worker(kind, file, waiting).await?;
                let parts = document::assembled(&document.name, pages, &extent);
                Ok((parts, extent))
            }
        }
    }

    async fn by_worker(
        &self,
        kind: DocumentKind,
        file: &[u8],
        waiting: &Waiting,
    ) -> Result<(Vec<Page>, Extent), Fault> {
        let failed = |error: io::Error| Fault::Failure(not_started(WHAT, &error));
        let _turn = self.turns.turn(waiting).await?;
        let memory = reserve(&self.memory, EXTRACT_MEMORY).await?;
        let mut pages = Pages::default();
        let each = |message| match message {
            ExtractEvent::Page(page) => match pages.take(page) {
                Ok(()) => ControlFlow::Continue(()),
                Err(page) => ControlFlow::Break(Err(ExtractEvent::Page(page))),
            },
            ExtractEvent::Read(extent) if extent.encoding.as_deref().is_none_or(is_name) => {
                ControlFlow::Break(Ok(Ok(extent)))
            }
            ExtractEvent::Rejected { reason } if reason.len() <= MAX_REASON => {
                ControlFlow::Break(Ok(Err(reason)))
            }
            other => ControlFlow::Break(Err(other)),
        };
        match one_shot::run::<Extract, _>(
            &self.worker,
            &kind,
            &[&in_memory(file).map_err(failed)?],
            READ_TIME,
            &memory,
            each,
        )
        .await
        {
            Ok(read) => Ok((pages.taken, read?)),
            Err(Failed::Start(error)) => Err(failed(error)),
            Err(Failed::Late) => {
                Err(format!("takes more than {} s to read", READ_TIME.as_secs()).into())
            }
            Err(Failed::Ended) => {
                let reason = "is damaged, or takes too much time or memory to read";
                Err(reason.to_owned().into())
            }
            Err(Failed::Killed) => Err(killed(WHAT).into()),
            Err(Failed::Revoked) => Err(no_room(&self.memory, EXTRACT_MEMORY).into()),
            Err(Failed::Mistaken) => Err("could not be read".to_owned().into()),
        }
    }
}

/// The pages that a worker has sent, as many as it may: it may have been taken over by the file.
#[derive(Default)]
struct Pages {
    taken: Vec<Page>,
    /// Bytes of all of them.
    text: usize,
    pictures: usize,
}

impl Pages {
    /// Takes a page, or gives it back if a worker that keeps to its bounds would not have sent it.
    fn take(&mut self, page: Page) -> Result<(), Page> {
        let text = self.text.saturating_add(page.text.len());
        let picture = page.picture.as_ref().map_or(0, Vec::len);
        let pictures = self.pictures.saturating_add(picture);
        if self.taken.len() >= EXTRACT_PAGES || text > EXTRACT_TEXT || pictures > EXTRACT_PICTURES {
            return Err(page);
        }
        (self.text, self.pictures) = (text, pictures);
        self.taken.push(page);
        Ok(())
    }
}

/// Whether it can be an encoding's.
fn is_name(name: &str) -> bool {
    name.len() <= 32 && name.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A file that is in no directory.
fn in_memory(bytes: &[u8]) -> io::Result<File> {
    let file = File::from(rustix::fs::memfd_create(
        "document",
        rustix::fs::MemfdFlags::CLOEXEC,
    )?);
    file.write_all_at(bytes, 0)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::ipc::{Greeting, frame};

    fn page(text: usize, picture: Option<usize>) -> Page {
        Page {
            text: "a".repeat(text),
            picture: picture.map(|bytes| vec![0; bytes]),
        }
    }

    #[test]
    fn a_worker_may_send_what_a_file_may_have_and_no_more() {
        let taken = |pages: &[Page]| {
            let mut all = Pages::default();
            let fits = |page: &&Page| all.take((*page).clone()).is_ok();
            pages.iter().take_while(fits).count()
        };
        let many = vec![page(0, None); EXTRACT_PAGES + 1];
        assert_eq!(taken(&many), EXTRACT_PAGES);
        let long = [page(EXTRACT_TEXT - 1, None), page(1, None), page(1, None)];
        assert_eq!(taken(&long), 2);
        let shown = [page(1, Some(EXTRACT_PICTURES)), page(1, Some(1))];
        assert_eq!(taken(&shown), 1);
    }

    /// What comes of a file whose reader sends the greeting, and then these bytes for ever.
    async fn read_by_liar(frames: &[u8]) -> Fault {
        let folder = tempfile::tempdir().unwrap();
        let (program, lies) = (folder.path().join("worker"), folder.path().join("lies"));
        let mut hello = vec![];
        frame::encode(&Greeting::OURS, &mut hello).unwrap();
        fs::write(folder.path().join("hello"), hello).unwrap();
        fs::write(&lies, frames).unwrap();
        // Its standard input is the channel, both ways.
        let script = format!(
            "#!/bin/sh\ncd {}\ncat hello >&0\nwhile cat lies >&0; do :; done\n",
            folder.path().display()
        );
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
        let extractor = Extractor::new(program, ReservedMemory::default());
        let waiting = Waiting {
            account: crate::chat::PrincipalId::User(1),
            limit: READ_TIME,
            end: tokio::time::Instant::now() + READ_TIME,
        };
        let read = extractor.by_worker(DocumentKind::Html, b"<p>", &waiting);
        let Err(error) = read.await else {
            panic!("something was read");
        };
        error
    }

    #[tokio::test]
    async fn a_reader_that_was_taken_over_is_ended() {
        let mut pages = vec![];
        for _ in 0..16 {
            frame::encode(&ExtractEvent::Page(page(4096, None)), &mut pages).unwrap();
        }
        let huge = (frame::MAX_FRAME as u32).to_le_bytes();
        for (frames, refusal) in [(&pages[..], "could not be read"), (&huge, "is damaged")] {
            match read_by_liar(frames).await {
                Fault::File(reason) => assert!(reason.starts_with(refusal), "{reason}"),
                Fault::Failure(failure) => panic!("{failure:?}"),
            }
        }
    }
}
