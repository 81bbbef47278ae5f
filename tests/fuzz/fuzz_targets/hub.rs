//! What a hub says of a repository, against anything that a server may say: files are chosen that can be kept by
//! their names, or nothing is.
#![no_main]

use gemmad::store;
use gemmad::store::catalog::{Question, Source, choose, is_file_name};
use libfuzzer_sys::fuzz_target;

#[allow(dead_code, reason = "the supervisor uses more of it than this target")]
#[path = "../../../src/engine/pulls/hub.rs"]
mod hub;

const HUB: &str = "https://hub.example/";

fuzz_target!(|said: &[u8]| {
    let listing = match hub::read_listing(said) {
        Ok(listing) => listing,
        Err(reason) => {
            assert!(!reason.is_empty() && reason.len() < 1000);
            return;
        }
    };
    let question = Question {
        repository: "a/b".into(),
        revision: Some(listing.revision),
        part: None,
        with: None,
    };
    let pull = match choose(&question, &listing.files) {
        Ok(pull) => pull,
        Err(refused) => {
            assert!(refused.to_string().len() < 4000, "a reason as long as the list");
            return;
        }
    };
    assert!(!pull.files.is_empty() && !pull.id.contains('/'));
    for file in &pull.files {
        assert!(is_file_name(&file.name), "{file:?}");
        let Source::Hub { repository, revision, path } = &file.source else { panic!("{file:?}") };
        let revision = revision.as_deref().unwrap();
        let address = hub::file_address(HUB, repository, revision, path).unwrap();
        assert!(address.as_str().starts_with(&format!("{HUB}{repository}/resolve/{revision}/")), "{address}");
    }
});
