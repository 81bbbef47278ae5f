use super::*;
use crate::config::{Inference, Limits, Memory, Models};
use crate::memory::probe::{Bound, Room};
use crate::store::Projector;
use crate::store::family::published;

const GIB: u64 = 1 << 30;

fn setup() -> Setup {
    let (models, inference, memory, limits) = (
        Models::default(),
        Inference::default(),
        Memory::default(),
        Limits::default(),
    );
    Setup {
        cache_space: Default::default(),
        prompts: Default::default(),
        unsound: Default::default(),
        catalogs: Default::default(),
        models,
        inference,
        memory,
        limits,
        installers: Default::default(),
        reserved: Default::default(),
        pull: Default::default(),
        pull_socket: Default::default(),
        worker: "worker".into(),
    }
}

fn budget(bytes: u64) -> Budget {
    Budget {
        bytes,
        reserve: 0,
        room: Room {
            free: bytes,
            bound: Bound::Machine,
            whole: bytes,
        },
    }
}

/// The family, installed; those of `seeing` with a projector.
fn family(seeing: &[Variant]) -> Vec<Model> {
    let model = |one: crate::store::family::Published| {
        let path = format!("/m/{}-q4.gguf", one.variant);
        let projector = Projector {
            path: "/m/mmproj.gguf".into(),
            size: GIB / 2,
            width: one.figures.width,
            longest_side: 1600,
            hearing: None,
            name: String::new(),
        };
        let projector = seeing.contains(&one.variant).then_some(projector);
        Model {
            variant: one.variant,
            figures: one.figures,
            context_limit: one.context_limit,
            projector,
            ..Model::example(&path)
        }
    };
    published().into_iter().map(model).collect()
}

fn of(models: &[Model], variant: Variant) -> &Model {
    models
        .iter()
        .find(|model| model.variant == variant)
        .unwrap()
}

fn damaged() -> Failure {
    Failure::BadModel {
        model: "m".into(),
        reason: "damaged".into(),
    }
}

fn starved() -> Failure {
    Failure::OutOfMemory {
        cause: "SIGKILL".into(),
    }
}

/// What is chosen one after the other for a request that can have none of them, because all are
/// damaged, and the failure at the end.
fn chain(
    models: &[Model],
    name: &str,
    modalities: Modalities,
    first: &Model,
    bytes: u64,
) -> (Vec<String>, Failure) {
    chain_of(models, name, modalities, first, bytes, damaged)
}

/// [`chain`], for another reason.
fn chain_of(
    models: &[Model],
    name: &str,
    modalities: Modalities,
    first: &Model,
    bytes: u64,
    failure: fn() -> Failure,
) -> (Vec<String>, Failure) {
    let mut wanted = setup().model_request(models, name, modalities, first);
    let mut chosen = vec![];
    loop {
        match setup().choose_another(models, &wanted, &budget(bytes), failure()) {
            Ok((model, next)) => {
                assert!(next.takes <= wanted.takes || !failure().is_of_memory());
                assert!(next.model == model.id && next.flexible);
                chosen.push(model.id);
                wanted = next;
            }
            Err(failure) => return (chosen, failure),
        }
    }
}

/// The failure at the end of a chain.
enum End {
    /// The one that it was about.
    Same,
    /// That this one has no room.
    NoRoom(&'static str),
}

#[test]
fn the_next_best_that_fits_is_chosen_and_where_memory_was_missing_none_that_takes_more() {
    let models = family(&[]);
    let (plenty, some, little) = (63 * GIB, 7 * GIB / 2, 2 * GIB);
    let table = [
        (
            Variant::B31,
            plenty,
            damaged as fn() -> _,
            &["26b-a4b", "12b", "e4b", "e2b"][..],
            End::Same,
        ),
        (Variant::B31, some, damaged, &["e4b", "e2b"], End::Same),
        // Also larger ones, as far as they fit.
        (
            Variant::E2b,
            plenty,
            damaged,
            &["31b", "26b-a4b", "12b", "e4b"],
            End::Same,
        ),
        (
            Variant::E4b,
            plenty,
            damaged,
            &["31b", "26b-a4b", "12b", "e2b"],
            End::Same,
        ),
        (Variant::E2b, some, damaged, &["e4b"], End::Same),
        (Variant::E4b, little, damaged, &["e2b"], End::Same),
        // That larger ones have no room is not why the small one cannot be had.
        (Variant::E2b, little, damaged, &[], End::Same),
        (Variant::B31, GIB, damaged, &[], End::Same),
        (
            Variant::B31,
            plenty,
            starved,
            &["26b-a4b", "e4b", "e2b"],
            End::Same,
        ),
        (Variant::E4b, plenty, starved, &["e2b"], End::Same),
        (Variant::E2b, plenty, starved, &[], End::Same),
        (Variant::B31, GIB, starved, &[], End::NoRoom("e2b")),
    ];
    for (first, bytes, failure, ids, end) in table {
        let case = format!(
            "{first} cannot be had, {bytes} bytes are free: {}",
            failure()
        );
        let id = |id: &&str| format!("gemma-4-{id}-q4");
        let all = Modalities::default();
        let (chosen, last) = chain_of(&models, "auto", all, of(&models, first), bytes, failure);
        assert_eq!(chosen, ids.iter().map(id).collect::<Vec<_>>(), "{case}");
        match end {
            End::Same => assert_eq!(last, failure(), "{case}"),
            End::NoRoom(least) => assert!(
                matches!(&last, Failure::NoRoom { model, .. } if *model == id(&least)),
                "{case}: {last}"
            ),
        }
    }
}

#[test]
fn none_is_chosen_twice_of_models_that_take_the_same() {
    let mut models = family(&[]);
    models.retain(|model| model.variant == Variant::E2b);
    for id in ["twin-a", "twin-b"] {
        let twin = Model {
            id: id.into(),
            ..models[0].clone()
        };
        models.push(twin);
    }
    let (mut chosen, failure) = chain(&models, "auto", Modalities::default(), &models[0], 63 * GIB);
    chosen.sort();
    assert_eq!(
        (chosen, failure),
        (vec!["twin-a".to_owned(), "twin-b".to_owned()], damaged())
    );
}

#[test]
fn modalities_are_kept() {
    let image = Modalities {
        image: true,
        audio: false,
    };
    let models = family(&[Variant::B31, Variant::E2b]);
    let seeing = |bytes| chain(&models, "auto", image, of(&models, Variant::B31), bytes);
    assert_eq!(
        seeing(63 * GIB).0,
        ["gemma-4-e2b-q4"],
        "not the larger ones, which see nothing"
    );
    // Without its projector it would fit.
    let needs = |failure: Failure| {
        if let Failure::NoRoom { needs, .. } = failure {
            needs
        } else {
            0
        }
    };
    let first = of(&models, Variant::B31);
    let (chosen, failure) = chain_of(&models, "auto", image, first, 7 * GIB / 4, starved);
    assert!(chosen.is_empty() && needs(failure) > 7 * GIB / 4);
    let deaf = Modalities {
        image: true,
        audio: true,
    };
    assert_eq!(
        chain(&models, "auto", deaf, of(&models, Variant::B31), 63 * GIB),
        (vec![], damaged())
    );
}

#[test]
fn a_name_means_what_it_means_still() {
    let mut models = family(&[]);
    let mut large = of(&models, Variant::E4b).clone();
    (large.id, large.figures.layers) = ("gemma-4-e4b-q8".into(), 2 * large.figures.layers);
    models.push(large.clone());
    let chain = |name| chain(&models, name, Modalities::default(), &large, 63 * GIB).0;
    assert_eq!(
        chain("gemma-4-e4b"),
        ["gemma-4-e4b-q4"],
        "of the variant that was named"
    );
    assert_eq!(chain("gemma-4-e4b-q8"), [""; 0]);
    assert!(
        !setup()
            .model_request(&models, "Gemma-4-E4B-Q8", Modalities::default(), &large)
            .flexible
    );
}

#[test]
fn a_prompt_that_is_too_long_goes_to_a_model_that_can_have_the_context() {
    let models = family(&[]);
    let (plenty, some) = (63 * GIB, 4 * GIB);
    let chosen = |first, tokens, bytes| {
        let failure = Failure::Chat(ChatError::PromptTooLong {
            prompt_tokens: tokens,
            context_tokens: 0,
            ceiling: 0,
            sound_tokens: 0,
        });
        let all = Modalities::default();
        let wanted = setup().model_request(&models, "auto", all, of(&models, first));
        let another = setup().choose_another(&models, &wanted, &budget(bytes), failure.clone());
        another
            .map(|(model, _)| model.variant)
            .map_err(|last| assert_eq!(last, failure))
            .ok()
    };
    let e4b = of(&models, Variant::E4b);
    let reach = setup().reach(e4b, Modalities::default(), &budget(some));
    assert!((10_000..100_000).contains(&reach), "{reach}");
    let fits = reach - ANSWER_ROOM;
    for (first, tokens, bytes, another) in [
        // The best of those that can have so much.
        (Variant::B31, fits, some, Some(Variant::E4b)),
        // A smaller one takes less for a token.
        (Variant::E4b, fits + 1, some, Some(Variant::E2b)),
        (Variant::B31, fits + 1, some, Some(Variant::E2b)),
        // More than the small ones were made for, and more than any was.
        (Variant::E2b, 140_000, some, None),
        (Variant::B31, 300_000, plenty, None),
        (Variant::E4b, 1_000, GIB, None),
    ] {
        let case = format!("{first}, {tokens} tokens, {bytes} bytes");
        assert_eq!(chosen(first, tokens, bytes), another, "{case}");
    }
}
