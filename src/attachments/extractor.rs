//! Has files read by workers that live for one file each.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::document::{self, ReadFile, ReadPage, Seen};
use super::look::Viewer;
use super::turns::{Turns, Waiting};
use super::{Fault, MAX_REASON, killed, no_room, not_started, reserve};
use crate::backend::Failure;
use crate::chat::{BUDGETS, ChatError, ChatRequest, Document, Part, Picture, Source};
use crate::engine::one_shot::{self, Failed};
use crate::ipc::kind::{self, Reader};
use crate::ipc::{
    EXTRACT_MEMORY, EXTRACT_PAGES, EXTRACT_PICTURES, EXTRACT_TEXT, Extent, Extract, ExtractEvent,
    ExtractRequest, Look, Page, Shows,
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

    /// Puts what stands in the request's files in their place; says of each in `read` how much that
    /// is, and last of one that cannot be read.
    pub async fn read(
        &self,
        request: &mut ChatRequest,
        mut viewer: Viewer,
        waiting: &Waiting,
        read: &mut Vec<ReadFile>,
    ) -> Result<(), Failure> {
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
            read.push(ReadFile::unread(&document.name));
            let found = self.document(document, &mut viewer, waiting).await;
            let (parts, extent, pages) = found.map_err(failed)?;
            if let Some(file) = read.last_mut() {
                (file.extent, file.pages) = (extent, pages);
            }
            *part = Part::Read(parts);
        }
        Ok(())
    }

    async fn document(
        &self,
        document: &Document,
        viewer: &mut Viewer,
        waiting: &Waiting,
    ) -> Result<(Vec<Part>, Extent, Vec<ReadPage>), Fault> {
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
            Reader::Text(text) => {
                let page = ReadPage {
                    bytes: text.len(),
                    seen: Seen::Told,
                };
                let parts = vec![document::quoted(&document.name, &text)];
                Ok((parts, complete, vec![page]))
            }
            Reader::Picture => {
                let page = ReadPage {
                    bytes: 0,
                    seen: Seen::Shown(Shows::Pictures(100)),
                };
                let (file, detail) = (file.clone(), document.detail);
                let parts = vec![Part::Picture(Picture { file, detail })];
                Ok((parts, complete, vec![page]))
            }
            Reader::Worker(kind) => {
                let look = viewer.look(document.detail);
                let request = ExtractRequest { kind, look };
                let (pages, extent) = self.by_worker(request, file, waiting).await?;
                let read: Vec<_> = pages.iter().map(ReadPage::of).collect();
                // Its text says nothing, and so the model would be asked in vain.
                if let Some(blindness) = viewer.blindness()
                    && read.iter().any(ReadPage::is_lost)
                {
                    return Err(Fault::Failure(blindness.clone()));
                }
                let parts = document::assembled(&document.name, pages, &extent);
                viewer.take(document::tokens(&parts));
                Ok((parts, extent, read))
            }
        }
    }

    async fn by_worker(
        &self,
        request: ExtractRequest,
        file: &[u8],
        waiting: &Waiting,
    ) -> Result<(Vec<Page>, Extent), Fault> {
        let failed = |error: io::Error| Fault::Failure(not_started(WHAT, &error));
        let _turn = self.turns.turn(waiting).await?;
        let memory = reserve(&self.memory, EXTRACT_MEMORY).await?;
        let mut pages = Pages::of(request.look);
        let each = |message| match message {
            ExtractEvent::Page(page) => match pages.take(page) {
                Ok(()) => ControlFlow::Continue(()),
                Err(page) => ControlFlow::Break(Err(ExtractEvent::Page(page))),
            },
            ExtractEvent::Read(extent)
                if extent.encoding.as_deref().is_none_or(is_name)
                    && BUDGETS.contains(&extent.budget)
                    && extent.budget <= request.look.tokens =>
            {
                ControlFlow::Break(Ok(Ok(extent)))
            }
            ExtractEvent::Rejected { reason } if reason.len() <= MAX_REASON => {
                ControlFlow::Break(Ok(Err(reason)))
            }
            other => ControlFlow::Break(Err(other)),
        };
        match one_shot::run::<Extract, _>(
            &self.worker,
            &request,
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
struct Pages {
    taken: Vec<Page>,
    /// Those that may still be shown.
    shown_left: u32,
    /// Bytes of all of them.
    text: usize,
    pictures: usize,
}

impl Pages {
    fn of(look: Look) -> Self {
        Self {
            taken: vec![],
            shown_left: look.pages,
            text: 0,
            pictures: 0,
        }
    }

    /// Takes a page, or gives it back if a worker that keeps to its bounds would not have sent it.
    fn take(&mut self, page: Page) -> Result<(), Page> {
        let text = self.text.saturating_add(page.text.len());
        let picture = page.sight.picture();
        let pictures = self.pictures.saturating_add(picture.map_or(0, <[u8]>::len));
        let shown_left = self.shown_left.checked_sub(picture.is_some().into());
        let (false, Some(shown_left)) = (
            self.taken.len() >= EXTRACT_PAGES || text > EXTRACT_TEXT || pictures > EXTRACT_PICTURES,
            shown_left,
        ) else {
            return Err(page);
        };
        self.shown_left = shown_left;
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
    use crate::ipc::{DocumentKind, Greeting, Sight, frame};

    const LOOK: Look = Look {
        pages: 2,
        tokens: 280,
        room: None,
    };

    fn page(text: usize, picture: Option<usize>) -> Page {
        let why = Shows::LittleText;
        Page {
            text: "a".repeat(text),
            sight: picture.map_or(Sight::Told, |bytes| Sight::Shown {
                why,
                picture: vec![0; bytes],
            }),
        }
    }

    #[test]
    fn a_worker_may_send_what_a_file_may_have_and_no_more() {
        let taken = |pages: &[Page]| {
            let mut all = Pages::of(LOOK);
            let fits = |page: &&Page| all.take((*page).clone()).is_ok();
            pages.iter().take_while(fits).count()
        };
        let many = vec![page(0, None); EXTRACT_PAGES + 1];
        assert_eq!(taken(&many), EXTRACT_PAGES);
        let long = [page(EXTRACT_TEXT - 1, None), page(1, None), page(1, None)];
        assert_eq!(taken(&long), 2);
        let shown = [page(1, Some(EXTRACT_PICTURES)), page(1, Some(1))];
        assert_eq!(taken(&shown), 1);
        assert_eq!(taken(&vec![page(1, Some(1)); 3]), 2);
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
        let read = extractor.by_worker(
            ExtractRequest {
                kind: DocumentKind::Html,
                look: LOOK,
            },
            b"<p>",
            &waiting,
        );
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
        let mut larger = vec![];
        let extent = Extent {
            budget: 560,
            ..Extent::default()
        };
        frame::encode(&ExtractEvent::Read(extent), &mut larger).unwrap();
        for (frames, refusal) in [
            (&pages[..], "could not be read"),
            (&larger, "could not be read"),
            (&huge, "is damaged"),
        ] {
            match read_by_liar(frames).await {
                Fault::File(reason) => assert!(reason.starts_with(refusal), "{reason}"),
                Fault::Failure(failure) => panic!("{failure:?}"),
            }
        }
    }
}
