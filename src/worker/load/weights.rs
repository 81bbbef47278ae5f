//! The model's weights: mapped, packed or found packed, and on their way into memory.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicBool;

use rustix::fs::{Advice, fadvise};

use crate::gemma::layout::Layout;
use crate::gemma::{ARCHITECTURE, DRAFTER_ARCHITECTURE};
use crate::ipc::{DrafterPlan, LoadPlan, Packing, Repack};
use crate::worker::llama::packing::Outcome;
use crate::worker::llama::{ClusterFile, DrafterModel, Model};
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
    let (kind, plan) = ((ARCHITECTURE, plan.vocabulary.count), &plan.memory);
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
        match Model::load(model, kind, packer.target(), repack, ending, &|share| {
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
    check_architecture(&model, ARCHITECTURE)?;
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

/// Loads the drafter in these files for a vocabulary of so many tokens. Its weights stay where they are: a
/// guess reads all of them once, which packing makes no faster.
pub(super) fn load_drafter(
    files: Vec<OwnedFd>,
    plan: &DrafterPlan,
    tokens: u32,
    ending: &AtomicBool,
) -> Result<&'static DrafterModel, String> {
    let mut files = files.into_iter();
    let file = WeightFiles::take(&[plan.bytes], &mut files)?;
    let clusters = files.next().map(File::from);
    for file in file.files().chain(&clusters) {
        // Only the first guess would be faster.
        let _ = fadvise(file, 0, None, Advice::WillNeed);
    }
    let kind = (DRAFTER_ARCHITECTURE, tokens);
    let (model, _) = Model::load(&file, kind, None, Repack::Never, ending, &|_| {});
    let model = model?;
    check_architecture(&model, DRAFTER_ARCHITECTURE)?;
    let clusters = plan.clusters.zip(clusters);
    let clusters = clusters.map(|(places, file)| ClusterFile::new(&file, places, tokens));
    let model = DrafterModel {
        clusters: clusters.transpose()?,
        model,
    };
    Ok(Box::leak(Box::new(model)))
}

fn check_architecture(model: &Model, wanted: &str) -> Result<(), String> {
    let architecture = model.meta("general.architecture").unwrap_or_default();
    if architecture == wanted {
        return Ok(());
    }
    Err(format!(
        "the file holds a `{architecture}` model; what can be used is `{wanted}`"
    ))
}
