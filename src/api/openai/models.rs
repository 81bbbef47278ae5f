//! `GET /v1/models` and `GET /v1/models/{id}`: what is installed.

use std::sync::Arc;

use axum::Extension;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::Serialize;
use serde_json::{Map, Value};
use url::form_urlencoded;

use crate::access::Caller;
use crate::api::error::ApiError;
use crate::api::native::catalog::CatalogOut;
use crate::api::native::status::PassedOver;
use crate::api::{Api, json, render};
use crate::backend::{ModelInfo, ModelPart, Phase, RemoteModel, Status};
use crate::chat::Modalities;

#[derive(Serialize)]
struct List {
    object: &'static str,
    data: Vec<Listed>,
    /// gemmad's own, for who looks for a model here that is not served.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    passed_over: Vec<PassedOver>,
    /// gemmad's own, with `?catalog=1`: what could be had.
    #[serde(skip_serializing_if = "Option::is_none")]
    catalog: Option<CatalogOut>,
}

/// A model that may be asked for.
#[derive(Serialize)]
#[serde(untagged)]
enum Listed {
    Installed(Entry),
    Elsewhere(RemoteEntry),
}

/// OpenAI's model object, of an upstream's model.
#[derive(Serialize)]
struct RemoteEntry {
    id: String,
    object: &'static str,
    created: u64,
    /// The upstream.
    owned_by: String,
}

impl From<RemoteModel> for RemoteEntry {
    fn from(RemoteModel { id, upstream }: RemoteModel) -> Self {
        Self {
            id,
            object: "model",
            created: 0,
            owned_by: upstream,
        }
    }
}

/// OpenAI's model object, and what else a client may want to know to choose one.
#[derive(Debug, Serialize)]
pub struct Entry {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    /// The file's own name: where that is no id, the id differs.
    file: String,
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
    /// Its file, and those that belong to it.
    files: Vec<PartOut>,
    loaded: bool,
    /// Whether `auto` stands for it now.
    default: bool,
}

/// A file of a model.
#[derive(Debug, Serialize)]
struct PartOut {
    /// `model`, `projector` or `drafter`
    role: &'static str,
    file: String,
    bytes: u64,
}

impl PartOut {
    fn of(part: &ModelPart) -> Self {
        Self {
            role: part.role,
            file: part.file.clone(),
            bytes: part.bytes,
        }
    }
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
            file: model.file.clone(),
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
            files: model.parts.iter().map(PartOut::of).collect(),
            loaded: matches!(&status.phase, Phase::Ready { model: loaded, .. } if *loaded == model.id),
            default: status.default.as_ref() == Some(&model.id),
        }
    }
}

/// The alias `auto` is not listed: it is a way to ask, not a model.
pub async fn list(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let catalog = match asks_for(&uri, "catalog")? {
        true => Some(api.backends.local().catalog().await?.into()),
        false => None,
    };
    let status = api.backends.local().status();
    let entry = |model| Listed::Installed(Entry::new(model, &status));
    let mut data: Vec<_> = status.models.iter().map(entry).collect();
    if let Some(remote) = api.backends.remote() {
        remote.meet(caller.id(), None).await;
        let is_new = |id: &str| !status.models.iter().any(|model| model.id == id);
        let models = remote.models(caller.id()).into_iter();
        // The alias is a way to ask here as well.
        let models = models.filter(|model| model.id != "auto" && is_new(&model.id));
        data.extend(models.map(|model| Listed::Elsewhere(RemoteEntry::from(model))));
    }
    Ok(json(render(&List {
        object: "list",
        data,
        passed_over: status
            .rejected
            .iter()
            .cloned()
            .map(PassedOver::from)
            .collect(),
        catalog,
    })))
}

/// `NAME=1`; other parameters are other services' pages and filters, and what is whole has no use for them.
fn asks_for(uri: &Uri, name: &str) -> Result<bool, ApiError> {
    let query = uri.query().unwrap_or_default();
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    let Some((_, value)) = pairs.find(|(key, _)| key == name) else {
        return Ok(false);
    };
    match &*value {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(ApiError::invalid(
            StatusCode::BAD_REQUEST,
            "invalid_parameter",
            format!("`{name}` must be 0 or 1"),
        )),
    }
}

/// gemmad's own: what else there is to know of a model.
#[derive(Serialize)]
struct Details {
    #[serde(flatten)]
    entry: Entry,
    path: String,
    /// Where it was fetched from, or who publishes such a file.
    source: Option<String>,
    licence: Option<String>,
    sampling: Option<Sampling>,
    /// Bytes of the chat template in its file.
    template: Option<u64>,
    /// The keys of its file's header.
    metadata: Map<String, Value>,
}

/// How its tokens are best chosen.
#[derive(Serialize)]
struct Sampling {
    temperature: f32,
    top_k: u32,
    top_p: f32,
    min_p: f32,
}

/// Also resolves `auto`; says all that there is to know with `?details=1`.
pub async fn get(
    State(api): State<Arc<Api>>,
    uri: Uri,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let Ok(Path(id)) = id else {
        return Err(ApiError::invalid(
            StatusCode::NOT_FOUND,
            "model_not_found",
            "the model's name is not UTF-8",
        ));
    };
    if asks_for(&uri, "details")? {
        let found = api.backends.local().details(&id).await?;
        let status = api.backends.local().status();
        let sampling = |(temperature, top_k, top_p, min_p)| Sampling {
            temperature,
            top_k,
            top_p,
            min_p,
        };
        let metadata = found.metadata.into_iter();
        return Ok(json(render(&Details {
            entry: Entry::new(&found.model, &status),
            path: found.path.display().to_string(),
            source: found.source,
            licence: found.licence,
            sampling: found.sampling.map(sampling),
            template: found.template,
            metadata: metadata.map(|(key, value)| (key, value.into())).collect(),
        })));
    }
    let model = api.backends.find(&id, Modalities::default()).await?.model;
    let status = api.backends.local().status();
    Ok(json(render(&Entry::new(&model, &status))))
}
