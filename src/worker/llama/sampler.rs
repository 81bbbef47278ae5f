//! Sampling: how the next token is chosen by the logits.

use std::ptr::NonNull;

use llama_cpp_sys_2 as sys;

use super::Token;
use crate::chat::{ChatError, Sampling};

/// Tokens of the answer that the penalties look back at.
const PENALTY_WINDOW: i32 = 64;
/// Temperatures below this mean greedy sampling: dividing by them would overflow.
const GREEDY: f32 = 1e-4;

/// Why no token can be sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoToken {
    /// The logits are not numbers that can be sampled from, whatever was asked: the weights are
    /// damaged.
    Unsound,
    /// What was asked leaves none.
    NoneLeft,
}

impl From<NoToken> for ChatError {
    fn from(error: NoToken) -> Self {
        match error {
            NoToken::Unsound => Self::Unsound,
            NoToken::NoneLeft => Self::Inference {
                reason: "no token may follow".to_owned(),
            },
        }
    }
}

/// Room for one candidate per token of the vocabulary (3 MB for Gemma), shared by all samplers.
pub struct Candidates(Vec<sys::llama_token_data>);

impl Candidates {
    pub fn new(vocabulary: usize) -> Self {
        Self(Vec::with_capacity(vocabulary))
    }
}

/// What may be sampled.
#[derive(Clone, Copy, Debug)]
pub enum Allowed<'a> {
    /// Every token but these.
    Except(&'a [Token]),
    /// Tokens with a bit in the mask (the first token's is the lowest of the first word), and
    /// these.
    Only { mask: &'a [u32], also: &'a [Token] },
}

/// The sampler of one answer: its own random numbers and its own memory of what was sampled.
pub struct Sampler {
    /// `None` when the likeliest token is all that is wanted.
    chain: Option<Chain>,
    bias: Vec<(Token, f32)>,
}

impl Sampler {
    /// The order is llama.cpp's: bias, penalties, top-k, top-p, min-p, temperature, distribution. `seed` is
    /// used as it is; every token of `sampling.logit_bias` must be in the vocabulary. `None` if
    /// llama.cpp has no memory.
    pub fn new(sampling: &Sampling, seed: u32, vocabulary: usize) -> Option<Self> {
        let bias = sampling
            .logit_bias
            .iter()
            .map(|&(token, bias)| (token as Token, bias))
            .collect();
        let greedy = sampling.temperature < GREEDY;
        let penalties = sampling.repeat_penalty != 1.0
            || sampling.frequency_penalty != 0.0
            || sampling.presence_penalty != 0.0;
        if greedy && !penalties {
            return Some(Self { chain: None, bias });
        }
        let size = vocabulary as i32;
        let mut chain = Chain::new()?;
        // SAFETY: each function makes a sampler from plain numbers; the chain takes it over.
        unsafe {
            if penalties {
                chain.add(sys::llama_sampler_init_penalties(
                    size,
                    PENALTY_WINDOW,
                    sampling.repeat_penalty,
                    sampling.frequency_penalty,
                    sampling.presence_penalty,
                ))?;
            }
            if greedy {
                chain.add(sys::llama_sampler_init_greedy())?;
                return Some(Self {
                    chain: Some(chain),
                    bias,
                });
            }
            if sampling.top_k > 0 {
                chain.add(sys::llama_sampler_init_top_k(
                    i32::try_from(sampling.top_k).unwrap_or(size).min(size),
                ))?;
            }
            if sampling.top_p < 1.0 {
                chain.add(sys::llama_sampler_init_top_p(sampling.top_p, 1))?;
            }
            if sampling.min_p > 0.0 {
                chain.add(sys::llama_sampler_init_min_p(sampling.min_p, 1))?;
            }
            chain.add(sys::llama_sampler_init_temp(sampling.temperature))?;
            // llama.cpp takes the largest number for "a random seed", which would not repeat.
            let seed = seed.min(u32::MAX - 1);
            chain.add(sys::llama_sampler_init_dist(seed))?;
        }
        Some(Self {
            chain: Some(chain),
            bias,
        })
    }

    /// Samples an allowed token from `row` and remembers it. Tokens of `never` are not sampled, even if
    /// they are allowed.
    pub fn sample(
        &mut self,
        row: &[f32],
        allowed: Allowed<'_>,
        never: &[Token],
        room: &mut Candidates,
    ) -> Result<Token, NoToken> {
        let data = &mut room.0;
        data.clear();
        let mut sound = true;
        let entry = |id: usize, logit: f32| sys::llama_token_data {
            id: id as Token,
            logit,
            p: 0.0,
        };
        data.extend(row.iter().enumerate().map(|(id, &logit)| {
            sound &= logit < f32::INFINITY;
            entry(id, logit)
        }));
        if !sound {
            return Err(NoToken::Unsound);
        }
        for &(token, bias) in &self.bias {
            if let Some(entry) = data.get_mut(token as usize) {
                entry.logit += bias;
            }
        }
        self.choose(allowed, never, data)
    }

    /// Remembers `token`, and draws what [`Sampler::sample`] would, where that alone may be sampled.
    pub fn take_only(&mut self, token: Token, room: &mut Candidates) -> Result<(), NoToken> {
        let data = &mut room.0;
        data.clear();
        data.push(sys::llama_token_data {
            id: token,
            logit: 0.0,
            p: 0.0,
        });
        match &mut self.chain {
            None => Some(token),
            Some(chain) => chain.sample(data),
        }
        .map(drop)
        .ok_or(NoToken::NoneLeft)
    }

    /// Samples from `data`, which has an entry for each token of the vocabulary.
    fn choose(
        &mut self,
        allowed: Allowed<'_>,
        never: &[Token],
        data: &mut Vec<sys::llama_token_data>,
    ) -> Result<Token, NoToken> {
        let banned = if let Allowed::Except(banned) = allowed {
            banned
        } else {
            &[]
        };
        for &token in never.iter().chain(banned) {
            if let Some(entry) = data.get_mut(token as usize) {
                entry.logit = f32::NEG_INFINITY;
            }
        }
        if let Allowed::Only { mask, also } = allowed {
            data.retain(|entry| {
                let bits = mask.get(entry.id as usize / 32).unwrap_or(&0);
                (bits >> (entry.id % 32) & 1 == 1 || also.contains(&entry.id))
                    && entry.logit > f32::NEG_INFINITY
            });
            if data.is_empty() {
                return Err(NoToken::NoneLeft);
            }
        }
        match &mut self.chain {
            None => likeliest(data),
            Some(chain) => chain.sample(data),
        }
        .ok_or(NoToken::NoneLeft)
    }
}

/// The first of the likeliest tokens, unless all are banned.
fn likeliest(data: &[sys::llama_token_data]) -> Option<Token> {
    let mut best = data.first()?;
    for entry in data {
        if entry.logit > best.logit {
            best = entry;
        }
    }
    (best.logit > f32::NEG_INFINITY).then_some(best.id)
}

/// A chain of llama.cpp's samplers.
struct Chain(NonNull<sys::llama_sampler>);

impl Chain {
    fn new() -> Option<Self> {
        // SAFETY: plain data in, an owned chain out.
        let raw = unsafe {
            sys::llama_sampler_chain_init(sys::llama_sampler_chain_params { no_perf: true })
        };
        NonNull::new(raw).map(Self)
    }

    /// # Safety
    /// `sampler` is null or owned by no one else.
    unsafe fn add(&mut self, sampler: *mut sys::llama_sampler) -> Option<()> {
        if sampler.is_null() {
            return None;
        }
        // SAFETY: both are alive, and the chain frees what it was given.
        unsafe { sys::llama_sampler_chain_add(self.0.as_ptr(), sampler) };
        Some(())
    }

    fn sample(&mut self, data: &mut [sys::llama_token_data]) -> Option<Token> {
        let mut array = sys::llama_token_data_array {
            data: data.as_mut_ptr(),
            size: data.len(),
            selected: -1,
            sorted: false,
        };
        // SAFETY: the array describes `data`, which the chain may reorder but not outgrow.
        unsafe { sys::llama_sampler_apply(self.0.as_ptr(), &mut array) };
        let selected = usize::try_from(array.selected)
            .ok()
            .filter(|&selected| selected < array.size)?;
        // SAFETY: samplers may point `data` elsewhere, but `selected` is below the size they left.
        let token = unsafe { (*array.data.add(selected)).id };
        // SAFETY: the chain is alive.
        unsafe { sys::llama_sampler_accept(self.0.as_ptr(), token) };
        Some(token)
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        // SAFETY: the chain is ours and goes with everything in it.
        unsafe { sys::llama_sampler_free(self.0.as_ptr()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(
        sampling: &Sampling,
        seed: u32,
        row: &[f32],
        banned: &[Token],
        count: usize,
    ) -> Vec<Token> {
        let mut sampler = Sampler::new(sampling, seed, row.len()).unwrap();
        let mut room = Candidates::new(row.len());
        (0..count)
            .map(|_| {
                sampler
                    .sample(row, Allowed::Except(banned), &[], &mut room)
                    .unwrap()
            })
            .collect()
    }

    fn greedy() -> Sampling {
        Sampling {
            temperature: 0.0,
            ..Sampling::default()
        }
    }

    #[test]
    fn temperature_zero_takes_the_likeliest_that_is_not_banned() {
        let row = [0.5, 3.0, 2.0, 3.0];
        assert_eq!(samples(&greedy(), 1, &row, &[], 1), [1]);
        assert_eq!(samples(&greedy(), 1, &row, &[1, 3], 1), [2]);
    }

    #[test]
    fn bias_and_penalties_change_the_likeliest() {
        let row = [0.0, 3.0, 2.9];
        assert_eq!(
            samples(
                &Sampling {
                    logit_bias: vec![(0, 5.0)],
                    ..greedy()
                },
                1,
                &row,
                &[],
                1
            ),
            [0]
        );
        assert_eq!(
            samples(
                &Sampling {
                    frequency_penalty: 1.0,
                    ..greedy()
                },
                1,
                &row,
                &[],
                4
            ),
            [1, 2, 1, 2]
        );
    }

    #[test]
    fn a_seed_repeats_and_the_largest_one_too() {
        let row: Vec<f32> = (0..50).map(|i| (i % 7) as f32 / 3.0).collect();
        for seed in [1, u32::MAX] {
            let first = samples(&Sampling::default(), seed, &row, &[], 40);
            assert_eq!(first, samples(&Sampling::default(), seed, &row, &[], 40));
            assert!(first.iter().any(|&token| token != first[0]));
        }
        assert_ne!(
            samples(&Sampling::default(), 1, &row, &[], 40),
            samples(&Sampling::default(), 2, &row, &[], 40)
        );
    }

    #[test]
    fn cuts_keep_the_best() {
        let row = [1.0, 1.1, 1.2, 1.3];
        let usual = Sampling::default;
        for cut in [
            Sampling {
                top_k: 1,
                ..usual()
            },
            Sampling {
                top_p: 0.0,
                ..usual()
            },
            Sampling {
                min_p: 1.0,
                ..usual()
            },
        ] {
            assert_eq!(samples(&cut, 3, &row, &[], 20), [3; 20], "{cut:?}");
        }
    }

    #[test]
    fn what_is_no_number_is_an_error() {
        for row in [[f32::NAN, 1.0], [1.0, f32::INFINITY]] {
            let mut sampler = Sampler::new(&Sampling::default(), 1, 2).unwrap();
            assert_eq!(
                sampler.sample(&row, Allowed::Except(&[]), &[], &mut Candidates::new(2)),
                Err(NoToken::Unsound)
            );
        }
    }

    #[test]
    fn only_what_is_allowed_is_sampled() {
        let row: Vec<f32> = (0..70).map(|i| i as f32).collect();
        let sample = |mask: &[u32], also: &[Token], never: &[Token]| {
            let sampling = Sampling {
                temperature: 2.0,
                top_k: 0,
                top_p: 1.0,
                ..Sampling::default()
            };
            let mut sampler = Sampler::new(&sampling, 1, row.len()).unwrap();
            sampler.sample(
                &row,
                Allowed::Only { mask, also },
                never,
                &mut Candidates::new(row.len()),
            )
        };
        assert_eq!(sample(&[1 << 5, 0, 0], &[], &[]), Ok(5));
        assert_eq!(sample(&[], &[69], &[]), Ok(69));
        assert_eq!(sample(&[1 << 5, 1 << 31], &[], &[63]), Ok(5));
        assert_eq!(sample(&[1 << 5], &[], &[5]), Err(NoToken::NoneLeft));
        assert_eq!(sample(&[], &[], &[]), Err(NoToken::NoneLeft));
    }

    #[test]
    fn nothing_left_is_an_error() {
        let mut sampler = Sampler::new(&greedy(), 1, 2).unwrap();
        assert_eq!(
            sampler.sample(
                &[1.0, 2.0],
                Allowed::Except(&[0]),
                &[1],
                &mut Candidates::new(2)
            ),
            Err(NoToken::NoneLeft)
        );
    }
}
