//! The memory of a packed buffer: a map of the file that has the weights, or that gets them.

use std::ffi::{CStr, c_void};
use std::fs::File;
use std::io;
use std::sync::Arc;

use llama_cpp_sys_2 as sys;

use super::abi::{Buffer, SetTensor};
use super::outcome::{self, Outcome};
use crate::sys::mapping::{Mapping, page};
use crate::sys::residency::{MappedFiles, Window};
use crate::worker::packed::{Contents, Key, Tensor, Writer};

/// Bytes of packed tensors that are collected before they are written.
const PIECE: usize = 8 << 20;
/// Tensors begin at multiples of less than this, and the smallest that can be packed has more.
pub(super) const GAP: usize = 128;

/// Where the next model's packed weights are to be.
#[derive(Debug)]
pub enum PackedTarget {
    /// In this file, which has them; the space is its map.
    Ready {
        contents: Arc<Contents>,
        space: Arc<Mapping>,
    },
    /// In this file, which is empty.
    New { file: File, key: Key },
}

/// A packed buffer's memory and what is known of it: the `context` of ggml's buffer.
pub(super) struct PackedBuffer {
    space: Arc<Mapping>,
    set: Option<SetTensor>,
    tensors: Vec<Tensor>,
    may_use_memory: bool,
    state: State,
}

enum State {
    /// The tensors are there; ggml's are held against these.
    Ready(Arc<Contents>),
    Packing {
        writer: Writer,
        key: Key,
        /// llama.cpp's map of the model.
        windows: Vec<Window>,
        /// Bytes that are packed without a gap from the start.
        packed: usize,
        /// Bytes that are in the file and replaced by it.
        written: usize,
    },
    /// What is not in the file stays in memory, or the loading ends.
    GaveUp,
}

impl PackedBuffer {
    pub(super) fn new(
        target: PackedTarget,
        may_use_memory: bool,
        model: &MappedFiles,
        size: usize,
    ) -> Result<Self, Outcome> {
        let (space, state) = match target {
            PackedTarget::Ready { contents, space }
                if contents.bytes == size as u64 && space.size() == size =>
            {
                (space, State::Ready(contents))
            }
            PackedTarget::Ready { contents, .. } => {
                return Err(Outcome::Wrong {
                    why: format!("it has {} bytes instead of {size}", contents.bytes),
                });
            }
            PackedTarget::New { file, key } => {
                let failed = |error: std::io::Error| {
                    Outcome::without_file(error.to_string(), may_use_memory)
                };
                let space = Mapping::reserve(size).map_err(failed)?;
                // SAFETY: the map lives until the model is loaded, and the windows until the last
                // tensor is packed.
                let windows = unsafe { model.windows() }.map_err(failed)?;
                let writer = Writer::new(file).map_err(failed)?;
                outcome::set(Some(Outcome::InMemory {
                    why: "not all weights were packed".to_owned(),
                }));
                (
                    Arc::new(space),
                    State::Packing {
                        writer,
                        key,
                        windows,
                        packed: 0,
                        written: 0,
                    },
                )
            }
        };
        Ok(Self {
            space,
            set: None,
            tensors: vec![],
            may_use_memory,
            state,
        })
    }

    /// Makes ggml's small buffer refer to this memory. `false`, and nothing changed, if it is
    /// not what we know.
    ///
    /// # Safety
    /// `buffer` is a live buffer of ggml's own that nobody else has.
    pub(super) unsafe fn install(
        mut self,
        buffer: sys::ggml_backend_buffer_t,
        buft: sys::ggml_backend_buffer_type_t,
        size: usize,
    ) -> bool {
        // SAFETY: by this function's contract; what is read is held against ggml's own functions
        // before it is believed.
        unsafe {
            let ours = &mut *buffer.cast::<Buffer>();
            let known = ours.buft == buft
                && ours.size == GAP
                && ours
                    .get_base
                    .is_some_and(|base| base(buffer) == sys::ggml_backend_buffer_get_base(buffer))
                && ours.free_buffer.is_some();
            let (Some(free), Some(set)) = (ours.free_buffer.filter(|_| known), ours.set_tensor)
            else {
                return false;
            };
            self.set = Some(set);
            // Frees the small memory; the structure is freed by ggml with the buffer.
            free(buffer);
            ours.context = Box::into_raw(Box::new(self)).cast::<c_void>();
            ours.size = size;
            ours.get_base = Some(get_base);
            ours.set_tensor = Some(set_tensor);
            ours.free_buffer = Some(free_buffer);
            // What is mapped read-only cannot be cleared, and need not be.
            (ours.memset_tensor, ours.clear, ours.reset) = (None, None, None);
            (ours.set_tensor_2d, ours.get_tensor_2d) = (None, None);
        }
        true
    }

    /// The next tensor is packed: writes what is complete.
    fn packed(&mut self, tensor: Tensor) {
        let State::Packing {
            packed, written, ..
        } = &mut self.state
        else {
            return;
        };
        let (start, end) = (
            tensor.offset as usize,
            (tensor.offset + tensor.bytes) as usize,
        );
        if start < *packed || start - *packed >= GAP {
            let why = format!("ggml packed what begins at {start} after what ends at {packed}");
            return self.give_up(why);
        }
        *packed = end;
        let is_last = self.space.size() - end < GAP;
        let whole = end - end % page();
        self.tensors.push(tensor);
        let done = if is_last {
            self.finish()
        } else if whole - *written >= PIECE {
            self.write(whole)
        } else {
            return;
        };
        if let Err(error) = done {
            self.give_up(format!("the packed weights cannot be written: {error}"));
        }
    }

    /// Writes what was packed up to `end`; from now on it is the file's.
    fn write(&mut self, end: usize) -> io::Result<()> {
        let State::Packing {
            writer, written, ..
        } = &mut self.state
        else {
            return Ok(());
        };
        writer.append(self.space.bytes(*written..end))?;
        Arc::get_mut(&mut self.space)
            .ok_or(io::ErrorKind::ResourceBusy)?
            .replace(*written..end, writer.readable())?;
        *written = end;
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        self.write(self.space.size())?;
        let State::Packing { writer, key, .. } = std::mem::replace(&mut self.state, State::GaveUp)
        else {
            return Ok(());
        };
        let packed = writer.finish(&key, std::mem::take(&mut self.tensors))?;
        outcome::set(Some(Outcome::Packed {
            packed,
            space: self.space.clone(),
        }));
        Ok(())
    }

    fn give_up(&mut self, why: String) {
        self.state = State::GaveUp;
        outcome::set(Some(Outcome::without_file(why, self.may_use_memory)));
    }
}

/// # Safety
/// ggml calls it with a buffer that [`PackedBuffer::install`] has changed.
unsafe extern "C" fn get_base(buffer: sys::ggml_backend_buffer_t) -> *mut c_void {
    // SAFETY: by this function's contract.
    unsafe {
        (*(*buffer.cast::<Buffer>()).context.cast::<PackedBuffer>())
            .space
            .base()
            .cast()
    }
}

/// # Safety
/// As [`get_base`]. The buffer is not used afterwards.
unsafe extern "C" fn free_buffer(buffer: sys::ggml_backend_buffer_t) {
    // SAFETY: by this function's contract; the box is from [`PackedBuffer::install`].
    drop(unsafe { Box::from_raw((*buffer.cast::<Buffer>()).context.cast::<PackedBuffer>()) });
}

/// # Safety
/// As [`get_base`]; `tensor` lies in the buffer, and `data` has `size` bytes.
unsafe extern "C" fn set_tensor(
    buffer: sys::ggml_backend_buffer_t,
    tensor: *mut sys::ggml_tensor,
    data: *const c_void,
    offset: usize,
    size: usize,
) {
    // SAFETY: by this function's contract. Models are loaded on one thread.
    let (packed, name, place, source) = unsafe {
        let packed = &mut *(*buffer.cast::<Buffer>()).context.cast::<PackedBuffer>();
        let name = CStr::from_ptr((*tensor).name.as_ptr())
            .to_string_lossy()
            .into_owned();
        let place = (*tensor).data.cast::<u8>().offset_from(packed.space.base()) as u64;
        (
            packed,
            name,
            place,
            std::slice::from_raw_parts(data.cast::<u8>(), size),
        )
    };
    if let State::Ready(expected) = &packed.state {
        let found = expected.tensors.get(packed.tensors.len());
        let same = found.is_some_and(|found| {
            (found.name.as_str(), found.offset, found.bytes) == (name.as_str(), place, size as u64)
        });
        if !same {
            outcome::set(Some(Outcome::Wrong {
                why: format!("it does not have `{name}` where it should be"),
            }));
        } else if !outcome::has_failed() {
            outcome::set(Some(Outcome::Reused));
        }
        packed.tensors.push(Tensor {
            name,
            offset: place,
            bytes: size as u64,
            source: 0,
        });
        return;
    }
    if let Some(set) = packed.set {
        // SAFETY: ggml's function with ggml's arguments; the memory behind the tensor can be
        // written.
        unsafe { set(buffer, tensor, data, offset, size) };
    }
    let State::Packing { windows, .. } = &packed.state else {
        return;
    };
    match windows.iter().find_map(|window| window.offset_of(source)) {
        Some(source) => packed.packed(Tensor {
            name,
            offset: place,
            bytes: size as u64,
            source,
        }),
        None => packed.give_up("ggml packed something that is not in the model's files".to_owned()),
    }
}
