//! The published variants, with figures for those that are not installed.

use serde::Deserialize;

use super::catalog;
use crate::gemma::model_shape::ModelShape;
use crate::gemma::variant::Variant;

pub(super) const FAMILY: &str = include_str!("../../models/family.toml");

/// A variant of `models/family.toml`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Published {
    #[serde(rename = "id", deserialize_with = "variant")]
    pub variant: Variant,
    /// Tokens that it was made for.
    pub context_limit: u32,
    /// The type of the weights that the figures are for.
    pub quantization: String,
    /// What a message may hold besides text, with its projector.
    pub senses: Senses,
    /// An SPDX identifier.
    pub licence: String,
    pub sampling: Sampling,
    pub figures: ModelShape,
}

/// Written as a list of `image` and `audio`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct Senses {
    pub image: bool,
    pub audio: bool,
}

impl TryFrom<Vec<String>> for Senses {
    type Error = String;

    fn try_from(words: Vec<String>) -> Result<Self, String> {
        let mut senses = Self::default();
        for word in words {
            match word.as_str() {
                "image" => senses.image = true,
                "audio" => senses.audio = true,
                _ => return Err("senses are `image` and `audio`".to_owned()),
            }
        }
        Ok(senses)
    }
}

/// How tokens are best chosen.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Sampling {
    pub temperature: f32,
    pub top_k: u32,
    pub top_p: f32,
    pub min_p: f32,
}

fn variant<'de, D: serde::Deserializer<'de>>(id: D) -> Result<Variant, D::Error> {
    let id = String::deserialize(id)?;
    Variant::named(&id)
        .ok_or_else(|| serde::de::Error::custom(format!("there is no variant `{id}`")))
}

/// All of them, from the smallest to the largest.
pub fn published() -> Vec<Published> {
    // The tests read the file that is compiled in.
    catalog::parse(FAMILY).map_or(vec![], |family| family.variants)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variant_is_there() {
        let family = published();
        let variants: Vec<_> = family.iter().map(|one| one.variant).collect();
        assert_eq!(variants, Variant::PUBLISHED);
        for Published {
            variant,
            figures,
            context_limit,
            ..
        } in family
        {
            assert!(
                figures.head > 300 << 20 && figures.layers > 900 << 20 && context_limit >= 131_072,
                "{variant}"
            );
        }
    }
}
