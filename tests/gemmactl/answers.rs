//! What is shown of an answer.

use super::*;

#[test]
fn an_answer_arrives_whole_however_its_bytes_are_cut() {
    for size in [1, 2, 3, 5, 64, 4096] {
        let daemon = Daemon::start(1, move |_, peer| {
            peer.begin_stream();
            peer.event(
                r#"{"choices":[{"index":0,"delta":{"role":"assistant"},"finish_reason":null}]}"#,
                size,
            );
            peer.event(
                r#"{"choices":[{"index":0,"delta":{"reasoning_content":"secret"}}]}"#,
                size,
            );
            peer.text("Grüße, ", size);
            peer.text("🌍!\n", size);
            peer.end_stream();
        });
        let output = daemon.run(&[
            "ask",
            "say",
            "hello",
            "--system",
            "Be kind.",
            "--temperature",
            "0",
            "--stop",
            "a",
            "--stop",
            "-b",
        ]);
        assert_eq!(
            texts(&output),
            ("Grüße, 🌍!\n".into(), String::new(), Some(0)),
            "pieces of {size}"
        );
        let requests = daemon.requests();
        assert_eq!(requests[0].line, "POST /v1/chat/completions HTTP/1.1");
        let expected = json!({
            "model": "auto",
            "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "say hello"}],
            "stream": true,
            "chat_template_kwargs": {"enable_thinking": false},
            "temperature": 0.0,
            "stop": ["a", "-b"],
        });
        assert_eq!(requests[0].body, expected);
    }
}

#[test]
fn text_is_shown_as_it_comes_and_the_prompt_may_come_from_a_pipe() {
    let (shown, wait_for_it) = mpsc::channel::<()>();
    let daemon = Daemon::start(1, move |_, peer| {
        peer.begin_stream();
        peer.text("first", 4096);
        wait_for_it
            .recv_timeout(PATIENCE)
            .expect("the first piece is not shown before the second comes");
        peer.text(" second", 4096);
        peer.end_stream();
    });
    let mut child = daemon
        .command(&["ask", "sum up:"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all("a\nb\n".as_bytes())
        .unwrap();
    let mut first = [0; 5];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut first)
        .unwrap();
    assert_eq!(&first, b"first");
    shown.send(()).unwrap();
    assert_eq!(texts(&wait(child)).0, " second\n");
    assert_eq!(
        daemon.requests()[0].body["messages"],
        json!([{"role": "user", "content": "sum up:\n\na\nb"}])
    );
}

#[test]
fn thoughts_go_to_standard_error_when_wanted() {
    let daemon = Daemon::start(1, |_, peer| {
        peer.begin_stream();
        peer.event(r#"{"choices":[{"delta":{"reasoning_content":"hm"}}]}"#, 9);
        peer.text("yes", 9);
        peer.end_stream();
    });
    let output = daemon.run(&["ask", "well?", "--show-thoughts"]);
    assert_eq!(texts(&output), ("yes\n".into(), "hm\n".into(), Some(0)));
    assert_eq!(
        daemon.requests()[0].body["chat_template_kwargs"]["enable_thinking"],
        true
    );
}

#[test]
fn json_is_the_whole_response() {
    let answer = json!({"id": "x", "choices": [{"message": {"role": "assistant", "content": "hi"}}], "usage": {"total_tokens": 3}});
    let sent = answer.clone();
    let daemon = Daemon::start(1, move |_, peer| peer.answer("200 OK", "", &sent));
    let output = daemon.run(&["ask", "--json", "hello"]);
    assert_eq!(
        serde_json::from_slice::<Value>(&output.stdout).unwrap(),
        answer
    );
    assert_eq!(daemon.requests()[0].body["stream"], false);
}

#[test]
fn an_error_in_mid_stream_keeps_what_was_said_and_fails() {
    let daemon = Daemon::start(1, |_, peer| {
        peer.begin_stream();
        peer.text("half", 3);
        peer.event(r#"{"error":{"message":"the worker died\u001b[2J","type":"server_error","param":null,"code":null}}"#, 3);
        peer.0.write_all(b"0\r\n\r\n").unwrap();
    });
    let (out, err, code) = texts(&daemon.run(&["ask", "hello"]));
    assert_eq!((out.as_str(), code), ("half\n", Some(1)));
    assert_eq!(err, "gemmactl: the worker died\\u{1b}[2J\n");
}

#[test]
fn an_answer_without_an_end_is_a_failure() {
    for orderly in [true, false] {
        let daemon = Daemon::start(1, move |_, peer| {
            peer.begin_stream();
            peer.text("half", 3);
            if orderly {
                peer.0.write_all(b"0\r\n\r\n").unwrap();
            }
        });
        let (out, err, code) = texts(&daemon.run(&["ask", "hello"]));
        assert_eq!((out.as_str(), code), ("half\n", Some(1)), "{err}");
        assert!(err.contains("broke off"), "{err}");
    }
}

#[test]
fn a_stream_that_never_ends_its_line_is_given_up() {
    let daemon = Daemon::start(1, |_, peer| {
        peer.begin_stream();
        let chunk = [b"10000\r\n".as_slice(), &[b'x'; 0x10000], b"\r\n"].concat();
        while peer.0.write_all(&chunk).is_ok() {}
    });
    let (_, err, code) = texts(&daemon.run(&["ask", "hello"]));
    assert_eq!(code, Some(1));
    assert!(err.contains("too long"), "{err}");
    daemon.requests();
}
