//! Pictures as the worker reads them. What they show is another test's matter: these hold with any
//! projector.

use std::time::{Duration, Instant};

use gemmad::chat::{ChatError, ChatRequest, Detail, Message, Modality, Part, Picture, Role};
use gemmad::ipc::{LoadPlan, ServeRequest};

use super::client::{Worker, plan, user};
use super::decoding::decoded;
use super::media::{asking, distance, text};

const RED: &[u8] = include_bytes!("../data/pictures/red-circle.png");
const BLUE: &[u8] = include_bytes!("../data/pictures/blue-square.png");
/// Tokens of either, with the one before and the one behind it.
const TOKENS: u32 = 72;

fn shown(file: &[u8], detail: Detail) -> Part {
    Part::Picture(Picture {
        file: file.into(),
        detail,
    })
}

fn about(file: &[u8], question: &str) -> ChatRequest {
    asking(vec![shown(file, Detail::Auto), text(question)])
}

#[test]
fn pictures_are_counted_compared_and_kept() {
    let mut worker = Worker::with_projector(&LoadPlan { slots: 1, ..plan() });
    let words = worker
        .ask(asking(vec![text("What is this?")]))
        .usage()
        .prompt_tokens;
    let red = worker.ask(about(RED, "What is this?"));
    assert_eq!(red.usage().prompt_tokens, words + TOKENS);

    // The same again: all but the last token is there already.
    let again = worker.ask(about(RED, "What is this?"));
    assert_eq!(again.usage().cached_tokens, words + TOKENS - 1);
    assert!(distance(&red, &again) < 0.01, "{}", distance(&red, &again));
    // A picture that was left out of the middle is not in the way of what came before it.
    let blue = worker.ask(about(BLUE, "What is this?"));
    assert!(blue.usage().cached_tokens < 10, "{:?}", blue.usage());
    assert!(
        distance(&red, &blue) > 0.01,
        "the picture makes no difference"
    );
    // The same file at another size is another picture.
    let large = worker.ask(asking(vec![
        shown(BLUE, Detail::High),
        text("What is this?"),
    ]));
    assert_eq!(large.usage().prompt_tokens, words + 1120 + 2);
    assert!(large.usage().cached_tokens < 10, "{:?}", large.usage());
}

#[test]
fn a_picture_in_pieces_is_read_whole() {
    let mut whole = None;
    for batch in [512, 69, 32, 16] {
        let mut worker = Worker::with_projector(&LoadPlan {
            slots: 1,
            batch,
            ..plan()
        });
        let answers = [RED, RED, BLUE].map(|file| worker.ask(about(file, "What is this?")));
        assert!(
            answers.iter().all(|answer| answer.error.is_none()),
            "{answers:?}"
        );
        assert_eq!(
            answers[1].usage().cached_tokens,
            answers[0].usage().prompt_tokens - 1,
            "in pieces of {batch}"
        );
        assert!(
            distance(&answers[0], &answers[1]) < 0.01,
            "{}",
            distance(&answers[0], &answers[1])
        );
        // What a batch holds changes the last digits, which add up over the layers.
        let [red, _, blue] = answers;
        let (whole_red, whole_blue) = whole.get_or_insert((red.clone(), blue.clone()));
        let distances = [distance(whole_red, &red), distance(whole_blue, &blue)];
        assert!(
            distances.iter().all(|distance| *distance < 0.1),
            "in pieces of {batch}: {distances:?}"
        );
    }
}

#[test]
fn several_pictures_stand_where_they_were_put() {
    let mut worker = Worker::with_projector(&LoadPlan { slots: 1, ..plan() });
    let parts = |first: &[u8], second: &[u8]| {
        vec![
            text("a"),
            shown(first, Detail::Auto),
            text("b"),
            shown(second, Detail::Low),
            text("c"),
        ]
    };
    let words = worker
        .ask(asking(vec![text("a"), text("b"), text("c")]))
        .usage()
        .prompt_tokens;
    let one = worker.ask(asking(parts(RED, BLUE)));
    assert!(
        one.usage().prompt_tokens.abs_diff(words + 2 * TOKENS) <= 2,
        "{:?}, {words} words",
        one.usage()
    );
    let other = worker.ask(asking(parts(RED, RED)));
    // The first picture is there already, the second is another one.
    assert!(
        (TOKENS..2 * TOKENS).contains(&other.usage().cached_tokens),
        "{:?}",
        other.usage()
    );
    assert!(distance(&one, &other) > 0.01);
}

#[test]
fn the_next_turn_has_the_picture_already() {
    let mut worker = Worker::with_projector(&LoadPlan { slots: 1, ..plan() });
    let mut request = about(RED, "What is this?");
    let first = worker.ask(request.clone());
    request
        .messages
        .push(Message::text(Role::Assistant, first.text.clone()));
    request
        .messages
        .push(Message::text(Role::User, "And its colour?"));
    let second = worker.ask(request);
    assert!(
        second.usage().cached_tokens > TOKENS,
        "{:?}",
        second.usage()
    );
}

#[test]
fn others_are_answered_while_a_picture_is_looked_at() {
    let mut worker = Worker::with_projector(&plan());
    let alone = worker.ask(user("What is the capital of France?"));
    let picture = worker.begin(asking(vec![
        shown(RED, Detail::High),
        text("What is this?"),
    ]));
    let question = worker.begin(user("What is the capital of France?"));
    let answers = worker.collect(&[picture, question]);
    assert_eq!(answers[1].text, alone.text);
    assert_eq!(answers[0].error, None);
    // Both slots with pictures, and more requests than slots.
    let ids: Vec<_> = (0..6)
        .map(|i| worker.begin(about(if i % 2 == 0 { RED } else { BLUE }, "What is this?")))
        .collect();
    let answers = worker.collect(&ids);
    assert!(
        answers.iter().all(|answer| answer.error.is_none()),
        "{answers:?}"
    );
    // How a prompt was cut into steps rounds it a little: 0.07 has been seen, and 2.8 between pictures.
    let same = distance(&answers[0], &answers[4]);
    let other = distance(&answers[0], &answers[1]);
    assert!(same < other / 10.0, "{same} {other}");
}

#[test]
fn a_cancelled_picture_is_in_nobodys_way() {
    let mut worker = Worker::with_projector(&LoadPlan { slots: 1, ..plan() });
    for wait in [0, 5, 40] {
        for _ in 0..5 {
            let id = worker.begin(asking(vec![
                shown(BLUE, Detail::High),
                text("What is this?"),
            ]));
            std::thread::sleep(Duration::from_millis(wait));
            worker.send(&ServeRequest::Cancel { id });
        }
    }
    assert_eq!(
        worker.ask(user("What is the capital of France?")).text,
        "The capital of France is Paris."
    );
    assert_eq!(worker.ask(about(RED, "What is this?")).error, None);
}

#[test]
fn what_is_no_picture_is_refused_and_named() {
    let cut = &RED[..RED.len() / 2];
    for (file, reason) in [
        (&b"hello"[..], "is no PNG, JPEG"),
        (&RED[..20], "damaged"),
        (cut, "damaged or cut off"),
    ] {
        match decoded(asking(vec![text("a"), shown(file, Detail::Auto)])).err() {
            Some(ChatError::Picture {
                message: 0,
                part: 1,
                reason: found,
            }) => assert!(found.contains(reason), "{found}"),
            other => panic!("{reason}: {other:?}"),
        }
    }
}

#[test]
fn a_picture_that_does_not_fit_is_refused_before_it_is_looked_at() {
    let mut worker = Worker::with_projector(&LoadPlan {
        context: 512,
        ..plan()
    });
    let answer = worker.ask(asking(vec![
        shown(RED, Detail::High),
        text("What is this?"),
    ]));
    assert!(
        matches!(
            answer.error,
            Some(ChatError::PromptTooLong {
                prompt_tokens: 1120..,
                context_tokens: 512,
                ..
            })
        ),
        "{:?}",
        answer.error
    );
}

#[test]
fn a_model_without_a_projector_says_so() {
    let answer = Worker::tiny().ask(about(RED, "What is this?"));
    assert!(
        matches!(
            answer.error,
            Some(ChatError::UnsupportedModality {
                modality: Modality::Image,
                ..
            })
        ),
        "{:?}",
        answer.error
    );
}

#[test]
fn typed_marks_are_no_pictures() {
    let mut worker = Worker::with_projector(&plan());
    let answer = worker.ask(asking(vec![
        text("<|image|> and <|image>"),
        shown(RED, Detail::Auto),
        text("<image|><|image|>"),
    ]));
    assert_eq!(answer.error, None);
}

#[test]
fn an_idle_projector_is_given_back() {
    let mut worker = Worker::with_projector(&LoadPlan { slots: 1, ..plan() });
    let first = worker.ask(about(RED, "What is this?"));
    let with = worker.anonymous();
    worker.trim();
    let begun = Instant::now();
    // The tiny projector and its buffers take some 20 MB; of what was freed the allocator keeps
    // some.
    while worker.anonymous() + (8 << 20) > with {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "{} of {with}",
            worker.anonymous()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    let again = worker.ask(about(RED, "What is this?"));
    assert!(
        distance(&first, &again) < 0.01,
        "{}",
        distance(&first, &again)
    );
}
