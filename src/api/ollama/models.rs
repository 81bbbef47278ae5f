//! What is installed, what is in memory, and what there is to know of a model: `/api/tags`, `/api/ps`,
//! `/api/show`, `/api/delete`, `/api/version`.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use serde::Serialize;
use serde_json::{Map, Number, Value, json};
use sha2::{Digest, Sha256};

use super::OllamaError;
use crate::access::Caller;
use crate::api::native::admin;
use crate::api::native::keep::take_away;
use crate::api::parse::json::{Object, body as parse};
use crate::api::{Api, Invalid, body, json as answered, render};
use crate::backend::{ModelDetails, ModelInfo, Phase, Status};
use crate::chat::timestamp::{NEVER, rfc3339};

/// The release of Ollama whose API this is: clients compare it with what they need.
const VERSION: &str = "0.13.0";
const FAMILY: &str = "gemma4";
/// Keys of a header that are numbers although they stand among texts.
const NUMBERS: [&str; 4] = [
    "general.parameter_count",
    "general.file_type",
    "general.quantization_version",
    "general.alignment",
];

/// A model as clients of this API know it: with a tag, which they look for in lists.
pub fn shown(id: &str) -> String {
    format!("{id}:latest")
}

#[derive(Serialize)]
struct List<T> {
    models: Vec<T>,
}

/// An installed model.
#[derive(Serialize)]
struct Entry {
    name: String,
    model: String,
    modified_at: String,
    /// Bytes of all its files.
    size: u64,
    digest: String,
    details: Details,
    capabilities: Vec<&'static str>,
}

impl Entry {
    fn of(model: &ModelInfo) -> Self {
        Self {
            name: shown(&model.id),
            model: shown(&model.id),
            modified_at: modified(model),
            size: size(model),
            digest: digest(model),
            details: Details::of(model),
            capabilities: capabilities(model),
        }
    }
}

/// A model that is in memory.
#[derive(Serialize)]
struct Running {
    name: String,
    model: String,
    /// Bytes that it has in memory; if that is not known, of its files.
    size: u64,
    digest: String,
    details: Details,
    expires_at: String,
    /// There is no other memory than the machine's.
    size_vram: u64,
    context_length: u32,
}

#[derive(Serialize)]
struct Details {
    parent_model: &'static str,
    format: &'static str,
    family: &'static str,
    families: [&'static str; 1],
    parameter_size: String,
    quantization_level: String,
}

impl Details {
    fn of(model: &ModelInfo) -> Self {
        let variant = model.variant.to_string();
        let size = variant.strip_prefix("gemma-4-").unwrap_or_default();
        Self {
            parent_model: "",
            format: "gguf",
            family: FAMILY,
            families: [FAMILY],
            parameter_size: size.to_uppercase(),
            quantization_level: model.quantization.clone(),
        }
    }
}

fn modified(model: &ModelInfo) -> String {
    rfc3339(UNIX_EPOCH + Duration::from_secs(model.created))
}

fn size(model: &ModelInfo) -> u64 {
    let parts: u64 = model.parts.iter().map(|part| part.bytes).sum();
    parts.max(model.size)
}

/// Tells an installed model from another of its name, as a digest does; it is made of what is known
/// of the files, and hashes none of them.
fn digest(model: &ModelInfo) -> String {
    let parts = model
        .parts
        .iter()
        .map(|part| json!([part.file, part.bytes]));
    let identity = json!([
        model.id,
        model.size,
        model.created,
        parts.collect::<Vec<_>>()
    ]);
    let hash = Sha256::digest(identity.to_string());
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn capabilities(model: &ModelInfo) -> Vec<&'static str> {
    let senses = [
        ("completion", true),
        ("tools", true),
        ("thinking", true),
        ("vision", model.modalities.image),
        ("audio", model.modalities.audio),
    ];
    let has = senses.into_iter().filter(|(_, has)| *has);
    has.map(|(name, _)| name).collect()
}

/// `GET /api/tags`
pub async fn tags(State(api): State<Arc<Api>>) -> Response {
    let status = api.backends.local().status();
    answered(render(&List {
        models: status.models.iter().map(Entry::of).collect(),
    }))
}

/// `GET /api/ps`
pub async fn ps(State(api): State<Arc<Api>>) -> Response {
    let mut models = Vec::from_iter(running(&api.backends.local().status()));
    if !models.is_empty()
        && let Ok(Some(worker)) = api.backends.local().memory().await.worker
    {
        let name = shown(&worker.model);
        let own = models.iter_mut().filter(|model| model.name == name);
        own.for_each(|model| model.size = worker.resident());
    }
    answered(render(&List { models }))
}

/// What a backend has in memory.
fn running(status: &Status) -> Option<Running> {
    let Phase::Ready { model, context, .. } = &status.phase else {
        return None;
    };
    let info = status.models.iter().find(|info| info.id == *model)?;
    let unload = |at: Instant| SystemTime::now() + at.saturating_duration_since(Instant::now());
    Some(Running {
        name: shown(model),
        model: shown(model),
        size: size(info),
        digest: digest(info),
        details: Details::of(info),
        // While it answers, and where idle models stay, no end is in sight.
        expires_at: status
            .unload_at
            .map_or_else(|| NEVER.into(), |at| rfc3339(unload(at))),
        size_vram: 0,
        context_length: *context,
    })
}

#[derive(Serialize)]
struct Shown {
    license: String,
    modelfile: String,
    parameters: String,
    /// The file's own template is none of Ollama's.
    template: &'static str,
    system: &'static str,
    details: Details,
    messages: [(); 0],
    model_info: Map<String, Value>,
    capabilities: Vec<&'static str>,
    modified_at: String,
}

/// `POST /api/show`
pub async fn show(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    http: Request,
) -> Result<Response, OllamaError> {
    let received = body::read(&api, &caller, http).await?;
    let name = asked(&received.bytes)?;
    drop(received);
    let found = api.backends.local().details(&name).await?;
    Ok(answered(render(&describe(found))))
}

fn describe(found: ModelDetails) -> Shown {
    let parameters = found
        .sampling
        .map_or(vec![], |(temperature, top_k, top_p, min_p)| {
            vec![
                format!("temperature {temperature}"),
                format!("top_k {top_k}"),
                format!("top_p {top_p}"),
                format!("min_p {min_p}"),
            ]
        });
    let from = std::iter::once(format!("FROM {}", found.path.display()));
    let lines = parameters.iter().map(|line| format!("PARAMETER {line}"));
    Shown {
        license: found.licence.unwrap_or_default(),
        modelfile: from.chain(lines).collect::<Vec<_>>().join("\n"),
        parameters: parameters.join("\n"),
        template: "",
        system: "",
        details: Details::of(&found.model),
        messages: [],
        model_info: found.metadata.into_iter().map(typed).collect(),
        capabilities: capabilities(&found.model),
        modified_at: modified(&found.model),
    }
}

/// A key of a file's header with its value as JSON: what stands under `general.` are texts, but for some.
fn typed((key, value): (String, String)) -> (String, Value) {
    if key.starts_with("general.") && !NUMBERS.contains(&key.as_str()) {
        return (key, value.into());
    }
    let number = |text: &str| match text.parse::<i64>() {
        Ok(whole) => Some(whole.into()),
        Err(_) => Number::from_f64(text.parse().ok()?).map(Value::Number),
    };
    let value = match value.as_str() {
        "true" => true.into(),
        "false" => false.into(),
        text => number(text).unwrap_or(Value::String(value)),
    };
    (key, value)
}

/// The model that a request is about; what else it may say of how a model is shown has no meaning here.
pub fn asked(body: &[u8]) -> Result<String, Invalid> {
    let mut object = parse(body)?;
    let name = named(&mut object)?;
    for other in ["verbose", "system", "template", "options"] {
        object.take(other);
    }
    object.finish()?;
    Ok(name)
}

/// `model`, or by its old name `name`.
pub fn named(object: &mut Object) -> Result<String, Invalid> {
    let old = object.take("name");
    object.take("model").or(old).map_or_else(
        || Err(Invalid::new("model", "is required")),
        |name| name.string(),
    )
}

/// `DELETE /api/delete`, for administrators.
pub async fn delete(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    http: Request,
) -> Result<Response, OllamaError> {
    admin::may_manage(&api, &caller)?;
    let received = body::read(&api, &caller, http).await?;
    let mut object = parse(&received.bytes)?;
    let name = named(&mut object)?;
    object.finish()?;
    take_away(api.backends.local(), &name).await?;
    Ok(Response::new(Body::empty()))
}

#[derive(Serialize)]
struct VersionOut {
    version: &'static str,
}

/// `GET /api/version`
pub async fn version() -> Response {
    answered(render(&VersionOut { version: VERSION }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::parse::json::assert_refused;

    #[test]
    fn a_digest_changes_with_the_files() {
        let model = ModelInfo::example("tiny");
        let other = ModelInfo {
            created: 1,
            ..model.clone()
        };
        assert_eq!(digest(&model), digest(&model.clone()));
        assert!(digest(&model) != digest(&other) && digest(&model).len() == 64);
    }

    #[test]
    fn values_of_a_header_have_their_types() {
        for (key, text, value) in [
            ("general.architecture", "gemma4", json!("gemma4")),
            ("general.version", "4", json!("4")),
            (
                "general.parameter_count",
                "5100000000",
                json!(5_100_000_000u64),
            ),
            ("gemma4.context_length", "131072", json!(131_072)),
            ("gemma4.rope.freq_base", "1000000.5", json!(1_000_000.5)),
            ("tokenizer.ggml.add_bos_token", "true", json!(true)),
            ("tokenizer.ggml.tokens", "a list of 9", json!("a list of 9")),
            ("gemma4.odd", "NaN", json!("NaN")),
        ] {
            let (_, typed) = typed((key.into(), text.into()));
            assert_eq!(typed, value, "{key}");
        }
    }

    #[test]
    fn a_model_goes_by_both_names() {
        assert_eq!(asked(br#"{"name":"a","verbose":true}"#).unwrap(), "a");
        assert_eq!(
            asked(br#"{"model":"b","name":"","options":{}}"#).unwrap(),
            "b"
        );
        assert_refused(
            asked,
            &[
                ("{}", "model"),
                (r#"{"model":7}"#, "model"),
                (r#"{"model":"a","modle":"b"}"#, "modle"),
            ],
        );
    }
}
