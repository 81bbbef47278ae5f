//! One model, loaded from descriptors and kept until the process ends.

use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_void};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};

use llama_cpp_sys_2 as sys;

use super::packing::{self, Outcome, PackedTarget};
use super::{log, mapping};
use crate::ipc::Repack;
use crate::sys::residency::{MappedFiles, Window};
use crate::worker::weight_files::WeightFiles;

/// The part of the file after which its pages are evicted.
const EVICT_EVERY: f32 = 1.0 / 32.0;
/// Bytes of one metadata value at most; longer ones count as missing.
const MAX_META: usize = 4096;

/// A loaded model. It is never freed: contexts and samplers point into it, and a worker serves one
/// model for its whole life.
#[derive(Debug)]
pub struct Model {
    raw: NonNull<sys::llama_model>,
    tokens: usize,
    /// What it is mapped from.
    files: MappedFiles,
}

// SAFETY: a model is never freed, and everything here only reads. llama.cpp
// writes to a loaded model only while it makes a context (with YaRN, the trained context): what it
// writes is read by nothing here, and contexts are made on the llama thread alone.
unsafe impl Sync for Model {}

impl Model {
    /// Maps the GGUF file, or the parts of one, and prepares its weights for the CPU: what every token
    /// needs is packed for the CPU's kernels, as `repack` has it and with `target` as the file, and the large per-layer
    /// table is read row by row on demand. Nothing is read ahead. The files' pages are evicted
    /// as the loading goes on: what was packed is not read from there again, and the rest comes
    /// back from the page cache when a token needs it. Of the vocabulary llama.cpp learns the
    /// number of its `tokens` and nothing else: its tables would take 90 MB. `architecture` is what the
    /// file's header should name. Stops early, with an
    /// error, when `ending` is set. `progress` hears how much of the tensors is done, from 0 to 1. The
    /// error is llama.cpp's.
    pub fn load(
        files: &WeightFiles,
        (architecture, tokens): (&str, u32),
        target: Option<PackedTarget>,
        repack: Repack,
        ending: &AtomicBool,
        progress: &dyn Fn(f32),
    ) -> (Result<Self, String>, Outcome) {
        let mapped = match files.mapped() {
            Ok(mapped) => mapped,
            Err(error) => return (Err(unreadable(&error)), Outcome::Nothing),
        };
        let may_use_memory = repack == Repack::Anywhere;
        packing::pack_into(target, may_use_memory, mapped.clone(), || {
            let repacks = repack != Repack::Never;
            let loading = Loading {
                ending,
                progress,
                files: mapped,
                evicted: Cell::new(0.0),
            };
            let overrides = without_vocabulary(architecture, tokens);
            mapping::without_reading(|| {
                Self::load_plain(files, tokens, &overrides, repacks, &loading)
            })
        })
    }

    fn load_plain(
        files: &WeightFiles,
        tokens: u32,
        overrides: &[sys::llama_model_kv_override],
        repacks: bool,
        loading: &Loading<'_>,
    ) -> Result<Self, String> {
        log::report();
        // SAFETY: no arguments; this sets up tables and must come before everything but the log.
        unsafe { sys::llama_backend_init() };
        // SAFETY: plain data.
        let mut params = unsafe { sys::llama_model_default_params() };
        params.n_gpu_layers = 0;
        params.load_mode = sys::LLAMA_LOAD_MODE_MMAP;
        params.lazy_mode = sys::LLAMA_LAZY_MODE_ON;
        params.use_extra_bufts = repacks;
        params.kv_overrides = overrides.as_ptr();
        params.progress_callback = Some(on_progress);
        params.progress_callback_user_data =
            std::ptr::from_ref(loading).cast_mut().cast::<c_void>();

        log::take_reason();
        // llama.cpp takes parts by their names only. These are our descriptors'.
        let names: Vec<CString> = files.files().map(name_of).collect();
        let mut names: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
        // SAFETY: the names, `overrides`, which end with an empty one, and `loading`
        // outlive this call, after which the callback is not called.
        let raw =
            unsafe { sys::llama_model_load_from_splits(names.as_mut_ptr(), names.len(), params) };
        let raw = NonNull::new(raw).ok_or_else(|| {
            if loading.ending.load(Ordering::Relaxed) {
                "stopped while loading".to_owned()
            } else {
                log::take_reason().unwrap_or_else(|| "llama.cpp gave no reason".to_owned())
            }
        })?;

        Ok(Self {
            raw,
            tokens: tokens as usize,
            files: loading.files.clone(),
        })
    }

    /// Where its files are mapped.
    pub fn windows(&self) -> std::io::Result<Vec<Window>> {
        // SAFETY: the model is never freed, and its files stay mapped as long.
        unsafe { self.files.windows() }
    }

    /// Tokens of its vocabulary.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Positions that the sliding layers look back; 0 if the model has none.
    pub fn window(&self) -> u32 {
        // SAFETY: the model is loaded and never freed.
        u32::try_from(unsafe { sys::llama_model_n_swa(self.raw.as_ptr()) }).unwrap_or(0)
    }

    /// Numbers in a row that stands for a token.
    pub fn row_width(&self) -> usize {
        // SAFETY: the model is loaded and never freed.
        usize::try_from(unsafe { sys::llama_model_n_embd_inp(self.raw.as_ptr()) }).unwrap_or(0)
    }

    /// A value of the file's header as text. Arrays have none.
    pub fn meta(&self, key: &str) -> Option<String> {
        let key = CString::new(key).ok()?;
        let mut buffer = vec![0u8; MAX_META];
        // SAFETY: key and buffer outlive the call, and the buffer has the length that is passed.
        let length = unsafe {
            sys::llama_model_meta_val_str(
                self.raw.as_ptr(),
                key.as_ptr(),
                buffer.as_mut_ptr().cast::<c_char>(),
                buffer.len(),
            )
        };
        let length = usize::try_from(length)
            .ok()
            .filter(|&length| length < MAX_META)?;
        buffer.truncate(length);
        String::from_utf8(buffer).ok()
    }

    /// The chat template in the file.
    pub fn chat_template(&self) -> Option<String> {
        // SAFETY: the string belongs to the model, ends in NUL and is copied at once.
        let template = unsafe {
            let template = sys::llama_model_chat_template(self.raw.as_ptr(), std::ptr::null());
            if template.is_null() {
                return None;
            }
            CStr::from_ptr(template)
        };
        template.to_str().ok().map(str::to_owned)
    }

    pub(super) fn raw(&self) -> *mut sys::llama_model {
        self.raw.as_ptr()
    }
}

/// The name by which this process opens the file behind a descriptor once more.
fn name_of(file: &File) -> CString {
    CString::new(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap_or_default()
}

/// What is said to llama.cpp in the place of the file: that there is no vocabulary, and how many
/// rows the table of embeddings has all the same (`llama_vocab::impl::load`, "no_vocab";
/// `LLM_KV_VOCAB_SIZE`).
fn without_vocabulary(architecture: &str, tokens: u32) -> [sys::llama_model_kv_override; 3] {
    // SAFETY: plain data, for which zeros are valid; they are an empty key.
    let mut overrides: [sys::llama_model_kv_override; 3] = unsafe { std::mem::zeroed() };
    let copy = |to: &mut [c_char], text: &[u8]| {
        to.iter_mut()
            .zip(text)
            .for_each(|(to, from)| *to = *from as c_char)
    };
    let [model, size, _] = &mut overrides;
    copy(&mut model.key, b"tokenizer.ggml.model");
    model.tag = sys::LLAMA_KV_OVERRIDE_TYPE_STR;
    let mut none = [0; 128];
    copy(&mut none, b"none");
    model.__bindgen_anon_1.val_str = none;
    copy(
        &mut size.key,
        format!("{architecture}.vocab_size").as_bytes(),
    );
    size.tag = sys::LLAMA_KV_OVERRIDE_TYPE_INT;
    size.__bindgen_anon_1.val_i64 = tokens.into();
    overrides
}

/// What [`on_progress`] needs.
struct Loading<'a> {
    ending: &'a AtomicBool,
    progress: &'a dyn Fn(f32),
    files: MappedFiles,
    /// The progress at which pages were last evicted.
    evicted: Cell<f32>,
}

/// llama.cpp asks this between tensors, on the thread that loads; `false` ends the loading.
unsafe extern "C" fn on_progress(progress: f32, loading: *mut c_void) -> bool {
    // SAFETY: [`Model::load`] passes a reference that lives through the call.
    let loading = unsafe { &*loading.cast::<Loading<'_>>() };
    (loading.progress)(progress);
    if progress - loading.evicted.get() >= EVICT_EVERY || progress >= 1.0 {
        loading.evicted.set(progress);
        // Without it the load is as good, and takes more memory.
        // SAFETY: llama.cpp maps and unmaps the files on this thread alone, which is here.
        let _ = unsafe { loading.files.evict() };
    }
    !loading.ending.load(Ordering::Relaxed) && !packing::has_failed()
}

fn unreadable(error: &std::io::Error) -> String {
    format!("the model's descriptors cannot be read: {error}")
}
