//! Why there is no answer, as a status and OpenAI's error object.

use axum::http::StatusCode;

use super::{ApiError, RETRY_SOON};
use crate::chat::{ChatError, Constraint, Modality};
use crate::engine::Failure;

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        let message = failure.to_string();
        match failure {
            Failure::UnknownModel { .. } => {
                Self::invalid(StatusCode::NOT_FOUND, "model_not_found", message).param("model")
            }
            Failure::NoModels { .. } => Self::unavailable("no_models", message),
            Failure::QueueFull { retry_after, .. } => {
                Self::unavailable("queue_full", message).retry_after(retry_after)
            }
            Failure::UserQueueFull { retry_after, .. } => {
                Self::too_many("user_queue_full", message).retry_after(retry_after)
            }
            Failure::ShuttingDown => Self::unavailable("shutting_down", message),
            Failure::BadModel { .. } => Self::server(
                StatusCode::INTERNAL_SERVER_ERROR,
                "model_load_failed",
                message,
            ),
            Failure::NoRoom { .. } => Self::unavailable("insufficient_memory", message),
            Failure::NoRoomForFile { .. } => {
                Self::unavailable("insufficient_memory", message).retry_after(RETRY_SOON)
            }
            Failure::BackingOff { retry_after, .. } => {
                Self::unavailable("backing_off", message).retry_after(retry_after)
            }
            Failure::OutOfMemory { .. } => {
                Self::unavailable("out_of_memory", message).retry_after(RETRY_SOON)
            }
            Failure::WorkerDied { .. } => {
                Self::server(StatusCode::INTERNAL_SERVER_ERROR, "worker_died", message)
            }
            Failure::TimedOut { .. } => {
                Self::server(StatusCode::GATEWAY_TIMEOUT, "timed_out", message)
            }
            Failure::ClientStalled { .. } => {
                Self::invalid(StatusCode::REQUEST_TIMEOUT, "client_stalled", message)
            }
            Failure::Chat(error) => from_chat(&error, message),
        }
    }
}

fn from_chat(error: &ChatError, message: String) -> ApiError {
    let (code, param) = match error {
        ChatError::PromptTooLong { .. } => ("context_length_exceeded", "messages".to_owned()),
        ChatError::UnknownToken { token, .. } => ("invalid_value", format!("logit_bias.{token}")),
        ChatError::UnsupportedModality {
            modality: Modality::Image,
            ..
        } => ("model_cannot_see", "messages".to_owned()),
        ChatError::UnsupportedModality {
            modality: Modality::Audio,
            ..
        } => ("model_cannot_hear", "messages".to_owned()),
        ChatError::Picture { message, part, .. } => (
            "invalid_image",
            format!("messages[{message}].content[{part}].image_url"),
        ),
        ChatError::Sound { message, part, .. } => (
            "invalid_audio",
            format!("messages[{message}].content[{part}].input_audio"),
        ),
        ChatError::Document { message, part, .. } => (
            "invalid_file",
            format!("messages[{message}].content[{part}].file"),
        ),
        ChatError::Constraint {
            part: Constraint::Format,
            ..
        } => ("unsupported_format", "response_format".to_owned()),
        ChatError::Constraint {
            part: Constraint::Tool(i),
            ..
        } => (
            "unsupported_schema",
            format!("tools[{i}].function.parameters"),
        ),
        ChatError::Template { .. } => ("invalid_value", "messages".to_owned()),
        ChatError::Inference { .. } => {
            return ApiError::server(
                StatusCode::INTERNAL_SERVER_ERROR,
                "inference_failed",
                message,
            );
        }
    };
    ApiError::invalid(StatusCode::BAD_REQUEST, code, message).param(param)
}
