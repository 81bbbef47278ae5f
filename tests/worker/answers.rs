//! What the worker answers, and what a request can have changed of it.

use gemmad::chat::{
    ChatError, ChatRequest, Finish, OutputLimits, RawPrompt, Sampling, Thinking, Tool,
};

use super::client::{Worker, user};
use super::{STORY, limited, story};

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
        strict: false,
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
            ..ChatRequest::raw(RawPrompt::Text(prompt.into()))
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
