//! What each model would take, before it is loaded or even there.

use super::Setup;
use super::budget::Budget;
use crate::backend::{PlanReport, PlannedContext, PlannedModel};
use crate::gemma::model_shape::{ModelShape, PackedWeights, Retention, Sizes};
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
    let contexts = |id: &str, figures: &ModelShape, limit: u32| {
        let has_file = setup.has_packed_file(id, figures);
        let request = FitRequest {
            keep: Retention {
                packed: match has_file {
                    true => PackedWeights::InFile,
                    false => PackedWeights::InMemory,
                },
                ..request.keep
            },
            ..request
        };
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
        contexts: contexts(&model.id, &model.figures, model.context_limit),
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
        contexts: contexts(one.variant.id(), &one.figures, one.context_limit),
    });
    let models = installed.chain(missing).collect();
    PlanReport {
        free: budget.room.free,
        bound: budget.bound(),
        reserve: budget.reserve,
        budget: budget.bytes,
        no_packed_file: setup.why_no_packed_file(),
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
        let sizes = Sizes {
            context,
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
