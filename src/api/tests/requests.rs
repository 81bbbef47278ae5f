//! What is wrong with a request, and how large it may be.

use super::*;

#[tokio::test]
async fn requests_that_are_wrong_name_the_field() {
    let door = Door::open(Limits::default());
    let response = door
        .ask(
            "POST",
            "/v1/chat/completions",
            r#"{"messages":[{"role":"king","content":"x"}]}"#,
        )
        .await;
    assert_eq!(code(&response), 400);
    assert_eq!(content(&response)["error"]["param"], "messages[0].role");
    assert_eq!(content(&response)["error"]["type"], "invalid_request_error");
    let response = door.ask("POST", "/v1/chat/completions", "{").await;
    assert_eq!(
        (code(&response), &content(&response)["error"]["param"]),
        (400, &Value::Null)
    );
}

#[tokio::test]
async fn a_body_has_its_limit() {
    let door = Door::open(Limits {
        body_bytes: 1000,
        ..Limits::default()
    });
    let response = door
        .ask("POST", "/v1/chat/completions", &" ".repeat(5000))
        .await;
    assert_eq!(code(&response), 413);
    let message = content(&response)["error"]["message"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        message.contains("5000") && message.contains("1000"),
        "{message}"
    );
    // Without a length in the head.
    let mut stream = door.connect().await;
    let piece = format!("400\r\n{}\r\n", " ".repeat(0x400));
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n{piece}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(code(&read_all(&mut stream).await), 413);
}

#[tokio::test]
async fn a_request_names_its_host_once() {
    let door = Door::open(Limits::default());
    for (head, status) in [
        ("HTTP/1.1\r\nhost: x", 200),
        ("HTTP/1.1\r\nHost:", 200),
        ("HTTP/1.1", 400),
        ("HTTP/1.1\r\nhost: x\r\nHost: x", 400),
        ("HTTP/1.0", 200),
        ("HTTP/1.0\r\nhost: x", 200),
        ("HTTP/1.0\r\nhost: x\r\nhost: y", 400),
    ] {
        let mut stream = door.connect().await;
        let request = format!("GET /version {head}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let response = read_all(&mut stream).await;
        assert_eq!(code(&response), status, "{head}: {response}");
        if status == 400 {
            assert_eq!(content(&response)["error"]["code"], "invalid_host");
        }
    }
    // What follows such a request is not read.
    let mut stream = door.connect().await;
    let two = "GET /version HTTP/1.1\r\n\r\nGET /version HTTP/1.1\r\nhost: x\r\n\r\n";
    stream.write_all(two.as_bytes()).await.unwrap();
    assert_eq!(
        read_all(&mut stream).await.matches("x-request-id").count(),
        1
    );
}

#[tokio::test]
async fn a_request_keeps_its_clients_name() {
    let door = Door::open(Limits::default());
    let mut stream = door.connect().await;
    stream.write_all(b"GET /version HTTP/1.1\r\nhost: x\r\nx-request-id: mine-7\r\nconnection: close\r\n\r\n").await.unwrap();
    assert!(
        read_all(&mut stream)
            .await
            .contains("x-request-id: mine-7\r\n")
    );
    assert!(door.get("/version").await.contains("x-request-id: req_"));
}

#[tokio::test]
async fn what_other_services_have_is_explained() {
    let door = Door::open(Limits::default());
    let response = door.ask("POST", "/v1/embeddings", "{}").await;
    assert_eq!(
        (code(&response), &content(&response)["error"]["code"]),
        (404, &json!("unsupported_endpoint"))
    );
    assert!(
        content(&response)["error"]["message"]
            .as_str()
            .unwrap()
            .contains("/v1/chat/completions")
    );
}

#[tokio::test]
async fn a_completion_says_what_is_wrong_in_its_own_words() {
    let mut door = Door::open(Limits::default());
    let mut stream = door.connect().await;
    let body = r#"{"prompt":"x","echo":true}"#;
    let request = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let (events, _, request) = door.answer().await;
    assert_eq!(
        (request.prompt, request.output.max_tokens),
        (Some(crate::chat::RawPrompt::Text("x".into())), Some(16))
    );
    let error = crate::chat::ChatError::PromptTooLong {
        prompt_tokens: 9,
        context_tokens: 8,
        ceiling: 8,
        sound_tokens: 0,
    };
    events.send(Err(Failure::Chat(error))).await.unwrap();
    let response = read_all(&mut stream).await;
    assert_eq!(
        (code(&response), &content(&response)["error"]["param"]),
        (400, &json!("prompt"))
    );
}

#[tokio::test]
async fn a_large_request_is_read_aside() {
    let mut door = Door::open(Limits::default());
    let long = "a".repeat(generation::PARSE_ASIDE + 1);
    let body = json!({"messages": [{"role": "user", "content": long}]}).to_string();
    let ask = door.path.clone();
    let client = tokio::spawn(async move {
        let mut stream = UnixStream::connect(ask).await.unwrap();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body.as_bytes()).await.unwrap();
        read_all(&mut stream).await
    });
    let (events, _, request) = door.answer().await;
    assert_eq!(
        request.messages[0],
        crate::chat::Message::text(crate::chat::Role::User, long)
    );
    events.send(done()).await.unwrap();
    assert_eq!(code(&client.await.unwrap()), 200);
}

#[tokio::test]
async fn paths_are_found_without_v1() {
    let mut door = Door::open(Limits::default());
    let models = door.get("/models").await;
    assert_eq!(
        (code(&models), &content(&models)["object"]),
        (200, &json!("list"))
    );
    assert_eq!(code(&door.get("/props").await), 200);
    let mut stream = door.connect().await;
    let request = chat("")
        .replace("/v1/chat", "/chat")
        .replace("host: x", "host: x\r\nconnection: close");
    stream.write_all(request.as_bytes()).await.unwrap();
    let (events, ..) = door.answer().await;
    events.send(done()).await.unwrap();
    assert_eq!(code(&read_all(&mut stream).await), 200);
}

#[tokio::test]
async fn several_answers_come_side_by_side() {
    let mut door = Door::open(Limits::default());
    for streams in [false, true] {
        let mut stream = door.connect().await;
        let request = chat(&format!(
            r#","n":2,"seed":7,"stream":{streams},"stream_options":{{"include_usage":true}}"#
        ));
        let request = request.replace("host: x", "host: x\r\nconnection: close");
        stream.write_all(request.as_bytes()).await.unwrap();
        let (first, _, one) = door.answer().await;
        let (second, _, two) = door.answer().await;
        assert_eq!((one.sampling.seed, two.sampling.seed), (Some(7), Some(8)));
        for (events, said) in [(&second, "b"), (&first, "a"), (&first, "c")] {
            events.send(text(said)).await.unwrap();
        }
        for events in [second, first] {
            events.send(done()).await.unwrap();
        }
        let response = read_all(&mut stream).await;
        assert_eq!(code(&response), 200);
        if !streams {
            let choices = &content(&response)["choices"];
            assert_eq!(choices[0]["message"]["content"], "ac");
            assert_eq!(choices[1]["message"]["content"], "b");
            assert_eq!(
                (&choices[0]["index"], &choices[1]["index"]),
                (&json!(0), &json!(1))
            );
            continue;
        }
        let events: Vec<Value> = response
            .split("data: ")
            .skip(1)
            .filter_map(|event| serde_json::from_str(event.lines().next()?).ok())
            .collect();
        let of = |index: u64| -> String {
            let choices = events.iter().map(|event| &event["choices"][0]);
            let mine = choices.filter(|choice| choice["index"] == index);
            mine.filter_map(|choice| choice["delta"]["content"].as_str())
                .collect()
        };
        assert_eq!((of(0), of(1)), ("ac".into(), "b".into()));
        let ends = events
            .iter()
            .filter(|event| event["choices"][0]["finish_reason"] == "stop");
        assert_eq!(ends.count(), 2);
        assert_eq!(response.matches("[DONE]").count(), 1);
        assert_eq!(events.last().unwrap()["choices"], json!([]));
    }
}

#[tokio::test]
async fn unknown_paths_and_methods() {
    let door = Door::open(Limits::default());
    let response = door.get("/v1/nothing").await;
    assert_eq!(
        (code(&response), &content(&response)["error"]["code"]),
        (404, &json!("unknown_path"))
    );
    let response = door.ask("DELETE", "/v1/chat/completions", "").await;
    assert_eq!(
        (code(&response), &content(&response)["error"]["code"]),
        (405, &json!("method_not_allowed"))
    );
    assert!(response.contains("allow: POST\r\n"), "{response}");
    let response = door.ask("POST", "/health", "").await;
    assert!(response.contains("allow: GET,HEAD\r\n"), "{response}");
}

#[tokio::test]
async fn requests_that_wait_have_a_limit_together() {
    let mut door = Door::open(Limits {
        body_bytes: 6 << 20,
        ..Limits::default()
    });
    let message = json!({"role": "user", "content": "a".repeat(5 << 20)});
    let body = json!({"messages": [message], "stream": true}).to_string();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut waiting = vec![];
    // Two of 5 MiB fit into 6 + 8 MiB, a third does not.
    for _ in 0..2 {
        let mut stream = door.connect().await;
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body.as_bytes()).await.unwrap();
        waiting.push((stream, door.answer().await.0));
    }
    let response = door.ask("POST", "/v1/chat/completions", &body).await;
    assert_eq!(
        (code(&response), &content(&response)["error"]["code"]),
        (429, &json!("user_requests_too_large"))
    );
    // What is being answered counts no longer, unless it is answered whole: that may begin anew.
    let before = door.api.admission.bodies.in_use();
    waiting[0].1.send(started()).await.unwrap();
    until("room", || door.api.admission.bodies.in_use() < before).await;
    let mut stream = door.connect().await;
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body.as_bytes()).await.unwrap();
    door.answer().await;
}
