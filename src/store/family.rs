//! The published variants, with figures for those that are not installed.

use serde::Deserialize;

use crate::gemma::model_shape::ModelShape;
use crate::gemma::variant::Variant;

const FAMILY: &str = include_str!("../../models/family.toml");

/// A variant of `models/family.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Published {
    #[serde(rename = "id", deserialize_with = "variant")]
    pub variant: Variant,
    /// Tokens that it was made for.
    pub context_limit: u32,
    /// The type of the weights that the figures are for.
    pub quantization: String,
    pub figures: ModelShape,
}

fn variant<'de, D: serde::Deserializer<'de>>(id: D) -> Result<Variant, D::Error> {
    let id = String::deserialize(id)?;
    Variant::named(&id)
        .ok_or_else(|| serde::de::Error::custom(format!("there is no variant `{id}`")))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Family {
    variant: Vec<Published>,
}

/// All of them, from the smallest to the largest.
pub fn published() -> Vec<Published> {
    // The tests read the file that is compiled in.
    toml::from_str::<Family>(FAMILY).map_or(vec![], |family| family.variant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variant_is_there() {
        let family: Family = toml::from_str(FAMILY).unwrap();
        let variants: Vec<_> = family.variant.iter().map(|one| one.variant).collect();
        assert_eq!(variants, Variant::PUBLISHED);
        for Published {
            variant,
            figures,
            context_limit,
            ..
        } in family.variant
        {
            assert!(
                figures.head > 300 << 20 && figures.layers > 900 << 20 && context_limit >= 131_072,
                "{variant}"
            );
        }
    }
}
