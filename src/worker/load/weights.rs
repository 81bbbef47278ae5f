//! The model's weights: mapped, packed or found packed, and on their way into memory.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicBool;

use crate::gemma::ARCHITECTURE;
use crate::gemma::layout::Layout;
use crate::ipc::{LoadPlan, Packing, Repack};
use crate::worker::llama::Model;
use crate::worker::llama::packing::Outcome;
use crate::worker::progress::LoadProgress;
use crate::worker::residency::{PackedMap, Packer, Readiness, Warm};
use crate::worker::weight_files::WeightFiles;

/// A model whose weights are where they should be, or on their way.
pub(super) struct Weights {
    pub(super) model: &'static Model,
    pub(super) packing: Packing,
    pub(super) packed: Option<PackedMap>,
    pub(super) unsaved: Option<File>,
    pub(super) readiness: Option<Readiness>,
}

/// Loads the model in these files. `files` are those for packed weights.
pub(super) fn load(
    plan: &LoadPlan,
    model: &WeightFiles,
    files: impl Iterator<Item = OwnedFd>,
    ending: &AtomicBool,
    progress: &LoadProgress,
) -> Result<Weights, String> {
    let (tokens, plan) = (plan.vocabulary.count, &plan.memory);
    let warm = |layout: &Layout, packed: Option<&PackedMap>| -> Result<Readiness, String> {
        let progress = progress.clone();
        let model = model
            .try_clone()
            .map_err(|error| format!("the model's descriptors cannot be copied: {error}"))?;
        Ok(
            Warm::plan(layout, packed, model, plan.read_ahead, plan.lock)
                .start(move |chunks, of| progress.warmed(chunks, of)),
        )
    };
    let mut packer = Packer::new(plan, files);
    // While the model is being loaded.
    let early = packer
        .ready()
        .map(|packed| warm(&packed.mark(&plan.layout), Some(packed)));
    let mut repack = plan.repack;
    let (model, outcome) = loop {
        match Model::load(model, tokens, packer.target(), repack, ending, &|share| {
            progress.loaded(share);
        }) {
            (Err(_), Outcome::Wrong { why }) => packer.reject(why),
            (Err(_), Outcome::NoFile { why }) => {
                packer.leave(why);
                repack = Repack::Never;
            }
            (model, outcome) => break (model?, outcome),
        }
    };
    check_architecture(&model)?;
    let (packing, packed, unsaved) = packer.settle(outcome);
    let readiness = match (&packing, &packed, early) {
        (Packing::Reused, _, Some(early)) => Some(early?),
        (Packing::New { .. }, Some(packed), _) => Some(warm(&packed.mark(&plan.layout), None)?),
        (Packing::Nothing | Packing::Left { .. }, ..) => Some(warm(&plan.layout, None)?),
        // Which of the file's weights are in memory already is not known.
        _ => None,
    };
    Ok(Weights {
        model: Box::leak(Box::new(model)),
        packing,
        packed,
        unsaved,
        readiness,
    })
}

fn check_architecture(model: &Model) -> Result<(), String> {
    let architecture = model.meta("general.architecture").unwrap_or_default();
    if architecture == ARCHITECTURE {
        return Ok(());
    }
    Err(format!(
        "the model's file holds a `{architecture}` model; only `{ARCHITECTURE}` is served"
    ))
}
