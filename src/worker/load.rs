//! From a plan and a descriptor to something that can answer.

use std::os::fd::OwnedFd;

use super::inbox::Inbox;
use super::llama::{Batch, Candidates, Context, ContextPlan, Model, Token, Vocab};
use super::media::Lens;
use super::prepare::{PictureMarks, Preparer};
use super::prompt::Prompter;
use crate::gemma::{marker, picture};
use crate::ipc::{LoadPlan, TemplateSource};
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
    pub context: Context,
    pub vocab: Vocab,
    pub batch: Batch,
    pub candidates: Candidates,
    pub limits: EngineLimits,
    /// Tokens that end a turn.
    pub ends: Vec<Token>,
    /// Tokens that are never drawn.
    pub suppressed: Vec<Token>,
    /// Tokens that begin a function call.
    pub calls: Vec<Token>,
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

/// Keeps this thread, and those it starts, on the plan's CPUs. Where that is refused the system chooses.
pub fn pin(plan: &LoadPlan) {
    if let Err(error) = cpu::pin(&plan.cpus) {
        eprintln!("cannot run on CPUs {:?} only, so the system chooses: {error}", plan.cpus);
    }
}

/// What a successful load leaves.
pub struct Loaded {
    pub engine: Engine,
    /// For the preparer thread.
    pub preparer: Preparer,
    /// For the viewer thread, if there is a projector.
    pub lens: Option<Lens>,
    pub template: TemplateSource,
}

/// Loads what `plan` says. `files` are the model and, if there is one, its projector. The error is for whoever reads
/// the supervisor's log.
pub fn load(plan: &LoadPlan, files: Vec<OwnedFd>, inbox: &Inbox) -> Result<Loaded, String> {
    check(plan)?;
    let mut files = files.into_iter();
    let file = files.next().ok_or("no descriptor came with the plan")?;
    let model: &'static Model = Box::leak(Box::new(Model::load(file, &inbox.ending())?));
    let architecture = model.meta("general.architecture").unwrap_or_default();
    if architecture != ARCHITECTURE {
        return Err(format!("the file holds a `{architecture}` model; only `{ARCHITECTURE}` is served"));
    }
    let vocab = model.vocab();
    let threads = plan.cpus.len() as u32;
    let lens = match &plan.projector {
        None => None,
        Some(plan) => {
            let file = files.next().ok_or("the projector's descriptor did not come with the plan")?;
            Some(Lens { plan: plan.clone(), file, model, threads, ending: inbox.ending() })
        }
    };
    let batch = plan.batch.max(plan.slots);
    // The small variants read pictures like text. The large ones read each as a whole, in one step.
    let pictures_look_ahead = lens.is_some() && !is_small(model);
    let picture_step = if pictures_look_ahead { batch.max(picture::USUAL_BUDGET) } else { batch };
    let limits = EngineLimits {
        context: plan.context,
        slots: plan.slots,
        batch,
        threads,
        max_output: plan.max_output,
        window: model.window(),
        picture_step,
    };
    let sizes = ContextPlan { tokens: limits.context, sequences: limits.slots, batch: picture_step, pictures_look_ahead, threads };
    let context = Context::new(model, &sizes, inbox.ending())?;

    let bos = vocab.bos().and_then(|bos| vocab.text(bos)).unwrap_or_default();
    let (prompter, template) = Prompter::new(model.chat_template().as_deref(), &bos, vocab.spelled(), is_small(model));
    let pictures = plan.projector.as_ref().map(|plan| {
        let most = if pictures_look_ahead { picture_step } else { u32::MAX };
        PictureMarks::of(vocab, plan.longest_side, most)
    });
    let preparer = Preparer { prompter, vocab, longest: vocab.longest(), context: limits.context, pictures: pictures.transpose()? };
    let engine = Engine {
        context,
        vocab,
        batch: Batch::new(limits.batch as usize),
        candidates: Candidates::new(vocab.len()),
        limits,
        ends: vocab.ends(),
        suppressed: vocab.suppressed(),
        calls: vocab.named(marker::TOOL_CALL),
    };
    Ok(Loaded { engine, preparer, lens, template })
}

/// The small variants are those with a table of embeddings for each layer; their chat template differs.
fn is_small(model: &Model) -> bool {
    model.meta(&format!("{ARCHITECTURE}.embedding_length_per_layer_input")).is_some_and(|width| width.trim() != "0")
}

fn check(plan: &LoadPlan) -> Result<(), String> {
    between("slots", plan.slots, 1, MAX_SLOTS)?;
    between("batch", plan.batch, 1, MAX_BATCH)?;
    between("context × slots", plan.context.saturating_mul(plan.slots), 1, MAX_CONTEXT)?;
    between("max_output", plan.max_output, 1, u32::MAX)?;
    between("CPUs", u32::try_from(plan.cpus.len()).unwrap_or(u32::MAX), 1, MAX_THREADS as u32)
}

fn between(name: &str, value: u32, low: u32, high: u32) -> Result<(), String> {
    if (low..=high).contains(&value) { Ok(()) } else { Err(format!("{name} is {value}; it must be between {low} and {high}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absurd_plans_are_refused_by_name() {
        let good = LoadPlan { name: String::new(), context: 4096, slots: 2, batch: 128, cpus: vec![0], max_output: 10, projector: None };
        assert_eq!(check(&good), Ok(()));
        for (name, bad) in [
            ("slots", LoadPlan { slots: 0, ..good.clone() }),
            ("slots", LoadPlan { slots: 65, ..good.clone() }),
            ("batch", LoadPlan { batch: 0, ..good.clone() }),
            ("context", LoadPlan { context: u32::MAX, ..good.clone() }),
            ("context", LoadPlan { context: 0, ..good.clone() }),
            ("CPUs", LoadPlan { cpus: vec![], ..good.clone() }),
            ("max_output", LoadPlan { max_output: 0, ..good.clone() }),
        ] {
            let error = check(&bad).unwrap_err();
            assert!(error.starts_with(name), "{error}");
        }
    }
}
