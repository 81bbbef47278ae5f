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
        models,
        inference,
        memory,
        limits,
        installers: Default::default(),
        reserved: Default::default(),
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

/// What is chosen one after the other for a request that can have none of them, and the failure
/// at the end.
fn chain(
    models: &[Model],
    name: &str,
    modalities: Modalities,
    first: &Model,
    bytes: u64,
) -> (Vec<String>, Failure) {
    let mut wanted = setup().model_request(models, name, modalities, first);
    let mut chosen = vec![];
    loop {
        match setup().choose_another(models, &wanted, &budget(bytes), damaged()) {
            Ok((model, next)) => {
                assert!(next.takes <= wanted.takes && next.model == model.id && next.flexible);
                chosen.push(model.id);
                wanted = next;
            }
            Err(failure) => return (chosen, failure),
        }
    }
}

#[test]
fn each_choice_takes_no_more_than_the_one_before() {
    let models = family(&[]);
    let chain = |first, bytes| {
        chain(
            &models,
            "auto",
            Modalities::default(),
            of(&models, first),
            bytes,
        )
    };
    let ids = |ids: &[&str]| {
        ids.iter()
            .map(|id| format!("gemma-4-{id}-q4"))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        chain(Variant::B31, 63 * GIB),
        (ids(&["26b-a4b", "e4b", "e2b"]), damaged())
    );
    assert_eq!(
        chain(Variant::B31, 7 * GIB / 2),
        (ids(&["e4b", "e2b"]), damaged())
    );
    assert_eq!(chain(Variant::E4b, 2 * GIB), (ids(&["e2b"]), damaged()));
    assert_eq!(
        chain(Variant::E2b, 63 * GIB),
        (vec![], damaged()),
        "the others take more"
    );
    let (chosen, failure) = chain(Variant::B31, GIB);
    assert!(
        chosen.is_empty()
            && matches!(&failure, Failure::NoRoom { model, .. } if *model == ids(&["e2b"])[0]),
        "{failure}"
    );
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
    assert!(seeing(7 * GIB / 4).0.is_empty() && needs(seeing(7 * GIB / 4).1) > 7 * GIB / 4);
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
