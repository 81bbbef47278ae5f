//! What a model would be given, for people to read. Pure.

use std::fmt::Write;

use serde::Deserialize;
use serde_json::Value;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Input {
    model: String,
    context_tokens: u64,
    prompt_tokens: u64,
    prompt: String,
    media: Vec<Medium>,
    files: Vec<ReadFile>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Medium {
    r#type: String,
    width: u64,
    height: u64,
    tokens: u64,
    seconds: f64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ReadFile {
    name: String,
    pages: u64,
    read: u64,
    whole: bool,
    encoding: Option<String>,
    content: Vec<Page>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Page {
    page: u64,
    text_bytes: u64,
    picture: String,
    why: Option<String>,
    skipped_because: Option<String>,
}

impl Page {
    /// What of it the model gets.
    fn fate(&self) -> String {
        let text = match self.text_bytes {
            0 => "no text",
            _ => "text",
        };
        let mut fate = match self.picture.as_str() {
            "shown" => format!("{text}, and shown as a picture"),
            "skipped" => format!("{text}, not shown"),
            _ => text.to_owned(),
        };
        for reason in self.why.iter().chain(&self.skipped_because) {
            // Writing into a string does not fail.
            let _ = write!(fate, "; {reason}");
        }
        fate
    }
}

/// The answer of `POST /v1/chat/completions/input`: the files page by page, pages alike together, the
/// pictures and sounds, and the prompt.
pub fn shown(input: &Value) -> String {
    let input = Input::deserialize(input).unwrap_or_default();
    let mut out = String::new();
    for file in &input.files {
        let whole = if file.whole { "" } else { ", not whole" };
        let encoding = file.encoding.iter().map(|name| format!(", {name}"));
        let line = format!(
            "{}: {} of {} pages read{whole}{}\n",
            name(&file.name),
            file.read,
            file.pages,
            encoding.collect::<String>()
        );
        out += &line;
        let mut pages = file.content.iter().peekable();
        while let Some(first) = pages.next() {
            let (fate, mut last) = (first.fate(), first);
            while let Some(next) = pages.next_if(|next| next.fate() == fate) {
                last = next;
            }
            out += &match first.page == last.page {
                true => format!("  page {}: {fate}\n", first.page),
                false => format!("  pages {} to {}: {fate}\n", first.page, last.page),
            };
        }
    }
    for (number, medium) in (1..).zip(&input.media) {
        out += &match medium.r#type.as_str() {
            "image" => format!(
                "medium {number}: picture, {} x {} pixels, {} tokens\n",
                medium.width, medium.height, medium.tokens
            ),
            _ => format!("medium {number}: sound, {:.1} s\n", medium.seconds),
        };
    }
    out += &format!(
        "prompt for {}: {} tokens of {}\n\n{}\n",
        input.model, input.prompt_tokens, input.context_tokens, input.prompt
    );
    out
}

/// What a file is called.
fn name(name: &str) -> &str {
    match name {
        "" => "file",
        name => name,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pages_alike_are_one_line() {
        let page = |page: u32, bytes: u32, picture: &str| json!({"page": page, "text_bytes": bytes, "picture": picture});
        let skipped = json!({
            "page": 4, "text_bytes": 7, "picture": "skipped",
            "why": "the page has hardly any text", "skipped_because": "the context has no room",
        });
        let input = json!({
            "model": "m", "context_tokens": 4096, "prompt_tokens": 300, "prompt": "<bos>hello",
            "media": [
                {"type": "image", "width": 480, "height": 672, "tokens": 140},
                {"type": "audio", "seconds": 1.25},
            ],
            "files": [
                {"name": "a.pdf", "pages": 9, "read": 4, "whole": false,
                    "content": [page(1, 5, "none"), page(2, 6, "none"), page(3, 0, "shown"), skipped]},
                {"name": "", "pages": 1, "read": 1, "whole": true, "encoding": "Shift_JIS", "content": [page(1, 2, "none")]},
            ],
        });
        let expected = "a.pdf: 4 of 9 pages read, not whole\n  \
            pages 1 to 2: text\n  \
            page 3: no text, and shown as a picture\n  \
            page 4: text, not shown; the page has hardly any text; the context has no room\n\
            file: 1 of 1 pages read, Shift_JIS\n  \
            page 1: text\n\
            medium 1: picture, 480 x 672 pixels, 140 tokens\n\
            medium 2: sound, 1.2 s\n\
            prompt for m: 300 tokens of 4096\n\n<bos>hello\n";
        assert_eq!(shown(&input), expected);
        assert_eq!(shown(&json!({})), "prompt for : 0 tokens of 0\n\n\n");
    }
}
