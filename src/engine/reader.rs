//! Has files read by workers that live for one file each.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep_until};

use super::Failure;
use super::child::{self, Notice};
use super::documents::{self, ReadFile, Way};
use crate::chat::{ChatError, ChatRequest, Detail, Document, Part, Picture, Source};
use crate::ipc::{self, DocumentKind, Extent, FromWorker, Page, ToWorker};

/// Files that are read at the same time.
const AT_ONCE: usize = 2;
/// How long one may take by the clock.
const READ_TIME: Duration = Duration::from_secs(30);
/// Pages on their way from the worker.
const PAGES_AHEAD: usize = 8;

/// Starts the readers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reader {
    worker: Arc<PathBuf>,
    turns: Arc<Semaphore>,
}

impl Reader {
    pub fn new(worker: PathBuf) -> Self {
        Self { worker: Arc::new(worker), turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Puts what stands in the request's files in their place; says of each how much that is.
    pub async fn read(&self, request: &mut ChatRequest) -> Result<Vec<ReadFile>, Failure> {
        let mut read = vec![];
        for (i, message) in request.messages.iter_mut().enumerate() {
            if !message.content.iter().any(|part| matches!(part, Part::Document(_))) {
                continue;
            }
            let mut content = vec![];
            for (j, part) in std::mem::take(&mut message.content).into_iter().enumerate() {
                let Part::Document(document) = &part else {
                    content.push(part);
                    continue;
                };
                let (parts, extent) = self
                    .document(document)
                    .await
                    .map_err(|reason| Failure::Chat(ChatError::Document { message: i as u32, part: j as u32, reason }))?;
                content.extend(parts);
                read.push(ReadFile { name: document.name.clone(), extent });
            }
            message.content = content;
        }
        Ok(read)
    }

    async fn document(&self, document: &Document) -> Result<(Vec<Part>, Extent), String> {
        const WHOLE: Extent = Extent { pages: 1, read: 1, unseen: 0, cut: false };
        let Source::File(file) = &document.source else {
            return Err("names a file that was sent before, and there is none here".into());
        };
        match documents::way(&document.name, file)? {
            Way::Text(text) => Ok((vec![documents::quoted(&document.name, &text)], WHOLE)),
            Way::Picture => Ok((vec![Part::Picture(Picture { file: file.clone(), detail: Detail::Auto })], WHOLE)),
            Way::Worker(kind) => {
                let (pages, extent) = self.by_worker(kind, file).await?;
                Ok((documents::assembled(&document.name, pages, extent), extent))
            }
        }
    }

    async fn by_worker(&self, kind: DocumentKind, file: &[u8]) -> Result<(Vec<Page>, Extent), String> {
        let failed = |error: io::Error| format!("cannot be read now: {error}");
        let _turn = self.turns.acquire().await.map_err(|error| failed(io::Error::other(error)))?;
        let (sender, mut notices) = mpsc::channel(PAGES_AHEAD);
        let child = child::spawn(&self.worker, 0, ToWorker::Read(kind), &[&in_memory(file).map_err(failed)?], sender).map_err(failed)?;
        let end = Instant::now() + READ_TIME;
        let mut pages = vec![];
        let outcome = loop {
            let notice = tokio::select! {
                notice = notices.recv() => notice,
                () = sleep_until(end) => break Err(format!("takes more than {} s to read", READ_TIME.as_secs())),
            };
            match notice {
                Some((_, Notice::Message(FromWorker::Hello { version: ipc::VERSION }))) => {}
                Some((_, Notice::Message(FromWorker::Page(page)))) => pages.push(page),
                Some((_, Notice::Message(FromWorker::Read(extent)))) => break Ok((pages, extent)),
                Some((_, Notice::Message(FromWorker::Unreadable { reason }))) => break Err(reason),
                // It has come to an end by itself, or was stopped for what it took.
                Some((_, Notice::Exited { .. })) | None => break Err("is damaged, or takes too much time or memory to read".into()),
                Some((_, other)) => {
                    tracing::error!(?other, "the reader of a file says what makes no sense");
                    break Err("could not be read".into());
                }
            }
        };
        child.kill();
        outcome
    }
}

/// A file that is in no directory.
fn in_memory(bytes: &[u8]) -> io::Result<File> {
    let file = File::from(rustix::fs::memfd_create("document", rustix::fs::MemfdFlags::CLOEXEC)?);
    file.write_all_at(bytes, 0)?;
    Ok(file)
}
