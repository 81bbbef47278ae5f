//! Telling a client while its request waits: at once when a new stage begins, else a few times a
//! second at most.

use std::future::pending;
use std::mem::take;
use std::time::Duration;

use axum::body::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::api::generation::write_event;
use crate::api::progress::{self, Wish};
use crate::chat::{Stage, Waiting};

/// Between two that tell of the same stage.
const PAUSE: Duration = Duration::from_millis(250);

/// What there is to tell of one request, and when.
pub struct News {
    waiting: watch::Receiver<Option<Waiting>>,
    /// What was told last, and when.
    told: Option<(Waiting, Instant)>,
}

impl News {
    pub fn new(waiting: watch::Receiver<Option<Waiting>>) -> Self {
        Self {
            waiting,
            told: None,
        }
    }

    /// What is to be told next; never returns when there will be nothing more. Nothing is lost when
    /// the future is dropped.
    pub async fn next(&mut self) -> Waiting {
        loop {
            let Some((waiting, due)) = self.untold() else {
                // What has no sender any more will not change.
                match self.waiting.changed().await {
                    Ok(()) => continue,
                    Err(_) => return pending().await,
                }
            };
            if due > Instant::now() {
                tokio::select! {
                    () = sleep_until(due) => {}
                    Ok(()) = self.waiting.changed() => {}
                }
                continue;
            }
            return self.tell(waiting);
        }
    }

    /// The answer begins: what is told before it, so that who was told of a prompt sees it read.
    pub fn end(&mut self) -> Option<Waiting> {
        let (waiting, _) = self.untold()?;
        is_read(&waiting).then(|| self.tell(waiting))
    }

    /// How it stands, if that was not told, and when it may be told.
    fn untold(&mut self) -> Option<(Waiting, Instant)> {
        let waiting = (*self.waiting.borrow_and_update())?;
        Some(match &self.told {
            None => (waiting, Instant::now()),
            Some((told, _)) if told.stage == waiting.stage => return None,
            Some((told, at)) if told.stage.is_like(&waiting.stage) => (waiting, *at + PAUSE),
            Some(_) => (waiting, Instant::now()),
        })
    }

    fn tell(&mut self, waiting: Waiting) -> Waiting {
        self.told = Some((waiting, Instant::now()));
        waiting
    }
}

/// Tells how far one request is.
pub struct Teller {
    news: News,
    write: Box<dyn FnMut(&Waiting) -> Bytes + Send>,
    /// What is sent before all else.
    first: Bytes,
}

impl Teller {
    /// `write`: what is sent for it; nothing if it says nothing in that shape.
    pub fn new(
        waiting: watch::Receiver<Option<Waiting>>,
        write: impl FnMut(&Waiting) -> Bytes + Send + 'static,
    ) -> Self {
        Self {
            news: News::new(waiting),
            write: Box::new(write),
            first: Bytes::new(),
        }
    }

    /// The same, but that `first` is sent before all else, at the latest with the answer.
    pub fn behind(self, first: Bytes) -> Self {
        Self { first, ..self }
    }

    /// What is to be sent next, as [`News::next`].
    pub async fn next(&mut self) -> Bytes {
        loop {
            let waiting = self.news.next().await;
            let bytes = (self.write)(&waiting);
            if !bytes.is_empty() {
                return self.begun(bytes);
            }
        }
    }

    /// What is sent before the answer, as [`News::end`].
    fn end(&mut self) -> Bytes {
        let end = self.news.end().map(|waiting| (self.write)(&waiting));
        self.begun(end.unwrap_or_default())
    }

    /// `bytes` behind what is sent before all else.
    fn begun(&mut self, bytes: Bytes) -> Bytes {
        match take(&mut self.first) {
            first if first.is_empty() => bytes,
            first => [first, bytes].concat().into(),
        }
    }
}

/// Tells how far the request is, if that is wished, by events of a type of their own, which
/// clients' packages pass over: for APIs whose events have types.
pub fn by_events(wish: Wish, waiting: watch::Receiver<Option<Waiting>>) -> Option<Teller> {
    let told = move |waiting: &Waiting| events(wish, waiting);
    wish.is_any().then(|| Teller::new(waiting, told))
}

/// Those events.
pub fn events(wish: Wish, waiting: &Waiting) -> Bytes {
    let mut buffer = vec![];
    for event in wish.told(waiting, |_| json!({ "type": progress::EVENT })) {
        write_event(&mut buffer, Some(progress::EVENT), &event);
    }
    buffer.into()
}

/// Whether all of the prompt is read.
fn is_read(waiting: &Waiting) -> bool {
    matches!(waiting.stage, Stage::Reading(reading) if reading.done >= reading.total)
}

/// [`Teller::next`] of one that there may be.
pub async fn next(teller: &mut Option<Teller>) -> Bytes {
    match teller {
        Some(teller) => teller.next().await,
        None => pending().await,
    }
}

/// A piece of an answer, behind what is told before the first that says something: there is nothing
/// to tell after that.
pub fn before(teller: &mut Option<Teller>, piece: Bytes) -> Bytes {
    match teller.take_if(|_| !piece.is_empty()) {
        Some(mut teller) => match teller.end() {
            end if end.is_empty() => piece,
            end => [end, piece].concat().into(),
        },
        None => piece,
    }
}

/// `pieces` of an answer, and how far it is before the first of them that says something. What is
/// `silent` says nothing.
pub fn told<E: Send + 'static>(
    pieces: impl Stream<Item = Result<Bytes, E>> + Send + Unpin,
    teller: Teller,
    silent: &'static [u8],
) -> impl Stream<Item = Result<Bytes, E>> + Send {
    let state = (pieces, Some(teller));
    stream::unfold(state, move |(mut pieces, mut teller)| async move {
        let piece = tokio::select! {
            biased;
            piece = pieces.next() => match piece? {
                Ok(piece) if piece != silent => Ok(before(&mut teller, piece)),
                piece => piece,
            },
            told = next(&mut teller) => Ok(told),
        };
        Some((piece, (pieces, teller)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::Reading;
    use std::convert::Infallible;
    use tokio::sync::mpsc;
    use tokio::time::timeout;

    fn waiting(stage: Stage) -> Option<Waiting> {
        Some(Waiting { stage, left: None })
    }

    fn reading(done: u32) -> Option<Waiting> {
        waiting(Stage::Reading(Reading {
            total: 10,
            done,
            ..Reading::default()
        }))
    }

    fn queued(position: u32) -> Option<Waiting> {
        waiting(Stage::Queued { position })
    }

    fn teller(receiver: watch::Receiver<Option<Waiting>>) -> Teller {
        Teller::new(receiver, |waiting| match waiting.stage {
            Stage::Queued { position } => format!("queued {position}").into(),
            Stage::Loading { .. } | Stage::Fetching { .. } => Bytes::new(),
            Stage::Reading(reading) => format!("read {}", reading.done).into(),
        })
    }

    #[tokio::test]
    async fn a_stage_is_told_at_once_and_what_goes_on_in_it_now_and_then() {
        let (send, receiver) = watch::channel(None);
        let mut teller = teller(receiver);
        let mut next = async || String::from_utf8(teller.next().await.to_vec()).unwrap();
        let start = Instant::now();
        send.send_replace(queued(2));
        assert_eq!(next().await, "queued 2");
        // One that says nothing in this shape.
        send.send_replace(waiting(Stage::Loading { share: None }));
        send.send_replace(reading(1));
        assert_eq!(next().await, "read 1");
        // Of many, the newest when it is time.
        for done in 2..9 {
            send.send_replace(reading(done));
        }
        assert_eq!(next().await, "read 8");
        assert!(start.elapsed() >= PAUSE);
        // Nothing new, and then nobody who would say it.
        send.send_replace(reading(8));
        drop(send);
        let more = timeout(2 * PAUSE, next()).await;
        assert!(more.is_err(), "{more:?}");
    }

    #[tokio::test]
    async fn what_comes_first_comes_before_an_answer_that_is_told_of_late_or_not_at_all() {
        for (waiting, said) in [(reading(10), "first read 10 a"), (queued(1), "first  a")] {
            let (_send, receiver) = watch::channel(waiting);
            let mut teller = Some(teller(receiver).behind("first ".into()));
            assert_eq!(before(&mut teller, " a".into()), said);
            assert!(teller.is_none());
        }
        let (_send, receiver) = watch::channel(queued(1));
        let mut teller = Some(teller(receiver).behind("first ".into()));
        assert_eq!(next(&mut teller).await, "first queued 1");
        assert_eq!(before(&mut teller, " a".into()), " a");
    }

    #[tokio::test]
    async fn the_end_of_the_prompt_is_told_before_the_answer_and_nothing_after_it() {
        let (send, receiver) = watch::channel(queued(1));
        let (pieces, receive) = mpsc::channel::<Bytes>(4);
        let stream = stream::unfold(receive, |mut receive| async {
            Some((Ok::<_, Infallible>(receive.recv().await?), receive))
        });
        let mut said = Box::pin(told(Box::pin(stream), teller(receiver), b"silent"));
        let mut next = async || said.next().await.map(Result::unwrap);
        assert_eq!(next().await.unwrap(), "queued 1");
        pieces.send("silent".into()).await.unwrap();
        pieces.send("".into()).await.unwrap();
        assert_eq!(next().await.unwrap(), "silent");
        assert_eq!(next().await.unwrap(), "");
        send.send_replace(reading(3));
        assert_eq!(next().await.unwrap(), "read 3");
        send.send_replace(reading(10));
        pieces.send(" a".into()).await.unwrap();
        assert_eq!(next().await.unwrap(), "read 10 a");
        send.send_replace(queued(1));
        pieces.send("b".into()).await.unwrap();
        assert_eq!(next().await.unwrap(), "b");
        drop(pieces);
        assert_eq!(next().await, None);
    }
}
