//! What comes of a text to go on with: an answer, or chunks of one.

use serde::{Serialize, Serializer};

use crate::api::openai::chat::response::{
    FinishDetails, FinishOut, Head, TimingsOut, UNLIKELY, UsageOut,
};
use crate::chat::{PromptToken, TokenLogprob};

pub const OBJECT: &str = "text_completion";

/// An answer, or a chunk of one.
#[derive(Debug, Serialize)]
pub struct Completion<'a> {
    #[serde(flatten)]
    pub head: &'a Head,
    pub object: &'static str,
    pub choices: &'a [Choice<'a>],
    /// Absent from chunks unless asked for; then null in all but the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Option<UsageOut>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timings: Option<TimingsOut>,
}

#[derive(Debug, Serialize)]
pub struct Choice<'a> {
    pub index: u32,
    pub text: &'a str,
    pub logprobs: Option<Logprobs<'a>>,
    pub finish_reason: Option<FinishOut>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finish_details: Option<FinishDetails>,
}

/// This endpoint's own shape: one list for each property.
#[derive(Debug, Default, Serialize)]
pub struct Logprobs<'a> {
    tokens: Vec<String>,
    /// Null for a token with nothing before it.
    token_logprobs: Vec<Option<f32>>,
    top_logprobs: Vec<Option<Rivals<'a>>>,
    /// Characters of the answer before each token.
    text_offset: Vec<usize>,
}

/// An object from token to log-probability.
#[derive(Debug)]
struct Rivals<'a>(&'a [(Vec<u8>, f32)]);

impl<'a> Logprobs<'a> {
    /// `offset`: characters before the first of these tokens; it is moved behind the last.
    pub fn new(prompt: &'a [PromptToken], drawn: &'a [TokenLogprob], offset: &mut usize) -> Self {
        let mut lists = Self::default();
        for PromptToken {
            bytes,
            logprob,
            top,
        } in prompt
        {
            lists.push(bytes, *logprob, top, offset);
        }
        for TokenLogprob {
            bytes,
            logprob,
            top,
        } in drawn
        {
            lists.push(bytes, Some(*logprob), top, offset);
        }
        lists
    }

    fn push(
        &mut self,
        bytes: &[u8],
        logprob: Option<f32>,
        top: &'a [(Vec<u8>, f32)],
        offset: &mut usize,
    ) {
        self.tokens
            .push(String::from_utf8_lossy(bytes).into_owned());
        self.token_logprobs.push(logprob.map(finite));
        self.top_logprobs.push(logprob.map(|_| Rivals(top)));
        self.text_offset.push(*offset);
        // Bytes that begin a character: a token may hold a part of one.
        *offset += bytes.iter().filter(|byte| **byte & 0xc0 != 0x80).count();
    }
}

impl Serialize for Rivals<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(
            self.0
                .iter()
                .map(|(token, logprob)| (String::from_utf8_lossy(token), finite(*logprob))),
        )
    }
}

fn finite(logprob: f32) -> f32 {
    if logprob.is_finite() {
        logprob
    } else {
        UNLIKELY
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn logprobs_are_lists() {
        let token = |bytes: &[u8]| TokenLogprob {
            bytes: bytes.into(),
            logprob: -0.5,
            top: vec![(b"a".to_vec(), f32::NEG_INFINITY)],
        };
        let tokens = [
            token("né".as_bytes()),
            token(&[0xc3]),
            token(&[0xa9]),
            token(b"x"),
        ];
        assert_eq!(
            serde_json::to_value(Logprobs::new(&[], &tokens, &mut 0)).unwrap(),
            json!({"tokens": ["né", "\u{fffd}", "\u{fffd}", "x"], "token_logprobs": [-0.5, -0.5, -0.5, -0.5],
                "top_logprobs": [{"a": -9999.0}, {"a": -9999.0}, {"a": -9999.0}, {"a": -9999.0}], "text_offset": [0, 2, 3, 3]})
        );
    }

    #[test]
    fn a_prompts_tokens_come_first() {
        let first = PromptToken {
            bytes: b"On".to_vec(),
            logprob: None,
            top: vec![],
        };
        let second = PromptToken {
            bytes: b"ce".to_vec(),
            logprob: Some(-2.0),
            top: vec![(b"ly".to_vec(), -1.0)],
        };
        let drawn = TokenLogprob {
            bytes: b" upon".to_vec(),
            logprob: -3.0,
            top: vec![],
        };
        assert_eq!(
            serde_json::to_value(Logprobs::new(&[first, second], &[drawn], &mut 0)).unwrap(),
            json!({"tokens": ["On", "ce", " upon"], "token_logprobs": [null, -2.0, -3.0],
                "top_logprobs": [null, {"ly": -1.0}, {}], "text_offset": [0, 2, 4]})
        );
    }
}
