//! What reading a header may take, and a file that changes meanwhile.

use super::tests::{fault, rich, whole};
use super::write::{File, list, string};
use super::*;

/// A file that somebody makes shorter after the first read.
struct Shrinking(std::fs::File);

impl Source for Shrinking {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> std::io::Result<usize> {
        let read = Source::read_at(&self.0, buffer, position)?;
        self.0.set_len(100)?;
        Ok(read)
    }
}

#[test]
fn a_file_that_is_made_shorter_meanwhile_is_an_error() {
    use std::io::Write;
    let texts = string(b"a token's text").repeat(20_000);
    let bytes = File::model()
        .key(b"a.list", 9, &list(8, 20_000, &texts))
        .bytes();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&bytes).unwrap();
    let length = bytes.len() as u64;
    assert_eq!(
        parse(&file, length, Patience::default()).unwrap(),
        whole(&bytes).unwrap()
    );
    let error = parse(&Shrinking(file), length, Patience::default()).unwrap_err();
    assert!(
        matches!(error.fault, Fault::Shrunk { length: l, .. } if l == length),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .starts_with("metadata `a.list`: the file was made shorter"),
        "{error}"
    );
}

#[test]
fn long_texts_and_lists_are_stepped_over() {
    let long = vec![b'x'; KEPT_VALUE_BYTES as usize + 1];
    let bytes = rich()
        .key(b"a.long", 8, &string(&long))
        .key(b"a.longs", 9, &list(0, long.len() as u64, &long))
        .bytes();
    let header = whole(&bytes).unwrap();
    assert_eq!(
        header.str("a.long").unwrap_err().to_string(),
        "metadata `a.long`: 65537 bytes of text; at most 65536 are read"
    );
    let Some(Value::Array(list)) = header.value("a.longs") else {
        panic!("no list")
    };
    assert!(list.integers().is_none());
    assert_eq!(list.length, KEPT_VALUE_BYTES + 1);
}

#[test]
fn what_is_kept_of_a_header_has_a_limit() {
    let text = string(&[b'x'; KEPT_VALUE_BYTES as usize]);
    let file = (0..=KEPT_BYTES / KEPT_VALUE_BYTES).fold(File::new(), |file, index| {
        file.key(format!("k.{index}").as_bytes(), 8, &text)
    });
    assert!(matches!(
        fault(file),
        Fault::TooMany {
            what: "bytes of names, texts and lists",
            ..
        }
    ));
}
