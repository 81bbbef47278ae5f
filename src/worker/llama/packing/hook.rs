//! The function that ggml calls for a packed buffer, and ours in its place.

use std::cell::RefCell;
use std::sync::OnceLock;

use llama_cpp_sys_2 as sys;

use super::abi::{AllocBuffer, BufferType, packed_type};
use super::buffer::{GAP, PackedBuffer, PackedTarget};
use super::outcome::{self, Outcome};
use crate::sys::residency::MappedFiles;

const NO_FILE: &str = "no file was given for them";
/// ggml's structures are not those that [`super::abi`] has.
const UNKNOWN: &str = "this version of ggml is not known";

thread_local! {
    /// For the model that this thread is loading.
    static TARGET: RefCell<Option<Target>> = const { RefCell::new(None) };
}

struct Target {
    file: Option<PackedTarget>,
    /// Whether anonymous memory is taken where the file fails.
    may_use_memory: bool,
    model: MappedFiles,
}

/// ggml's own function for packed buffers, once [`alloc_buffer`] stands in its place. `None`: ggml is
/// not what we know.
pub(super) static GGML_ALLOC: OnceLock<Option<AllocBuffer>> = OnceLock::new();

/// Runs `load`, which loads one model from the files `model` on this thread; its packed weights go
/// to `file`, or else to memory if that may be.
pub fn pack_into<T>(
    file: Option<PackedTarget>,
    may_use_memory: bool,
    model: MappedFiles,
    load: impl FnOnce() -> T,
) -> (T, Outcome) {
    let known = install();
    TARGET.set(known.then_some(Target {
        file,
        may_use_memory,
        model,
    }));
    outcome::set((!known).then(|| Outcome::without_file(UNKNOWN.to_owned(), may_use_memory)));
    let loaded = load();
    TARGET.set(None);
    (loaded, outcome::take().unwrap_or(Outcome::Nothing))
}

/// Puts [`alloc_buffer`] in the place of ggml's function. `false` if ggml is not what we know.
fn install() -> bool {
    let replace = || {
        let ours = packed_type()?.cast::<BufferType>();
        // SAFETY: a live buffer type; `packed_type` has checked that it looks like ours. It is
        // written once, and ggml reads it only while it allocates a model's buffers, for which
        // every load waits here first.
        unsafe { (*ours).alloc_buffer.replace(alloc_buffer) }
    };
    GGML_ALLOC.get_or_init(replace).is_some()
}

/// ggml calls this for the buffer that all packed tensors of a model go to.
unsafe extern "C" fn alloc_buffer(
    buft: sys::ggml_backend_buffer_type_t,
    size: usize,
) -> sys::ggml_backend_buffer_t {
    let Some(ggml_alloc) = GGML_ALLOC.get().copied().flatten() else {
        return std::ptr::null_mut();
    };
    let Some(Target {
        file,
        may_use_memory,
        model,
    }) = TARGET.take()
    else {
        // SAFETY: ggml's function with ggml's arguments.
        return unsafe { ggml_alloc(buft, size) };
    };
    let without_file = |why: &str| Outcome::without_file(why.to_owned(), may_use_memory);
    let failed = match file.map_or_else(
        || Err(without_file(NO_FILE)),
        |file| PackedBuffer::new(file, may_use_memory, &model, size),
    ) {
        Ok(packed) => {
            // A small one of ggml's own, for its functions.
            // SAFETY: ggml's function with its own type.
            let buffer = unsafe { ggml_alloc(buft, GAP) };
            // SAFETY: a live buffer or null.
            if !buffer.is_null() && unsafe { packed.install(buffer, buft, size) } {
                return buffer;
            }
            if !buffer.is_null() {
                // SAFETY: the buffer is ggml's and nobody has it.
                unsafe { sys::ggml_backend_buffer_free(buffer) };
            }
            without_file(UNKNOWN)
        }
        Err(failed) => failed,
    };
    outcome::set(Some(failed));
    if outcome::has_failed() {
        return std::ptr::null_mut();
    }
    // SAFETY: as above.
    unsafe { ggml_alloc(buft, size) }
}
