//! What a PDF's page says outside its contents: values of forms, notes, links.

use hayro::hayro_syntax::object::{
    Array, Dict, Name, Object, Rect as PdfRect, Stream, String as PdfString,
};
use hayro::hayro_syntax::page::Page;
use hayro::kurbo::{Affine, Point, Rect, Vec2};

use super::text::{Mark, Text};

/// Annotations of a page that are looked at, and characters of what one says.
const MAX_ANNOTATIONS: usize = 2000;
const MAX_CHARACTERS: usize = 4000;
/// How deep a field may lie in the tree of a form.
const MAX_DEPTH: usize = 16;
/// Flags of an annotation that is not shown, and of a button that only does something.
const HIDDEN: u32 = 1 << 1 | 1 << 5;
const PUSH_BUTTON: u32 = 1 << 16;
/// The flag of a list that opens: a closed one shows what is chosen, and no more.
const OPENS: u32 = 1 << 17;
/// Values of a list that are looked at.
const MAX_CHOICES: usize = 1000;
/// The size of a value's letters: so much of its field's height, and at most this.
const FILLED: f64 = 0.7;
const LARGEST: f64 = 11.0;
/// That of a list's lines, by which it is judged how many are seen.
const SMALLEST: f64 = 7.0;
/// From one line to the next, and the width of a letter, in parts of the size.
const LEADING: f64 = 1.2;
const LETTER: f64 = 0.5;

/// Adds it to what the page says; `page` leads from its space to the text's.
pub fn read(page: &Page<'_>, placed: Affine, text: &mut Text) {
    let annotations = page.raw().get::<Array<'_>>("Annots");
    for annotation in annotations
        .iter()
        .flat_map(|all| all.iter::<Dict<'_>>())
        .take(MAX_ANNOTATIONS)
    {
        let shown = annotation.get::<u32>("F").unwrap_or(0) & HIDDEN == 0;
        let Some(kind) = annotation.get::<Name<'_>>("Subtype").filter(|_| shown) else {
            continue;
        };
        let place = annotation
            .get::<PdfRect>("Rect")
            .map(|rect| placed.transform_rect_bbox(Rect::new(rect.x0, rect.y0, rect.x1, rect.y1)));
        match (kind.as_str(), place) {
            ("Link", Some(place)) => {
                if let Some(address) = address(&annotation) {
                    text.link(place, &address);
                }
            }
            ("Widget", Some(place)) => field(&annotation, place, text),
            ("FreeText", Some(place)) if !drawn(&annotation) => {
                if let Some(said) = string(&annotation, "Contents") {
                    write(&said, place, text);
                }
            }
            ("Popup" | "Link" | "Widget" | "FreeText", _) => {}
            _ => note(&annotation, text),
        }
    }
}

/// The words that a marked part of a page stands for, if the file gives them.
pub fn words(part: Option<&Dict<'_>>) -> Option<String> {
    string(part?, "ActualText")
}

/// Only of links to the web: others lead within the file or to programs.
fn address(link: &Dict<'_>) -> Option<String> {
    let address = string(&link.get::<Dict<'_>>("A")?, "URI")?;
    let kept = ["http://", "https://", "mailto:"]
        .iter()
        .any(|scheme| address.starts_with(scheme));
    (kept && !address.contains(|c: char| c.is_whitespace() || c == ')' || c.is_control()))
        .then_some(address)
}

fn note(annotation: &Dict<'_>, text: &mut Text) {
    let Some(said) = string(annotation, "Contents").filter(|said| !said.trim().is_empty()) else {
        return;
    };
    let said = said.replace(['\r', '\n'], " ");
    match string(annotation, "T").filter(|by| !by.trim().is_empty()) {
        Some(by) => text.note(format!("[Note by {}: {}]", by.trim(), said.trim())),
        None => text.note(format!("[Note: {}]", said.trim())),
    }
}

/// The value of a field that has no picture of it, and whether a box is ticked.
fn field(widget: &Dict<'_>, place: Rect, text: &mut Text) {
    let kind = inherited(widget, "FT").and_then(Object::into_name);
    match kind.as_ref().map(|kind| kind.as_str()) {
        Some("Btn") => {
            if flags(widget) & PUSH_BUTTON != 0 {
                return;
            }
            let state = widget
                .get::<Name<'_>>("AS")
                .or_else(|| inherited(widget, "V").and_then(Object::into_name));
            match state.as_ref().map(|state| state.as_str()) {
                None | Some("Off") => write("[ ]", place, text),
                Some(_) if !drawn(widget) => write("[x]", place, text),
                Some(_) => {}
            }
        }
        Some("Tx") if !drawn(widget) => {
            if let Some(value) = inherited(widget, "V").and_then(said) {
                write(&value, place, text);
            }
        }
        Some("Ch") => choice(widget, place, text),
        _ => {}
    }
}

/// A list that opens shows what is chosen, one that is open what can be, and what is by its colour.
fn choice(widget: &Dict<'_>, place: Rect, text: &mut Text) {
    let (chosen, opens) = (chosen(widget), flags(widget) & OPENS != 0);
    let shown = if opens {
        chosen.clone()
    } else {
        let fit = (place.height() / (LEADING * SMALLEST)).max(1.0) as usize;
        let words = options(widget).into_iter().map(|(_, words)| words);
        let words: Vec<String> = words.take(fit).collect();
        Some(words.join("\n"))
    };
    if let Some(shown) = shown.filter(|_| !drawn(widget)) {
        write(&shown, place, text);
    }
    if let Some(chosen) = chosen.filter(|chosen| !opens && !chosen.trim().is_empty()) {
        let name = string(widget, "TU").or_else(|| string(widget, "T"));
        text.note(match name {
            Some(name) => format!("[Chosen of the list \u{201c}{name}\u{201d}: {chosen}]"),
            None => format!("[Chosen of a list: {chosen}]"),
        });
    }
}

fn flags(field: &Dict<'_>) -> u32 {
    inherited(field, "Ff")
        .and_then(Object::into_number)
        .map_or(0, |flags| flags.as_f64() as u32)
}

/// What is chosen of a list, in the words that the list shows.
fn chosen(field: &Dict<'_>) -> Option<String> {
    let values = match inherited(field, "V")? {
        Object::Array(all) => texts(&all),
        one => said(one).into_iter().collect(),
    };
    let options = options(field);
    let words = values.into_iter().map(|value| {
        let named = options.iter().find(|(name, _)| *name == value);
        named.map_or(value, |(_, words)| words.clone())
    });
    let words: Vec<String> = words.collect();
    (!words.is_empty()).then(|| words.join(", "))
}

/// What can be chosen of a list: what programs call it, and the words that the list shows.
fn options(field: &Dict<'_>) -> Vec<(String, String)> {
    let options = inherited(field, "Opt").and_then(Object::into_array);
    options
        .iter()
        .flat_map(|all| all.iter::<Object<'_>>().take(MAX_CHOICES))
        .filter_map(|option| match option {
            Object::Array(pair) => texts(&pair)
                .try_into()
                .ok()
                .map(|[name, words]: [_; 2]| (name, words)),
            one => said(one).map(|words| (words.clone(), words)),
        })
        .collect()
}

fn texts(all: &Array<'_>) -> Vec<String> {
    let all = all.iter::<Object<'_>>().take(MAX_CHOICES);
    all.filter_map(said).collect()
}

/// Whether a page shows what the annotation says.
fn drawn(annotation: &Dict<'_>) -> bool {
    let appearance = annotation
        .get::<Dict<'_>>("AP")
        .and_then(|appearance| appearance.get::<Object<'_>>("N"));
    match appearance {
        // A picture of nothing: the program that shows the form was to make it.
        Some(Object::Stream(stream)) => says(&stream),
        Some(Object::Dict(_)) => true,
        _ => false,
    }
}

fn says(appearance: &Stream<'_>) -> bool {
    appearance.decoded().is_ok_and(|content| {
        content
            .windows(2)
            .any(|pair| pair == b"Tj" || pair == b"TJ" || pair == b"Do")
    })
}

/// Of a field or of those above it.
fn inherited<'a>(field: &Dict<'a>, key: &str) -> Option<Object<'a>> {
    let mut at = field.clone();
    for _ in 0..MAX_DEPTH {
        if let Some(value) = at.get::<Object<'_>>(key) {
            return Some(value);
        }
        at = at.get::<Dict<'_>>("Parent")?;
    }
    None
}

fn said(value: Object<'_>) -> Option<String> {
    match value {
        Object::String(text) => Some(decoded(text.as_bytes())),
        Object::Name(name) => Some(name.as_str().to_owned()),
        _ => None,
    }
}

fn string(dict: &Dict<'_>, key: &str) -> Option<String> {
    dict.get::<PdfString<'_>>(key)
        .map(|text| decoded(text.as_bytes()))
}

/// A PDF's text: UTF-16 or UTF-8 with its mark, else an encoding of one byte that differs from
/// Latin 1 where nobody looks.
fn decoded(bytes: &[u8]) -> String {
    let text = match bytes {
        [0xfe, 0xff, rest @ ..] => encoding_rs::UTF_16BE.decode_without_bom_handling(rest).0,
        [0xff, 0xfe, rest @ ..] => encoding_rs::UTF_16LE.decode_without_bom_handling(rest).0,
        [0xef, 0xbb, 0xbf, rest @ ..] => encoding_rs::UTF_8.decode_without_bom_handling(rest).0,
        rest => {
            encoding_rs::WINDOWS_1252
                .decode_without_bom_handling(rest)
                .0
        }
    };
    text.chars().take(MAX_CHARACTERS).collect()
}

/// Writes it into its place, as if the page had drawn it.
fn write(said: &str, place: Rect, text: &mut Text) {
    let lines: Vec<&str> = said.lines().collect();
    let size = (FILLED * place.height() / lines.len().max(1) as f64).clamp(1.0, LARGEST);
    let first = place.y0
        + (place.height() - LEADING * size * (lines.len() as f64 - 1.0) - size).max(0.0) / 2.0
        + 0.8 * size;
    for (i, line) in lines.iter().enumerate() {
        let mut at = Point::new(place.x0 + 2.0, first + LEADING * size * i as f64);
        for character in line.chars() {
            let advance = Vec2::new(LETTER * size, 0.0);
            let mut buffer = [0; 4];
            text.push(Mark {
                text: character.encode_utf8(&mut buffer),
                at,
                advance,
                up: Vec2::new(0.0, -size),
                sized: true,
                code: None,
            });
            at += advance;
        }
    }
}
