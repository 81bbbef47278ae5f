//! Tokens, and what was used, over the bus.

use gemmad::bus::proxy::{AccountProxy, Options};
use serde_json::{Value, json};
use std::io::Write;

use crate::harness::{self, Daemon, Reply, question};
use crate::none;
use crate::private::{Bus, NOBODY, possible};

/// The status of a question with this token.
fn asked_with(daemon: &Daemon, token: &str) -> u16 {
    let body = question("Hello!").to_string();
    let mut stream = daemon.connect();
    write!(
        stream,
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {token}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    Reply::read(stream).unwrap().status
}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[tokio::test]
async fn tokens_are_issued_listed_and_revoked_over_the_bus() {
    if !possible() {
        return;
    }
    let bus = Bus::start();
    let daemon = bus.daemon(harness::Options::default());
    let connection = bus.connect().await;
    let account = AccountProxy::new(&connection).await.unwrap();
    let options = Options::from([("ttl", 60u32.into()), ("limit", 2u32.into())]);
    let (token, about) = account.issue_token(options).await.unwrap();
    let about = json_of(&about);
    assert!(!about.to_string().contains(&token));
    assert_eq!(about["scopes"], json!(["inference"]));
    assert_eq!(
        (asked_with(&daemon, &token), asked_with(&daemon, &token)),
        (200, 200)
    );
    assert_eq!(asked_with(&daemon, &token), 429);
    let id = about["id"].as_str().unwrap();
    let listed = json_of(&account.list_tokens().await.unwrap());
    assert_eq!(listed["data"][0]["id"], id);

    let used = json_of(&account.get_usage().await.unwrap());
    let used = used["data"].as_array().unwrap();
    assert!(
        used.iter()
            .any(|line| line["token"] == id && line["requests"] == 2),
        "{used:?}"
    );

    let wrong = account.issue_token(Options::from([("ttl", 50_000u32.into())]));
    let wrong = wrong.await.unwrap_err().to_string();
    assert!(
        wrong.contains("InvalidRequest") && wrong.contains("ttl"),
        "{wrong}"
    );
    let wrong = account.issue_token(Options::from([("tll", 50u32.into())]));
    assert!(
        wrong
            .await
            .unwrap_err()
            .to_string()
            .contains("no option \"tll\"")
    );
    assert!(account.revoke_token("0").await.is_err());
    account.revoke_token(id).await.unwrap();
    assert_eq!(asked_with(&daemon, &token), 401);
    let gone = account.revoke_token(id).await.unwrap_err().to_string();
    assert!(gone.contains("no token of yours"), "{gone}");
    assert!(account.issue_token(none()).await.is_ok());
}

#[test]
fn a_user_makes_tokens_of_their_own_rights_only() {
    if !possible() {
        return;
    }
    let bus = Bus::start();
    let _daemon = bus.daemon(harness::Options::default());
    let call = |uid: u32, args: &[&str]| {
        let object = [
            gemmad::bus::NAME,
            gemmad::bus::PATH,
            "org.gemmad.Gemmad1.Account",
        ];
        let output = bus.busctl(uid, &[&["call"], &object[..], args].concat());
        let text =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        (output.status.success(), text.into_owned())
    };
    let admin = ["IssueToken", "a{sv}", "1", "scopes", "as", "1", "admin"];
    let (made, told) = call(NOBODY, &admin);
    assert!(!made && told.contains("for administrators"), "{told}");
    let (made, roots) = call(0, &admin);
    assert!(made, "{roots}");
    let (made, own) = call(NOBODY, &["IssueToken", "a{sv}", "0"]);
    assert!(made && own.contains("gmd_"), "{own}");
    let (_, listed) = call(NOBODY, &["ListTokens"]);
    assert_eq!(listed.matches("token\\\",\\\"user").count(), 1, "{listed}");
    let (_, all) = call(0, &["ListTokens"]);
    assert_eq!(all.matches("token\\\",\\\"user").count(), 2, "{all}");
}
