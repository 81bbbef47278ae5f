//! Which model fits, and how large it can be run. Pure.
//!
//! The context that was asked for counts more than a larger variant: among the models that can have
//! it the best one is taken. If none can, the context is halved, down to a floor. For each model
//! its drafter is left out first, and smaller steps are tried before its projector is, where it may be. Where no file can hold
//! its packed weights they are counted as memory that cannot be evicted; if there is no room for that
//! the model is run without packing, which is slower.

use crate::gemma::model_shape::{Cost, ModelShape, PackedWeights, Retention, Sizes};

/// Tokens of a step that are tried when a larger step does not fit. Reading a prompt is hardly
/// slower with them.
const SMALLER_STEPS: [u32; 2] = [128, LEAST_STEP];
const LEAST_STEP: u32 = 64;
/// Tokens that all slots together could come to have: what is known of each takes memory from the start.
const MOST_CELLS: u32 = 1 << 20;
/// Slots at most, where their number is left to us, and the part of the memory that is left which they may
/// take.
const MOST_SLOTS: u32 = 8;
const SLOTS_PART: u64 = 4;
/// Times its context that a slot could come to have, for the same reason.
const MOST_GROWTH: u32 = 32;

/// A model that could be loaded.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    pub id: &'a str,
    /// The higher the better.
    pub rank: usize,
    /// Bytes of the file: of two of a rank the larger one is the better.
    pub size: u64,
    pub figures: &'a ModelShape,
    /// Tokens that it was made for.
    pub context_limit: u32,
    /// Bytes of its projector, 0 without one.
    pub projector: u64,
    /// Whether it is of no use without its projector.
    pub needs_projector: bool,
    /// Bytes that its drafter takes, 0 without one.
    pub drafter: u64,
    /// Tokens of a picture that it reads in one step; 0 if that may be any number.
    pub picture_step: u32,
    /// Whether a file can hold its packed weights.
    pub has_packed_file: bool,
}

impl Candidate<'_> {
    /// Where its packed weights can be, the best first.
    pub fn packed_weights(&self) -> &'static [PackedWeights] {
        match self.has_packed_file {
            true => &[PackedWeights::InFile],
            false => &[PackedWeights::InMemory, PackedWeights::Nowhere],
        }
    }
}

/// How a model is to be run, if it fits.
#[derive(Clone, Copy, Debug)]
pub struct FitRequest {
    pub sizes: Sizes,
    /// Slots that it may have beyond those, where memory is plenty; `None`: no more.
    pub most_slots: Option<u32>,
    /// The smallest context that is of use.
    pub least_context: u32,
    /// What one slot may come to have, where that is more than the context; `None`: no more.
    pub most_context: Option<u32>,
    pub keep: Retention,
}

impl FitRequest {
    /// The same after memory ran out so many times: each halves the context and the steps, down to
    /// the least.
    pub fn after(self, shortages: u32) -> Self {
        let halved = |full: u32, least: u32| (full >> shortages.min(31)).max(least.min(full));
        let Sizes { context, batch, .. } = self.sizes;
        let sizes = Sizes {
            context: halved(context, self.least_context),
            batch: halved(batch, LEAST_STEP),
            ..self.sizes
        };
        let most_context = self.most_context.map(|most| halved(most, sizes.context));
        Self {
            sizes,
            most_context,
            ..self
        }
    }
}

impl FitRequest {
    /// What a slot of `context` tokens has in any case.
    pub fn floor(&self, context: u32) -> u32 {
        match self.most_context {
            Some(_) => self.least_context.min(context),
            None => context,
        }
    }

    /// What a slot of `context` tokens may come to have, of a model that was made for `limit`.
    pub fn ceiling(&self, context: u32, limit: u32) -> u32 {
        let of_slot = MOST_CELLS / self.sizes.slots.max(1);
        let most = self.most_context.unwrap_or(context);
        let most = most.min(limit).min(of_slot);
        most.min(context.saturating_mul(MOST_GROWTH)).max(context)
    }
}

/// How a model is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice<'a> {
    pub id: &'a str,
    pub sizes: Sizes,
    /// Whether its projector fits as well; `true` without one.
    pub with_projector: bool,
    /// Whether its drafter fits as well; `true` without one.
    pub with_drafter: bool,
    pub packed: PackedWeights,
    pub cost: Cost,
    /// With the projector and the drafter, if they fit.
    pub total: u64,
}

/// The best choice of all that fit into `budget` bytes.
pub fn choose<'a>(
    candidates: &[Candidate<'a>],
    request: &FitRequest,
    budget: u64,
) -> Option<Choice<'a>> {
    choices(candidates, request)
        .into_iter()
        .find(|choice| choice.total <= budget)
}

/// The same with more slots, twice as many and again, if the request leaves that to us: as long as they
/// take no more than a part of what is left of the budget. Where contexts grow by need, the slots share
/// what is counted.
pub fn widen<'a>(
    choice: Choice<'a>,
    candidate: &Candidate<'a>,
    request: &FitRequest,
    budget: u64,
) -> Choice<'a> {
    let most = request.most_slots.unwrap_or(0).min(MOST_SLOTS);
    let allowed = choice.total + budget.saturating_sub(choice.total) / SLOTS_PART;
    let mut wide = choice;
    loop {
        let slots = wide.sizes.slots * 2;
        let context = match request.most_context {
            Some(_) => request
                .floor(wide.sizes.context)
                .max(wide.sizes.context / 2),
            None => wide.sizes.context,
        };
        if slots > most || context.saturating_mul(slots) > MOST_CELLS {
            return wide;
        }
        let sizes = Sizes {
            context,
            slots,
            ceiling: wide.sizes.ceiling.min(MOST_CELLS / slots).max(context),
            ..wide.sizes
        };
        let more = self::choice(
            candidate,
            sizes,
            (wide.with_projector, wide.with_drafter),
            &Retention {
                packed: wide.packed,
                ..request.keep
            },
        );
        if more.total > allowed {
            return wide;
        }
        wide = more;
    }
}

/// The choice that takes the least.
pub fn smallest<'a>(candidates: &[Candidate<'a>], request: &FitRequest) -> Option<Choice<'a>> {
    choices(candidates, request)
        .into_iter()
        .min_by_key(|choice| choice.total)
}

/// All choices, the best first: every model in the context that was asked for, then every model in
/// half of it, and so on.
fn choices<'a>(candidates: &[Candidate<'a>], request: &FitRequest) -> Vec<Choice<'a>> {
    let mut best_first = candidates.to_vec();
    best_first.sort_by(|a, b| {
        let by_rank = b.rank.cmp(&a.rank);
        by_rank.then(b.size.cmp(&a.size)).then(a.id.cmp(b.id))
    });
    let mut all = vec![];
    let mut context = request.sizes.context;
    loop {
        for candidate in &best_first {
            all.extend(choices_in(context, candidate, request));
        }
        context /= 2;
        if context == 0 || context < request.least_context {
            return all;
        }
    }
}

/// The choices of one model in a context, or in all that it was made for: the largest step first, each
/// with its drafter and then without, and without its projector last.
fn choices_in<'a>(
    context: u32,
    candidate: &Candidate<'a>,
    request: &FitRequest,
) -> Vec<Choice<'a>> {
    let largest_step = request.sizes.batch;
    let mut steps = vec![largest_step];
    steps.extend(
        SMALLER_STEPS
            .into_iter()
            .filter(|step| *step < largest_step),
    );
    let context = context.min(candidate.context_limit);
    let ceiling = request.ceiling(context, candidate.context_limit);
    let sizes = |batch| Sizes {
        context,
        ceiling,
        batch,
        ..request.sizes
    };
    let ways = candidate.packed_weights().iter();
    let ways = ways.map(|packed| Retention {
        packed: *packed,
        ..request.keep
    });
    let ways_to_draft = if candidate.drafter > 0 { 2 } else { 1 };
    let mut choices = vec![];
    for keep in ways.clone() {
        let of_step = |&batch: &u32| {
            let drafters = [true, false].into_iter().take(ways_to_draft);
            drafters.map(move |drafter| (batch, drafter))
        };
        let steps = steps.iter().flat_map(of_step);
        let of_step = |(batch, drafter)| choice(candidate, sizes(batch), (true, drafter), &keep);
        choices.extend(steps.map(of_step));
    }
    if candidate.projector > 0 && !candidate.needs_projector {
        let least_step = steps[steps.len() - 1];
        let blind = (false, candidate.drafter == 0);
        choices.extend(ways.map(|keep| choice(candidate, sizes(least_step), blind, &keep)));
    }
    choices
}

/// A model of these sizes, and what that takes.
fn choice<'a>(
    candidate: &Candidate<'a>,
    sizes: Sizes,
    (with_projector, with_drafter): (bool, bool),
    keep: &Retention,
) -> Choice<'a> {
    let mut step = sizes;
    let mut projector = 0;
    if with_projector {
        // A step has room for a whole picture.
        step.batch = step.batch.max(candidate.picture_step);
        projector = candidate.projector;
    }
    let drafter = if with_drafter { candidate.drafter } else { 0 };
    let cost = candidate.figures.cost(&step, keep);
    Choice {
        id: candidate.id,
        sizes,
        with_projector,
        with_drafter,
        packed: keep.packed,
        cost,
        total: cost.total() + projector + drafter,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemma::variant::Variant;
    use crate::store::family::{Published, published};

    const GIB: u64 = 1 << 30;

    fn request(context: u32) -> FitRequest {
        let sizes = Sizes {
            context,
            ceiling: context,
            slots: 1,
            draft: 0,
            batch: 256,
            small_kv: false,
        };
        FitRequest {
            sizes,
            most_slots: None,
            least_context: 2048,
            most_context: None,
            keep: Retention {
                per_layer: 64 << 20,
                experts: 33,
                packed: PackedWeights::InFile,
            },
        }
    }

    fn candidates(family: &[Published]) -> Vec<Candidate<'_>> {
        let rank = |variant| {
            Variant::PUBLISHED
                .iter()
                .position(|other| *other == variant)
                .unwrap()
        };
        let candidate = |one: &'_ Published| Candidate {
            id: one.variant.id(),
            rank: rank(one.variant),
            size: 0,
            figures: Box::leak(Box::new(one.figures)),
            context_limit: one.context_limit,
            projector: 0,
            needs_projector: false,
            drafter: 0,
            picture_step: 0,
            has_packed_file: true,
        };
        family.iter().map(candidate).collect()
    }

    /// Free memory, the context that is asked for, and what is chosen.
    #[test]
    fn machines() {
        let family = published();
        let all = candidates(&family);
        for (free, context, expected) in [
            (GIB, 4096, None),
            (7 * GIB / 4, 4096, Some(("gemma-4-e2b", 4096))),
            (2 * GIB, 8192, Some(("gemma-4-e2b", 8192))),
            (7 * GIB / 2, 8192, Some(("gemma-4-e4b", 8192))),
            // The context counts more than the variant.
            (7 * GIB / 2, 131_072, Some(("gemma-4-e2b", 131_072))),
            (2 * GIB, 131_072, Some(("gemma-4-e2b", 65_536))),
            (7 * GIB, 8192, Some(("gemma-4-26b-a4b", 8192))),
            (15 * GIB, 8192, Some(("gemma-4-26b-a4b", 8192))),
            (31 * GIB, 8192, Some(("gemma-4-31b", 8192))),
            (63 * GIB, 262_144, Some(("gemma-4-31b", 262_144))),
            (31 * GIB, 262_144, Some(("gemma-4-26b-a4b", 262_144))),
        ] {
            let found = choose(&all, &request(context), free);
            assert_eq!(
                found.map(|choice| (choice.id, choice.sizes.context)),
                expected,
                "{free} {context}"
            );
            assert!(found.is_none_or(|choice| choice.total <= free));
        }
    }

    #[test]
    fn smaller_steps_come_before_a_smaller_context_and_blindness_between() {
        let family = published();
        let e2b = Candidate {
            projector: GIB,
            ..candidates(&family)[0]
        };
        let all: Vec<_> = choices(&[e2b], &request(8192))
            .iter()
            .map(|choice| {
                let Sizes { context, batch, .. } = choice.sizes;
                (context, batch, choice.with_projector)
            })
            .collect();
        let each = |context| {
            [
                (context, 256, true),
                (context, 128, true),
                (context, 64, true),
                (context, 64, false),
            ]
        };
        assert_eq!(all, [8192, 4096, 2048].map(each).concat());
        let blind = choose(&[e2b], &request(8192), 2 * GIB).unwrap();
        assert_eq!((blind.sizes.context, blind.with_projector), (8192, false));
        let seeing = Candidate {
            needs_projector: true,
            ..e2b
        };
        assert!(
            choices(&[seeing], &request(8192))
                .iter()
                .all(|choice| choice.with_projector)
        );
        assert_eq!(choose(&[seeing], &request(8192), 2 * GIB), None);
        assert_eq!(
            smallest(&[e2b], &request(8192)).unwrap().sizes.context,
            2048
        );
    }

    #[test]
    fn a_drafter_goes_before_anything_else_does() {
        let family = published();
        let e2b = Candidate {
            projector: GIB,
            drafter: GIB / 8,
            ..candidates(&family)[0]
        };
        let all: Vec<_> = choices(&[e2b], &request(2048))
            .iter()
            .map(|choice| {
                (
                    choice.sizes.batch,
                    choice.with_projector,
                    choice.with_drafter,
                )
            })
            .collect();
        let expected = [
            (256, true, true),
            (256, true, false),
            (128, true, true),
            (128, true, false),
            (64, true, true),
            (64, true, false),
            (64, false, false),
        ];
        assert_eq!(all, expected);
        let plenty = choose(&[e2b], &request(2048), 8 * GIB).unwrap();
        let without = Candidate { drafter: 0, ..e2b };
        let bare = choose(&[without], &request(2048), 8 * GIB).unwrap();
        assert_eq!(
            (plenty.with_drafter, plenty.total),
            (true, bare.total + GIB / 8)
        );
        let tight = choose(&[e2b], &request(2048), bare.total).unwrap();
        assert_eq!((tight.with_drafter, tight.total), (false, bare.total));
    }

    #[test]
    fn without_a_file_weights_are_packed_in_memory_where_there_is_room_and_not_at_all_elsewhere() {
        let family = published();
        let sparse = Candidate {
            has_packed_file: false,
            ..candidates(&family)
                .into_iter()
                .find(|one| one.id == "gemma-4-26b-a4b")
                .unwrap()
        };
        let chosen = |free| choose(&[sparse], &request(4096), free).map(|choice| choice.packed);
        assert_eq!(chosen(5 * GIB), None);
        assert_eq!(
            chosen(8 * GIB),
            Some(PackedWeights::Nowhere),
            "all experts do not fit into the memory of a small machine"
        );
        assert_eq!(chosen(24 * GIB), Some(PackedWeights::InMemory));
        let packed = choose(&[sparse], &request(4096), 24 * GIB).unwrap();
        assert!(packed.cost.unevictable() > 12 * GIB, "{:?}", packed.cost);
        let kept = Candidate {
            has_packed_file: true,
            ..sparse
        };
        let kept = choose(&[kept], &request(4096), 8 * GIB).unwrap();
        assert_eq!(kept.packed, PackedWeights::InFile);
    }

    #[test]
    fn slots_are_added_as_long_as_they_take_little() {
        let family = published();
        let all = candidates(&family);
        let slots = |index: usize, free, most_context, most_slots| {
            let one = all[index];
            let request = FitRequest {
                sizes: Sizes {
                    slots: 2,
                    ..request(8192).sizes
                },
                most_context,
                most_slots,
                ..request(8192)
            };
            let choice = choose(&[one], &request, free).unwrap();
            let wide = widen(choice, &one, &request, free);
            assert!(wide.total <= free && wide.sizes.ceiling >= wide.sizes.context);
            (wide.sizes.slots, wide.sizes.context)
        };
        assert_eq!(slots(0, 8 * GIB, Some(131_072), Some(16)), (8, 2048));
        assert_eq!(slots(0, 8 * GIB, Some(131_072), Some(4)), (4, 4096));
        assert_eq!(slots(0, 8 * GIB, None, Some(16)), (8, 8192));
        assert_eq!(slots(0, 2 * GIB, Some(131_072), Some(16)).0, 4);
        assert_eq!(slots(0, 8 * GIB, Some(131_072), None), (2, 8192));
        assert_eq!(slots(4, 24 * GIB, Some(131_072), Some(16)).0, 2);
    }

    #[test]
    fn each_shortage_halves_what_is_asked_for() {
        let after = |shortages| {
            let FitRequest { sizes, .. } = request(8192).after(shortages);
            (sizes.context, sizes.batch)
        };
        assert_eq!(
            [0, 1, 2, 3, 99].map(after),
            [(8192, 256), (4096, 128), (2048, 64), (2048, 64), (2048, 64)]
        );
        assert_eq!(
            request(512).after(1).sizes.context,
            512,
            "what is asked for below the least stays"
        );
    }

    #[test]
    fn of_two_files_the_larger_and_of_equals_the_first() {
        let family = published();
        let one = |id, size| Candidate {
            id,
            size,
            ..candidates(&family)[0]
        };
        let chosen =
            |all: &[Candidate<'_>]| choose(all, &request(4096), 9 * GIB).unwrap().id.to_owned();
        assert_eq!(chosen(&[one("a", 1), one("b", 2)]), "b");
        assert_eq!(chosen(&[one("b", 1), one("a", 1)]), "a");
        let preferred = Candidate {
            rank: 99,
            ..one("c", 0)
        };
        assert_eq!(chosen(&[preferred, one("b", 9)]), "c");
    }
}
