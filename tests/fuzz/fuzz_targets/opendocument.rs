//! odt, ods, odp: documents whose parts are anything.
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
const PARTS: &[&str] = &["content.xml", "styles.xml", "Object 1/content.xml"];
const TYPE: (&str, &str) = ("mimetype", "application/vnd.oasis.opendocument.text");

fuzz_target!(|bytes: &[u8]| check(DocumentKind::Office, &archive::of(&[TYPE], PARTS, bytes)));
