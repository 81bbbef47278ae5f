//! What each model would take, before it is loaded or even there.

use super::budget::Budget;
use super::{ModelInfo, Setup};
use crate::gemma::figures::{Cost, Figures, Sizes};
use crate::memory::fit::FitRequest;
use crate::memory::probe::{Bound, Room};
use crate::store::family;

/// Contexts that are shown when none was asked for, besides the configured one.
const CONTEXTS: [u32; 3] = [4096, 32_768, 131_072];

/// What each model would take, held against a budget.
#[derive(Clone, Debug)]
pub struct PlanReport {
    pub budget: Budget,
    /// The installed models, then the variants that are not installed.
    pub models: Vec<PlannedModel>,
}

/// One model in several contexts.
#[derive(Clone, Debug)]
pub struct PlannedModel {
    /// A model's id, or a variant's.
    pub id: String,
    pub variant: &'static str,
    pub installed: bool,
    pub quantization: String,
    pub context_limit: u32,
    /// Bytes of its projector, which is left out where it does not fit.
    pub projector: u64,
    pub estimates: Vec<Estimate>,
}

/// What a model takes in one context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    pub context: u32,
    /// Without the projector.
    pub cost: Cost,
    pub fits: bool,
}

impl PlanReport {
    /// The plan for the memory that is free now, or for `ram` bytes; for one context, or for
    /// several.
    pub(super) fn new(
        setup: &Setup,
        models: &[ModelInfo],
        context: Option<u32>,
        ram: Option<u64>,
    ) -> Self {
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
        let estimates = |figures: &Figures, limit: u32| {
            estimates(figures, &request, limit, context, budget.bytes)
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
            estimates: estimates(&model.figures, model.context_limit),
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
            estimates: estimates(&one.figures, one.context_limit),
        });
        let models = installed.chain(missing).collect();
        Self { budget, models }
    }
}

/// What a model takes in the context that was `asked` for, or in several; none is larger than `limit`.
fn estimates(
    figures: &Figures,
    request: &FitRequest,
    limit: u32,
    asked: Option<u32>,
    budget: u64,
) -> Vec<Estimate> {
    let mut contexts = match asked {
        Some(context) => vec![context],
        None => [&CONTEXTS[..], &[request.sizes.context]].concat(),
    };
    for context in &mut contexts {
        *context = (*context).min(limit);
    }
    contexts.sort_unstable();
    contexts.dedup();
    let estimate = |context| {
        let sizes = Sizes {
            context,
            ..request.sizes
        };
        let cost = figures.cost(&sizes, &request.keep);
        Estimate {
            context,
            cost,
            fits: cost.total() <= budget,
        }
    };
    contexts.into_iter().map(estimate).collect()
}
