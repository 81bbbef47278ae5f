//! What can be typed to keep models: bring them, take them away, look at them.

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser as NotEmpty;
use clap::{Args, ValueEnum, ValueHint};
use clap_complete::ArgValueCandidates;

use crate::ctl::completion::model_names;

#[derive(Debug, Args)]
pub struct ImportArgs {
    /// GGUF files: models, projectors, drafters. Several go into a folder together, which has the model's name: what belongs
    /// to a model must lie beside it
    #[arg(value_hint = ValueHint::FilePath, required_unless_present = "from", conflicts_with = "from")]
    pub files: Vec<PathBuf>,

    /// Take them from where another program keeps its models
    #[arg(long, value_enum, value_name = "STORE")]
    pub from: Option<Foreign>,

    /// With --from: only those whose name has this; without, all are listed and one is imported only if it is the only one
    #[arg(long, value_name = "NAME", requires = "from", value_parser = NotEmpty::new())]
    pub only: Option<String>,

    /// What the file is to be called; `.gguf` is added
    #[arg(long = "as", value_name = "NAME", value_parser = NotEmpty::new())]
    pub name: Option<String>,

    /// Give the file a second name instead of copying it. It must lie on the model directory's disk, and whoever may change
    /// it can change the model
    #[arg(long)]
    pub link: bool,
}

/// Who else keeps models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Foreign {
    /// $OLLAMA_MODELS, ~/.ollama/models or /usr/share/ollama/.ollama/models
    Ollama,
    /// $HF_HUB_CACHE, $HF_HOME/hub or ~/.cache/huggingface/hub
    Huggingface,
}

#[derive(Debug, Args)]
pub struct RmArgs {
    /// Ids of installed models, as `gemmactl models` lists them
    #[arg(required = true, value_parser = NotEmpty::new(), add = ArgValueCandidates::new(model_names))]
    pub models: Vec<String>,
}

#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Only this model; all of them without it
    #[arg(value_parser = NotEmpty::new(), add = ArgValueCandidates::new(model_names))]
    pub model: Option<String>,

    /// Print the daemon's own JSON, a line for each model
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct PruneArgs {
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,

    /// Only show what would be deleted
    #[arg(long, conflicts_with = "yes")]
    pub dry_run: bool,

    /// Print the daemon's own JSON; sizes are bytes
    #[arg(long)]
    pub json: bool,
}
