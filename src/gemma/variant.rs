//! Which member of the family a model is.

use std::fmt;

use super::model_name::ModelName;

/// What a model's header says of itself, as far as it tells the variants apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts<'a> {
    /// Layers.
    pub block_count: u32,
    /// Width of the hidden state.
    pub embedding_length: u32,
    /// Experts of one layer; 0 for dense models.
    pub expert_count: u32,
    /// Width of the per-layer embeddings; 0 for models without.
    pub per_layer_embedding_length: u32,
    /// `general.size_label`: a size in a word. Converters write the parameters' number (`4.6B`)
    /// unless told better.
    pub size_label: Option<&'a str>,
}

/// A member of the family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Variant {
    E2b,
    E4b,
    B12,
    B26A4b,
    B31,
    /// Built like Gemma 4 but of none of the published sizes, and not saying which it is like:
    /// pruned or grown.
    Other {
        /// Whether it has per-layer embeddings, as the published small ones do and the large ones
        /// do not.
        small: bool,
    },
}

impl Variant {
    /// Tells the variant from its numbers. A model of another size may name the one that it is
    /// built like, and is believed where it has that one's parts: the siblings that the tests use
    /// are told apart in this way.
    pub fn of(facts: Facts<'_>) -> Self {
        let small = facts.per_layer_embedding_length > 0;
        match (
            facts.block_count,
            facts.embedding_length,
            facts.expert_count,
        ) {
            (35, 1536, 0) => return Self::E2b,
            (42, 2560, 0) => return Self::E4b,
            (48, 3840, 0) => return Self::B12,
            (30, 2816, 128) => return Self::B26A4b,
            (60, 5376, 0) => return Self::B31,
            _ => {}
        }
        match (facts.size_label, small, facts.expert_count > 0) {
            (Some("E2B"), true, false) => Self::E2b,
            (Some("E4B"), true, false) => Self::E4b,
            (Some("12B"), false, false) => Self::B12,
            (Some("26B-A4B"), false, true) => Self::B26A4b,
            (Some("31B"), false, false) => Self::B31,
            _ => Self::Other { small },
        }
    }

    /// The published ones, from the smallest to the largest.
    pub const PUBLISHED: [Self; 5] = [Self::E2b, Self::E4b, Self::B12, Self::B26A4b, Self::B31];

    /// The variant that a name means which says no more than that, in any usual spelling: see
    /// [`ModelName`].
    pub fn named(name: &str) -> Option<Self> {
        ModelName::parse(name)
            .filter(|name| name.quantization.is_none())?
            .variant
    }

    /// What clients and the catalog call it.
    pub fn id(self) -> &'static str {
        match self {
            Self::E2b => "gemma-4-e2b",
            Self::E4b => "gemma-4-e4b",
            Self::B12 => "gemma-4-12b",
            Self::B26A4b => "gemma-4-26b-a4b",
            Self::B31 => "gemma-4-31b",
            Self::Other { .. } => "gemma-4-other",
        }
    }

    /// Whether it was trained to answer without thinking by simply answering. The larger ones need
    /// an empty thought in front of the answer.
    pub fn is_small(self) -> bool {
        match self {
            Self::E2b | Self::E4b => true,
            Self::B12 | Self::B26A4b | Self::B31 => false,
            Self::Other { small } => small,
        }
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variant(
        block_count: u32,
        embedding_length: u32,
        expert_count: u32,
        per_layer_embedding_length: u32,
    ) -> Variant {
        Variant::of(Facts {
            block_count,
            embedding_length,
            expert_count,
            per_layer_embedding_length,
            size_label: None,
        })
    }

    fn labelled(size_label: &str, expert_count: u32, per_layer_embedding_length: u32) -> Variant {
        let facts = Facts {
            block_count: 6,
            embedding_length: 128,
            expert_count,
            per_layer_embedding_length,
            size_label: Some(size_label),
        };
        Variant::of(facts)
    }

    #[test]
    fn published_sizes_are_known() {
        for (found, id, small) in [
            (variant(35, 1536, 0, 256), "gemma-4-e2b", true),
            (variant(42, 2560, 0, 256), "gemma-4-e4b", true),
            (variant(48, 3840, 0, 0), "gemma-4-12b", false),
            (variant(30, 2816, 128, 0), "gemma-4-26b-a4b", false),
            (variant(60, 5376, 0, 0), "gemma-4-31b", false),
        ] {
            assert_eq!(found.to_string(), id);
            assert_eq!(found.is_small(), small, "{id}");
        }
    }

    #[test]
    fn names_are_known_in_any_usual_spelling() {
        for (name, variant) in [
            ("gemma-4-e2b", Some(Variant::E2b)),
            ("Gemma-4-E4B-it", Some(Variant::E4b)),
            ("google/gemma-4-12b-it", Some(Variant::B12)),
            ("google/gemma-4-26b-a4b-it", Some(Variant::B26A4b)),
            ("gemma4:26b", Some(Variant::B26A4b)),
            ("gemma_4_31b", Some(Variant::B31)),
            ("gemma-4-e2b-it-q4_0", None),
            ("gemma-4", None),
            ("gpt-4", None),
            ("", None),
        ] {
            assert_eq!(Variant::named(name), variant, "{name}");
        }
        assert!(
            Variant::PUBLISHED
                .iter()
                .all(|variant| Variant::named(variant.id()) == Some(*variant))
        );
    }

    #[test]
    fn other_sizes_are_other() {
        assert_eq!(variant(6, 128, 0, 32), Variant::Other { small: true });
        assert_eq!(variant(6, 128, 0, 0), Variant::Other { small: false });
        assert_eq!(variant(35, 1536, 8, 256), Variant::Other { small: true });
        assert_eq!(variant(34, 1536, 0, 0), Variant::Other { small: false });
    }

    #[test]
    fn other_sizes_may_say_what_they_are_built_like() {
        assert_eq!(labelled("E2B", 0, 32), Variant::E2b);
        assert_eq!(labelled("E4B", 0, 32), Variant::E4b);
        assert_eq!(labelled("12B", 0, 0), Variant::B12);
        assert_eq!(labelled("26B-A4B", 8, 0), Variant::B26A4b);
        assert_eq!(labelled("31B", 0, 0), Variant::B31);
        assert_eq!(labelled("1.7M", 0, 32), Variant::Other { small: true });
        // Without the parts of what they claim to be like.
        assert_eq!(labelled("E2B", 0, 0), Variant::Other { small: false });
        assert_eq!(labelled("31B", 0, 32), Variant::Other { small: true });
        assert_eq!(labelled("26B-A4B", 0, 0), Variant::Other { small: false });
        assert_eq!(labelled("12B", 8, 0), Variant::Other { small: false });
    }

    #[test]
    fn numbers_count_more_than_words() {
        let facts = Facts {
            block_count: 35,
            embedding_length: 1536,
            expert_count: 0,
            per_layer_embedding_length: 256,
            size_label: Some("31B"),
        };
        assert_eq!(Variant::of(facts), Variant::E2b);
    }
}
