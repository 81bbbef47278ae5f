//! Notebooks of Jupyter: cells in their order, with what running them gave.

use serde_json::Value;

use super::blocks::Blocks;
use super::{Pages, encoding};
use crate::ipc::Sight;

/// Reads the file as a notebook if it is one, else as text.
pub fn read(bytes: &[u8], pages: &mut Pages<'_>) -> Result<u32, String> {
    let decoded = encoding::text(bytes).ok_or("is no text, and so no notebook")?;
    let notebook = serde_json::from_str(&decoded.text).unwrap_or(Value::Null);
    let cells = match notebook["nbformat"].as_u64() {
        Some(4..) => notebook["cells"].as_array(),
        Some(_) => notebook["worksheets"][0]["cells"].as_array(),
        None => None,
    };
    let Some(cells) = cells else {
        pages.encoding = Some(decoded.encoding);
        pages.push(decoded.text, Sight::Told);
        return Ok(1);
    };
    let metadata = &notebook["metadata"];
    let language = metadata["language_info"]["name"].as_str();
    let language = language
        .or(metadata["kernelspec"]["language"].as_str())
        .unwrap_or_default();
    let mut out = Blocks::default();
    for cell in cells {
        if out.is_full() {
            out.cut = true;
            break;
        }
        self::cell(cell, language, &mut out);
    }
    let unseen = out.unseen > 0;
    pages.cut |= out.cut;
    pages.push(out.finish(), Sight::of_text(unseen));
    Ok(1)
}

fn cell(cell: &Value, language: &str, out: &mut Blocks) {
    // Until version 3 code stood under another name.
    let source = if cell["source"].is_null() {
        &cell["input"]
    } else {
        &cell["source"]
    };
    let source = lines(source);
    match cell["cell_type"].as_str() {
        Some("code") => out.code(language, &source),
        Some("heading") => out.heading(cell["level"].as_u64().unwrap_or(1) as usize, &source),
        _ => out.paragraph(&source),
    }
    for output in cell["outputs"].as_array().into_iter().flatten() {
        self::output(output, out);
    }
}

fn output(output: &Value, out: &mut Blocks) {
    let kind = output["output_type"].as_str().unwrap_or_default();
    if matches!(kind, "error" | "pyerr") {
        let trace = lines(&output["traceback"]);
        let said = |name: &str| output[name].as_str().unwrap_or_default().to_owned();
        let short = format!("{}: {}", said("ename"), said("evalue"));
        out.paragraph("Error:");
        return out.code(
            "",
            &without_colours(if trace.is_empty() { &short } else { &trace }),
        );
    }
    // Until version 3 the forms stood in the output itself.
    let forms = if output["data"].is_null() {
        output
    } else {
        &output["data"]
    };
    let is_picture =
        |name: &str| name.starts_with("image/") || matches!(name, "png" | "jpeg" | "svg");
    let is_shown = forms
        .as_object()
        .is_some_and(|forms| forms.keys().any(|name| is_picture(name)));
    let markdown = lines(&forms["text/markdown"]);
    let text = match &forms["text/plain"] {
        Value::Null => lines(&forms["text"]),
        plain => lines(plain),
    };
    if is_shown {
        let mark = out.unseen("picture", &text);
        out.paragraph(&mark);
    } else if !markdown.is_empty() {
        out.paragraph(&markdown);
    } else if !text.trim().is_empty() {
        out.paragraph("Output:");
        out.code("", &without_colours(&text));
    } else if let Some(name) = forms
        .as_object()
        .and_then(|forms| forms.keys().find(|name| name.contains('/')))
    {
        let mark = out.unseen("output", name);
        out.paragraph(&mark);
    }
}

/// A text, which may be given as a list of its lines.
fn lines(text: &Value) -> String {
    match text {
        Value::String(text) => text.clone(),
        Value::Array(lines) => {
            let lines: Vec<_> = lines.iter().filter_map(Value::as_str).collect();
            // The lines of a traceback have no ends.
            let ends = lines.iter().rev().skip(1).all(|line| line.ends_with('\n'));
            lines.join(if ends { "" } else { "\n" })
        }
        _ => String::new(),
    }
}

/// Without the escapes by which terminals are told colours.
fn without_colours(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut parts = text.split("\x1B[");
    plain += parts.next().unwrap_or_default();
    for part in parts {
        plain += part
            .trim_start_matches(|c: char| c.is_ascii_digit() || c == ';')
            .get(1..)
            .unwrap_or_default();
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn outputs_are_text_or_said_to_be_missing() {
        let mut out = Blocks::default();
        for value in [
            json!({"cell_type": "markdown", "source": ["# Title\n", "text"]}),
            json!({"cell_type": "code", "source": "plot(1)", "outputs": [
                {"output_type": "stream", "name": "stdout", "text": ["one\n", "two\n"]},
                {"output_type": "display_data", "data": {"image/png": "iVBO", "text/plain": "<Figure size 640x480>"}},
                {"output_type": "execute_result", "data": {"text/html": "<b>2</b>", "text/plain": "2"}},
                {"output_type": "display_data", "data": {"application/vnd.plotly": {}}},
                {"output_type": "error", "ename": "E", "evalue": "v", "traceback": ["\u{1B}[0;31mline 1\u{1B}[0m", "line 2"]},
            ]}),
        ] {
            cell(&value, "python", &mut out);
        }
        assert_eq!(out.unseen, 2);
        assert_eq!(
            out.finish(),
            "# Title\ntext\n\n```python\nplot(1)\n```\n\nOutput:\n\n```\none\ntwo\n```\n\n\
             [picture 1, not shown: <Figure size 640x480>]\n\nOutput:\n\n```\n2\n```\n\n\
             [output 2, not shown: application/vnd.plotly]\n\nError:\n\n```\nline 1\nline 2\n```"
        );
    }
}
