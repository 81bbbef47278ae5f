use tokio::sync::oneshot;

use super::super::scripted::{Call, Scripted};
use super::super::{ModelInfo, Status};
use super::*;
use crate::chat::{Message, Role};

/// Takes what it is told to, and says who was asked and why.
#[derive(Debug)]
struct Elsewhere {
    takes: Vec<Why>,
    asked: mpsc::UnboundedSender<Why>,
    answers: bool,
}

impl Remote for Elsewhere {
    fn meet<'a>(&'a self, _: PrincipalId, _: Option<&'a str>) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }

    fn takes(&self, _: PrincipalId, model: &str, why: Why) -> bool {
        let is_like = |one: &Why| std::mem::discriminant(one) == std::mem::discriminant(&why);
        model == "big" && self.takes.iter().any(is_like)
    }

    fn chat<'a>(
        &'a self,
        _: PrincipalId,
        _: &'a str,
        why: Why,
        _: ChatRequest,
    ) -> Reply<'a, Answer> {
        self.asked.send(why).unwrap();
        let answers = self.answers;
        Box::pin(async move {
            if !answers {
                return Err(Failure::Upstream {
                    fault: super::super::UpstreamFault::Unavailable,
                    text: "upstream `there` cannot be asked".into(),
                });
            }
            let (answer, events) = Answer::scripted("there/big");
            answer.upstream.set("there".into()).unwrap();
            tokio::spawn(async move {
                let text = ChatEvent::CallEnded;
                let _ = events.send(Ok(text)).await;
            });
            Ok(answer)
        })
    }

    fn models(&self, _: PrincipalId) -> Vec<RemoteModel> {
        vec![]
    }

    fn statuses(&self) -> Vec<RemoteStatus> {
        vec![]
    }
}

struct Bench {
    backends: Backends,
    local: mpsc::Receiver<Call>,
    asked: mpsc::UnboundedReceiver<Why>,
    _status: watch::Sender<Status>,
}

fn bench(takes: &[Why], answers: bool) -> Bench {
    let models = vec![ModelInfo::example("big")];
    let (local, calls, status) = Scripted::new(Status::first(models, vec![], None));
    let (sender, asked) = mpsc::unbounded_channel();
    let remote = Elsewhere {
        takes: takes.to_vec(),
        asked: sender,
        answers,
    };
    Bench {
        backends: Backends::new(Arc::new(local)).with_remote(Arc::new(remote)),
        local: calls,
        asked,
        _status: status,
    }
}

impl Bench {
    fn ask(&self, model: &'static str) -> tokio::task::JoinHandle<Result<Answer, Failure>> {
        let backends = self.backends.clone();
        tokio::spawn(async move {
            let request = ChatRequest::new(vec![Message::text(Role::User, "hi")]);
            backends.chat(PrincipalId::User(1), model, request).await
        })
    }

    async fn local_chat(&mut self) -> oneshot::Sender<Result<Answer, Failure>> {
        match self.local.recv().await {
            Some(Call::Chat { reply, .. }) => reply,
            other => panic!("{other:?}"),
        }
    }
}

fn unknown() -> Failure {
    Failure::UnknownModel {
        asked: "big".into(),
        known: vec![],
        passed_over: None,
        hint: None,
    }
}

#[tokio::test]
async fn a_name_that_nothing_here_has_is_asked_elsewhere() {
    let mut bench = bench(&[Why::Named], true);
    let asked = bench.ask("big");
    let Some(Call::Find { reply, .. }) = bench.local.recv().await else {
        panic!("not looked for here first");
    };
    reply.send(Err(unknown())).unwrap();
    let answer = asked.await.unwrap().unwrap();
    assert_eq!(
        (answer.upstream(), answer.model()),
        (Some("there"), "there/big".into())
    );
    assert_eq!(bench.asked.recv().await, Some(Why::Named));
}

#[tokio::test]
async fn what_fails_here_before_it_has_begun_is_asked_elsewhere() {
    let no_memory = || Failure::OutOfMemory { cause: "c".into() };
    // A refusal at once, and one that comes as the first event.
    for at_once in [true, false] {
        let mut bench = bench(&[Why::Failover], true);
        let asked = bench.ask("big");
        let reply = bench.local_chat().await;
        if at_once {
            reply.send(Err(no_memory())).unwrap();
        } else {
            let (answer, events) = Answer::scripted("big");
            reply.send(Ok(answer)).unwrap();
            events.send(Err(no_memory())).await.unwrap();
        }
        let mut answer = asked.await.unwrap().unwrap();
        assert_eq!(answer.next().await, Some(Ok(ChatEvent::CallEnded)));
        assert_eq!(
            (answer.upstream(), answer.model()),
            (Some("there"), "there/big".into())
        );
        assert_eq!(bench.asked.recv().await, Some(Why::Failover));
    }
}

#[tokio::test]
async fn what_has_begun_here_ends_here_and_hanging_up_is_heard() {
    let mut bench = bench(&[Why::Failover], true);
    let asked = bench.ask("big");
    let (answer, events) = Answer::scripted("big");
    bench.local_chat().await.send(Ok(answer)).unwrap();
    events.send(Ok(ChatEvent::CallEnded)).await.unwrap();
    let mut answer = asked.await.unwrap().unwrap();
    assert_eq!(answer.next().await, Some(Ok(ChatEvent::CallEnded)));
    assert_eq!(answer.upstream(), None);
    let died = Failure::WorkerDied { cause: "c".into() };
    events.send(Err(died.clone())).await.unwrap();
    assert_eq!(answer.next().await, Some(Err(died)));
    assert!(bench.asked.try_recv().is_err());

    let asked = bench.ask("big");
    let (local, events) = Answer::scripted("big");
    bench.local_chat().await.send(Ok(local)).unwrap();
    drop(asked.await.unwrap().unwrap());
    events.closed().await;
}

#[tokio::test]
async fn who_fails_in_both_places_hears_of_both() {
    let mut bench = bench(&[Why::Failover], false);
    let asked = bench.ask("big");
    let died = Failure::WorkerDied { cause: "c".into() };
    bench.local_chat().await.send(Err(died)).unwrap();
    let failure = asked.await.unwrap().unwrap_err().to_string();
    assert!(
        failure.contains("`there`") && failure.contains("and here: the worker died"),
        "{failure}"
    );
    // What is wrong with the request is wrong everywhere.
    let asked = bench.ask("big");
    let refused = Failure::Chat(crate::chat::ChatError::Template { reason: "r".into() });
    bench.local_chat().await.send(Err(refused.clone())).unwrap();
    assert_eq!(asked.await.unwrap().unwrap_err(), refused);
}

#[tokio::test]
async fn nothing_leaves_that_nobody_has_allowed() {
    let mut bench = bench(&[], true);
    let asked = bench.ask("big");
    let no_models = Failure::no_models(&[], &[]);
    bench
        .local_chat()
        .await
        .send(Err(no_models.clone()))
        .unwrap();
    assert_eq!(asked.await.unwrap().unwrap_err(), no_models);
    assert!(bench.asked.try_recv().is_err());
}
