//! ggml's structures that the binding leaves out (`ggml-backend-impl.h`), as the linked version has
//! them, and the search for its type of packed buffers.

use std::ffi::{CStr, c_char, c_void};

use llama_cpp_sys_2 as sys;

/// The types' names.
const REPACK: &CStr = c"CPU_REPACK";
const MEMORY: &CStr = c"CPU";

pub(in crate::worker::llama) type AllocBuffer =
    unsafe extern "C" fn(sys::ggml_backend_buffer_type_t, usize) -> sys::ggml_backend_buffer_t;
pub(in crate::worker::llama) type SetTensor = unsafe extern "C" fn(
    sys::ggml_backend_buffer_t,
    *mut sys::ggml_tensor,
    *const c_void,
    usize,
    usize,
);
pub(in crate::worker::llama) type InitTensor =
    unsafe extern "C" fn(sys::ggml_backend_buffer_t, *mut sys::ggml_tensor) -> sys::ggml_status;
pub(in crate::worker::llama) type Clear = unsafe extern "C" fn(sys::ggml_backend_buffer_t, u8);
/// A function that is only compared or left alone.
type Other = Option<unsafe extern "C" fn()>;

/// `ggml_backend_buffer_type`.
#[repr(C)]
pub(in crate::worker::llama) struct BufferType {
    pub(in crate::worker::llama) get_name:
        Option<unsafe extern "C" fn(sys::ggml_backend_buffer_type_t) -> *const c_char>,
    pub(in crate::worker::llama) alloc_buffer: Option<AllocBuffer>,
    pub(in crate::worker::llama) alloc_buffer_n: Other,
    pub(in crate::worker::llama) get_alignment:
        Option<unsafe extern "C" fn(sys::ggml_backend_buffer_type_t) -> usize>,
    pub(in crate::worker::llama) get_max_size: Other,
    pub(in crate::worker::llama) get_alloc_size: Other,
    pub(in crate::worker::llama) get_alloc_size_n: Other,
    pub(in crate::worker::llama) is_host: Other,
    pub(in crate::worker::llama) device: sys::ggml_backend_dev_t,
    pub(in crate::worker::llama) context: *mut c_void,
}

/// `ggml_backend_buffer`.
#[repr(C)]
pub(in crate::worker::llama) struct Buffer {
    pub(in crate::worker::llama) free_buffer:
        Option<unsafe extern "C" fn(sys::ggml_backend_buffer_t)>,
    pub(in crate::worker::llama) get_base:
        Option<unsafe extern "C" fn(sys::ggml_backend_buffer_t) -> *mut c_void>,
    pub(in crate::worker::llama) init_tensor: Option<InitTensor>,
    pub(in crate::worker::llama) memset_tensor: Other,
    pub(in crate::worker::llama) set_tensor: Option<SetTensor>,
    pub(in crate::worker::llama) get_tensor: Other,
    pub(in crate::worker::llama) set_tensor_2d: Other,
    pub(in crate::worker::llama) get_tensor_2d: Other,
    pub(in crate::worker::llama) cpy_tensor: Other,
    pub(in crate::worker::llama) clear: Option<Clear>,
    pub(in crate::worker::llama) reset: Other,
    pub(in crate::worker::llama) buft: sys::ggml_backend_buffer_type_t,
    pub(in crate::worker::llama) context: *mut c_void,
    pub(in crate::worker::llama) size: usize,
    pub(in crate::worker::llama) usage: i32,
}

/// ggml's type of packed buffers, if it has one that looks as we know it.
pub(in crate::worker::llama) fn packed_type() -> Option<sys::ggml_backend_buffer_type_t> {
    // SAFETY: as in `packing`: the list is of buffer types that live as long as the process and
    // ends in null.
    unsafe {
        let device = sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_CPU);
        if device.is_null() {
            return None;
        }
        let registry = sys::ggml_backend_dev_backend_reg(device);
        let function = sys::ggml_backend_reg_get_proc_address(
            registry,
            c"ggml_backend_dev_get_extra_bufts".as_ptr(),
        );
        if function.is_null() {
            return None;
        }
        let list: sys::ggml_backend_dev_get_extra_bufts_t = std::mem::transmute(function);
        let mut next = list?(device);
        while !next.is_null() && !(*next).is_null() {
            if CStr::from_ptr(sys::ggml_backend_buft_name(*next)) == REPACK {
                return Some(*next).filter(|buft| is_known(*buft, REPACK));
            }
            next = next.add(1);
        }
    }
    None
}

/// ggml's type of plain buffers in memory, if it looks as we know it.
pub(in crate::worker::llama) fn memory_type() -> Option<sys::ggml_backend_buffer_type_t> {
    // SAFETY: the type lives as long as the process.
    unsafe {
        let buft = sys::ggml_backend_cpu_buffer_type();
        (!buft.is_null() && is_known(buft, MEMORY)).then_some(buft)
    }
}

/// Whether a buffer type's fields are where [`BufferType`] has them, as far as ggml's own functions
/// tell.
///
/// # Safety
/// `buft` is a live buffer type.
unsafe fn is_known(buft: sys::ggml_backend_buffer_type_t, name: &CStr) -> bool {
    // SAFETY: by this function's contract. ggml's structure is no smaller than ours: the tests hold
    // the sizes of the version that is linked.
    unsafe {
        let ours = &*buft.cast::<BufferType>();
        ours.get_name
            .is_some_and(|found| CStr::from_ptr(found(buft)) == name)
            && ours.alloc_buffer.is_some()
            && ours.get_alignment.is_some_and(|alignment| {
                alignment(buft) == sys::ggml_backend_buft_get_alignment(buft)
            })
            && ours.device == sys::ggml_backend_buft_get_device(buft)
    }
}

#[cfg(test)]
mod tests {
    use super::super::buffer::GAP;
    use super::super::hook::GGML_ALLOC;
    use super::*;
    use crate::worker::llama::alone;

    /// Fails when ggml's structures or functions are no longer what this file relies on.
    #[test]
    fn ggml_is_as_it_is_known() {
        let _alone = alone();
        let buft = packed_type().expect("a buffer type CPU_REPACK that looks like BufferType");
        // SAFETY: the type is live, and the buffer is ours.
        unsafe {
            let ours = &*buft.cast::<BufferType>();
            assert!(
                ours.is_host.is_none() && ours.get_alloc_size.is_none(),
                "packed weights have the sources' size"
            );
            assert!(sys::ggml_backend_buft_get_alignment(buft) <= GAP);
            let ggml_alloc = GGML_ALLOC
                .get()
                .copied()
                .flatten()
                .or(ours.alloc_buffer)
                .unwrap();
            let buffer = ggml_alloc(buft, GAP);
            let inside = &*buffer.cast::<Buffer>();
            assert_eq!((inside.buft, inside.size), (buft, GAP));
            assert_eq!(
                inside.get_base.unwrap()(buffer),
                sys::ggml_backend_buffer_get_base(buffer)
            );
            assert!(
                inside.free_buffer.is_some()
                    && inside.set_tensor.is_some()
                    && inside.get_tensor.is_none()
            );
            assert_eq!(inside.usage, 0);
            sys::ggml_backend_buffer_free(buffer);
        }
    }
}
