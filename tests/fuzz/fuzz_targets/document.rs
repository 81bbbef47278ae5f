//! The reading of PDF and of web pages against anything that a client may call one.
#![no_main]

use gemmad::{gemma, ipc};
use libfuzzer_sys::fuzz_target;

mod careful;
mod worker;

use ipc::DocumentKind;
use worker::document::check;

fuzz_target!(|bytes: &[u8]| {
    let kind = if bytes.starts_with(b"%PDF") { DocumentKind::Pdf } else { DocumentKind::Html };
    check(kind, bytes);
});
