//! What the numbers of a header may be. Pure.
//!
//! llama.cpp ends its process on some of them (`GGML_ASSERT`), spins on others, and what a model
//! takes is computed from them, so each is held against its bounds before anything is done with it.
//! Keys that are missing have llama.cpp's defaults here, where it has any.

use std::fmt::Display;
use std::ops::RangeInclusive;

use super::drafter::CLUSTERS_TOKENS;
use super::gguf::{Fault, GgufError, Header, LAYERS, PerLayer, refuse_tensor, refuse_value};

/// Layers that keep keys and values of their own, at least (`llama-model.cpp`, `create_memory`).
const OWN_LAYERS: u32 = 2;
/// Width of the hidden state and of a row of Per-Layer Embeddings; the family's widest has 5376.
const WIDTH: u32 = 1 << 16;
/// Feed-forward width; the family's widest has 21,504.
const FEED_FORWARD: u32 = 1 << 20;
/// Heads of a layer, and numbers of a head; the family has 32 and 512 at most.
const HEADS: u32 = 1 << 10;
const HEAD: u32 = 1 << 12;
/// Experts of a layer, as llama.cpp has it (`LLAMA_MAX_EXPERTS`).
const EXPERTS: u32 = 1 << 10;
/// Tokens of context, and of a window; the family has 262,144.
const CONTEXT: u32 = 1 << 24;
/// llama.cpp's names for what stretches a context.
const ROPE_SCALINGS: [&str; 4] = ["none", "linear", "yarn", "longrope"];
/// Types that ggml computes with, but not as weights.
const NO_WEIGHTS: [&str; 7] = ["Q8_1", "Q8_K", "I8", "I16", "I32", "I64", "F64"];

/// Checks a header of a model, or of a drafter, which has no keys and values of its own.
pub(super) fn check(
    header: &Header,
    architecture: &str,
    own_layers: bool,
) -> Result<(), GgufError> {
    let numbers = Numbers {
        header,
        architecture,
    };
    let least = if own_layers { OWN_LAYERS } else { 1 };
    let layers = numbers.need("block_count", least..=LAYERS as u32)?;
    numbers.check_widths()?;
    numbers.check_experts()?;
    numbers.check_attention()?;
    numbers.check_fractions()?;
    let shared = numbers.one("attention.shared_kv_layers", 0..=layers)?;
    if own_layers {
        numbers.check_sharing(layers, shared.unwrap_or(0))?;
        numbers.one("nextn_predict_layers", 0..=layers - OWN_LAYERS)?;
        check_weights(header)?;
    } else {
        numbers.one("nextn_predict_layers", 0..=layers)?;
    }
    check_vectors(header)
}

/// The numbers below a header's architecture.
struct Numbers<'a> {
    header: &'a Header,
    architecture: &'a str,
}

impl Numbers<'_> {
    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    fn refuse(&self, key: &str, found: impl Display, wanted: impl Display) -> GgufError {
        refuse_value(&self.key(key), not_allowed(found, wanted))
    }

    fn within(&self, key: &str, found: u32, wanted: RangeInclusive<u32>) -> Result<(), GgufError> {
        if wanted.contains(&found) {
            return Ok(());
        }
        let (least, most) = wanted.into_inner();
        Err(self.refuse(key, found, format!("{least} to {most}")))
    }

    /// A number, if it is there.
    fn one(&self, key: &str, wanted: RangeInclusive<u32>) -> Result<Option<u32>, GgufError> {
        let found = self.header.u32(&self.key(key))?;
        if let Some(found) = found {
            self.within(key, found, wanted)?;
        }
        Ok(found)
    }

    /// A number that must be there.
    fn need(&self, key: &str, wanted: RangeInclusive<u32>) -> Result<u32, GgufError> {
        let found = self.header.need_u32(&self.key(key))?;
        self.within(key, found, wanted)?;
        Ok(found)
    }

    /// A number for all layers or one for each, if there are any.
    fn each(&self, key: &str, wanted: RangeInclusive<u32>) -> Result<Option<PerLayer>, GgufError> {
        let found = self.header.per_layer(&self.key(key))?;
        if let Some(numbers) = &found {
            for number in (0..LAYERS as u32).map_while(|layer| numbers.layer(layer)) {
                self.within(key, number, wanted.clone())?;
            }
        }
        Ok(found)
    }

    /// A fraction, if it is there.
    fn fraction(
        &self,
        key: &str,
        is_allowed: fn(f32) -> bool,
        wanted: &str,
    ) -> Result<(), GgufError> {
        match self.header.f32(&self.key(key))? {
            Some(found) if !is_allowed(found) => Err(self.refuse(key, found, wanted)),
            _ => Ok(()),
        }
    }

    fn check_widths(&self) -> Result<(), GgufError> {
        self.one("context_length", 1..=CONTEXT)?;
        self.one("rope.scaling.original_context_length", 0..=CONTEXT)?;
        self.one("attention.sliding_window", 1..=CONTEXT)?;
        self.need("embedding_length", 1..=WIDTH)?;
        self.one("embedding_length_out", 1..=WIDTH)?;
        self.one("embedding_length_per_layer_input", 0..=WIDTH)?;
        self.each("feed_forward_length", 0..=FEED_FORWARD)?;
        self.each("expert_feed_forward_length", 0..=FEED_FORWARD)?;
        Ok(())
    }

    fn check_experts(&self) -> Result<(), GgufError> {
        let experts = self.one("expert_count", 0..=EXPERTS)?.unwrap_or(0);
        let used = match experts {
            0 => 0..=0,
            _ => 1..=experts,
        };
        match self.each("expert_used_count", used)? {
            None if experts > 0 => {
                Err(refuse_value(&self.key("expert_used_count"), Fault::Missing))
            }
            _ => self.one("expert_group_count", 0..=experts.min(1)).map(drop),
        }
    }

    /// Heads, and which of their numbers are turned by their token's position: pairs, and not more
    /// than there are.
    fn check_attention(&self) -> Result<(), GgufError> {
        let heads = self.each("attention.head_count", 1..=HEADS)?;
        let pairs = self.each("attention.head_count_kv", 1..=HEADS)?;
        if let (Some(heads), Some(pairs)) = (&heads, &pairs) {
            for layer in 0..LAYERS as u32 {
                let (Some(heads), Some(pairs)) = (heads.layer(layer), pairs.layer(layer)) else {
                    break;
                };
                if !heads.is_multiple_of(pairs) {
                    let wanted = format!("a divisor of the {heads} heads of layer {layer}");
                    return Err(self.refuse("attention.head_count_kv", pairs, wanted));
                }
            }
        }
        self.one("attention.value_length", 1..=HEAD)?;
        self.one("attention.value_length_swa", 1..=HEAD)?;
        let width = self.one("embedding_length", 1..=WIDTH)?.unwrap_or(0);
        let given = self.one("attention.key_length", 1..=HEAD)?;
        let first = heads.and_then(|heads| heads.layer(0));
        let Some(full) = given.or(first.map(|heads| width / heads)) else {
            return Ok(());
        };
        let narrow = self
            .one("attention.key_length_swa", 1..=HEAD)?
            .unwrap_or(full);
        let turned = self.rotated("rope.dimension_count", full, full)?;
        self.rotated("rope.dimension_count_swa", turned, narrow)
            .map(drop)
    }

    fn rotated(&self, key: &str, default: u32, head: u32) -> Result<u32, GgufError> {
        let found = self.header.u32(&self.key(key))?.unwrap_or(default);
        if found == 0 || found > head || !found.is_multiple_of(2) {
            let wanted = format!("an even number from 2 to {head}, the numbers of a head");
            return Err(self.refuse(key, found, wanted));
        }
        Ok(found)
    }

    fn check_fractions(&self) -> Result<(), GgufError> {
        let is_positive = |number: f32| number.is_finite() && number > 0.0;
        let is_no_debt = |number: f32| number.is_finite() && number >= 0.0;
        for key in [
            "attention.layer_norm_rms_epsilon",
            "rope.freq_base",
            "rope.freq_base_swa",
        ] {
            self.fraction(key, is_positive, "a finite number above 0")?;
        }
        for key in [
            "final_logit_softcapping",
            "rope.scaling.factor",
            "rope.scale_linear",
            "rope.scaling.attn_factor",
            "rope.scaling.alpha",
        ] {
            self.fraction(key, is_no_debt, "a finite number, 0 or above")?;
        }
        let key = "rope.scaling.type";
        match self.header.str(&self.key(key))? {
            Some(found) if !ROPE_SCALINGS.contains(&found) => Err(self.refuse(
                key,
                found.escape_debug().take(64).collect::<String>(),
                ROPE_SCALINGS.join(", "),
            )),
            _ => Ok(()),
        }
    }

    /// Layers that share keys and values read those of the last layer of their kind that keeps its
    /// own: the last of these must be one that sees everything, the one before it one that slides.
    fn check_sharing(&self, layers: u32, shared: u32) -> Result<(), GgufError> {
        self.within(
            "attention.shared_kv_layers",
            shared,
            0..=layers - OWN_LAYERS,
        )?;
        let key = "attention.sliding_window_pattern";
        let Some(slides) = self.each(key, 0..=1)? else {
            return Ok(());
        };
        let slides = |layer| slides.layer(layer) == Some(1);
        let own = layers - shared;
        for layer in own..layers {
            let source = own - if slides(layer) { 2 } else { 1 };
            if slides(layer) != slides(source) {
                let found = format!("layer {layer} of another kind than layer {source}");
                return Err(self.refuse(key, found, "that it shares the keys of one of its kind"));
            }
        }
        Ok(())
    }
}

/// A model's weights are of types that can be multiplied with.
fn check_weights(header: &Header) -> Result<(), GgufError> {
    let mut tensors = header.tensors().iter();
    match tensors.find(|tensor| NO_WEIGHTS.contains(&tensor.ty.name)) {
        Some(tensor) => Err(refuse_tensor(
            &tensor.name,
            not_allowed(tensor.ty.name, "a type of weights"),
        )),
        None => Ok(()),
    }
}

/// Norms, scales and the like are added to and multiplied with numbers of 32 bits, which ggml does
/// for their own type alone.
fn check_vectors(header: &Header) -> Result<(), GgufError> {
    let mut vectors = header.tensors().iter().filter(|tensor| {
        let rows = tensor.dims().iter().skip(1);
        // llama.cpp does not get that one.
        rows.product::<u64>() == 1 && *tensor.name != *CLUSTERS_TOKENS
    });
    match vectors.find(|tensor| tensor.ty.name != "F32") {
        Some(tensor) => Err(refuse_tensor(
            &tensor.name,
            not_allowed(tensor.ty.name, "F32, as for all norms and scales"),
        )),
        None => Ok(()),
    }
}

fn not_allowed(found: impl Display, wanted: impl Display) -> Fault {
    Fault::NotAllowed {
        found: found.to_string(),
        wanted: wanted.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::gguf::write::{File, list};
    use super::super::{architecture, gguf::write};
    use super::*;

    /// The numbers of the tiny E2B.
    fn tiny() -> Vec<(&'static str, u32)> {
        vec![
            ("block_count", 6),
            ("context_length", 4096),
            ("embedding_length", 128),
            ("attention.head_count", 4),
            ("attention.head_count_kv", 1),
            ("attention.key_length", 64),
            ("attention.value_length", 64),
            ("attention.key_length_swa", 32),
            ("attention.value_length_swa", 32),
            ("attention.sliding_window", 64),
            ("attention.shared_kv_layers", 3),
            ("rope.dimension_count", 64),
            ("rope.dimension_count_swa", 32),
        ]
    }

    const PATTERN: [u8; 6] = [1, 1, 0, 1, 1, 0];

    fn file(numbers: &[(&'static str, u32)], pattern: &[u8]) -> File {
        let file = numbers.iter().fold(File::new(), |file, (key, value)| {
            file.u32(&format!("gemma4.{key}"), *value)
        });
        let key = b"gemma4.attention.sliding_window_pattern";
        file.key(key, 9, &list(7, pattern.len() as u64, pattern))
            .tensor("blk.0.attn_norm.weight", &[128], 0)
            .tensor("blk.0.attn_q.weight", &[128, 256], 8)
    }

    fn checked(file: File) -> Result<(), String> {
        check(&file.header(), architecture::MODEL, true).map_err(|error| error.to_string())
    }

    fn with(key: &'static str, value: u32) -> Result<(), String> {
        let mut numbers = tiny();
        match numbers.iter_mut().find(|(name, _)| *name == key) {
            Some(number) => number.1 = value,
            None => numbers.push((key, value)),
        }
        checked(file(&numbers, &PATTERN))
    }

    #[test]
    fn the_family_is_within_its_bounds() {
        assert_eq!(checked(file(&tiny(), &PATTERN)), Ok(()));
        for (key, value) in [
            ("block_count", 512),
            ("context_length", 1 << 20),
            ("embedding_length", 5376),
            ("rope.dimension_count", 2),
            ("expert_count", 0),
        ] {
            let shared = with(key, value);
            // More layers than the pattern has count as such that see everything.
            assert!(shared.is_ok() || key == "block_count", "{key}: {shared:?}");
        }
    }

    #[test]
    fn numbers_that_llama_cpp_ends_at_are_refused_by_key_and_value() {
        for (key, value) in [
            ("block_count", 0),
            ("block_count", 1),
            ("block_count", 513),
            ("block_count", 4096),
            ("block_count", u32::MAX),
            ("context_length", 0),
            ("context_length", u32::MAX),
            ("embedding_length", 0),
            ("embedding_length", 1 << 31),
            ("embedding_length_per_layer_input", u32::MAX),
            ("attention.head_count", 0),
            ("attention.head_count", 1 << 31),
            ("attention.head_count_kv", 0),
            ("attention.head_count_kv", 3),
            ("attention.key_length", 0),
            ("attention.key_length", 1 << 31),
            ("attention.value_length_swa", 1 << 31),
            ("attention.sliding_window", 0),
            ("attention.sliding_window", u32::MAX),
            ("attention.shared_kv_layers", 5),
            ("attention.shared_kv_layers", 6),
            ("attention.shared_kv_layers", 7),
            ("attention.shared_kv_layers", u32::MAX),
            ("rope.dimension_count", 0),
            ("rope.dimension_count", 1),
            ("rope.dimension_count", 63),
            ("rope.dimension_count", u32::MAX),
            ("rope.dimension_count_swa", 0),
            ("rope.dimension_count_swa", 64),
            ("rope.dimension_count_swa", u32::MAX),
            ("feed_forward_length", u32::MAX),
            ("expert_count", 1025),
            ("expert_used_count", 1),
            ("expert_group_count", 1),
            ("nextn_predict_layers", 6),
        ] {
            let error = with(key, value).unwrap_err();
            let start = format!("metadata `gemma4.{key}`: {value}; possible is ");
            assert!(error.starts_with(&start), "{error}");
        }
        let error = with("expert_count", 8).unwrap_err();
        assert_eq!(error, "metadata `gemma4.expert_used_count`: missing");
    }

    #[test]
    fn what_is_turned_by_default_must_fit_as_well() {
        // llama.cpp takes the other layers' number where sliding ones have none.
        let mut numbers = tiny();
        numbers.retain(|(key, _)| *key != "rope.dimension_count_swa");
        let error = checked(file(&numbers, &PATTERN)).unwrap_err();
        assert!(
            error.starts_with("metadata `gemma4.rope.dimension_count_swa`: 64; possible is"),
            "{error}"
        );
    }

    #[test]
    fn fractions_are_finite_and_have_their_sign() {
        for (key, bad) in [
            (
                "attention.layer_norm_rms_epsilon",
                &[f32::NAN, -1.0, 0.0, f32::INFINITY][..],
            ),
            ("rope.freq_base", &[f32::NAN, -1.0, 0.0, f32::INFINITY]),
            ("rope.freq_base_swa", &[f32::NAN, 0.0]),
            ("final_logit_softcapping", &[f32::NAN, -1.0, f32::INFINITY]),
            ("rope.scaling.factor", &[f32::NAN, f32::INFINITY]),
        ] {
            let key = format!("gemma4.{key}");
            let checked = |value| checked(file(&tiny(), &PATTERN).f32(&key, value));
            assert_eq!(checked(1e-6), Ok(()), "{key}");
            for value in bad {
                let error = checked(*value).unwrap_err();
                assert!(
                    error.starts_with(&format!("metadata `{key}`: {value};")),
                    "{error}"
                );
            }
        }
        let scaled = |kind| checked(file(&tiny(), &PATTERN).text("gemma4.rope.scaling.type", kind));
        assert_eq!(scaled("yarn"), Ok(()));
        assert!(
            scaled("wild")
                .unwrap_err()
                .contains("wild; possible is none, linear")
        );
    }

    #[test]
    fn shared_layers_have_one_of_their_kind_to_share_with() {
        for pattern in [[1, 1, 1, 1, 1, 0], [0, 0, 0, 1, 1, 0], [1, 0, 0, 1, 1, 0]] {
            let error = checked(file(&tiny(), &pattern)).unwrap_err();
            assert!(error.contains("of another kind than layer"), "{error}");
        }
        // Nothing is shared, so any order will do.
        let mut numbers = tiny();
        numbers.retain(|(key, _)| *key != "attention.shared_kv_layers");
        assert_eq!(checked(file(&numbers, &[0; 6])), Ok(()));
    }

    #[test]
    fn norms_have_32_bits_and_weights_are_weights() {
        for (kind, name) in [(1, "F16"), (30, "BF16"), (24, "I8")] {
            let norm = file(&tiny(), &PATTERN).tensor("output_norm.weight", &[128], kind);
            let error = checked(norm).unwrap_err();
            assert!(
                error.starts_with(&format!("tensor `output_norm.weight`: {name}; possible is")),
                "{error}"
            );
        }
        let integers = file(&tiny(), &PATTERN).tensor("blk.0.attn_k.weight", &[128, 64], 26);
        let error = checked(integers).unwrap_err();
        assert!(
            error.contains("I32; possible is a type of weights"),
            "{error}"
        );
    }

    #[test]
    fn the_tiny_files_are_as_they_were_made() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/models/tiny");
        let mut checked = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "gguf") {
                continue;
            }
            let header = write::header(&std::fs::read(&path).unwrap());
            let architecture = header.need_str("general.architecture").unwrap();
            if architecture != architecture::PROJECTOR {
                let is_model = architecture == architecture::MODEL;
                assert_eq!(check(&header, architecture, is_model), Ok(()), "{path:?}");
                checked += 1;
            }
        }
        assert_eq!(checked, 7);
    }
}
