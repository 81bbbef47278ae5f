//! Why there is no answer, as a status and OpenAI's error object.

use axum::http::StatusCode;

use super::{ApiError, RETRY_SOON};
use crate::api::openai::chat::fields;
use crate::attachments::Refused;
use crate::backend::{Failure, PullFault, StoreFault, UpstreamFault};
use crate::chat::{ChatError, Constraint, Modality, Place};

impl From<Failure> for ApiError {
    /// In the words of a chat request.
    fn from(failure: Failure) -> Self {
        Self::failure(failure, fields::field)
    }
}

impl ApiError {
    /// The failure in the words of an API, which calls the fields of a chat request as `field` says.
    pub fn failure(failure: Failure, field: impl Fn(Place) -> String) -> Self {
        let message = failure.to_string();
        match failure {
            Failure::UnknownModel { .. } => {
                Self::invalid(StatusCode::NOT_FOUND, "model_not_found", message)
                    .param(field(Place::Model))
            }
            Failure::NotPermitted { .. } => Self::not_permitted(message).param(field(Place::Model)),
            Failure::TokenRevoked => Self::unauthenticated("token_revoked", message),
            Failure::NoModels { .. } => Self::unavailable("no_models", message),
            Failure::QueueFull { retry_after, .. } => {
                Self::unavailable("queue_full", message).retry_after(retry_after)
            }
            Failure::UserQueueFull { retry_after, .. } => {
                Self::too_many("user_queue_full", message).retry_after(retry_after)
            }
            Failure::ShuttingDown => Self::unavailable("shutting_down", message),
            Failure::BadModel { .. } => Self::internal("model_load_failed", message),
            Failure::Unsound { .. } => Self::internal("model_damaged", message),
            Failure::NoRoom { .. } => Self::unavailable("insufficient_memory", message),
            Failure::NoRoomForFile { .. } => {
                Self::unavailable("insufficient_memory", message).retry_after(RETRY_SOON)
            }
            Failure::NotNow { .. } => Self::unavailable("not_now", message).retry_after(RETRY_SOON),
            Failure::BackingOff { retry_after, .. } => {
                Self::unavailable("backing_off", message).retry_after(retry_after)
            }
            Failure::OutOfMemory { .. } => {
                Self::unavailable("out_of_memory", message).retry_after(RETRY_SOON)
            }
            Failure::WorkerDied { .. } => Self::internal("worker_died", message),
            Failure::ModelInUse { .. } => {
                Self::invalid(StatusCode::CONFLICT, "model_in_use", message)
            }
            Failure::Store { fault, .. } => match fault {
                StoreFault::BadFile => {
                    Self::invalid(StatusCode::BAD_REQUEST, "not_a_model", message)
                }
                StoreFault::Exists => Self::invalid(StatusCode::CONFLICT, "file_exists", message),
                StoreFault::Full => {
                    Self::server(StatusCode::INSUFFICIENT_STORAGE, "disk_full", message)
                }
                StoreFault::Disk => Self::internal("disk_failed", message),
            },
            Failure::Pull { fault, .. } => not_pulled(fault, message),
            Failure::Upstream { fault, .. } => match fault {
                UpstreamFault::NotSent => {
                    Self::invalid(StatusCode::BAD_REQUEST, "not_for_upstream", message)
                }
                UpstreamFault::Refused => {
                    Self::invalid(StatusCode::BAD_REQUEST, "upstream_refused", message)
                }
                UpstreamFault::Unavailable => {
                    Self::server(StatusCode::BAD_GATEWAY, "upstream_failed", message)
                }
            },
            Failure::Chat(error) => refused_by_worker(&error, field),
            Failure::TimedOut { .. } => {
                Self::server(StatusCode::GATEWAY_TIMEOUT, "timed_out", message)
            }
            Failure::ClientStalled { .. } => {
                Self::invalid(StatusCode::REQUEST_TIMEOUT, "client_stalled", message)
            }
        }
    }

    /// Attachments that cannot be had, in the words of an API.
    pub fn attachments(refused: Refused, field: impl Fn(Place) -> String) -> Self {
        match refused {
            Refused::Failure(failure) => Self::failure(failure, field),
            Refused::Full(full) => Self::bodies(full),
        }
    }
}

fn not_pulled(fault: PullFault, message: String) -> ApiError {
    match fault {
        PullFault::Unknown => {
            ApiError::invalid(StatusCode::NOT_FOUND, "model_not_found", message).param("model")
        }
        PullFault::Refused => {
            ApiError::invalid(StatusCode::BAD_REQUEST, "cannot_pull", message).param("model")
        }
        PullFault::Gated => ApiError::server(StatusCode::BAD_GATEWAY, "gated", message),
        PullFault::Server => ApiError::server(StatusCode::BAD_GATEWAY, "download_failed", message),
        PullFault::Full => ApiError::server(StatusCode::INSUFFICIENT_STORAGE, "disk_full", message),
        PullFault::Directory => ApiError::internal("models_not_writable", message),
        PullFault::NoJob => ApiError::invalid(StatusCode::NOT_FOUND, "pull_not_found", message),
        PullFault::Busy => ApiError::unavailable("not_now", message).retry_after(RETRY_SOON),
    }
}

fn refused_by_worker(error: &ChatError, field: impl Fn(Place) -> String) -> ApiError {
    let code = match error {
        ChatError::PromptTooLong { .. } => "context_length_exceeded",
        ChatError::UnknownToken { .. }
        | ChatError::UnknownPromptToken { .. }
        | ChatError::Template { .. } => "invalid_value",
        ChatError::UnsupportedModality {
            modality: Modality::Image,
            ..
        } => "model_cannot_see",
        ChatError::UnsupportedModality {
            modality: Modality::Audio,
            ..
        } => "model_cannot_hear",
        ChatError::Picture { .. } => "invalid_image",
        ChatError::Sound { .. } => "invalid_audio",
        ChatError::Document { .. } => "invalid_file",
        ChatError::Constraint {
            part: Constraint::Format,
            ..
        } => "unsupported_format",
        ChatError::Constraint {
            part: Constraint::Tool(_),
            ..
        } => "unsupported_schema",
        ChatError::Unsound | ChatError::Inference { .. } => "inference_failed",
    };
    let message = error.describe(&field);
    match error.place() {
        Some(place) => {
            ApiError::invalid(StatusCode::BAD_REQUEST, code, message).param(field(place))
        }
        None => ApiError::internal(code, message),
    }
}
