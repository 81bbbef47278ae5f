//! The memory report: what of each file is in memory.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use super::PackedMap;
use crate::gemma::layout::{Class, Extent, Layout};
use crate::ipc::{FileMemory, FileRole, MemorySnapshot, Part};
use crate::sys::pagemap::Pagemap;
use crate::sys::residency::Window;
use crate::sys::usage::Usage;

/// Parts that a file is shown in, at least.
const PARTS: u64 = 512;

/// Reports on the model's files. Any thread may ask it.
pub struct MemoryReporter {
    pagemap: Pagemap,
    model: Layout,
    windows: Vec<Window>,
    packed: Option<(Layout, PackedMap)>,
    drafter: Vec<Window>,
}

/// Where the [`MemoryReporter`] is once the model is loaded.
pub type MemoryReporterCell = Arc<OnceLock<MemoryReporter>>;

impl MemoryReporter {
    /// `model` is the layout of the model's files, which are mapped in `windows`; `drafter` is where its
    /// drafter's are.
    pub fn new(
        pagemap: Pagemap,
        model: Layout,
        windows: Vec<Window>,
        packed: Option<PackedMap>,
        drafter: Vec<Window>,
    ) -> Self {
        Self {
            pagemap,
            model,
            windows,
            packed: packed.map(|packed| (packed.layout(), packed)),
            drafter,
        }
    }

    /// What is in memory now. Parts that cannot be looked at count as absent.
    pub fn snapshot(&self) -> MemorySnapshot {
        let model = self.file(FileRole::Model, &self.model, |part| {
            self.windows
                .iter()
                .map(|window| window.addresses(part.clone()))
                .find(|range| !range.is_empty())
                .unwrap_or(0..0)
        });
        let packed = self
            .packed
            .as_ref()
            .map(|(layout, PackedMap { space, .. })| {
                let base = space.base().addr();
                self.file(FileRole::Packed, layout, |part| {
                    base + part.start as usize..base + part.end as usize
                })
            });
        let Usage {
            anonymous,
            file_backed,
            peak,
            locked,
        } = Usage::own();
        MemorySnapshot {
            files: [model]
                .into_iter()
                .chain(packed)
                .chain(self.drafter())
                .collect(),
            anonymous,
            file_backed,
            peak,
            locked,
        }
    }

    /// All of it is read for each guess, or may be.
    fn drafter(&self) -> Option<FileMemory> {
        let places = self.drafter.iter();
        let places: Vec<_> = places.map(|w| w.addresses(w.file_range())).collect();
        let resident = self.pagemap.present(&places);
        let resident = resident.unwrap_or_else(|_| vec![0; places.len()]);
        let parts = places.iter().zip(resident).map(|(place, resident)| Part {
            class: Class::Shared,
            bytes: place.len() as u64,
            resident,
        });
        (!places.is_empty()).then(|| FileMemory {
            role: FileRole::Drafter,
            parts: parts.collect(),
        })
    }

    fn file(
        &self,
        role: FileRole,
        layout: &Layout,
        addresses: impl Fn(Range<u64>) -> Range<usize>,
    ) -> FileMemory {
        let extents = pieces(layout);
        let places: Vec<_> = extents
            .iter()
            .map(|extent| addresses(extent.offset..extent.end()))
            .collect();
        let resident = self
            .pagemap
            .present(&places)
            .unwrap_or_else(|_| vec![0; places.len()]);
        let parts = extents.iter().zip(resident);
        FileMemory {
            role,
            parts: parts
                .map(|(extent, resident)| Part {
                    class: extent.class,
                    bytes: extent.bytes,
                    resident,
                })
                .collect(),
        }
    }
}

/// The layout's extents, the large ones cut up.
fn pieces(layout: &Layout) -> Vec<Extent> {
    let most = (layout.length() / PARTS).max(1);
    let cut = |extent: &Extent| {
        let count = extent.bytes.div_ceil(most);
        let (offset, bytes, class) = (extent.offset, extent.bytes, extent.class);
        let at =
            move |i: u64| offset + (u128::from(bytes) * u128::from(i) / u128::from(count)) as u64;
        (0..count)
            .map(move |i| Extent {
                offset: at(i),
                bytes: at(i + 1) - at(i),
                class,
            })
            .collect::<Vec<_>>()
    };
    layout.extents().iter().flat_map(cut).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_parts_are_cut_and_nothing_is_lost() {
        let layout = Layout::new(
            1_000_003,
            [
                (10, Class::Head),
                (500_000, Class::PerLayer),
                (500_001, Class::Shared),
            ],
        );
        let pieces = pieces(&layout);
        assert!(pieces.len() > 512 && pieces.len() < 520, "{}", pieces.len());
        assert!(
            pieces
                .windows(2)
                .all(|pair| pair[0].end() == pair[1].offset)
        );
        assert_eq!(
            (pieces[0].offset, pieces.last().unwrap().end()),
            (0, 1_000_003)
        );
        assert!(pieces.iter().all(|piece| piece.bytes <= 1_000_003 / PARTS));
    }
}
