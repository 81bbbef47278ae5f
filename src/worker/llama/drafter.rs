//! The drafter of a model: a few layers that guess what the model says next (multi-token prediction).
//! They look at the model's own keys and values and have none themselves, so that nothing of them has to
//! be taken back with what was guessed wrong.

use std::ffi::c_void;
use std::ptr::NonNull;

use llama_cpp_sys_2 as sys;

use super::clusters::{ClusterFile, ClusterHead, Tap};
use super::context::{ContextPlan, DecodeError};
use super::kv_memory::lazily;
use super::{Model, Token, log};
use crate::sys::residency::Window;

// Of llama.cpp's staging header, `src/llama-ext.h`, which is C++ and which the binding leaves out. The
// names are what the Itanium ABI makes of the declarations there, so a library without these
// functions is not linked.
unsafe extern "C" {
    /// Whether hidden rows can be asked for after a decode; `masked`: of tokens whose logits are computed.
    #[link_name = "_Z26llama_set_embeddings_nextnP13llama_contextbb"]
    fn llama_set_embeddings_nextn(context: *mut sys::llama_context, value: bool, masked: bool);
    /// The hidden row of a token of the last batch, or null.
    #[link_name = "_Z30llama_get_embeddings_nextn_ithP13llama_contexti"]
    fn llama_get_embeddings_nextn_ith(context: *mut sys::llama_context, place: i32) -> *mut f32;
}

/// A token that may come next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guess {
    pub token: Token,
    /// How likely the drafter thinks it, from 0 to 1.
    pub chance: f32,
}

/// Behind what the drafter goes on.
#[derive(Clone, Copy, Debug)]
pub struct DraftStart {
    pub sequence: u32,
    /// The place in the last batch of the token from whose logits `token` was drawn. It is the last that the
    /// cache holds of the sequence.
    pub row: usize,
    pub token: Token,
    /// Where `token` will stand.
    pub position: u32,
}

/// A drafter's weights. They are never freed.
pub struct DrafterModel {
    pub model: Model,
    /// `None`: all tokens are rated.
    pub clusters: Option<ClusterFile>,
}

impl DrafterModel {
    /// Where its files are mapped.
    ///
    /// # Errors
    /// This process cannot look at its own map.
    pub fn windows(&self) -> std::io::Result<Vec<Window>> {
        let clusters = self.clusters.as_ref().map(ClusterFile::windows);
        let of_clusters = clusters.transpose()?.unwrap_or_default();
        Ok([self.model.windows()?, of_clusters].concat())
    }
}

/// Rates the tokens of the best clusters only.
struct ByCluster {
    head: ClusterHead,
    /// On the heap because llama.cpp keeps its address.
    tap: NonNull<Tap>,
}

impl Drop for ByCluster {
    fn drop(&mut self) {
        // SAFETY: from `Box::leak`; the context that has its address was freed before.
        drop(unsafe { Box::from_raw(self.tap.as_ptr()) });
    }
}

/// A drafter over the context of its model.
pub(super) struct Drafter {
    raw: NonNull<sys::llama_context>,
    by_cluster: Option<ByCluster>,
    /// The hidden row that the next guess goes by.
    hidden: Vec<f32>,
    /// Tokens of the vocabulary.
    tokens: usize,
}

impl Drafter {
    /// Makes the context of `drafter` over `target`, whose parameters are `params`.
    ///
    /// # Safety
    /// The target is alive and outlives the drafter; so does what the parameters point to.
    pub(super) unsafe fn new(
        drafter: &'static DrafterModel,
        target: NonNull<sys::llama_context>,
        plan: &ContextPlan,
        params: &sys::llama_context_params,
    ) -> Result<Self, String> {
        let mut params = *params;
        params.ctx_type = sys::LLAMA_CONTEXT_TYPE_MTP;
        params.ctx_other = target.as_ptr();
        // One guess at a time, of one sequence.
        params.n_batch = plan.sequences;
        params.n_ubatch = plan.sequences;
        params.n_outputs_max = plan.sequences;
        params.cb_eval = None;
        params.cb_eval_user_data = std::ptr::null_mut::<c_void>();
        let DrafterModel { model, clusters } = drafter;
        let by_cluster = clusters.as_ref().map(|clusters| {
            Ok::<_, String>(ByCluster {
                head: ClusterHead::new(clusters, params.n_threads)?,
                tap: NonNull::from(Box::leak(Box::new(Tap::new(clusters)))),
            })
        });
        let by_cluster = by_cluster.transpose()?;
        if let Some(ByCluster { tap, .. }) = &by_cluster {
            params.cb_eval = Some(Tap::on_node);
            params.cb_eval_user_data = tap.as_ptr().cast::<c_void>();
        }
        log::take_reason();
        // SAFETY: the model is never freed, the target outlives the context by this function's contract.
        let (raw, _) = lazily(|| unsafe { sys::llama_init_from_model(model.raw(), params) });
        let raw = NonNull::new(raw).ok_or_else(|| {
            let reason = log::take_reason();
            reason.unwrap_or_else(|| "llama.cpp made no context and gave no reason".to_owned())
        })?;
        // SAFETY: both contexts are alive and nothing is being computed.
        unsafe {
            llama_set_embeddings_nextn(target.as_ptr(), true, true);
            // With clusters the graph ends before it.
            llama_set_embeddings_nextn(raw.as_ptr(), by_cluster.is_none(), true);
        }
        Ok(Self {
            raw,
            by_cluster,
            hidden: vec![0.0; model.row_width()],
            tokens: model.tokens(),
        })
    }

    /// Begins behind the token at `row` of the last batch of `target`. `false`: there is no such row.
    ///
    /// # Safety
    /// It is the target that this was made for.
    pub(super) unsafe fn begin(&mut self, target: NonNull<sys::llama_context>, row: usize) -> bool {
        // SAFETY: by this function's contract.
        unsafe { self.take_row(target, row) }
    }

    /// The token that is the most likely to follow `token`. All guesses of a draft are made at the
    /// position of the first: the drafter was trained so.
    pub(super) fn guess(&mut self, start: DraftStart) -> Result<Guess, DecodeError> {
        let mut token = start.token;
        let mut position = start.position as i32;
        let mut sequence = start.sequence as i32;
        let (mut one, mut output) = (1, 1i8);
        let mut place = &raw mut sequence;
        let batch = sys::llama_batch {
            n_tokens: 1,
            token: &raw mut token,
            embd: self.hidden.as_mut_ptr(),
            pos: &raw mut position,
            n_seq_id: &raw mut one,
            seq_id: &raw mut place,
            logits: &raw mut output,
        };
        // SAFETY: one token and one row of the width that the model reads; all outlive the call.
        match unsafe { sys::llama_decode(self.raw.as_ptr(), batch) } {
            0 => {}
            1 => return Err(DecodeError::NoRoom),
            2 => return Err(DecodeError::Aborted),
            code => return Err(DecodeError::Failed(code)),
        }
        if let Some(ByCluster { head, tap }) = &mut self.by_cluster {
            // SAFETY: llama.cpp uses it only inside a decode, and none runs.
            let row = unsafe { tap.as_mut() }.take();
            let guess = row.and_then(|row| head.guess(row, &mut self.hidden));
            return guess.ok_or(DecodeError::Malformed);
        }
        // SAFETY: the context is alive.
        if !unsafe { self.take_row(self.raw, 0) } {
            return Err(DecodeError::Malformed);
        }
        // SAFETY: llama.cpp answers with null or with a row of the vocabulary's width, which stays until
        // the next decode.
        let logits = unsafe {
            let row = sys::llama_get_logits_ith(self.raw.as_ptr(), 0);
            (!row.is_null()).then(|| std::slice::from_raw_parts(row, self.tokens))
        };
        logits.and_then(likeliest).ok_or(DecodeError::Malformed)
    }

    /// # Safety
    /// The context is alive, and its hidden rows have the width of ours.
    unsafe fn take_row(&mut self, context: NonNull<sys::llama_context>, row: usize) -> bool {
        let Ok(row) = i32::try_from(row) else {
            return false;
        };
        // SAFETY: by this function's contract; llama.cpp answers with null where there is no such row.
        let found = unsafe {
            let found = llama_get_embeddings_nextn_ith(context.as_ptr(), row);
            (!found.is_null()).then(|| std::slice::from_raw_parts(found, self.hidden.len()))
        };
        if let Some(found) = found {
            self.hidden.copy_from_slice(found);
        }
        found.is_some()
    }
}

impl Drop for Drafter {
    fn drop(&mut self) {
        // SAFETY: the context is ours, and the target is alive still.
        unsafe { sys::llama_free(self.raw.as_ptr()) };
    }
}

/// The token with the largest of these logits; `None` where they are not numbers.
pub(super) fn likeliest(logits: &[f32]) -> Option<Guess> {
    let mut best = (0, f32::NEG_INFINITY);
    for (token, &logit) in logits.iter().enumerate() {
        if logit > best.1 {
            best = (token, logit);
        }
    }
    let (token, most) = best;
    let sum: f32 = logits.iter().map(|logit| (logit - most).exp()).sum();
    (most.is_finite() && sum.is_finite()).then(|| Guess {
        token: token as Token,
        chance: sum.recip(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_token_and_its_chance() {
        let guess = likeliest(&[0.0, 3f32.ln(), 0.0]).unwrap();
        assert_eq!(guess.token, 1);
        assert!((guess.chance - 0.6).abs() < 1e-6, "{guess:?}");
        assert_eq!(likeliest(&[f32::NAN, 1.0]), None);
        assert_eq!(likeliest(&[f32::NAN; 2]), None);
        assert_eq!(likeliest(&[f32::INFINITY, 1.0]), None);
    }
}
