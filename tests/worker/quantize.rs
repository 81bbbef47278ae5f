//! Models whose weights ggml packs: the tiny ones in four bits.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use llama_cpp_sys_2 as sys;

use crate::skip::skip;

/// A model in four bits, which ggml packs on every CPU that has packing kernels.
pub fn quantized(name: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("q4_0.gguf");
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny");
    quantize(&models.join(name), &path, sys::LLAMA_FTYPE_MOSTLY_Q4_0);
    (folder, path)
}

/// Writes the model in `source` to `path`, in another mixture of types.
pub fn quantize(source: &Path, path: &Path, ftype: sys::llama_ftype) {
    let text = |path: &Path| CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: the function may be called at any time and takes no data.
    unsafe { sys::llama_log_set(Some(say_nothing), std::ptr::null_mut()) };
    // SAFETY: plain data.
    let mut params = unsafe { sys::llama_model_quantize_default_params() };
    params.ftype = ftype;
    params.allow_requantize = true;
    let (from, to) = (text(source), text(path));
    // SAFETY: both texts and the parameters outlive the call.
    let failed = unsafe { sys::llama_model_quantize(from.as_ptr(), to.as_ptr(), &params) };
    assert_eq!(failed, 0, "{}", path.display());
}

unsafe extern "C" fn say_nothing(
    _: sys::ggml_log_level,
    _: *const std::ffi::c_char,
    _: *mut std::ffi::c_void,
) {
}

/// Whether this CPU's kernels want weights packed at all: without that there is nothing to test
/// here.
pub fn packs() -> bool {
    let known = cfg!(target_arch = "aarch64")
        || std::fs::read_to_string("/proc/cpuinfo")
            .unwrap()
            .contains("avx2");
    if !known {
        skip("packed weights", "ggml packs nothing for this CPU");
    }
    known
}
