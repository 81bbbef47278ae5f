//! The maps of the model's files as a whole, and evicting them from this process when memory is
//! short. Whatever is evicted is in its file, and as a rule still in the page cache.

use super::PackedMap;
use crate::gemma::layout::Class;
use crate::sys::residency::Window;

/// What is mapped of the files.
pub struct Maps {
    model: Vec<Window>,
    packed: Option<PackedMap>,
}

impl Maps {
    /// `model` is where the model's files are mapped, and its drafter's.
    pub fn new(model: Vec<Window>, packed: Option<&PackedMap>) -> Self {
        Self {
            model,
            packed: packed.cloned(),
        }
    }

    /// Evicts all of it: nothing is computed now.
    pub fn evict(&self) {
        self.model
            .iter()
            .for_each(|window| window.evict(window.file_range()));
        if let Some(packed) = &self.packed {
            packed.space.evict();
        }
    }

    /// Lets the system take what is least needed first: experts, of which a token needs a few.
    pub fn mark_cold(&self) {
        let Some(packed) = &self.packed else { return };
        for extent in packed
            .layout()
            .extents()
            .iter()
            .filter(|extent| matches!(extent.class, Class::Experts(_)))
        {
            packed
                .space
                .mark_cold(extent.offset as usize..extent.end() as usize);
        }
    }
}
