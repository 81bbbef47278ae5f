//! What can be typed to have this machine measured.

use std::time::Duration;

use clap::Args;
use clap::builder::NonEmptyStringValueParser as NotEmpty;
use clap_complete::ArgValueCandidates;

use crate::ctl::completion::model_names;
use crate::ctl::values;

#[derive(Debug, Args)]
pub struct BenchArgs {
    /// The model's id, a variant like `e2b`, or `auto`
    #[arg(default_value = "auto", value_parser = NotEmpty::new(), add = ArgValueCandidates::new(model_names))]
    pub model: String,

    /// How often reading and writing are measured
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=20))]
    pub runs: u8,

    /// End after this time, like 90s or 30m, with what was measured until then
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = values::duration, allow_hyphen_values = true)]
    pub limit: Duration,

    /// Empty the page cache of the whole machine before the first start, so that it reads everything from the disk; for root
    #[arg(long)]
    pub drop_caches: bool,

    /// Print JSON; sizes are bytes, times seconds
    #[arg(long, conflicts_with = "markdown")]
    pub json: bool,

    /// Print Markdown, to send in
    #[arg(long)]
    pub markdown: bool,
}
