//! What is told of models and of the daemon, and what is for administrators.

use super::*;

#[tokio::test]
async fn models_are_listed_and_found() {
    let mut door = Door::open(Limits::default());
    door.answer_finds();
    let entry = json!({"id": "tiny", "object": "model", "created": 6, "owned_by": "google", "file": "tiny.gguf", "variant": "gemma-4-e2b", "size": 5,
        "context_length": 4096, "quantization": "Q8_0", "input_modalities": ["text"], "drafter": false, "files": [], "loaded": false, "default": true});
    assert_eq!(
        content(&door.get("/v1/models").await),
        json!({"object": "list", "data": [entry]})
    );
    for name in ["tiny", "TINY", "t%69ny", "auto"] {
        assert_eq!(
            content(&door.get(&format!("/v1/models/{name}")).await),
            entry,
            "{name}"
        );
    }
    for name in ["gpt", "google/gpt", "%ff"] {
        let response = door.get(&format!("/v1/models/{name}")).await;
        assert_eq!(
            (code(&response), &content(&response)["error"]["code"]),
            (404, &json!("model_not_found")),
            "{name}"
        );
    }
}

#[tokio::test]
async fn health_says_whether_a_request_would_be_served() {
    let door = Door::open(Limits::default());
    assert_eq!(content(&door.get("/health").await), json!({"status": "ok"}));
    assert_eq!(content(&door.get("/version").await)["name"], "gemmad");
    assert_eq!(content(&door.get("/status").await)["state"], "cold");
    let backing = Phase::BackingOff {
        cause: "SIGSEGV".into(),
        until: Instant::now() + Duration::from_secs(3),
    };
    for (phase, expected) in [(backing, "backing_off"), (Phase::Draining, "shutting_down")] {
        door.publish.send_modify(|status| status.phase = phase);
        let response = door.get("/health").await;
        assert_eq!(
            (code(&response), &content(&response)["error"]["code"]),
            (503, &json!(expected))
        );
    }
}

#[tokio::test]
async fn loading_is_for_administrators() {
    let mut door = Door::open(Limits::default());
    let path = door.path.clone();
    let client = tokio::spawn(async move {
        let mut stream = UnixStream::connect(path).await.unwrap();
        stream
            .write_all(b"POST /models/load HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 16\r\n\r\n{\"model\":\"tiny\"}")
            .await
            .unwrap();
        read_all(&mut stream).await
    });
    match timeout(SOON, door.asked.recv()).await.unwrap().unwrap() {
        Call::Load { model, reply, .. } => {
            assert_eq!(model, "tiny");
            reply.send(Ok(status().models.remove(0))).unwrap();
        }
        other => panic!("{other:?}"),
    }
    let response = client.await.unwrap();
    assert_eq!(
        (code(&response), &content(&response)["id"]),
        (200, &json!("tiny"))
    );
    let response = door
        .ask("POST", "/models/load", r#"{"modle":"tiny"}"#)
        .await;
    assert_eq!(
        (code(&response), &content(&response)["error"]["param"]),
        (400, &json!("modle"))
    );
}

#[tokio::test]
async fn what_is_for_administrators_is_for_nobody_else() {
    let (backends, ..) = Backends::scripted(status());
    let access = Policy::new(&Access::default(), 990).unwrap();
    let api = Arc::new(Api::new(
        backends.clone(),
        Attachments::new(
            backends,
            Default::default(),
            Default::default(),
            Default::default(),
            SOON,
        ),
        Limits::default(),
        Admission::new(access, 1 << 20, Tokens::open(None), Oidc::default()),
    ));
    let stranger = Extension(Caller {
        principal: Principal::User {
            uid: 1234,
            groups: [1234].into(),
            owner: None,
        },
        pid: None,
    });
    for error in [
        native::admin::load(
            State(Arc::clone(&api)),
            stranger.clone(),
            Request::new(Body::empty()),
        )
        .await
        .unwrap_err(),
        native::admin::unload(State(Arc::clone(&api)), stranger.clone())
            .await
            .unwrap_err(),
        native::cache::clear(State(Arc::clone(&api)), stranger.clone())
            .await
            .unwrap_err(),
        native::metrics::metrics(State(Arc::clone(&api)), stranger)
            .await
            .unwrap_err(),
    ] {
        assert_eq!(
            (error.status, error.code),
            (StatusCode::FORBIDDEN, Some("not_permitted"))
        );
        assert!(error.message.contains("1234"), "{}", error.message);
    }
}
