//! What can be typed to have a model fetched.

use clap::Args;
use clap::builder::NonEmptyStringValueParser as NotEmpty;

#[derive(Debug, Args)]
pub struct PullArgs {
    /// `auto` for what fits this machine best, a variant like `e2b` or `gemma4:e2b`, a model's id (see `gemmactl models --all`),
    /// OWNER/REPO, OWNER/REPO:FILE or OWNER/REPO:QUANTISATION on the hub, or the https address of a GGUF file, which may end in
    /// #sha256=DIGITS
    #[arg(value_name = "MODEL", value_parser = NotEmpty::new(), default_value = "auto")]
    pub model: String,

    /// What belongs to it: vision, audio and drafter, with commas between them, or none [default: all that there is and has
    /// room on the disk]
    #[arg(long, value_name = "LIST")]
    pub with: Option<String>,

    /// The type of its weights, like Q4_0
    #[arg(long, value_name = "TYPE")]
    pub quant: Option<String>,

    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,

    /// Also if it takes more memory than this machine has
    #[arg(long, conflicts_with_all = ["status", "cancel"])]
    pub force: bool,

    /// Show what is being fetched, and what was
    #[arg(long, conflicts_with_all = ["with", "quant", "yes", "cancel"])]
    pub status: bool,

    /// Stop a download, and forget what came
    #[arg(long, value_name = "ID", conflicts_with_all = ["with", "quant", "yes"])]
    pub cancel: Option<String>,

    /// Print the daemon's own JSON; a line for each event
    #[arg(long)]
    pub json: bool,
}
