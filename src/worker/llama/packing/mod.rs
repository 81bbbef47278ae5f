//! Packed weights in a mapped file.
//!
//! ggml packs most quantised weights for the CPU's kernels: it interleaves rows. The packed form
//! has as many bytes as the source, lies in one buffer of the type `CPU_REPACK`, and is anonymous
//! memory, which cannot be evicted: weights that cost twice and are made anew at each start. Here
//! the buffer becomes the map of a file. The first time, each tensor is packed in memory, written
//! to the file and replaced by the file's pages, and its source pages are evicted, so that no
//! more than a few tensors are in memory twice. From then on the file is mapped and nothing is
//! packed.
//!
//! What this relies on in ggml, checked when it is used and by the tests; where it does not
//! hold ggml's own memory is used, which is as good and larger:
//! - the CPU device lists the buffer type under `ggml_backend_dev_get_extra_bufts`;
//! - `ggml_backend_buffer_type` and `ggml_backend_buffer` look as [`abi`] has them
//!   (`ggml-backend-impl.h`, which the binding leaves out);
//! - llama.cpp allocates one such buffer for a model and sets each tensor in it once, as a whole,
//!   from the file's map;
//! - a kernel reads packed weights through `tensor->data` and nothing else.

pub(super) mod abi;
mod buffer;
mod hook;
mod outcome;

use std::ffi::CStr;

use llama_cpp_sys_2 as sys;

pub use buffer::PackedTarget;
pub use hook::pack_into;
pub use outcome::{Outcome, has_failed};

/// The version of `llama-cpp-sys-2`; a packed buffer of another one is not used.
const GGML: &str = "0.1.161";

/// What decides how weights are packed, beside the weights: ggml and what it found in the CPU.
pub fn packing() -> String {
    let mut packing = format!("ggml {GGML}");
    // SAFETY: no arguments; the registry is a list that lives as long as the process.
    let function = unsafe {
        let device = sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_CPU);
        if device.is_null() {
            return packing;
        }
        sys::ggml_backend_reg_get_proc_address(
            sys::ggml_backend_dev_backend_reg(device),
            c"ggml_backend_get_features".as_ptr(),
        )
    };
    if function.is_null() {
        return packing;
    }
    // SAFETY: under this name the registry has a function of this type, and its answer is a list
    // that ends in a feature without a name and lives as long as the process.
    unsafe {
        let features: sys::ggml_backend_get_features_t = std::mem::transmute(function);
        let device = sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_CPU);
        let mut feature = features.map_or(std::ptr::null_mut(), |list| {
            list(sys::ggml_backend_dev_backend_reg(device))
        });
        while !feature.is_null() && !(*feature).name.is_null() {
            let (name, value) = (
                CStr::from_ptr((*feature).name),
                CStr::from_ptr((*feature).value),
            );
            packing += &format!("; {}={}", name.to_string_lossy(), value.to_string_lossy());
            feature = feature.add(1);
        }
    }
    packing
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::llama::alone;
    use crate::worker::packed::Key;
    use crate::worker::weight_files::WeightFiles;

    #[test]
    fn the_version_is_the_one_that_is_linked() {
        let _alone = alone();
        let manifest = include_str!("../../../../Cargo.toml");
        assert!(
            manifest.contains(&format!("llama-cpp-sys-2 = {{ version = \"={GGML}\"")),
            "GGML is {GGML}; mend it and look at ggml's changes"
        );
        let packing = packing();
        assert!(
            packing.starts_with(&format!("ggml {GGML}; ")) && packing.contains("REPACK=1"),
            "{packing}"
        );
    }

    #[test]
    fn only_packed_tensors_are_written() {
        let _alone = alone();
        let file = tempfile::tempfile().unwrap();
        let key = Key {
            model: [0; 32],
            packing: packing(),
        };
        let model = std::fs::File::open(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/models/tiny/tiny-e2b-q8_0.gguf"
        ))
        .unwrap();
        let target = PackedTarget::New {
            file: file.try_clone().unwrap(),
            key,
        };
        let (loaded, outcome) = pack_into(
            Some(target),
            false,
            WeightFiles::one(model).mapped().unwrap(),
            || 5,
        );
        assert!(
            loaded == 5 && matches!(outcome, Outcome::Nothing),
            "{outcome:?}"
        );
        assert_eq!(file.metadata().unwrap().len(), 0);
    }
}
