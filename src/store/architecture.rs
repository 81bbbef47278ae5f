//! What `general.architecture` says of the files of the family.

pub use crate::gemma::{ARCHITECTURE as MODEL, DRAFTER_ARCHITECTURE as DRAFTER};
pub const PROJECTOR: &str = "clip";
/// What converters wrote before llama.cpp knew drafters; it does not read those.
pub const EARLY_DRAFTER: &str = "gemma4_assistant";

/// Whether files of this architecture can be of use.
pub fn is_known(architecture: &str) -> bool {
    [MODEL, PROJECTOR, DRAFTER].contains(&architecture)
}
