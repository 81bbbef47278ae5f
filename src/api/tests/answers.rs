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
    let (mut stream, events) = door.begin_chat(r#","stream":true"#).await;
    events.send(started()).await.unwrap();
    let mut seen = String::new();
    for word in ["one", "two"] {
        events.send(text(word)).await.unwrap();
        read_until(&mut stream, &mut seen, |seen| seen.contains(word)).await;
    }
    assert_eq!(code(&seen), 200);
    assert!(seen.contains("content-type: text/event-stream"), "{seen}");
    events.send(done()).await.unwrap();
    // The connection stays open, the stream ends: its last chunk is the empty one.
    read_until(&mut stream, &mut seen, |seen| {
        seen.ends_with("\r\n0\r\n\r\n")
    })
    .await;
    assert!(seen.contains("data: [DONE]\n\n"), "{seen}");
}

#[tokio::test]
async fn a_failure_in_mid_stream_is_told() {
    let mut door = Door::open(Limits::default());
    let mut stream = door.connect().await;
    let request = last_chat(r#","stream":true"#);
    stream.write_all(request.as_bytes()).await.unwrap();
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
        let request = last_chat(stream);
        connection.write_all(request.as_bytes()).await.unwrap();
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

/// Clients give up on a server that says nothing, and their proxies do.
#[tokio::test]
async fn a_stream_that_waits_begins_and_then_tells_what_went_wrong() {
    let messages = r#""messages":[{"role":"user","content":"hi"}],"stream":true"#;
    for (path, body, expected) in [
        (
            "/v1/chat/completions",
            format!("{{{messages}}}"),
            r#"data: {"error":{"#,
        ),
        (
            "/v1/messages",
            format!("{{\"max_tokens\":5,{messages}}}"),
            "event: error\ndata: {\"type\":\"error\",",
        ),
        (
            "/v1/responses",
            r#"{"input":"hi","stream":true,"store":false}"#.into(),
            "event: error\ndata: {\"type\":\"error\",",
        ),
        (
            "/v1/completions",
            r#"{"prompt":"hi","stream":true}"#.into(),
            r#"data: {"error":{"#,
        ),
        (
            "/completion",
            r#"{"prompt":"hi","stream":true}"#.into(),
            r#"data: {"error":{"#,
        ),
    ] {
        let mut door = Door::open(Limits::default());
        let mut stream = door.connect().await;
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let (events, ..) = door.answer().await;
        let mut seen = String::new();
        read_until(&mut stream, &mut seen, |seen| {
            seen.contains(": waiting\n\n")
        })
        .await;
        assert!(
            seen.starts_with("HTTP/1.1 200 ") && seen.contains("content-type: text/event-stream"),
            "{path}: {seen}"
        );
        let failure = Failure::TimedOut { limit: SOON };
        events.send(Err(failure)).await.unwrap();
        let rest = read_all(&mut stream).await;
        assert!(rest.contains(expected), "{path}: {rest}");
    }
}

/// Lines of JSON have no comments.
#[tokio::test]
async fn lines_that_wait_begin_with_a_blank_and_then_tell_what_went_wrong() {
    for (path, body) in [
        (
            "/api/chat",
            r#"{"messages":[{"role":"user","content":"hi"}]}"#,
        ),
        ("/api/generate", r#"{"prompt":"hi"}"#),
    ] {
        let mut door = Door::open(Limits::default());
        let mut stream = door.connect().await;
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let (events, ..) = door.answer().await;
        let mut seen = String::new();
        read_until(&mut stream, &mut seen, |seen| {
            seen.ends_with("\r\n1\r\n \r\n")
        })
        .await;
        assert!(
            seen.starts_with("HTTP/1.1 200 ") && seen.contains("application/x-ndjson"),
            "{path}: {seen}"
        );
        let failure = Failure::TimedOut { limit: SOON };
        events.send(Err(failure)).await.unwrap();
        let rest = read_all(&mut stream).await;
        assert!(rest.contains("{\"error\":\""), "{path}: {rest}");
    }
}

#[tokio::test]
async fn a_stream_begins_once_its_request_is_accepted() {
    let mut door = Door::open(Limits::default());
    let (mut stream, events) = door.begin_chat(r#","stream":true"#).await;
    let relaxed = vec!["#/properties/a".to_owned()];
    events
        .send(Ok(ChatEvent::Accepted { relaxed }))
        .await
        .unwrap();
    let mut seen = String::new();
    read_until(&mut stream, &mut seen, |seen| seen.contains("\r\n\r\n")).await;
    assert!(
        seen.starts_with("HTTP/1.1 200 ") && seen.contains("x-gemmad-schema-relaxed: "),
        "{seen}"
    );
    for event in [started(), text("yes"), done()] {
        events.send(event).await.unwrap();
    }
    read_until(&mut stream, &mut seen, |seen| seen.contains("[DONE]")).await;
    assert!(
        seen.contains("\"content\":\"yes\"") && !seen.contains(": waiting"),
        "{seen}"
    );
}
