//! The limits of a plan. Pure.

use crate::ipc::LoadPlan;

/// Sequences at most.
const MAX_SLOTS: u32 = 64;
/// Tokens of one step at most.
const MAX_BATCH: u32 = 4096;
/// Milliseconds of one step at most.
const MAX_STEP_TIME: u32 = 60_000;
/// Tokens of context at most, for all slots together.
const MAX_CONTEXT: u32 = 1 << 22;
/// Threads at most, which is ggml's own limit.
const MAX_THREADS: usize = 512;

/// The error names the value and its limits.
pub(super) fn check(plan: &LoadPlan) -> Result<(), String> {
    between("slots", plan.slots, 1, MAX_SLOTS)?;
    between("batch", plan.batch, 1, MAX_BATCH)?;
    between(
        "context × slots",
        plan.context.saturating_mul(plan.slots),
        1,
        MAX_CONTEXT,
    )?;
    between("floor", plan.floor, 1, u32::MAX)?;
    between("step_time_ms", plan.step_time_ms, 1, MAX_STEP_TIME)?;
    between("max_output", plan.max_output, 1, u32::MAX)?;
    between(
        "CPUs",
        u32::try_from(plan.cpus.len()).unwrap_or(u32::MAX),
        1,
        MAX_THREADS as u32,
    )
}

fn between(name: &str, value: u32, low: u32, high: u32) -> Result<(), String> {
    if (low..=high).contains(&value) {
        Ok(())
    } else {
        Err(format!(
            "{name} is {value}; it must be between {low} and {high}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::MemoryPlan;

    #[test]
    fn absurd_plans_are_refused_by_name() {
        let good = LoadPlan {
            name: String::new(),
            files: vec![1],
            context: 4096,
            floor: 4096,
            slots: 2,
            batch: 128,
            step_time_ms: 250,
            speculation: Default::default(),
            cpus: vec![0],
            max_output: 10,
            projector: None,
            drafter: None,
            memory: MemoryPlan::default(),
            vocabulary: Default::default(),
            prompts: None,
            system_prompts: vec![],
        };
        assert_eq!(check(&good), Ok(()));
        for (name, bad) in [
            (
                "slots",
                LoadPlan {
                    slots: 0,
                    ..good.clone()
                },
            ),
            (
                "slots",
                LoadPlan {
                    slots: 65,
                    ..good.clone()
                },
            ),
            (
                "batch",
                LoadPlan {
                    batch: 0,
                    ..good.clone()
                },
            ),
            (
                "context",
                LoadPlan {
                    context: u32::MAX,
                    ..good.clone()
                },
            ),
            (
                "context",
                LoadPlan {
                    context: 0,
                    ..good.clone()
                },
            ),
            (
                "floor",
                LoadPlan {
                    floor: 0,
                    ..good.clone()
                },
            ),
            (
                "CPUs",
                LoadPlan {
                    cpus: vec![],
                    ..good.clone()
                },
            ),
            (
                "max_output",
                LoadPlan {
                    max_output: 0,
                    ..good.clone()
                },
            ),
        ] {
            let error = check(&bad).unwrap_err();
            assert!(error.starts_with(name), "{error}");
        }
    }
}
