//! The tiny 31B made twice as wide, which answers as before: K types have blocks of 256 weights, and its rows have 128.
//!
//! What is added is zeros. The norms divide by the root of the mean square, which half as many others than zeros make smaller by √2,
//! and embeddings are multiplied by the root of the width: both are taken back here.

use std::f32::consts::SQRT_2;
use std::fs::{self, File};
use std::path::Path;

use gemmad::store::gguf::{Patience, Tensor, parse};
use llama_cpp_sys_2 as sys;

use crate::harness::parts::{end_of_keys, text};

const NARROW: usize = 128;
const WIDE: usize = 256;
/// Bytes of a file in front of its keys.
const START: usize = 24;
const ALIGNMENT: usize = 32;

/// Writes the model in `source` to `path`, as wide again and in F32.
pub fn widened(source: &Path, path: &Path) {
    let bytes = fs::read(source).unwrap();
    let file = File::open(source).unwrap();
    let header = parse(&file, bytes.len() as u64, Patience::default()).unwrap();
    let mut keys = bytes[START..end_of_keys(&bytes, &header)].to_vec();
    let width = |width: usize| {
        let value = [4u32.to_le_bytes(), (width as u32).to_le_bytes()].concat();
        [text("gemma4.embedding_length"), value].concat()
    };
    let (old, new) = (width(NARROW), width(WIDE));
    let at = keys.windows(old.len()).position(|here| here == old);
    let at = at.expect("the model's width");
    keys[at..at + old.len()].copy_from_slice(&new);

    let tensors: Vec<_> = header
        .tensors()
        .iter()
        .map(|tensor| wide(tensor, &bytes))
        .collect();
    let mut out = b"GGUF".to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((header.metadata().count() as u64).to_le_bytes());
    out.extend(keys);
    let mut offset = 0;
    for Wide { name, dims, values } in &tensors {
        out.extend(text(name));
        out.extend((dims.len() as u32).to_le_bytes());
        out.extend(dims.iter().flat_map(|dim| (*dim as u64).to_le_bytes()));
        out.extend(0u32.to_le_bytes());
        out.extend((offset as u64).to_le_bytes());
        offset = (offset + 4 * values.len()).next_multiple_of(ALIGNMENT);
    }
    for Wide { values, .. } in &tensors {
        out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
        out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }
    fs::write(path, out).unwrap();
}

struct Wide {
    name: String,
    dims: Vec<usize>,
    values: Vec<f32>,
}

fn wide(tensor: &Tensor, bytes: &[u8]) -> Wide {
    let mut dims: Vec<usize> = tensor.dims().iter().map(|dim| *dim as usize).collect();
    let mut values = floats(tensor, bytes, dims.iter().product());
    let kind = tensor.name.rsplit('.').nth(1).unwrap_or_default();
    let is_norm = kind.ends_with("norm") && dims == [NARROW];
    let scale = match kind {
        "token_embd" => 1.0 / SQRT_2,
        // The head is the embeddings once more.
        "output_norm" => 1.0,
        _ if is_norm => 1.0 / SQRT_2,
        _ => 1.0,
    };
    values.iter_mut().for_each(|value| *value *= scale);
    match kind {
        "token_embd" | "attn_q" | "attn_k" | "attn_v" | "ffn_gate" | "ffn_up" => {
            let rows = values.chunks_exact(NARROW);
            values = rows
                .flat_map(|row| [row, &[0.0; WIDE - NARROW]].concat())
                .collect();
            dims[0] = WIDE;
        }
        "attn_output" | "ffn_down" => {
            values.resize(dims[0] * WIDE, 0.0);
            dims[1] = WIDE;
        }
        _ if is_norm => {
            values.resize(WIDE, 0.0);
            dims[0] = WIDE;
        }
        _ => {}
    }
    Wide {
        name: tensor.name.to_string(),
        dims,
        values,
    }
}

/// A tensor's weights.
fn floats(tensor: &Tensor, bytes: &[u8], count: usize) -> Vec<f32> {
    let (start, end) = (
        tensor.offset as usize,
        (tensor.offset + tensor.bytes) as usize,
    );
    let own = &bytes[start..end];
    if tensor.ty.name == "F32" {
        let numbers = own.chunks_exact(4);
        return numbers
            .map(|number| f32::from_le_bytes(number.try_into().unwrap()))
            .collect();
    }
    let mut values = vec![0.0; count];
    // SAFETY: ggml's traits live as long as the process, and the function reads a tensor of so many weights.
    unsafe {
        let traits = &*sys::ggml_get_type_traits(tensor.ty.id as sys::ggml_type);
        let to_float = traits.to_float.expect("weights that can be read");
        to_float(own.as_ptr().cast(), values.as_mut_ptr(), count as i64);
    }
    values
}
