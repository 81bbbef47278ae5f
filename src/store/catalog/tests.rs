use super::*;

fn offers() -> Offers {
    Offers::built_in()
}

fn all() -> Machine {
    let mut fits = Variant::PUBLISHED.to_vec();
    fits.reverse();
    Machine { fits, disk: None }
}

fn ask(what: &str) -> Ask<'_> {
    Ask {
        what,
        with: None,
        quantization: None,
        hub: None,
    }
}

fn pulled(what: &str) -> Pull {
    pulled_as(&ask(what), &all()).unwrap_or_else(|error| panic!("{what}: {error}"))
}

fn pulled_as(ask: &Ask<'_>, machine: &Machine) -> Result<Pull, String> {
    match resolve(&offers(), ask, machine) {
        Ok(Resolved::Pull(pull)) => Ok(pull),
        Ok(Resolved::Ask(question)) => Err(format!("asks {question:?}")),
        Err(error) => Err(error.to_string()),
    }
}

fn refusal(what: &str) -> String {
    pulled_as(&ask(what), &all()).unwrap_err()
}

fn names(pull: &Pull) -> Vec<&str> {
    pull.files.iter().map(|file| file.name.as_str()).collect()
}

#[test]
fn what_is_compiled_in_is_whole() {
    let text = parse(crate::store::family::FAMILY).unwrap();
    let built_in = offers();
    assert_eq!(text.repositories.len(), built_in.repositories.len());
    let mut again = Offers {
        variants: text.variants.clone(),
        ..Offers::default()
    };
    again
        .add(CatalogText {
            variants: vec![],
            ..text
        })
        .unwrap();
    let entries: Vec<_> = built_in.entries().collect();
    assert!(entries.len() >= 12);
    for variant in Variant::PUBLISHED {
        let first = entries
            .iter()
            .find(|entry| entry.variant() == variant)
            .unwrap();
        assert_eq!(first.file.quantization, "Q4_0", "{variant}");
        assert!(first.repository.name.starts_with("google/"));
        assert!(
            first.projector.is_some() && first.drafter.is_some(),
            "{variant}"
        );
        // About what the figures say; the types of a few tensors differ.
        let weights = built_in.published(variant).unwrap().figures.weights();
        let bytes = first.file.bytes.unwrap();
        assert!(
            bytes.abs_diff(weights) < weights / 6,
            "{variant}: {bytes} {weights}"
        );
    }
    for entry in &entries {
        let id = entry.id();
        assert_eq!(
            entries.iter().filter(|other| other.id() == id).count(),
            1,
            "{id}"
        );
    }
    // A pinned file with a known size has its hash, or the hub is asked.
    for repository in &built_in.repositories {
        assert!(repository.revision.is_some(), "{}", repository.name);
        assert!(
            repository
                .files
                .iter()
                .filter(|file| file.sha256.is_none())
                .count()
                <= 1
        );
    }
}

#[test]
fn a_variant_by_any_of_its_names() {
    for what in [
        "e2b",
        "E2B",
        "gemma-4-e2b",
        "gemma4:e2b",
        "library/gemma4:e2b",
        "gemma-4-e2b-it-qat",
        "gemma4:e2b-it-q4_0",
        "gemma-4-e2b_q4_0-it",
        "gemma-4-E2B_q4_0-it.gguf",
        "google/gemma-4-E2B-it-qat-q4_0-gguf",
        "GOOGLE/gemma-4-e2b-it-qat-q4_0-gguf",
        "hf.co/google/gemma-4-E2B-it-qat-q4_0-gguf",
        "hf.co/google/gemma-4-E2B-it-qat-q4_0-gguf:Q4_0",
        "https://huggingface.co/google/gemma-4-E2B-it-qat-q4_0-gguf",
        "https://huggingface.co/google/gemma-4-E2B-it-qat-q4_0-gguf/resolve/675cff42a74c774d6cb76f76d8eacb49b48c9b93/gemma-4-E2B_q4_0-it.gguf",
    ] {
        let pull = pulled(what);
        assert_eq!(pull.id, "gemma-4-e2b_q4_0-it", "{what}");
        assert_eq!(
            names(&pull),
            [
                "gemma-4-E2B_q4_0-it.gguf",
                "gemma-4-E2B-it-mmproj.gguf",
                "mtp-gemma-4-E2B-it.gguf"
            ],
            "{what}"
        );
        assert!(
            pull.files
                .iter()
                .all(|file| file.bytes.is_some() && file.sha256.is_some())
        );
        let places = Resolved::Pull(pull).places();
        assert_eq!(places.len(), 2, "{places:?}");
    }
}

#[test]
fn a_type_of_weights_by_name_or_option() {
    for (what, quantization) in [
        ("e2b", Some("UD-Q4_K_XL")),
        ("e2b", Some("q4_k_xl")),
        ("gemma4:e2b-ud-q4_K_XL", None),
        ("gemma-4-e2b-it-qat-ud-q4_k_xl", None),
        ("unsloth/gemma-4-E2B-it-qat-GGUF", None),
        ("unsloth/gemma-4-E2B-it-qat-GGUF:UD-Q4_K_XL", None),
        (
            "unsloth/gemma-4-E2B-it-qat-GGUF:gemma-4-E2B-it-qat-UD-Q4_K_XL.gguf",
            None,
        ),
    ] {
        let found = pulled_as(
            &Ask {
                quantization,
                ..ask(what)
            },
            &all(),
        )
        .unwrap();
        assert_eq!(found.id, "gemma-4-e2b-it-qat-ud-q4_k_xl", "{what}");
    }
    let none = pulled_as(
        &Ask {
            quantization: Some("Q8_0"),
            ..ask("e2b")
        },
        &all(),
    )
    .unwrap_err();
    assert!(
        none.contains("no catalog has gemma-4-e2b as Q8_0; there is Q4_0 (google/"),
        "{none}"
    );
    let file = Ask {
        quantization: Some("Q8_0"),
        ..ask("gemma-4-e2b_q4_0-it")
    };
    let said = pulled_as(&file, &all()).unwrap_err();
    assert!(
        said.contains("leave --quant out") && said.contains("gemma-4-e2b"),
        "{said}"
    );
}

#[test]
fn what_belongs_to_a_model_is_chosen_or_left_out() {
    let with = |text: &str, what| {
        let with = Some(With::parse(text).unwrap());
        pulled_as(&Ask { with, ..ask(what) }, &all())
    };
    assert_eq!(
        names(&with("none", "e2b").unwrap()),
        ["gemma-4-E2B_q4_0-it.gguf"]
    );
    assert_eq!(with("drafter", "e2b").unwrap().files[1].role, Role::Drafter);
    assert_eq!(with("audio", "e2b").unwrap().files[1].role, Role::Projector);
    assert_eq!(with("vision,audio", "12b").unwrap().files.len(), 2);
    assert!(with("audio", "26b").unwrap_err().contains("hears nothing"));
    assert!(
        with("drafter", "ggml-org/gemma-4-E4B-it-GGUF")
            .unwrap_err()
            .contains("no drafter is known")
    );
    assert!(With::parse("smell").unwrap_err().contains("\"smell\""));
    // The disk has room for the model, and for the drafter.
    let machine = Machine {
        disk: Some(3_500_000_000),
        ..all()
    };
    let pull = pulled_as(&ask("e2b"), &machine).unwrap();
    assert_eq!(pull.left_out, [Role::Projector]);
    assert_eq!(pull.files.len(), 2);
    let asked = Ask {
        with: Some(With::ALL),
        ..ask("e2b")
    };
    let said = pulled_as(&asked, &machine).unwrap_err();
    assert!(said.contains("3500000000 are free"), "{said}");
}

#[test]
fn auto_takes_the_best_that_memory_and_disk_can_hold() {
    let auto = |fits: &[Variant], disk| {
        let machine = Machine {
            fits: fits.to_vec(),
            disk,
        };
        pulled_as(&ask("auto"), &machine).map(|pull| pull.id)
    };
    let both = [Variant::B12, Variant::E2b];
    assert_eq!(auto(&both, None).unwrap(), "gemma-4-12b-it-qat-q4_0");
    // The smaller file of the larger variant, before the smaller variant.
    assert_eq!(
        auto(&both, Some(6_800_000_000)).unwrap(),
        "gemma-4-12b-it-qat-ud-q4_k_xl"
    );
    assert_eq!(
        auto(&both, Some(5_000_000_000)).unwrap(),
        "gemma-4-e2b_q4_0-it"
    );
    assert!(
        auto(&both, Some(1_000_000))
            .unwrap_err()
            .contains("1000000 are free")
    );
    assert!(auto(&[], None).unwrap_err().contains("memory plan"));
    assert_eq!(pulled("gemma4").id, "gemma-4-31b_q4_0-it");
}

#[test]
fn what_cannot_be_run_or_found_is_told() {
    for what in [
        "diffusiongemma",
        "DiffusionGemma-26B-A4B-it",
        "google/diffusiongemma-26B-A4B-it",
    ] {
        let said = refusal(what);
        assert!(
            said.contains("by diffusion, which llama.cpp cannot run"),
            "{what}: {said}"
        );
    }
    assert!(
        refusal("gema4:e2b").contains("did you mean `gemma4:e2b`"),
        "{}",
        refusal("gema4:e2b")
    );
    assert!(refusal("gemma-4-e2d").contains("`gemma-4-e2b`"));
    assert!(refusal("mistral").contains("gemmactl models --all"));
    assert!(refusal("").contains("1 to"));
    assert!(refusal("/models/x.gguf").contains("gemmactl import"));
    assert!(refusal("https://u:p@h.example/x.gguf").contains("without user"));
}

#[test]
fn addresses_and_other_repositories() {
    let pull = pulled("https://models.example/d/my%20model-Q4_0.gguf?k=1");
    assert_eq!(
        (pull.id.as_str(), names(&pull)),
        ("my-model-q4_0", vec!["my model-Q4_0.gguf"])
    );
    assert_eq!(pull.files[0].sha256, None);
    let question = |what: &str| match resolve(&offers(), &ask(what), &all()) {
        Ok(Resolved::Ask(question)) => question,
        other => panic!("{what}: {other:?}"),
    };
    assert_eq!(question("acme/gemma-4-E2B-GGUF").revision, None);
    // Another revision, or another file, of a repository that is known.
    let main = "https://huggingface.co/google/gemma-4-E2B-it-qat-q4_0-gguf/resolve/main/gemma-4-E2B_q4_0-it.gguf";
    assert_eq!(question(main).revision.as_deref(), Some("main"));
    let other = question("google/gemma-4-E2B-it-qat-q4_0-gguf:other.gguf");
    assert_eq!(
        other.revision.as_deref(),
        Some("675cff42a74c774d6cb76f76d8eacb49b48c9b93")
    );
}

fn listed(paths: &[&str]) -> Vec<Listed> {
    let one = |path: &&str| Listed {
        path: (*path).to_owned(),
        bytes: Some(7),
        sha256: Some([1; 32]),
    };
    paths.iter().map(one).collect()
}

fn chosen(what: &str, with: Option<With>, paths: &[&str]) -> Result<Vec<String>, String> {
    let ask = Ask { with, ..ask(what) };
    let Ok(Resolved::Ask(question)) = resolve(&offers(), &ask, &all()) else {
        panic!("{what}");
    };
    let pull = choose(&question, &listed(paths)).map_err(|error| error.to_string())?;
    assert_eq!(pull.bytes(), Some(7 * pull.files.len() as u64));
    Ok(pull.files.into_iter().map(|file| file.name).collect())
}

#[test]
fn a_repository_is_looked_through() {
    let files = [
        "README.md",
        "gemma-4-E2B-it-Q8_0.gguf",
        "gemma-4-E2B-it-Q4_K_M.gguf",
        "gemma-4-E2B-it-UD-Q4_K_XL.gguf",
        "mmproj-BF16.gguf",
        "mmproj-F16.gguf",
        "MTP/mtp-gemma-4-E2B-it-Q4_0.gguf",
        "imatrix.gguf",
        "../evil.gguf",
    ];
    let all = [
        "gemma-4-E2B-it-UD-Q4_K_XL.gguf",
        "mmproj-F16.gguf",
        "mtp-gemma-4-E2B-it-Q4_0.gguf",
    ];
    assert_eq!(chosen("a/b", None, &files).unwrap(), all);
    let none = With::parse("none").ok();
    assert_eq!(chosen("a/b:Q8_0", none, &files).unwrap(), [files[1]]);
    assert_eq!(
        chosen("a/b:gemma-4-E2B-it-Q4_K_M.gguf", none, &files).unwrap(),
        [files[2]]
    );
    let said = chosen("a/b:Q2_K", none, &files).unwrap_err();
    assert!(
        said.contains("a/b has no Q2_K; it has gemma-4-E2B-it-Q8_0.gguf"),
        "{said}"
    );
    assert!(
        chosen("a/b", None, &["x.safetensors"])
            .unwrap_err()
            .contains("no GGUF file")
    );
    let two = ["one-Q4_0.gguf", "two-Q4_0.gguf"];
    assert!(
        chosen("a/b", None, &two)
            .unwrap_err()
            .contains("more than one model")
    );
    assert_eq!(
        chosen("a/b:two-Q4_0.gguf", None, &two).unwrap(),
        ["two-Q4_0.gguf"]
    );
    assert!(
        chosen("a/b", Some(With::ALL), &two[..1])
            .unwrap_err()
            .contains("no projector")
    );
}

#[test]
fn a_model_in_parts_is_fetched_whole() {
    let part = |number| format!("big-Q4_0-0000{number}-of-00003.gguf");
    let parts = [part(2), part(3), part(1)];
    let paths: Vec<&str> = parts.iter().map(String::as_str).collect();
    let whole = [part(1), part(2), part(3)];
    assert_eq!(chosen("a/b", None, &paths).unwrap(), whole);
    assert_eq!(chosen("a/b:Q4_0", None, &paths).unwrap(), whole);
    assert_eq!(
        chosen(&format!("a/b:{}", part(2)), None, &paths).unwrap(),
        whole
    );
    assert!(
        chosen("a/b", None, &paths[1..])
            .unwrap_err()
            .contains("part 2 of 3")
    );
}

#[test]
fn a_catalog_may_name_parts() {
    let part = |number: u32| {
        format!(
            r#"
[[repository.file]]
name = "Q8_0/big-0000{number}-of-00003.gguf"
role = "model"
quantization = "Q8_0"
bytes = {}
sha256 = "{}"
"#,
            number * 10,
            number.to_string().repeat(64)
        )
    };
    let catalog = |numbers: &[u32]| {
        let head = "[[repository]]\nname = \"acme/big\"\nvariant = \"gemma-4-31b\"\nrevision = \"0123456789abcdef0123456789abcdef01234567\"\n";
        head.to_owned()
            + &numbers
                .iter()
                .map(|number| part(*number))
                .collect::<String>()
    };
    let mut offers = offers();
    let before = offers.entries().count();
    offers.add(parse(&catalog(&[3, 1, 2])).unwrap()).unwrap();
    assert_eq!(offers.entries().count(), before + 1);
    let entry = offers.entries().find(|entry| entry.id() == "big").unwrap();
    assert_eq!((entry.model_bytes(), entry.bytes()), (Some(60), Some(60)));
    for what in [
        "big",
        "acme/big",
        "acme/big:Q8_0",
        "acme/big:Q8_0/big-00002-of-00003.gguf",
    ] {
        let Ok(Resolved::Pull(pull)) = resolve(&offers, &ask(what), &all()) else {
            panic!("{what}");
        };
        let whole = [1, 2, 3].map(|number| format!("big-0000{number}-of-00003.gguf"));
        assert_eq!(
            (pull.id.as_str(), names(&pull)),
            ("big", whole.iter().map(String::as_str).collect::<Vec<_>>()),
            "{what}"
        );
        let known = pull.files.iter().map(|file| (file.bytes, file.sha256));
        let expected =
            [1u8, 2, 3].map(|number| (Some(u64::from(number) * 10), Some([number * 0x11; 32])));
        assert_eq!(known.collect::<Vec<_>>(), expected);
    }
    let problems = parse(&catalog(&[1, 3])).unwrap_err();
    assert_eq!(
        problems[0].text,
        "acme/big has no entry for part 2 of 3 of Q8_0/big"
    );
}

#[test]
fn parts_at_an_address_lie_together() {
    let address = |number: u32| {
        format!("https://h/a-00001-of-00002/x-0000{number}-of-00002.gguf?key=-00001-of-00002")
    };
    let Ok(Resolved::Pull(pull)) = resolve(&offers(), &ask(&address(2)), &all()) else {
        panic!();
    };
    let sources: Vec<_> = pull.files.iter().map(|file| file.source.clone()).collect();
    assert_eq!(sources, [1, 2].map(|number| Source::Url(address(number))));
    assert_eq!(
        (pull.id.as_str(), names(&pull)),
        ("x", vec!["x-00001-of-00002.gguf", "x-00002-of-00002.gguf"])
    );
    let many = resolve(&offers(), &ask("https://h/x-00001-of-00099.gguf"), &all());
    assert!(many.unwrap_err().to_string().contains("64"));
}

const DROP_IN: &str = r#"
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

mod on_the_disk {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    fn write(folder: &Path, name: &str, text: &str) {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    }

    fn read(folder: &Path, key: &str) -> Catalogs {
        read_all(Some(&Place { folder, key }))
    }

    #[test]
    fn a_broken_catalog_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        assert_eq!(read(&path.join("none"), "").offers(), offers());
        write(path, "a.toml", "[[repository]]\nname = 7\n");
        write(path, "b.toml", DROP_IN);
        write(path, ".c.toml", "]");
        write(path, "d.txt", "]");
        let found = read(path, "");
        assert_eq!(found.broken.len(), 1, "{:?}", found.broken);
        assert!(found.broken[0].path.ends_with("a.toml"));
        assert!(
            found.broken[0].reason.starts_with("line 2: "),
            "{:?}",
            found.broken
        );
        assert!(found.offers().repository("acme/tiny").is_some());
        let large = format!("#{}", "x".repeat(1 << 20));
        write(path, "a.toml", &large);
        assert!(read(path, "").broken[0].reason.contains("longer than"));
        fs::set_permissions(path.join("a.toml"), fs::Permissions::from_mode(0o646)).unwrap();
        let found = read(path, "");
        assert!(
            found.broken[0].reason.contains("everyone may change"),
            "{:?}",
            found.broken
        );
    }

    /// Made with minisign for the file beside it.
    const KEY: &str = include_str!("../../../tests/data/catalog/key.pub.txt");

    #[test]
    fn a_signature_is_wanted_where_there_is_a_key() {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/catalog");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let text = fs::read_to_string(data.join("signed.toml")).unwrap();
        let signature = fs::read_to_string(data.join("signed.toml.minisig")).unwrap();
        write(path, "signed.toml", &text);
        let key = KEY.trim();
        assert!(
            read(path, key).broken[0]
                .reason
                .contains("wants a signature")
        );
        write(path, "signed.toml.minisig", &signature);
        let found = read(path, key);
        assert_eq!(found.broken, []);
        assert!(found.offers().repository("acme/signed").is_some());
        write(path, "signed.toml", &format!("{text}\n"));
        assert!(
            read(path, key).broken[0]
                .reason
                .contains("is not the signature")
        );
        write(path, "signed.toml.minisig", "nonsense");
        assert!(read(path, key).broken[0].reason.contains("no signature"));
        assert!(
            read(path, "x").broken[0]
                .reason
                .contains("`catalog-key` in gemmad.toml")
        );
        // Without a key none is looked at.
        assert_eq!(read(path, "").broken, []);
    }
}
