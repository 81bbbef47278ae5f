//! Has files read by workers that live for one file each.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::document::{self, ReadFile, Reader};
use super::{no_room, reserve};
use crate::backend::Failure;
use crate::chat::{ChatError, ChatRequest, Detail, Document, Part, Picture, Source};
use crate::engine::one_shot::{self, Failed};
use crate::ipc::{DocumentKind, EXTRACT_MEMORY, Extent, Extract, ExtractEvent, Page};
use crate::memory::reserved::ReservedMemory;

/// Files that are read at the same time.
const MAX_CONCURRENT: usize = 2;
/// How long one may take by the clock.
const READ_TIME: Duration = Duration::from_secs(30);

/// Starts them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Extractor {
    worker: Arc<PathBuf>,
    slots: Arc<Semaphore>,
    memory: ReservedMemory,
}

/// Why nothing was read of a file.
enum ExtractError {
    /// Continues "the file …".
    File(String),
    Failure(Failure),
}

impl From<String> for ExtractError {
    fn from(reason: String) -> Self {
        Self::File(reason)
    }
}

impl Extractor {
    pub fn new(worker: PathBuf, memory: ReservedMemory) -> Self {
        Self {
            worker: Arc::new(worker),
            slots: Arc::new(Semaphore::new(MAX_CONCURRENT)),
            memory,
        }
    }

    /// Puts what stands in the request's files in their place; says of each how much that is.
    pub async fn read(&self, request: &mut ChatRequest) -> Result<Vec<ReadFile>, Failure> {
        let mut read = vec![];
        for (i, j, part) in request.parts_mut() {
            let Part::Document(document) = part else {
                continue;
            };
            let failed = |error| match error {
                ExtractError::File(reason) => Failure::Chat(ChatError::Document {
                    message: i as u32,
                    part: j as u32,
                    reason,
                }),
                ExtractError::Failure(failure) => failure,
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

    async fn document(&self, document: &Document) -> Result<(Vec<Part>, Extent), ExtractError> {
        const COMPLETE: Extent = Extent {
            pages: 1,
            read: 1,
            unseen: 0,
            cut: false,
        };
        let Source::File(file) = &document.source else {
            let reason = "names a file that was sent before, and there is none here";
            return Err(reason.to_owned().into());
        };
        match document::reader(&document.name, file)? {
            Reader::Text(text) => Ok((vec![document::quoted(&document.name, &text)], COMPLETE)),
            Reader::Picture => Ok((
                vec![Part::Picture(Picture {
                    file: file.clone(),
                    detail: Detail::Auto,
                })],
                COMPLETE,
            )),
            Reader::Worker(kind) => {
                let (pages, extent) = self.by_worker(kind, file).await?;
                Ok((document::assembled(&document.name, pages, extent), extent))
            }
        }
    }

    async fn by_worker(
        &self,
        kind: DocumentKind,
        file: &[u8],
    ) -> Result<(Vec<Page>, Extent), ExtractError> {
        let failed = |error: io::Error| format!("cannot be read now: {error}");
        let _slot = self
            .slots
            .acquire()
            .await
            .map_err(|error| failed(io::Error::other(error)))?;
        let memory = reserve(&self.memory, EXTRACT_MEMORY)
            .await
            .map_err(ExtractError::Failure)?;
        let mut pages = vec![];
        let each = |message| match message {
            ExtractEvent::Page(page) => {
                pages.push(page);
                ControlFlow::Continue(())
            }
            ExtractEvent::Read(extent) => ControlFlow::Break(Ok(Ok(extent))),
            ExtractEvent::Rejected { reason } => ControlFlow::Break(Ok(Err(reason))),
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
            Ok(read) => Ok((pages, read?)),
            Err(Failed::Start(error)) => Err(failed(error).into()),
            Err(Failed::Late) => {
                Err(format!("takes more than {} s to read", READ_TIME.as_secs()).into())
            }
            Err(Failed::Ended) => {
                let reason = "is damaged, or takes too much time or memory to read";
                Err(reason.to_owned().into())
            }
            Err(Failed::Revoked) => {
                Err(ExtractError::Failure(no_room(&self.memory, EXTRACT_MEMORY)))
            }
            Err(Failed::Mistaken) => Err("could not be read".to_owned().into()),
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
