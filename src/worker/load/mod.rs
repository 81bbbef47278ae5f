//! From a plan and descriptors to something that can answer.

mod limits;
mod weights;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::constraint::GrammarCompiler;
use super::encoder::EncoderConfig;
use super::guide::ControlTokens;
use super::inbox::Inbox;
use super::llama::{self, Candidates, Context, ContextPlan, DrafterModel, Model, Token};
use super::prepare::{MediaSupport, Preparer};
use super::progress::LoadProgress;
use super::prompt::Prompter;
use super::releasable_context::ReleasableContext;
use super::residency::{self, Maps, PackedMap, PerLayer, Readiness};
use super::sequences::Sequences;
use super::vocab::{self, Vocab};
use super::weight_files::WeightFiles;
use crate::chat::Speculation;
use crate::gemma::{header_key, picture};
use crate::ipc::{DrafterPlan, LoadPlan, Packing, ProjectorPlan, TemplateSource};
use crate::sys::cpu;
use weights::Weights;

/// A loaded model with everything that a step needs.
pub struct Engine {
    pub model: &'static Model,
    pub sequences: Sequences<ReleasableContext>,
    pub vocab: Vocab,
    pub candidates: Candidates,
    pub limits: EngineLimits,
    /// Tokens that are never sampled.
    pub suppressed: Vec<Token>,
    pub control: Arc<ControlTokens>,
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
    /// Tokens of context that a slot may come to have.
    pub context: u32,
    /// Those that each has in any case.
    pub floor: u32,
    pub slots: u32,
    /// Tokens of one step.
    pub batch: u32,
    /// What a step may take that has running answers and prompts.
    pub step_time: Duration,
    pub threads: u32,
    /// Tokens of one answer.
    pub max_output: u32,
    /// Positions that sliding layers look back.
    pub window: u32,
    /// Tokens of a picture that are computed in one step.
    pub picture_step: u32,
    /// A picture is computed in one step.
    pub whole_pictures: bool,
    /// Whether tokens are tried ahead where a request does not say.
    pub speculation: Speculation,
}

impl EngineLimits {
    /// Tokens of a step whose logits are computed.
    pub fn outputs(&self) -> u32 {
        self.slots.max(self.speculation.most() + 1)
    }
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
    pub drafter: Option<&'static DrafterModel>,
    /// For the preparer thread.
    pub preparer: Preparer,
    /// For the compiler thread.
    pub compiler: GrammarCompiler,
    /// For the encoder thread, if there is a projector.
    pub encoder: Option<EncoderConfig>,
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
    /// For the supervisor's log.
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
pub fn load(
    plan: &LoadPlan,
    files: Vec<OwnedFd>,
    inbox: &Inbox,
    progress: &LoadProgress,
) -> Result<Loaded, LoadError> {
    limits::check(plan)?;
    let Files {
        model: weights,
        projector,
        drafter,
        packed: files,
    } = Files::of(plan, files)?;
    let vocab = read_vocabulary(plan, &weights)?;
    let Weights {
        model,
        packing,
        packed,
        unsaved,
        readiness,
    } = weights::load(plan, &weights, files, &inbox.ending(), progress)?;
    let vocab = vocab
        .join()
        .map_err(|_| "the file's vocabulary cannot be read")??;
    let loader = Loader::new(plan, inbox, model, vocab);
    let encoder = loader.encoder(projector);
    let drafter = loader.drafter(drafter);
    let context = loader.context(packed.clone(), drafter)?;
    let (preparer, template) = loader.preparer()?;
    let (maps, per_layer) = loader.residency(packed.as_ref(), drafter)?;
    let limits = loader.limits;
    let engine = Engine {
        model,
        sequences: Sequences::new(context, limits.slots as usize, limits.batch as usize),
        vocab,
        candidates: Candidates::new(vocab.len()),
        limits,
        suppressed: vocab.suppressed().to_vec(),
        control: Arc::new(ControlTokens::of(vocab)),
        maps,
        per_layer,
        readiness,
    };
    let compiler = GrammarCompiler::new(vocab, engine.suppressed.clone());
    Ok(Loaded {
        engine,
        drafter,
        preparer,
        compiler,
        encoder,
        template,
        packing,
        packed,
        unsaved,
    })
}

/// The descriptors that came with a plan.
struct Files {
    model: WeightFiles,
    projector: Option<(ProjectorPlan, OwnedFd)>,
    drafter: Option<(DrafterPlan, Vec<OwnedFd>)>,
    /// Those for packed weights.
    packed: std::vec::IntoIter<OwnedFd>,
}

impl Files {
    fn of(plan: &LoadPlan, files: Vec<OwnedFd>) -> Result<Self, String> {
        let mut files = files.into_iter();
        let model = WeightFiles::take(&plan.files, &mut files)?;
        let projector = plan.projector.as_ref().map(|plan| {
            let file = files
                .next()
                .ok_or("the projector's descriptor did not come with the plan")?;
            Ok::<_, String>((plan.clone(), file))
        });
        let drafter = plan.drafter.as_ref().map(|plan| {
            let wanted = 1 + usize::from(plan.clusters.is_some());
            let of_drafter: Vec<_> = files.by_ref().take(wanted).collect();
            if of_drafter.len() < wanted {
                return Err("a descriptor of the drafter did not come with the plan");
            }
            Ok((plan.clone(), of_drafter))
        });
        Ok(Self {
            model,
            projector: projector.transpose()?,
            drafter: drafter.transpose()?,
            packed: files,
        })
    }
}

/// Reads the vocabulary on a thread of its own, beside the weights.
fn read_vocabulary(
    plan: &LoadPlan,
    weights: &WeightFiles,
) -> Result<JoinHandle<Result<Vocab, String>>, String> {
    // The first part has all that is no weight.
    let file = weights
        .files()
        .next()
        .ok_or("the plan has no file for the model")?;
    let file = file
        .try_clone()
        .map_err(|error| format!("the model's descriptor cannot be copied: {error}"))?;
    let place = plan.vocabulary.clone();
    Ok(super::thread::start(move || vocab::read(&file, &place)))
}

/// Builds what needs a loaded model and its vocabulary.
struct Loader<'a> {
    plan: &'a LoadPlan,
    inbox: &'a Inbox,
    model: &'static Model,
    vocab: Vocab,
    limits: EngineLimits,
    /// Whether a picture's tokens attend to each other, so that it must be decoded in one step.
    pictures_look_ahead: bool,
}

impl<'a> Loader<'a> {
    fn new(plan: &'a LoadPlan, inbox: &'a Inbox, model: &'static Model, vocab: Vocab) -> Self {
        let batch = plan.batch.max(plan.slots);
        // The small variants read pictures like text. The large ones read each as a whole, in one
        // step.
        let pictures_look_ahead = plan.projector.is_some() && !is_small(model);
        let picture_step = if pictures_look_ahead {
            batch.max(picture::USUAL_BUDGET)
        } else {
            batch
        };
        // A context that takes all its memory at once is no larger than what is counted.
        let context = match llama::is_lazy() {
            true => plan.context,
            false => plan.floor.min(plan.context),
        };
        let limits = EngineLimits {
            context,
            floor: plan.floor.min(context),
            slots: plan.slots,
            batch,
            step_time: Duration::from_millis(plan.step_time_ms.into()),
            threads: plan.cpus.len() as u32,
            max_output: plan.max_output,
            window: model.window(),
            picture_step,
            whole_pictures: pictures_look_ahead,
            speculation: plan.speculation,
        };
        Self {
            plan,
            inbox,
            model,
            vocab,
            limits,
            pictures_look_ahead,
        }
    }

    fn encoder(&self, projector: Option<(ProjectorPlan, OwnedFd)>) -> Option<EncoderConfig> {
        projector.map(|(plan, file)| EncoderConfig {
            plan,
            file,
            width: self.model.row_width(),
            threads: self.limits.threads,
            ending: self.inbox.ending(),
            progress: self.inbox.progress(),
        })
    }

    /// Without it the model is as good for everything else.
    fn drafter(
        &self,
        drafter: Option<(DrafterPlan, Vec<OwnedFd>)>,
    ) -> Option<&'static DrafterModel> {
        let (plan, files) = drafter?;
        let tokens = self.plan.vocabulary.count;
        weights::load_drafter(files, &plan, tokens, &self.inbox.ending())
            .inspect_err(|error| eprintln!("the drafter {} is not used: {error}", plan.name))
            .ok()
    }

    fn context(
        &self,
        packed: Option<PackedMap>,
        drafter: Option<&'static DrafterModel>,
    ) -> Result<ReleasableContext, LoadError> {
        let Self { model, limits, .. } = *self;
        let sizes = ContextPlan {
            tokens: limits.context,
            sequences: limits.slots,
            outputs: limits.outputs(),
            batch: limits.picture_step,
            pictures_look_ahead: self.pictures_look_ahead,
            small_kv: self.plan.memory.small_kv,
            threads: limits.threads,
        };
        let experts = model
            .meta(&header_key("expert_count"))
            .and_then(|count| count.trim().parse().ok())
            .filter(|count| *count > 0);
        let (ending, progress) = (self.inbox.ending(), self.inbox.progress());
        let make = move || {
            let watch = experts.map(|count| residency::fetcher(packed.as_ref(), count));
            let (ending, progress) = (ending.clone(), progress.clone());
            Context::new(model, &sizes, ending, progress, watch, drafter)
        };
        // All sizes were checked: what is missing is memory.
        ReleasableContext::new(make).map_err(|reason| LoadError {
            reason,
            out_of_memory: true,
        })
    }

    fn preparer(&self) -> Result<(Preparer, TemplateSource), String> {
        let vocab = self.vocab;
        let bos = vocab
            .bos()
            .and_then(|bos| vocab.text(bos))
            .unwrap_or_default();
        let (prompter, template) = Prompter::new(
            self.model.chat_template().as_deref(),
            bos,
            vocab.spelled(),
            is_small(self.model),
        );
        let most = if self.pictures_look_ahead {
            self.limits.picture_step
        } else {
            u32::MAX
        };
        let projector = self.plan.projector.as_ref();
        let media = projector
            .map(|plan| MediaSupport::of(plan, vocab, most))
            .transpose()?;
        let preparer = Preparer {
            prompter,
            vocab,
            longest: vocab.longest(),
            context: self.limits.context,
            floor: self.limits.floor,
            media,
            system_prompts: self.plan.system_prompts.clone(),
        };
        Ok((preparer, template))
    }

    /// Releases what is not needed of the model's map, now that everything was read from it, and
    /// takes charge of the rest.
    fn residency(
        &self,
        packed: Option<&PackedMap>,
        drafter: Option<&DrafterModel>,
    ) -> Result<(Maps, Option<PerLayer>), String> {
        let memory = &self.plan.memory;
        let windows = self
            .model
            .windows()
            .map_err(|error| format!("the model's map cannot be found: {error}"))?;
        if let Some(packed) = packed {
            residency::release_sources(&packed.mark(&memory.layout), &windows);
        }
        llama::trim();
        let of_drafter = drafter.map(DrafterModel::windows).transpose();
        let of_drafter = of_drafter
            .map_err(|error| format!("the drafter's map cannot be found: {error}"))?
            .unwrap_or_default();
        let maps = Maps::new([windows.clone(), of_drafter].concat(), packed);
        let tokens = self.vocab.len();
        let per_layer = PerLayer::new(&memory.layout, windows, tokens, memory.per_layer);
        Ok((maps, per_layer))
    }
}

/// The small variants are those with a table of embeddings for each layer; their chat template
/// differs.
fn is_small(model: &Model) -> bool {
    model
        .meta(&header_key("embedding_length_per_layer_input"))
        .is_some_and(|width| width.trim() != "0")
}
