//! Answers that come through a socket.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixStream;

use gemmad::bus::proxy::StreamProxy;
use serde_json::{Value, json};
use zbus::zvariant;

use crate::harness::{self, endless, question, wait_for};
use crate::private::{self, Bus, manager, named, possible};
use crate::{FRANCE, PARIS, none, running};

fn socket(fd: zvariant::OwnedFd) -> UnixStream {
    UnixStream::from(std::os::fd::OwnedFd::from(fd))
}

#[tokio::test]
async fn a_stream_comes_over_a_socket() {
    if !possible() {
        return;
    }
    let bus = Bus::start();
    let _daemon = bus.daemon(harness::Options::default());
    let connection = bus.connect().await;
    let manager = manager(&connection).await;

    let (_, fd) = manager
        .open_stream(&question(FRANCE).to_string(), none())
        .await
        .unwrap();
    let lines = tokio::task::spawn_blocking(|| {
        BufReader::new(socket(fd))
            .lines()
            .map(Result::unwrap)
            .collect::<Vec<_>>()
    })
    .await
    .unwrap();
    let chunks: Vec<Value> = lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let text: String = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(text, PARIS);
    assert_eq!(
        chunks.last().unwrap()["choices"][0]["finish_reason"],
        "stop"
    );

    // What fails says why, in a line of its own.
    let (_, fd) = manager
        .open_stream(
            &json!({"model": "gemma-9", "messages": [{"role": "user", "content": "x"}]})
                .to_string(),
            none(),
        )
        .await
        .unwrap();
    let line =
        tokio::task::spawn_blocking(|| BufReader::new(socket(fd)).lines().next().unwrap().unwrap())
            .await
            .unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&line).unwrap()["error"]["code"],
        "model_not_found"
    );
}

#[tokio::test]
async fn a_stream_is_cancelled_by_its_owner_alone() {
    if !possible() {
        return;
    }
    let bus = Bus::start();
    let daemon = bus.daemon(harness::Options::default());
    let connection = bus.connect().await;
    let manager = manager(&connection).await;
    let (path, fd) = manager
        .open_stream(&endless().to_string(), none())
        .await
        .unwrap();
    wait_for("the answer to begin", || running(&daemon) == 1);
    let other = bus.connect().await;
    let stream = StreamProxy::builder(&other)
        .path(path.clone())
        .unwrap()
        .build()
        .await
        .unwrap();
    assert!(named(stream.cancel().await).0.ends_with(".NotAuthorized"));
    let stream = StreamProxy::builder(&connection)
        .path(path)
        .unwrap()
        .build()
        .await
        .unwrap();
    stream.cancel().await.unwrap();
    wait_for("the cancelled answer's end", || running(&daemon) == 0);
    let left = tokio::task::spawn_blocking(|| socket(fd).read_to_end(&mut vec![]))
        .await
        .unwrap();
    assert!(left.is_ok(), "the socket ends");
    assert!(named(stream.cancel().await).0.contains("UnknownObject"));
}

#[tokio::test]
async fn a_stream_ends_when_its_owner_closes_it_or_leaves() {
    if !possible() {
        return;
    }
    let bus = Bus::start();
    let daemon = bus.daemon(harness::Options::default());
    let connection = bus.connect().await;
    let manager = manager(&connection).await;

    // By closing.
    let (_, fd) = manager
        .open_stream(&endless().to_string(), none())
        .await
        .unwrap();
    wait_for("the answer to begin", || running(&daemon) == 1);
    drop(fd);
    wait_for("the closed answer's end", || running(&daemon) == 0);

    // By leaving the bus, even if somebody else holds the socket.
    let other = bus.connect().await;
    let owner = private::manager(&other).await;
    let (_, fd) = owner
        .open_stream(&endless().to_string(), none())
        .await
        .unwrap();
    wait_for("the answer to begin", || running(&daemon) == 1);
    drop(owner);
    other.close().await.unwrap();
    wait_for("the abandoned answer's end", || running(&daemon) == 0);
    drop(fd);
}

#[tokio::test]
async fn a_stream_tells_how_far_its_request_is_if_it_is_asked_to() {
    if !possible() {
        return;
    }
    let bus = Bus::start();
    let daemon = bus.daemon(harness::Options {
        inference: "slots = 1\ncontext = 4096\nbatch = 64".into(),
        ..harness::Options::default()
    });
    let connection = bus.connect().await;
    let manager = manager(&connection).await;
    let (_, running_fd) = manager
        .open_stream(&endless().to_string(), none())
        .await
        .unwrap();
    wait_for("the answer to begin", || running(&daemon) == 1);
    let mut body = question(&"word ".repeat(3000));
    body["max_tokens"] = json!(3);
    body["stream"] = json!(true);
    body["stream_options"] = json!({"include_progress": true});
    let (_, fd) = manager
        .open_stream(&body.to_string(), none())
        .await
        .unwrap();
    let described = async || {
        let status = manager.describe().await.unwrap();
        serde_json::from_str::<Value>(&status).unwrap()
    };
    while described().await["waiting"] != 1 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let queue = described().await["queue"].clone();
    assert_eq!(queue["users"][0]["waiting"], 1, "{queue}");
    drop(running_fd);
    let lines = tokio::task::spawn_blocking(|| {
        let lines = BufReader::new(socket(fd)).lines();
        lines
            .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap())
            .collect::<Vec<_>>()
    });
    let lines = lines.await.unwrap();
    let mut phases: Vec<_> = lines
        .iter()
        .filter_map(|line| line["progress"]["phase"].as_str())
        .collect();
    phases.dedup();
    assert_eq!(phases, ["queued", "reading"], "{lines:?}");
    assert_eq!(
        lines.last().unwrap()["choices"][0]["finish_reason"],
        "length"
    );
}
