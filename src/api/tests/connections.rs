//! Connections: how many there may be, and their end.

use super::*;

#[tokio::test]
async fn connections_have_limits() {
    let door = Door::open(Limits {
        connections_per_user: 2,
        ..Limits::default()
    });
    let first = door.connect().await;
    let mut second = door.connect().await;
    let mut third = door.connect().await;
    let response = read_all(&mut third).await;
    assert_eq!(code(&response), 429);
    assert!(
        response.contains("retry-after: 1\r\n") && response.contains("x-request-id: req_"),
        "{response}"
    );
    assert_eq!(content(&response)["error"]["code"], "user_connections_full");
    // The others go on, and a closed one makes room.
    second
        .write_all(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(code(&read_all(&mut second).await), 200);
    drop(first);
    until("room", || door.api.connections.in_use() == 0).await;
    assert_eq!(code(&door.get("/health").await), 200);

    let door = Door::open(Limits {
        connections: 1,
        ..Limits::default()
    });
    let _first = door.connect().await;
    let mut second = door.connect().await;
    assert_eq!(code(&read_all(&mut second).await), 503);
}

#[tokio::test]
async fn a_thousand_idle_connections_disturb_nobody() {
    let door = Door::open(Limits::default());
    let mut idle = vec![];
    for _ in 0..1000 {
        idle.push(door.connect().await);
    }
    // Other work on the machine may delay one answer, not three.
    let mut times = vec![];
    for _ in 0..3 {
        let start = Instant::now();
        assert_eq!(code(&door.get("/health").await), 200);
        times.push(start.elapsed());
    }
    assert!(
        times.iter().any(|time| *time < Duration::from_millis(100)),
        "{times:?}"
    );
}

#[tokio::test]
async fn stopping_lets_running_answers_finish() {
    let mut door = Door::open(Limits::default());
    let _idle = door.connect().await;
    let mut kept = door.connect().await;
    kept.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut buffer = vec![0; 1024];
    let _ = kept.read(&mut buffer).await.unwrap();
    let mut stream = door.connect().await;
    stream.write_all(chat("").as_bytes()).await.unwrap();
    let (events, ..) = door.answer().await;
    door.stop.send(true).unwrap();
    assert_eq!(
        timeout(SOON, kept.read(&mut buffer))
            .await
            .unwrap()
            .unwrap(),
        0,
        "idle connections are closed"
    );
    until("refusal of new connections", || {
        std::os::unix::net::UnixStream::connect(&door.path).is_err()
    })
    .await;
    assert!(!door.serving.is_finished());
    for event in [started(), text("bye"), done()] {
        events.send(event).await.unwrap();
    }
    assert_eq!(
        content(&read_all(&mut stream).await)["choices"][0]["message"]["content"],
        "bye"
    );
    timeout(SOON, door.serving).await.unwrap().unwrap();
}
