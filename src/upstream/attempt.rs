//! Asking one upstream: tried again while nothing of an answer has come, and passed on from then on.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use url::Url;

use super::exchange::{Exchange, Way};
use super::stream::{AnswerReader, refusal};
use super::{Upstream, random, request};
use crate::backend::{Answer, Failure, HangUpGuard, UpstreamFault};
use crate::chat::{ChatEvent, ChatRequest};
use crate::config::Keeps;
use crate::ipc::{RelayEvent, RelayRequest};

/// Events of an answer on their way.
const AHEAD: usize = 64;
/// The first pause before another try, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Bytes of a refusal that are read.
const MOST_REFUSAL: usize = 16 << 10;
/// How much longer than the worker this side waits: the worker knows better what went wrong.
const GRACE: Duration = Duration::from_secs(5);

/// Why one try came to nothing.
enum Missed {
    /// It may be tried again, not before so long. `cause` quotes nobody.
    Again {
        cause: String,
        after: Option<Duration>,
    },
    /// It would be the same again. `cause` quotes nobody.
    Never { cause: String },
    /// The request is at fault: the service's status and words.
    Refused { status: u16, words: String },
}

/// A place among the requests that an upstream answers at a time.
struct Place(Arc<Upstream>);

impl Place {
    fn take(upstream: &Arc<Upstream>) -> Option<Self> {
        let most = upstream.settings.requests;
        let one_more = |running| (running < most).then_some(running + 1);
        let running = &upstream.running;
        running
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .ok()
            .map(|_| Self(upstream.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What came first of an answer, and who goes on with it.
struct Begun {
    exchange: Exchange,
    reader: AnswerReader,
    events: Vec<ChatEvent>,
    /// The service has closed its side.
    is_over: bool,
}

/// An answer of this upstream, once it has begun.
pub async fn ask(
    way: &Way,
    upstream: Arc<Upstream>,
    model: &str,
    request: &ChatRequest,
) -> Result<Answer, Failure> {
    let settings = &upstream.settings;
    let name = &settings.name;
    let key = match &upstream.key {
        Ok(key) => key.clone(),
        Err(reason) => return Err(unavailable(name, reason)),
    };
    let theirs = upstream.theirs(model).unwrap_or(model).to_owned();
    let host = Url::parse(&settings.url).ok();
    let host = host.as_ref().and_then(Url::host_str).unwrap_or_default();
    let keeps = settings.keeps.unwrap_or(Keeps::Anything);
    let body = request::body(request, &theirs, host, keeps).map_err(|what| Failure::Upstream {
        fault: UpstreamFault::NotSent,
        text: format!("upstream `{name}` cannot be asked this: {what}"),
    })?;
    let Some(place) = Place::take(&upstream) else {
        return Err(Failure::QueueFull {
            limit: settings.requests,
            retry_after: Duration::from_secs(1),
        });
    };
    let message = RelayRequest {
        url: format!("{}/chat/completions", settings.url),
        key,
        body,
        patience_ms: settings.patience.as_millis().try_into().unwrap_or(u32::MAX),
    };
    let start = Instant::now();
    let begun = persist(way, &upstream, &message).await?;
    let id = format!("{name}/{theirs}");
    Ok(pass_on(place, begun, start, id))
}

fn unavailable(name: &str, cause: &str) -> Failure {
    Failure::Upstream {
        fault: UpstreamFault::Unavailable,
        text: format!("upstream `{name}` cannot be asked: {cause}"),
    }
}

/// Tries until an answer begins, or it is of no use.
async fn persist(
    way: &Way,
    upstream: &Arc<Upstream>,
    message: &RelayRequest,
) -> Result<Begun, Failure> {
    let settings = &upstream.settings;
    let now = Instant::now();
    if !upstream.breaker().try_pass(now) {
        let rest = upstream.breaker().rest(now).as_secs().max(1);
        let cause = format!("it has failed several times, and is left alone for {rest} s");
        return Err(unavailable(&settings.name, &cause));
    }
    let (mut pause, mut tries_left) = (FIRST_PAUSE, settings.retries);
    let cause = loop {
        let (cause, after) = match once(way, settings.patience, message).await {
            Ok(begun) => return Ok(begun),
            Err(Missed::Again { cause, after }) => (cause, after),
            Err(Missed::Never { cause }) => break cause,
            Err(Missed::Refused { status, words }) => {
                // It lives.
                upstream.breaker().succeed();
                return Err(Failure::Upstream {
                    fault: UpstreamFault::Refused,
                    text: format!(
                        "upstream `{}` refuses the request with status {status}: {words}",
                        settings.name
                    ),
                });
            }
        };
        let wait = after.unwrap_or_default().max(jittered(pause));
        if tries_left == 0 || wait > LONGEST_PAUSE {
            break cause;
        }
        tries_left -= 1;
        sleep(wait).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    };
    upstream.failed(&cause);
    Err(unavailable(&settings.name, &cause))
}

/// From half of it to the whole, so that several do not come back at the same moment.
fn jittered(pause: Duration) -> Duration {
    pause / 2 + pause.mul_f64((random() % 1000) as f64 / 2000.0)
}

async fn once(way: &Way, patience: Duration, message: &RelayRequest) -> Result<Begun, Missed> {
    let again = |cause: String| Missed::Again { cause, after: None };
    let lost = |error: std::io::Error| again(format!("no connection can be made: {error}{REMEDY}"));
    let mut exchange = Exchange::start(way, message).await.map_err(lost)?;
    // Connecting, and then waiting, each within the worker's patience.
    let patience = patience * 2 + GRACE;
    let next = async |exchange: &mut Exchange| match timeout(patience, exchange.next()).await {
        Ok(event) => event.map_err(again),
        Err(_) => Err(again(format!(
            "it says nothing for {} s",
            patience.as_secs()
        ))),
    };
    let (status, after) = match next(&mut exchange).await? {
        RelayEvent::Head {
            status,
            retry_after,
        } => (status, retry_after.map(|s| Duration::from_secs(s.into()))),
        RelayEvent::Broken {
            reason,
            distrusted: true,
        } => return Err(Missed::Never { cause: reason }),
        RelayEvent::Broken { reason, .. } => return Err(again(reason + REMEDY)),
        RelayEvent::Piece(_) | RelayEvent::Ended => {
            return Err(again("its worker says what makes no sense".to_owned()));
        }
    };
    if status != 200 {
        let mut body = vec![];
        while body.len() < MOST_REFUSAL
            && let RelayEvent::Piece(piece) = next(&mut exchange).await?
        {
            body.extend(piece);
        }
        return Err(refused(status, after, &body));
    }
    let mut reader = AnswerReader::default();
    loop {
        let (piece, is_over) = match next(&mut exchange).await? {
            RelayEvent::Piece(piece) => (piece, false),
            RelayEvent::Ended => (vec![], true),
            RelayEvent::Broken { reason, .. } => return Err(again(reason)),
            RelayEvent::Head { .. } => {
                return Err(again("its worker says what makes no sense".to_owned()));
            }
        };
        let events = reader.feed(&piece).map_err(again)?;
        let is_over = is_over || reader.has_ended();
        if is_over && !reader.has_begun() && !reader.is_whole() {
            return Err(again("it answers with what is no answer".to_owned()));
        }
        if reader.has_begun() || is_over {
            return Ok(Begun {
                exchange,
                reader,
                events,
                is_over,
            });
        }
    }
}

/// What is likely the matter where the daemon has no network.
const REMEDY: &str = "; the service itself has no network: `systemctl enable --now gemmad-relay.socket` lets it ask upstreams";

fn refused(status: u16, after: Option<Duration>, body: &[u8]) -> Missed {
    let cause = format!("it answers with status {status}");
    match status {
        408 | 409 | 425 | 429 | 500..=599 => Missed::Again { cause, after },
        401 | 403 => Missed::Never {
            cause: format!("{cause}; `key-file` in gemmad.toml names its key"),
        },
        // The model is not there, or the address is wrong: not the client's fault.
        404 | 405 | 300..=399 => Missed::Never {
            cause: format!("{cause}; `url` and `models` in gemmad.toml say what it is asked for"),
        },
        _ => Missed::Refused {
            status,
            words: refusal(body),
        },
    }
}

/// The rest of an answer, as a task's work that ends when nobody waits for it.
fn pass_on(place: Place, begun: Begun, start: Instant, id: String) -> Answer {
    let (events, received) = mpsc::channel(AHEAD);
    let (hang_ups, mut hung_up) = mpsc::unbounded_channel();
    let name = place.0.settings.name.clone();
    let answer = Answer {
        model: watch::channel(id).1,
        events: received,
        guard: HangUpGuard {
            request: 0,
            hang_ups,
        },
        relaxed: vec![],
        waiting: watch::channel(None).1,
        upstream: Arc::new(OnceLock::from(name)),
        tally: None,
    };
    tokio::spawn(async move {
        let upstream = place.0.clone();
        let work = forward(begun, &upstream, start, &events);
        let ended = tokio::select! {
            ended = work => ended,
            // The worker ends with the exchange, and so does the service's work.
            _ = hung_up.recv() => return,
        };
        match ended {
            Ok(()) => upstream.succeeded(),
            Err(cause) => {
                // What the service says of it is for its client alone.
                upstream.failed("its answer broke off");
                let text = format!("upstream `{}` {cause}", upstream.settings.name);
                let failure = Failure::Upstream {
                    fault: UpstreamFault::Unavailable,
                    text,
                };
                let _ = events.send(Err(failure)).await;
            }
        }
    });
    answer
}

/// Hands on what comes, to its end. An error continues "upstream `NAME` ".
async fn forward(
    begun: Begun,
    upstream: &Upstream,
    start: Instant,
    events: &mpsc::Sender<Result<ChatEvent, Failure>>,
) -> Result<(), String> {
    let Begun {
        mut exchange,
        mut reader,
        events: mut ready,
        mut is_over,
    } = begun;
    let first = Instant::now();
    let patience = upstream.settings.patience + GRACE;
    loop {
        for event in ready.drain(..) {
            if events.send(Ok(event)).await.is_err() {
                return Ok(());
            }
        }
        if is_over {
            break;
        }
        let silent = || format!("says nothing for {} s", patience.as_secs());
        let event = timeout(patience, exchange.next())
            .await
            .map_err(|_| silent())?
            .map_err(|reason| format!("broke off: {reason}"))?;
        match event {
            RelayEvent::Piece(piece) => ready = reader.feed(&piece)?,
            RelayEvent::Ended => is_over = true,
            RelayEvent::Broken { reason, .. } => return Err(format!("broke off: {reason}")),
            RelayEvent::Head { .. } => return Err("broke off".to_owned()),
        }
        is_over |= reader.has_ended();
    }
    for event in reader.end(first - start, first.elapsed())? {
        let _ = events.send(Ok(event)).await;
    }
    Ok(())
}
