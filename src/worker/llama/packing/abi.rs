//! ggml's structures that the binding leaves out (`ggml-backend-impl.h`), as the linked version has
//! them, and the search for its type of packed buffers.

use std::ffi::{CStr, c_char, c_void};

use llama_cpp_sys_2 as sys;

/// The type's name.
const REPACK: &CStr = c"CPU_REPACK";

pub(super) type AllocBuffer =
    unsafe extern "C" fn(sys::ggml_backend_buffer_type_t, usize) -> sys::ggml_backend_buffer_t;
pub(super) type SetTensor = unsafe extern "C" fn(
    sys::ggml_backend_buffer_t,
    *mut sys::ggml_tensor,
    *const c_void,
    usize,
    usize,
);
/// A function that is only compared or left alone.
type Other = Option<unsafe extern "C" fn()>;

/// `ggml_backend_buffer_type`.
#[repr(C)]
pub(super) struct BufferType {
    pub(super) get_name:
        Option<unsafe extern "C" fn(sys::ggml_backend_buffer_type_t) -> *const c_char>,
    pub(super) alloc_buffer: Option<AllocBuffer>,
    pub(super) alloc_buffer_n: Other,
    pub(super) get_alignment:
        Option<unsafe extern "C" fn(sys::ggml_backend_buffer_type_t) -> usize>,
    pub(super) get_max_size: Other,
    pub(super) get_alloc_size: Other,
    pub(super) get_alloc_size_n: Other,
    pub(super) is_host: Other,
    pub(super) device: sys::ggml_backend_dev_t,
    pub(super) context: *mut c_void,
}

/// `ggml_backend_buffer`.
#[repr(C)]
pub(super) struct Buffer {
    pub(super) free_buffer: Option<unsafe extern "C" fn(sys::ggml_backend_buffer_t)>,
    pub(super) get_base: Option<unsafe extern "C" fn(sys::ggml_backend_buffer_t) -> *mut c_void>,
    pub(super) init_tensor: Other,
    pub(super) memset_tensor: Other,
    pub(super) set_tensor: Option<SetTensor>,
    pub(super) get_tensor: Other,
    pub(super) set_tensor_2d: Other,
    pub(super) get_tensor_2d: Other,
    pub(super) cpy_tensor: Other,
    pub(super) clear: Other,
    pub(super) reset: Other,
    pub(super) buft: sys::ggml_backend_buffer_type_t,
    pub(super) context: *mut c_void,
    pub(super) size: usize,
    pub(super) usage: i32,
}

/// ggml's type of packed buffers, if it has one that looks as we know it.
pub(super) fn packed_type() -> Option<sys::ggml_backend_buffer_type_t> {
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
                return Some(*next).filter(|buft| is_known(*buft));
            }
            next = next.add(1);
        }
    }
    None
}

/// Whether a buffer type's fields are where [`BufferType`] has them, as far as ggml's own functions
/// tell.
///
/// # Safety
/// `buft` is a live buffer type.
unsafe fn is_known(buft: sys::ggml_backend_buffer_type_t) -> bool {
    // SAFETY: by this function's contract. ggml's structure is no smaller than ours: the tests hold
    // the sizes of the version that is linked.
    unsafe {
        let ours = &*buft.cast::<BufferType>();
        ours.get_name
            .is_some_and(|name| CStr::from_ptr(name(buft)) == REPACK)
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
