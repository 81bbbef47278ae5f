//! Which experts a step uses, as soon as the model has chosen them.
//!
//! A layer with experts ranks them first (a row of numbers for each token), then multiplies with
//! the weights of the best. In between llama.cpp lets us look: before each node of its graph the
//! scheduler calls `ggml_backend_sched_eval_callback`. What this
//! relies on, tested with the tiny model that has experts; where it does not hold, the
//! watcher is not called and nothing else changes:
//! - the ranking is called `ffn_moe_topk-<layer>` and holds numbers of 32 bits;
//! - it is in memory that the CPU can read (`ggml_backend_buffer_is_host`);
//! - the multiplication (`GGML_OP_MUL_MAT_ID`) has the weights as its first and the ranking as its
//!   third source;
//! - of the weights one expert follows the other, each of `nb[2]` bytes, packed or not.

use std::ffi::{CStr, c_void};
use std::ops::Range;

use llama_cpp_sys_2 as sys;

const RANKING: &str = "ffn_moe_topk-";
/// Layers at most.
const MAX_LAYERS: usize = 1024;

/// One tensor of weights: an expert after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Experts {
    pub count: usize,
    base: usize,
    /// Bytes of one expert.
    bytes: usize,
}

impl Experts {
    /// `count` experts in the `bytes` bytes from `base` on.
    pub fn new(base: usize, bytes: usize, count: usize) -> Self {
        Self {
            count,
            base,
            bytes: bytes.checked_div(count).unwrap_or(0),
        }
    }

    /// Where expert number `index` lies; `None` if there is none.
    pub fn addresses(&self, index: usize) -> Option<Range<usize>> {
        let start = self.base + index * self.bytes;
        (index < self.count).then_some(start..start + self.bytes)
    }

    /// Where all of them lie.
    pub fn all(&self) -> Range<usize> {
        self.base..self.base + self.count * self.bytes
    }
}

/// Called with each layer's choice: the tensors of all layers that are known so far, the layer, and
/// the experts it has chosen for all tokens of the step, each once and in order. Called in the
/// middle of a step, which waits for it.
pub type Watcher = Box<dyn FnMut(&[Vec<Experts>], usize, &[usize]) + Send>;

/// What stands between llama.cpp and a watcher.
pub struct ExpertWatch {
    watcher: Watcher,
    /// What is not known from the start is learned from the first step that uses it.
    layers: Vec<Vec<Experts>>,
    chosen: Vec<usize>,
}

impl ExpertWatch {
    pub fn new(watcher: Watcher, known: impl IntoIterator<Item = (usize, Experts)>) -> Self {
        let mut watch = Self {
            watcher,
            layers: vec![],
            chosen: vec![],
        };
        known
            .into_iter()
            .for_each(|(layer, experts)| watch.learn(layer, experts));
        watch
    }

    fn learn(&mut self, layer: usize, experts: Experts) {
        if self.layers.len() <= layer {
            self.layers.resize(layer + 1, vec![]);
        }
        if !self.layers[layer].contains(&experts) {
            self.layers[layer].push(experts);
        }
    }

    /// Notes where experts are. `true` if `node` is a ranking, for which the scheduler calls again once
    /// it is computed.
    ///
    /// # Safety
    /// `node` is a node of a graph that is about to be computed.
    unsafe fn ask(&mut self, node: &sys::ggml_tensor) -> bool {
        if node.op != sys::GGML_OP_MUL_MAT_ID {
            return layer_ranked_by(node).is_some();
        }
        // SAFETY: by this function's contract; the sources of a node are nodes or weights.
        let (weights, ranking) = unsafe { (node.src[0].as_ref(), node.src[2].as_ref()) };
        let (Some(weights), Some(layer)) = (weights, ranking.and_then(layer_ranked_by)) else {
            return false;
        };
        let count = usize::try_from(weights.ne[2]).unwrap_or(0);
        self.learn(
            layer,
            Experts {
                count,
                base: weights.data.addr(),
                bytes: weights.nb[2],
            },
        );
        false
    }

    /// # Safety
    /// `ranking` was computed, and its buffer is alive.
    unsafe fn see(&mut self, ranking: &sys::ggml_tensor) {
        let Some(layer) = layer_ranked_by(ranking) else {
            return;
        };
        // SAFETY: by this function's contract.
        if !unsafe { is_in_host_memory(ranking) } {
            return;
        }
        let (columns, rows) = (ranking.ne[0].max(0) as usize, ranking.ne[1].max(0) as usize);
        self.chosen.clear();
        for row in 0..rows {
            // SAFETY: computed, by this function's contract, and in memory that can be read; a row's
            // numbers follow each other ([`layer_ranked_by`]).
            let numbers = unsafe {
                let row = ranking
                    .data
                    .cast::<u8>()
                    .add(row * ranking.nb[1])
                    .cast::<i32>();
                std::slice::from_raw_parts(row, columns)
            };
            self.chosen.extend(
                numbers
                    .iter()
                    .filter_map(|number| usize::try_from(*number).ok()),
            );
        }
        self.chosen.sort_unstable();
        self.chosen.dedup();
        (self.watcher)(&self.layers, layer, &self.chosen);
    }
}

/// The layer whose ranking this is.
fn layer_ranked_by(node: &sys::ggml_tensor) -> Option<usize> {
    // SAFETY: ggml ends names with a zero.
    let name = unsafe { CStr::from_ptr(node.name.as_ptr()) }.to_bytes();
    let layer = std::str::from_utf8(name.strip_prefix(RANKING.as_bytes())?)
        .ok()?
        .parse()
        .ok()?;
    let fits = layer < MAX_LAYERS
        && node.type_ == sys::GGML_TYPE_I32
        && node.nb[0] == size_of::<i32>()
        && node.nb[1].is_multiple_of(4);
    fits.then_some(layer)
}

/// Whether the CPU can read what a tensor holds: a device's buffers need not be mapped.
///
/// # Safety
/// The tensor's buffer is alive.
unsafe fn is_in_host_memory(tensor: &sys::ggml_tensor) -> bool {
    // SAFETY: by this function's contract; the buffer of a view is its source's.
    !tensor.buffer.is_null() && unsafe { sys::ggml_backend_buffer_is_host(tensor.buffer) }
}

/// # Safety
/// `watch` is an [`ExpertWatch`] that nothing else uses; llama.cpp calls it from inside a decode,
/// with nodes of its graph.
pub unsafe extern "C" fn on_node(
    node: *mut sys::ggml_tensor,
    ask: bool,
    watch: *mut c_void,
) -> bool {
    // SAFETY: by this function's contract.
    let (watch, node) = unsafe { (&mut *watch.cast::<ExpertWatch>(), &*node) };
    if ask {
        // SAFETY: by this function's contract.
        return unsafe { watch.ask(node) };
    }
    // SAFETY: the scheduler waits for a node that was asked for, and the graph's buffers live until
    // its end.
    unsafe { watch.see(node) };
    true
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::atomic::AtomicBool;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::ipc::Repack;
    use crate::worker::llama::{Batch, Context, ContextPlan, Model, alone};
    use crate::worker::vocab::tests::tiny_tokens;
    use crate::worker::weight_files::WeightFiles;

    const TINY: &str = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/models/tiny/tiny-26b-a4b-q8_0.gguf"
    );

    fn tiny() -> &'static Model {
        let model = Model::load(
            &WeightFiles::one(File::open(TINY).unwrap()),
            (crate::gemma::ARCHITECTURE, tiny_tokens()),
            None,
            Repack::Anywhere,
            &AtomicBool::new(false),
            &|_| {},
        );
        Box::leak(Box::new(model.0.unwrap()))
    }

    /// Fails when llama.cpp's graph is no longer what this file relies on.
    #[test]
    fn every_layer_tells_its_choice_before_it_is_used() {
        let _alone = alone();
        let model = tiny();
        let told = Arc::new(Mutex::new(vec![]));
        let watcher: Watcher = {
            let told = told.clone();
            Box::new(move |layers, layer, chosen| {
                told.lock()
                    .unwrap()
                    .push((layers.to_vec(), layer, chosen.to_vec()))
            })
        };
        let plan = ContextPlan {
            tokens: 256,
            sequences: 1,
            outputs: 1,
            batch: 8,
            pictures_look_ahead: false,
            small_kv: false,
            threads: 1,
        };
        let watch = ExpertWatch::new(watcher, []);
        let mut context = Context::new(
            model,
            &plan,
            Arc::default(),
            Arc::default(),
            Some(watch),
            None,
        )
        .unwrap();
        let mut batch = Batch::new(8);
        let mut position = 0;
        for tokens in [1, 2, 1, 2] {
            batch.clear();
            for i in 0..tokens {
                batch.push(500 + position as i32, position, 0, i + 1 == tokens);
                position += 1;
            }
            context.decode(&mut batch, std::iter::empty()).unwrap();
        }

        let told = told.lock().unwrap();
        let order: Vec<_> = told.iter().map(|(_, layer, _)| *layer).collect();
        assert_eq!(order, [0, 1, 2, 3, 4, 5].repeat(4));
        for (step, (layers, layer, chosen)) in told.iter().enumerate() {
            let tokens = 1 + step / 6 % 2;
            assert!(
                (2..=2 * tokens).contains(&chosen.len())
                    && chosen.is_sorted()
                    && chosen[chosen.len() - 1] < 8,
                "{chosen:?}"
            );
            // Unknown before they were used for the first time.
            let known = layers.get(*layer).map_or(0, Vec::len);
            assert_eq!(known, if step < 6 { 0 } else { 2 }, "step {step}");
        }
        let (layers, ..) = told.last().unwrap();
        let windows = model.windows().unwrap();
        let mapped = |address: usize| {
            windows
                .iter()
                .any(|window| window.addresses(0..u64::MAX).contains(&address))
        };
        for experts in layers.iter().flatten() {
            assert_eq!(experts.count, 8);
            assert_eq!(experts.all().len(), 8 * experts.addresses(0).unwrap().len());
            assert!(experts.addresses(8).is_none());
            assert!(mapped(experts.all().start) && mapped(experts.all().end - 1));
        }
    }
}
