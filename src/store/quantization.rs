//! How a model's weights are packed, in one word.

use super::gguf::{GgufError, Header};

/// Set in `general.file_type` when the number was guessed from the tensors.
const GUESSED: u32 = 1024;

/// The word for `general.file_type`, or for the tensor type with the most bytes where the file does
/// not say.
pub fn name(header: &Header) -> Result<&'static str, GgufError> {
    let declared = header
        .u32("general.file_type")?
        .and_then(|number| file_type(number & !GUESSED));
    Ok(declared.unwrap_or_else(|| commonest(header)))
}

fn commonest(header: &Header) -> &'static str {
    let mut sums: Vec<(&'static str, u64)> = vec![];
    for tensor in header.tensors() {
        match sums.iter_mut().find(|(name, _)| *name == tensor.ty.name) {
            Some((_, sum)) => *sum += tensor.bytes,
            None => sums.push((tensor.ty.name, tensor.bytes)),
        }
    }
    sums.into_iter()
        .max_by_key(|(_, sum)| *sum)
        .map_or("unknown", |(name, _)| name)
}

/// llama.cpp's numbers for mixtures of tensor types.
fn file_type(number: u32) -> Option<&'static str> {
    Some(match number {
        0 => "F32",
        1 => "F16",
        2 => "Q4_0",
        3 => "Q4_1",
        7 => "Q8_0",
        8 => "Q5_0",
        9 => "Q5_1",
        10 => "Q2_K",
        11 => "Q3_K_S",
        12 => "Q3_K_M",
        13 => "Q3_K_L",
        14 => "Q4_K_S",
        15 => "Q4_K_M",
        16 => "Q5_K_S",
        17 => "Q5_K_M",
        18 => "Q6_K",
        19 => "IQ2_XXS",
        20 => "IQ2_XS",
        21 => "Q2_K_S",
        22 => "IQ3_XS",
        23 => "IQ3_XXS",
        24 => "IQ1_S",
        25 => "IQ4_NL",
        26 => "IQ3_S",
        27 => "IQ3_M",
        28 => "IQ2_S",
        29 => "IQ2_M",
        30 => "IQ4_XS",
        31 => "IQ1_M",
        32 => "BF16",
        36 => "TQ1_0",
        37 => "TQ2_0",
        38 => "MXFP4",
        39 => "NVFP4",
        40 => "Q1_0",
        41 => "Q2_0",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::gguf::write::File;
    use super::*;

    fn name_of(file: File) -> &'static str {
        name(&file.header()).unwrap()
    }

    #[test]
    fn the_file_says_it() {
        assert_eq!(name_of(File::new().u32("general.file_type", 2)), "Q4_0");
        assert_eq!(
            name_of(File::new().u32("general.file_type", 7 + GUESSED)),
            "Q8_0"
        );
    }

    #[test]
    fn the_most_bytes_say_it_otherwise() {
        let file = || {
            File::new()
                .tensor("small", &[4], 0)
                .tensor("large", &[256, 3], 12)
        };
        assert_eq!(name_of(file()), "Q4_K");
        assert_eq!(name_of(file().u32("general.file_type", 999)), "Q4_K");
        assert_eq!(name_of(File::new()), "unknown");
    }
}
