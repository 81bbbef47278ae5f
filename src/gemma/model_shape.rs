//! What a model takes in memory, computed from its header before anything is loaded. Pure.
//!
//! Three kinds of bytes are told apart: weights that every token reads (they lie in files and can
//! be evicted, at the price of reading them again), weights of which a token reads a part (experts,
//! Per-Layer Embeddings), and anonymous memory: the KV cache, the buffers of a step, the
//! vocabulary's tables, the program's own.

use serde::{Deserialize, Serialize};

/// Cells of the KV cache come in multiples of this (llama.cpp pads them).
const CELLS: u64 = 256;
/// A worker without a model: its heap, stacks, and what OpenMP and the C++ library keep; and the
/// pages of its program and libraries. Measured with the tiny models.
const PROGRAM: u64 = 9 << 19;
const CODE: u64 = 28 << 19;
/// The tokenizer's tables, for each token and for each merge. Of a token half is llama.cpp's, which
/// keeps an empty text for each. Measured with the family's vocabulary (262,144 tokens, 514,906
/// merges: 32 MB).
const TOKEN: u64 = 98;
const MERGE: u64 = 12;
/// What llama.cpp knows of each cell of a cache that does not slide (`llama-kv-cells.h`): whether it is
/// used or not, and more of one that is.
const CELL: u64 = 48;
const USED_CELL: u64 = 96;
/// Bytes for each token of the vocabulary: of a row of logits, and of the list of candidates.
pub const LOGIT: u64 = 4;
const CANDIDATE: u64 = 12;

/// Bytes of a checkpoint of the sliding layers that is kept in memory, for each slot: larger ones are not.
pub const CHECKPOINT_MOST: u64 = 32 << 20;

/// What a header says of a model's size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ModelShape {
    /// Bytes of the layers' weights but for experts, shared weights included.
    pub layers: u64,
    /// Bytes of the token embedding, which is the head.
    pub head: u64,
    /// Bytes of the table of Per-Layer Embeddings.
    pub per_layer: u64,
    /// Bytes of all experts.
    pub experts: u64,
    /// Width of the hidden state.
    pub width: u32,
    /// The widest layer's feed-forward width, that of all experts of a token together.
    pub feed_forward: u32,
    /// Experts of a token.
    pub experts_used: u32,
    /// Numbers of a token's row of Per-Layer Embeddings, of all layers.
    pub per_layer_numbers: u32,
    /// Tokens of the vocabulary, and merges.
    pub tokens: u32,
    pub merges: u32,
    /// Tokens that sliding layers attend to.
    pub window: u32,
    /// Numbers of a token's keys and values in all sliding layers that keep their own, and in all
    /// others that do.
    pub sliding: u32,
    pub global: u32,
}

/// How large a model is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sizes {
    /// Tokens of context that are counted for each slot.
    pub context: u32,
    /// Tokens that one slot may come to have, as long as others have less.
    pub ceiling: u32,
    pub slots: u32,
    /// Tokens that are tried in a step behind an answer's last one.
    pub draft: u32,
    /// Tokens of a step.
    pub batch: u32,
    /// Whether the KV cache has numbers of 8 bits.
    pub small_kv: bool,
}

impl Sizes {
    /// Tokens of a step whose logits are computed, at most: one of each slot, or those that are tried for
    /// one.
    pub fn outputs(&self) -> u32 {
        self.slots.max(self.draft + 1)
    }
}

/// What is kept in memory of what is read in part, and which weights can be evicted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Bytes of Per-Layer Embeddings at most.
    pub per_layer: u64,
    /// The part of the experts, in percent.
    pub experts: u64,
    pub packed: PackedWeights,
}

/// Where the weights are that ggml packs for the CPU's kernels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PackedWeights {
    /// In a file that is mapped: they can be evicted.
    #[default]
    InFile,
    /// In anonymous memory, all of them, for want of a file: they cannot be evicted.
    InMemory,
    /// Nowhere: the model file's own are computed with, which is slower. They can be evicted.
    Nowhere,
}

impl PackedWeights {
    /// Its name in plans.
    pub fn id(self) -> &'static str {
        match self {
            Self::InFile => "file",
            Self::InMemory => "memory",
            Self::Nowhere => "none",
        }
    }
}

/// Bytes that a loaded model takes, by what they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    pub layers: u64,
    pub head: u64,
    pub experts: u64,
    pub per_layer: u64,
    pub kv: u64,
    pub buffers: u64,
    /// What sequences can be brought back to.
    pub checkpoints: u64,
    pub tables: u64,
    pub program: u64,
    pub code: u64,
    /// Whether the weights of layers and experts cannot be evicted either.
    pub packed_in_memory: bool,
}

impl Cost {
    /// What cannot be evicted.
    pub fn unevictable(&self) -> u64 {
        let weights = if self.packed_in_memory {
            self.layers + self.experts
        } else {
            0
        };
        weights + self.anonymous()
    }

    /// What has to be in memory for the model to run at the speed of memory.
    pub fn total(&self) -> u64 {
        let weights = self.layers + self.head + self.experts + self.per_layer;
        weights + self.code + self.anonymous()
    }

    /// What is in no file in any case.
    fn anonymous(&self) -> u64 {
        self.kv + self.checkpoints + self.buffers + self.tables + self.program
    }
}

impl ModelShape {
    /// Bytes of all weights, which is all of a file but its header.
    pub fn weights(&self) -> u64 {
        let parts = [self.layers, self.head, self.per_layer, self.experts];
        parts.into_iter().fold(0, u64::saturating_add)
    }

    /// What it takes to run it like this.
    pub fn cost(&self, sizes: &Sizes, retention: &Retention) -> Cost {
        let packed_in_memory = retention.packed == PackedWeights::InMemory;
        let experts = if packed_in_memory {
            100
        } else {
            retention.experts.min(100)
        };
        Cost {
            packed_in_memory,
            layers: self.layers,
            head: self.head,
            experts: self.experts * experts / 100,
            per_layer: self.per_layer.min(retention.per_layer),
            kv: self.kv(sizes),
            checkpoints: self.checkpoints(sizes),
            buffers: self.buffers(sizes),
            tables: u64::from(self.tokens) * TOKEN
                + u64::from(self.merges) * MERGE
                + u64::from(sizes.ceiling) * u64::from(sizes.slots) * CELL,
            program: PROGRAM,
            code: CODE,
        }
    }

    /// Bytes that each token takes which a slot has beyond those that are counted: its keys and values in
    /// the layers that see everything, and what a step keeps of it.
    pub fn token_bytes(&self, sizes: &Sizes) -> u64 {
        let keys = kv_bytes(u64::from(self.global), sizes);
        keys + 2 * u64::from(sizes.batch) + USED_CELL
    }

    /// The KV cache: layers that see everything have a cell for each token of the context, sliding
    /// ones a ring that holds the window and a step (`llama-kv-cache-iswa.cpp`). `q8_0` has 34
    /// bytes for 32 numbers.
    fn kv(&self, sizes: &Sizes) -> u64 {
        let all = u64::from(sizes.context).next_multiple_of(CELLS);
        let numbers = u64::from(self.sliding) * self.ring(sizes) + u64::from(self.global) * all;
        kv_bytes(numbers, sizes) * u64::from(sizes.slots)
    }

    /// A checkpoint for each slot: the window of the sliding layers. The worker makes none that are
    /// larger than [`CHECKPOINT_MOST`].
    fn checkpoints(&self, sizes: &Sizes) -> u64 {
        let tokens = u64::from(self.window.min(sizes.ceiling));
        match kv_bytes(u64::from(self.sliding) * tokens, sizes) {
            bytes if bytes > CHECKPOINT_MOST => 0,
            bytes => bytes * u64::from(sizes.slots),
        }
    }

    /// What a step needs besides: what llama.cpp keeps at the same time for each of its tokens
    /// (found by comparing the buffers of E2B and 26B-A4B with their widths), which cells each
    /// token sees, and logits.
    fn buffers(&self, sizes: &Sizes) -> u64 {
        let width = u64::from(self.width);
        let dense =
            2 * u64::from(self.feed_forward) + 7 * width + 2 * u64::from(self.per_layer_numbers);
        let sparse = u64::from(self.experts_used) * 2 * width
            + if self.experts_used > 0 {
                self.feed_forward.into()
            } else {
                0
            };
        let mask = (self.ring(sizes) + u64::from(sizes.context).next_multiple_of(CELLS)) * 2;
        let logits = u64::from(self.tokens) * (LOGIT * u64::from(sizes.outputs()) + CANDIDATE);
        u64::from(sizes.batch) * ((dense + sparse) * 4 + mask) + logits
    }

    /// Cells of a sliding layer.
    fn ring(&self, sizes: &Sizes) -> u64 {
        u64::from(self.window + sizes.batch)
            .next_multiple_of(CELLS)
            .min(u64::from(sizes.ceiling).next_multiple_of(CELLS))
    }
}

/// Bytes of so many numbers of the KV cache.
fn kv_bytes(numbers: u64, sizes: &Sizes) -> u64 {
    if sizes.small_kv {
        numbers / 32 * 34
    } else {
        numbers * 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;

    /// Within 5 % of what was measured.
    fn is_near(found: u64, measured: u64) -> bool {
        found.abs_diff(measured) * 20 <= measured
    }

    fn e2b() -> ModelShape {
        ModelShape {
            layers: 1_056_856_204,
            head: 330_301_440,
            per_layer: 1_614_807_040,
            width: 1536,
            feed_forward: 12_288,
            per_layer_numbers: 8960,
            tokens: 262_144,
            merges: 514_906,
            window: 512,
            sliding: 6144,
            global: 3072,
            ..ModelShape::default()
        }
    }

    fn cost(shape: &ModelShape, context: u32, slots: u32, batch: u32, small_kv: bool) -> Cost {
        shape.cost(
            &Sizes {
                context,
                ceiling: context,
                slots,
                draft: 0,
                batch,
                small_kv,
            },
            &Retention {
                per_layer: 64 << 20,
                experts: 33,
                packed: PackedWeights::InFile,
            },
        )
    }

    /// llama.cpp's own numbers for a full-size E2B.
    #[test]
    fn the_cache_and_the_buffers_are_llama_cpps() {
        let mib = |hundredths: u64| hundredths * (1 << 20) / 100;
        for (context, slots, batch, kv, buffers) in [
            (4096, 1, 64, 3300, 1366),
            (4096, 1, 128, 3300, 2732),
            (4096, 1, 256, 3300, 5464),
            (4096, 1, 512, 3600, 10_953),
            (32_768, 1, 256, 20_100, 6864),
            (4096, 4, 256, 13_200, 5464),
        ] {
            let cost = cost(&e2b(), context, slots, batch, false);
            assert_eq!(cost.kv, mib(kv), "{context} {slots} {batch}");
            let logits = 262_144 * (4 * u64::from(slots) + 12);
            assert!(
                is_near(cost.buffers - logits, mib(buffers)),
                "{context} {slots} {batch}: {}",
                cost.buffers - logits
            );
        }
        assert_eq!(cost(&e2b(), 4096, 1, 256, true).kv, mib(3300) * 34 / 64);
    }

    /// RssAnon of the worker after prompts that fill a step.
    #[test]
    fn what_cannot_be_evicted_is_as_measured() {
        for (batch, measured) in [(128, 104 * MB), (256, 132 * MB), (512, 192 * MB)] {
            let cost = cost(&e2b(), 4096, 1, batch, false);
            // The prompts were no conversations that are gone back in.
            let found = cost.unevictable() - cost.checkpoints;
            assert!(is_near(found, measured), "{batch}: {found}");
        }
        let total = cost(&e2b(), 4096, 1, 256, false).total();
        // VmHWM of the same, less 64 MiB of Per-Layer Embeddings that so few tokens do not touch.
        assert!(is_near(total - (64 << 20), 1537 * MB), "{total}");
    }

    #[test]
    fn parts_are_counted_as_far_as_they_are_kept() {
        let shape = ModelShape {
            experts: 1000,
            per_layer: 10,
            ..e2b()
        };
        let cost = cost(&shape, 4096, 1, 256, false);
        assert_eq!((cost.experts, cost.per_layer), (330, 10));
    }

    #[test]
    fn weights_that_are_packed_in_memory_are_counted_whole() {
        let shape = ModelShape {
            experts: 1000,
            ..e2b()
        };
        let sizes = Sizes {
            context: 4096,
            ceiling: 4096,
            slots: 1,
            draft: 0,
            batch: 256,
            small_kv: false,
        };
        let cost = |packed| {
            let retention = Retention {
                per_layer: 0,
                experts: 33,
                packed,
            };
            shape.cost(&sizes, &retention)
        };
        let (file, memory) = (cost(PackedWeights::InFile), cost(PackedWeights::InMemory));
        assert_eq!(memory.experts, 1000);
        assert_eq!(memory.total(), file.total() + 670);
        let weights = shape.layers + 1000;
        assert_eq!(memory.unevictable(), file.unevictable() + weights);
        assert_eq!(cost(PackedWeights::Nowhere), file);
    }
}
