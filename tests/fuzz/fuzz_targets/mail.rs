//! The reading of mails, and of what is attached to them, against any text.
#![no_main]

use gemmad::{gemma, ipc};
use libfuzzer_sys::fuzz_target;

mod careful;
mod worker;

use ipc::DocumentKind;
use worker::document::check;

fuzz_target!(|bytes: &[u8]| check(DocumentKind::Mail, bytes));
