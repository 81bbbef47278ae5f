//! What a model takes in memory, as its header says.

use super::gguf::{GgufError, Header, LAYERS, Value};
use crate::gemma::header_key;
use crate::gemma::layout::{Class, Kind};
use crate::gemma::model_shape::ModelShape;

/// Reads the figures of a `gemma4` model. What a header leaves out counts as nothing.
pub fn of(header: &Header) -> Result<ModelShape, GgufError> {
    let number = |key: &str| Ok::<_, GgufError>(header.u32(&header_key(key))?.unwrap_or(0));
    let each = |key: &str| header.per_layer(&header_key(key));
    let sum = |kind| {
        header
            .tensors()
            .iter()
            .filter(|tensor| Class::of_tensor(&tensor.name).kind() == kind)
            .map(|tensor| tensor.bytes)
            .sum()
    };
    let list = |key: &str| match header.value(key) {
        Some(Value::Array(list)) => u32::try_from(list.count).unwrap_or(u32::MAX),
        _ => 0,
    };
    let layers = number("block_count")?;
    let own = layers.saturating_sub(number("attention.shared_kv_layers")?);
    let (slides, heads) = (
        each("attention.sliding_window_pattern")?,
        each("attention.head_count_kv")?,
    );
    let wide = number("attention.key_length")?.saturating_add(number("attention.value_length")?);
    let narrow =
        number("attention.key_length_swa")?.saturating_add(number("attention.value_length_swa")?);
    let (mut sliding, mut global) = (0_u32, 0_u32);
    // Files of the family have 60 at most; a header may say anything.
    for layer in 0..own.min(LAYERS as u32) {
        let heads = heads
            .as_ref()
            .and_then(|heads| heads.layer(layer))
            .unwrap_or(0);
        let (numbers, width) = match slides.as_ref().and_then(|slides| slides.layer(layer)) {
            Some(1..) => (&mut sliding, narrow),
            _ => (&mut global, wide),
        };
        *numbers = numbers.saturating_add(heads.saturating_mul(width));
    }
    let dense = each("feed_forward_length")?
        .and_then(|widths| {
            (0..layers.min(LAYERS as u32))
                .filter_map(|layer| widths.layer(layer))
                .max()
        })
        .unwrap_or(0);
    let used = number("expert_used_count")?;
    let sparse = used.saturating_mul(number("expert_feed_forward_length")?);
    Ok(ModelShape {
        layers: sum(Kind::Layers),
        head: sum(Kind::Head),
        per_layer: sum(Kind::PerLayer),
        experts: sum(Kind::Experts),
        width: number("embedding_length")?,
        feed_forward: dense.max(sparse),
        experts_used: used,
        per_layer_numbers: number("embedding_length_per_layer_input")?.saturating_mul(layers),
        tokens: list("tokenizer.ggml.tokens"),
        merges: list("tokenizer.ggml.merges"),
        window: number("attention.sliding_window")?,
        sliding,
        global,
    })
}
