use super::*;
use crate::backend::Answer;
use crate::chat::{ChatRequest, Detail, Message, Part, Picture, PrincipalId, Role};
use crate::config::{Inference, Limits, Memory, Models};
use crate::gemma::model_shape::ModelShape;
use crate::store::Projector;

/// A driver without its loop, whose `auto` is the model `huge`: no machine has room for it.
struct Bench {
    driver: Driver,
    worker_events: mpsc::Receiver<(Generation, WorkerEvent<ServeEvent>)>,
    opened: mpsc::UnboundedReceiver<OpenedFiles>,
    _hang_ups: mpsc::UnboundedReceiver<u64>,
}

fn model(id: &str, bytes: u64, projector: Option<u64>) -> Model {
    let projector = projector.map(|size| Projector {
        path: format!("/none/{id}-mmproj.gguf").into(),
        size,
        width: 128,
        longest_side: 1,
        hearing: None,
        name: String::new(),
    });
    let figures = ModelShape {
        layers: bytes,
        ..ModelShape::default()
    };
    Model {
        figures,
        projector,
        ..Model::example(&format!("/none/{id}.gguf"))
    }
}

fn huge() -> Model {
    model("huge", 1 << 50, Some(1))
}

fn text() -> ChatRequest {
    ChatRequest::new(vec![Message::text(Role::User, "hi")])
}

fn picture() -> ChatRequest {
    let picture = Part::Picture(Picture {
        file: vec![].into(),
        detail: Detail::Auto,
    });
    ChatRequest::new(vec![Message {
        content: vec![picture],
        ..Message::text(Role::User, "")
    }])
}

impl Bench {
    async fn with(models: Vec<Model>) -> Self {
        let memory = Memory {
            cache_directory: None,
            ..Memory::default()
        };
        let defaults = Models {
            default: "huge".into(),
            directories: vec![],
            ..Models::default()
        };
        let setup = Setup {
            unsound: Default::default(),
            catalogs: Default::default(),
            cache_space: Default::default(),
            prompts: Default::default(),
            models: defaults,
            inference: Inference::default(),
            memory,
            limits: Limits::default(),
            installers: Default::default(),
            reserved: Default::default(),
            pull: Default::default(),
            pull_socket: Default::default(),
            worker: "/none/worker".into(),
        };
        let (reports, _) = mpsc::unbounded_channel();
        let mut catalog = CatalogWatch::new(vec![], Default::default(), reports);
        catalog.models = models;
        let (disk, opened) = mpsc::unbounded_channel();
        let (hang_ups, _hang_ups) = mpsc::unbounded_channel();
        let (send, worker_events) = mpsc::channel(WORKER_EVENTS);
        let (status, _) = watch::channel(Status::first(vec![], vec![], None));
        Self {
            driver: Driver::new(setup, catalog, disk, hang_ups, send, status),
            worker_events,
            opened,
            _hang_ups,
        }
    }

    async fn ask(&mut self, model: &str, request: ChatRequest) -> Answer {
        let (reply, answer) = oneshot::channel();
        self.driver.command(Command::Chat {
            owner: PrincipalId::User(1),
            model: model.into(),
            request: Box::new(request),
            reply,
        });
        answer.await.unwrap().unwrap()
    }

    /// Lets happen what follows. No worker ever comes up, so every request comes to its end.
    async fn settle(&mut self) {
        while self.driver.state.waiting() > 0 || !matches!(self.driver.state.life(), Life::None) {
            tokio::select! {
                event = self.worker_events.recv() => {
                    let (generation, event) = event.unwrap();
                    self.driver.worker_event(generation, event);
                }
                opened = self.opened.recv() => self.driver.opened(opened.unwrap()),
            }
        }
    }
}

async fn end(answer: &mut Answer) -> (String, Failure) {
    let failure = answer.next().await.unwrap().unwrap_err();
    (answer.model(), failure)
}

fn bad(failure: &Failure) -> &str {
    let Failure::BadModel { model, reason } = failure else {
        panic!("{failure}")
    };
    assert!(reason.contains("No such file"), "it was tried: {reason}");
    model
}

#[tokio::test]
async fn who_waits_for_auto_gets_the_next_model_that_fits_and_who_named_one_does_not() {
    let mut bench = Bench::with(vec![
        huge(),
        model("large", 1 << 49, None),
        model("small", 1, None),
        model("tiny", 0, None),
    ])
    .await;
    let mut autos = [
        bench.ask("auto", text()).await,
        bench.ask("auto", text()).await,
    ];
    let mut named = bench.ask("huge", text()).await;
    assert_eq!(autos[0].model(), "huge");
    bench.settle().await;
    for auto in &mut autos {
        // It fits and is tried, and so is what takes less: neither file is there.
        let (model, failure) = end(auto).await;
        assert_eq!((model.as_str(), bad(&failure)), ("tiny", "tiny"));
    }
    let (model, failure) = end(&mut named).await;
    assert_eq!(model, "huge");
    assert!(
        matches!(&failure, Failure::NoRoom { model, instead: Some(_), .. } if model == "huge"),
        "{failure}"
    );
}

#[tokio::test]
async fn a_picture_needs_a_model_that_sees() {
    let mut bench = Bench::with(vec![
        huge(),
        model("small", 2, None),
        model("seeing", 1, Some(1)),
    ])
    .await;
    let mut answer = bench.ask("auto", picture()).await;
    bench.settle().await;
    let (answered_by, failure) = end(&mut answer).await;
    assert_eq!((answered_by.as_str(), bad(&failure)), ("seeing", "seeing"));

    let mut bench = Bench::with(vec![huge(), model("small", 2, None)]).await;
    let mut answer = bench.ask("auto", picture()).await;
    bench.settle().await;
    let (answered_by, failure) = end(&mut answer).await;
    assert_eq!(answered_by, "huge");
    assert!(
        matches!(&failure, Failure::NoRoom { model, .. } if model == "huge"),
        "{failure}"
    );
}

#[tokio::test]
async fn what_fits_nowhere_is_told_the_least_that_is_needed() {
    let mut bench = Bench::with(vec![huge(), model("large", 1 << 49, None)]).await;
    let mut answer = bench.ask("auto", text()).await;
    bench.settle().await;
    let (_, failure) = end(&mut answer).await;
    assert!(
        matches!(&failure, Failure::NoRoom { model, needs, .. } if model == "large" && *needs > 1 << 49),
        "{failure}"
    );
}

#[tokio::test]
async fn where_the_projector_has_no_room_the_model_is_run_for_those_who_can_do_without() {
    let blind = model("blind", 1, Some(1 << 50));
    let mut bench = Bench::with(vec![blind.clone()]).await;
    let wanted = |bench: &Bench, request: &ChatRequest| {
        bench
            .driver
            .setup
            .model_request(&[], "auto", request.modalities(), &blind)
    };
    let pending = |wanted| {
        let ((model, _), (events, _)) = (watch::channel(String::new()), mpsc::channel(1));
        Pending::Chat {
            waiting: watch::channel(None).0,
            owner: PrincipalId::User(1000),
            wanted,
            model,
            request: None,
            events,
            started: false,
            begun: false,
            allowed: 0,
            left: 0,
        }
    };
    let (seer, reader) = (
        pending(wanted(&bench, &picture())),
        pending(wanted(&bench, &text())),
    );
    bench.driver.pending.insert(1, seer);
    let alone = bench.driver.fit(&blind, 0);
    assert!(
        matches!(&alone, Err(Failure::NoRoom { needs, .. }) if *needs > 1 << 50),
        "{alone:?}"
    );
    bench.driver.pending.insert(2, reader);
    let (run, refused) = bench.driver.fit(&blind, 0).unwrap();
    assert!(
        !run.with_projector && matches!(&refused[..], [Input::Refused { id: 1, .. }]),
        "{refused:?}"
    );
}
