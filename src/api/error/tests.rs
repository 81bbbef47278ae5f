use super::*;
use crate::api::openai::chat::fields;
use crate::backend::Failure;
use crate::chat::{ChatError, Constraint, Modality, Place};

const SOON: Duration = Duration::from_millis(2500);

/// Holds each failure against its answer: status, type, code, param, `Retry-After`; `-` for what it
/// does not have.
fn assert_answers<'a>(table: impl IntoIterator<Item = (&'a str, Failure)>) {
    for (expected, failure) in table {
        let message = match &failure {
            Failure::Chat(error) => error.describe(fields::field),
            failure => failure.to_string(),
        };
        let error = ApiError::from(failure);
        let retry = error.retry_seconds().map(|seconds| seconds.to_string());
        let given = |text: Option<&str>| text.unwrap_or("-").to_owned();
        let body: serde_json::Value = serde_json::from_str(&error.json()).unwrap();
        let field = |name: &str| given(body["error"][name].as_str());
        let answer = [
            error.status.as_u16().to_string(),
            field("type"),
            field("code"),
            field("param"),
            given(retry.as_deref()),
        ];
        assert_eq!(answer.join(" "), expected);
        assert_eq!(body["error"]["message"], message);
    }
}

#[test]
fn failures_of_models_and_workers_have_their_answers() {
    assert_answers([
        (
            "404 invalid_request_error model_not_found model -",
            Failure::UnknownModel {
                asked: "gpt".into(),
                known: vec![],
                passed_over: None,
                hint: None,
            },
        ),
        (
            "503 server_error no_models - -",
            Failure::NoModels {
                directories: vec!["/m".into()],
                passed_over: vec![],
            },
        ),
        (
            "500 server_error model_load_failed - -",
            Failure::BadModel {
                model: "m".into(),
                reason: "r".into(),
            },
        ),
        (
            "500 server_error model_damaged - -",
            Failure::Unsound { model: "m".into() },
        ),
        (
            "503 server_error insufficient_memory - -",
            Failure::NoRoom {
                model: "m".into(),
                needs: 9,
                free: 5,
                reserve: 1,
                bound: "b".into(),
                instead: None,
            },
        ),
        (
            "503 server_error not_now - 1",
            Failure::NotNow {
                what: "files cannot be read",
                cause: "c".into(),
            },
        ),
        (
            "503 server_error backing_off - 3",
            Failure::BackingOff {
                cause: "c".into(),
                retry_after: SOON,
            },
        ),
        (
            "503 server_error out_of_memory - 1",
            Failure::OutOfMemory { cause: "c".into() },
        ),
        (
            "500 server_error worker_died - -",
            Failure::WorkerDied { cause: "c".into() },
        ),
    ]);
}

#[test]
fn failures_of_the_queue_have_their_answers() {
    assert_answers([
        (
            "503 server_error queue_full - 3",
            Failure::QueueFull {
                limit: 4,
                retry_after: SOON,
            },
        ),
        (
            "429 rate_limit_error user_queue_full - 1",
            Failure::UserQueueFull {
                limit: 4,
                retry_after: Duration::ZERO,
            },
        ),
        ("503 server_error shutting_down - -", Failure::ShuttingDown),
        (
            "401 authentication_error token_revoked - -",
            Failure::TokenRevoked,
        ),
        (
            "504 server_error timed_out - -",
            Failure::TimedOut { limit: SOON },
        ),
        (
            "408 invalid_request_error client_stalled - -",
            Failure::ClientStalled { unread: 9 },
        ),
    ]);
}

#[test]
fn what_the_worker_refuses_has_its_answer() {
    let reason = || "r".to_owned();
    let (message, part) = (2, 1);
    let table = [
        (
            "context_length_exceeded messages",
            ChatError::PromptTooLong {
                prompt_tokens: 9000,
                context_tokens: 8192,
                ceiling: 8192,
                sound_tokens: 0,
            },
        ),
        (
            "invalid_value logit_bias.9",
            ChatError::UnknownToken {
                token: 9,
                vocabulary: 8,
            },
        ),
        (
            "invalid_image messages[2].content[1].image_url",
            ChatError::Picture {
                message,
                part,
                reason: reason(),
            },
        ),
        (
            "invalid_audio messages[2].content[1].input_audio",
            ChatError::Sound {
                message,
                part,
                reason: reason(),
            },
        ),
        (
            "invalid_file messages[2].content[1].file",
            ChatError::Document {
                message,
                part,
                reason: reason(),
            },
        ),
        (
            "invalid_value messages",
            ChatError::Template { reason: reason() },
        ),
    ];
    for (expected, error) in table {
        let expected = format!("400 invalid_request_error {expected} -");
        assert_answers([(expected.as_str(), Failure::Chat(error))]);
    }
    let failed = ChatError::Inference { reason: reason() };
    assert_answers([(
        "500 server_error inference_failed - -",
        Failure::Chat(failed),
    )]);
}

#[test]
fn what_a_model_cannot_do_has_its_answer() {
    let modality = |modality| ChatError::UnsupportedModality {
        modality,
        reason: "r".into(),
    };
    let constraint = |part, path: &str| ChatError::Constraint {
        name: "f".into(),
        part,
        path: path.into(),
        reason: "r".into(),
    };
    assert_answers(
        [
            (
                "400 invalid_request_error model_cannot_see messages -",
                modality(Modality::Image),
            ),
            (
                "400 invalid_request_error model_cannot_hear messages -",
                modality(Modality::Audio),
            ),
            (
                "400 invalid_request_error unsupported_format response_format -",
                constraint(Constraint::Format, "/a"),
            ),
            (
                "400 invalid_request_error unsupported_schema tools[3].function.parameters -",
                constraint(Constraint::Tool(3), ""),
            ),
        ]
        .map(|(expected, error)| (expected, Failure::Chat(error))),
    );
}

#[test]
fn each_api_names_the_field_in_its_own_words() {
    let failure = Failure::Chat(ChatError::Picture {
        message: 2,
        part: 1,
        reason: "is no picture".into(),
    });
    let error = ApiError::failure(failure.clone(), |place| match place {
        Place::Part { message, .. } => format!("input[{message}]"),
        place => panic!("{place}"),
    });
    assert_eq!(
        (error.param.as_deref(), error.message.as_str()),
        (Some("input[2]"), "`input[2]` is no picture")
    );
    assert_eq!(
        ApiError::from(failure).message,
        "`messages[2].content[1].image_url` is no picture"
    );
}

#[test]
fn a_prompt_that_does_not_fit_names_both_numbers() {
    let error = ApiError::from(Failure::Chat(ChatError::PromptTooLong {
        prompt_tokens: 9000,
        context_tokens: 8192,
        ceiling: 8192,
        sound_tokens: 0,
    }));
    assert!(
        error.message.contains("9000") && error.message.contains("8192"),
        "{}",
        error.message
    );
}

#[test]
fn limits_say_whose_they_are() {
    assert_eq!(ApiError::connections(Full::User { limit: 3 }).status, 429);
    assert_eq!(ApiError::connections(Full::Total { limit: 3 }).status, 503);
    assert_eq!(ApiError::bodies(Full::User { limit: 3 }).status, 429);
    assert_eq!(ApiError::bodies(Full::Total { limit: 3 }).status, 503);
}

#[test]
fn a_response_carries_the_wait() {
    let response = ApiError::from(Failure::QueueFull {
        limit: 4,
        retry_after: SOON,
    })
    .into_response();
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "3");
    assert_eq!(response.headers()["content-type"], "application/json");
}
