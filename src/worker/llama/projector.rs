//! The projector: what turns a picture's pixels and a sound's samples into rows that the model
//! reads in place of tokens.

use std::ffi::{CString, c_void};
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use llama_cpp_sys_2 as sys;

use super::log;
use super::marker_vocabulary::MarkerVocabulary;
use crate::gemma::picture::{BUDGETS, Size};
use crate::gemma::sound::MAX_SAMPLES;
use crate::worker::progress::Progress;

/// Nodes of the graph that are one step: between two of them the cancel flag is checked.
const NODES: u32 = 16;

/// What [`on_node`] reads; on the heap because libmtmd keeps its address.
struct Watch {
    /// The cancel flag of the request whose medium is encoded.
    cancelled: Arc<AtomicBool>,
    /// The whole worker is ending.
    ending: Arc<AtomicBool>,
    progress: Arc<Progress>,
    /// Nodes since the last look.
    nodes: u32,
    /// Numbers in a row of the node that was computed last: the rows of a medium, in the end.
    width: i64,
}

/// A loaded projector. It stays on the thread that loaded it.
pub struct Projector {
    raw: NonNull<sys::mtmd_context>,
    watch: NonNull<Watch>,
    /// Numbers in a row.
    width: usize,
}

impl Projector {
    /// Reads the projector behind `file` for a model whose rows have `width` numbers. All of it
    /// will be in private memory. Stops early, with an error, when `ending` is set, and tells
    /// `progress` of each tensor, as it does of the steps of what is encoded later.
    /// The error is llama.cpp's.
    pub fn load(
        file: &OwnedFd,
        width: usize,
        threads: u32,
        ending: Arc<AtomicBool>,
        progress: Arc<Progress>,
    ) -> Result<Self, String> {
        // libmtmd takes a path only; this one leads to the descriptor's file and to no other.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let path = CString::new(path).map_err(|error| error.to_string())?;
        let markers = MarkerVocabulary::load()?;
        let watch = NonNull::from(Box::leak(Box::new(Watch {
            cancelled: Arc::default(),
            ending,
            progress,
            nodes: 0,
            width: 0,
        })));
        // SAFETY: plain data.
        let mut params = unsafe { sys::mtmd_context_params_default() };
        params.use_gpu = false;
        params.print_timings = false;
        params.n_threads = i32::try_from(threads).map_err(|_| "too many threads")?;
        // Buffers are made for the first medium as it comes.
        params.warmup = false;
        // Pictures come in the size in which they are encoded.
        params.image_min_tokens = 1;
        params.image_max_tokens = BUDGETS[BUDGETS.len() - 1] as i32;
        params.cb_eval = Some(on_node);
        params.cb_eval_user_data = watch.as_ptr().cast::<c_void>();
        params.progress_callback = Some(on_progress);
        params.progress_callback_user_data = watch.as_ptr().cast::<c_void>();

        log::take_reason();
        // SAFETY: the path outlives the call, the markers are never freed, and the watch is freed
        // only after the context.
        let raw = unsafe { sys::mtmd_init_from_file(path.as_ptr(), markers, params) };
        let Some(raw) = NonNull::new(raw) else {
            // SAFETY: the pointer is from `Box::leak` and no context has it.
            drop(unsafe { Box::from_raw(watch.as_ptr()) });
            let reason = log::take_reason().unwrap_or_else(|| "libmtmd gave no reason".to_owned());
            return Err(reason.replace(path.to_str().unwrap_or_default(), "it"));
        };
        let projector = Self { raw, watch, width };
        // SAFETY: the context is alive.
        if unsafe { sys::mtmd_support_vision(raw.as_ptr()) } {
            Ok(projector)
        } else {
            Err("it is not for pictures".to_owned())
        }
    }

    /// The rows of a picture, `tokens` of them. `rgb` has three bytes for each pixel. Stops early,
    /// with an error, when `cancelled` is set.
    pub fn encode_image(
        &mut self,
        rgb: &[u8],
        size: Size,
        tokens: usize,
        cancelled: &Arc<AtomicBool>,
    ) -> Result<Vec<f32>, String> {
        if rgb.len() != size.width as usize * size.height as usize * 3 {
            return Err(format!(
                "{} bytes are no picture of {} x {} pixels",
                rgb.len(),
                size.width,
                size.height
            ));
        }
        // SAFETY: the pixels are there in the number that the size names, and are copied.
        let bitmap = Owned(
            unsafe { sys::mtmd_bitmap_init(size.width, size.height, rgb.as_ptr()) },
            sys::mtmd_bitmap_free,
        );
        self.encode(&bitmap, sys::MTMD_INPUT_CHUNK_TYPE_IMAGE, tokens, cancelled)
    }

    /// The rows of a sound, `tokens` of them. The samples are mono,
    /// [`RATE`](crate::gemma::sound::RATE) a second, and no more than [`MAX_SAMPLES`], which
    /// libmtmd takes together. Stops early, with an error, when `cancelled` is set.
    pub fn encode_audio(
        &mut self,
        samples: &[f32],
        tokens: usize,
        cancelled: &Arc<AtomicBool>,
    ) -> Result<Vec<f32>, String> {
        if samples.len() > MAX_SAMPLES {
            return Err(format!(
                "{} samples are more than {MAX_SAMPLES}",
                samples.len()
            ));
        }
        // SAFETY: the context is alive.
        if !unsafe { sys::mtmd_support_audio(self.raw.as_ptr()) } {
            return Err("the projector is not for sounds".to_owned());
        }
        // SAFETY: the samples are there in this number, and are copied.
        let sound = Owned(
            unsafe { sys::mtmd_bitmap_init_from_audio(samples.len(), samples.as_ptr()) },
            sys::mtmd_bitmap_free,
        );
        self.encode(&sound, sys::MTMD_INPUT_CHUNK_TYPE_AUDIO, tokens, cancelled)
    }

    /// What libmtmd calls a bitmap may be a sound as well; `kind` says which chunk it becomes.
    fn encode(
        &mut self,
        bitmap: &Owned<sys::mtmd_bitmap>,
        kind: sys::mtmd_input_chunk_type,
        tokens: usize,
        cancelled: &Arc<AtomicBool>,
    ) -> Result<Vec<f32>, String> {
        // SAFETY: the watch is ours; libmtmd reads it only inside calls, of which none is running.
        unsafe { self.watch.as_mut() }.cancelled = cancelled.clone();
        log::take_reason();
        let chunks = self.chunks(bitmap)?;
        // SAFETY: the list is alive and has the number of chunks that it says; they live as long.
        let chunk = unsafe {
            (0..sys::mtmd_input_chunks_size(chunks.0))
                .map(|i| sys::mtmd_input_chunks_get(chunks.0, i))
                .find(|chunk| sys::mtmd_input_chunk_get_type(*chunk) == kind)
        };
        let chunk = chunk.ok_or_else(failed)?;
        // SAFETY: the chunk is alive.
        let found = unsafe { sys::mtmd_input_chunk_get_n_tokens(chunk) };
        if found != tokens {
            return Err(format!(
                "the projector makes {found} tokens of a medium that should become {tokens}"
            ));
        }
        // SAFETY: context and chunk are alive.
        let code = unsafe { sys::mtmd_encode_chunk(self.raw.as_ptr(), chunk) };
        if cancelled.load(Ordering::Relaxed) {
            return Err("the request was cancelled".to_owned());
        }
        if code != 0 {
            return Err(failed());
        }
        // SAFETY: the chunk was encoded just now, and has as many tokens.
        unsafe { self.rows(tokens) }
    }

    /// What libmtmd splits a medium into: it and the markers around it.
    fn chunks(
        &self,
        bitmap: &Owned<sys::mtmd_bitmap>,
    ) -> Result<Owned<sys::mtmd_input_chunks>, String> {
        // SAFETY: no arguments.
        let chunks = Owned(
            unsafe { sys::mtmd_input_chunks_init() },
            sys::mtmd_input_chunks_free,
        );
        let part = sys::mtmd_input_part {
            text: std::ptr::null(),
            bitmap: bitmap.0,
        };
        // SAFETY: context, list and part are alive, and one part is there.
        let code = unsafe {
            sys::mtmd_tokenize_from_parts(
                self.raw.as_ptr(),
                chunks.0,
                &std::ptr::from_ref(&part),
                1,
                false,
            )
        };
        if code == 0 { Ok(chunks) } else { Err(failed()) }
    }

    /// The rows of the medium that was encoded last.
    ///
    /// # Safety
    /// One was encoded, and has `tokens` tokens.
    unsafe fn rows(&self, tokens: usize) -> Result<Vec<f32>, String> {
        // SAFETY: the watch is ours; libmtmd reads it only inside calls, of which none is running.
        let width = unsafe { self.watch.as_ref() }.width;
        if usize::try_from(width) != Ok(self.width) {
            return Err(format!(
                "the projector makes rows of {width} numbers; the model's have {}",
                self.width
            ));
        }
        // SAFETY: by this function's contract; the rows, each of the width that was just compared,
        // stay until the next medium.
        unsafe {
            let rows = sys::mtmd_get_output_embd(self.raw.as_ptr());
            if rows.is_null() {
                Err(failed())
            } else {
                Ok(std::slice::from_raw_parts(rows, tokens * self.width).to_vec())
            }
        }
    }
}

/// Why libmtmd refused the medium, as far as it said.
fn failed() -> String {
    log::take_reason().unwrap_or_else(|| "libmtmd could not read the medium".to_owned())
}

impl Drop for Projector {
    fn drop(&mut self) {
        // SAFETY: both pointers are ours, and the watch goes last because the context points to it.
        unsafe {
            sys::mtmd_free(self.raw.as_ptr());
            drop(Box::from_raw(self.watch.as_ptr()));
        }
    }
}

/// Something of libmtmd's and what frees it.
struct Owned<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: the pointer came from the function that belongs to this one, and nobody else
        // frees it.
        unsafe { (self.1)(self.0) }
    }
}

/// ggml asks this before each node (`ask`: shall it stop and ask again behind this one?) and behind
/// the chosen ones (go on?), on the thread that encodes.
unsafe extern "C" fn on_node(tensor: *mut sys::ggml_tensor, ask: bool, watch: *mut c_void) -> bool {
    // SAFETY: [`Projector::load`] passes its watch, which outlives the context and is used by this
    // thread alone.
    let watch = unsafe { &mut *watch.cast::<Watch>() };
    if ask {
        watch.nodes += 1;
        // SAFETY: ggml passes a tensor of the graph that it computes.
        watch.width = unsafe { (*tensor).ne[0] };
        return watch.nodes.is_multiple_of(NODES);
    }
    watch.progress.encoder.step();
    !watch.cancelled.load(Ordering::Relaxed) && !watch.ending.load(Ordering::Relaxed)
}

/// libmtmd asks this between tensors; `false` ends the loading.
unsafe extern "C" fn on_progress(_: f32, watch: *mut c_void) -> bool {
    // SAFETY: as above.
    let watch = unsafe { &*watch.cast::<Watch>() };
    watch.progress.encoder.step();
    !watch.ending.load(Ordering::Relaxed)
}
