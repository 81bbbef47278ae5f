//! Several tokens a step: the answers are those that come token by token.

use std::path::{Path, PathBuf};

use gemmad::chat::{
    ChatRequest, Detail, Drafted, Format, Message, OutputLimits, Part, Picture, Role, Sampling,
    Speculation, Tally, Thinking, Tool, ToolChoice,
};
use gemmad::ipc::{DrafterPlan, LoadPlan, ServeEvent, ServeRequest};
use serde_json::json;
use std::fs::File;
use std::os::fd::AsFd;

use super::client::{Answer, Worker, chat, plan, plan_of, user};
use super::media::{self, asking};
use super::{STORY, limited, story};

/// All that answer: drafters do not.
fn members() -> impl Iterator<Item = PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny");
    let members = [
        "tiny-e2b-q8_0",
        "tiny-e4b-q8_0",
        "tiny-12b-q8_0",
        "tiny-26b-a4b-q8_0",
        "tiny-31b-q4_0",
    ];
    members
        .into_iter()
        .map(move |name| folder.join(format!("{name}.gguf")))
}

fn worker(model: &Path, speculation: Speculation) -> Worker {
    let mut worker = Worker::spawn(&[("GOMP_SPINCOUNT", "1000")]);
    let plan = LoadPlan {
        speculation,
        ..plan_of(model)
    };
    worker.load(&plan, File::open(model).unwrap()).unwrap();
    worker
}

/// Those with a drafter, and that.
pub fn pairs() -> [(PathBuf, PathBuf); 2] {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny");
    let pair = |model: &str, drafter: &str| (folder.join(model), folder.join(drafter));
    [
        pair("tiny-e2b-q8_0.gguf", "tiny-e2b-mtp-q8_0.gguf"),
        pair("tiny-31b-q4_0.gguf", "tiny-31b-mtp-q8_0.gguf"),
    ]
}

pub fn plan_with(model: &Path, drafter: &Path) -> LoadPlan {
    LoadPlan {
        drafter: Some(DrafterPlan {
            name: "drafter".into(),
            bytes: drafter.metadata().unwrap().len(),
            clusters: None,
        }),
        ..plan_of(model)
    }
}

pub fn drafting(plan: &LoadPlan, model: &Path, drafter: &Path) -> Worker {
    let mut worker = Worker::spawn(&[("GOMP_SPINCOUNT", "1000")]);
    let files = [model, drafter].map(|path| File::open(path).unwrap());
    worker
        .load_all(plan, &files.each_ref().map(AsFd::as_fd))
        .unwrap();
    worker
}

pub fn with(speculation: Speculation, request: &ChatRequest) -> ChatRequest {
    ChatRequest {
        speculation: Some(speculation),
        ..request.clone()
    }
}

fn most(tokens: u32, request: ChatRequest) -> ChatRequest {
    let output = OutputLimits {
        max_tokens: Some(tokens),
        ..OutputLimits::default()
    };
    limited(request, output)
}

fn tool() -> Tool {
    let parameters = json!({"type": "object", "properties": {"room": {"type": "string"},
        "state": {"type": "string", "enum": ["on", "off"]}}, "required": ["room", "state"]});
    Tool {
        name: "set_light".into(),
        description: "Turn a light on or off".into(),
        parameters: Some(parameters.to_string()),
        strict: true,
    }
}

fn person() -> Format {
    let schema = json!({"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"},
        "city": {"type": "string"}, "verified": {"const": true}},
        "required": ["name", "age", "city", "verified"], "additionalProperties": false});
    Format::JsonSchema {
        schema: schema.to_string(),
        strict: true,
    }
}

/// Questions of every kind, each at temperature 0.
fn questions() -> Vec<(&'static str, ChatRequest)> {
    let repeat = format!("Repeat this text: {}", story());
    let turns = vec![
        Message::text(Role::User, STORY),
        Message::text(Role::Assistant, story()),
        Message::text(Role::User, STORY),
    ];
    vec![
        ("text", user(STORY)),
        ("edit", user(repeat.as_str())),
        ("said before", chat(turns)),
        (
            "predicted",
            ChatRequest {
                prediction: Some(story().replace("dog", "cat")),
                ..user(STORY)
            },
        ),
        (
            "thoughts",
            most(
                120,
                ChatRequest {
                    thinking: Thinking::On { budget: Some(40) },
                    ..user("What is 27 + 48?")
                },
            ),
        ),
        (
            "schema",
            ChatRequest {
                format: person(),
                ..user("Extract the data: Anna is 27 years old and lives in Rome.")
            },
        ),
        (
            "call",
            ChatRequest {
                tools: vec![tool()],
                tool_choice: ToolChoice::Required,
                ..user("Turn on the light in the kitchen.")
            },
        ),
        (
            "ends",
            limited(
                user(STORY),
                OutputLimits {
                    max_tokens: Some(150),
                    min_tokens: 120,
                    stop: vec!["happy".into()],
                    ..OutputLimits::default()
                },
            ),
        ),
        (
            "penalties",
            ChatRequest {
                sampling: Sampling {
                    temperature: 0.0,
                    frequency_penalty: 0.3,
                    repeat_penalty: 1.1,
                    logit_bias: vec![(300, 2.0)],
                    ..Sampling::default()
                },
                ..most(150, user(STORY))
            },
        ),
        (
            "for ever",
            limited(
                user("Count to 20."),
                OutputLimits {
                    max_tokens: Some(200),
                    ignore_eos: true,
                    may_repeat: true,
                    ..OutputLimits::default()
                },
            ),
        ),
    ]
}

/// What does not depend on how it was computed.
fn said(answer: &Answer) -> (Answer, Vec<(Vec<u8>, usize)>) {
    let mut answer = answer.clone();
    assert_eq!(answer.error, None);
    let logprobs = std::mem::take(&mut answer.logprobs);
    let tokens = logprobs
        .into_iter()
        .map(|token| (token.bytes, token.top.len()))
        .collect();
    let done = answer.done.as_mut().unwrap();
    done.timings = Default::default();
    done.usage.drafted = Drafted::default();
    done.usage.cached_tokens = 0;
    (answer.started, answer.pieces) = (None, 0);
    (answer, tokens)
}

pub fn fresh(request: &ChatRequest) -> ChatRequest {
    ChatRequest {
        cache_prompt: false,
        ..request.clone()
    }
}

#[test]
fn greedy_answers_are_the_same_in_all_members() {
    for model in members() {
        let worker = worker(&model, Speculation::Auto);
        let Drafted {
            lookup,
            forced,
            drafter,
        } = greedy_answers_are_the_same(worker, &model);
        assert!(
            lookup.accepted > 50 && lookup.rejected > 10,
            "{model:?}: {lookup:?}"
        );
        assert!(forced.accepted > 10, "{model:?}: {forced:?}");
        assert_eq!(drafter, Tally::default());
    }
}

#[test]
fn greedy_answers_are_the_same_with_drafters() {
    for (model, drafter) in pairs() {
        let worker = drafting(&plan_with(&model, &drafter), &model, &drafter);
        let tried = greedy_answers_are_the_same(worker, &model);
        assert!(tried.drafter.accepted > 100, "{model:?}: {tried:?}");
        assert!(tried.lookup.accepted > 20, "{model:?}: {tried:?}");
    }
}

/// Asks everything with and without guesses, and returns what was guessed.
pub fn greedy_answers_are_the_same(mut worker: Worker, model: &Path) -> Drafted {
    let mut tried = Drafted::default();
    for (name, question) in questions() {
        for logprobs in [None, Some(2)] {
            let question = ChatRequest {
                logprobs,
                ..fresh(&question)
            };
            let plain = worker.ask(with(Speculation::Off, &question));
            assert_eq!(plain.usage().drafted, Drafted::default());
            for mode in [Speculation::On, Speculation::Auto] {
                let answer = worker.ask(with(mode, &question));
                tried += answer.usage().drafted;
                assert_eq!(said(&answer), said(&plain), "{model:?} {name} {mode:?}");
            }
        }
    }
    tried
}

/// A drafter looks at what its model has read, and was trained with it: what it guesses of texts like those
/// that it was trained with is as often right as then.
#[test]
fn drafters_guess_as_they_were_trained_to() {
    for (model, drafter) in pairs() {
        let mut worker = drafting(&plan_with(&model, &drafter), &model, &drafter);
        let mut tried = Tally::default();
        for question in [STORY, "Count to 20.", "What is 27 + 48?", "Who are you?"] {
            let answer = worker.ask(with(Speculation::On, &fresh(&user(question))));
            let of_answer = answer.usage().drafted.drafter;
            println!("{model:?} {question}: {of_answer:?}");
            tried = tried + of_answer;
        }
        let all = tried.accepted + tried.rejected;
        assert!(tried.accepted * 100 > all * 60, "{model:?}: {tried:?}");
    }
}

#[test]
fn seeded_answers_are_the_same() {
    let mut worker = worker(&members().next().unwrap(), Speculation::Auto);
    for (name, question) in questions() {
        for seed in 0..4 {
            let mut question = fresh(&question);
            question.sampling = Sampling {
                seed: Some(seed),
                temperature: 0.8,
                ..question.sampling
            };
            let plain = worker.ask(with(Speculation::Off, &question));
            let answer = worker.ask(with(Speculation::On, &question));
            assert_eq!(said(&answer), said(&plain), "{name} {seed}");
        }
    }
}

/// Sampled answers that are guessed by a drafter, and such about pictures.
#[test]
fn seeded_answers_and_pictures_are_the_same_with_drafters() {
    for (model, drafter) in pairs() {
        let plan = plan_with(&model, &drafter);
        let has_projector = model == super::client::tiny();
        let mut worker = match has_projector {
            true => Worker::seeing(&plan, &[&drafter]),
            false => drafting(&plan, &model, &drafter),
        };
        let mut asked: Vec<_> = questions().into_iter().map(|(_, asked)| asked).collect();
        if has_projector {
            asked.extend(["What is this?", STORY].map(|text| seen(&[RED], text)));
            asked.push(seen(&[RED, BLUE], "Which of them is red?"));
        }
        let mut tried = Tally::default();
        for (number, question) in asked.iter().enumerate() {
            for (temperature, seed) in [(0.0, 0), (0.7, 1), (1.0, 2)] {
                let mut question = most(80, fresh(question));
                question.sampling = Sampling {
                    seed: Some(seed),
                    temperature,
                    ..question.sampling
                };
                let plain = worker.ask(with(Speculation::Off, &question));
                let answer = worker.ask(with(Speculation::On, &question));
                tried = tried + answer.usage().drafted.drafter;
                assert_eq!(said(&answer), said(&plain), "{model:?} {number} {seed}");
            }
        }
        assert!(tried.accepted > 200 && tried.rejected > 20, "{tried:?}");
    }
}

const RED: &[u8] = include_bytes!("../data/pictures/red-circle.png");
const BLUE: &[u8] = include_bytes!("../data/pictures/blue-square.png");

fn seen(pictures: &[&[u8]], text: &str) -> ChatRequest {
    let picture = |file: &&[u8]| {
        Part::Picture(Picture {
            file: (*file).into(),
            detail: Detail::Auto,
        })
    };
    let parts = pictures.iter().map(picture);
    let mut asked = asking(parts.chain([media::text(text)]).collect());
    asked.output.max_tokens = Some(60);
    asked
}

/// A drafter guesses behind a picture, too. The tiny ones have learnt from words alone, and are wrong more often there.
#[test]
fn drafters_guess_behind_pictures() {
    let [(model, drafter), _] = pairs();
    let mut worker = Worker::seeing(&plan_with(&model, &drafter), &[&drafter]);
    let question = fresh(&seen(&[RED], STORY));
    let plain = worker.ask(with(Speculation::Off, &question));
    let answer = worker.ask(with(Speculation::On, &question));
    let tried = answer.usage().drafted.drafter;
    assert!(tried.accepted > 0, "{tried:?}");
    assert_eq!(said(&answer), said(&plain));
}

#[test]
fn a_configuration_that_says_off_is_final() {
    let mut worker = worker(&members().next().unwrap(), Speculation::Off);
    let answer = worker.ask(with(Speculation::On, &user(STORY)));
    assert_eq!(answer.usage().drafted, Drafted::default());
}

#[test]
fn conversations_go_on_from_what_was_accepted() {
    conversations_go_on(worker(&members().next().unwrap(), Speculation::Auto));
    let [(model, drafter), _] = pairs();
    conversations_go_on(drafting(&plan_with(&model, &drafter), &model, &drafter));
}

/// The sliding layers look back by less than the answers are long.
fn conversations_go_on(mut worker: Worker) {
    let mut answers = vec![];
    for mode in [Speculation::Off, Speculation::On] {
        let mut messages = vec![];
        let mut of_mode = vec![];
        for turn in 0..6 {
            let question = match turn % 2 {
                0 => STORY.to_owned(),
                _ => format!("Repeat this text: {}", story()),
            };
            messages.push(Message::text(Role::User, question));
            let answer = worker.ask(with(mode, &chat(messages.clone())));
            let usage = answer.usage();
            if turn > 0 {
                let before = usage.prompt_tokens / 2;
                assert!(usage.cached_tokens > before, "{mode:?} {turn}: {usage:?}");
            }
            messages.push(Message::text(Role::Assistant, answer.text.as_str()));
            of_mode.push((answer.text, usage.completion_tokens, usage.cached_tokens));
        }
        // What the other left is not gone on from.
        worker.trim();
        answers.push(of_mode);
    }
    assert_eq!(answers[0], answers[1]);
}

#[test]
fn several_answers_at_once_and_some_that_are_cancelled() {
    let plan = LoadPlan { slots: 4, ..plan() };
    several_at_once(Worker::with(&plan));
    let [(model, drafter), _] = pairs();
    let plan = LoadPlan {
        slots: 4,
        ..plan_with(&model, &drafter)
    };
    several_at_once(drafting(&plan, &model, &drafter));
}

fn several_at_once(mut worker: Worker) {
    let questions: Vec<ChatRequest> = questions()
        .into_iter()
        .map(|(_, question)| fresh(&question))
        .collect();
    let alone: Vec<_> = questions
        .iter()
        .map(|question| said(&worker.ask(with(Speculation::Off, question))))
        .collect();
    // Those of a round before may still be at it.
    let mut begun = vec![];
    for mode in [Speculation::On, Speculation::Auto] {
        for round in 0..3 {
            let ids: Vec<_> = questions
                .iter()
                .map(|question| worker.begin(with(mode, question)))
                .collect();
            begun.extend_from_slice(&ids);
            let stays = |i: &usize| i % 3 != round;
            let kept: Vec<usize> = (0..ids.len()).filter(stays).collect();
            // Some are cancelled before they begin, some in the middle.
            for _ in 0..10 * round {
                if let ServeEvent::Event { id, event } = worker.receive() {
                    assert!(begun.contains(&id), "{event:?}");
                }
            }
            for (i, &id) in ids.iter().enumerate() {
                if !stays(&i) {
                    worker.send(&ServeRequest::Cancel { id });
                }
            }
            let again: Vec<_> = kept
                .iter()
                .map(|&i| worker.begin(with(mode, &questions[i])))
                .collect();
            begun.extend_from_slice(&again);
            for (answer, &i) in worker.collect(&again).iter().zip(&kept) {
                assert_eq!(said(answer), alone[i], "{mode:?} {i}");
            }
        }
    }
}
