//! A model's worker that was taken over: it says hello, that the model is loaded, and then whatever it
//! likes. At every door each request has an end, and the daemon goes on.

mod harness;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use gemmad::chat::{
    ChatError, ChatEvent, Constraint, Done, Finish, PromptToken, Reading, TextAnswer, Timings,
    TokenLogprob, Usage,
};
use gemmad::ipc::{
    Greeting, LoadedModel, MemorySnapshot, Packing, Progress, ServeEvent, TemplateSource, frame,
};
use harness::{Daemon, Options, Reply, proc_kib};
use serde::Serialize;
use serde_json::{Value, json};

/// Requests that the lies are about: those of a daemon that was just started.
const IDS: std::ops::Range<u64> = 0..16;
/// How long a request may take, and how long it takes at most until its client knows.
const TIME: Duration = Duration::from_secs(2);
const SOON: Duration = Duration::from_secs(20);
/// KiB of the daemon's private memory.
const BOUND: u64 = 64 << 10;

fn frames<T: Serialize>(messages: &[T]) -> Vec<u8> {
    let mut bytes = vec![];
    for message in messages {
        frame::encode(message, &mut bytes).unwrap();
    }
    bytes
}

fn accepted() -> ChatEvent {
    ChatEvent::Accepted {
        relaxed: vec!["#/\r\nx: y".into()],
    }
}

fn started() -> ChatEvent {
    ChatEvent::Started {
        prompt_tokens: 1,
        cached_tokens: u32::MAX,
    }
}

fn text(text: &str) -> ChatEvent {
    ChatEvent::Text {
        text: text.into(),
        logprobs: vec![],
    }
}

fn done(finish: Finish) -> ChatEvent {
    ChatEvent::Done(Done {
        finish,
        usage: Usage {
            prompt_tokens: u32::MAX,
            cached_tokens: u32::MAX,
            completion_tokens: u32::MAX,
            reasoning_tokens: u32::MAX,
            drafted: Default::default(),
        },
        timings: Timings {
            prompt_us: u64::MAX,
            predicted_us: u64::MAX,
        },
    })
}

fn call(name: &str) -> ChatEvent {
    ChatEvent::CallStarted { name: name.into() }
}

fn arguments(json: &str) -> ChatEvent {
    ChatEvent::CallArguments { json: json.into() }
}

/// What is said of each request.
fn events() -> Vec<(&'static str, Vec<ChatEvent>)> {
    let no_numbers = TokenLogprob {
        bytes: vec![0xff, 0],
        logprob: f32::NAN,
        top: vec![(vec![], f32::INFINITY), (vec![0xc3], f32::NEG_INFINITY)],
    };
    let rated = PromptToken {
        bytes: vec![0x80],
        logprob: Some(f32::NAN),
        top: vec![],
    };
    vec![
        ("an end without a beginning", vec![done(Finish::Stop)]),
        (
            "a call's end without its beginning",
            vec![
                ChatEvent::CallEnded,
                arguments("}"),
                done(Finish::ToolCalls),
            ],
        ),
        (
            "arguments that are no JSON, of a function that is none",
            vec![
                started(),
                call(""),
                arguments("\"\u{0}\\"),
                ChatEvent::CallEnded,
                call("\n"),
                done(Finish::ToolCalls),
            ],
        ),
        (
            "calls within each other",
            vec![
                started(),
                call("a"),
                call("b"),
                text("x"),
                arguments("{"),
                done(Finish::Stop),
            ],
        ),
        (
            "several beginnings",
            vec![
                accepted(),
                accepted(),
                started(),
                started(),
                text("x"),
                accepted(),
                started(),
                done(Finish::Stop),
            ],
        ),
        (
            "something after the end",
            vec![
                started(),
                text("x"),
                done(Finish::Stop),
                text("y"),
                done(Finish::Length),
            ],
        ),
        (
            "a stop string that is none",
            vec![started(), text("x"), done(Finish::StopString(255))],
        ),
        (
            "numbers that are none",
            vec![
                started(),
                ChatEvent::Text {
                    text: String::new(),
                    logprobs: vec![no_numbers],
                },
                done(Finish::Length),
            ],
        ),
        (
            "a prompt that nobody asked for",
            vec![
                started(),
                ChatEvent::Prompt {
                    tokens: vec![rated; 1000],
                },
                done(Finish::Stop),
            ],
        ),
        (
            "what only the daemon says",
            vec![
                started(),
                text("x"),
                ChatEvent::Restarted,
                done(Finish::Stop),
            ],
        ),
        ("text for ever", vec![text(&"x".repeat(1000)); 20]),
        ("nothing for ever", vec![text(""); 100]),
        ("thoughts for ever", {
            let thought = ChatEvent::Thought {
                text: "x".into(),
                logprobs: vec![],
            };
            vec![thought; 100]
        }),
    ]
}

/// What is said of all or of the worker itself.
fn messages() -> Vec<(&'static str, Vec<ServeEvent>)> {
    let failed = |error: ChatError| {
        let failed = |id| ServeEvent::Failed {
            id,
            error: error.clone(),
        };
        IDS.map(failed).collect::<Vec<_>>()
    };
    let nowhere = u32::MAX;
    let reason = || "\u{0}".repeat(1000);
    vec![
        (
            "an error about a picture that is none",
            failed(ChatError::Picture {
                message: nowhere,
                part: nowhere,
                reason: reason(),
            }),
        ),
        (
            "an error about a function that is none",
            failed(ChatError::Constraint {
                part: Constraint::Tool(nowhere),
                name: reason(),
                path: "~/~9".into(),
                reason: reason(),
            }),
        ),
        (
            "an error about tokens that are none",
            failed(ChatError::UnknownToken {
                token: nowhere,
                vocabulary: 0,
            }),
        ),
        (
            "a long error",
            failed(ChatError::Inference {
                reason: "x".repeat(1 << 20),
            }),
        ),
        ("answers of another form", {
            let bytes = |id| ServeEvent::Text {
                id,
                answer: TextAnswer::Bytes(vec![0xff; 100]),
            };
            IDS.map(bytes).collect()
        }),
        ("a second model", vec![loaded(); 3]),
        (
            "a model that is none after all",
            vec![ServeEvent::LoadFailed {
                reason: reason(),
                out_of_memory: true,
            }],
        ),
        (
            "weights that nobody asked for",
            vec![
                ServeEvent::Packed,
                ServeEvent::PackedCorrupt { reason: reason() },
                ServeEvent::Packed,
            ],
        ),
        ("what nobody asked for", {
            let progress = Progress {
                steps: u64::MAX,
                computing: true,
            };
            vec![
                ServeEvent::Memory(MemorySnapshot::default()),
                ServeEvent::Loading { share: f32::NAN },
                ServeEvent::Reading {
                    id: 1,
                    reading: Reading {
                        total: 0,
                        cached: u32::MAX,
                        done: u32::MAX,
                        time_ms: u64::MAX,
                    },
                },
                ServeEvent::Trimmed {
                    before: 0,
                    after: u64::MAX,
                },
                ServeEvent::Beat {
                    decoder: progress,
                    encoder: progress,
                },
            ]
        }),
    ]
}

fn loaded() -> ServeEvent {
    ServeEvent::Loaded(LoadedModel {
        context: u32::MAX,
        floor: u32::MAX,
        slots: u32::MAX,
        threads: 0,
        load_us: u64::MAX,
        template: TemplateSource::Missing,
        packing: Packing::Nothing,
        cpu_variant: Some("\u{1b}[31m\n".into()),
    })
}

/// All lies, as bytes on the channel.
fn lies() -> Vec<(&'static str, Vec<u8>)> {
    let of_each = |events: Vec<ChatEvent>| {
        let all: Vec<_> = IDS
            .flat_map(|id| events.iter().map(move |event| (id, event.clone())))
            .map(|(id, event)| ServeEvent::Event { id, event })
            .collect();
        frames(&all)
    };
    let events = events().into_iter();
    let mut lies: Vec<_> = events
        .map(|(name, events)| (name, of_each(events)))
        .collect();
    let messages = messages().into_iter();
    lies.extend(messages.map(|(name, messages)| (name, frames(&messages))));
    lies.push(("no message", vec![3, 0, 0, 0, 0xff, 0xff, 0xff]));
    lies.push(("a message without end", u32::MAX.to_le_bytes().to_vec()));
    lies
}

/// A daemon whose worker says so again and again.
fn daemon(folder: &Path, lie: &[u8]) -> Daemon {
    let worker = folder.join("worker");
    let mut hello = frames(&[Greeting::OURS]);
    hello.extend(frames(&[loaded()]));
    fs::write(folder.join("hello"), hello).unwrap();
    fs::write(folder.join("lie"), lie).unwrap();
    // Its standard input is the channel, both ways.
    let script = format!(
        "#!/bin/sh\ncd {}\ncat hello >&0\nwhile cat lie >&0; do sleep 0.02; done\n",
        folder.display()
    );
    fs::write(&worker, script).unwrap();
    fs::set_permissions(&worker, fs::Permissions::from_mode(0o755)).unwrap();
    Daemon::with(Options {
        inference: format!("worker = \"{}\"", worker.display()),
        limits: format!(
            "request-time = \"{0}s\"\nworker-silence = \"{0}s\"",
            TIME.as_secs()
        ),
        ..Options::default()
    })
}

/// A request for each door, with much that an answer may be about.
fn requests() -> Vec<(&'static str, Value)> {
    let messages = json!([{"role": "user", "content": "Hi"}]);
    let parameters = json!({"type": "object", "properties": {"a": {"type": "string"}}});
    let tools = json!([{"type": "function", "function": {"name": "f", "parameters": parameters}}]);
    let chat = |stream: bool| json!({"messages": messages, "tools": tools, "stop": ["x"], "logprobs": true, "top_logprobs": 2, "max_tokens": 50, "stream": stream, "stream_options": if stream { json!({"include_usage": true}) } else { Value::Null }});
    let responses = |stream: bool| json!({"input": "Hi", "tools": [{"type": "function", "name": "f", "parameters": parameters}], "max_output_tokens": 50, "stream": stream});
    let anthropic = |stream: bool| json!({"model": "auto", "max_tokens": 50, "messages": messages, "stop_sequences": ["x"], "stream": stream, "tools": [{"name": "f", "input_schema": parameters}]});
    vec![
        ("/v1/chat/completions", chat(false)),
        ("/v1/chat/completions", chat(true)),
        ("/v1/responses", responses(false)),
        ("/v1/responses", responses(true)),
        ("/v1/messages", anthropic(false)),
        ("/v1/messages", anthropic(true)),
        (
            "/v1/completions",
            json!({"prompt": "Hi", "echo": true, "logprobs": 2, "stop": ["x"], "max_tokens": 50}),
        ),
        (
            "/completion",
            json!({"prompt": "Hi", "n_predict": 50, "n_probs": 2, "stream": true}),
        ),
        (
            "/v1/messages/count_tokens",
            json!({"model": "auto", "messages": messages}),
        ),
        ("/tokenize", json!({"content": "Hi", "with_pieces": true})),
        ("/apply-template", json!({"messages": messages})),
    ]
}

/// Sends a request and reads to the end, which must come.
fn ask(daemon: &Daemon, path: &str, body: &Value, lie: &str) {
    let begun = Instant::now();
    let reply = Reply::read(daemon.send(path, body.to_string().as_bytes()));
    let took = begun.elapsed();
    let reply = reply.unwrap_or_else(|error| panic!("{lie}, {path}: {error}"));
    let shown: String = reply.text().chars().take(150).collect();
    println!("{lie}, {path}: {} after {took:?}: {shown:?}", reply.status);
    assert!(took < SOON, "{lie}, {path}: {took:?}");
    if reply.status != 200 {
        let message = &reply.json()["error"]["message"];
        assert!(
            message.as_str().is_some_and(|text| !text.is_empty()),
            "{lie}, {path}: {}",
            reply.text()
        );
    }
}

fn told(lies: &[(&'static str, Vec<u8>)]) {
    for (lie, bytes) in lies {
        let folder = tempfile::tempdir().unwrap();
        let daemon = daemon(folder.path(), bytes);
        std::thread::scope(|scope| {
            for (path, body) in requests() {
                let daemon = &daemon;
                scope.spawn(move || ask(daemon, path, &body, lie));
            }
        });
        let anon = proc_kib(daemon.pid(), "status", "RssAnon");
        assert!(anon < BOUND, "{lie}: {anon} KiB");
        assert_eq!(daemon.get("/version").status, 200);
        let log = daemon.log();
        assert!(!log.contains("panicked"), "{lie}: {log}");
    }
}

#[test]
fn whatever_a_worker_says_every_request_has_an_end() {
    told(&lies());
}
