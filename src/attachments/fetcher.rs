//! Has files fetched that requests name by their addresses, by workers that live for one connection
//! each.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use url::Url;

use super::turns::{Turns, Waiting};
use super::{Fault, MAX_REASON, killed, no_room, not_started, reserve};
use crate::backend::Failure;
use crate::chat::{
    ChatError, ChatRequest, Document, MAX_DOCUMENT_BYTES, MAX_PICTURE_BYTES, MAX_URL_BYTES,
    Networks, Part, Picture, Remote, RemoteKind, Source,
};
use crate::engine::one_shot::{self, Failed};
use crate::ipc::{FETCH_MEMORY, Fetch, FetchEvent, FetchRequest};
use crate::memory::reserved::{Reservation, ReservedMemory};

/// Requests whose files are fetched at the same time.
const MAX_CONCURRENT: usize = 4;
/// In messages.
const WHAT: &str = "files cannot be fetched";
/// How long all files of a request may take.
const FETCH_TIME: Duration = Duration::from_secs(30);
/// Addresses that one file may be moved to.
const MAX_REDIRECTS: usize = 5;

/// Starts the fetchers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Fetcher {
    worker: Arc<PathBuf>,
    turns: Turns,
    memory: ReservedMemory,
    /// Replaced when the configuration is read again.
    networks: Arc<RwLock<Networks>>,
}

impl Fetcher {
    pub fn new(worker: PathBuf, networks: Networks, memory: ReservedMemory) -> Self {
        Self {
            worker: Arc::new(worker),
            turns: Turns::new(MAX_CONCURRENT),
            memory,
            networks: Arc::new(RwLock::new(networks)),
        }
    }

    /// Goes by other networks from now on.
    pub fn set_networks(&self, networks: Networks) {
        *self
            .networks
            .write()
            .unwrap_or_else(PoisonError::into_inner) = networks;
    }

    /// Puts the files that the request names by their addresses in their place; `most`: bytes of
    /// all of them.
    pub async fn fetch(
        &self,
        request: &mut ChatRequest,
        most: u64,
        waiting: &Waiting,
    ) -> Result<(), Failure> {
        if !request
            .parts()
            .any(|(_, _, part)| matches!(part, Part::Remote(_)))
        {
            return Ok(());
        }
        let networks = self
            .networks
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let _turn = self.turns.turn(waiting).await?;
        let memory = reserve(&self.memory, FETCH_MEMORY).await?;
        let (end, mut left) = (Instant::now() + FETCH_TIME, most);
        for (i, j, part) in request.parts_mut() {
            let Part::Remote(remote) = part else { continue };
            let file = match timeout_at(end, self.file(remote, &networks, left, &memory)).await {
                Ok(file) => file,
                Err(_) => Err(Fault::File(format!(
                    "is not fetched within the {} s that a request's files may take",
                    FETCH_TIME.as_secs()
                ))),
            };
            let file = file.map_err(|fault| match fault {
                Fault::File(reason) => refusal(&remote.what, i as u32, j as u32, reason),
                Fault::Failure(failure) => failure,
            })?;
            left = left.saturating_sub(file.len() as u64);
            *part = match &remote.what {
                RemoteKind::Picture(detail) => Part::Picture(Picture {
                    file,
                    detail: *detail,
                }),
                RemoteKind::Document(name, detail) => {
                    let name = if name.is_empty() {
                        last_of(&remote.url)
                    } else {
                        name.clone()
                    };
                    Part::Document(Document {
                        name,
                        source: Source::File(file),
                        detail: *detail,
                    })
                }
            };
        }
        Ok(())
    }

    async fn file(
        &self,
        remote: &Remote,
        networks: &Networks,
        left: u64,
        memory: &Reservation,
    ) -> Result<Arc<[u8]>, Fault> {
        let (what, limit) = match remote.what {
            RemoteKind::Picture(_) => ("picture", MAX_PICTURE_BYTES),
            RemoteKind::Document(..) => ("file", MAX_DOCUMENT_BYTES),
        };
        if networks.is_empty() {
            return Err(Fault::File(format!(
                "is an address on the network, and nothing is fetched (`fetch-from` in gemmad.toml); send the {what} itself, in base64"
            )));
        }
        let mut url = remote.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let fetch = FetchRequest {
                url: url.clone(),
                networks: networks.clone(),
                most: left.min(limit as u64),
            };
            match self.by_worker(fetch, memory).await? {
                Fetched::File(file) => return Ok(file.into()),
                Fetched::Redirected(to) => url = redirected(&url, &to)?,
            }
        }
        Err(format!("is moved more than {MAX_REDIRECTS} times").into())
    }

    async fn by_worker(&self, fetch: FetchRequest, memory: &Reservation) -> Result<Fetched, Fault> {
        let most = fetch.most as usize;
        let mut file = vec![];
        let each = |message| match message {
            // A piece has something in it, or they could come for ever.
            FetchEvent::Piece(piece) if !piece.is_empty() && file.len() + piece.len() <= most => {
                file.extend_from_slice(&piece);
                ControlFlow::Continue(())
            }
            FetchEvent::Fetched => ControlFlow::Break(Ok(Ok(None))),
            FetchEvent::Redirected { to } if to.len() <= MAX_URL_BYTES => {
                ControlFlow::Break(Ok(Ok(Some(to))))
            }
            FetchEvent::Rejected { reason } if reason.len() <= MAX_REASON => {
                ControlFlow::Break(Ok(Err(reason)))
            }
            other => ControlFlow::Break(Err(other)),
        };
        match one_shot::run::<Fetch, _>(&self.worker, &fetch, &[], FETCH_TIME, memory, each).await {
            Ok(Ok(None)) => Ok(Fetched::File(file)),
            Ok(Ok(Some(to))) => Ok(Fetched::Redirected(to)),
            Ok(Err(reason)) => Err(reason.into()),
            Err(Failed::Start(error)) => Err(not_started(WHAT, &error).into()),
            Err(Failed::Killed) => Err(killed(WHAT).into()),
            Err(Failed::Revoked) => Err(no_room(&self.memory, FETCH_MEMORY).into()),
            Err(Failed::Late | Failed::Ended | Failed::Mistaken) => {
                Err("could not be fetched".to_owned().into())
            }
        }
    }
}

enum Fetched {
    File(Vec<u8>),
    Redirected(String),
}

fn refusal(what: &RemoteKind, message: u32, part: u32, reason: String) -> Failure {
    Failure::Chat(match what {
        RemoteKind::Picture(_) => ChatError::Picture {
            message,
            part,
            reason,
        },
        RemoteKind::Document(..) => ChatError::Document {
            message,
            part,
            reason,
        },
    })
}

/// Where a server sends those who ask for `url`.
fn redirected(url: &str, to: &str) -> Result<String, String> {
    match Url::parse(url).and_then(|url| url.join(to)) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(url.into()),
        _ => Err("is moved to what is no address".into()),
    }
}

/// What a file is called at its address; a document's name tells web pages from text.
fn last_of(url: &str) -> String {
    let url = Url::parse(url).ok();
    url.and_then(|url| url.path_segments()?.next_back().map(str::to_owned))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::ipc::{FETCH_PIECE, Greeting, frame};

    #[test]
    fn moves_are_followed_to_addresses_only() {
        for (to, url) in [
            ("/b", "https://example.org/b"),
            ("b?c", "https://example.org/x/b?c"),
            ("//other.org/b", "https://other.org/b"),
            ("http://127.0.0.1/", "http://127.0.0.1/"),
        ] {
            assert_eq!(
                redirected("https://example.org/x/a", to).as_deref(),
                Ok(url),
                "{to}"
            );
        }
        for to in ["file:///etc/passwd", "data:text/plain,x", "http://"] {
            assert!(redirected("https://example.org/x/a", to).is_err(), "{to}");
        }
    }

    #[test]
    fn a_file_is_called_what_its_address_says() {
        for (url, name) in [
            ("https://example.org/a/b.html?c", "b.html"),
            ("https://example.org/", ""),
            ("https://example.org", ""),
        ] {
            assert_eq!(last_of(url), name, "{url}");
        }
    }

    /// What comes of a file whose worker sends the greeting, and then these events for ever.
    async fn fetched_by_liar(events: &[FetchEvent]) -> Result<Fetched, Fault> {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
        let mut hello = vec![];
        frame::encode(&Greeting::OURS, &mut hello).unwrap();
        let mut lies = vec![];
        for event in events {
            frame::encode(event, &mut lies).unwrap();
        }
        write("hello", &hello);
        write("lies", &lies);
        // Its standard input is the channel, both ways.
        let script = format!(
            "#!/bin/sh\ncd {}\ncat hello >&0\nwhile cat lies >&0; do :; done\n",
            folder.path().display()
        );
        let program = folder.path().join("worker");
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
        let memory = ReservedMemory::default();
        let reservation = memory.reserve(1, 1).unwrap();
        let fetcher = Fetcher::new(program, Networks::default(), memory.clone());
        let fetch = FetchRequest {
            url: "https://example.org/".into(),
            networks: Networks::default(),
            most: 1000,
        };
        fetcher.by_worker(fetch, &reservation).await
    }

    #[tokio::test]
    async fn a_worker_that_was_taken_over_is_ended() {
        let piece = |bytes: usize| FetchEvent::Piece(vec![b'x'; bytes]);
        let long = "x".repeat(MAX_REASON + 1);
        for lies in [
            vec![piece(100)],
            vec![piece(1001)],
            vec![piece(0)],
            vec![piece(FETCH_PIECE * 4)],
            vec![FetchEvent::Redirected {
                to: "x".repeat(MAX_URL_BYTES + 1),
            }],
            vec![FetchEvent::Rejected { reason: long }],
        ] {
            match fetched_by_liar(&lies).await {
                Err(Fault::File(reason)) => assert_eq!(reason, "could not be fetched", "{lies:?}"),
                _ => panic!("{lies:?}"),
            }
        }
        let whole = [piece(600), piece(400), FetchEvent::Fetched, piece(1)];
        let fetched = fetched_by_liar(&whole).await;
        assert!(matches!(fetched, Ok(Fetched::File(file)) if file.len() == 1000));
    }
}
