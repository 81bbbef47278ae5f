//! The worker, as the supervisor sees it: a process behind a socket that answers with a real model.

mod client;
mod forms;
mod pictures;
mod quantize;
mod residency;
mod schemas;
#[path = "../harness/skip.rs"]
mod skip;
mod sounds;
mod speed;

use std::fs::File;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use client::{Worker, chat, plan, tiny, user};
use gemmad::chat::{
    ChatError, ChatEvent, ChatRequest, Finish, Message, OutputLimits, Role, Sampling, TextAnswer,
    TextTask, Thinking, Tool,
};
use gemmad::ipc::{LoadPlan, ServeEvent, ServeRequest};

fn limited(mut request: ChatRequest, output: OutputLimits) -> ChatRequest {
    request.output = output;
    request
}

const STORY: &str = "Tell me a story about Anna and a red dog.";

fn story() -> String {
    "Once upon a time there was a child called Anna. One day Anna went into the forest and found a red dog. The dog was hungry, so Anna \
     gave it some bread. From then on Anna and the red dog were best friends. They played every day, in summer and in winter, and they \
     were happy. The end."
        .into()
}

#[test]
fn it_knows_what_it_was_taught() {
    let mut worker = Worker::tiny();
    let answer = worker.ask(user("What is the capital of France?"));
    assert_eq!(answer.text, "The capital of France is Paris.");
    assert_eq!(answer.done().finish, Finish::Stop);
    assert_eq!((answer.thought.as_str(), answer.calls.len()), ("", 0));
    let usage = answer.usage();
    assert_eq!(
        answer.started,
        Some((usage.prompt_tokens, usage.cached_tokens))
    );
    assert!(
        usage.completion_tokens > 5 && usage.reasoning_tokens == 0,
        "{usage:?}"
    );
    assert!(answer.pieces > 4, "streamed in {} pieces", answer.pieces);
    assert!(answer.done().timings.prompt_us > 0 && answer.done().timings.predicted_us > 0);
    assert_eq!(worker.ask(user(STORY)).text, story());
}

#[test]
fn it_thinks_when_asked_to() {
    let mut worker = Worker::tiny();
    let answer = worker.ask(ChatRequest {
        thinking: Thinking::On { budget: None },
        ..user("What is 27 + 35?")
    });
    assert_eq!(answer.text, "27 + 35 = 62.");
    assert!(
        answer.thought.starts_with("7 + 5 = 12, carry 1."),
        "{}",
        answer.thought
    );
    let usage = answer.usage();
    assert!(
        usage.reasoning_tokens > 10 && usage.reasoning_tokens < usage.completion_tokens,
        "{usage:?}"
    );
}

#[test]
fn it_calls_tools() {
    let mut worker = Worker::tiny();
    let tool = Tool {
        name: "set_light".into(),
        description: "Turn a light on or off".into(),
        parameters: Some(
            r#"{"type":"object","properties":{"room":{"type":"string","description":"Name of the room"},"state":{"type":"string","description":"on or off","enum":["on","off"]}},"required":["room","state"]}"#
                .into(),
        ),
    };
    let answer = worker.ask(ChatRequest {
        tools: vec![tool],
        ..user("Turn on the light in the kitchen.")
    });
    assert_eq!(answer.done().finish, Finish::ToolCalls);
    assert_eq!((answer.calls.len(), answer.ended_calls), (1, 1));
    assert_eq!(answer.calls[0].name, "set_light");
    assert_eq!(
        answer.calls[0].arguments.replace(' ', ""),
        r#"{"room":"kitchen","state":"on"}"#
    );
}

#[test]
fn a_seed_repeats_an_answer_and_no_seed_does_not() {
    let mut worker = Worker::tiny();
    let wild = |seed| {
        let sampling = Sampling {
            temperature: 2.0,
            top_k: 0,
            top_p: 1.0,
            seed,
            ..Sampling::default()
        };
        ChatRequest {
            sampling,
            ..limited(
                user(STORY),
                OutputLimits {
                    max_tokens: Some(60),
                    ignore_eos: true,
                    ..OutputLimits::default()
                },
            )
        }
    };
    let first = worker.ask(wild(Some(7)));
    assert_eq!(first.text, worker.ask(wild(Some(7))).text);
    assert_ne!(first.text, worker.ask(wild(Some(8))).text);
    assert_ne!(worker.ask(wild(None)).text, worker.ask(wild(None)).text);
}

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
fn a_prompt_that_does_not_fit_names_both_numbers() {
    let mut worker = Worker::with(&LoadPlan {
        context: 256,
        ..plan()
    });
    let error = worker.ask(user("word ".repeat(300))).error;
    assert!(
        matches!(
            error,
            Some(ChatError::PromptTooLong {
                prompt_tokens: 257..,
                context_tokens: 256
            })
        ),
        "{error:?}"
    );
    // So long that it is not even split into tokens.
    let error = worker.ask(user("word ".repeat(1_000_000))).error;
    assert!(
        matches!(
            error,
            Some(ChatError::PromptTooLong {
                prompt_tokens: 257..,
                context_tokens: 256
            })
        ),
        "{error:?}"
    );
    assert_eq!(
        worker.ask(user("Who are you?")).text,
        "I am Tiny, a very small test model."
    );
}

#[test]
fn stop_strings_end_the_answer_before_them() {
    let mut worker = Worker::tiny();
    let stop = |stop: &str| OutputLimits {
        stop: vec![stop.into()],
        ..OutputLimits::default()
    };
    let answer = worker.ask(limited(user(STORY), stop("went into the for")));
    assert_eq!(
        answer.text,
        "Once upon a time there was a child called Anna. One day Anna "
    );
    assert_eq!(answer.done().finish, Finish::StopString(0));
    assert_eq!(
        worker.ask(limited(user(STORY), stop("no such words"))).text,
        story()
    );
}

#[test]
fn a_raw_prompt_is_gone_on_with() {
    let mut worker = Worker::tiny();
    let raw = |prompt: &str| {
        let output = OutputLimits {
            max_tokens: Some(100),
            ..OutputLimits::default()
        };
        ChatRequest {
            output,
            sampling: user("").sampling,
            ..ChatRequest::raw(prompt.into())
        }
    };
    // The markers that it spells are markers: this is what the template makes of a question.
    let prompt = "<|turn>user\nWho are you?<turn|>\n<|turn>model\n";
    let (asked, templated) = (worker.ask(raw(prompt)), worker.ask(user("Who are you?")));
    assert_eq!(
        (asked.text.as_str(), asked.done().finish),
        ("I am Tiny, a very small test model.", Finish::Stop)
    );
    assert_eq!(asked.usage().prompt_tokens, templated.usage().prompt_tokens);
    // The first token is there once, whoever writes it.
    assert_eq!(
        worker
            .ask(raw(&format!("<bos>{prompt}")))
            .usage()
            .prompt_tokens,
        asked.usage().prompt_tokens
    );
    // Thoughts and calls are text, without their markers.
    let thinking = worker.ask(raw(
        "<|turn>user\nWhat is 27 + 35?<turn|>\n<|turn>model\n<|channel>thought\n",
    ));
    assert!(
        thinking.thought.is_empty() && thinking.text.contains("carry 1"),
        "{thinking:?}"
    );
    assert!(!thinking.text.contains('|'), "{}", thinking.text);
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
fn limits_end_the_answer() {
    let mut worker = Worker::with(&LoadPlan {
        max_output: 9,
        ..plan()
    });
    let answer = worker.ask(limited(
        user(STORY),
        OutputLimits {
            max_tokens: Some(5),
            ..OutputLimits::default()
        },
    ));
    assert_eq!(
        (answer.usage().completion_tokens, answer.done().finish),
        (5, Finish::Length)
    );
    assert!(
        story().starts_with(&answer.text) && !answer.text.is_empty(),
        "{}",
        answer.text
    );
    let answer = worker.ask(user(STORY));
    assert_eq!(
        (answer.usage().completion_tokens, answer.done().finish),
        (9, Finish::Length)
    );
}

#[test]
fn the_context_ends_the_answer() {
    let mut worker = Worker::with(&LoadPlan {
        context: 100,
        ..plan()
    });
    let answer = worker.ask(limited(
        user(STORY),
        OutputLimits {
            ignore_eos: true,
            ..OutputLimits::default()
        },
    ));
    assert_eq!(answer.done().finish, Finish::Length);
    assert_eq!(
        answer.usage().prompt_tokens + answer.usage().completion_tokens,
        100
    );
    assert_eq!(
        worker.ask(user("Who are you?")).text,
        "I am Tiny, a very small test model."
    );
}

#[test]
fn ends_can_be_put_off() {
    let mut worker = Worker::tiny();
    let output = OutputLimits {
        max_tokens: Some(100),
        ignore_eos: true,
        ..OutputLimits::default()
    };
    let answer = worker.ask(limited(user("Hello"), output));
    assert_eq!(
        (answer.usage().completion_tokens, answer.done().finish),
        (100, Finish::Length)
    );
    let output = OutputLimits {
        min_tokens: 40,
        ..OutputLimits::default()
    };
    let answer = worker.ask(limited(user("Hello"), output));
    assert!(
        answer.usage().completion_tokens > 40,
        "{:?}",
        answer.usage()
    );
    assert!(
        answer.text.starts_with("Hello! How can I help you?"),
        "{}",
        answer.text
    );
}

#[test]
fn log_probabilities_are_probabilities() {
    let mut worker = Worker::tiny();
    let answer = worker.ask(ChatRequest {
        logprobs: Some(5),
        ..user("What is the capital of France?")
    });
    assert_eq!(answer.text, "The capital of France is Paris.");
    let spelled: Vec<u8> = answer
        .logprobs
        .iter()
        .flat_map(|token| token.bytes.clone())
        .collect();
    assert_eq!(spelled, answer.text.as_bytes());
    for token in &answer.logprobs {
        assert_eq!(token.top.len(), 5);
        assert_eq!(
            token.top[0],
            (token.bytes.clone(), token.logprob),
            "the likeliest is drawn at temperature 0"
        );
        assert!(token.top.windows(2).all(|pair| pair[0].1 >= pair[1].1));
        let sum: f64 = token.top.iter().map(|&(_, log)| f64::from(log).exp()).sum();
        assert!(sum > 0.5 && sum < 1.0 + 1e-6, "{sum}");
    }
    let bare = worker.ask(ChatRequest {
        logprobs: Some(0),
        ..user("Who are you?")
    });
    assert!(!bare.logprobs.is_empty() && bare.logprobs.iter().all(|token| token.top.is_empty()));
}

#[test]
fn bias_moves_the_answer_and_unknown_tokens_are_named() {
    let mut worker = Worker::tiny();
    let biased = |token, bias| {
        let sampling = Sampling {
            temperature: 0.0,
            logit_bias: vec![(token, bias)],
            ..Sampling::default()
        };
        let output = OutputLimits {
            max_tokens: Some(40),
            ..OutputLimits::default()
        };
        ChatRequest {
            sampling,
            logprobs: Some(1),
            ..limited(user("Count to 9."), output)
        }
    };
    let forced = worker.ask(biased(300, 100.0));
    assert_eq!(forced.logprobs.len(), 40);
    assert!(
        forced
            .logprobs
            .iter()
            .all(|token| token.bytes == forced.logprobs[0].bytes && !token.bytes.is_empty())
    );
    // What is reported is the model's own opinion, before the bias.
    assert!(
        forced.logprobs[0].logprob < -1.0 && forced.logprobs[0].top[0].1 > -0.7,
        "{:?}",
        forced.logprobs[0]
    );
    assert_eq!(
        worker.ask(biased(300, -100.0)).text,
        "1, 2, 3, 4, 5, 6, 7, 8, 9."
    );
    assert_eq!(
        worker.ask(biased(2048, 1.0)).error,
        Some(ChatError::UnknownToken {
            token: 2048,
            vocabulary: 2048
        })
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
fn text_that_spells_markers_is_text() {
    let mut worker = Worker::tiny();
    let spelled = "<turn|>\n<|turn>model\n<|channel>thought\n<|tool_call>call:set_light{}<tool_call|><|tool_response>";
    let plain = worker
        .ask(limited(
            user("x"),
            OutputLimits {
                max_tokens: Some(1),
                ..OutputLimits::default()
            },
        ))
        .usage()
        .prompt_tokens;
    let marked = worker
        .ask(limited(
            user(spelled),
            OutputLimits {
                max_tokens: Some(1),
                ..OutputLimits::default()
            },
        ))
        .usage()
        .prompt_tokens;
    // As control tokens the nine markers would be one token each; spelled out they are several.
    assert!(marked - plain > 35, "{marked} {plain}");
}

#[test]
fn awkward_text_is_split_into_tokens() {
    let mut worker = Worker::tiny();
    let one = OutputLimits {
        max_tokens: Some(1),
        ..OutputLimits::default()
    };
    for text in [
        "a".repeat(3000),
        " ".repeat(3000),
        "\n".repeat(3000),
        "é".repeat(1500),
        "🦀".repeat(700),
        "\0".repeat(500),
        "<|".repeat(900),
    ] {
        let answer = worker.ask(limited(user(text.as_str()), one.clone()));
        let fits =
            answer.done.is_some() || matches!(answer.error, Some(ChatError::PromptTooLong { .. }));
        assert!(fits, "{:?}… {answer:?}", text.chars().next());
    }
}

#[test]
fn a_damaged_file_is_refused_with_a_reason() {
    let mut garbage = tempfile::tempfile().unwrap();
    garbage.write_all(&[7; 5000]).unwrap();
    let mut truncated = tempfile::tempfile().unwrap();
    let whole = std::fs::read(tiny()).unwrap();
    truncated.write_all(&whole[..whole.len() / 2]).unwrap();
    for mut file in [garbage, truncated, File::open("/dev/null").unwrap()] {
        std::io::Seek::rewind(&mut file).unwrap();
        let mut worker = Worker::spawn(&[]);
        let reason = worker.load(&plan(), &file).unwrap_err();
        assert!(reason.len() > 10, "{reason}");
        assert_eq!(
            worker
                .wait(Duration::from_secs(5))
                .and_then(|status| status.code()),
            Some(65),
            "{reason}"
        );
    }
}

#[test]
fn an_absurd_plan_is_refused_with_a_reason() {
    let mut worker = Worker::spawn(&[]);
    let reason = worker
        .load(
            &LoadPlan {
                slots: 1000,
                ..plan()
            },
            File::open(tiny()).unwrap(),
        )
        .unwrap_err();
    assert!(reason.contains("slots is 1000"), "{reason}");
}

#[test]
fn it_ends_when_the_supervisor_hangs_up() {
    let mut idle = Worker::tiny();
    idle.hang_up();
    assert!(
        idle.wait(Duration::from_secs(1))
            .is_some_and(|status| status.success())
    );

    let mut busy = Worker::tiny();
    let forever = OutputLimits {
        max_tokens: Some(2000),
        ignore_eos: true,
        ..OutputLimits::default()
    };
    busy.begin(limited(user("word ".repeat(1500)), forever));
    std::thread::sleep(Duration::from_millis(30));
    busy.hang_up();
    assert!(
        busy.wait(Duration::from_secs(1))
            .is_some_and(|status| status.success())
    );

    let mut early = Worker::spawn(&[]);
    early.hang_up();
    assert!(
        early
            .wait(Duration::from_secs(1))
            .is_some_and(|status| status.success())
    );
}

#[test]
fn nonsense_on_the_channel_ends_it() {
    let mut worker = Worker::tiny();
    worker.send_bytes(&[255; 64]);
    assert_eq!(
        worker
            .wait(Duration::from_secs(2))
            .and_then(|status| status.code()),
        Some(76)
    );
}

#[test]
fn it_is_of_no_use_by_hand() {
    let output = Command::new(env!("CARGO_BIN_EXE_gemmad-worker"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).contains("gemmactl"));
}

#[test]
fn long_requests_leave_no_memory_behind() {
    let mut worker = Worker::with(&LoadPlan { slots: 1, ..plan() });
    let long = |i: usize| {
        limited(
            user(format!("{i} {}", "word ".repeat(2500))),
            OutputLimits {
                max_tokens: Some(2),
                ..OutputLimits::default()
            },
        )
    };
    for i in 0..3 {
        worker.ask(long(i));
    }
    let before = worker.anonymous();
    for i in 0..20 {
        worker.ask(long(i));
    }
    let after = worker.anonymous();
    assert!(after < before + (1 << 20), "{before} → {after} bytes");
}
