//! Which model a name means, and how large it is run: what is installed, held against the memory
//! that is free now.

use super::{Failure, ModelInfo, Setup};
use crate::chat::{ChatError, ChatRequest};
use crate::gemma::figures::{Keep, Sizes};
use crate::gemma::picture;
use crate::gemma::variant::Variant;
use crate::memory::fit::{self, Candidate, Choice, Wishes};
use crate::memory::probe::{self, Bound, Room};

/// The share of the experts that should be in memory, in percent. The others are fetched as they
/// are chosen; with a third of them a token waits for the disk about as long as for the CPU.
const EXPERTS: u64 = 33;
/// What is left to other programs by default: this part of the RAM, within these bytes. Nobody else
/// lives in the group of a service: of a limit it is the same part, however small.
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
        let least = match room.bound {
            Bound::Machine => LEAST_RESERVE,
            Bound::Group(_) => 0,
        };
        let reserve = reserve.unwrap_or((room.whole / RESERVE).clamp(least, MOST_RESERVE));
        Self {
            bytes: room.free.saturating_sub(reserve),
            reserve,
            room,
        }
    }

    /// What sets the bound, behind the number of free bytes.
    pub fn bound(&self) -> String {
        match &self.room.bound {
            Bound::Machine => "available on this machine".to_owned(),
            Bound::Group(group) => {
                format!("left of the limit of the control group {}", group.display())
            }
        }
    }
}

/// What a request asks of a model's senses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Senses {
    pub sight: bool,
    pub hearing: bool,
}

/// What a request asks of the model that answers it, and which one was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    /// As the client named it.
    name: String,
    pub senses: Senses,
    /// The chosen model's id.
    pub model: String,
    /// Bytes that it takes at least.
    takes: u64,
    /// Whether the name leaves a choice.
    pub open: bool,
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
        let mut room = probe::room();
        room.free = room.free.saturating_sub(self.reserved.bytes());
        Budget::of(room, self.memory.reserve)
    }

    /// What is asked of a model, whichever it is.
    pub(super) fn wishes(&self) -> Wishes {
        let inference = &self.inference;
        let sizes = Sizes {
            context: inference.context,
            slots: inference.slots,
            batch: inference.batch,
            small_kv: inference.small_kv,
        };
        Wishes {
            sizes,
            least_context: inference.least_context,
            keep: Keep {
                per_layer: self.memory.per_layer,
                experts: EXPERTS,
            },
        }
    }

    /// The installed model that a client means by `name`: an id in any case, a variant's name in
    /// any usual spelling, or `auto`. Of several those that have the `senses` that are needed, if
    /// any has; of these the one that is `loaded`, else the best that fits now.
    pub(super) fn resolve(
        &self,
        models: &[ModelInfo],
        loaded: Option<&str>,
        name: &str,
        senses: Senses,
    ) -> Result<ModelInfo, Failure> {
        if models.is_empty() {
            return Err(Failure::NoModels {
                directories: self
                    .models
                    .directories
                    .iter()
                    .map(|d| d.display().to_string())
                    .collect(),
            });
        }
        if let Some(model) = models.iter().find(|model| is_named(model, name)) {
            return Ok(model.clone());
        }
        let mut meant = meant(models, name);
        if meant.is_empty() {
            return Err(Failure::UnknownModel {
                asked: name.to_owned(),
                known: models.iter().map(|m| m.id.clone()).collect(),
            });
        }
        if meant.iter().any(|model| senses.are_had_by(model)) {
            meant.retain(|model| senses.are_had_by(model));
        }
        if let Some(model) = meant.iter().find(|model| Some(model.id.as_str()) == loaded) {
            return Ok((*model).clone());
        }
        if is_auto(name) && !is_auto(&self.models.default) {
            let default = self.resolve(models, None, &self.models.default, senses)?;
            if meant.contains(&&default) {
                return Ok(default);
            }
        }
        self.best_of(&meant, senses, &self.budget())
    }

    /// What a request wishes for that `model` was chosen for. `models` are all that are installed.
    pub(super) fn wish(
        &self,
        models: &[ModelInfo],
        name: &str,
        senses: Senses,
        model: &ModelInfo,
    ) -> Wish {
        let open = !models.iter().any(|model| is_named(model, name));
        Wish {
            name: name.to_owned(),
            senses,
            model: model.id.clone(),
            takes: self.takes(model, senses),
            open,
        }
    }

    /// Another model for a request that cannot have the one that was chosen for it: of those that
    /// it can mean, the best that fits `budget` and takes less. Each takes less than the one
    /// before, so asking again and again comes to an end. `failure` is returned if there is no such
    /// model.
    pub(super) fn choose_less(
        &self,
        models: &[ModelInfo],
        wish: &Wish,
        budget: &Budget,
        failure: Failure,
    ) -> Result<(ModelInfo, Wish), Failure> {
        let mut less = meant(models, &wish.name);
        less.retain(|model| {
            wish.senses.are_had_by(model) && self.takes(model, wish.senses) < wish.takes
        });
        if less.is_empty() {
            return Err(failure);
        }
        let model = self.best_of(&less, wish.senses, budget)?;
        let wish = self.wish(models, &wish.name, wish.senses, &model);
        Ok((model, wish))
    }

    /// Bytes that a model takes at least, if it is to have these senses.
    fn takes(&self, model: &ModelInfo, senses: Senses) -> u64 {
        fit::smallest(&[self.candidate(model, senses)], &self.wishes())
            .map_or(0, |choice| choice.total)
    }

    /// The best of them that fits, or how much is missing.
    fn best_of(
        &self,
        models: &[&ModelInfo],
        senses: Senses,
        budget: &Budget,
    ) -> Result<ModelInfo, Failure> {
        let candidates: Vec<_> = models
            .iter()
            .map(|model| self.candidate(model, senses))
            .collect();
        let wishes = self.wishes();
        let chosen = fit::choose(&candidates, &wishes, budget.bytes);
        let smallest = || fit::smallest(&candidates, &wishes);
        let chosen = chosen
            .or_else(|| smallest().filter(|_| self.memory.allow_overcommit))
            .map(|choice| choice.id);
        let found = chosen.and_then(|id| models.iter().find(|model| model.id == id));
        found
            .map(|model| (*model).clone())
            .ok_or_else(|| no_room(smallest(), budget, None))
    }

    /// How `model` is run in the memory that is free now, after it ran out of memory `shortages`
    /// times, for requests that need these senses. `others` are named if it does not fit.
    pub(super) fn fit(
        &self,
        model: &ModelInfo,
        others: &[ModelInfo],
        shortages: u32,
        senses: Senses,
    ) -> Result<Run, Failure> {
        let (wishes, budget, candidate) = (
            self.wishes().after(shortages),
            self.budget(),
            [self.candidate(model, senses)],
        );
        let choice = fit::choose(&candidate, &wishes, budget.bytes);
        let smallest = || fit::smallest(&candidate, &wishes);
        // Weights can be evicted, the rest cannot.
        let overcommitted = || {
            smallest().filter(|choice| {
                self.memory.allow_overcommit && choice.cost.unevictable() <= budget.room.free
            })
        };
        choice.or_else(overcommitted).map(run).ok_or_else(|| {
            let others: Vec<_> = others
                .iter()
                .filter(|other| senses.are_had_by(other))
                .map(|other| self.candidate(other, senses))
                .collect();
            let instead =
                fit::choose(&others, &wishes, budget.bytes).map(|choice| choice.id.to_owned());
            no_room(smallest(), &budget, instead)
        })
    }

    fn candidate<'a>(&self, model: &'a ModelInfo, senses: Senses) -> Candidate<'a> {
        let projector = model
            .projector
            .as_ref()
            .map_or(0, |projector| projector.size);
        Candidate {
            id: &model.id,
            rank: self.rank(model.variant),
            size: model.size,
            figures: &model.figures,
            context_limit: model.context_limit,
            projector,
            must_see: senses.any(),
            // The larger variants read a picture in one step.
            picture_step: if projector > 0 && !model.variant.is_small() {
                picture::USUAL_BUDGET
            } else {
                0
            },
        }
    }

    /// The higher the better: `prefer` in its order, then the larger variants.
    fn rank(&self, variant: Variant) -> usize {
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

impl Senses {
    /// Those that it takes to read a request.
    pub(super) fn of(request: &ChatRequest) -> Self {
        Self {
            sight: request.shows(),
            hearing: request.sounds(),
        }
    }

    pub fn any(self) -> bool {
        self.sight || self.hearing
    }

    /// Those of both together.
    pub fn with(self, other: Self) -> Self {
        Self {
            sight: self.sight || other.sight,
            hearing: self.hearing || other.hearing,
        }
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
            Some(projector) => format!(
                "the projector of `{}`, {}, is for pictures only",
                model.id,
                projector.path.display()
            ),
        };
        let blind = self.sight && !model.sees();
        Err(Failure::Chat(if blind {
            ChatError::CannotSee { reason }
        } else {
            ChatError::CannotHear { reason }
        }))
    }
}

/// Whether `name` is the model's own, in any case.
fn is_named(model: &ModelInfo, name: &str) -> bool {
    model.id.eq_ignore_ascii_case(name)
}

fn is_auto(name: &str) -> bool {
    name.eq_ignore_ascii_case("auto")
}

/// The models that a name means which is none's own: all, or those of a variant.
fn meant<'a>(models: &'a [ModelInfo], name: &str) -> Vec<&'a ModelInfo> {
    let variant = Variant::named(name);
    models
        .iter()
        .filter(|model| is_auto(name) || variant == Some(model.variant))
        .collect()
}

fn run(choice: Choice<'_>) -> Run {
    Run {
        sizes: choice.sizes,
        sees: choice.sees,
        unevictable: choice.cost.unevictable(),
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
mod tests {
    use super::*;
    use crate::config::{Inference, Limits, Memory, Models};
    use crate::store::Projector;
    use crate::store::family::published;

    const GIB: u64 = 1 << 30;

    fn setup() -> Setup {
        let (models, inference, memory, limits) = (
            Models::default(),
            Inference::default(),
            Memory::default(),
            Limits::default(),
        );
        Setup {
            models,
            inference,
            memory,
            limits,
            reserved: Default::default(),
            worker: "worker".into(),
        }
    }

    fn budget(bytes: u64) -> Budget {
        Budget {
            bytes,
            reserve: 0,
            room: Room {
                free: bytes,
                bound: Bound::Machine,
                whole: bytes,
            },
        }
    }

    /// The family, installed; those of `seeing` with a projector.
    fn family(seeing: &[Variant]) -> Vec<ModelInfo> {
        let model = |one: crate::store::family::Published| {
            let path = format!("/m/{}-q4.gguf", one.variant);
            let projector = Projector {
                path: "/m/mmproj.gguf".into(),
                size: GIB / 2,
                width: one.figures.width,
                longest_side: 1600,
                hearing: None,
                name: String::new(),
            };
            let projector = seeing.contains(&one.variant).then_some(projector);
            ModelInfo {
                variant: one.variant,
                figures: one.figures,
                context_limit: one.context_limit,
                projector,
                ..ModelInfo::example(&path)
            }
        };
        published().into_iter().map(model).collect()
    }

    fn of(models: &[ModelInfo], variant: Variant) -> &ModelInfo {
        models
            .iter()
            .find(|model| model.variant == variant)
            .unwrap()
    }

    fn damaged() -> Failure {
        Failure::BadModel {
            model: "m".into(),
            reason: "damaged".into(),
        }
    }

    /// What is chosen one after the other for a request that can have none of them, and the failure
    /// at the end.
    fn chain(
        models: &[ModelInfo],
        name: &str,
        senses: Senses,
        first: &ModelInfo,
        bytes: u64,
    ) -> (Vec<String>, Failure) {
        let (mut wish, mut chosen) = (setup().wish(models, name, senses, first), vec![]);
        loop {
            match setup().choose_less(models, &wish, &budget(bytes), damaged()) {
                Ok((model, next)) => {
                    assert!(next.takes < wish.takes && next.model == model.id && next.open);
                    chosen.push(model.id);
                    wish = next;
                }
                Err(failure) => return (chosen, failure),
            }
        }
    }

    #[test]
    fn each_choice_takes_less_than_the_one_before() {
        let models = family(&[]);
        let chain = |first, bytes| {
            chain(
                &models,
                "auto",
                Senses::default(),
                of(&models, first),
                bytes,
            )
        };
        let ids = |ids: &[&str]| {
            ids.iter()
                .map(|id| format!("gemma-4-{id}-q4"))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            chain(Variant::B31, 63 * GIB),
            (ids(&["26b-a4b", "e4b", "e2b"]), damaged())
        );
        assert_eq!(
            chain(Variant::B31, 7 * GIB / 2),
            (ids(&["e4b", "e2b"]), damaged())
        );
        assert_eq!(chain(Variant::E4b, 2 * GIB), (ids(&["e2b"]), damaged()));
        assert_eq!(
            chain(Variant::E2b, 63 * GIB),
            (vec![], damaged()),
            "nothing takes less"
        );
        let (chosen, failure) = chain(Variant::B31, GIB);
        assert!(
            chosen.is_empty()
                && matches!(&failure, Failure::NoRoom { model, .. } if *model == ids(&["e2b"])[0]),
            "{failure}"
        );
    }

    #[test]
    fn a_small_groups_reserve_follows_its_limit() {
        let reserve = |bound, whole| {
            Budget::of(
                Room {
                    free: whole,
                    bound,
                    whole,
                },
                None,
            )
            .reserve
                >> 20
        };
        let group = || Bound::Group("/sys/fs/cgroup/system.slice/gemmad.service".into());
        assert_eq!(
            [60, 512, 8192, 65_536].map(|mib| reserve(Bound::Machine, mib << 20)),
            [64, 64, 512, 1024]
        );
        assert_eq!(
            [60, 512, 8192, 65_536].map(|mib| reserve(group(), mib << 20)),
            [3, 32, 512, 1024]
        );
        let chosen = Budget::of(
            Room {
                free: 9 << 20,
                bound: group(),
                whole: 60 << 20,
            },
            Some(5 << 20),
        );
        assert_eq!(
            (chosen.reserve, chosen.bytes),
            (5 << 20, 4 << 20),
            "what the administrator says counts"
        );
    }

    #[test]
    fn senses_are_kept() {
        let sight = Senses {
            sight: true,
            hearing: false,
        };
        let models = family(&[Variant::B31, Variant::E2b]);
        let seeing = |bytes| chain(&models, "auto", sight, of(&models, Variant::B31), bytes);
        assert_eq!(
            seeing(63 * GIB).0,
            ["gemma-4-e2b-q4"],
            "not the larger ones, which see nothing"
        );
        // Without its projector it would fit.
        let needs = |failure: Failure| {
            if let Failure::NoRoom { needs, .. } = failure {
                needs
            } else {
                0
            }
        };
        assert!(seeing(7 * GIB / 4).0.is_empty() && needs(seeing(7 * GIB / 4).1) > 7 * GIB / 4);
        let deaf = Senses {
            sight: true,
            hearing: true,
        };
        assert_eq!(
            chain(&models, "auto", deaf, of(&models, Variant::B31), 63 * GIB),
            (vec![], damaged())
        );
    }

    #[test]
    fn a_name_means_what_it_means_still() {
        let mut models = family(&[]);
        let mut large = of(&models, Variant::E4b).clone();
        (large.id, large.figures.layers) = ("gemma-4-e4b-q8".into(), 2 * large.figures.layers);
        models.push(large.clone());
        let chain = |name| chain(&models, name, Senses::default(), &large, 63 * GIB).0;
        assert_eq!(
            chain("gemma-4-e4b"),
            ["gemma-4-e4b-q4"],
            "of the variant that was named"
        );
        assert_eq!(chain("gemma-4-e4b-q8"), [""; 0]);
        assert!(
            !setup()
                .wish(&models, "Gemma-4-E4B-Q8", Senses::default(), &large)
                .open
        );
    }
}
