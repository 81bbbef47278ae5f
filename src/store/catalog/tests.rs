mod drop_ins;
mod on_the_disk;

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
        "gemma-4-e2b_q4_0-it:latest",
        "hf.co/google/gemma-4-E2B-it-qat-q4_0-gguf:latest",
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
fn what_belongs_to_a_model_is_fetched_from_one_file_only() {
    let cut = [
        "gemma-4-E2B-it-Q4_0.gguf",
        "mmproj-F16-00001-of-00002.gguf",
        "mmproj-F16-00002-of-00002.gguf",
    ];
    assert_eq!(chosen("a/b", None, &cut).unwrap(), cut[..1]);
    let demanded = With {
        drafter: false,
        ..With::ALL
    };
    let refused = chosen("a/b", Some(demanded), &cut).unwrap_err();
    assert!(refused.contains("--merge"), "{refused}");
    let both = [cut[0], cut[1], cut[2], "mmproj-F32.gguf"];
    assert_eq!(
        chosen("a/b", Some(demanded), &both).unwrap(),
        [both[0], both[3]]
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
