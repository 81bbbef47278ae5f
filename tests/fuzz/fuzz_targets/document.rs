//! The reading of PDF and of web pages against anything that a client may call one.
#![no_main]

use std::marker::PhantomData;

use gemmad::ipc;
use libfuzzer_sys::fuzz_target;

mod careful;
#[path = "../../../src/worker/document/glyphs.rs"]
mod glyphs;
#[path = "../../../src/worker/document/html.rs"]
mod html;
#[path = "../../../src/worker/document/notes.rs"]
mod notes;
#[path = "../../../src/worker/document/pdf.rs"]
mod pdf;
#[path = "../../../src/worker/document/text/mod.rs"]
mod text;

use careful::careful;

/// Takes pages as the reader's does, and keeps none.
#[derive(Default)]
pub struct Pages<'a> {
    pages: u32,
    bytes: usize,
    supervisor: PhantomData<&'a ()>,
}

/// What the reader takes of a file.
const MOST: usize = 1 << 20;

impl Pages<'_> {
    fn push(&mut self, text: String, says_little: bool, picture: Option<Vec<u8>>) -> bool {
        assert!(picture.is_none() || says_little);
        self.pages += 1;
        self.bytes += text.len();
        self.bytes < MOST
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut pages = Pages::default();
    let read = careful(|| if bytes.starts_with(b"%PDF") { pdf::read(bytes.to_vec(), &mut pages) } else { html::read(bytes, &mut pages) });
    match read {
        Ok(count) => assert!(pages.pages <= count),
        Err(reason) => assert!(reason.len() < 500),
    }
});
