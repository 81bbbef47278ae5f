//! Which model answers a request, and how large it is run: what its name can mean (`names`), held
//! against the memory that is free now.

use super::Setup;
use super::budget::Budget;
use super::growth::Growth;
use super::names::{self, Meant, Names};
use crate::backend::Failure;
use crate::chat::{ChatError, Modalities, Speculation};
use crate::gemma::model_shape::{LOGIT, ModelShape, PackedWeights, Retention, Sizes};
use crate::gemma::picture;
use crate::gemma::variant::Variant;
use crate::ipc::ANSWER_ROOM;
use crate::memory::fit::{self, Candidate, Choice, FitRequest};
use crate::memory::probe;
use crate::store::Model;
use crate::sys::topology;

/// The share of the experts that should be in memory, in percent. The others are fetched as they
/// are chosen; with a third of them a token waits for the disk about as long as for the CPU.
const EXPERTS: u64 = 33;
/// Slots for each CPU, where their number is left to us.
const SLOTS_OF_CPU: u32 = 2;

/// What a request asks of the model that answers it, and which one was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ModelRequest {
    /// As the client named it.
    name: String,
    pub modalities: Modalities,
    /// The chosen model's id.
    pub model: String,
    /// Bytes that it takes at least.
    takes: u64,
    /// Whether the name leaves a choice.
    pub flexible: bool,
    /// The models that were chosen before and cannot be had.
    before: Vec<String>,
}

/// How one model is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placement {
    pub sizes: Sizes,
    /// Whether its projector is loaded as well; `true` without one.
    pub with_projector: bool,
    /// Whether its drafter is; `true` without one.
    pub with_drafter: bool,
    /// Where its packed weights are to be.
    pub packed: PackedWeights,
    /// Whether there is room for them in anonymous memory as well, should the file fail.
    pub fits_in_memory: bool,
    /// Bytes that cannot be evicted.
    pub unevictable: u64,
    pub growth: Growth,
}

/// Bytes of a drafter's context besides: its graph and the buffers of a step, 1.9 MiB with the smallest models.
const DRAFTER_CONTEXT: u64 = 2 << 20;

impl Setup {
    /// The memory that a model may take now.
    pub(super) fn budget(&self) -> Budget {
        let mut room = probe::room();
        room.free = room.free.saturating_sub(self.reserved.bytes());
        Budget::of(room, self.memory.reserve)
    }

    /// Slots that the CPUs are good for: a step of as many tokens takes little longer than one of a token,
    /// and each answer gets its own still.
    fn useful_slots(&self) -> u32 {
        let cpus = super::cpus::choose(&topology::probe(), self.inference.threads);
        SLOTS_OF_CPU * cpus.len() as u32
    }

    /// What the configuration asks of a model, whichever it is.
    pub(super) fn fit_request(&self) -> FitRequest {
        let inference = &self.inference;
        let sizes = Sizes {
            context: inference.counted_context(),
            ceiling: inference.counted_context(),
            slots: inference.least_slots(),
            draft: inference.speculation.most(),
            batch: inference.batch,
            small_kv: inference.small_kv,
        };
        FitRequest {
            sizes,
            most_slots: inference.slots.is_none().then(|| self.useful_slots()),
            least_context: inference.least_context,
            most_context: inference
                .context
                .is_none()
                .then_some(inference.most_context),
            keep: Retention {
                per_layer: self.memory.per_layer,
                experts: EXPERTS,
                packed: PackedWeights::InFile,
            },
        }
    }

    /// The installed model that a client means by `name`, for a request that needs these `modalities`:
    /// of several that it can mean the best that fits now.
    pub(super) fn resolve(
        &self,
        models: &[Model],
        loaded: Option<&str>,
        name: &str,
        modalities: Modalities,
    ) -> Result<Model, Failure> {
        let names = Names {
            models,
            unsound: &self.unsound,
            loaded,
            default: &self.models.default,
            auto_names: &self.models.auto_names,
            directories: &self.models.directories,
        };
        match names.resolve(name, modalities)? {
            Meant::One(model) => Ok(model.clone()),
            Meant::BestOf(models) => self.best_of(&models, modalities, &self.budget()),
        }
    }

    /// What a request asks of its model, after `model` was chosen for it. `models` are all that are
    /// installed.
    pub(super) fn model_request(
        &self,
        models: &[Model],
        name: &str,
        modalities: Modalities,
        model: &Model,
    ) -> ModelRequest {
        let flexible = names::exact(models, name).is_none();
        ModelRequest {
            name: name.to_owned(),
            modalities,
            model: model.id.clone(),
            takes: self.takes(model, modalities),
            flexible,
            before: vec![],
        }
    }

    /// Another model for a request that cannot have the one that was chosen for it: of those that
    /// it can mean and that were not chosen before, the best that fits `budget`. If memory was what
    /// was missing it takes no more than that one: what seems to be free was not. If the context was
    /// too small it can have enough. None is chosen twice, so asking again and again comes to an end.
    /// `failure` is returned if there is no such model.
    pub(super) fn choose_another(
        &self,
        models: &[Model],
        request: &ModelRequest,
        budget: &Budget,
        failure: Failure,
    ) -> Result<(Model, ModelRequest), Failure> {
        let of_memory = failure.is_of_memory();
        let context = context_wanted(&failure);
        let mut before = request.before.clone();
        before.push(request.model.clone());
        let mut others = names::candidates(models, &self.models.auto_names, &request.name);
        others.retain(|model| {
            accepts(model, request.modalities)
                && !before.contains(&model.id)
                && (!of_memory || self.takes(model, request.modalities) <= request.takes)
                && context
                    .is_none_or(|tokens| self.reach(model, request.modalities, budget) >= tokens)
        });
        if others.is_empty() {
            return Err(failure);
        }
        self.unsound.leave_out(&mut others);
        let best = self.best_of(&others, request.modalities, budget);
        // How much the others lack is told where memory is what matters.
        let model = best.map_err(|no_room| if of_memory { no_room } else { failure })?;
        let request = ModelRequest {
            before,
            ..self.model_request(models, &request.name, request.modalities, &model)
        };
        Ok((model, request))
    }

    /// Bytes that a model takes at least, if it is to have these modalities.
    fn takes(&self, model: &Model, modalities: Modalities) -> u64 {
        fit::smallest(&[self.candidate(model, modalities)], &self.fit_request())
            .map_or(0, |choice| choice.total)
    }

    /// Tokens of context that one request could come to have, if the model is loaded in this budget.
    fn reach(&self, model: &Model, modalities: Modalities, budget: &Budget) -> u32 {
        let (candidate, request) = (self.candidate(model, modalities), self.fit_request());
        let choice = fit::choose(&[candidate], &request, budget.bytes);
        let widened = choice.map(|choice| fit::widen(choice, &candidate, &request, budget.bytes));
        widened.map_or(0, |choice| {
            Growth::of(model, &choice, &request, budget.bytes).reach
        })
    }

    /// The best of them that fits, or how much is missing.
    fn best_of(
        &self,
        models: &[&Model],
        modalities: Modalities,
        budget: &Budget,
    ) -> Result<Model, Failure> {
        let candidates: Vec<_> = models
            .iter()
            .map(|model| self.candidate(model, modalities))
            .collect();
        let request = self.fit_request();
        let chosen = fit::choose(&candidates, &request, budget.bytes);
        let smallest = || fit::smallest(&candidates, &request);
        let chosen = chosen
            .or_else(|| smallest().filter(|_| self.memory.allow_overcommit))
            .map(|choice| choice.id);
        let found = chosen.and_then(|id| models.iter().find(|model| model.id == id));
        found
            .map(|model| (*model).clone())
            .ok_or_else(|| no_room(smallest(), budget, None))
    }

    /// How `model` is run in the memory that is free now, after it ran out of memory `shortages`
    /// times, for requests that need these modalities. `others` are named if it does not fit.
    pub(super) fn fit(
        &self,
        model: &Model,
        others: &[Model],
        shortages: u32,
        modalities: Modalities,
    ) -> Result<Placement, Failure> {
        let request = self.fit_request().after(shortages);
        let budget = self.budget();
        let candidate = [self.candidate(model, modalities)];
        let choice = fit::choose(&candidate, &request, budget.bytes);
        let smallest = || fit::smallest(&candidate, &request);
        // Weights can be evicted, the rest cannot.
        let overcommitted = || {
            smallest().filter(|choice| {
                self.memory.allow_overcommit && choice.cost.unevictable() <= budget.room.free
            })
        };
        let placement = |choice: Choice<'_>| {
            let in_memory = Retention {
                packed: PackedWeights::InMemory,
                ..request.keep
            };
            let more = model.figures.cost(&choice.sizes, &in_memory).total() - choice.cost.total();
            Placement {
                sizes: choice.sizes,
                with_projector: choice.with_projector,
                with_drafter: choice.with_drafter,
                packed: choice.packed,
                fits_in_memory: choice.total + more <= budget.bytes,
                unevictable: choice.cost.unevictable(),
                growth: Growth::of(model, &choice, &request, budget.bytes),
            }
        };
        let widened =
            choice.map(|choice| fit::widen(choice, &candidate[0], &request, budget.bytes));
        widened
            .or_else(overcommitted)
            .map(placement)
            .ok_or_else(|| {
                let others: Vec<_> = others
                    .iter()
                    .filter(|other| accepts(other, modalities))
                    .map(|other| self.candidate(other, modalities))
                    .collect();
                let instead =
                    fit::choose(&others, &request, budget.bytes).map(|choice| choice.id.to_owned());
                no_room(smallest(), &budget, instead)
            })
    }

    fn candidate<'a>(&self, model: &'a Model, modalities: Modalities) -> Candidate<'a> {
        let projector = model
            .projector
            .as_ref()
            .map_or(0, |projector| projector.size);
        Candidate {
            id: &model.id,
            rank: self.rank(model.variant),
            size: model.size(),
            figures: &model.figures,
            context_limit: model.context_limit,
            projector,
            needs_projector: modalities.any(),
            drafter: self.drafter_bytes(model),
            // The larger variants read a picture in one step.
            picture_step: if projector > 0 && !model.variant.is_small() {
                picture::USUAL_BUDGET
            } else {
                0
            },
            has_packed_file: self.has_packed_file(&model.id, &model.figures),
        }
    }

    /// Bytes that a model's drafter takes, 0 where none is used: its weights, the logits behind a token, and
    /// its context.
    pub(super) fn drafter_bytes(&self, model: &Model) -> u64 {
        let drafter = model.drafter.as_ref();
        let used = drafter.filter(|_| self.inference.speculation != Speculation::Off);
        used.map_or(0, |drafter| {
            drafter.size + drafter.tokens * LOGIT + DRAFTER_CONTEXT
        })
    }

    /// Whether a file can hold the packed weights of a model, as far as that is known: if not, that
    /// is found when its files are opened.
    pub(super) fn has_packed_file(&self, id: &str, figures: &ModelShape) -> bool {
        let bytes = figures.layers + figures.experts;
        self.memory.cache_directory.is_some()
            && self
                .cache_space
                .get()
                .is_none_or(|space| space.has_file(id, bytes))
    }

    /// Why no file can hold packed weights, if none can.
    pub(super) fn why_no_packed_file(&self) -> Option<String> {
        if self.memory.cache_directory.is_none() {
            return Some("`cache-directory` is not set".to_owned());
        }
        self.cache_space.get()?.why
    }

    /// The higher the better: `prefer` in its order, then the larger variants.
    pub(super) fn rank(&self, variant: Variant) -> usize {
        let preferred = self
            .models
            .prefer
            .iter()
            .rev()
            .position(|name| Variant::named(name) == Some(variant));
        let published = Variant::PUBLISHED
            .iter()
            .position(|other| *other == variant)
            .map_or(0, |place| place + 1);
        preferred.map_or(published, |place| Variant::PUBLISHED.len() + 1 + place)
    }
}

/// What a model accepts besides text.
pub(super) fn accepted(model: &Model) -> Modalities {
    Modalities {
        image: model.accepts_image(),
        audio: model.accepts_audio(),
    }
}

/// Whether a model accepts all that is `needed`.
pub(super) fn accepts(model: &Model, needed: Modalities) -> bool {
    needed.missing_in(accepted(model)).is_none()
}

/// The model, unless it does not accept all that is `needed`; says what is missing.
pub(super) fn check(model: Model, needed: Modalities) -> Result<Model, Failure> {
    let Some(modality) = needed.missing_in(accepted(&model)) else {
        return Ok(model);
    };
    let reason = match &model.projector {
        None => {
            let folder = model.path().parent().unwrap_or(model.path()).display();
            format!(
                "`{}` has no projector beside it; put the model's mmproj file (GGUF, architecture `clip`, {} wide) into {folder}",
                model.id, model.width
            )
        }
        Some(projector) => format!(
            "the projector of `{}`, {}, is for pictures only",
            model.id,
            projector.path.display()
        ),
    };
    Err(Failure::Chat(ChatError::UnsupportedModality {
        modality,
        reason,
    }))
}

/// Tokens of context that a request needs which was refused for want of them.
fn context_wanted(failure: &Failure) -> Option<u32> {
    match failure {
        Failure::Chat(ChatError::PromptTooLong { prompt_tokens, .. }) => {
            Some(prompt_tokens.saturating_add(ANSWER_ROOM))
        }
        _ => None,
    }
}

fn no_room(smallest: Option<Choice<'_>>, budget: &Budget, instead: Option<String>) -> Failure {
    let (model, needs) = smallest.map_or_else(
        || (String::new(), 0),
        |choice| (choice.id.to_owned(), choice.total),
    );
    Failure::NoRoom {
        model,
        needs,
        free: budget.room.free,
        reserve: budget.reserve,
        bound: budget.bound(),
        instead,
    }
}

#[cfg(test)]
mod tests;
