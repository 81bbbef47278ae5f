//! docx: documents whose parts are anything.
#![no_main]

use gemmad::{gemma, ipc};
use libfuzzer_sys::fuzz_target;

mod careful;
mod worker;
#[path = "worker/archive.rs"]
mod archive;

use ipc::DocumentKind;
use worker::document::check;

/// The parts that the bytes are, one after the other.
const PARTS: &[&str] = &["word/document.xml", "word/styles.xml", "word/numbering.xml", "word/footnotes.xml", "word/comments.xml", "word/chart.xml"];
const RELATIONS: &[(&str, &str)] = &[("styles", "word/styles.xml"), ("numbering", "word/numbering.xml"), ("footnotes", "word/footnotes.xml"), ("comments", "word/comments.xml"), ("chart", "word/chart.xml")];

fuzz_target!(|bytes: &[u8]| check(DocumentKind::Office, &archive::package("wordprocessingml.document", PARTS, RELATIONS, bytes)));
