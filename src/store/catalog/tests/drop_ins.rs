//! Catalogs that an administrator adds.

use super::*;

pub(super) const DROP_IN: &str = r#"
[[repository]]
name = "acme/tiny"
variant = "gemma-4-e2b"

[[repository.file]]
name = "tiny-e2b-q8_0.gguf"
role = "model"
quantization = "Q8_0"
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
projector = "ggml-org/gemma-4-E2B-it-GGUF:mmproj-gemma-4-E2B-it-Q8_0.gguf"

[[allow]]
repositories = ["acme/*"]
groups = ["staff"]
"#;

#[test]
fn a_drop_in_adds_what_it_names() {
    let mut offers = offers();
    offers.add(parse(DROP_IN).unwrap()).unwrap();
    let found = |offers: &Offers, what: &str| match resolve(offers, &ask(what), &all()) {
        Ok(Resolved::Pull(pull)) => pull,
        other => panic!("{other:?}"),
    };
    let tiny = found(&offers, "tiny-e2b-q8_0");
    // A hash without a revision is not held against what is fetched.
    assert_eq!((tiny.files.len(), tiny.files[0].sha256), (2, None));
    assert_eq!(found(&offers, "e2b").id, "gemma-4-e2b_q4_0-it");
    let preferred = DROP_IN.replace("variant =", "preferred = true\nvariant =");
    offers.add(parse(&preferred).unwrap()).unwrap();
    assert_eq!(found(&offers, "e2b").id, "tiny-e2b-q8_0");
    assert!(offers.allow[0].names("acme/tiny"));
    let mirror = DROP_IN.replace("variant =", "url = \"https://m.example/x/\"\nvariant =");
    offers.add(parse(&mirror).unwrap()).unwrap();
    let mirrored = found(&offers, "tiny-e2b-q8_0");
    assert_eq!(
        mirrored.files[0].source,
        Source::Url("https://m.example/x/tiny-e2b-q8_0.gguf".into())
    );
    assert_eq!(mirrored.files[0].sha256, Some([0; 32]));
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let said = |text: &str| -> Vec<(Option<usize>, String)> {
        let catalog = match parse(text) {
            Ok(catalog) => offers().add(catalog),
            Err(problems) => Err(problems),
        };
        catalog
            .unwrap_err()
            .into_iter()
            .map(|problem| (problem.line, problem.text))
            .collect()
    };
    for (from, to, line, text) in [
        (
            "acme/tiny",
            "acme",
            3,
            "name is \"acme\"; allowed is OWNER/REPO",
        ),
        (
            "gemma-4-e2b\"",
            "gemma-4-e3b\"",
            4,
            "variant is \"gemma-4-e3b\"",
        ),
        (
            "tiny-e2b-q8_0.gguf",
            "../x.gguf",
            7,
            "the path of a GGUF file",
        ),
        (
            "\"model\"",
            "\"modell\"",
            8,
            "\"model\", \"projector\" or \"drafter\"",
        ),
        ("0000\"", "000\"", 10, "a SHA-256, in 64"),
        (
            "GGUF:mmproj",
            "GGUF:nope",
            11,
            "no catalog has the projector",
        ),
        ("[\"acme/*\"]", "[\"https://h*\"]", 13, "repositories has"),
        ("name = \"acme", "nam = \"acme", 3, "unknown field `nam`"),
        ("[[allow]]", "[[allow]", 13, ""),
    ] {
        let found = said(&DROP_IN.replacen(from, to, 1));
        assert_eq!(found[0].0, Some(line), "{found:?}");
        assert!(found[0].1.contains(text), "{found:?}");
    }
    let twice = format!("{DROP_IN}{DROP_IN}");
    assert!(said(&twice)[0].1.contains("two entries"));
    let more = DROP_IN.replace("role = \"model\"", "role = \"projector\"");
    assert!(said(&more)[0].1.contains("only a model has"));
    let replaced = "[[repository]]\nname = \"ggml-org/gemma-4-E4B-it-GGUF\"\nvariant = \"e4b\"\n";
    assert!(offers().add(parse(replaced).unwrap()).is_ok());
    let lacking = replaced.replace(
        "ggml-org/gemma-4-E4B-it-GGUF",
        "unsloth/gemma-4-E2B-it-qat-GGUF",
    );
    assert!(
        said(&lacking)[0]
            .1
            .contains("which google/gemma-4-E2B-it-qat-q4_0-gguf refers to")
    );
}
