//! `GET /memory/plan`: what each model would take, before it is loaded or even there. All sizes are
//! bytes.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::Serialize;
use url::form_urlencoded;

use crate::api::error::ApiError;
use crate::api::{Api, render};
use crate::backend::{PlanReport, PlannedContext, PlannedModel};

/// Tokens of context that can be asked about.
pub const CONTEXTS: RangeInclusive<u32> = 256..=1 << 18;
/// Bytes of memory that can be supposed to be free.
pub const RAMS: RangeInclusive<u64> = 1..=1 << 50;

/// `context=N` asks for one context, `ram=BYTES` supposes that so much is free. Loads nothing.
pub async fn plan(State(api): State<Arc<Api>>, uri: Uri) -> Result<Response, ApiError> {
    let (mut context, mut ram) = (None, None);
    for (key, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        match &*key {
            "context" => context = Some(number(&key, &value, CONTEXTS)?),
            "ram" => ram = Some(number(&key, &value, RAMS)?),
            _ => {
                return Err(wrong(format!(
                    "there is no parameter `{}`; there are `context` and `ram`",
                    key.escape_debug()
                )));
            }
        }
    }
    let report = api.backends.local().plan(context, ram).await?;
    Ok(crate::api::json(json(&report)))
}

/// The report as JSON.
pub fn json(report: &PlanReport) -> String {
    render(&PlanOut {
        free: report.free,
        bound: report.bound.clone(),
        reserve: report.reserve,
        budget: report.budget,
        experts_percent: report.experts,
        no_packed_file: report.no_packed_file.clone(),
        models: report.models.iter().map(ModelOut::of).collect(),
    })
}

fn number<N: FromStr + PartialOrd + Display>(
    key: &str,
    value: &str,
    range: RangeInclusive<N>,
) -> Result<N, ApiError> {
    let found = value.parse().ok().filter(|number| range.contains(number));
    found.ok_or_else(|| {
        wrong(format!(
            "`{key}` must be a whole number from {} to {}",
            range.start(),
            range.end()
        ))
    })
}

fn wrong(message: String) -> ApiError {
    ApiError::invalid(StatusCode::BAD_REQUEST, "invalid_parameter", message)
}

#[derive(Serialize)]
struct PlanOut {
    /// Bytes that a new program could have, and what sets the bound.
    free: u64,
    bound: String,
    /// Of them, those that are left to other programs.
    reserve: u64,
    budget: u64,
    /// The part of the experts that is counted; the others are read from the disk when a token
    /// needs them.
    experts_percent: u64,
    /// Why packed weights cannot be kept in a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    no_packed_file: Option<String>,
    models: Vec<ModelOut>,
}

#[derive(Serialize)]
struct ModelOut {
    id: String,
    variant: &'static str,
    installed: bool,
    /// Of the file; of one that is not installed, about so many.
    size: u64,
    quantization: String,
    context_length: u32,
    /// Tokens that a request can have in any case, and as long as nobody else needs more than that; null
    /// where the model does not fit.
    context_floor: Option<u32>,
    context_ceiling: Option<u32>,
    /// Left out where it does not fit; not part of the totals.
    projector: u64,
    /// As the projector.
    drafter: u64,
    plans: Vec<ContextOut>,
}

#[derive(Serialize)]
struct ContextOut {
    context: u32,
    fits: bool,
    /// Where the weights that are packed for the CPU are: `file`, `memory` or `none`.
    packed_weights: &'static str,
    total: u64,
    /// Of the total, what cannot be evicted.
    unevictable: u64,
    parts: Parts,
}

/// See [`crate::gemma::model_shape::Cost`].
#[derive(Serialize)]
struct Parts {
    layers: u64,
    head: u64,
    experts: u64,
    per_layer: u64,
    kv_cache: u64,
    buffers: u64,
    checkpoints: u64,
    tables: u64,
    program: u64,
    code: u64,
}

impl ModelOut {
    fn of(model: &PlannedModel) -> Self {
        let PlannedModel {
            id,
            variant,
            installed,
            size,
            quantization,
            context_limit,
            projector,
            drafter,
            contexts,
            span,
        } = model.clone();
        let plans = contexts.iter().map(ContextOut::of).collect();
        Self {
            id,
            variant,
            installed,
            size,
            quantization,
            context_length: context_limit,
            context_floor: span.map(|span| span.floor),
            context_ceiling: span.map(|span| span.ceiling),
            projector,
            drafter,
            plans,
        }
    }
}

impl ContextOut {
    fn of(
        PlannedContext {
            context,
            packed,
            cost,
            fits,
        }: &PlannedContext,
    ) -> Self {
        let parts = Parts {
            layers: cost.layers,
            head: cost.head,
            experts: cost.experts,
            per_layer: cost.per_layer,
            kv_cache: cost.kv,
            buffers: cost.buffers,
            checkpoints: cost.checkpoints,
            tables: cost.tables,
            program: cost.program,
            code: cost.code,
        };
        Self {
            context: *context,
            fits: *fits,
            packed_weights: packed.id(),
            total: cost.total(),
            unevictable: cost.unevictable(),
            parts,
        }
    }
}
