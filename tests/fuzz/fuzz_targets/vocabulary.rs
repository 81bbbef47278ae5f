//! The vocabulary of a file against anything that a file may hold: it is refused, or every text becomes tokens whose
//! bytes are that text.
#![no_main]

use std::cell::OnceCell;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use gemmad::gemma::vocabulary::{Lists, Vocabulary};
use gemmad::store;
use libfuzzer_sys::fuzz_target;

/// What is made into tokens.
const TEXT: &str = "Größe <|turn> 😀\n\n  the end<turn|>";

thread_local! {
    static PLACE: OnceCell<(PathBuf, File)> = const { OnceCell::new() };
}

fuzz_target!(|bytes: &[u8]| {
    PLACE.with(|place| {
        let (path, file) = place.get_or_init(|| {
            let path = PathBuf::from(format!("/dev/shm/gemmad-fuzz-{}.gguf", std::process::id()));
            let file = File::create(&path).unwrap();
            (path, file)
        });
        file.set_len(0).unwrap();
        file.write_all_at(bytes, 0).unwrap();
        let place = match store::read_vocabulary(path) {
            Ok((place, _)) => place,
            Err(bad) => return assert!(bad.to_string().len() < 4000),
        };
        let part = |range: &Range<u64>| &bytes[range.start as usize..range.end as usize];
        let lists = Lists {
            texts: part(&place.texts),
            kinds: place.kinds.as_ref().map(part),
            merges: part(&place.merges),
        };
        match Vocabulary::new(&place, lists) {
            Ok(vocabulary) => tokenize(&vocabulary),
            Err(reason) => assert!(!reason.is_empty() && reason.len() < 1000),
        }
    });
});

fn tokenize(vocabulary: &Vocabulary) {
    for markup in [true, false] {
        let mut tokens = vec![];
        vocabulary.tokenize(TEXT, markup, &mut tokens);
        for token in tokens {
            assert!((0..vocabulary.len() as i32).contains(&token));
            assert!(vocabulary.bytes(token).len() <= vocabulary.longest().max(1) * 4);
        }
    }
    for token in (0..vocabulary.len() as i32).take(64) {
        let _ = (vocabulary.text(token), vocabulary.is_end(token), vocabulary.is_marker(token));
    }
    assert!(vocabulary.bos().is_none_or(|token| (token as usize) < vocabulary.len()));
}
