//! `/tokenize` and `/detokenize`, in the shape of llama.cpp's server.

use serde::Serialize;

use crate::api::openai::common;
use crate::api::parse::Invalid;
use crate::api::parse::json;
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

/// The body of `/tokenize`, in the shape of llama.cpp's server.
pub fn tokenize(body: &[u8]) -> Result<TokenizeCall, Invalid> {
    let mut object = json::body(body)?;
    let model = common::model(&mut object)?;
    let content = object.need("content")?;
    let text = content.string()?;
    if text.len() > MAX_TEXT_BYTES {
        return content.wrong(format!(
            "has {} bytes; at most {} are allowed",
            text.len(),
            MAX_TEXT_BYTES
        ));
    }
    let mut switch = |name, default| object.take(name).map_or(Ok(default), |on| on.boolean());
    let (begin, control, pieces) = (
        switch("add_special", false)?,
        switch("parse_special", true)?,
        switch("with_pieces", false)?,
    );
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

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum TokensOut {
    Ids(Vec<u32>),
    Pieces(Vec<PieceOut>),
}

#[derive(Debug, Serialize)]
pub struct PieceOut {
    pub id: u32,
    pub piece: Text,
}

/// Bytes as a string where they are one.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Text {
    Characters(String),
    Bytes(Vec<u8>),
}

impl From<Vec<u8>> for Text {
    fn from(bytes: Vec<u8>) -> Self {
        String::from_utf8(bytes)
            .map_or_else(|error| Self::Bytes(error.into_bytes()), Self::Characters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(tokenize(br#"{"content":7}"#).unwrap_err().field, "content");
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
