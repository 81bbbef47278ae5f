//! What could be had, held against this machine: which variants its memory can hold, what each published file would take
//! here, and which are installed.

use std::sync::Arc;

use super::Setup;
use super::budget::Budget;
use crate::backend::{CatalogEntry, CatalogMemory, CatalogReport, Member};
use crate::chat::Modalities;
use crate::config::Models;
use crate::gemma::model_shape::ModelShape;
use crate::gemma::picture;
use crate::gemma::variant::Variant;
use crate::memory::fit::{self, Candidate};
use crate::store::catalog::{
    Ask, Catalogs, Entry, Machine, Offers, Place, Resolved, Unresolved, read_all, resolve,
};
use crate::store::family::Published;
use crate::store::{self, Model};

/// What is needed to find the files that a name means.
#[derive(Clone, Debug)]
pub struct PullBasis {
    pub offers: Arc<Offers>,
    pub machine: Machine,
    /// Names that the configuration gives `auto`.
    pub auto_names: Vec<String>,
}

/// The built-in catalog and those that the configuration names. Blocks on the disk; a catalog that is passed over is logged.
pub(super) fn read(models: &Models) -> Arc<Catalogs> {
    let place = models.catalog_directory.as_deref().map(|folder| Place {
        folder,
        key: &models.catalog_key,
    });
    let catalogs = read_all(place.as_ref());
    for broken in &catalogs.broken {
        tracing::warn!(path = %broken.path.display(), reason = broken.reason, "this catalog is passed over");
    }
    Arc::new(catalogs)
}

impl Setup {
    /// What a name is resolved against, with the memory that is free now. Blocks on the disk.
    pub(super) fn pull_basis(&self) -> PullBasis {
        let offers = self.catalogs.offers();
        PullBasis {
            machine: Machine {
                fits: self.fitting(&offers, &self.budget()),
                disk: self.disk(),
            },
            offers: Arc::new(offers),
            auto_names: self.models.auto_names.clone(),
        }
    }

    /// Bytes that the first model directory has room for.
    fn disk(&self) -> Option<u64> {
        let directory = self.models.directories.first()?;
        // One that is not made yet lies on the disk of the directory above it.
        let there = directory.ancestors().find(|path| path.is_dir())?;
        store::free_bytes(there).ok()
    }

    /// The published variants that fit into `budget`, the best first: those that can have the context that is asked for, then
    /// those that can have half of it, and so on.
    fn fitting(&self, offers: &Offers, budget: &Budget) -> Vec<Variant> {
        let mut candidates: Vec<_> = offers
            .variants
            .iter()
            .map(|one| self.published(one, &one.figures, projector_of(offers, one.variant)))
            .collect();
        let mut fitting = vec![];
        while let Some(choice) = fit::choose(&candidates, &self.fit_request(), budget.bytes) {
            fitting.extend(Variant::named(choice.id));
            candidates.retain(|candidate| candidate.id != choice.id);
        }
        fitting
    }

    fn published<'a>(
        &self,
        one: &'a Published,
        figures: &'a ModelShape,
        projector: u64,
    ) -> Candidate<'a> {
        Candidate {
            id: one.variant.id(),
            rank: self.rank(one.variant),
            size: figures.weights(),
            figures,
            context_limit: one.context_limit,
            projector,
            needs_projector: false,
            drafter: 0,
            picture_step: match projector > 0 && !one.variant.is_small() {
                true => picture::USUAL_BUDGET,
                false => 0,
            },
            has_packed_file: self.has_packed_file(one.variant.id(), figures),
        }
    }
}

/// Bytes of the projector that a variant's first file has; 0 if that is not known.
fn projector_of(offers: &Offers, variant: Variant) -> u64 {
    let first = offers.entries().find(|entry| entry.variant() == variant);
    let projector = first.and_then(|entry| entry.projector);
    projector.and_then(|(_, file)| file.bytes).unwrap_or(0)
}

/// Everything that could be had. Blocks on the disk.
pub(super) fn report(setup: &Setup, models: &[Model]) -> CatalogReport {
    let budget = setup.budget();
    let offers = setup.catalogs.offers();
    let entries = offers
        .entries()
        .map(|entry| describe(setup, &offers, models, &entry, &budget));
    let refused = offers.refused.iter().map(|one| Member {
        name: one.name.clone(),
        reason: one.reason.clone(),
    });
    let broken = setup.catalogs.broken.iter().map(|one| Member {
        name: one.path.display().to_string(),
        reason: one.reason.clone(),
    });
    CatalogReport {
        free: budget.room.free,
        budget: budget.bytes,
        directory: setup.models.directories.first().cloned(),
        disk: setup.disk(),
        automatic: automatic(setup, &offers, &budget),
        entries: entries.collect(),
        refused: refused.collect(),
        passed_over: broken.collect(),
    }
}

/// What `gemmactl pull auto` would fetch.
fn automatic(setup: &Setup, offers: &Offers, budget: &Budget) -> Option<String> {
    let machine = Machine {
        fits: setup.fitting(offers, budget),
        disk: setup.disk(),
    };
    match resolve(offers, &asked("auto"), &machine) {
        Ok(Resolved::Pull(pull)) => Some(pull.id),
        _ => None,
    }
}

fn asked(what: &str) -> Ask<'_> {
    Ask {
        what,
        with: None,
        quantization: None,
        hub: None,
    }
}

fn describe(
    setup: &Setup,
    offers: &Offers,
    models: &[Model],
    entry: &Entry<'_>,
    budget: &Budget,
) -> CatalogEntry {
    let id = entry.id();
    let published = offers.published(entry.variant());
    let sees = |of: fn(&Published) -> bool| entry.projector.is_some() && published.is_some_and(of);
    let installed = models.iter().any(|model| model.id == id);
    CatalogEntry {
        variant: entry.variant().id(),
        repository: entry.repository.name.clone(),
        revision: entry.repository.revision.clone(),
        file: entry.file.name.clone(),
        quantization: entry.file.quantization.clone(),
        context_limit: published.map_or(0, |one| one.context_limit),
        modalities: Modalities {
            image: sees(|one| one.senses.image),
            audio: sees(|one| one.senses.audio),
        },
        drafter: entry.drafter.is_some(),
        licence: published.map(|one| one.licence.clone()),
        size: entry.model_bytes(),
        download: entry.bytes(),
        memory: published.map(|one| memory(setup, one, entry, budget)),
        installed,
        id,
    }
}

/// What a published file would take here, in the largest context that fits, or else at the least.
fn memory(setup: &Setup, one: &Published, entry: &Entry<'_>, budget: &Budget) -> CatalogMemory {
    let figures = scaled(one, entry.model_bytes());
    let projector = entry
        .projector
        .and_then(|(_, file)| file.bytes)
        .unwrap_or(0);
    let candidate = [setup.published(one, &figures, projector)];
    let request = setup.fit_request();
    let fitting = fit::choose(&candidate, &request, budget.bytes);
    let choice = fitting.or_else(|| fit::smallest(&candidate, &request));
    CatalogMemory {
        fits: fitting.is_some(),
        context: choice.map_or(0, |choice| choice.sizes.context),
        total: choice.map_or(0, |choice| choice.total),
        unevictable: choice.map_or(0, |choice| choice.cost.unevictable()),
        with_projector: choice.is_some_and(|choice| choice.with_projector) && projector > 0,
    }
}

/// The variant's figures for a file of so many bytes: other types of weights are smaller or larger alike.
fn scaled(one: &Published, bytes: Option<u64>) -> ModelShape {
    let (figures, whole) = (one.figures, u128::from(one.figures.weights().max(1)));
    let Some(bytes) = bytes else { return figures };
    let scale = |part: u64| {
        let scaled = u128::from(part) * u128::from(bytes) / whole;
        u64::try_from(scaled).unwrap_or(u64::MAX)
    };
    ModelShape {
        layers: scale(figures.layers),
        head: scale(figures.head),
        per_layer: scale(figures.per_layer),
        experts: scale(figures.experts),
        ..figures
    }
}

/// What to do about a name that no installed model has, for a message: fetch what the catalogs have by it, or nothing,
/// because it cannot be run. What an address has, nobody knows before.
pub(super) fn hint(offers: &Offers, name: &str) -> Option<String> {
    // Only what somebody named: any of the family is no name.
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-:/".contains(&b);
    let plain = Some(name.trim()).filter(|name| name.bytes().all(plain));
    let is_address = |name: &&str| name.starts_with("https://") || name.starts_with("hf.co/");
    let fetches = |name: &str| format!("`gemmactl pull {name}` fetches it");
    match resolve(offers, &asked(name), &Machine::default()) {
        Ok(Resolved::Pull(pull)) if pull.variant.is_some() => {
            Some(fetches(plain.unwrap_or(&pull.id)))
        }
        Ok(_) => plain.filter(is_address).map(fetches),
        Err(Unresolved::Refused(reason)) if offers.refuses(name) => Some(reason),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_catalogs_know_have_a_hint() {
        let offers = Offers::built_in();
        let said = |name: &str| hint(&offers, name);
        assert_eq!(
            said("e2b").as_deref(),
            Some("`gemmactl pull e2b` fetches it")
        );
        let odd = said("Gemma 4 E2B").unwrap();
        assert_eq!(odd, "`gemmactl pull gemma-4-e2b_q4_0-it` fetches it");
        assert!(said("diffusiongemma").unwrap().contains("by diffusion"));
        for address in ["https://h.example/x.gguf", "hf.co/acme/x:Q4_0"] {
            assert_eq!(
                said(address),
                Some(format!("`gemmactl pull {address}` fetches it"))
            );
        }
        for name in [
            "auto",
            "gemma4",
            "gpt-4o",
            "",
            "acme/x",
            "https://h.example/x.gguf?a=$(b)",
        ] {
            assert_eq!(said(name), None, "{name}");
        }
    }
}
