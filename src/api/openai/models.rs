//! `GET /v1/models` and `GET /v1/models/{id}`: what is installed.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;

use crate::api::error::ApiError;
use crate::api::{Api, json, render};
use crate::backend::{ModelInfo, Phase, Status};
use crate::chat::Modalities;

#[derive(Serialize)]
struct List {
    object: &'static str,
    data: Vec<Entry>,
}

/// OpenAI's model object, and what else a client may want to know to choose one.
#[derive(Debug, Serialize)]
pub struct Entry {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    variant: String,
    /// Bytes of the file.
    size: u64,
    /// Tokens the model was made for; the context it is run with is in `/status`.
    context_length: u32,
    quantization: String,
    /// What a message may hold.
    input_modalities: Vec<&'static str>,
    /// Whether a drafter of it lies beside it.
    drafter: bool,
    loaded: bool,
    /// Whether `auto` stands for it now.
    default: bool,
}

impl Entry {
    pub fn new(model: &ModelInfo, status: &Status) -> Self {
        let modalities = [
            ("text", true),
            ("image", model.modalities.image),
            ("audio", model.modalities.audio),
        ];
        Self {
            id: model.id.clone(),
            object: "model",
            created: model.created,
            owned_by: "google",
            variant: model.variant.to_string(),
            size: model.size,
            context_length: model.context_limit,
            quantization: model.quantization.to_string(),
            input_modalities: modalities
                .into_iter()
                .filter(|(_, able)| *able)
                .map(|(name, _)| name)
                .collect(),
            drafter: model.drafter,
            loaded: matches!(&status.phase, Phase::Ready { model: loaded, .. } if *loaded == model.id),
            default: status.default.as_ref() == Some(&model.id),
        }
    }
}

/// The alias `auto` is not listed: it is a way to ask, not a model.
pub async fn list(State(api): State<Arc<Api>>) -> Response {
    let statuses = api.backends.statuses();
    let entries = |status: &Status| -> Vec<_> {
        let models = status.models.iter();
        models.map(|model| Entry::new(model, status)).collect()
    };
    let data = statuses.iter().flat_map(entries).collect();
    json(render(&List {
        object: "list",
        data,
    }))
}

/// Also resolves `auto`.
pub async fn get(
    State(api): State<Arc<Api>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let Ok(Path(id)) = id else {
        return Err(ApiError::invalid(
            StatusCode::NOT_FOUND,
            "model_not_found",
            "the model's name is not UTF-8",
        ));
    };
    let model = api.backends.find(&id, Modalities::default()).await?;
    let status = api.backends.status_of(&model.id);
    Ok(json(render(&Entry::new(&model, &status))))
}
