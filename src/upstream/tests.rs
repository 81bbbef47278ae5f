use std::time::Duration;

use super::*;
use crate::config::{Keeps, UpstreamModel};

fn settings(name: &str) -> config::Upstream {
    config::Upstream {
        name: name.into(),
        url: "http://127.0.0.1:1/v1".into(),
        models: vec![UpstreamModel {
            asked: "gemma-big".into(),
            theirs: "google/gemma-big".into(),
        }],
        users: vec!["anna".into()],
        keeps: Some(Keeps::Nothing),
        ..config::Upstream::default()
    }
}

/// With a worker that does not exist. The user 1000 is anna.
fn upstreams(settings: &[config::Upstream]) -> Upstreams {
    let way = Way {
        worker: "/nonexistent/worker".into(),
        socket: "/nonexistent/socket".into(),
    };
    let rights: Rights = Arc::new(|who: PrincipalId, users: Vec<String>, _| {
        let is_anna = who.uid() == Some(1000) && users.contains(&"anna".to_owned());
        async move { Some(is_anna) }.boxed()
    });
    Upstreams::new(settings, way, rights)
}

/// With lists of users that answer so, and how often they were asked.
fn with_lists(answer: Option<bool>) -> (Upstreams, Arc<AtomicU32>) {
    let asked = Arc::new(AtomicU32::new(0));
    let counted = asked.clone();
    let rights: Rights = Arc::new(move |_, _, _| {
        counted.fetch_add(1, Ordering::Relaxed);
        async move { answer }.boxed()
    });
    let all = upstreams(&[settings("named")]);
    (Upstreams { rights, ..all }, asked)
}

#[tokio::test]
async fn lists_are_asked_once_a_minute() {
    let anna = PrincipalId::User(1000);
    let (all, asked) = with_lists(Some(true));
    for _ in 0..3 {
        all.meet(anna, Some("gemma-big")).await;
        all.meet(anna, Some("another")).await;
        assert!(all.takes(anna, "gemma-big", Why::Named));
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    // What does not answer gives nobody anything.
    let (all, _) = with_lists(None);
    all.meet(anna, None).await;
    assert!(!all.takes(anna, "gemma-big", Why::Named));
    let everybody = config::Upstream {
        users: vec!["*".into()],
        ..settings("open")
    };
    let (all, asked) = with_lists(None);
    all.set(&[everybody]);
    all.meet(anna, None).await;
    assert!(all.takes(anna, "gemma-big", Why::Named));
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn only_those_whom_the_policy_names_may_ask_and_only_for_what_it_names() {
    let mut failover = settings("failover");
    failover.failover = true;
    let mut overflow = settings("overflow");
    overflow.overflow = 3;
    let (anna, bert) = (PrincipalId::User(1000), PrincipalId::User(1001));
    let token = PrincipalId::Token { id: 1, owner: 1000 };
    let met = async |settings: config::Upstream| {
        let all = upstreams(&[settings]);
        for who in [anna, bert, token] {
            all.meet(who, None).await;
        }
        all
    };
    let named = met(settings("named")).await;
    assert!(named.takes(anna, "gemma-big", Why::Named));
    assert!(named.takes(token, "Gemma-Big", Why::Named));
    assert!(!named.takes(bert, "gemma-big", Why::Named));
    assert!(!named.takes(anna, "google/gemma-big", Why::Named));
    assert!(!named.takes(anna, "auto", Why::Failover));
    assert!(!named.takes(anna, "gemma-big", Why::Failover));
    assert!(!named.takes(anna, "gemma-big", Why::Overflow(1000)));
    assert!(met(failover).await.takes(anna, "gemma-big", Why::Failover));
    let overflow = met(overflow).await;
    assert!(!overflow.takes(anna, "gemma-big", Why::Overflow(2)));
    assert!(overflow.takes(anna, "gemma-big", Why::Overflow(3)));
    assert!(overflow.models(bert).is_empty());
    assert_eq!(overflow.models(anna)[0].upstream, "overflow");
}

#[test]
fn new_settings_keep_what_is_known_of_upstreams_that_stay() {
    let all = upstreams(&[settings("a"), settings("b")]);
    all.all()[0].succeeded();
    let mut changed = settings("b");
    changed.retries = 0;
    all.all()[1].succeeded();
    all.set(&[changed, settings("a")]);
    let served = all.statuses().into_iter().map(|one| (one.name, one.served));
    assert_eq!(Vec::from_iter(served), [("b".into(), 0), ("a".into(), 1)]);
}

#[tokio::test]
async fn an_upstream_without_a_way_is_left_alone_after_a_while() {
    let mut one = settings("gone");
    one.retries = 0;
    let all = upstreams(&[one]);
    let anna = PrincipalId::User(1000);
    all.meet(anna, None).await;
    let ask = async || {
        let message = crate::chat::Message::text(crate::chat::Role::User, "hi");
        let request = ChatRequest::new(vec![message]);
        all.chat(anna, "gemma-big", Why::Named, request).await
    };
    for _ in 0..3 {
        let failure = ask().await.unwrap_err().to_string();
        assert!(
            failure.contains("`gone` cannot be asked: no connection"),
            "{failure}"
        );
    }
    let failure = ask().await.unwrap_err().to_string();
    assert!(failure.contains("left alone"), "{failure}");
    let status = &all.statuses()[0];
    assert_eq!((status.failed, status.running), (3, 0));
    assert!(status.resting > Duration::ZERO && status.cause.is_some());
}

#[test]
fn a_key_is_one_line_of_printable_characters() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    let mut with = settings("big");
    with.key_file = Some(file.clone());
    assert!(
        key(&with, None)
            .unwrap_err()
            .contains("`key-file` in gemmad.toml")
    );
    fs::write(&file, "sk-1\n").unwrap();
    assert_eq!(key(&with, None), Ok(Some("sk-1".into())));
    for bad in ["", "\n", "a b", "a\r\nx: y", &"x".repeat(LONGEST_KEY + 1)] {
        fs::write(&file, bad).unwrap();
        assert!(key(&with, None).is_err(), "{bad:?}");
    }
    let credentials = Some(folder.path().as_os_str());
    assert_eq!(key(&settings("big"), credentials), Ok(None));
    fs::write(folder.path().join("upstream-big"), "c").unwrap();
    assert_eq!(key(&settings("big"), credentials), Ok(Some("c".into())));
}
