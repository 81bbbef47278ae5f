//! Brings one streamed answer to the user.

use std::io::Write;

use serde_json::Value;

use super::client::Client;
use super::error::Error;
use super::text::Printer;
use super::wire::{self, CallPiece};

/// Prints the answer to `body` as it comes. `text` gathers what was said, for those who stop it
/// midway. Returns why it ended.
///
/// # Errors
/// Whatever keeps the answer from its end; the text up to there has been printed.
pub async fn stream<O: Write, E: Write>(
    client: &dyn Client,
    body: &Value,
    thoughts: bool,
    printer: &mut Printer<O, E>,
    text: &mut String,
) -> Result<Option<String>, Error> {
    let mut events = client.stream(body).await?;
    let mut finish = None;
    while let Some(data) = events.next().await? {
        if data == "[DONE]" {
            return Ok(finish);
        }
        let piece = wire::piece(&data)?;
        if let Some(thought) = piece
            .thought
            .filter(|thought| thoughts && !thought.is_empty())
        {
            printer.thought(&thought).map_err(Error::from_output)?;
        }
        if let Some(piece) = piece.text.filter(|text| !text.is_empty()) {
            printer.text(&piece).map_err(Error::from_output)?;
            text.push_str(&piece);
        }
        for CallPiece { name, arguments } in piece.calls {
            let line = name
                .map(|name| format!("{}{name} ", if text.is_empty() { "" } else { "\n" }))
                .unwrap_or_default()
                + &arguments;
            printer.text(&line).map_err(Error::from_output)?;
            text.push_str(&line);
        }
        finish = piece.finish.or(finish);
    }
    Err(Error::Broken {
        cause: "the answer has no end".into(),
    })
}

/// What to remark about an answer that ended this way; nothing where it simply ended.
pub fn remark(finish: Option<&str>) -> Option<&'static str> {
    match finish {
        Some("length") => Some("(cut: the limit of tokens or the context is reached)"),
        _ => None,
    }
}
