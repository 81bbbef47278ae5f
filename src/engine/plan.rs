//! What each model would take, before it is loaded or even there.

use super::Setup;
use super::budget::Budget;
use super::growth;
use crate::backend::{ContextSpan, PlanReport, PlannedContext, PlannedModel};
use crate::gemma::model_shape::{ModelShape, PackedWeights, Retention, Sizes};
use crate::memory::fit::FitRequest;
use crate::memory::probe::{Bound, Room};
use crate::store::family::Published;
use crate::store::{Model, family};

/// Contexts that are shown when none was asked for, besides the configured one.
const CONTEXTS: [u32; 3] = [4096, 32_768, 131_072];

/// The plan for the memory that is free now, or for `ram` bytes; for one context, or for
/// several.
pub(super) fn plan(
    setup: &Setup,
    models: &[Model],
    context: Option<u32>,
    ram: Option<u64>,
) -> PlanReport {
    let (budget, bound) = budget(setup, ram);
    let request = setup.fit_request();
    let of_file = |id: &str, figures: &ModelShape| {
        let has_file = setup.has_packed_file(id, figures);
        FitRequest {
            keep: Retention {
                packed: match has_file {
                    true => PackedWeights::InFile,
                    false => PackedWeights::InMemory,
                },
                ..request.keep
            },
            ..request
        }
    };
    let contexts = |id: &str, figures: &ModelShape, limit: u32| {
        contexts_of(figures, &of_file(id, figures), limit, context, budget.bytes)
    };
    let span = |id: &str, figures: &ModelShape, limit: u32| {
        span_of(figures, &of_file(id, figures), limit, budget.bytes)
    };
    let installed = models.iter().map(|model| PlannedModel {
        id: model.id.clone(),
        variant: model.variant.id(),
        installed: true,
        size: model.size(),
        quantization: model.quantization.clone(),
        context_limit: model.context_limit,
        projector: model
            .projector
            .as_ref()
            .map_or(0, |projector| projector.size),
        drafter: setup.drafter_bytes(model),
        contexts: contexts(&model.id, &model.figures, model.context_limit),
        span: span(&model.id, &model.figures, model.context_limit),
    });
    let missing = family::published()
        .into_iter()
        .filter(|one| !models.iter().any(|model| is_published(model, one)));
    let missing = missing.map(|one| PlannedModel {
        id: one.variant.id().to_owned(),
        variant: one.variant.id(),
        installed: false,
        size: one.figures.weights(),
        quantization: one.quantization,
        context_limit: one.context_limit,
        projector: 0,
        drafter: 0,
        contexts: contexts(one.variant.id(), &one.figures, one.context_limit),
        span: span(one.variant.id(), &one.figures, one.context_limit),
    });
    let models = installed.chain(missing).collect();
    PlanReport {
        free: budget.room.free,
        bound,
        experts: request.keep.experts,
        reserve: budget.reserve,
        budget: budget.bytes,
        no_packed_file: setup.why_no_packed_file(),
        models,
    }
}

/// What a model may take, of what is free now or of `ram` bytes, and what sets the bound.
fn budget(setup: &Setup, ram: Option<u64>) -> (Budget, String) {
    let Some(free) = ram else {
        let budget = setup.budget();
        let bound = budget.bound();
        return (budget, bound);
    };
    let room = Room {
        free,
        bound: Bound::Machine,
        whole: free,
    };
    let budget = Budget::of(room, setup.memory.reserve);
    (budget, "supposed to be free".to_owned())
}

/// Whether an installed model is what a variant of the family is published as: another file of it
/// takes other memory.
fn is_published(model: &Model, one: &Published) -> bool {
    model.variant == one.variant
        && model.quantization == one.quantization
        && model.figures.width == one.figures.width
}

/// What a request can have of a model, without its projector and its drafter, in a budget of so many bytes.
fn span_of(
    figures: &ModelShape,
    request: &FitRequest,
    limit: u32,
    budget: u64,
) -> Option<ContextSpan> {
    let mut context = request.sizes.context.min(limit);
    loop {
        let sizes = Sizes {
            context,
            ceiling: request.ceiling(context, limit),
            ..request.sizes
        };
        let total = figures.cost(&sizes, &request.keep).total();
        if total <= budget {
            return Some(ContextSpan {
                floor: request.floor(context),
                ceiling: growth::reach(figures, &sizes, budget - total),
            });
        }
        context /= 2;
        if context == 0 || context < request.least_context {
            return None;
        }
    }
}

fn contexts_of(
    figures: &ModelShape,
    request: &FitRequest,
    limit: u32,
    asked: Option<u32>,
    budget: u64,
) -> Vec<PlannedContext> {
    let mut contexts = asked.map_or_else(
        || [&CONTEXTS[..], &[request.sizes.context]].concat(),
        |context| vec![context],
    );
    contexts
        .iter_mut()
        .for_each(|context| *context = (*context).min(limit));
    contexts.sort_unstable();
    contexts.dedup();
    let estimate = |context| {
        let is_first = asked.is_none() && context == request.sizes.context.min(limit);
        let ceiling = match is_first {
            true => request.ceiling(context, limit),
            false => context,
        };
        let sizes = Sizes {
            context,
            ceiling,
            ..request.sizes
        };
        let mut packed = request.keep.packed;
        let mut cost = figures.cost(&sizes, &request.keep);
        // Rather without packing than not at all.
        if packed == PackedWeights::InMemory && cost.total() > budget {
            packed = PackedWeights::Nowhere;
            let keep = Retention {
                packed,
                ..request.keep
            };
            cost = figures.cost(&sizes, &keep);
        }
        PlannedContext {
            context,
            packed,
            cost,
            fits: cost.total() <= budget,
        }
    };
    contexts.into_iter().map(estimate).collect()
}
