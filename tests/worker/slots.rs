//! Requests at the same time, and cancelled ones.

use std::time::{Duration, Instant};

use gemmad::chat::{
    ChatError, ChatEvent, ChatRequest, Message, OutputLimits, Role, TextAnswer, TextTask,
};
use gemmad::ipc::{LoadPlan, ServeEvent, ServeRequest};

use super::client::{Worker, chat, plan, user};
use super::{STORY, limited};

#[test]
fn requests_at_once_get_the_answers_they_get_alone() {
    let mut worker = Worker::tiny();
    let filler = "Anna and Ben like the garden. ".repeat(60);
    let questions = [
        STORY.to_owned(),
        "Count to 20.".into(),
        format!("{filler}What is the capital of Spain?"),
        "What is 12 + 13?".into(),
    ];
    let fresh = |text: &String| ChatRequest {
        cache_prompt: false,
        ..user(text.as_str())
    };
    let alone: Vec<_> = questions
        .iter()
        .map(|text| worker.ask(fresh(text)).text)
        .collect();
    // Four requests for two slots: the last two wait.
    let ids: Vec<_> = questions
        .iter()
        .map(|text| worker.begin(fresh(text)))
        .collect();
    let together: Vec<_> = worker
        .collect(&ids)
        .into_iter()
        .map(|answer| answer.text)
        .collect();
    assert_eq!(alone, together);
}

#[test]
fn a_long_prompt_does_not_hold_up_another_answer() {
    let mut worker = Worker::with(&LoadPlan {
        context: 3900,
        batch: 16,
        ..plan()
    });
    let ninety = OutputLimits {
        max_tokens: Some(90),
        ignore_eos: true,
        ..OutputLimits::default()
    };
    let steady = worker.begin(limited(user("Count to 5."), ninety));
    let long = worker.begin(user("The garden is green. ".repeat(400)));
    let mut steady_is_done = false;
    loop {
        match worker.receive() {
            ServeEvent::Event {
                id,
                event: ChatEvent::Done(_),
            } if id == steady => steady_is_done = true,
            ServeEvent::Event {
                id,
                event: ChatEvent::Started { prompt_tokens, .. },
            } if id == long => {
                // It took over a hundred steps, and each of them drew a token of the other answer.
                assert!(prompt_tokens > 1600 && steady_is_done, "{prompt_tokens}");
                break;
            }
            ServeEvent::Failed { error, .. } => panic!("{error}"),
            _ => {}
        }
    }
}

#[test]
fn cancelling_frees_the_slot_at_once() {
    let mut worker = Worker::with(&LoadPlan { slots: 1, ..plan() });
    let forever = OutputLimits {
        max_tokens: Some(2000),
        ignore_eos: true,
        ..OutputLimits::default()
    };
    let endless = worker.begin(limited(user(STORY), forever));
    loop {
        if matches!(
            worker.receive(),
            ServeEvent::Event {
                event: ChatEvent::Text { .. },
                ..
            }
        ) {
            break;
        }
    }
    let start = Instant::now();
    worker.send(&ServeRequest::Cancel { id: endless });
    let answer = worker.ask(user("What is the capital of Italy?"));
    assert_eq!(answer.text, "The capital of Italy is Rome.");
    assert!(
        start.elapsed() < Duration::from_millis(1000),
        "{:?}",
        start.elapsed()
    );
    // Cancelling what has ended, or never was, is nothing.
    worker.send(&ServeRequest::Cancel { id: endless });
    worker.send(&ServeRequest::Cancel { id: 4711 });
    assert_eq!(
        worker.ask(user("Who are you?")).text,
        "I am Tiny, a very small test model."
    );
}

#[test]
fn cancelling_while_the_prompt_is_read_leaves_a_sound_slot() {
    let mut worker = Worker::with(&LoadPlan {
        slots: 1,
        batch: 512,
        ..plan()
    });
    let text = format!(
        "{}What is the capital of Peru?",
        "The sky is blue. ".repeat(250)
    );
    let expected = worker
        .ask(ChatRequest {
            cache_prompt: false,
            ..user(text.as_str())
        })
        .text;
    for delay in [0, 2, 5, 10, 20, 40] {
        let id = worker.begin(user(text.as_str()));
        std::thread::sleep(Duration::from_millis(delay));
        worker.send(&ServeRequest::Cancel { id });
        assert_eq!(
            worker.ask(user("What is the capital of Egypt?")).text,
            "The capital of Egypt is Cairo."
        );
        assert_eq!(
            worker.ask(user(text.as_str())).text,
            expected,
            "after {delay} ms"
        );
    }
}

#[test]
fn texts_are_answered_beside_the_slots() {
    let mut worker = Worker::with(&LoadPlan { slots: 1, ..plan() });
    let mut endless = user(STORY);
    endless.output.ignore_eos = true;
    let running = worker.begin(endless);
    let tell = |worker: &mut Worker, task: TextTask| {
        worker.send(&ServeRequest::Text { id: 1000, task });
        loop {
            match worker.receive() {
                ServeEvent::Text { id: 1000, answer } => return Ok(answer),
                ServeEvent::Failed { id: 1000, error } => return Err(error),
                ServeEvent::Event { id, .. } => assert_eq!(id, running),
                other => panic!("{other:?}"),
            }
        }
    };
    let tokenize = |text: &str, begin, control| TextTask::Tokenize {
        text: text.into(),
        begin,
        control,
    };
    let Ok(TextAnswer::Tokens(tokens)) = tell(&mut worker, tokenize("Anna é<turn|>", true, true))
    else {
        panic!()
    };
    assert_eq!(
        (&tokens[0], tokens.last().unwrap()),
        (&(2, b"<bos>".to_vec()), &(106, b"<turn|>".to_vec()))
    );
    let ids = tokens.iter().map(|(id, _)| *id).collect();
    let bytes = tell(&mut worker, TextTask::Detokenize { tokens: ids }).unwrap();
    assert_eq!(bytes, TextAnswer::Bytes("<bos>Anna é<turn|>".into()));
    let Ok(TextAnswer::Tokens(spelled)) = tell(&mut worker, tokenize("<turn|>", false, false))
    else {
        panic!()
    };
    assert!(
        spelled.len() > 1 && spelled.iter().all(|(id, _)| *id != 106),
        "{spelled:?}"
    );
    let unknown = tell(
        &mut worker,
        TextTask::Detokenize {
            tokens: vec![1 << 30],
        },
    );
    assert!(
        matches!(
            unknown,
            Err(ChatError::UnknownToken {
                token: 1_073_741_824,
                ..
            })
        ),
        "{unknown:?}"
    );
    // A count is what the answer's usage says.
    let counted = tell(&mut worker, TextTask::Count(Box::new(user("Who are you?")))).unwrap();
    worker.send(&ServeRequest::Cancel { id: running });
    assert_eq!(
        counted,
        TextAnswer::Count(worker.ask(user("Who are you?")).usage().prompt_tokens)
    );
}

#[test]
fn a_conversation_goes_on_where_it_was() {
    let mut worker = Worker::tiny();
    let mut messages = vec![Message::text(Role::User, "My name is Carla.")];
    let first = worker.ask(chat(messages.clone()));
    assert_eq!(
        (first.text.as_str(), first.usage().cached_tokens),
        ("Nice to meet you, Carla!", 0)
    );
    messages.push(Message::text(Role::Assistant, first.text.as_str()));
    messages.push(Message::text(Role::User, "What is my name?"));
    let again = worker.ask(ChatRequest {
        cache_prompt: false,
        ..chat(messages.clone())
    });
    assert_eq!(
        (again.text.as_str(), again.usage().cached_tokens),
        ("Your name is Carla.", 0)
    );
    let second = worker.ask(chat(messages));
    assert_eq!(second.text, again.text);
    let usage = second.usage();
    assert_eq!(usage.prompt_tokens, again.usage().prompt_tokens);
    // The template ends a prompt with an empty thought (four tokens) that it leaves out of the
    // history.
    assert!(
        usage.cached_tokens >= first.usage().prompt_tokens - 4
            && usage.cached_tokens < usage.prompt_tokens,
        "{usage:?}"
    );
}

#[test]
fn what_the_sliding_layers_forgot_is_read_again() {
    // The window is 64 positions and the cache keeps 256 of them: going back further must not use
    // what is gone.
    let mut worker = Worker::with(&LoadPlan {
        slots: 1,
        batch: 64,
        ..plan()
    });
    let long = |end: &str| {
        chat(vec![Message::text(
            Role::User,
            format!("{}{end}", "Leo lives in Rome. ".repeat(150)),
        )])
    };
    let early = |end: &str| {
        chat(vec![Message::text(
            Role::User,
            format!("{}{end}", "Leo lives in Rome. ".repeat(30)),
        )])
    };
    for request in [
        early("What is the capital of Japan?"),
        long("What is the capital of Japan?"),
    ] {
        let fresh = worker.ask(ChatRequest {
            cache_prompt: false,
            logprobs: Some(3),
            ..request.clone()
        });
        worker.ask(long("Who are you?"));
        let reused = worker.ask(ChatRequest {
            logprobs: Some(3),
            ..request
        });
        assert_eq!(fresh.text, reused.text);
        assert_eq!(fresh.logprobs.len(), reused.logprobs.len());
        for (a, b) in fresh.logprobs.iter().zip(&reused.logprobs) {
            assert!((a.logprob - b.logprob).abs() < 0.05, "{a:?} {b:?}");
        }
    }
}

#[test]
fn it_is_told_how_far_a_prompt_is_read_until_the_answer_begins() {
    let mut worker = Worker::with(&LoadPlan {
        context: 3900,
        batch: 16,
        ..plan()
    });
    let text = "The garden is green. ".repeat(400);
    let of = |worker: &mut Worker| {
        let id = worker.begin(limited(
            user(text.as_str()),
            OutputLimits {
                max_tokens: Some(2),
                ..OutputLimits::default()
            },
        ));
        let mut told = vec![];
        let start = Instant::now();
        loop {
            match worker.receive_any() {
                ServeEvent::Reading { id: of, reading } => {
                    assert_eq!(of, id);
                    told.push(reading);
                }
                ServeEvent::Event {
                    event: ChatEvent::Started { prompt_tokens, .. },
                    ..
                } => {
                    assert_eq!(told.last().map(|last| last.done), Some(prompt_tokens));
                    break;
                }
                ServeEvent::Event { .. } | ServeEvent::Loading { .. } | ServeEvent::Packed => {}
                other => panic!("{other:?}"),
            }
        }
        // At its beginning, at its end, and four times a second.
        let most = 3 + start.elapsed().as_millis() as usize / 250;
        assert!((2..=most).contains(&told.len()), "{told:?}");
        while !matches!(
            worker.receive_any(),
            ServeEvent::Event {
                event: ChatEvent::Done(_),
                ..
            }
        ) {}
        told
    };
    let first = of(&mut worker);
    assert!(first.is_sorted_by_key(|reading| (reading.done, reading.time_ms)));
    let total = first[0].total;
    let begun = &first[0];
    assert!(total > 2000 && (begun.cached, begun.done) == (0, 0));
    // What is there already is not read again.
    let again = of(&mut worker);
    assert!(again[0].cached > 0 && again[0].done == again[0].cached);
    assert!(again.iter().all(|reading| reading.total == total));
}
