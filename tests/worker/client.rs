//! A supervisor reduced to what tests need: starts a worker, asks, collects.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use gemmad::chat::{
    ChatError, ChatEvent, ChatRequest, Done, Message, PrincipalId, PromptToken, Role, Sampling,
    Speculation, TokenLogprob, ToolCall, Usage,
};
use gemmad::gemma::sound::Hearing;
use gemmad::ipc::frame::{self, Decoder};
use gemmad::ipc::{
    Greeting, LoadPlan, LoadedModel, MemoryPlan, MemorySnapshot, ProjectorPlan, Protocol, Repack,
    RequestId, Serve, ServeEvent, ServeRequest, WorkerKind,
};
use gemmad::store;
use gemmad::sys::socket;
use serde::de::DeserializeOwned;

use super::decoding::decoded;

/// The model that ships with the project.
pub fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny/tiny-e2b-q8_0.gguf")
}

/// Its projector.
fn projector() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny/tiny-e2b-mmproj-f16.gguf")
}

pub fn plan() -> LoadPlan {
    plan_of(&tiny())
}

/// A plan for a model file, without files for packed weights.
pub fn plan_of(model: &Path) -> LoadPlan {
    let file = store::inspect(&[model.to_owned()], &store::Installers::default()).unwrap();
    let memory = MemoryPlan {
        layout: file.layout,
        packed: None,
        repack: Repack::Anywhere,
        read_ahead: 1 << 30,
        per_layer: 1 << 20,
        small_kv: false,
        lock: false,
        data_limit: 0,
    };
    let (name, cpus, vocabulary) = ("tiny".into(), vec![0, 1], file.vocabulary);
    LoadPlan {
        name,
        files: file.model.sizes(),
        context: 4096,
        // All of it.
        floor: u32::MAX,
        slots: 2,
        batch: 128,
        cpus,
        step_time_ms: 250,
        speculation: Speculation::Auto,
        max_output: 2048,
        projector: None,
        drafter: None,
        memory,
        vocabulary,
        prompts: None,
        system_prompts: vec![],
    }
}

/// One answer, put together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    pub text: String,
    pub thought: String,
    pub calls: Vec<ToolCall>,
    /// How many of the calls are complete.
    pub ended_calls: usize,
    pub logprobs: Vec<TokenLogprob>,
    /// Tokens of the prompt.
    pub rated: Vec<PromptToken>,
    pub started: Option<(u32, u32)>,
    /// Pieces of text that came.
    pub pieces: usize,
    pub done: Option<Done>,
    pub error: Option<ChatError>,
}

impl Answer {
    pub fn take(&mut self, event: ChatEvent) {
        match event {
            ChatEvent::Accepted { .. } => {}
            ChatEvent::Started {
                prompt_tokens,
                cached_tokens,
            } => self.started = Some((prompt_tokens, cached_tokens)),
            ChatEvent::Thought { text, logprobs } => {
                self.thought += &text;
                self.logprobs.extend(logprobs);
            }
            ChatEvent::Text { text, logprobs } => {
                assert!(!text.is_empty() || !logprobs.is_empty(), "an empty event");
                self.text += &text;
                self.pieces += 1;
                self.logprobs.extend(logprobs);
            }
            ChatEvent::CallStarted { name } => self.calls.push(ToolCall {
                id: String::new(),
                name,
                arguments: String::new(),
            }),
            ChatEvent::CallArguments { json } => self.calls.last_mut().unwrap().arguments += &json,
            ChatEvent::CallEnded => self.ended_calls += 1,
            ChatEvent::Prompt { tokens } => self.rated.extend(tokens),
            ChatEvent::Restarted => panic!("a worker begins no answer anew"),
            ChatEvent::Done(done) => self.done = Some(done),
        }
    }

    pub fn done(&self) -> &Done {
        self.done
            .as_ref()
            .unwrap_or_else(|| panic!("not done: {self:?}"))
    }

    pub fn usage(&self) -> Usage {
        self.done().usage
    }
}

pub struct Worker {
    child: Child,
    /// `None` after [`Worker::hang_up`].
    channel: Option<UnixStream>,
    decoder: Decoder,
    next: RequestId,
}

impl Worker {
    /// A worker that has said hello. `environment` is added to that of the test.
    pub fn spawn(environment: &[(&str, &str)]) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(Duration::from_secs(120)))
            .unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_gemmad-worker"))
            .arg(WorkerKind::Serve.name())
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .envs(environment.iter().copied())
            .spawn()
            .unwrap();
        let mut worker = Self {
            child,
            channel: Some(ours),
            decoder: Decoder::new(),
            next: 0,
        };
        assert_eq!(worker.try_receive(), Some(Greeting::OURS));
        worker
    }

    /// A worker with the tiny model.
    pub fn tiny() -> Self {
        Self::with(&plan())
    }

    pub fn with(plan: &LoadPlan) -> Self {
        let mut worker = Self::spawn(&[("GOMP_SPINCOUNT", "1000")]);
        worker.load(plan, File::open(tiny()).unwrap()).unwrap();
        worker
    }

    pub fn load(&mut self, plan: &LoadPlan, file: impl AsFd) -> Result<LoadedModel, String> {
        self.load_all(plan, &[file.as_fd()])
    }

    pub fn load_all(
        &mut self,
        plan: &LoadPlan,
        files: &[BorrowedFd],
    ) -> Result<LoadedModel, String> {
        let mut bytes = vec![];
        frame::encode(&ServeRequest::Load(Box::new(plan.clone())), &mut bytes).unwrap();
        socket::send_all(self.channel.as_ref().unwrap(), &bytes, files).unwrap();
        match self.receive() {
            ServeEvent::Loaded(loaded) => Ok(loaded),
            ServeEvent::LoadFailed { reason, .. } => Err(reason),
            other => panic!("{other:?}"),
        }
    }

    pub fn send(&mut self, message: &ServeRequest) {
        let mut bytes = vec![];
        frame::encode(message, &mut bytes).unwrap();
        let files = Serve::descriptors(message);
        socket::send_all(self.channel.as_ref().unwrap(), &bytes, &files).unwrap();
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) {
        socket::send_all(self.channel.as_ref().unwrap(), bytes, &[]).unwrap();
    }

    /// The next event that says more than how far something is.
    pub fn receive(&mut self) -> ServeEvent {
        loop {
            match self.receive_any() {
                ServeEvent::Loading { .. } | ServeEvent::Reading { .. } => {}
                event => return event,
            }
        }
    }

    pub fn receive_any(&mut self) -> ServeEvent {
        self.try_receive().expect("the worker hung up")
    }

    fn try_receive<T: DeserializeOwned>(&mut self) -> Option<T> {
        let mut piece = [0; 65536];
        loop {
            if let Some(message) = self.decoder.next().unwrap() {
                return Some(message);
            }
            match socket::recv(self.channel.as_ref().unwrap(), &mut piece, &mut vec![]).unwrap() {
                0 => return None,
                got => self.decoder.feed(&piece[..got]),
            }
        }
    }

    /// Sends a request, its media decoded, without waiting.
    pub fn begin(&mut self, request: ChatRequest) -> RequestId {
        self.begin_as(PrincipalId::User(1000), request)
    }

    /// Sends another user's request.
    pub fn begin_as(&mut self, owner: PrincipalId, request: ChatRequest) -> RequestId {
        let request = decoded(request).unwrap();
        self.next += 1;
        self.send(&ServeRequest::Chat {
            sent: 0,
            id: self.next,
            owner,
            request: Box::new(request),
        });
        self.next
    }

    /// Asks and waits for the end.
    pub fn ask(&mut self, request: ChatRequest) -> Answer {
        let id = self.begin(request);
        self.collect(&[id]).remove(0)
    }

    /// Waits for the ends of all of `ids`.
    pub fn collect(&mut self, ids: &[RequestId]) -> Vec<Answer> {
        let mut answers = vec![Answer::default(); ids.len()];
        while answers
            .iter()
            .any(|answer| answer.done.is_none() && answer.error.is_none())
        {
            let (id, event) = match self.receive() {
                ServeEvent::Event { id, event } => (id, Ok(event)),
                ServeEvent::Failed { id, error } => (id, Err(error)),
                other => panic!("{other:?}"),
            };
            let Some(answer) = ids
                .iter()
                .position(|&other| other == id)
                .map(|i| &mut answers[i])
            else {
                continue;
            };
            assert!(
                answer.done.is_none() && answer.error.is_none(),
                "something after the end"
            );
            match event {
                Ok(event) => answer.take(event),
                Err(error) => answer.error = Some(error),
            }
        }
        answers
    }

    /// What it has in memory.
    pub fn report_memory(&mut self) -> MemorySnapshot {
        self.send(&ServeRequest::ReportMemory);
        loop {
            match self.receive() {
                ServeEvent::Memory(snapshot) => return snapshot,
                ServeEvent::Packed => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Has it release what it can.
    pub fn trim(&mut self) {
        self.send(&ServeRequest::Trim);
        loop {
            match self.receive() {
                ServeEvent::Trimmed { .. } => return,
                ServeEvent::Packed => {}
                other => panic!("{other:?}"),
            }
        }
    }

    pub fn hang_up(&mut self) {
        self.channel = None;
    }

    /// The exit status, if the worker ends within `limit`.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        while start.elapsed() < limit {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        None
    }

    /// A worker with a projector.
    pub fn with_projector(plan: &LoadPlan) -> Self {
        Self::seeing(plan, &[])
    }

    /// The same, with the files of what the plan speaks of besides.
    pub fn seeing(plan: &LoadPlan, others: &[&Path]) -> Self {
        let projector = File::open(projector()).expect("the tiny family has its projector");
        let mut worker = Self::spawn(&[("GOMP_SPINCOUNT", "1000")]);
        let plan = LoadPlan {
            projector: Some(ProjectorPlan {
                name: "tiny".into(),
                longest_side: 16_384,
                hearing: Some(Hearing::Spectrum),
            }),
            ..plan.clone()
        };
        let model = File::open(tiny()).unwrap();
        let others = others.iter().map(|path| File::open(path).unwrap());
        let files: Vec<_> = [model, projector].into_iter().chain(others).collect();
        let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        worker.load_all(&plan, &files).unwrap();
        worker
    }

    /// Bytes of anonymous memory that the worker has.
    pub fn anonymous(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("RssAnon"))
            .unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
            * 1024
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A question at temperature 0.
pub fn user(text: impl Into<String>) -> ChatRequest {
    chat(vec![Message::text(Role::User, text)])
}

pub fn chat(messages: Vec<Message>) -> ChatRequest {
    ChatRequest {
        sampling: Sampling {
            temperature: 0.0,
            ..Sampling::default()
        },
        ..ChatRequest::new(messages)
    }
}
