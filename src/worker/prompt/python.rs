//! What templates expect of Python beyond minijinja: how values are spelled, and transformers' own
//! helpers.

use std::fmt::Write as _;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Value};

/// Gives templates the environment that transformers gives them.
pub fn equip(env: &mut Environment<'static>) -> Result<(), Error> {
    env.set_syntax(
        SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()?,
    );
    env.set_debug(false);
    env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    env.set_formatter(|out, _, value| Ok(out.write_str(&text(value))?));
    env.add_filter("upper", |value: &Value| text(value).to_uppercase());
    env.add_filter("lower", |value: &Value| text(value).to_lowercase());
    env.add_filter("string", |value: &Value| text(value));
    env.add_filter("tojson", to_json);
    env.add_function(
        "raise_exception",
        |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        },
    );
    Ok(())
}

/// Python's `str(value)`.
pub fn text(value: &Value) -> String {
    match value.as_str() {
        Some(text) => text.to_owned(),
        None if value.is_undefined() => String::new(),
        None => {
            let mut out = String::new();
            write(&mut out, value, &REPR, 0);
            out
        }
    }
}

/// Python's `json.dumps` without ASCII escapes, which is transformers' `tojson`.
fn to_json(value: &Value, kwargs: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = kwargs.get("indent")?;
    let _: Option<bool> = kwargs.get("ensure_ascii")?;
    kwargs.assert_all_used()?;
    let mut out = String::new();
    let style = Style {
        indent: indent.map(|n| n.min(8)),
        ..JSON
    };
    write(&mut out, value, &style, 0);
    Ok(out)
}

/// How values are spelled inside others.
struct Style {
    words: [&'static str; 3],
    string: fn(&mut String, &str),
    indent: Option<usize>,
}

const REPR: Style = Style {
    words: ["None", "True", "False"],
    string: repr,
    indent: None,
};
const JSON: Style = Style {
    words: ["null", "true", "false"],
    string: json_string,
    indent: None,
};

fn write(out: &mut String, value: &Value, style: &Style, depth: usize) {
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => out.push_str(style.words[0]),
        ValueKind::Bool => out.push_str(style.words[if value.is_true() { 1 } else { 2 }]),
        ValueKind::Number => match f64::try_from(value.clone()) {
            Ok(number) if !value.is_integer() => out.push_str(&float(number)),
            _ => out.push_str(&value.to_string()),
        },
        ValueKind::Map => {
            let keys: Vec<Value> = value.try_iter().map(Iterator::collect).unwrap_or_default();
            write_all(out, ['{', '}'], keys.len(), style, depth, |out, i| {
                write(out, &keys[i], style, depth + 1);
                out.push_str(": ");
                write(
                    out,
                    &value.get_item(&keys[i]).unwrap_or_default(),
                    style,
                    depth + 1,
                );
            });
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let items: Vec<Value> = value.try_iter().map(Iterator::collect).unwrap_or_default();
            write_all(out, ['[', ']'], items.len(), style, depth, |out, i| {
                write(out, &items[i], style, depth + 1)
            });
        }
        _ => match value.as_str() {
            Some(text) => (style.string)(out, text),
            None => (style.string)(out, &value.to_string()),
        },
    }
}

fn write_all(
    out: &mut String,
    [open, close]: [char; 2],
    len: usize,
    style: &Style,
    depth: usize,
    item: impl Fn(&mut String, usize),
) {
    let line = |out: &mut String, depth: usize| {
        if let Some(indent) = style.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent * depth));
        }
    };
    out.push(open);
    for i in 0..len {
        if i > 0 {
            out.push_str(if style.indent.is_some() { "," } else { ", " });
        }
        line(out, depth + 1);
        item(out, i);
    }
    if len > 0 {
        line(out, depth);
    }
    out.push(close);
}

/// Python's `repr` of a float: the shortest digits, an exponent from 1e16 and below 1e-4.
fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".into();
    }
    if number.is_infinite() {
        return if number > 0.0 {
            "inf".into()
        } else {
            "-inf".into()
        };
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>() {
        Ok(e) if !(-4..16).contains(&e) => {
            format!("{digits}e{}{:02}", if e < 0 { '-' } else { '+' }, e.abs())
        }
        _ => {
            let plain = number.to_string();
            if plain.contains('.') {
                plain
            } else {
                plain + ".0"
            }
        }
    }
}

/// Python's `repr` of a string.
fn repr(out: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.extend(['\\', c]),
            c if (c as u32) < 0x20 || (0x7f..0xa0).contains(&(c as u32)) => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push(quote);
}

fn json_string(out: &mut String, text: &str) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

#[cfg(test)]
mod tests {
    use super::*;
    use minijinja::context;

    #[test]
    fn values_are_spelled_as_in_python() {
        let mut env = Environment::new();
        equip(&mut env).unwrap();
        let value: serde_json::Value = serde_json::from_str(
            r#"{"i":1,"f":1.0,"big":1e20,"small":0.00001,"e":1.5e-7,"t":true,"n":null,"s":"it's","l":["a","b\n\"'",null,false,2.50],"u":18446744073709551615}"#,
        )
        .unwrap();
        let value = super::super::values::from_json(value, &super::super::guard::Guard::new(&[]));
        for (template, expected) in [
            (
                "{{ v.i }} {{ v.f }} {{ v.big }} {{ v.small }} {{ v.e }} {{ v.u }}",
                "1 1.0 1e+20 1e-05 1.5e-07 18446744073709551615",
            ),
            (
                "{{ v.t }} {{ v.n }} {{ v.s }} {{ v.missing }}",
                "True None it's ",
            ),
            ("{{ v.l }}", r#"['a', 'b\n"\'', None, False, 2.5]"#),
            ("{{ v.l | upper }}", r#"['A', 'B\N"\'', NONE, FALSE, 2.5]"#),
            ("{{ [v.s, {'k': 1}] }}", r#"["it's", {'k': 1}]"#),
            ("{{ v.l | tojson }}", r#"["a", "b\n\"'", null, false, 2.5]"#),
            (
                "{{ {'a': [1], 'b': {}} | tojson(indent=2) }}",
                "{\n  \"a\": [\n    1\n  ],\n  \"b\": {}\n}",
            ),
            ("{{ v.missing | upper }}", ""),
        ] {
            assert_eq!(
                env.render_str(template, context! { v => value.clone() })
                    .unwrap(),
                expected,
                "{template}"
            );
        }
    }
}
