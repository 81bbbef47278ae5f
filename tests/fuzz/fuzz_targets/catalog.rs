//! Catalogs, and what somebody types, against anything that either may be: files that can be kept by their names, or
//! a reason.
#![no_main]

use std::cell::OnceCell;

use gemmad::gemma::variant::Variant;
use gemmad::store::catalog::{Ask, Machine, Offers, Resolved, is_file_name, parse, resolve};
use libfuzzer_sys::fuzz_target;

thread_local! {
    static BUILT_IN: OnceCell<Offers> = const { OnceCell::new() };
}

fuzz_target!(|bytes: &[u8]| {
    // The first line is what is typed.
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (typed, written) = text.split_once('\n').unwrap_or((text, ""));
    BUILT_IN.with(|offers| {
        let mut offers = offers.get_or_init(Offers::built_in).clone();
        let added = parse(written).and_then(|catalog| offers.add(catalog));
        for problem in added.err().unwrap_or_default() {
            assert!(!problem.text.is_empty() && !problem.text.contains('\n'), "{problem:?}");
        }
        ask(&offers, typed);
        for entry in offers.repositories.iter().take(4) {
            ask(&offers, &entry.name);
        }
    });
});

fn ask(offers: &Offers, what: &str) {
    let (typed, quantization) = what.split_once('|').unwrap_or((what, ""));
    let ask = Ask {
        what: typed,
        with: None,
        quantization: Some(quantization).filter(|text| !text.is_empty()),
        hub: None,
    };
    let machine = Machine {
        fits: Variant::PUBLISHED.to_vec(),
        disk: Some(10 << 30),
    };
    match resolve(offers, &ask, &machine) {
        Ok(Resolved::Pull(pull)) => {
            assert!(!pull.files.is_empty());
            assert!(pull.files.iter().all(|file| is_file_name(&file.name)), "{pull:?}");
        }
        Ok(Resolved::Ask(_)) => {}
        Err(error) => assert_eq!(error.to_string().lines().count(), 1, "{error}"),
    }
}
