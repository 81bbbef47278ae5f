//! Several answers to one request: each is a job of its own, which waits for its turn and is
//! counted like any other, and their events come as they are made.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::response::Response;
use futures_util::stream;
use tokio::sync::watch;

use crate::api::answered::Answered;
use crate::api::generation::events;
use crate::backend::{Answer, Backends, Failure};
use crate::chat::{ChatEvent, ChatRequest, Done, PrincipalId, Timings, Usage, Waiting};

/// Answers of one request that wait or run at a time; the others follow as these end.
const AT_ONCE: usize = 8;

/// The answers to one request, which are numbered. Dropping them stops them all.
pub struct Choices {
    backends: Backends,
    owner: PrincipalId,
    model: String,
    /// Those that were not asked for yet.
    waiting: VecDeque<(usize, ChatRequest)>,
    running: Vec<(usize, Answer)>,
    /// What of the schemas the first answer is not held to, and so none is.
    relaxed: Vec<String>,
    /// The one of `running` that is looked at first.
    turn: usize,
    /// Which model gave the last answer that has ended.
    answered_by: Option<String>,
    /// The upstream that did, if one did.
    upstream: Option<String>,
}

/// Turns the events of several answers into what is sent for them.
pub trait ChoiceEncoder: Send + 'static {
    /// Bytes for one event; none if it says nothing in this shape.
    fn choice(&mut self, choice: usize, event: ChatEvent) -> Bytes;
    /// Bytes for answers that break off.
    fn broken(&mut self, failure: Failure) -> Bytes;
}

impl Choices {
    /// Asks for an answer to each of `requests`.
    ///
    /// # Errors
    ///
    /// Why one of the first is not taken; then none is.
    pub async fn ask(
        backends: &Backends,
        owner: PrincipalId,
        model: &str,
        requests: Vec<ChatRequest>,
    ) -> Result<Self, Failure> {
        let mut choices = Self {
            backends: backends.clone(),
            owner,
            model: model.to_owned(),
            waiting: requests.into_iter().enumerate().collect(),
            running: vec![],
            relaxed: vec![],
            turn: 0,
            answered_by: None,
            upstream: None,
        };
        choices.refill().await?;
        Ok(choices)
    }

    /// The model that answers; see [`Answer::model`].
    pub fn model(&self) -> String {
        let running = self.running.first().map(|(_, answer)| answer.model());
        let known = running.or_else(|| self.answered_by.clone());
        known.unwrap_or_else(|| self.model.clone())
    }

    /// How far the first answer is; `None` when there is none any more.
    pub fn waiting(&self) -> Option<watch::Receiver<Option<Waiting>>> {
        let (_, answer) = self.running.first()?;
        Some(answer.waiting.clone())
    }

    /// What is said of the answers; known with the first event.
    pub fn answered(&self) -> Answered {
        let running = self.running.first();
        let upstream = running.and_then(|(_, answer)| answer.upstream());
        Answered::new(&self.relaxed, upstream.or(self.upstream.as_deref()))
    }

    /// The next event, with the number of its answer. The last of each is `Done`; `None` after the
    /// last of all, and after a failure, which ends all of them.
    pub async fn next(&mut self) -> Option<(usize, Result<ChatEvent, Failure>)> {
        if let Err(failure) = self.refill().await {
            self.clear();
            return Some((0, Err(failure)));
        }
        if self.running.is_empty() {
            return None;
        }
        let (at, event) = poll_fn(|context| self.poll(context)).await;
        let (choice, _) = self.running[at];
        if let Some(Ok(ChatEvent::Accepted { relaxed })) = &event {
            self.relaxed.clone_from(relaxed);
        }
        let event = event.unwrap_or_else(|| {
            Err(Failure::WorkerDied {
                cause: "the answer broke off".into(),
            })
        });
        match &event {
            Ok(ChatEvent::Done(_)) => {
                let (_, answer) = self.running.remove(at);
                self.answered_by = Some(answer.model());
                self.upstream = answer.upstream().map(str::to_owned);
            }
            Ok(_) => {}
            Err(_) => self.clear(),
        }
        Some((choice, event))
    }

    async fn refill(&mut self) -> Result<(), Failure> {
        while self.running.len() < AT_ONCE
            && let Some((choice, request)) = self.waiting.pop_front()
        {
            let answer = self.backends.chat(self.owner, &self.model, request).await?;
            self.running.push((choice, answer));
        }
        Ok(())
    }

    /// Looks at each answer, another one first each time.
    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<(usize, Option<Result<ChatEvent, Failure>>)> {
        let count = self.running.len();
        for i in 0..count {
            let at = (self.turn + i) % count;
            if let Poll::Ready(event) = self.running[at].1.poll_next(context) {
                self.turn = at + 1;
                return Poll::Ready((at, event));
            }
        }
        Poll::Pending
    }

    fn clear(&mut self) {
        self.waiting.clear();
        self.running.clear();
    }
}

/// The answers as server-sent events, from the `first` event on.
pub fn streamed(
    choices: Choices,
    first: (usize, ChatEvent),
    encoder: impl ChoiceEncoder,
) -> Response {
    let first = Some((first.0, Ok(first.1)));
    let pieces = stream::unfold(
        (choices, encoder, first),
        |(mut choices, mut encoder, first)| async move {
            let (choice, event) = match first {
                Some(first) => first,
                None => choices.next().await?,
            };
            let piece = match event {
                Ok(event) => encoder.choice(choice, event),
                Err(failure) => encoder.broken(failure),
            };
            Some((Ok::<Bytes, Infallible>(piece), (choices, encoder, None)))
        },
    );
    events(Body::from_stream(pieces))
}

/// What several answers took together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    pub usage: Usage,
    pub timings: Timings,
    /// Answers that have ended.
    pub answers: u32,
}

impl Total {
    /// Adds an answer. `same_prompt`: its prompt was counted with an earlier one.
    pub fn add(&mut self, done: &Done, same_prompt: bool) {
        let Usage {
            prompt_tokens,
            cached_tokens,
            completion_tokens,
            reasoning_tokens,
            drafted,
        } = done.usage;
        if !same_prompt {
            self.usage.prompt_tokens += prompt_tokens;
            self.usage.cached_tokens += cached_tokens;
        }
        self.usage.completion_tokens += completion_tokens;
        self.usage.reasoning_tokens += reasoning_tokens;
        self.usage.drafted += drafted;
        self.timings.prompt_us += done.timings.prompt_us;
        self.timings.predicted_us += done.timings.predicted_us;
        self.answers += 1;
    }
}

/// The request of the `choice`th answer: a seed is another one for each, or all would be the same.
pub fn of_choice(request: &ChatRequest, choice: u32) -> ChatRequest {
    let mut request = request.clone();
    if let Some(seed) = &mut request.sampling.seed {
        *seed = seed.wrapping_add(choice);
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Status;
    use crate::backend::scripted::Call;
    use crate::chat::{Finish, Message, Role};

    fn done(prompt: u32, completion: u32) -> Done {
        Done {
            finish: Finish::Stop,
            usage: Usage {
                prompt_tokens: prompt,
                cached_tokens: 1,
                completion_tokens: completion,
                reasoning_tokens: 0,
                drafted: Default::default(),
            },
            timings: Timings {
                prompt_us: 5,
                predicted_us: 7,
            },
        }
    }

    #[tokio::test]
    async fn a_few_run_at_a_time_and_each_comes_to_its_end() {
        let status = Status::first(vec![], vec![], None);
        let (backends, mut asked, _publish) = Backends::scripted(status);
        let request = ChatRequest::new(vec![Message::text(Role::User, "hi")]);
        let count = AT_ONCE + 2;
        let answering = tokio::spawn(async move {
            let mut seeds = vec![];
            while let Some(Call::Chat { request, reply, .. }) = asked.recv().await {
                seeds.push(request.sampling.seed);
                let (answer, events) = Answer::scripted("tiny");
                reply.send(Ok(answer)).unwrap();
                events.send(Ok(ChatEvent::Done(done(3, 2)))).await.unwrap();
            }
            seeds
        });
        let mut seeded = request;
        seeded.sampling.seed = Some(u32::MAX);
        let requests = (0..count as u32).map(|i| of_choice(&seeded, i)).collect();
        let owner = PrincipalId::User(1000);
        let mut choices = Choices::ask(&backends, owner, "tiny", requests)
            .await
            .unwrap();
        assert_eq!(choices.waiting.len(), 2);
        let mut ended = vec![];
        while let Some((choice, event)) = choices.next().await {
            assert!(matches!(event, Ok(ChatEvent::Done(_))));
            ended.push(choice);
        }
        ended.sort_unstable();
        assert_eq!(ended, (0..count).collect::<Vec<_>>());
        drop((choices, backends));
        let seeds = answering.await.unwrap();
        assert_eq!(&seeds[..3], [Some(u32::MAX), Some(0), Some(1)]);
    }

    #[tokio::test]
    async fn one_failure_ends_all() {
        let status = Status::first(vec![], vec![], None);
        let (backends, mut asked, _publish) = Backends::scripted(status);
        let request = ChatRequest::new(vec![Message::text(Role::User, "hi")]);
        let answering = tokio::spawn(async move {
            let mut kept = vec![];
            while let Some(Call::Chat { reply, .. }) = asked.recv().await {
                let (answer, events) = Answer::scripted("tiny");
                reply.send(Ok(answer)).unwrap();
                kept.push(events);
                if kept.len() == 2 {
                    kept[0].send(Err(Failure::ShuttingDown)).await.unwrap();
                    kept[1].closed().await;
                    return;
                }
            }
        });
        let owner = PrincipalId::User(1000);
        let requests = vec![request.clone(), request];
        let mut choices = Choices::ask(&backends, owner, "tiny", requests)
            .await
            .unwrap();
        assert_eq!(choices.next().await, Some((0, Err(Failure::ShuttingDown))));
        assert_eq!(choices.next().await, None);
        answering.await.unwrap();
    }

    #[test]
    fn a_prompt_counts_once() {
        let mut total = Total::default();
        total.add(&done(10, 4), false);
        total.add(&done(10, 6), true);
        assert_eq!(
            (total.usage.prompt_tokens, total.usage.cached_tokens),
            (10, 1)
        );
        assert_eq!((total.usage.completion_tokens, total.answers), (10, 2));
        assert_eq!(total.timings.predicted_us, 14);
    }
}
