//! pptx: presentations whose parts are anything.
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
const PARTS: &[&str] = &["ppt/presentation.xml", "ppt/slide.xml", "ppt/_rels/slide.xml.rels", "ppt/notes.xml"];
const RELATIONS: &[(&str, &str)] = &[("slide", "ppt/slide.xml"), ("notesSlide", "ppt/notes.xml")];

fuzz_target!(|bytes: &[u8]| check(DocumentKind::Office, &archive::package("presentationml.presentation", PARTS, RELATIONS, bytes)));
