//! Interrupts, readers that leave, and limits of time.

use super::*;

#[test]
fn ctrl_c_ends_ask_at_once_and_hangs_up() {
    let (gone, is_gone) = mpsc::channel();
    let daemon = Daemon::start(1, move |_, peer| {
        peer.begin_stream();
        peer.text("thinking about it", 4096);
        gone.send(peer.sees_the_hang_up()).unwrap();
    });
    let mut child = daemon
        .command(&["ask", "hello"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut [0; 8])
        .unwrap();
    // The answer has no end of its own: only the interrupt can be it.
    interrupt(&child);
    let output = wait(child);
    assert_eq!(
        (output.status.code(), output.status.signal()),
        (Some(130), None)
    );
    assert_eq!(is_gone.recv_timeout(PATIENCE), Ok(true));
}

#[test]
fn ctrl_c_ends_ask_even_when_nobody_reads_its_output() {
    let daemon = Daemon::start(1, |_, peer| {
        peer.begin_stream();
        let event = format!(
            "data: {}\n\n",
            json!({"choices": [{"delta": {"content": "x".repeat(8000)}}]})
        );
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        while peer.0.write_all(chunk.as_bytes()).is_ok() {}
    });
    // A pipe of one page: it is full in the middle of the first event, and stays so.
    let (mut unread, write) = std::io::pipe().unwrap();
    let page = rustix::pipe::fcntl_setpipe_size(&unread, 4096).unwrap();
    let child = daemon
        .command(&["ask", "hello"])
        .stdout(write)
        .spawn()
        .unwrap();
    unread.read_exact(&mut [0; 1]).unwrap();
    wait_for("a full pipe", || {
        rustix::io::ioctl_fionread(&unread).unwrap() + 1 >= page as u64
    });
    interrupt(&child);
    assert_eq!(wait(child).status.code(), Some(130));
    daemon.requests();
}

#[test]
fn a_reader_that_leaves_ends_it_quietly() {
    let daemon = Daemon::start(1, |_, peer| {
        peer.begin_stream();
        let event = format!(
            "data: {}\n\n",
            json!({"choices": [{"delta": {"content": "line\n"}}]})
        );
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        while peer.0.write_all(chunk.as_bytes()).is_ok() {}
    });
    let mut child = daemon
        .command(&["ask", "hello"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 5]).unwrap();
    drop(stdout);
    assert_eq!(texts(&wait(child)), (String::new(), String::new(), Some(0)));
    daemon.requests();
}

#[test]
fn timeout_gives_up() {
    let daemon = Daemon::start(1, |_, peer| assert!(peer.sees_the_hang_up()));
    let (_, err, code) = texts(&daemon.run(&["ask", "hello", "--timeout", "100ms"]));
    assert_eq!(code, Some(75), "{err}");
    assert!(err.contains("--timeout"), "{err}");
    daemon.requests();
}

#[test]
fn ctrl_c_in_chat_stops_the_answer_and_not_the_program() {
    let (gone, is_gone) = mpsc::channel();
    let daemon = Daemon::for_chat(2, move |index, peer| {
        peer.begin_stream();
        peer.text("begun", 4096);
        if index == 0 {
            gone.send(peer.sees_the_hang_up()).unwrap();
        } else {
            peer.end_stream();
        }
    });
    let mut child = daemon.piped(&["chat"]);
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"one\n").unwrap();
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut [0; 5])
        .unwrap();
    interrupt(&child);
    // The hang-up comes before the next line is typed.
    assert_eq!(is_gone.recv_timeout(PATIENCE), Ok(true));
    input.write_all(b"two\n").unwrap();
    drop(input);
    let (out, err, code) = texts(&wait(child));
    assert_eq!((out.as_str(), code), ("\nbegun\n", Some(0)), "{err}");
    assert!(err.contains("(stopped)"), "{err}");
    let requests = daemon.requests();
    let expected = json!([
        {"role": "user", "content": "one"}, {"role": "assistant", "content": "begun"}, {"role": "user", "content": "two"},
    ]);
    assert_eq!(requests[1].body["messages"], expected);
}

#[test]
fn ctrl_c_at_a_prompt_clears_the_line_on_every_terminal() {
    for term in ["xterm", "dumb"] {
        let daemon = Daemon::answering(1);
        let output = daemon.run_on_terminal(term, &["chat"], "> ", "half\x03\x1fone?\r\x1f/quit\r");
        let (shown, err, code) = texts(&output);
        assert_eq!(code, Some(0), "{term}: {shown}{err}");
        assert!(shown.contains("answer 0."), "{term}: {shown}");
        assert_eq!(daemon.questions(), ["one?"], "{term}");
    }
}

#[test]
fn ctrl_c_leaves_no_colour_where_there_is_none() {
    for (option, has_colour) in [("--color=never", false), ("--color=always", true)] {
        let daemon = Daemon::start(1, |_, peer| {
            peer.begin_stream();
            peer.text("begun", 4096);
            peer.sees_the_hang_up();
        });
        let output = daemon.run_on_terminal("xterm", &[option, "ask", "x"], "begun", "\x03");
        let (shown, _, code) = texts(&output);
        assert_eq!(code, Some(130), "{shown}");
        assert_eq!(shown.contains('\x1b'), has_colour, "{option}: {shown:?}");
    }
}
