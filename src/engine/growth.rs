//! How far the context of a loaded model may grow in the memory that is free. Pure.
//!
//! A worker has what its plan counts for each slot; what a request needs beyond that it asks for. Memory
//! that was granted is taken as tokens are read, so what is free says only of what the slots hold
//! already that it is paid for.

use crate::gemma::model_shape::{Cost, ModelShape, Sizes};
use crate::ipc::ContextUse;
use crate::memory::fit::{Choice, FitRequest};
use crate::store::Model;

/// More is granted in pieces of so many tokens, so that a long answer asks seldom.
const PIECE: u64 = 2048;

/// What a token of context takes, and what comes before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Growth {
    /// Tokens that each slot has in any case.
    pub floor: u32,
    pub slots: u32,
    /// Bytes of a token.
    pub token: u64,
    /// Bytes that look free and are needed: weights, which are in the page cache if anywhere, and what a
    /// step may take that was never so long.
    pub besides: u64,
    /// Tokens that one request could have when the model was loaded.
    pub reach: u32,
    /// Tokens of a step.
    pub step: u32,
}

impl Growth {
    /// Of a model that is run like this, in a budget of so many bytes.
    pub fn of(model: &Model, choice: &Choice<'_>, request: &FitRequest, budget: u64) -> Self {
        let (sizes, cost) = (&choice.sizes, &choice.cost);
        let left = budget.saturating_sub(choice.total);
        Self {
            floor: request.floor(sizes.context),
            slots: sizes.slots,
            token: model.figures.token_bytes(sizes),
            besides: evictable(choice.total, cost) + cost.buffers + cost.checkpoints,
            reach: reach(&model.figures, sizes, left),
            step: sizes.batch,
        }
    }

    /// Tokens that all slots together may hold without asking.
    pub fn at_first(&self) -> u64 {
        u64::from(self.floor) * u64::from(self.slots)
    }

    /// Tokens that all slots together may hold, of those that they want: what they may already, or
    /// more if a budget of so many bytes has room for it.
    pub fn grant(&self, usage: ContextUse, budget: u64) -> u64 {
        let ContextUse {
            held,
            granted,
            wanted,
        } = usage;
        let more = budget.saturating_sub(self.besides) / self.token.max(1);
        let room = held.saturating_add(more);
        wanted
            .div_ceil(PIECE)
            .saturating_mul(PIECE)
            .min(room)
            .max(granted)
    }
}

/// Tokens that one slot can have, if so many bytes are left beside what is counted for all.
pub(super) fn reach(figures: &ModelShape, sizes: &Sizes, left: u64) -> u32 {
    let more = left / figures.token_bytes(sizes).max(1);
    let reach = u64::from(sizes.context).saturating_add(more);
    u32::try_from(reach).unwrap_or(u32::MAX).min(sizes.ceiling)
}

/// Bytes of weights that can be read again.
fn evictable(total: u64, cost: &Cost) -> u64 {
    total.saturating_sub(cost.unevictable())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_free_bounds_what_is_granted() {
        let growth = Growth {
            floor: 8192,
            slots: 2,
            token: 1000,
            besides: 5_000_000,
            reach: 0,
            step: 0,
        };
        let grant = |held, granted, wanted, budget| {
            growth.grant(
                ContextUse {
                    held,
                    granted,
                    wanted,
                },
                budget,
            )
        };
        for (held, granted, wanted, budget, expected) in [
            // In pieces.
            (0, 16_384, 30_000, 100_000_000, 30_720),
            // What is held is paid for, the rest of what was granted is not.
            (10_000, 16_384, 30_000, 25_000_000, 30_000),
            (0, 16_384, 30_000, 25_000_000, 20_000),
            // What was granted stays, whatever is free.
            (0, 16_384, 30_000, 0, 16_384),
            (0, 16_384, u64::MAX / 2, 25_000_000, 20_000),
        ] {
            assert_eq!(
                grant(held, granted, wanted, budget),
                expected,
                "{held} {granted} {wanted} {budget}"
            );
        }
    }
}
