//! What ends an answer, and prompts that do not fit.

use gemmad::chat::{ChatError, Finish, OutputLimits, Speculation};
use gemmad::ipc::LoadPlan;

use super::client::{Worker, plan, user};
use super::{STORY, limited, story};

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
                context_tokens: 256,
                ..
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
                context_tokens: 256,
                ..
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
fn limits_end_the_answer() {
    let mut worker = Worker::with(&LoadPlan {
        step_time_ms: 250,
        speculation: Speculation::Auto,
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
