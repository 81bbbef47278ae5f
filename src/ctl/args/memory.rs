//! Of `gemmactl memory` and `gemmactl cache`.

use clap::builder::NonEmptyStringValueParser as NotEmpty;
use clap::{Args, Subcommand};
use clap_complete::ArgValueCandidates;

use crate::ctl::completion::planned_names;
use crate::ctl::values;

#[derive(Debug, Args)]
pub struct MemoryArgs {
    /// Print the daemon's own JSON; sizes are bytes
    #[arg(long, global = true)]
    pub json: bool,

    #[command(subcommand)]
    pub command: Option<MemoryCommand>,
}

#[derive(Debug, Subcommand)]
pub enum MemoryCommand {
    /// Show what each model would take, before it is loaded or downloaded
    ///
    /// For every installed model and every variant of the family. FILE is the size of the model
    /// file, about which is said (~) what one in Q4_0 has that is not here. TOTAL is what has to be
    /// in memory for the model to run at full speed; UNEVICTABLE is the part of it that the system
    /// cannot take back: the KV cache, buffers, tables. The bars show both, and what is over the
    /// memory that is free. Of experts a third is counted; the others are read from the disk when
    /// they are needed.
    Plan(PlanArgs),
}

#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Only this model or variant; a part of the name is enough
    #[arg(value_parser = NotEmpty::new(), add = ArgValueCandidates::new(planned_names))]
    pub model: Option<String>,

    /// For a context of so many tokens, like 4096 or 4k, instead of several
    #[arg(long, value_name = "TOKENS", value_parser = values::context, allow_hyphen_values = true)]
    pub ctx: Option<u32>,

    /// As if so much memory were free, instead of what is free now: 4G, 4.5GB, 1500M. G, GB and GiB
    /// are the same, 1024 MiB. Of this, too, a part is left to other programs
    #[arg(long, value_name = "SIZE", value_parser = values::ram, allow_hyphen_values = true)]
    pub ram: Option<u64>,
}

#[derive(Debug, Args)]
pub struct CacheArgs {
    /// Print the daemon's own JSON; sizes are bytes
    #[arg(long, global = true)]
    pub json: bool,

    #[command(subcommand)]
    pub command: Option<CacheCommand>,
}

#[derive(Debug, Subcommand)]
pub enum CacheCommand {
    /// Remove the packed weights; they are packed anew when their model is loaded
    ///
    /// For administrators. A model that is loaded goes on; what it uses is free once it is
    /// unloaded.
    Clear {
        /// Forget your own prompts instead
        #[arg(long)]
        prompts: bool,

        /// Forget everybody's prompts (for administrators)
        #[arg(long, requires = "prompts")]
        all: bool,
    },
}
