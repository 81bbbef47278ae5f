//! What each model would take, before it is loaded or even there.

use super::Setup;
use super::budget::Budget;
use crate::backend::{PlanReport, PlannedContext, PlannedModel};
use crate::gemma::model_shape::{ModelShape, Sizes};
use crate::memory::fit::FitRequest;
use crate::memory::probe::{Bound, Room};
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
    let budget = match ram {
        Some(free) => Budget::of(
            Room {
                free,
                bound: Bound::Machine,
                whole: free,
            },
            setup.memory.reserve,
        ),
        None => setup.budget(),
    };
    let request = setup.fit_request();
    let contexts = |figures: &ModelShape, limit: u32| {
        contexts_of(figures, &request, limit, context, budget.bytes)
    };
    let installed = models.iter().map(|model| PlannedModel {
        id: model.id.clone(),
        variant: model.variant.id(),
        installed: true,
        quantization: model.quantization.clone(),
        context_limit: model.context_limit,
        projector: model
            .projector
            .as_ref()
            .map_or(0, |projector| projector.size),
        contexts: contexts(&model.figures, model.context_limit),
    });
    let missing = family::published()
        .into_iter()
        .filter(|one| models.iter().all(|model| model.variant != one.variant));
    let missing = missing.map(|one| PlannedModel {
        id: one.variant.id().to_owned(),
        variant: one.variant.id(),
        installed: false,
        quantization: one.quantization,
        context_limit: one.context_limit,
        projector: 0,
        contexts: contexts(&one.figures, one.context_limit),
    });
    let models = installed.chain(missing).collect();
    PlanReport {
        free: budget.room.free,
        bound: budget.bound(),
        reserve: budget.reserve,
        budget: budget.bytes,
        models,
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
        let cost = figures.cost(
            &Sizes {
                context,
                ..request.sizes
            },
            &request.keep,
        );
        PlannedContext {
            context,
            cost,
            fits: cost.total() <= budget,
        }
    };
    contexts.into_iter().map(estimate).collect()
}
