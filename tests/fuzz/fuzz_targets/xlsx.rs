//! xlsx: workbooks whose parts are anything.
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
const PARTS: &[&str] = &["xl/workbook.xml", "xl/sheet.xml", "xl/sharedStrings.xml", "xl/styles.xml"];
const RELATIONS: &[(&str, &str)] = &[("worksheet", "xl/sheet.xml"), ("sharedStrings", "xl/sharedStrings.xml"), ("styles", "xl/styles.xml")];

fuzz_target!(|bytes: &[u8]| check(DocumentKind::Office, &archive::package("spreadsheetml.sheet", PARTS, RELATIONS, bytes)));
