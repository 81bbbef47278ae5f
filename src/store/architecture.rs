//! What `general.architecture` says of the files of the family.

pub const MODEL: &str = "gemma4";
pub const PROJECTOR: &str = "clip";
pub const DRAFTER: &str = "gemma4-assistant";
/// What converters wrote before llama.cpp knew drafters; it does not read those.
pub const EARLY_DRAFTER: &str = "gemma4_assistant";
