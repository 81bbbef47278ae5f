//! Packed weights in a place of our choosing.
//!
//! ggml packs most quantised weights for the CPU's kernels: it interleaves rows. The packed form
//! has as many bytes as the source, lies in one buffer of the type `CPU_REPACK`, and is anonymous
//! memory, which cannot be evicted: weights that cost twice and are made anew at each start. Here
//! the buffer becomes the map of a file. The first time, each tensor is packed in memory, written
//! to the file and replaced by the file's pages, and its source pages are given back, so that no
//! more than a few tensors are in memory twice. From then on the file is mapped and nothing is
//! packed.
//!
//! What this relies on in ggml, checked when it is used and by the tests below; where it does not
//! hold ggml's own memory is used, which is as good and larger:
//! - the CPU device lists the buffer type under `ggml_backend_dev_get_extra_bufts`;
//! - `ggml_backend_buffer_type` and `ggml_backend_buffer` look like [`BufferType`] and [`Buffer`]
//!   (`ggml-backend-impl.h`, which the binding leaves out);
//! - llama.cpp allocates one such buffer for a model and sets each tensor in it once, as a whole,
//!   from the file's map;
//! - a kernel reads packed weights through `tensor->data` and nothing else.

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_void};
use std::fs::File;
use std::io;
use std::sync::{Arc, OnceLock};

use llama_cpp_sys_2 as sys;

use super::super::residency::packed::{Contents, Key, Packed, Tensor, Writer};
use crate::sys::mapping::{Mapping, page};
use crate::sys::residency::{MappedFile, Window};

/// The version of `llama-cpp-sys-2`; a packed buffer of another one is not used.
const GGML: &str = "0.1.161";
const NAME: &CStr = c"CPU_REPACK";
/// Bytes of packed tensors that are collected before they are written.
const PIECE: usize = 8 << 20;
/// Tensors begin at multiples of less than this, and the smallest that can be packed has more.
const GAP: usize = 128;

type AllocBuffer =
    unsafe extern "C" fn(sys::ggml_backend_buffer_type_t, usize) -> sys::ggml_backend_buffer_t;
type SetTensor = unsafe extern "C" fn(
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
struct BufferType {
    get_name: Option<unsafe extern "C" fn(sys::ggml_backend_buffer_type_t) -> *const c_char>,
    alloc_buffer: Option<AllocBuffer>,
    alloc_buffer_n: Other,
    get_alignment: Option<unsafe extern "C" fn(sys::ggml_backend_buffer_type_t) -> usize>,
    get_max_size: Other,
    get_alloc_size: Other,
    get_alloc_size_n: Other,
    is_host: Other,
    device: sys::ggml_backend_dev_t,
    context: *mut c_void,
}

/// `ggml_backend_buffer`.
#[repr(C)]
struct Buffer {
    free_buffer: Option<unsafe extern "C" fn(sys::ggml_backend_buffer_t)>,
    get_base: Option<unsafe extern "C" fn(sys::ggml_backend_buffer_t) -> *mut c_void>,
    init_tensor: Other,
    memset_tensor: Other,
    set_tensor: Option<SetTensor>,
    get_tensor: Other,
    set_tensor_2d: Other,
    get_tensor_2d: Other,
    cpy_tensor: Other,
    clear: Other,
    reset: Other,
    buft: sys::ggml_backend_buffer_type_t,
    context: *mut c_void,
    size: usize,
    usage: i32,
}

/// Where the next model's packed weights are to be.
#[derive(Debug)]
pub enum Place {
    /// In this file, which has them; the space is its map.
    Ready {
        contents: Arc<Contents>,
        space: Arc<Mapping>,
    },
    /// In this file, which is empty.
    New { file: File, key: Key },
}

/// What became of them.
#[derive(Debug)]
pub enum Outcome {
    /// ggml packed nothing: the CPU or the file's types have no use for it.
    Nothing,
    /// They were there.
    Reused,
    /// They are in the file now, which is not yet safe on the disk; the space is its map.
    Packed { packed: Packed, space: Arc<Mapping> },
    /// They are in memory, all or the last of them; says why.
    InMemory { why: String },
    /// The file does not hold this model's weights: the model was not loaded.
    Wrong { why: String },
}

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

const NO_FILE: &str = "no file was given for them";

fn unknown() -> Outcome {
    Outcome::InMemory {
        why: "this version of ggml is not known".to_owned(),
    }
}

thread_local! {
    /// For the model that this thread is loading.
    static PLACE: RefCell<Option<(Option<Place>, MappedFile)>> = const { RefCell::new(None) };
    static OUTCOME: RefCell<Option<Outcome>> = const { RefCell::new(None) };
}

/// ggml's own way to allocate packed buffers, once ours stands in its place.
static OWN_WAY: OnceLock<AllocBuffer> = OnceLock::new();

/// Runs `load`, which loads one model from the file `model` on this thread; its packed weights go
/// to `place`.
pub fn into<T>(place: Option<Place>, model: MappedFile, load: impl FnOnce() -> T) -> (T, Outcome) {
    let known = stand_in();
    PLACE.set(known.then_some((place, model)));
    OUTCOME.set((!known).then(unknown));
    let loaded = load();
    PLACE.set(None);
    (loaded, OUTCOME.take().unwrap_or(Outcome::Nothing))
}

/// Whether loading is to stop because the packed file is another model's.
pub fn is_wrong() -> bool {
    OUTCOME.with_borrow(|outcome| matches!(outcome, Some(Outcome::Wrong { .. })))
}

/// Puts [`alloc_buffer`] in the place of ggml's function. `false` if ggml is not what we know.
fn stand_in() -> bool {
    if OWN_WAY.get().is_some() {
        return true;
    }
    let Some(buft) = packed_type() else {
        return false;
    };
    let ours = buft.cast::<BufferType>();
    // SAFETY: a live buffer type; `packed_type` has checked that it looks like ours. Nobody else
    // loads a model now.
    unsafe {
        let Some(own) = (*ours).alloc_buffer else {
            return false;
        };
        (*ours).alloc_buffer = Some(alloc_buffer);
        OWN_WAY.get_or_init(|| own);
    }
    true
}

/// ggml's type of packed buffers, if it has one that looks as we know it.
fn packed_type() -> Option<sys::ggml_backend_buffer_type_t> {
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
            if CStr::from_ptr(sys::ggml_backend_buft_name(*next)) == NAME {
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
            .is_some_and(|name| CStr::from_ptr(name(buft)) == NAME)
            && ours.alloc_buffer.is_some()
            && ours.get_alignment.is_some_and(|alignment| {
                alignment(buft) == sys::ggml_backend_buft_get_alignment(buft)
            })
            && ours.device == sys::ggml_backend_buft_get_device(buft)
    }
}

/// ggml calls this for the buffer that all packed tensors of a model go to.
unsafe extern "C" fn alloc_buffer(
    buft: sys::ggml_backend_buffer_type_t,
    size: usize,
) -> sys::ggml_backend_buffer_t {
    let Some(own_way) = OWN_WAY.get() else {
        return std::ptr::null_mut();
    };
    let Some((place, model)) = PLACE.take() else {
        // SAFETY: ggml's function with ggml's arguments.
        return unsafe { own_way(buft, size) };
    };
    match place.map_or_else(
        || {
            Err(Outcome::InMemory {
                why: NO_FILE.to_owned(),
            })
        },
        |place| Home::new(place, model, size),
    ) {
        Ok(home) => {
            // A small one of ggml's own, for its functions.
            // SAFETY: ggml's function with its own type.
            let buffer = unsafe { own_way(buft, GAP) };
            // SAFETY: a live buffer or null.
            if !buffer.is_null() && unsafe { home.move_in(buffer, buft, size) } {
                return buffer;
            }
            OUTCOME.set(Some(unknown()));
            if !buffer.is_null() {
                // SAFETY: the buffer is ggml's and nobody has it.
                unsafe { sys::ggml_backend_buffer_free(buffer) };
            }
        }
        Err(Outcome::Wrong { why }) => {
            OUTCOME.set(Some(Outcome::Wrong { why }));
            return std::ptr::null_mut();
        }
        Err(outcome) => OUTCOME.set(Some(outcome)),
    }
    // SAFETY: as above.
    unsafe { own_way(buft, size) }
}

/// A packed buffer's memory and what is known of it: the `context` of ggml's buffer.
struct Home {
    space: Arc<Mapping>,
    set: Option<SetTensor>,
    tensors: Vec<Tensor>,
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
    /// What is not in the file stays in memory.
    GaveUp,
}

impl Home {
    fn new(place: Place, model: MappedFile, size: usize) -> Result<Self, Outcome> {
        let (space, state) = match place {
            Place::Ready { contents, space }
                if contents.bytes == size as u64 && space.size() == size =>
            {
                (space, State::Ready(contents))
            }
            Place::Ready { contents, .. } => {
                return Err(Outcome::Wrong {
                    why: format!("it has {} bytes instead of {size}", contents.bytes),
                });
            }
            Place::New { file, key } => {
                let in_memory = |error: std::io::Error| Outcome::InMemory {
                    why: error.to_string(),
                };
                let space = Mapping::reserve(size).map_err(in_memory)?;
                // SAFETY: the map lives until the model is loaded, and the windows until the last
                // tensor is packed.
                let windows = unsafe { model.windows() }.map_err(in_memory)?;
                let writer = Writer::new(file).map_err(in_memory)?;
                OUTCOME.set(Some(Outcome::InMemory {
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
            state,
        })
    }

    /// Makes ggml's small buffer the door to this memory. `false`, and nothing changed, if it is
    /// not what we know.
    ///
    /// # Safety
    /// `buffer` is a live buffer of ggml's own that nobody else has.
    unsafe fn move_in(
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
            // What is mapped read-only cannot be cleared, and nobody has to.
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
        OUTCOME.set(Some(Outcome::Packed {
            packed,
            space: self.space.clone(),
        }));
        Ok(())
    }

    fn give_up(&mut self, why: String) {
        self.state = State::GaveUp;
        OUTCOME.set(Some(Outcome::InMemory { why }));
    }
}

/// # Safety
/// ggml calls it with a buffer that [`Home::move_in`] has changed.
unsafe extern "C" fn get_base(buffer: sys::ggml_backend_buffer_t) -> *mut c_void {
    // SAFETY: by this function's contract.
    unsafe {
        (*(*buffer.cast::<Buffer>()).context.cast::<Home>())
            .space
            .base()
            .cast()
    }
}

/// # Safety
/// As [`get_base`]. The buffer is not used afterwards.
unsafe extern "C" fn free_buffer(buffer: sys::ggml_backend_buffer_t) {
    // SAFETY: by this function's contract; the box is from [`Home::move_in`].
    drop(unsafe { Box::from_raw((*buffer.cast::<Buffer>()).context.cast::<Home>()) });
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
    let (home, name, place, source) = unsafe {
        let home = &mut *(*buffer.cast::<Buffer>()).context.cast::<Home>();
        let name = CStr::from_ptr((*tensor).name.as_ptr())
            .to_string_lossy()
            .into_owned();
        let place = (*tensor).data.cast::<u8>().offset_from(home.space.base()) as u64;
        (
            home,
            name,
            place,
            std::slice::from_raw_parts(data.cast::<u8>(), size),
        )
    };
    if let State::Ready(expected) = &home.state {
        let found = expected.tensors.get(home.tensors.len());
        let same = found.is_some_and(|found| {
            (found.name.as_str(), found.offset, found.bytes) == (name.as_str(), place, size as u64)
        });
        if !same {
            OUTCOME.set(Some(Outcome::Wrong {
                why: format!("it does not have `{name}` where it should be"),
            }));
        } else if !is_wrong() {
            OUTCOME.set(Some(Outcome::Reused));
        }
        home.tensors.push(Tensor {
            name,
            offset: place,
            bytes: size as u64,
            source: 0,
        });
        return;
    }
    if let Some(set) = home.set {
        // SAFETY: ggml's function with ggml's arguments; the memory behind the tensor can be
        // written.
        unsafe { set(buffer, tensor, data, offset, size) };
    }
    let State::Packing { windows, .. } = &home.state else {
        return;
    };
    match windows.iter().find_map(|window| window.offset_of(source)) {
        Some(source) => home.packed(Tensor {
            name,
            offset: place,
            bytes: size as u64,
            source,
        }),
        None => home.give_up("ggml packed something that is not in the model file".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::alone;
    use super::*;

    #[test]
    fn the_version_is_the_one_that_is_linked() {
        let _alone = alone();
        let manifest = include_str!("../../../Cargo.toml");
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
            let own_way = OWN_WAY.get().copied().or(ours.alloc_buffer).unwrap();
            let buffer = own_way(buft, GAP);
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
        let place = Place::New {
            file: file.try_clone().unwrap(),
            key,
        };
        let (loaded, outcome) = into(Some(place), MappedFile::of(&model).unwrap(), || 5);
        assert!(
            loaded == 5 && matches!(outcome, Outcome::Nothing),
            "{outcome:?}"
        );
        assert_eq!(file.metadata().unwrap().len(), 0);
    }
}
