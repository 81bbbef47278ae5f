//! epub: books whose parts are anything.
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
const PARTS: &[&str] = &["p.opf", "1.xhtml", "META-INF/encryption.xml"];
const FIXED: &[(&str, &str)] = &[
    ("mimetype", "application/epub+zip"),
    ("META-INF/container.xml", "<container><rootfiles><rootfile full-path=\"p.opf\"/></rootfiles></container>"),
];

fuzz_target!(|bytes: &[u8]| check(DocumentKind::Office, &archive::of(FIXED, PARTS, bytes)));
