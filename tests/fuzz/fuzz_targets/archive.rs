//! The reading of archives, and of the office documents that they are, against anything that begins like one.
#![no_main]

use gemmad::{gemma, ipc};
use libfuzzer_sys::fuzz_target;

mod careful;
mod worker;

use ipc::DocumentKind;
use worker::document::check;

fuzz_target!(|bytes: &[u8]| check(DocumentKind::Office, bytes));
