//! Which model a name means, and how large it is run: what is installed, held against the memory that is free now.

use super::{Failure, ModelInfo, Setup};
use crate::chat::{ChatError, ChatRequest};
use crate::gemma::figures::{Keep, Sizes};
use crate::gemma::picture;
use crate::gemma::variant::Variant;
use crate::memory::fit::{self, Candidate, Choice, Wishes};
use crate::memory::probe::{self, Bound, Room};

/// The share of the experts that should be in memory, in percent. The others are fetched as they are chosen; with a
/// third of them a token waits for the disk about as long as for the CPU.
const EXPERTS: u64 = 33;
/// What is left to other programs by default: this part of the RAM, within these bytes.
const RESERVE: u64 = 16;
const LEAST_RESERVE: u64 = 64 << 20;
const MOST_RESERVE: u64 = 1 << 30;

/// The memory that a model may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    pub bytes: u64,
    /// Bytes that are left to others.
    pub reserve: u64,
    pub room: Room,
}

impl Budget {
    /// What `room` leaves for a model. `reserve`: `None` for the default.
    pub fn of(room: Room, reserve: Option<u64>) -> Self {
        let reserve = reserve.unwrap_or((room.whole / RESERVE).clamp(LEAST_RESERVE, MOST_RESERVE));
        Self { bytes: room.free.saturating_sub(reserve), reserve, room }
    }

    /// What sets the bound, behind the number of free bytes.
    pub fn bound(&self) -> String {
        match &self.room.bound {
            Bound::Machine => "available on this machine".to_owned(),
            Bound::Group(group) => format!("left of the limit of the control group {}", group.display()),
        }
    }
}

/// What a request asks of a model's senses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Senses {
    pub sight: bool,
    pub hearing: bool,
}

/// How one model is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub sizes: Sizes,
    pub sees: bool,
    /// Bytes that cannot be evicted.
    pub unevictable: u64,
}

impl Setup {
    /// The memory that a model may take now.
    pub(super) fn budget(&self) -> Budget {
        Budget::of(probe::room(), self.memory.reserve)
    }

    /// What is asked of a model, whichever it is.
    pub(super) fn wishes(&self) -> Wishes {
        let inference = &self.inference;
        let sizes = Sizes { context: inference.context, slots: inference.slots, batch: inference.batch, small_kv: inference.small_kv };
        Wishes { sizes, least_context: inference.least_context, keep: Keep { per_layer: self.memory.per_layer, experts: EXPERTS } }
    }

    /// The installed model that a client means by `name`: an id in any case, a variant's name in any usual spelling, or
    /// `auto`. Of several those that have the `senses` that are needed, if any has; of these the one that is `loaded`, else
    /// the best that fits now.
    pub(super) fn resolve(&self, models: &[ModelInfo], loaded: Option<&str>, name: &str, senses: Senses) -> Result<ModelInfo, Failure> {
        if models.is_empty() {
            return Err(Failure::NoModels { directories: self.models.directories.iter().map(|d| d.display().to_string()).collect() });
        }
        if let Some(model) = models.iter().find(|model| model.id.eq_ignore_ascii_case(name)) {
            return Ok(model.clone());
        }
        let variant = if name.eq_ignore_ascii_case("auto") { None } else { Variant::named(name) };
        let unknown = || Failure::UnknownModel { asked: name.to_owned(), known: models.iter().map(|m| m.id.clone()).collect() };
        let mut meant: Vec<_> = models.iter().filter(|model| variant.is_none_or(|variant| model.variant == variant)).collect();
        if meant.is_empty() || (variant.is_none() && !name.eq_ignore_ascii_case("auto")) {
            return Err(unknown());
        }
        if meant.iter().any(|model| senses.are_had_by(model)) {
            meant.retain(|model| senses.are_had_by(model));
        }
        if let Some(model) = meant.iter().find(|model| Some(model.id.as_str()) == loaded) {
            return Ok((*model).clone());
        }
        if variant.is_none() && !self.models.default.eq_ignore_ascii_case("auto") {
            let default = self.resolve(models, None, &self.models.default, senses)?;
            if meant.contains(&&default) {
                return Ok(default);
            }
        }
        self.best_of(meant.into_iter())
    }

    /// The best of them that fits, or how much is missing.
    fn best_of<'a>(&self, models: impl Iterator<Item = &'a ModelInfo> + Clone) -> Result<ModelInfo, Failure> {
        let candidates: Vec<_> = models.clone().map(|model| self.candidate(model)).collect();
        let (wishes, budget) = (self.wishes(), self.budget());
        let chosen = fit::choose(&candidates, &wishes, budget.bytes);
        let smallest = || fit::smallest(&candidates, &wishes);
        let chosen = chosen.or_else(|| smallest().filter(|_| self.memory.allow_overcommit)).map(|choice| choice.id);
        let found = chosen.and_then(|id| models.clone().find(|model| model.id == id));
        found.cloned().ok_or_else(|| no_room(smallest(), &budget, None))
    }

    /// How `model` is run in the memory that is free now, after it ran out of memory `shortages` times. `others` are
    /// named if it does not fit.
    pub(super) fn fit(&self, model: &ModelInfo, others: &[ModelInfo], shortages: u32) -> Result<Run, Failure> {
        let (wishes, budget, candidate) = (self.wishes().after(shortages), self.budget(), [self.candidate(model)]);
        let choice = fit::choose(&candidate, &wishes, budget.bytes);
        let smallest = || fit::smallest(&candidate, &wishes);
        // Weights can be evicted, the rest cannot.
        let overcommitted = || smallest().filter(|choice| self.memory.allow_overcommit && choice.cost.unevictable() <= budget.room.free);
        choice.or_else(overcommitted).map(run).ok_or_else(|| {
            let others: Vec<_> = others.iter().map(|model| self.candidate(model)).collect();
            let instead = fit::choose(&others, &wishes, budget.bytes).map(|choice| choice.id.to_owned());
            no_room(smallest(), &budget, instead)
        })
    }

    fn candidate<'a>(&self, model: &'a ModelInfo) -> Candidate<'a> {
        let projector = model.projector.as_ref().map_or(0, |projector| projector.size);
        Candidate {
            id: &model.id,
            rank: self.rank(model.variant),
            size: model.size,
            figures: &model.figures,
            context_limit: model.context_limit,
            projector,
            // The larger variants read a picture in one step.
            picture_step: if projector > 0 && !model.variant.is_small() { picture::USUAL_BUDGET } else { 0 },
        }
    }

    /// The higher the better: `prefer` in its order, then the larger variants.
    fn rank(&self, variant: Variant) -> usize {
        let preferred = self.models.prefer.iter().rev().position(|name| Variant::named(name) == Some(variant));
        let published = Variant::PUBLISHED.iter().position(|other| *other == variant).map_or(0, |place| place + 1);
        preferred.map_or(published, |place| Variant::PUBLISHED.len() + 1 + place)
    }
}

impl Senses {
    /// Those that it takes to read a request.
    pub(super) fn of(request: &ChatRequest) -> Self {
        Self { sight: request.shows(), hearing: request.sounds() }
    }

    fn are_had_by(self, model: &ModelInfo) -> bool {
        (!self.sight || model.sees()) && (!self.hearing || model.hears())
    }

    /// The model, unless it lacks one of them; says what is missing.
    pub(super) fn check(self, model: ModelInfo) -> Result<ModelInfo, Failure> {
        if self.are_had_by(&model) {
            return Ok(model);
        }
        let reason = match &model.projector {
            None => {
                let folder = model.path.parent().unwrap_or(&model.path).display();
                format!(
                    "`{}` has no projector beside it; put the model's mmproj file (GGUF, architecture `clip`, {} wide) into {folder}",
                    model.id, model.width
                )
            }
            Some(projector) => format!("the projector of `{}`, {}, is for pictures only", model.id, projector.path.display()),
        };
        let blind = self.sight && !model.sees();
        Err(Failure::Chat(if blind { ChatError::CannotSee { reason } } else { ChatError::CannotHear { reason } }))
    }
}

fn run(choice: Choice<'_>) -> Run {
    Run { sizes: choice.sizes, sees: choice.sees, unevictable: choice.cost.unevictable() }
}

fn no_room(smallest: Option<Choice<'_>>, budget: &Budget, instead: Option<String>) -> Failure {
    let (model, needs) = smallest.map_or_else(|| (String::new(), 0), |choice| (choice.id.to_owned(), choice.total));
    Failure::NoRoom { model, needs, free: budget.room.free, reserve: budget.reserve, bound: budget.bound(), instead }
}
