//! Conversations that the service keeps.

use std::time::Duration;

use futures_util::StreamExt;
use gemmad::bus::proxy::{ConversationProxy, Options};
use serde_json::Value;
use zbus::zvariant;

use crate::harness::{self, TINY};
use crate::private::{Bus, manager, named, possible};
use crate::running;

#[tokio::test]
async fn a_conversation_is_kept_for_its_owner() {
    if !possible() {
        return;
    }
    let bus = Bus::start();
    let daemon = bus.daemon(harness::Options::default());
    let (connection, other) = (bus.connect().await, bus.connect().await);
    let manager = manager(&connection).await;
    let open = || {
        manager.open_conversation(Options::from([
            ("temperature", 0.0.into()),
            ("model", TINY.into()),
        ]))
    };
    let at = async |connection: &zbus::Connection, path: &zvariant::OwnedObjectPath| {
        ConversationProxy::builder(connection)
            .path(path.clone())
            .unwrap()
            .build()
            .await
            .unwrap()
    };
    let path = open().await.unwrap();
    let talk = at(&connection, &path).await;
    let mut answers = talk.receive_answered().await.unwrap();
    let wait = || Options::from([("timeout", 60u32.into())]);
    talk.send("My name is Anna.", wait()).await.unwrap();
    let name = talk.send("What is my name?", wait()).await.unwrap();
    assert!(name.contains("Anna"), "{name}");
    assert_eq!(answers.next().await.unwrap().args().unwrap().messages, 2);
    assert_eq!(answers.next().await.unwrap().args().unwrap().messages, 4);
    let history: Value = serde_json::from_str(&talk.history().await.unwrap()).unwrap();
    assert_eq!(
        (history[1]["role"].as_str(), history[3]["content"].as_str()),
        (Some("assistant"), Some(name.as_str()))
    );
    assert_eq!(talk.model().await.unwrap(), TINY);
    // A turn that fails leaves no trace.
    assert!(
        named(talk.send(&"x ".repeat(4000), wait()).await)
            .0
            .ends_with(".InvalidRequest")
    );
    assert_eq!(
        serde_json::from_str::<Value>(&talk.history().await.unwrap()).unwrap(),
        history
    );
    // Nobody else reads it.
    let strange = at(&other, &path).await;
    assert!(named(strange.history().await).0.ends_with(".NotAuthorized"));
    assert!(named(strange.close().await).0.ends_with(".NotAuthorized"));
    talk.close().await.unwrap();
    let gone = async |talk: &ConversationProxy<'_>| {
        while !talk
            .history()
            .await
            .is_err_and(|error| error.to_string().contains("UnknownObject"))
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    gone(&talk).await;

    let path = open().await.unwrap();
    drop((talk, answers, manager));
    connection.close().await.unwrap();
    gone(&at(&other, &path).await).await;
    assert_eq!(running(&daemon), 0);
}
