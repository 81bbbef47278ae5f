//! The memory of a context: what is not used of it costs nothing.
//!
//! llama.cpp makes a KV cache as large as it may become and writes zeros over all of it, so that each
//! token of context takes memory from the start. Here the buffers of a context are pages that the system
//! gives when they are touched: a token costs memory when it is read, and a sequence that is emptied
//! gives back what it had. So a context can be made for the longest conversation that a model knows.
//!
//! What this relies on in ggml and llama.cpp, checked when it is used and by the tests; where it does
//! not hold, [`is_lazy`] is false and memory is taken as llama.cpp takes it:
//! - `ggml_backend_buffer_type` and `ggml_backend_buffer` look as [`abi`](super::packing::abi) has them;
//! - the cache's tensors are called `cache_k_…` and `cache_v_…`, and their last dimension is the
//!   stream, which is the sequence;
//! - only the cache is cleared, and zeros are what it is cleared with.

use std::cell::RefCell;
use std::ffi::{CStr, c_void};
use std::sync::{Arc, OnceLock};

use llama_cpp_sys_2 as sys;

use super::packing::abi::{AllocBuffer, Buffer, BufferType, memory_type};
use crate::sys::mapping::{Mapping, page};

/// Bytes of the small buffer whose functions are borrowed.
const SMALL: usize = 128;

thread_local! {
    /// The buffers of the context that this thread is making; `None` while it makes none.
    static MAKING: RefCell<Option<Vec<Made>>> = const { RefCell::new(None) };
}

/// A buffer of a context that is being made.
struct Made {
    buffer: sys::ggml_backend_buffer_t,
    space: Arc<Mapping>,
    /// Of each tensor of the cache: where it begins, and the bytes of a stream.
    tensors: Vec<(usize, usize)>,
}

/// Where the sequences of a context have their keys and values.
pub(super) struct KvMemory {
    /// For each buffer that has some.
    parts: Vec<Part>,
}

/// What a buffer has of it.
struct Part {
    space: Arc<Mapping>,
    /// As in [`Made`].
    tensors: Vec<(usize, usize)>,
}

impl KvMemory {
    /// Gives back what `sequence` has.
    ///
    /// # Safety
    /// The cache holds nothing of it, and nothing is being computed.
    pub(super) unsafe fn give_back(&self, sequence: u32) {
        for Part { space, tensors } in &self.parts {
            for &(start, stride) in tensors {
                let start = start + stride * sequence as usize;
                // SAFETY: by this function's contract. What lies beside the range in the same page stays.
                unsafe { space.discard(start..start + stride) };
            }
        }
    }
}

/// ggml's own function for buffers in memory, once [`alloc_buffer`] stands in its place. `None`: ggml is
/// not what we know.
static GGML_ALLOC: OnceLock<Option<AllocBuffer>> = OnceLock::new();

/// Whether the memory of a context costs nothing until it is used.
pub fn is_lazy() -> bool {
    let replace = || {
        let ours = memory_type()?.cast::<BufferType>();
        // SAFETY: a live buffer type that was checked to look like ours. It is written once; ggml reads
        // it on threads that allocate, for which both functions are good.
        unsafe { (*ours).alloc_buffer.replace(alloc_buffer) }
    };
    GGML_ALLOC.get_or_init(replace).is_some()
}

/// Runs `make`, which makes a context on this thread, and says where its cache lies.
pub(super) fn lazily<T>(make: impl FnOnce() -> T) -> (T, KvMemory) {
    MAKING.set(is_lazy().then(Vec::new));
    let made = make();
    let buffers = MAKING.take().unwrap_or_default();
    let parts = buffers.into_iter().filter(|made| !made.tensors.is_empty());
    let parts = parts.map(|Made { space, tensors, .. }| Part { space, tensors });
    let parts = parts.collect();
    (made, KvMemory { parts })
}

/// ggml calls this for every buffer in memory.
unsafe extern "C" fn alloc_buffer(
    buft: sys::ggml_backend_buffer_type_t,
    size: usize,
) -> sys::ggml_backend_buffer_t {
    let Some(ggml_alloc) = GGML_ALLOC.get().copied().flatten() else {
        return std::ptr::null_mut();
    };
    let is_making = MAKING.with_borrow(Option::is_some);
    let space = (is_making && size > 0).then(|| Mapping::reserve(size));
    let Some(space) = space else {
        // SAFETY: ggml's function with ggml's arguments.
        return unsafe { ggml_alloc(buft, size) };
    };
    let Ok(space) = space else {
        return std::ptr::null_mut();
    };
    // A small one of ggml's own, for its functions.
    // SAFETY: ggml's function with its own type.
    let buffer = unsafe { ggml_alloc(buft, SMALL) };
    // SAFETY: a live buffer that nobody else has, or null.
    if !buffer.is_null() && unsafe { install(buffer, buft, Arc::new(space), size) } {
        return buffer;
    }
    if !buffer.is_null() {
        // SAFETY: the buffer is ggml's and nobody has it.
        unsafe { sys::ggml_backend_buffer_free(buffer) };
    }
    // SAFETY: ggml's function with ggml's arguments.
    unsafe { ggml_alloc(buft, size) }
}

/// Makes ggml's small buffer refer to `space`. `false`, and nothing changed, if it is not what we know.
///
/// # Safety
/// `buffer` is a live buffer of ggml's own that nobody else has.
unsafe fn install(
    buffer: sys::ggml_backend_buffer_t,
    buft: sys::ggml_backend_buffer_type_t,
    space: Arc<Mapping>,
    size: usize,
) -> bool {
    // SAFETY: by this function's contract; what is read is held against ggml's own functions before it
    // is believed.
    unsafe {
        let ours = &mut *buffer.cast::<Buffer>();
        let known = ours.buft == buft
            && ours.size == SMALL
            && ours
                .get_base
                .is_some_and(|base| base(buffer) == sys::ggml_backend_buffer_get_base(buffer))
            && ours.init_tensor.is_none();
        let (Some(free), Some(_)) = (ours.free_buffer.filter(|_| known), ours.clear) else {
            return false;
        };
        // Frees the small memory; the structure is freed by ggml with the buffer.
        free(buffer);
        ours.context = Arc::into_raw(space.clone()).cast_mut().cast::<c_void>();
        ours.size = size;
        ours.get_base = Some(get_base);
        ours.init_tensor = Some(init_tensor);
        ours.clear = Some(clear);
        ours.free_buffer = Some(free_buffer);
    }
    let made = Made {
        buffer,
        space,
        tensors: vec![],
    };
    MAKING.with_borrow_mut(|making| {
        if let Some(making) = making {
            making.push(made);
        }
    });
    true
}

/// # Safety
/// ggml calls it with a buffer that [`install`] has changed.
unsafe fn space_of<'a>(buffer: sys::ggml_backend_buffer_t) -> &'a Mapping {
    // SAFETY: by this function's contract; the buffer has a share of the mapping until it is freed.
    unsafe { &*(*buffer.cast::<Buffer>()).context.cast::<Mapping>() }
}

/// # Safety
/// As [`space_of`].
unsafe extern "C" fn get_base(buffer: sys::ggml_backend_buffer_t) -> *mut c_void {
    // SAFETY: by this function's contract.
    unsafe { space_of(buffer) }.base().cast()
}

/// Notes where the cache's tensors are.
///
/// # Safety
/// As [`space_of`]; `tensor` is live and lies in the buffer.
unsafe extern "C" fn init_tensor(
    buffer: sys::ggml_backend_buffer_t,
    tensor: *mut sys::ggml_tensor,
) -> sys::ggml_status {
    MAKING.with_borrow_mut(|making| {
        let made = making.iter_mut().flatten();
        let Some(made) = made.into_iter().find(|made| made.buffer == buffer) else {
            return;
        };
        // SAFETY: by this function's contract.
        let (name, is_view, data, stride) = unsafe {
            let tensor = &*tensor;
            let name = CStr::from_ptr(tensor.name.as_ptr());
            (
                name.to_bytes(),
                !tensor.view_src.is_null(),
                tensor.data,
                tensor.nb[2],
            )
        };
        if !is_view && (name.starts_with(b"cache_k_") || name.starts_with(b"cache_v_")) {
            let start = data.addr() - made.space.base().addr();
            made.tensors.push((start, stride));
        }
    });
    sys::GGML_STATUS_SUCCESS
}

/// # Safety
/// As [`space_of`]; nobody uses what the buffer holds.
unsafe extern "C" fn clear(buffer: sys::ggml_backend_buffer_t, value: u8) {
    // SAFETY: by this function's contract.
    let space = unsafe { space_of(buffer) };
    let mut from = 0;
    if value == 0 {
        // SAFETY: by this function's contract.
        unsafe { space.discard(0..space.size()) };
        from = space.size() - space.size() % page();
    }
    // SAFETY: inside the mapping, and by this function's contract.
    unsafe { std::ptr::write_bytes(space.base().add(from), value, space.size() - from) };
}

/// # Safety
/// As [`space_of`]. The buffer is not used afterwards.
unsafe extern "C" fn free_buffer(buffer: sys::ggml_backend_buffer_t) {
    // SAFETY: by this function's contract; the share is from [`install`].
    drop(unsafe { Arc::from_raw((*buffer.cast::<Buffer>()).context.cast::<Mapping>()) });
}
