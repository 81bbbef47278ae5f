//! Answers: whole, streamed, and broken off.

use super::*;

#[tokio::test]
async fn a_whole_answer() {
    let mut door = Door::open(Limits::default());
    let mut stream = door.connect().await;
    // Twice on one connection.
    for _ in 0..2 {
        stream
            .write_all(chat(r#","model":"Tiny","temperature":0"#).as_bytes())
            .await
            .unwrap();
        let (events, model, request) = door.answer().await;
        assert_eq!(
            (model.as_str(), request.sampling.temperature),
            ("Tiny", 0.0)
        );
        for event in [started(), text("Hel"), text("lo"), done()] {
            events.send(event).await.unwrap();
        }
        let mut buffer = vec![0; 4096];
        let n = timeout(SOON, stream.read(&mut buffer))
            .await
            .unwrap()
            .unwrap();
        let response = std::str::from_utf8(&buffer[..n]).unwrap();
        assert!(response.contains("x-request-id: req_"), "{response}");
        assert_eq!(
            content(response)["choices"][0]["message"]["content"],
            "Hello"
        );
        assert_eq!(content(response)["model"], "tiny");
    }
}

#[tokio::test]
async fn a_streamed_answer_comes_piece_by_piece() {
    let mut door = Door::open(Limits::default());
    let mut stream = door.connect().await;
    stream
        .write_all(chat(r#","stream":true"#).as_bytes())
        .await
        .unwrap();
    let (events, ..) = door.answer().await;
    events.send(started()).await.unwrap();
    let mut seen = String::new();
    for word in ["one", "two"] {
        events.send(text(word)).await.unwrap();
        while !seen.contains(word) {
            let mut buffer = vec![0; 4096];
            let n = timeout(SOON, stream.read(&mut buffer))
                .await
                .unwrap()
                .unwrap();
            assert_ne!(n, 0, "{seen}");
            seen.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
        }
    }
    assert_eq!(code(&seen), 200);
    assert!(seen.contains("content-type: text/event-stream"), "{seen}");
    events.send(done()).await.unwrap();
    // The connection stays open, the stream ends: its last chunk is the empty one.
    while !seen.ends_with("\r\n0\r\n\r\n") {
        let mut buffer = vec![0; 4096];
        let n = timeout(SOON, stream.read(&mut buffer))
            .await
            .unwrap()
            .unwrap();
        assert_ne!(n, 0, "{seen}");
        seen.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
    }
    assert!(seen.contains("data: [DONE]\n\n"), "{seen}");
}

#[tokio::test]
async fn a_failure_in_mid_stream_is_told() {
    let mut door = Door::open(Limits::default());
    let mut stream = door.connect().await;
    stream
        .write_all(
            chat(r#","stream":true"#)
                .replace("host: x", "host: x\r\nconnection: close")
                .as_bytes(),
        )
        .await
        .unwrap();
    let (events, ..) = door.answer().await;
    for event in [
        started(),
        text("one"),
        Err(Failure::WorkerDied {
            cause: "SIGKILL".into(),
        }),
    ] {
        events.send(event).await.unwrap();
    }
    let response = read_all(&mut stream).await;
    assert_eq!(code(&response), 200);
    assert!(
        response.contains(
            "data: {\"error\":{\"message\":\"the worker died while it answered: SIGKILL\""
        ),
        "{response}"
    );
    assert!(!response.contains("[DONE]"), "{response}");
}

#[tokio::test]
async fn a_failure_before_the_first_event_has_its_status() {
    let mut door = Door::open(Limits::default());
    for stream in ["", r#","stream":true"#] {
        let mut connection = door.connect().await;
        connection
            .write_all(
                chat(stream)
                    .replace("host: x", "host: x\r\nconnection: close")
                    .as_bytes(),
            )
            .await
            .unwrap();
        let (events, ..) = door.answer().await;
        let retry_after = Duration::from_secs(7);
        events
            .send(Err(Failure::BackingOff {
                cause: "SIGSEGV".into(),
                retry_after,
            }))
            .await
            .unwrap();
        let response = read_all(&mut connection).await;
        assert_eq!(code(&response), 503);
        assert!(response.contains("retry-after: 7\r\n"), "{response}");
        assert_eq!(content(&response)["error"]["code"], "backing_off");
    }
}
