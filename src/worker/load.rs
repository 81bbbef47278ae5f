//! From a plan and a descriptor to something that can answer.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::constraint::Compiler;
use super::guide::Marks;
use super::inbox::Inbox;
use super::llama::packing::Outcome;
use super::llama::{self, Candidates, Context, ContextPlan, Model, Token};
use super::media::Equipment;
use super::prepare::{Abilities, Preparer};
use super::prompt::Prompter;
use super::releasable_context::ReleasableContext;
use super::residency::{self, Maps, PackedMap, Packer, PerLayer, Readiness, Warm};
use super::sequences::Sequences;
use super::vocab::{self, Vocab};
use crate::gemma::layout::Layout;
use crate::gemma::picture;
use crate::ipc::{LoadPlan, Packing, TemplateSource};
use crate::sys::cpu;

/// The architecture that is served, as the file's header spells it.
const ARCHITECTURE: &str = "gemma4";
/// Sequences at most.
const MAX_SLOTS: u32 = 64;
/// Tokens of one step at most.
const MAX_BATCH: u32 = 4096;
/// Tokens of context at most, for all slots together.
const MAX_CONTEXT: u32 = 1 << 22;
/// Threads at most, which is ggml's own limit.
const MAX_THREADS: usize = 512;

/// A loaded model with everything that a step needs.
pub struct Engine {
    pub model: &'static Model,
    pub sequences: Sequences<ReleasableContext>,
    pub vocab: Vocab,
    pub candidates: Candidates,
    pub limits: EngineLimits,
    /// Tokens that are never drawn.
    pub suppressed: Vec<Token>,
    pub marks: Arc<Marks>,
    /// What is mapped of the files.
    pub maps: Maps,
    /// `None` without Per-Layer Embeddings.
    pub per_layer: Option<PerLayer>,
    /// `None` if nothing is read ahead.
    pub readiness: Option<Readiness>,
}

/// The numbers that hold for the worker's life.
#[derive(Clone, Copy, Debug)]
pub struct EngineLimits {
    /// Tokens of context that each slot has.
    pub context: u32,
    pub slots: u32,
    /// Tokens of one step.
    pub batch: u32,
    pub threads: u32,
    /// Tokens of one answer.
    pub max_output: u32,
    /// Positions that sliding layers look back.
    pub window: u32,
    /// Tokens of a picture that are computed in one step.
    pub picture_step: u32,
}

/// Keeps this thread, and those it starts, on the plan's CPUs. Where that is refused the system
/// chooses.
pub fn pin(plan: &LoadPlan) {
    if let Err(error) = cpu::pin(&plan.cpus) {
        eprintln!(
            "cannot run on CPUs {:?} only, so the system chooses: {error}",
            plan.cpus
        );
    }
}

/// What a successful load leaves.
pub struct Loaded {
    pub engine: Engine,
    /// For the preparer thread.
    pub preparer: Preparer,
    /// For the compiler thread.
    pub compiler: Compiler,
    /// For the senses' thread, if there is a projector.
    pub equipment: Option<Equipment>,
    pub template: TemplateSource,
    pub packing: Packing,
    /// The packed weights, where a file has them.
    pub packed: Option<PackedMap>,
    /// That file, if the disk may not have all of it yet.
    pub unsaved: Option<File>,
}

/// Why there is no model.
#[derive(Debug)]
pub struct LoadError {
    /// For whoever reads the supervisor's log.
    pub reason: String,
    /// The same model may be loaded with less context.
    pub out_of_memory: bool,
}

impl From<String> for LoadError {
    fn from(reason: String) -> Self {
        Self {
            reason,
            out_of_memory: false,
        }
    }
}

impl From<&str> for LoadError {
    fn from(reason: &str) -> Self {
        reason.to_owned().into()
    }
}

/// Loads what `plan` says. `files` are the model and what else the plan speaks of, in
/// [`ServeRequest::Load`]'s order.
///
/// [`ServeRequest::Load`]: crate::ipc::ServeRequest::Load
pub fn load(plan: &LoadPlan, files: Vec<OwnedFd>, inbox: &Inbox) -> Result<Loaded, LoadError> {
    check(plan)?;
    let mut files = files.into_iter();
    let file = File::from(files.next().ok_or("no descriptor came with the plan")?);
    let projector = plan.projector.as_ref().map(|plan| {
        let file = files
            .next()
            .ok_or("the projector's descriptor did not come with the plan")?;
        Ok::<_, String>((plan.clone(), file))
    });
    let projector = projector.transpose()?;
    // Beside the model.
    let own = file
        .try_clone()
        .map_err(|error| format!("the model's descriptor cannot be copied: {error}"))?;
    let place = plan.vocabulary.clone();
    let reading = std::thread::spawn(move || vocab::read(&own, &place));
    let Weights {
        model,
        packing,
        packed,
        unsaved,
        readiness,
    } = load_weights(plan, &file, files, &inbox.ending())?;
    let architecture = model.meta("general.architecture").unwrap_or_default();
    if architecture != ARCHITECTURE {
        return Err(format!(
            "the file holds a `{architecture}` model; only `{ARCHITECTURE}` is served"
        )
        .into());
    }
    let vocab = reading
        .join()
        .map_err(|_| "the file's vocabulary cannot be read")??;
    let threads = plan.cpus.len() as u32;
    let equipment = projector.map(|(plan, file)| Equipment {
        plan,
        file,
        width: model.row_width(),
        threads,
        ending: inbox.ending(),
    });
    let batch = plan.batch.max(plan.slots);
    // The small variants read pictures like text. The large ones read each as a whole, in one step.
    let pictures_look_ahead = equipment.is_some() && !is_small(model);
    let picture_step = if pictures_look_ahead {
        batch.max(picture::USUAL_BUDGET)
    } else {
        batch
    };
    let limits = EngineLimits {
        context: plan.context,
        slots: plan.slots,
        batch,
        threads,
        max_output: plan.max_output,
        window: model.window(),
        picture_step,
    };
    let sizes = ContextPlan {
        tokens: limits.context,
        sequences: limits.slots,
        batch: picture_step,
        pictures_look_ahead,
        small_kv: plan.memory.small_kv,
        threads,
    };
    let experts = model
        .meta(&format!("{ARCHITECTURE}.expert_count"))
        .and_then(|count| count.trim().parse().ok());
    let experts = experts.filter(|count| *count > 0);
    let (ending, map) = (inbox.ending(), packed.clone());
    let make = move || {
        let watch = experts.map(|count| residency::fetcher(map.as_ref(), count));
        Context::new(model, &sizes, ending.clone(), watch)
    };
    // All sizes were checked: what is missing is memory.
    let context = ReleasableContext::new(make).map_err(|reason| LoadError {
        reason,
        out_of_memory: true,
    })?;

    let bos = vocab
        .bos()
        .and_then(|bos| vocab.text(bos))
        .unwrap_or_default();
    let (prompter, template) = Prompter::new(
        model.chat_template().as_deref(),
        bos,
        vocab.spelled(),
        is_small(model),
    );
    let most = if pictures_look_ahead {
        picture_step
    } else {
        u32::MAX
    };
    let senses = plan
        .projector
        .as_ref()
        .map(|plan| Abilities::of(plan, vocab, most))
        .transpose()?;
    let preparer = Preparer {
        prompter,
        vocab,
        longest: vocab.longest(),
        context: limits.context,
        senses,
    };
    let windows = model
        .windows()
        .map_err(|error| format!("the model's map cannot be found: {error}"))?;
    if let Some(packed) = &packed {
        residency::let_go(&packed.mark(&plan.memory.layout), &windows);
    }
    llama::trim();
    let maps = Maps::new(windows.clone(), packed.as_ref());
    let per_layer = PerLayer::new(
        &plan.memory.layout,
        windows,
        vocab.len(),
        plan.memory.per_layer,
    );
    let engine = Engine {
        model,
        sequences: Sequences::new(context, limits.slots as usize, limits.batch as usize),
        vocab,
        candidates: Candidates::new(vocab.len()),
        limits,
        suppressed: vocab.suppressed().to_vec(),
        marks: Arc::new(Marks::of(vocab)),
        maps,
        per_layer,
        readiness,
    };
    let compiler = Compiler::new(vocab, engine.suppressed.clone());
    Ok(Loaded {
        engine,
        preparer,
        compiler,
        equipment,
        template,
        packing,
        packed,
        unsaved,
    })
}

/// A model whose weights are where they should be, or on their way.
struct Weights {
    model: &'static Model,
    packing: Packing,
    packed: Option<PackedMap>,
    unsaved: Option<File>,
    readiness: Option<Readiness>,
}

/// Loads the model in `file`. `files` are those for packed weights.
fn load_weights(
    plan: &LoadPlan,
    file: &File,
    files: impl Iterator<Item = OwnedFd>,
    ending: &AtomicBool,
) -> Result<Weights, String> {
    let (tokens, plan) = (plan.vocabulary.count, &plan.memory);
    let warm = |layout: &Layout, packed: Option<&PackedMap>| -> Result<Readiness, String> {
        let file = file
            .try_clone()
            .map_err(|error| format!("the model's descriptor cannot be copied: {error}"))?;
        Ok(Warm::plan(layout, packed, file, plan.read_ahead, plan.lock).start())
    };
    let mut packer = Packer::new(plan, files);
    // While the model is being loaded.
    let early = packer
        .ready()
        .map(|packed| warm(&packed.mark(&plan.layout), Some(packed)));
    let (model, outcome) = loop {
        match Model::load(file, tokens, packer.place(), ending) {
            (Err(_), Outcome::Wrong { why }) => packer.reject(why),
            (model, outcome) => break (model?, outcome),
        }
    };
    let (packing, packed, unsaved) = packer.settle(outcome);
    let readiness = match (&packing, &packed, early) {
        (Packing::Reused, _, Some(early)) => Some(early?),
        (Packing::New { .. }, Some(packed), _) => Some(warm(&packed.mark(&plan.layout), None)?),
        (Packing::Nothing, ..) => Some(warm(&plan.layout, None)?),
        // Nobody knows which of the file's weights are in memory already.
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

/// The small variants are those with a table of embeddings for each layer; their chat template
/// differs.
fn is_small(model: &Model) -> bool {
    model
        .meta(&format!("{ARCHITECTURE}.embedding_length_per_layer_input"))
        .is_some_and(|width| width.trim() != "0")
}

fn check(plan: &LoadPlan) -> Result<(), String> {
    between("slots", plan.slots, 1, MAX_SLOTS)?;
    between("batch", plan.batch, 1, MAX_BATCH)?;
    between(
        "context × slots",
        plan.context.saturating_mul(plan.slots),
        1,
        MAX_CONTEXT,
    )?;
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
            context: 4096,
            slots: 2,
            batch: 128,
            cpus: vec![0],
            max_output: 10,
            projector: None,
            memory: MemoryPlan::default(),
            vocabulary: Default::default(),
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
