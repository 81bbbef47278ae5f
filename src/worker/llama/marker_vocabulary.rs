//! A vocabulary of a few words for libmtmd, which puts markers around each medium and splits them
//! into tokens with llama.cpp's vocabulary. The model has none there, and nothing reads the markers'
//! tokens.

use std::ffi::{c_char, c_void};
use std::ptr::NonNull;
use std::sync::OnceLock;

use llama_cpp_sys_2 as sys;

use super::log;
use crate::gemma::{ARCHITECTURE, TOKENIZER, marker};

unsafe extern "C" {
    fn fmemopen(bytes: *mut c_void, size: usize, mode: *const c_char) -> *mut c_void;
    fn fclose(file: *mut c_void) -> std::ffi::c_int;
}

/// Types of values in a GGUF file, and of tokens in `tokenizer.ggml.token_type`.
const TEXT: u32 = 8;
const LIST: u32 = 9;
const NUMBER: u32 = 4;
const INTEGER: u32 = 5;
const TRUTH: u32 = 7;
const CONTROL: u32 = 3;

/// A model that is nothing but a vocabulary of markers.
pub(super) struct MarkerVocabulary(NonNull<sys::llama_model>);

// SAFETY: it is only read after it was loaded, and never freed.
unsafe impl Send for MarkerVocabulary {}
// SAFETY: as above.
unsafe impl Sync for MarkerVocabulary {}

impl MarkerVocabulary {
    /// Loads it, once.
    pub fn load() -> Result<*mut sys::llama_model, String> {
        static LOADED: OnceLock<Result<MarkerVocabulary, String>> = OnceLock::new();
        LOADED
            .get_or_init(Self::load_anew)
            .as_ref()
            .map(|vocabulary| vocabulary.0.as_ptr())
            .map_err(String::clone)
    }

    fn load_anew() -> Result<Self, String> {
        log::report();
        let mut bytes = file();
        // SAFETY: plain data.
        let mut params = unsafe { sys::llama_model_default_params() };
        params.vocab_only = true;
        // There is nothing behind the header that could be mapped.
        params.load_mode = sys::LLAMA_LOAD_MODE_NONE;
        log::take_reason();
        // SAFETY: the bytes outlive the stream.
        let stream = unsafe { fmemopen(bytes.as_mut_ptr().cast(), bytes.len(), c"rb".as_ptr()) };
        if stream.is_null() {
            return Err(std::io::Error::last_os_error().to_string());
        }
        // SAFETY: the stream is open.
        let model = unsafe { sys::llama_model_load_from_file_ptr(stream, params) };
        // SAFETY: the stream is ours, and a vocabulary has been read by now.
        unsafe { fclose(stream) };
        NonNull::new(model)
            .map(Self)
            .ok_or_else(|| log::take_reason().unwrap_or_default())
    }
}

/// A GGUF file of the markers and of what llama.cpp wants besides: an end, a line end, a merge.
fn file() -> Vec<u8> {
    let tokens = [
        marker::IMAGE_BEGIN,
        marker::IMAGE_END,
        marker::AUDIO_BEGIN,
        marker::AUDIO_END,
        "<bos>",
        "<eos>",
        "\n",
    ];
    let text = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    let list = |kind: u32, elements: Vec<Vec<u8>>| {
        [
            &kind.to_le_bytes(),
            &(elements.len() as u64).to_le_bytes()[..],
            &elements.concat(),
        ]
        .concat()
    };
    let keys = [
        ("general.architecture", TEXT, text(ARCHITECTURE)),
        ("tokenizer.ggml.model", TEXT, text(TOKENIZER)),
        (
            "tokenizer.ggml.tokens",
            LIST,
            list(TEXT, tokens.map(text).to_vec()),
        ),
        (
            "tokenizer.ggml.token_type",
            LIST,
            list(
                INTEGER,
                tokens.map(|_| CONTROL.to_le_bytes().to_vec()).to_vec(),
            ),
        ),
        ("tokenizer.ggml.merges", LIST, list(TEXT, vec![text("a b")])),
        (
            "tokenizer.ggml.bos_token_id",
            NUMBER,
            4u32.to_le_bytes().to_vec(),
        ),
        (
            "tokenizer.ggml.eos_token_id",
            NUMBER,
            5u32.to_le_bytes().to_vec(),
        ),
        ("tokenizer.ggml.add_bos_token", TRUTH, vec![1]),
    ];
    let (version, tensors) = (3u32, 0u64);
    let mut file = [
        &b"GGUF"[..],
        &version.to_le_bytes(),
        &tensors.to_le_bytes(),
        &(keys.len() as u64).to_le_bytes(),
    ]
    .concat();
    for (key, kind, value) in keys {
        file.extend([text(key), kind.to_le_bytes().to_vec(), value].concat());
    }
    file
}
