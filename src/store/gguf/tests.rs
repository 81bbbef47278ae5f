use super::write::{File, list, string};
use super::*;

/// Parses bytes that are a whole file.
pub(super) fn whole(bytes: &[u8]) -> Result<Header, GgufError> {
    parse(&bytes, bytes.len() as u64, Patience::default())
}

pub(super) fn fault(file: File) -> Fault {
    whole(&file.bytes()).unwrap_err().fault
}

pub(super) fn message(file: File) -> String {
    whole(&file.bytes()).unwrap_err().to_string()
}

/// A file with one of everything.
pub(super) fn rich() -> File {
    File::model()
        .key(b"a.u8", 0, &[200])
        .key(b"a.i8", 1, &[0xff])
        .u16("a.u16", 65_535)
        .key(b"a.i16", 3, &(-2i16).to_le_bytes())
        .key(b"a.i32", 5, &(-3i32).to_le_bytes())
        .key(b"a.f32", 6, &1.5f32.to_le_bytes())
        .key(b"a.bool", 7, &[1])
        .key(b"a.u64", 10, &u64::MAX.to_le_bytes())
        .key(b"a.i64", 11, &(-4i64).to_le_bytes())
        .key(b"a.f64", 12, &2.5f64.to_le_bytes())
        .key(b"a.list", 9, &list(4, 2, &[7, 0, 0, 0, 8, 0, 0, 0]))
        .key(
            b"a.lists",
            9,
            &list(
                9,
                2,
                &[list(0, 1, &[1]), list(8, 1, &string(b"x"))].concat(),
            ),
        )
        .tensor("blk.0.norm.weight", &[3, 5, 7, 2], 0)
        .tensor("blk.0.attn_q.weight", &[256, 2], 14)
}

#[test]
fn values_come_back_by_type() {
    let bytes = rich().bytes();
    let header = whole(&bytes).unwrap();
    assert_eq!(header.u32("a.u8").unwrap(), Some(200));
    assert_eq!(header.value("a.i8"), Some(&Value::Integer(-1)));
    assert_eq!(header.u32("a.u16").unwrap(), Some(65_535));
    assert_eq!(header.value("a.i16"), Some(&Value::Integer(-2)));
    assert_eq!(header.value("a.i32"), Some(&Value::Integer(-3)));
    assert_eq!(header.value("a.i64"), Some(&Value::Integer(-4)));
    assert_eq!(header.f32("a.f32").unwrap(), Some(1.5));
    assert_eq!(header.f32("a.f64").unwrap(), Some(2.5));
    assert_eq!(header.bool("a.bool").unwrap(), Some(true));
    assert_eq!(header.u64("a.u64").unwrap(), Some(u64::MAX));
    assert_eq!(header.str("general.architecture").unwrap(), Some("gemma4"));
    assert_eq!(header.u32("a.none").unwrap(), None);
    assert_eq!(header.metadata().count(), 20);

    let text = |result: Result<Option<u32>, GgufError>| result.unwrap_err().to_string();
    assert_eq!(
        text(header.u32("a.u64")),
        "metadata `a.u64`: 18446744073709551615 does not fit into a u32"
    );
    assert_eq!(
        text(header.u32("a.i8")),
        "metadata `a.i8`: -1 does not fit into a u32"
    );
    assert_eq!(
        text(header.u32("a.f32")),
        "metadata `a.f32`: a fraction where a whole number is needed"
    );
    assert_eq!(
        header.need_u32("a.none").unwrap_err().to_string(),
        "metadata `a.none`: missing"
    );
    assert!(
        header.str("a.bool").is_err()
            && header.bool("a.u8").is_err()
            && header.f32("a.u8").is_err()
    );
}

#[test]
fn per_layer_numbers_may_be_one_or_many() {
    let bytes = rich()
        .key(
            b"b.fits",
            9,
            &list(11, 2, &[1i64.to_le_bytes(), 5i64.to_le_bytes()].concat()),
        )
        .key(b"b.negative", 9, &list(5, 1, &(-1i32).to_le_bytes()))
        .key(b"b.truths", 9, &list(7, 2, &[1, 0]))
        .key(
            b"b.many",
            9,
            &list(0, LAYERS + 1, &[1; LAYERS as usize + 1]),
        )
        .bytes();
    let header = whole(&bytes).unwrap();
    let layers = |key: &str| {
        header
            .per_layer(key)
            .map(|found| found.map(|list| [0, 1, 2].map(|layer| list.layer(layer))))
    };
    assert_eq!(layers("a.u8"), Ok(Some([Some(200); 3])));
    assert_eq!(layers("a.list"), Ok(Some([Some(7), Some(8), None])));
    assert_eq!(layers("b.fits"), Ok(Some([Some(1), Some(5), None])));
    assert_eq!(layers("b.truths"), Ok(Some([Some(1), Some(0), None])));
    assert_eq!(layers("none"), Ok(None));
    assert!(matches!(
        layers("b.negative").unwrap_err().fault,
        Fault::OutOfRange { found: -1, .. }
    ));
    assert!(matches!(
        layers("b.many").unwrap_err().fault,
        Fault::TooMany { what: "layers", .. }
    ));
    assert!(matches!(
        layers("a.lists").unwrap_err().fault,
        Fault::WrongType { .. }
    ));
    assert!(matches!(
        layers("tokenizer.ggml.tokens").unwrap_err().fault,
        Fault::WrongType { .. }
    ));
}

#[test]
fn lists_and_tensors_say_where_they_lie() {
    let bytes = rich().bytes();
    let header = whole(&bytes).unwrap();
    let Some(Value::Array(tokens)) = header.value("tokenizer.ggml.tokens") else {
        panic!("no list")
    };
    assert_eq!((tokens.element, tokens.count), (ValueType::Text, 2));
    let elements = [string(b"<bos>"), string(b"a")].concat();
    assert_eq!(
        bytes[tokens.start as usize..][..tokens.length as usize],
        elements
    );
    assert_eq!(header.tensors().len(), 3);
    let tensor = header.tensor("blk.0.attn_q.weight").unwrap();
    assert_eq!(
        (tensor.dims(), tensor.ty.name, tensor.bytes),
        (&[256, 2][..], "Q6_K", 420)
    );
    assert_eq!(tensor.offset + tensor.bytes, bytes.len() as u64);
    assert_eq!(
        header.tensor("blk.0.norm.weight").unwrap().dims(),
        [3, 5, 7, 2]
    );
}

#[test]
fn every_truncation_is_an_error_that_names_its_place() {
    let bytes = rich().bytes();
    for length in 0..bytes.len() {
        let error = whole(&bytes[..length]).unwrap_err();
        assert!(
            matches!(error.fault, Fault::Truncated { length: l, .. } | Fault::OutsideFile { length: l, .. } if l == length as u64),
            "{length}: {error}"
        );
        // The same bytes of a file that was longer: it was made shorter, or the header is whole.
        match parse(&&bytes[..length], bytes.len() as u64, Patience::default()) {
            Ok(header) => assert_eq!(header, whole(&bytes).unwrap()),
            Err(error) => assert!(
                matches!(error.fault, Fault::Shrunk { .. }),
                "{length}: {error}"
            ),
        }
    }
    assert_eq!(
        whole(&bytes[..30]).unwrap_err().to_string(),
        "metadata key number 0: the file ends too early: 8 bytes are needed at 24, it has 30; download it again"
    );
    // Padding behind the last tensor may be missing or there.
    let padded = [&bytes[..], &[0; 40]].concat();
    assert_eq!(whole(&padded).unwrap(), whole(&bytes).unwrap());
}

#[test]
fn other_files_are_refused_by_name() {
    assert!(matches!(
        whole(b"<htm").unwrap_err().fault,
        Fault::NotGguf { .. }
    ));
    assert_eq!(
        whole(b"PK\x03\x04....").unwrap_err().to_string(),
        "header: not a GGUF file (it starts with `PK\\x03\\x04`)"
    );
    // A link may lead to any file.
    assert_eq!(
        whole(b"root:$6$...").unwrap_err().to_string(),
        "header: not a GGUF file"
    );
    assert!(matches!(
        whole(b"").unwrap_err().fault,
        Fault::Truncated { .. }
    ));
    let version = |version| fault(File { version, ..rich() });
    assert_eq!(version(0), Fault::Version { found: 0 });
    assert_eq!(version(1), Fault::Version { found: 1 });
    assert_eq!(version(4), Fault::Version { found: 4 });
    assert_eq!(version(3 << 24), Fault::BigEndian);
    assert_eq!(version(2 << 24), Fault::BigEndian);
    assert_eq!(
        whole(
            &File {
                version: 2,
                ..rich()
            }
            .bytes()
        )
        .unwrap()
        .version,
        2
    );
}

#[test]
fn absurd_counts_are_refused_before_anything_is_set_aside() {
    for count in [TENSORS + 1, 1 << 63, u64::MAX] {
        let too_many = Fault::TooMany {
            what: "tensors",
            found: count,
            limit: TENSORS,
        };
        assert_eq!(
            fault(File {
                tensor_count: Some(count),
                ..rich()
            }),
            too_many
        );
        let too_many = Fault::TooMany {
            what: "metadata keys",
            found: count,
            limit: METADATA_KEYS,
        };
        assert_eq!(
            fault(File {
                key_count: Some(count),
                ..rich()
            }),
            too_many
        );
    }
    assert!(matches!(
        fault(File {
            tensor_count: Some(TENSORS),
            ..File::new()
        }),
        Fault::Truncated { .. }
    ));
    let long_text = |length: u64| fault(File::new().key(b"k", 8, &length.to_le_bytes()));
    assert!(matches!(
        long_text(1 << 62),
        Fault::TooMany {
            what: "bytes of text",
            ..
        }
    ));
    assert!(matches!(long_text(STRING_BYTES), Fault::Truncated { .. }));
    let long_list =
        |element: u32, count: u64| fault(File::new().key(b"k", 9, &list(element, count, b"")));
    for element in 0..=12 {
        for count in [1 << 61, u64::MAX] {
            let fault = long_list(element, count);
            match element {
                8 | 9 => assert!(
                    matches!(
                        fault,
                        Fault::TooMany {
                            what: "elements of lists",
                            ..
                        }
                    ),
                    "{element} {count}"
                ),
                _ => assert!(
                    matches!(fault, Fault::Truncated { .. }),
                    "{element} {count}"
                ),
            }
        }
    }
}

#[test]
fn lists_nest_only_so_deep() {
    let nested = |depth: u64| (1..depth).fold(list(0, 1, b"x"), |inner, _| list(9, 1, &inner));
    assert!(whole(&File::new().key(b"k", 9, &nested(ARRAY_DEPTH)).bytes()).is_ok());
    let too_deep = Fault::TooMany {
        what: "lists inside each other",
        found: ARRAY_DEPTH + 1,
        limit: ARRAY_DEPTH,
    };
    assert_eq!(
        fault(File::new().key(b"k", 9, &nested(ARRAY_DEPTH + 1))),
        too_deep
    );
    assert_eq!(fault(File::new().key(b"k", 9, &nested(100_000))), too_deep);
}

#[test]
fn metadata_must_be_sound() {
    assert_eq!(
        message(File::new().key(b"k", 13, b"")),
        "metadata `k`: value type 13 does not exist"
    );
    assert_eq!(
        fault(File::new().key(b"k", 9, &list(u32::MAX, 0, b""))),
        Fault::UnknownValueType { found: u32::MAX }
    );
    assert_eq!(
        message(File::new().key(b"k", 7, &[2])),
        "metadata `k`: 2 is not a truth value"
    );
    assert_eq!(
        message(File::new().u32("k", 1).u16("j", 1).u16("k", 1)),
        "metadata `k`: there twice"
    );
    assert_eq!(
        message(File::new().key(b"\xff\xfe", 0, &[0])),
        "metadata key number 0: not UTF-8"
    );
    assert_eq!(
        message(File::new().key(b"", 0, &[0])),
        "metadata key number 0: has no name"
    );
    assert!(matches!(
        fault(File::new().key(&[b'k'; 65_536], 0, &[0])),
        Fault::TooMany {
            what: "bytes of name",
            ..
        }
    ));
    // Names from the file are shown short and without control characters.
    let long = message(File::new().key(format!("\x1b[31m{}", "k".repeat(500)).as_bytes(), 99, b""));
    assert!(
        long.len() < 200 && long.starts_with("metadata `\\u{1b}[31mkkk") && long.contains('…'),
        "{long}"
    );
    // A text that is not UTF-8 spoils nothing until someone asks for it.
    let bytes = File::new().key(b"k", 8, &string(b"\xff")).bytes();
    assert_eq!(
        whole(&bytes).unwrap().str("k").unwrap_err().fault,
        Fault::NotUtf8
    );
}

#[test]
fn alignment_must_be_sane() {
    let alignment = |found| fault(File::model().u32("general.alignment", found));
    for found in [0, 3, 33, 1 << 21, 1 << 31, u32::MAX] {
        assert_eq!(
            alignment(found),
            Fault::BadAlignment {
                found,
                limit: ALIGNMENT
            }
        );
    }
    assert!(matches!(
        fault(File::model().text("general.alignment", "32")),
        Fault::WrongType { .. }
    ));
    let file = File {
        alignment: 4096,
        ..File::new()
    }
    .u32("general.alignment", 4096)
    .tensor("a", &[1], 0)
    .tensor("b", &[1], 0);
    let bytes = file.bytes();
    let header = whole(&bytes).unwrap();
    assert_eq!(
        (header.data_start, header.tensors()[1].offset),
        (4096, 8192)
    );
}

#[test]
fn the_tiny_model_is_read_whole() {
    let bytes = std::fs::read(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/models/tiny/tiny-e2b-q8_0.gguf"
    ))
    .unwrap();
    let header = whole(&bytes).unwrap();
    assert_eq!(header.tensors().len(), 99);
    assert_eq!(header.str("general.architecture").unwrap(), Some("gemma4"));
    assert_eq!(header.need_u32("gemma4.block_count").unwrap(), 6);
    let wide = header
        .per_layer("gemma4.feed_forward_length")
        .unwrap()
        .unwrap();
    assert!(wide.layer(0).unwrap() > 0 && wide.layer(5).unwrap() >= wide.layer(0).unwrap());
    assert!(
        header
            .str("tokenizer.chat_template")
            .unwrap()
            .unwrap()
            .contains("<|turn>")
    );
    let end = header
        .tensors()
        .iter()
        .map(|tensor| tensor.offset + tensor.bytes)
        .max()
        .unwrap();
    assert!(end <= bytes.len() as u64 && bytes.len() as u64 - end < header.alignment.into());
}
