//! Log-probabilities from raw logits: natural logarithms over the whole vocabulary.

use super::llama::Token;
use super::vocab::Vocab;
use crate::chat::TokenLogprob;

/// The log-probability of `sampled`, and the `count` likeliest tokens with theirs, likeliest first.
/// `sampled` must be in the vocabulary.
pub fn of(row: &[f32], sampled: usize, count: usize) -> (f32, Vec<(usize, f32)>) {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row.iter().map(|&logit| f64::from(logit - max).exp()).sum();
    let norm = f64::from(max) + sum.ln();
    let log = |logit: f32| (f64::from(logit) - norm) as f32;
    let top = likeliest(row, count)
        .into_iter()
        .map(|token| (token, log(row[token])))
        .collect();
    (
        row.get(sampled)
            .map_or(f32::NEG_INFINITY, |&logit| log(logit)),
        top,
    )
}

/// The same as it is told to clients: tokens as their bytes.
pub fn told(row: &[f32], token: Token, count: u8, vocab: Vocab) -> TokenLogprob {
    let (logprob, top) = of(row, token as usize, count as usize);
    let top = top
        .into_iter()
        .map(|(token, logprob)| (vocab.bytes(token as Token), logprob))
        .collect();
    TokenLogprob {
        bytes: vocab.bytes(token),
        logprob,
        top,
    }
}

/// Indices of the `count` largest, largest first; of equals the first.
fn likeliest(row: &[f32], count: usize) -> Vec<usize> {
    let mut best: Vec<usize> = Vec::with_capacity(count + 1);
    if count == 0 {
        return best;
    }
    for (index, &logit) in row.iter().enumerate() {
        if best.len() == count && logit <= row[best[count - 1]] {
            continue;
        }
        let place = best.partition_point(|&other| row[other] >= logit);
        best.insert(place, index);
        best.truncate(count);
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_of_all_sum_to_one() {
        let row = [1.0, -2.0, 30.0, 29.0, 0.0];
        let (sampled, top) = of(&row, 3, 5);
        let sum: f64 = top.iter().map(|&(_, log)| f64::from(log).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{sum}");
        assert_eq!(
            top.iter().map(|&(token, _)| token).collect::<Vec<_>>(),
            [2, 3, 0, 4, 1]
        );
        assert_eq!(sampled, top[1].1);
    }

    #[test]
    fn a_known_case() {
        let (sampled, top) = of(&[0.0, 3f32.ln()], 0, 1);
        assert!((sampled - 0.25f32.ln()).abs() < 1e-6);
        assert_eq!(top.len(), 1);
        assert!((top[0].1 - 0.75f32.ln()).abs() < 1e-6);
    }

    #[test]
    fn none_are_asked_for() {
        assert_eq!(of(&[0.0, 0.0], 1, 0).1, []);
    }
}
