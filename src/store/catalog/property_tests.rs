//! Whatever is typed, listed or written: an answer or a reason, and never a name that leads elsewhere.

use proptest::prelude::*;

use super::*;

/// Pieces of what people type.
fn typed() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("gemma"),
        Just("-4-"),
        Just("4:"),
        Just("e2b"),
        Just("26b"),
        Just("-it"),
        Just("q4_0"),
        Just("UD-Q4_K_XL"),
        Just("google"),
        Just("/"),
        Just(":"),
        Just(".."),
        Just(".gguf"),
        Just("https://"),
        Just("huggingface.co"),
        Just("hf.co"),
        Just("resolve/main/"),
        Just("%2e"),
        Just("%2f"),
        Just("\0"),
        Just("é"),
        Just(" "),
        Just("@"),
        Just("auto"),
        Just("?x="),
        Just("unsloth/gemma-4-E2B-it-qat-GGUF"),
    ];
    prop_oneof![
        prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat()),
        ".{0,40}",
    ]
}

fn check_files(files: &[FileToFetch]) {
    assert!(!files.is_empty());
    for file in files {
        assert!(
            super::check::is_file(&file.name) && !file.name.contains('/'),
            "{file:?}"
        );
        match &file.source {
            Source::Hub {
                repository, path, ..
            } => {
                assert!(super::check::is_repository(repository), "{file:?}");
                assert!(super::check::is_file(path), "{file:?}");
            }
            Source::Url(url) => assert!(super::source::is_address(url), "{file:?}"),
        }
    }
}

proptest! {
    #[test]
    fn whatever_is_typed(
        what in typed(),
        quantization in proptest::option::of(".{0,12}"),
        with in proptest::option::of((any::<bool>(), any::<bool>(), any::<bool>())),
        fits in prop::collection::vec(prop::sample::select(Variant::PUBLISHED.to_vec()), 0..5),
        disk in proptest::option::of(any::<u64>()),
    ) {
        let offers = Offers::built_in();
        let with = with.map(|(vision, audio, drafter)| With { vision, audio, drafter });
        let ask = Ask { what: &what, with, quantization: quantization.as_deref(), hub: None };
        match resolve(&offers, &ask, &Machine { fits, disk }) {
            Ok(Resolved::Pull(pull)) => {
                check_files(&pull.files);
                let known = pull.files.iter().filter_map(|file| file.bytes).sum::<u64>();
                prop_assert!(disk.is_none_or(|disk| known <= disk || pull.variant.is_none()));
            }
            Ok(Resolved::Ask(question)) => {
                prop_assert!(super::check::is_repository(&question.repository));
                prop_assert!(question.revision.is_none_or(|revision| super::check::is_revision(&revision)));
            }
            Err(error) => prop_assert!(error.to_string().lines().count() == 1, "{error}"),
        }
    }

    #[test]
    fn whatever_is_listed(paths in prop::collection::vec(prop_oneof![typed(), "[a-z]{1,3}-(Q4_0|mmproj|mtp)(-0000[0-3]-of-0000[0-3])?\\.gguf"], 0..12)) {
        let question = Question { repository: "a/b".into(), revision: None, part: None, with: None };
        let listed: Vec<_> = paths.into_iter().map(|path| Listed { path, bytes: None, sha256: None }).collect();
        if let Ok(pull) = choose(&question, &listed) {
            check_files(&pull.files);
        }
    }

    #[test]
    fn whatever_is_written(text in ".{0,200}") {
        if let Ok(catalog) = parse(&text) {
            let _ = Offers::built_in().add(catalog);
        }
    }
}
