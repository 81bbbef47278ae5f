use super::*;

fn list(texts: &[&str]) -> Vec<u8> {
    texts
        .iter()
        .flat_map(|text| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat())
        .collect()
}

fn vocabulary(texts: &[&str], merges: &[&str], ends: &[u32]) -> Result<Vocabulary, String> {
    let place = Place {
        count: texts.len() as u32,
        begin: Some(0),
        ends: ends.to_vec(),
        suppressed: vec![1, 1000],
        ..Place::default()
    };
    // What looks like a byte is one, and what looks like a marker a control token.
    let kind = |text: &&str| match text {
        text if text.starts_with("<0x") => BYTE,
        text if text.starts_with("<|") => CONTROL,
        text if text.starts_with('[') => USER_DEFINED,
        _ => NORMAL,
    };
    let kinds: Vec<u8> = texts
        .iter()
        .flat_map(|text| u32::from(kind(text)).to_le_bytes())
        .collect();
    Vocabulary::new(
        &place,
        Lists {
            texts: &list(texts),
            kinds: Some(&kinds),
            merges: &list(merges),
        },
    )
}

fn small() -> Vocabulary {
    let texts = [
        "<|b>", "<eos>", "a", "b", "c", "ab", "bc", "abc", "▁", "▁a", "\n", "\n\n", "<0xC3>",
        "<0xA4>", "[x]", "<|bb>", "</s>",
    ];
    vocabulary(&texts, &["b c", "a b", "ab c", "▁ a"], &[16]).unwrap()
}

fn texts(vocabulary: &Vocabulary, text: &str, markup: bool) -> Vec<String> {
    let mut tokens = vec![];
    vocabulary.tokenize(text, markup, &mut tokens);
    tokens
        .into_iter()
        .map(|token| vocabulary.text(token).unwrap().to_owned())
        .collect()
}

#[test]
fn text_becomes_tokens() {
    let vocabulary = small();
    for (text, tokens) in [
        ("", vec![]),
        // The first merge comes first, although another would stand further to the left.
        ("abc", vec!["a", "bc"]),
        ("ab abab ac", vec!["ab", "▁", "ab", "ab", "▁a", "c"]),
        ("a\n\n\nb\n\n", vec!["a", "\n", "\n", "\n", "b", "\n\n"]),
        ("ä", vec!["<0xC3>", "<0xA4>"]),
        // Bytes that are no token are left out.
        ("aße", vec!["a", "<0xC3>"]),
        ("a[x]b", vec!["a", "[x]", "b"]),
    ] {
        assert_eq!(texts(&vocabulary, text, false), tokens, "{text:?}");
        assert_eq!(texts(&vocabulary, text, true), tokens, "{text:?}");
    }
    assert_eq!(texts(&vocabulary, "a<|bb>", true), ["a", "<|bb>"]);
    assert_eq!(
        texts(&vocabulary, "a<|b>b<eos>", true),
        ["a", "<|b>", "b", "<eos>"]
    );
    assert_eq!(texts(&vocabulary, "<|b>", false), ["b"]);
}

#[test]
fn tokens_become_text() {
    let vocabulary = small();
    for (text, bytes) in [
        ("▁a", &b" a"[..]),
        ("<0xC3>", b"\xC3"),
        ("<|b>", b"<|b>"),
        ("[x]", b"[x]"),
        ("\n", b"\n"),
    ] {
        assert_eq!(
            vocabulary.bytes(vocabulary.named(text).unwrap()),
            bytes,
            "{text}"
        );
    }
    assert_eq!(
        (
            vocabulary.longest(),
            vocabulary.bos(),
            vocabulary.suppressed()
        ),
        (5, Some(0), &[1][..])
    );
    assert_eq!(
        (
            vocabulary.ends(),
            vocabulary.is_marker(0),
            vocabulary.is_marker(2)
        ),
        (vec![1, 16], true, false)
    );
    for nothing in [-1, 17, Token::MAX] {
        assert!(
            vocabulary.bytes(nothing).is_empty()
                && vocabulary.text(nothing).is_none()
                && !vocabulary.is_end(nothing)
        );
    }
}

#[test]
fn damaged_lists_are_refused() {
    for (merges, reason) in [
        (&["a x"][..], "merge, 0,"),
        (&["a b", "ab"], "merge, 1,"),
        (&["b a"], "merge, 0,"),
        (&[""], "merge, 0,"),
    ] {
        let error = vocabulary(&["a", "b", "ab"], merges, &[]).unwrap_err();
        assert!(error.contains(reason), "{error}");
    }
    assert!(vocabulary(&[], &[], &[]).unwrap_err().contains("0 tokens"));
    let (texts, kinds) = (list(&["a", "b"]), [0; 8]);
    let made = |count, texts: &[u8], kinds: &[u8]| {
        Vocabulary::new(
            &Place {
                count,
                ..Place::default()
            },
            Lists {
                texts,
                kinds: Some(kinds),
                merges: &[],
            },
        )
        .map(|_| ())
        .unwrap_err()
    };
    assert!(made(3, &texts, &kinds).contains("3 tokens"));
    assert!(made(2, &texts[..texts.len() - 1], &kinds).contains("cut off"));
    assert!(made(2, &texts, &kinds[..4]).contains("1 kinds"));
    assert!(made(1, &[1, 0, 0, 0, 0, 0, 0, 0, 0xFF], &kinds[..4]).contains("no UTF-8"));
    assert!(made(1, &[0xFF; 16], &kinds[..4]).contains("cut off"));
}
