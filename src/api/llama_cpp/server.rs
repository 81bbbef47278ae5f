//! `GET /props` and `GET /slots`: how the loaded model is run, for clients of llama.cpp's server. What
//! is not known is left out; without a loaded model there is no context and no slot.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use crate::api::openai::chat::response::FINGERPRINT;
use crate::api::{Api, json, render};
use crate::backend::{Phase, Status};
use crate::chat::Sampling;

#[derive(Debug, Serialize)]
struct Props {
    default_generation_settings: Settings,
    total_slots: u32,
    /// The loaded model, or the one that would be.
    model_alias: Option<String>,
    modalities: Modalities,
    build_info: &'static str,
    /// No model is loaded; the next request loads one.
    is_sleeping: bool,
}

#[derive(Debug, Serialize)]
struct Settings {
    /// Tokens of context for each slot.
    #[serde(skip_serializing_if = "Option::is_none")]
    n_ctx: Option<u32>,
    params: Params,
}

/// What holds for a request that says nothing.
#[derive(Debug, Serialize)]
struct Params {
    temperature: f32,
    top_k: u32,
    top_p: f32,
    min_p: f32,
    repeat_penalty: f32,
    presence_penalty: f32,
    frequency_penalty: f32,
    /// Another one for each answer.
    seed: i32,
    /// As many tokens as the daemon's limit and the context allow.
    n_predict: i32,
    max_tokens: i32,
}

#[derive(Debug, Serialize)]
struct Modalities {
    vision: bool,
    audio: bool,
}

#[derive(Debug, Serialize)]
struct Slot {
    id: u32,
    n_ctx: u32,
    is_processing: bool,
}

pub async fn props(State(api): State<Arc<Api>>) -> Response {
    json(render(&props_of(&api.backends.local().status())))
}

/// As many as there are busy are so; their numbers are not the worker's.
pub async fn slots(State(api): State<Arc<Api>>) -> Response {
    json(render(&slots_of(&api.backends.local().status())))
}

fn props_of(status: &Status) -> Props {
    let (context, slots) = match status.phase {
        Phase::Ready { context, slots, .. } => (Some(context), slots),
        _ => (None, 0),
    };
    let id = status.loaded().or(status.default.as_deref());
    let model = status.models.iter().find(|model| Some(&*model.id) == id);
    let Sampling {
        temperature,
        top_k,
        top_p,
        min_p,
        repeat_penalty,
        presence_penalty,
        frequency_penalty,
        ..
    } = Sampling::default();
    Props {
        default_generation_settings: Settings {
            n_ctx: context,
            params: Params {
                temperature,
                top_k,
                top_p,
                min_p,
                repeat_penalty,
                presence_penalty,
                frequency_penalty,
                seed: -1,
                n_predict: -1,
                max_tokens: -1,
            },
        },
        total_slots: slots,
        model_alias: id.map(str::to_owned),
        modalities: Modalities {
            vision: model.is_some_and(|model| model.modalities.image),
            audio: model.is_some_and(|model| model.modalities.audio),
        },
        build_info: FINGERPRINT,
        is_sleeping: context.is_none(),
    }
}

fn slots_of(status: &Status) -> Vec<Slot> {
    let Phase::Ready { context, slots, .. } = status.phase else {
        return vec![];
    };
    let slot = |id| Slot {
        id,
        n_ctx: context,
        is_processing: id < status.running,
    };
    (0..slots).map(slot).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::ModelInfo;
    use serde_json::{Value, json, to_value};
    use std::time::Duration;

    #[test]
    fn what_is_not_known_is_left_out() {
        let model = ModelInfo::example("tiny");
        let mut status = Status::first(vec![model], vec![], Some("tiny".into()));
        let cold = to_value(props_of(&status)).unwrap();
        assert_eq!(cold["default_generation_settings"].get("n_ctx"), None);
        assert_eq!(
            (&cold["total_slots"], &cold["is_sleeping"]),
            (&json!(0), &json!(true))
        );
        assert_eq!(to_value(slots_of(&status)).unwrap(), json!([]));
        status.running = 1;
        status.phase = Phase::Ready {
            model: "tiny".into(),
            context: 4096,
            floor: 4096,
            granted: 8192,
            slots: 2,
            threads: 1,
            pid: 1,
            load_time: Duration::ZERO,
            template: None,
            cpu_variant: None,
        };
        let ready = to_value(props_of(&status)).unwrap();
        let n_ctx = |value: &Value| value["n_ctx"].clone();
        assert_eq!(n_ctx(&ready["default_generation_settings"]), 4096);
        assert_eq!(
            (&ready["model_alias"], &ready["total_slots"]),
            (&json!("tiny"), &json!(2))
        );
        let slots = to_value(slots_of(&status)).unwrap();
        assert_eq!(
            slots[0],
            json!({"id": 0, "n_ctx": 4096, "is_processing": true})
        );
        assert_eq!(slots[1]["is_processing"], json!(false));
    }
}
