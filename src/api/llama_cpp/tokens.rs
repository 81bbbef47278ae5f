//! `/tokenize` and `/detokenize`, in the shape of llama.cpp's server and in that of vLLM's.

use axum::body::Bytes;
use serde::Serialize;

use crate::api::openai::common;
use crate::api::parse::Invalid;
use crate::api::parse::json;
use crate::api::render;
use crate::chat::MAX_TEXT_BYTES;

/// What a text is turned into tokens for.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenizeCall {
    pub model: String,
    pub text: String,
    pub begin: bool,
    pub control: bool,
    /// Whether the tokens' own texts are wanted as well.
    pub pieces: bool,
}

/// The body of `/tokenize`. vLLM's clients call the text `prompt`, and mean one that begins like
/// every prompt.
pub fn tokenize(body: &[u8]) -> Result<TokenizeCall, Invalid> {
    let mut object = json::body(body)?;
    let model = common::model(&mut object)?;
    let prompt = object.take("prompt");
    let is_prompt = prompt.is_some();
    let content = match prompt {
        Some(prompt) => prompt,
        None => object.need("content")?,
    };
    let text = content.string()?;
    if text.len() > MAX_TEXT_BYTES {
        return content.wrong(format!(
            "has {} bytes; at most {} are allowed",
            text.len(),
            MAX_TEXT_BYTES
        ));
    }
    let mut switch = |name, default| object.take(name).map_or(Ok(default), |on| on.boolean());
    let begins = match is_prompt {
        true => switch("add_special_tokens", true)?,
        false => switch("add_special", false)?,
    };
    let (begin, control, pieces) = (
        begins,
        switch("parse_special", true)?,
        switch("with_pieces", false)?,
    );
    if let Some(strings) = object.take("return_token_strs")
        && strings.boolean()?
    {
        return strings.wrong("can only be false: `with_pieces` tells what tokens stand for");
    }
    object.finish()?;
    Ok(TokenizeCall {
        model,
        text,
        begin,
        control,
        pieces,
    })
}

/// The body of `/detokenize`: the model and the tokens.
pub fn detokenize(body: &[u8]) -> Result<(String, Vec<u32>), Invalid> {
    let mut object = json::body(body)?;
    let model = common::model(&mut object)?;
    let tokens = object.need("tokens")?.numbers()?;
    object.finish()?;
    Ok((model, tokens))
}

/// What clients of vLLM's tokenizer ask for before they use it: the control tokens that frame texts.
#[derive(Debug, Serialize)]
pub struct TokenizerInfo {
    bos_token: &'static str,
    eos_token: &'static str,
    pad_token: &'static str,
    unk_token: &'static str,
}

/// Those of the family.
pub const INFO: TokenizerInfo = TokenizerInfo {
    bos_token: "<bos>",
    eos_token: "<eos>",
    pad_token: "<pad>",
    unk_token: "<unk>",
};

/// Tokens that are rendered at a time.
const AT_A_TIME: usize = 512;

/// Tokens on their way to the client, packed: at most nine bytes for each, and the text.
#[derive(Debug)]
pub struct TokenList {
    ids: Vec<u32>,
    /// What they stand for, one behind the other, and where each ends; empty if it is not wanted.
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl TokenList {
    /// `pieces`: whether what they stand for is wanted.
    pub fn new(tokens: Vec<(u32, Vec<u8>)>, pieces: bool) -> Self {
        let mut list = Self {
            ids: Vec::with_capacity(tokens.len()),
            bytes: vec![],
            ends: vec![],
        };
        if pieces {
            list.bytes
                .reserve_exact(tokens.iter().map(|(_, bytes)| bytes.len()).sum());
            list.ends.reserve_exact(tokens.len());
        }
        for (id, bytes) in tokens {
            list.ids.push(id);
            if pieces {
                list.bytes.extend_from_slice(&bytes);
                list.ends.push(list.bytes.len() as u32);
            }
        }
        list
    }

    /// The body of the answer, some tokens at a time.
    pub fn json(self) -> impl Iterator<Item = Bytes> {
        let (mut next, count) = (0, self.ids.len());
        let lists = std::iter::from_fn(move || {
            let from = next;
            next = self.ids.len().min(from + AT_A_TIME);
            (from < next).then(|| self.some(from, next).into())
        });
        [Bytes::from_static(br#"{"tokens":["#)]
            .into_iter()
            .chain(lists)
            .chain([format!("],\"count\":{count}}}").into()])
    }

    fn some(&self, from: usize, to: usize) -> String {
        let mut out = String::new();
        for (i, &id) in self.ids.iter().enumerate().take(to).skip(from) {
            if i > 0 {
                out.push(',');
            }
            match self.ends.get(i) {
                Some(&end) => {
                    let start = i.checked_sub(1).map_or(0, |before| self.ends[before]);
                    let piece = Text::of(&self.bytes[start as usize..end as usize]);
                    out.push_str(&render(&PieceOut { id, piece }));
                }
                None => out.push_str(&id.to_string()),
            }
        }
        out
    }
}

#[derive(Debug, Serialize)]
struct PieceOut<'a> {
    id: u32,
    piece: Text<'a>,
}

/// Bytes as a string where they are one.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Text<'a> {
    Characters(&'a str),
    Bytes(&'a [u8]),
}

impl<'a> Text<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        std::str::from_utf8(bytes).map_or(Self::Bytes(bytes), Self::Characters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_tokens_come_some_at_a_time() {
        let tokens: Vec<(u32, Vec<u8>)> = (0..2 * AT_A_TIME as u32 + 1)
            .map(|id| {
                (
                    id,
                    if id == 1 {
                        vec![0xe2]
                    } else {
                        id.to_string().into()
                    },
                )
            })
            .collect();
        for (tokens, pieces) in [(&tokens[..], true), (&tokens[..], false), (&[], true)] {
            let parts: Vec<Bytes> = TokenList::new(tokens.to_vec(), pieces).json().collect();
            assert_eq!(parts.len(), 2 + tokens.len().div_ceil(AT_A_TIME));
            let expected: Vec<serde_json::Value> = tokens
                .iter()
                .map(|(id, _)| match (pieces, id) {
                    (false, _) => serde_json::json!(id),
                    (true, 1) => serde_json::json!({"id": 1, "piece": [0xe2]}),
                    (true, _) => serde_json::json!({"id": id, "piece": id.to_string()}),
                })
                .collect();
            let json: serde_json::Value = serde_json::from_slice(&parts.concat()).unwrap();
            assert_eq!(
                json,
                serde_json::json!({"tokens": expected, "count": expected.len()})
            );
        }
    }

    #[test]
    fn texts_and_tokens() {
        let call = tokenize(br#"{"content":"hi","add_special":true,"with_pieces":true}"#).unwrap();
        assert_eq!(
            call,
            TokenizeCall {
                model: "auto".into(),
                text: "hi".into(),
                begin: true,
                control: true,
                pieces: true
            }
        );
        let begins = |body: &[u8]| tokenize(body).unwrap().begin;
        assert!(begins(br#"{"prompt":"hi"}"#));
        assert!(!begins(
            br#"{"prompt":"hi","add_special_tokens":false,"return_token_strs":false}"#
        ));
        json::assert_refused(
            tokenize,
            &[
                (r#"{"content":7}"#, "content"),
                (r#"{"prompt":7}"#, "prompt"),
                (r#"{"prompt":"a","content":"a"}"#, "content"),
                (
                    r#"{"prompt":"a","return_token_strs":true}"#,
                    "return_token_strs",
                ),
                (
                    r#"{"content":"a","add_special_tokens":true}"#,
                    "add_special_tokens",
                ),
            ],
        );
        assert_eq!(
            detokenize(br#"{"tokens":[1, 262143]}"#).unwrap().1,
            [1, 262_143]
        );
        for bad in [
            r#"{"tokens":"a"}"#,
            r#"{"tokens":[-1]}"#,
            r#"{"tokens":[1.5]}"#,
            r#"{"tokens":[4294967296]}"#,
        ] {
            assert_eq!(
                detokenize(bad.as_bytes()).unwrap_err().field,
                "tokens",
                "{bad}"
            );
        }
        let long = format!(r#"{{"tokens":[{}0]}}"#, "0,".repeat(json::MAX_NUMBERS));
        assert!(
            detokenize(long.as_bytes())
                .unwrap_err()
                .reason
                .contains("262144")
        );
    }
}
