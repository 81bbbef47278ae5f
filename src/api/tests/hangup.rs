//! Clients that hang up, and those that do not read.

use super::*;

#[tokio::test]
async fn hanging_up_ends_the_answer() {
    let mut door = Door::open(Limits::default());
    // While nothing came yet, in the middle of a whole answer, and in an idle stream.
    for (rest, begun) in [
        ("", vec![]),
        ("", vec![started(), text("a")]),
        (r#","stream":true"#, vec![started(), text("a")]),
    ] {
        let (stream, events) = door.begin_chat(rest).await;
        for event in begun {
            events.send(event).await.unwrap();
        }
        until("reading of what was sent", || {
            events.capacity() == events.max_capacity()
        })
        .await;
        assert!(!events.is_closed());
        drop(stream);
        timeout(SOON, events.closed()).await.unwrap();
    }
}

#[tokio::test]
async fn a_client_that_closes_its_sending_side_has_hung_up() {
    let mut door = Door::open(Limits::default());
    let (mut stream, events) = door.begin_chat("").await;
    stream.shutdown().await.unwrap();
    timeout(SOON, events.closed()).await.unwrap();
}

#[tokio::test]
async fn hanging_up_in_the_queue_takes_the_request_back() {
    let mut door = Door::open(Limits::default());
    let mut stream = door.connect().await;
    stream.write_all(chat("").as_bytes()).await.unwrap();
    let Some(Call::Chat { mut reply, .. }) = door.asked.recv().await else {
        panic!()
    };
    drop(stream);
    timeout(SOON, reply.closed()).await.unwrap();
}

#[tokio::test]
async fn a_client_that_does_not_read_is_hung_up_on() {
    let mut door = Door::open(Limits {
        client_stall: Duration::from_millis(100),
        ..Limits::default()
    });
    let (_stream, events) = door.begin_chat(r#","stream":true"#).await;
    events.send(started()).await.unwrap();
    let flood = async { while events.send(text(&"x".repeat(4096))).await.is_ok() {} };
    timeout(SOON, flood).await.unwrap();
}
