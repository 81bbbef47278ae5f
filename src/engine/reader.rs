//! Has files read by workers that live for one file each.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::Failure;
use super::documents::{self, ReadFile, Way};
use super::errand::{self, Failed};
use crate::chat::{ChatError, ChatRequest, Detail, Document, Part, Picture, Source};
use crate::ipc::{DocumentKind, Extent, Extract, ExtractEvent, Page};

/// Files that are read at the same time.
const AT_ONCE: usize = 2;
/// How long one may take by the clock.
const READ_TIME: Duration = Duration::from_secs(30);

/// Starts the readers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reader {
    worker: Arc<PathBuf>,
    turns: Arc<Semaphore>,
}

impl Reader {
    pub fn new(worker: PathBuf) -> Self {
        Self {
            worker: Arc::new(worker),
            turns: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// Puts what stands in the request's files in their place; says of each how much that is.
    pub async fn read(&self, request: &mut ChatRequest) -> Result<Vec<ReadFile>, Failure> {
        let mut read = vec![];
        for (i, j, part) in request.parts_mut() {
            let Part::Document(document) = part else {
                continue;
            };
            let failed = |reason| {
                Failure::Chat(ChatError::Document {
                    message: i as u32,
                    part: j as u32,
                    reason,
                })
            };
            let (parts, extent) = self.document(document).await.map_err(failed)?;
            read.push(ReadFile {
                name: document.name.clone(),
                extent,
            });
            *part = Part::Read(parts);
        }
        Ok(read)
    }

    async fn document(&self, document: &Document) -> Result<(Vec<Part>, Extent), String> {
        const WHOLE: Extent = Extent {
            pages: 1,
            read: 1,
            unseen: 0,
            cut: false,
        };
        let Source::File(file) = &document.source else {
            return Err("names a file that was sent before, and there is none here".into());
        };
        match documents::way(&document.name, file)? {
            Way::Text(text) => Ok((vec![documents::quoted(&document.name, &text)], WHOLE)),
            Way::Picture => Ok((
                vec![Part::Picture(Picture {
                    file: file.clone(),
                    detail: Detail::Auto,
                })],
                WHOLE,
            )),
            Way::Worker(kind) => {
                let (pages, extent) = self.by_worker(kind, file).await?;
                Ok((documents::assembled(&document.name, pages, extent), extent))
            }
        }
    }

    async fn by_worker(
        &self,
        kind: DocumentKind,
        file: &[u8],
    ) -> Result<(Vec<Page>, Extent), String> {
        let failed = |error: io::Error| format!("cannot be read now: {error}");
        let _turn = self
            .turns
            .acquire()
            .await
            .map_err(|error| failed(io::Error::other(error)))?;
        let mut pages = vec![];
        let each = |message| match message {
            ExtractEvent::Page(page) => {
                pages.push(page);
                ControlFlow::Continue(())
            }
            ExtractEvent::Read(extent) => ControlFlow::Break(Ok(Ok(extent))),
            ExtractEvent::Unreadable { reason } => ControlFlow::Break(Ok(Err(reason))),
        };
        match errand::run::<Extract, _>(
            &self.worker,
            &kind,
            &[&in_memory(file).map_err(failed)?],
            READ_TIME,
            each,
        )
        .await
        {
            Ok(read) => read.map(|extent| (pages, extent)),
            Err(Failed::Start(error)) => Err(failed(error)),
            Err(Failed::Late) => Err(format!("takes more than {} s to read", READ_TIME.as_secs())),
            Err(Failed::Ended) => {
                Err("is damaged, or takes too much time or memory to read".into())
            }
            Err(Failed::Mistaken) => Err("could not be read".into()),
        }
    }
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
