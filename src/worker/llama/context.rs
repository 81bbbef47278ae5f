//! The state of all sequences, and the step that computes a batch.

use std::ffi::c_void;
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use llama_cpp_sys_2 as sys;

use super::batch::RowBatch;
use super::drafter::{DraftStart, Drafter, DrafterModel, Guess};
use super::experts::{self, ExpertWatch};
use super::kv_memory::{KvMemory, lazily};
use super::{Batch, Model, Rows, log};
use crate::worker::progress::Progress;

/// llama.cpp rounds a sequence's cells up to a multiple of this, and warns when it has to.
const GRAIN: u32 = 256;

/// `LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY` of llama.h, a macro that the binding leaves out.
const PARTIAL_ONLY: sys::llama_state_seq_flags = 1;

/// How large a context is.
#[derive(Clone, Copy, Debug)]
pub struct ContextPlan {
    /// Tokens that each sequence may have.
    pub tokens: u32,
    /// Sequences; each has a stream of its own in the cache.
    pub sequences: u32,
    /// Tokens of one step whose logits are computed, at most.
    pub outputs: u32,
    /// Tokens of one step at most.
    pub batch: u32,
    /// Whether the tokens of a picture attend to all others of it (no causal mask).
    pub pictures_look_ahead: bool,
    /// Whether the cache has numbers of 8 bits in place of 16.
    pub small_kv: bool,
    pub threads: u32,
}

/// Why a step was not computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The cache has no room; nothing has changed.
    NoRoom,
    /// Everyone cancelled. Parts of the batch may be in the cache.
    Aborted,
    /// The rows of a picture are not those of this model; nothing has changed.
    Malformed,
    /// The context was released; nothing has changed.
    Released,
    /// llama.cpp's code. Parts of the batch may be in the cache.
    Failed(i32),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoom => f.write_str("the cache has no room for the next tokens"),
            Self::Aborted => f.write_str("the request was cancelled"),
            Self::Malformed => f.write_str("the projector's rows are not what the model reads"),
            Self::Released => f.write_str("the context was released"),
            Self::Failed(code) => write!(
                f,
                "llama.cpp could not compute the next tokens (code {code})"
            ),
        }
    }
}

/// What the abort callback reads; on the heap because llama.cpp keeps its address.
struct Watch {
    /// The flags of everyone in the running batch.
    cancelled: Vec<Arc<AtomicBool>>,
    /// The whole worker is ending.
    ending: Arc<AtomicBool>,
    progress: Arc<Progress>,
}

/// What a context is made with, but for whom it calls. `total`: tokens of all sequences.
fn parameters(plan: &ContextPlan, total: u32, threads: i32) -> sys::llama_context_params {
    // SAFETY: plain data.
    let mut params = unsafe { sys::llama_context_default_params() };
    params.n_ctx = total;
    params.n_batch = plan.batch;
    params.n_ubatch = plan.batch;
    params.n_seq_max = plan.sequences;
    // Without a bound the logits buffer would have a row for each token of the batch.
    params.n_outputs_max = plan.outputs;
    params.n_threads = threads;
    params.n_threads_batch = threads;
    params.flash_attn_type = sys::LLAMA_FLASH_ATTN_TYPE_AUTO;
    params.offload_kqv = false;
    params.op_offload = false;
    params.no_perf = true;
    if plan.small_kv {
        (params.type_k, params.type_v) = (sys::GGML_TYPE_Q8_0, sys::GGML_TYPE_Q8_0);
    }
    params.swa_full = false;
    params.kv_unified = false;
    params
}

/// All sequences of one model. One owner, one thread.
pub struct Context {
    raw: NonNull<sys::llama_context>,
    memory: sys::llama_memory_t,
    /// Where it lies.
    kv: KvMemory,
    watch: NonNull<Watch>,
    experts: Option<NonNull<ExpertWatch>>,
    drafter: Option<Drafter>,
    /// Logits of a row.
    width: usize,
    /// Numbers that stand for a token.
    row_width: usize,
    pictures_look_ahead: bool,
}

impl Context {
    /// Makes the cache and the buffers of a step, whose memory is taken as they are used
    /// (`kv_memory`). A running step stops when `ending` is set, and
    /// tells `progress` of each node and `experts` of each layer's choice. `drafter` reads what the
    /// model has in the cache; if that fails the context is as good without.
    pub fn new(
        model: &'static Model,
        plan: &ContextPlan,
        ending: Arc<AtomicBool>,
        progress: Arc<Progress>,
        experts: Option<ExpertWatch>,
        drafter: Option<&'static DrafterModel>,
    ) -> Result<Self, String> {
        let watch = NonNull::from(Box::leak(Box::new(Watch {
            cancelled: vec![],
            ending,
            progress,
        })));
        let total = plan
            .tokens
            .checked_next_multiple_of(GRAIN)
            .and_then(|tokens| tokens.checked_mul(plan.sequences));
        let total = total.ok_or("context × slots is too large")?;
        let threads = i32::try_from(plan.threads).map_err(|_| "too many threads")?;
        let mut params = parameters(plan, total, threads);
        params.abort_callback = Some(on_node);
        params.abort_callback_data = watch.as_ptr().cast::<c_void>();
        let experts = experts.map(|watch| NonNull::from(Box::leak(Box::new(watch))));
        if let Some(experts) = experts {
            params.cb_eval = Some(experts::on_node);
            params.cb_eval_user_data = experts.as_ptr().cast::<c_void>();
        }

        log::take_reason();
        // SAFETY: the model is never freed, and the watch is freed only after the context.
        let make = || unsafe { sys::llama_init_from_model(model.raw(), params) };
        let (raw, kv) = lazily(make);
        let Some(raw) = NonNull::new(raw) else {
            // SAFETY: the pointers are from `Box::leak` and no context has them.
            unsafe { free(watch, experts) };
            return Err(log::take_reason()
                .unwrap_or_else(|| "llama.cpp made no context and gave no reason".to_owned()));
        };
        // SAFETY: the context is alive, and its memory lives as long.
        let memory = unsafe { sys::llama_get_memory(raw.as_ptr()) };
        let (width, row_width) = (model.tokens(), model.row_width());
        let fitting = drafter.filter(|DrafterModel { model, .. }| {
            (model.tokens(), model.row_width()) == (width, row_width)
        });
        // SAFETY: the target is freed after it, and what the parameters point to after both.
        let drafter = fitting.map(|drafter| unsafe { Drafter::new(drafter, raw, plan, &params) });
        let drafter = drafter.and_then(|made| {
            made.inspect_err(|error| eprintln!("nothing is drafted: {error}"))
                .ok()
        });
        Ok(Self {
            raw,
            memory,
            kv,
            watch,
            experts,
            drafter,
            width,
            row_width,
            pictures_look_ahead: plan.pictures_look_ahead,
        })
    }

    /// Computes `batch`. Stops early when all of `cancelled` are set. On [`DecodeError::Aborted`]
    /// and [`DecodeError::Failed`] the caller must [`Context::truncate`] the sequences of the batch.
    pub fn decode(
        &mut self,
        batch: &mut Batch,
        cancelled: impl Iterator<Item = Arc<AtomicBool>>,
    ) -> Result<(), DecodeError> {
        // SAFETY: the batch stays as it is during the call, with all arrays of the length it names.
        unsafe { self.run(batch.raw(), cancelled) }
    }

    /// Computes a picture, a sound, or a piece of one, like [`Context::decode`]. Where pictures
    /// look ahead it must be a whole one.
    pub fn decode_embeddings(
        &mut self,
        rows: Rows<'_>,
        cancelled: Arc<AtomicBool>,
    ) -> Result<(), DecodeError> {
        let causal = !(rows.picture && self.pictures_look_ahead);
        let Some(mut batch) = RowBatch::new(rows, self.row_width) else {
            return Err(DecodeError::Malformed);
        };
        // SAFETY: the context is alive. Only the next decode goes by it.
        unsafe { sys::llama_set_causal_attn(self.raw.as_ptr(), causal) };
        // SAFETY: as above, and the rows have the model's width.
        let decoded = unsafe { self.run(batch.raw(), std::iter::once(cancelled)) };
        // SAFETY: as above.
        unsafe { sys::llama_set_causal_attn(self.raw.as_ptr(), true) };
        decoded
    }

    /// # Safety
    /// All arrays of the batch have the length that it names and stay as they are during the call.
    /// Positions and sequences are checked by llama.cpp.
    unsafe fn run(
        &mut self,
        batch: sys::llama_batch,
        cancelled: impl Iterator<Item = Arc<AtomicBool>>,
    ) -> Result<(), DecodeError> {
        // SAFETY: the watch is ours; llama.cpp reads it only inside `llama_decode`, which is not
        // running.
        let watch = unsafe { self.watch.as_mut() };
        watch.cancelled.clear();
        watch.cancelled.extend(cancelled);
        let progress = watch.progress.clone();
        // SAFETY: by this function's contract.
        let code = progress
            .decoder
            .during(|| unsafe { sys::llama_decode(self.raw.as_ptr(), batch) });
        log::mute(false);
        match code {
            0 => Ok(()),
            1 => Err(DecodeError::NoRoom),
            2 => Err(DecodeError::Aborted),
            code => Err(DecodeError::Failed(code)),
        }
    }

    /// Guesses what comes behind a token that was drawn, as long as `goes_on` says so of each guess. The
    /// cache stays as it is. Stops early when `cancelled` is set.
    pub fn draft(
        &mut self,
        start: DraftStart,
        cancelled: Arc<AtomicBool>,
        goes_on: &mut dyn FnMut(Guess) -> bool,
    ) {
        let Some(drafter) = &mut self.drafter else {
            return;
        };
        // SAFETY: the drafter was made for this context.
        if !unsafe { drafter.begin(self.raw, start.row) } {
            return;
        }
        // SAFETY: as in `run`: nothing is being computed.
        let watch = unsafe { self.watch.as_mut() };
        watch.cancelled.clear();
        watch.cancelled.push(cancelled);
        let progress = watch.progress.clone();
        let mut next = start;
        // What fails is no guess, and no harm to the answer.
        while let Ok(guess) = progress.decoder.during(|| drafter.guess(next)) {
            next.token = guess.token;
            if !goes_on(guess) {
                break;
            }
        }
        log::mute(false);
    }

    /// The logits after the token at `place` of the last batch, one for each token of the
    /// vocabulary.
    pub fn logits(&mut self, place: usize) -> Option<&[f32]> {
        let place = i32::try_from(place).ok()?;
        // SAFETY: llama.cpp answers with null, or with a row of the vocabulary's width that stays
        // until the next decode, which needs `&mut self`.
        unsafe {
            let row = sys::llama_get_logits_ith(self.raw.as_ptr(), place);
            (!row.is_null()).then(|| std::slice::from_raw_parts(row, self.width))
        }
    }

    /// Removes all of `sequence` from position `from` on. From the start on: its memory is given back.
    pub fn truncate(&mut self, sequence: u32, from: u32) {
        // SAFETY: the memory lives as long as the context; removing a tail from this kind of cache
        // cannot fail.
        unsafe { sys::llama_memory_seq_rm(self.memory, sequence as i32, from as i32, -1) };
        if from == 0 {
            // SAFETY: the sequence is empty, and `&mut` says that nothing is being computed.
            unsafe { self.kv.give_back(sequence) };
        }
    }

    /// The first position that the sliding layers of `sequence` still have; `None` when it is
    /// empty.
    pub fn first_position(&self, sequence: u32) -> Option<u32> {
        // SAFETY: the memory lives as long as the context.
        u32::try_from(unsafe { sys::llama_memory_seq_pos_min(self.memory, sequence as i32) }).ok()
    }

    /// Bytes of the state of `sequence` that [`Context::save`] makes; 0 where llama.cpp cannot say.
    pub fn state_bytes(&mut self, sequence: u32, extent: Extent) -> usize {
        // SAFETY: the context is alive; nothing is changed.
        unsafe {
            sys::llama_state_seq_get_size_ext(self.raw.as_ptr(), sequence as i32, extent.flags())
        }
    }

    /// What the cache holds of `sequence`, in llama.cpp's own form. `None` where it cannot say.
    pub fn save(&mut self, sequence: u32, extent: Extent) -> Option<Vec<u8>> {
        let mut bytes = vec![0; self.state_bytes(sequence, extent)];
        // SAFETY: the context is alive, and llama.cpp writes no more than the bytes that there are.
        let written = unsafe {
            sys::llama_state_seq_get_data_ext(
                self.raw.as_ptr(),
                bytes.as_mut_ptr(),
                bytes.len(),
                sequence as i32,
                extent.flags(),
            )
        };
        (written == bytes.len() && written > 0).then_some(bytes)
    }

    /// Puts what [`Context::save`] made of one sequence of this model in the place of what the cache
    /// holds of `sequence`; `false` where llama.cpp cannot, after which the sequence is in doubt.
    pub fn restore(&mut self, sequence: u32, state: &[u8], extent: Extent) -> bool {
        // SAFETY: the context is alive, and llama.cpp reads no more than the bytes that there are.
        let read = unsafe {
            sys::llama_state_seq_set_data_ext(
                self.raw.as_ptr(),
                state.as_ptr(),
                state.len(),
                sequence as i32,
                extent.flags(),
            )
        };
        read > 0 && read == state.len()
    }
}

/// Which layers a state is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All of them.
    Whole,
    /// The sliding ones, which forget. The others keep what they hold.
    Sliding,
}

impl Extent {
    fn flags(self) -> sys::llama_state_seq_flags {
        match self {
            Self::Whole => 0,
            Self::Sliding => PARTIAL_ONLY,
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // It reads what the context has.
        self.drafter = None;
        // SAFETY: all pointers are ours, and the watches go last because the context points to
        // them.
        unsafe {
            sys::llama_free(self.raw.as_ptr());
            free(self.watch, self.experts);
        }
    }
}

/// # Safety
/// Both are from `Box::leak`, and nobody uses them any more.
unsafe fn free(watch: NonNull<Watch>, experts: Option<NonNull<ExpertWatch>>) {
    // SAFETY: by this function's contract.
    unsafe {
        drop(Box::from_raw(watch.as_ptr()));
        experts.map(|experts| Box::from_raw(experts.as_ptr()));
    }
}

/// ggml asks this after each node of the graph, on the thread that called `llama_decode`.
unsafe extern "C" fn on_node(watch: *mut c_void) -> bool {
    // SAFETY: [`Context::new`] passes its watch, which outlives the context and is not written
    // during a decode.
    let watch = unsafe { &*watch.cast::<Watch>() };
    watch.progress.decoder.step();
    let everyone = !watch.cancelled.is_empty()
        && watch
            .cancelled
            .iter()
            .all(|flag| flag.load(Ordering::Relaxed));
    let stop = everyone || watch.ending.load(Ordering::Relaxed);
    if stop {
        log::mute(true);
    }
    stop
}
