//! What each byte of a model's files is for, and so when it is needed.

use serde::{Deserialize, Serialize};

/// Files that one model may lie in: each takes a descriptor to its worker. Published ones have 13 at most.
pub const MOST_FILES: usize = 64;

/// What a part of a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Class {
    /// Metadata, the vocabulary, names: read once, while the model is loaded.
    Header,
    /// Weights that belong to no layer, for every token.
    Shared,
    /// One layer's weights but for its experts: for every token.
    Layer(u16),
    /// The token embedding, which is the output head too: a row for each token that is read, all of
    /// it for each that is sampled.
    Head,
    /// The table of Per-Layer Embeddings: a row for each token.
    PerLayer,
    /// One layer's experts: a few of them for each token.
    Experts(u16),
    /// Weights that are read in the form that was packed for the CPU, from elsewhere: not needed
    /// again.
    Source,
    /// What turns pictures and sound into embeddings: for those alone.
    Projector,
}

/// Classes without their layer, for sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Header,
    Layers,
    Head,
    PerLayer,
    Experts,
    Source,
    Projector,
}

impl Kind {
    /// All of them, in the order in which they are listed.
    pub const ALL: [Self; 7] = [
        Self::Layers,
        Self::Head,
        Self::Experts,
        Self::PerLayer,
        Self::Source,
        Self::Header,
        Self::Projector,
    ];

    /// Its name in reports.
    pub fn id(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Layers => "layers",
            Self::Head => "head",
            Self::PerLayer => "per-layer",
            Self::Experts => "experts",
            Self::Source => "source",
            Self::Projector => "projector",
        }
    }
}

impl Class {
    /// The class of a model's tensor. llama.cpp gives tensors their names (`llama-arch.cpp`):
    /// `blk.<layer>.` in front of everything that a layer owns, `_exps.weight` behind what is cut
    /// into experts.
    pub fn of_tensor(name: &str) -> Self {
        match name {
            "token_embd.weight" | "output.weight" => return Self::Head,
            "per_layer_token_embd.weight" => return Self::PerLayer,
            _ => {}
        }
        let layer = name
            .strip_prefix("blk.")
            .and_then(|rest| rest.split_once('.'))
            .and_then(|(layer, _)| layer.parse().ok());
        match layer {
            Some(layer) if name.ends_with("_exps.weight") => Self::Experts(layer),
            Some(layer) => Self::Layer(layer),
            None => Self::Shared,
        }
    }

    pub fn kind(self) -> Kind {
        match self {
            Self::Header => Kind::Header,
            Self::Shared | Self::Layer(_) => Kind::Layers,
            Self::Head => Kind::Head,
            Self::PerLayer => Kind::PerLayer,
            Self::Experts(_) => Kind::Experts,
            Self::Source => Kind::Source,
            Self::Projector => Kind::Projector,
        }
    }

    /// Where it stands in the order in which a token needs it; `None` for what not every token
    /// reads as a whole.
    pub fn turn(self) -> Option<u32> {
        match self {
            Self::Shared => Some(0),
            Self::Layer(layer) => Some(1 + u32::from(layer)),
            Self::Head => Some(u32::MAX),
            Self::Header | Self::PerLayer | Self::Experts(_) | Self::Source | Self::Projector => {
                None
            }
        }
    }
}

/// Bytes of a file that are for the same thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// From the start of the file.
    pub offset: u64,
    pub bytes: u64,
    pub class: Class,
}

impl Extent {
    pub fn end(&self) -> u64 {
        self.offset + self.bytes
    }
}

/// A model's file, or its files counted as one: extents without gap or overlap, from the first byte to the last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout(Vec<Extent>);

impl Layout {
    /// The layout of `length` bytes. `starts` are offsets of tensors, with their classes, and of further files' headers, in
    /// any order. What lies in front of the first is the header; padding counts with the tensor in front of it.
    pub fn new(length: u64, starts: impl IntoIterator<Item = (u64, Class)>) -> Self {
        let mut starts: Vec<_> = [(0, Class::Header)].into_iter().chain(starts).collect();
        starts.sort_unstable_by_key(|(offset, _)| *offset);
        starts.dedup_by_key(|(_, class)| *class);
        let ends = starts
            .iter()
            .skip(1)
            .map(|(offset, _)| *offset)
            .chain([length]);
        let extents = starts
            .iter()
            .zip(ends)
            .map(|(&(offset, class), end)| Extent {
                offset,
                bytes: end - offset,
                class,
            });
        Self(extents.filter(|extent| extent.bytes > 0).collect())
    }

    /// The same file, with the bytes of `ranges` (offsets and lengths, in order, apart from each
    /// other) being `class`.
    pub fn mark(&self, ranges: &[(u64, u64)], class: Class) -> Self {
        let mut starts = vec![];
        for extent in &self.0 {
            starts.push((extent.offset, extent.class));
            let inside = ranges.iter().map(|&(offset, bytes)| {
                (
                    offset.max(extent.offset),
                    (offset + bytes).min(extent.end()),
                )
            });
            for (from, to) in inside.filter(|(from, to)| from < to) {
                starts.push((from, class));
                starts.push((to, extent.class));
            }
        }
        // Of two that begin at one place the later one holds.
        starts.reverse();
        starts.dedup_by_key(|(offset, _)| *offset);
        starts.reverse();
        Self::new(self.length(), starts)
    }

    /// A file that is of one class.
    pub fn whole(length: u64, class: Class) -> Self {
        Self(vec![Extent {
            offset: 0,
            bytes: length,
            class,
        }])
    }

    pub fn extents(&self) -> &[Extent] {
        &self.0
    }

    /// Bytes of one kind.
    pub fn sum(&self, kind: Kind) -> u64 {
        self.0
            .iter()
            .filter(|extent| extent.class.kind() == kind)
            .map(|extent| extent.bytes)
            .sum()
    }

    /// The length of all.
    pub fn length(&self) -> u64 {
        self.0.last().map_or(0, Extent::end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_a_tensor_is_for() {
        for (name, class) in [
            ("token_embd.weight", Class::Head),
            ("output.weight", Class::Head),
            ("output_norm.weight", Class::Shared),
            ("rope_freqs.weight", Class::Shared),
            ("per_layer_token_embd.weight", Class::PerLayer),
            ("per_layer_model_proj.weight", Class::Shared),
            ("blk.0.attn_q.weight", Class::Layer(0)),
            ("blk.29.ffn_gate_up_exps.weight", Class::Experts(29)),
            ("blk.29.ffn_down_exps.scale", Class::Layer(29)),
            ("blk.29.ffn_gate_inp.weight", Class::Layer(29)),
            ("blk.x.attn_q.weight", Class::Shared),
        ] {
            assert_eq!(Class::of_tensor(name), class, "{name}");
        }
    }

    #[test]
    fn every_byte_has_a_class() {
        let tensors = [
            (4096, Class::Layer(0)),
            (100, Class::Head),
            (4200, Class::Layer(0)),
            (160, Class::PerLayer),
        ];
        let layout = Layout::new(5000, tensors);
        let found: Vec<_> = layout
            .extents()
            .iter()
            .map(|extent| (extent.offset, extent.end(), extent.class))
            .collect();
        let expected = [
            (0, 100, Class::Header),
            (100, 160, Class::Head),
            (160, 4096, Class::PerLayer),
            (4096, 5000, Class::Layer(0)),
        ];
        assert_eq!(found, expected);
        assert_eq!(layout.length(), 5000);
        assert_eq!(
            Kind::ALL.iter().map(|kind| layout.sum(*kind)).sum::<u64>(),
            5000
        );
        assert_eq!(
            Layout::new(50, []).extents(),
            [Extent {
                offset: 0,
                bytes: 50,
                class: Class::Header
            }]
        );
    }

    #[test]
    fn parts_can_be_marked() {
        let layout = Layout::new(
            400,
            [
                (100, Class::Layer(0)),
                (200, Class::Layer(1)),
                (300, Class::Head),
            ],
        );
        let marked = layout.mark(
            &[(100, 50), (180, 20), (200, 100), (320, 10)],
            Class::Source,
        );
        let found: Vec<_> = marked
            .extents()
            .iter()
            .map(|extent| (extent.offset, extent.class))
            .collect();
        let expected = [
            (0, Class::Header),
            (100, Class::Source),
            (150, Class::Layer(0)),
            (180, Class::Source),
            (300, Class::Head),
            (320, Class::Source),
            (330, Class::Head),
        ];
        assert_eq!(found, expected);
        assert_eq!(marked.length(), 400);
        assert_eq!(layout.mark(&[], Class::Source), layout);
    }

    #[test]
    fn layers_are_needed_in_order_and_the_head_last() {
        let mut classes = [
            Class::Head,
            Class::Layer(11),
            Class::PerLayer,
            Class::Layer(2),
            Class::Shared,
        ];
        classes.sort_by_key(|class| class.turn());
        assert_eq!(
            classes,
            [
                Class::PerLayer,
                Class::Shared,
                Class::Layer(2),
                Class::Layer(11),
                Class::Head
            ]
        );
    }
}
