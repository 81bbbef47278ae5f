//! What of the model's files is in memory, and when it gets there.
//!
//! ```text
//!   the model file                                       the packed file
//!   │ header │ Per-Layer Embeddings │ sources │ head │   │ layers, experts │
//!      once     a row for each token   never    every       every token, a few experts
//!               (per_layer)                     token       (warm)
//! ```
//!
//! Nothing is read only because it is mapped ([`super::llama`] sees to that). [`warm`] reads what
//! every token needs, in the order in which a token needs it, while the rest of the loading goes
//! on, and checks what was packed before. Rows of the Per-Layer Embeddings are fetched together for
//! each step, and evicted when they have become many; [`experts`] are fetched together for each
//! layer. All pages of both files can be evicted at any time.

mod experts;
mod maps;
mod per_layer;
mod report;
mod warm;

pub use experts::fetcher;
pub use maps::Maps;
pub use per_layer::PerLayer;
pub use report::{MemoryReporter, MemoryReporterCell};
pub use warm::{Readiness, Warm};

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::llama::packing::{Outcome, PackedTarget, packing};
use super::packed::{self, Contents, Key, Packed};
use crate::gemma::layout::{Class, Layout};
use crate::ipc::{MemoryPlan, Packing, Repack};
use crate::sys::mapping::Mapping;
use crate::sys::residency::Window;

/// Why a plan has nothing packed.
const NO_ROOM: &str = "no file can hold them, and there is no room for them in memory";

/// The packed weights, where a file has them.
#[derive(Clone, Debug)]
pub struct PackedMap {
    contents: Arc<Contents>,
    space: Arc<Mapping>,
}

impl PackedMap {
    /// What its bytes are for.
    fn layout(&self) -> Layout {
        let tensors = self
            .contents
            .tensors
            .iter()
            .map(|tensor| (tensor.offset, Class::of_tensor(&tensor.name)));
        Layout::new(self.contents.bytes, tensors)
    }

    /// The model file's layout, with what is read from here instead marked.
    pub fn mark(&self, model: &Layout) -> Layout {
        let mut sources: Vec<_> = self
            .contents
            .tensors
            .iter()
            .map(|tensor| (tensor.source, tensor.bytes))
            .collect();
        sources.sort_unstable();
        model.mark(&sources, Class::Source)
    }
}

/// Evicts the weights of the model file that are packed elsewhere. The small ones in between stay: they
/// are mapped now, because the kernel maps what it has around a page, and would take hundreds of times
/// as much to them when they are touched.
pub fn release_sources(layout: &Layout, windows: &[Window]) {
    let sources = || {
        layout
            .extents()
            .iter()
            .filter(|extent| extent.class == Class::Source)
    };
    let (Some(first), Some(last)) = (sources().next(), sources().next_back()) else {
        return;
    };
    let around = first.offset..last.end();
    for window in windows {
        window.read_singly(around.clone());
        for extent in layout.extents() {
            let between = around.contains(&extent.offset)
                && matches!(extent.class, Class::Layer(_) | Class::Shared);
            if between {
                window.populate(extent.offset..extent.end());
            }
        }
        sources().for_each(|source| window.evict(source.offset..source.end()));
    }
}

/// The files for packed weights that came with a plan, and what was decided about them.
#[derive(Default)]
pub struct Packer {
    /// `None` without a plan, and then there are no files.
    key: Option<Key>,
    /// The file that has them.
    ready: Option<PackedMap>,
    /// Why there was a file that is not used.
    instead: Option<String>,
    empty: Option<File>,
    /// Why nothing is packed, if nothing is.
    left: Option<String>,
}

impl Packer {
    /// Looks at what came. `files` are the descriptors behind the model's and its projector's.
    pub fn new(plan: &MemoryPlan, mut files: impl Iterator<Item = OwnedFd>) -> Self {
        let left = (plan.repack == Repack::Never).then(|| NO_ROOM.to_owned());
        let Some(plan) = &plan.packed else {
            return Self {
                left,
                ..Self::default()
            };
        };
        let key = Key {
            model: plan.model,
            packing: packing(),
        };
        let ready = plan.ready.then(|| files.next()).flatten().map(File::from);
        let empty = plan.empty.then(|| files.next()).flatten().map(File::from);
        let mut packer = Self {
            key: None,
            ready: None,
            instead: None,
            empty,
            left,
        };
        if let Some(file) = ready {
            match packed::open(file, &key)
                .map_err(|why| why.to_string())
                .and_then(mapped)
            {
                Ok(map) => packer.ready = Some(map),
                Err(why) => packer.instead = Some(why),
            }
        }
        packer.key = Some(key);
        packer
    }

    /// The packed weights that are there already.
    pub fn ready(&self) -> Option<&PackedMap> {
        self.ready.as_ref()
    }

    /// Where the weights of the next load are to be. After [`Outcome::Wrong`] the next target is
    /// the empty file.
    pub fn target(&mut self) -> Option<PackedTarget> {
        if let Some(map) = &self.ready {
            return Some(PackedTarget::Ready {
                contents: map.contents.clone(),
                space: map.space.clone(),
            });
        }
        Some(PackedTarget::New {
            file: self.empty.take()?,
            key: self.key.clone()?,
        })
    }

    /// The file that was thought to have the weights has others.
    pub fn reject(&mut self, why: String) {
        self.ready = None;
        self.instead = Some(why);
    }

    /// Neither a file nor memory can take them.
    pub fn leave(&mut self, why: String) {
        (self.ready, self.empty) = (None, None);
        self.left = Some(why);
    }

    /// What became of the weights, and the file that has to reach the disk before it can be used
    /// again.
    pub fn settle(self, outcome: Outcome) -> (Packing, Option<PackedMap>, Option<File>) {
        match outcome {
            Outcome::Nothing => {
                let left = self.left.map(|why| Packing::Left { why });
                (left.unwrap_or(Packing::Nothing), None, None)
            }
            Outcome::Reused => (Packing::Reused, self.ready, None),
            Outcome::Packed {
                packed: Packed { file, contents },
                space,
            } => {
                let map = PackedMap {
                    contents: Arc::new(contents),
                    space,
                };
                let instead = self.instead;
                (Packing::New { instead }, Some(map), Some(file))
            }
            Outcome::InMemory { why } | Outcome::Wrong { why } => {
                (Packing::InMemory { why }, None, None)
            }
            Outcome::NoFile { why } => (Packing::Left { why }, None, None),
        }
    }
}

fn mapped(Packed { file, contents }: Packed) -> Result<PackedMap, String> {
    let space =
        Mapping::of_file(&file, contents.bytes as usize).map_err(|error| error.to_string())?;
    Ok(PackedMap {
        contents: Arc::new(contents),
        space: Arc::new(space),
    })
}
