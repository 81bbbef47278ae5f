//! What people meet at a terminal.

use super::*;

#[test]
fn what_is_typed_ahead_is_asked_too() {
    let daemon = Daemon::answering(3);
    let typed = "one?\rtwo?\rthree?\r/quit\r";
    let output = daemon.run_on_terminal("xterm", &["chat"], "> ", typed);
    let (shown, err, code) = texts(&output);
    assert_eq!(code, Some(0), "{shown}{err}");
    for answer in ["answer 0.", "answer 1.", "answer 2."] {
        assert!(shown.contains(answer), "{answer} is not shown: {shown}");
    }
    assert_eq!(daemon.questions(), ["one?", "two?", "three?"]);
}

#[test]
fn who_waits_is_told_how_far_it_is_until_the_answer_comes() {
    let daemon = Daemon::for_chat(1, |_, peer| {
        peer.begin_stream();
        let progress = json!({"phase": "reading", "tokens_read": 600, "tokens_to_read": 1000, "seconds_left": 40.0});
        for position in [3, 2] {
            let queued = json!({"phase": "queued", "position": position, "seconds_left": null});
            peer.event(
                &json!({"choices": [], "progress": queued}).to_string(),
                4096,
            );
            std::thread::sleep(std::time::Duration::from_millis(1100));
        }
        peer.event(
            &json!({"choices": [], "progress": progress}).to_string(),
            4096,
        );
        peer.text("answered.", 4096);
        peer.end_stream();
    });
    let typed = "one?\r/quit\r";
    let output = daemon.run_on_terminal("xterm", &["chat"], "> ", typed);
    let (shown, err, code) = texts(&output);
    assert_eq!(code, Some(0), "{shown}{err}");
    let place = |text: &str| {
        let place = shown.find(text);
        place.unwrap_or_else(|| panic!("{text} is not shown: {shown:?}"))
    };
    let said = [
        "number 3 in the queue, 1 s",
        "number 2 in the queue",
        "reading the prompt, 600 of 1000 tokens, 2 s, about 40 s left",
        "\r\x1b[Kanswered.",
    ];
    assert!(said.map(place).is_sorted(), "{shown:?}");
    let asked = daemon.requests().remove(0).body;
    assert_eq!(asked["stream_options"], json!({"include_progress": true}));
}

#[test]
fn answers_to_piped_lines_are_lines() {
    let output = Daemon::answering(2).run_with(&["chat"], "one?\ntwo?");
    assert_eq!(texts(&output).0, "answer 0.\nanswer 1.\n");
}

#[test]
fn an_answer_ends_with_a_newline_unless_it_shall_not() {
    for (option, expected) in [
        (None, "answer 0.\n"),
        (Some("--no-newline"), "answer 0."),
        (Some("-n"), "answer 0."),
    ] {
        let daemon = Daemon::answering(1);
        let line: Vec<_> = ["ask", "x"].into_iter().chain(option).collect();
        assert_eq!(texts(&daemon.run(&line)).0, expected);
    }
}

#[test]
fn verbose_tells_how_fast_it_was() {
    let daemon = Daemon::start(1, |_, peer| {
        peer.begin_stream();
        peer.text("yes", 4096);
        let timings = json!({"cache_n": 2, "prompt_n": 8, "prompt_ms": 100.0, "prompt_per_second": 80.0,
            "predicted_n": 3, "predicted_ms": 500.0, "predicted_per_second": 4.0});
        peer.event(
            &json!({"choices": [{"delta": {}, "finish_reason": "stop"}], "timings": timings})
                .to_string(),
            4096,
        );
        peer.end_stream();
    });
    let (out, err, _) = texts(&daemon.run(&["ask", "-v", "x"]));
    assert_eq!(out, "yes\n");
    assert!(
        err.contains("prompt 10 tokens (2 of them cached), 0.10 s, 80.0 tokens/s; answer 3 tokens, 0.50 s, 4.0 tokens/s"),
        "{err}"
    );
}

#[test]
fn settings_of_a_chat_reach_the_daemon() {
    let daemon = Daemon::answering(2);
    let typed = "/set temperature 0.5\n/set parameter top_k 3\none?\n/set temperature default\n/set verbose\ntwo?\n";
    let output = daemon.run_with(&["chat", "--seed", "7"], typed);
    let (_, err, _) = texts(&output);
    assert!(
        err.contains("temperature is 0.5 from now on\ntop-k is 3 from now on\n"),
        "{err}"
    );
    assert!(err.contains(" in all"), "{err}");
    let bodies: Vec<_> = daemon
        .requests()
        .into_iter()
        .map(|request| request.body)
        .collect();
    let of = |body: &Value| {
        (
            body["temperature"].clone(),
            body["top_k"].clone(),
            body["seed"].clone(),
        )
    };
    assert_eq!(of(&bodies[0]), (json!(0.5), json!(3), json!(7)));
    assert_eq!(of(&bodies[1]), (Value::Null, json!(3), json!(7)));
}

/// A `gemmactl` without `--socket`, in a runtime directory of a test's own.
fn bare(runtime: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(GEMMACTL);
    command
        .args(args)
        .env("XDG_RUNTIME_DIR", runtime)
        .env_remove("GEMMAD_SOCKET")
        .stdin(Stdio::null());
    command
}

#[test]
fn a_users_own_daemon_is_found() {
    let daemon = Daemon::answering(1);
    let runtime = tempfile::tempdir().unwrap();
    std::fs::create_dir(runtime.path().join("gemmad")).unwrap();
    let own = runtime.path().join("gemmad/api.sock");
    std::os::unix::fs::symlink(daemon.socket(), &own).unwrap();
    let output = bare(runtime.path(), &["ask", "x"]).output().unwrap();
    assert_eq!(texts(&output).0, "answer 0.\n");

    // Nobody listens on it any more: the system's is tried, and both are named where that is not there either.
    std::fs::remove_file(&own).unwrap();
    drop(UnixListener::bind(&own).unwrap());
    let (_, err, code) = texts(&bare(runtime.path(), &["status"]).output().unwrap());
    if code == Some(69) {
        assert!(
            err.contains(own.to_str().unwrap()) && err.contains("/run/gemmad/api.sock"),
            "{err}"
        );
    } else {
        skip(
            "both sockets are named when nobody listens",
            "a daemon of the system is there".to_owned(),
        );
    }
}

#[test]
fn other_programs_words_lead_to_the_right_command() {
    let daemon = Daemon::start(7, |_, peer| {
        peer.answer(
            "200 OK",
            "",
            &json!({"id": "tiny", "loaded": true, "data": [], "state": "ready", "version": "9.9"}),
        );
    });
    assert!(texts(&daemon.run(&["ps"])).0.contains("9.9, ready"));
    assert!(
        texts(&daemon.run(&["show", "e2b"]))
            .0
            .contains("model     tiny")
    );
    assert_eq!(
        texts(&daemon.run(&["stop", "tiny"])).0,
        "tiny is unloaded\n"
    );
    let lines: Vec<_> = daemon
        .requests()
        .into_iter()
        .map(|request| request.line)
        .collect();
    assert_eq!(
        lines,
        [
            "GET /status",
            "GET /v1/models/auto",
            "GET /v1/models/e2b?details=1",
            "GET /v1/models/auto",
            "GET /memory/plan?",
            "GET /v1/models/tiny",
            "POST /models/unload"
        ]
        .map(|line| format!("{line} HTTP/1.1"))
    );

    let daemon = Daemon::answering(1);
    assert_eq!(
        texts(&daemon.run(&["run", "e2b", "--think", "why", "is", "it?"])).0,
        "answer 0.\n"
    );
    let requests = daemon.requests();
    assert_eq!(requests[0].body["model"], "e2b");
    assert_eq!(
        requests[0].body["chat_template_kwargs"]["enable_thinking"],
        true
    );
    assert_eq!(requests[0].body["messages"][0]["content"], "why is it?");

    let run = |args: &[&str]| texts(&Command::new(GEMMACTL).args(args).output().unwrap());
    let version = format!("gemmactl {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!((run(&["-v"]).0, run(&["-V"]).0), (version.clone(), version));
    assert!(run(&["help", "ask"]).0.contains("--image"));
    let (_, err, code) = run(&["serve"]);
    assert!(
        code == Some(2) && err.contains("systemctl start gemmad"),
        "{err}"
    );
}

#[test]
fn a_model_that_is_not_loaded_is_not_unloaded() {
    let daemon = Daemon::start(1, |_, peer| {
        peer.answer("200 OK", "", &json!({"id": "tiny", "loaded": false}))
    });
    assert_eq!(
        texts(&daemon.run(&["stop", "tiny"])),
        ("tiny is not loaded\n".into(), String::new(), Some(0))
    );
    assert_eq!(daemon.requests().len(), 1);
}

#[test]
fn a_chat_without_a_daemon_or_its_model_does_not_begin() {
    let home = tempfile::tempdir().unwrap();
    let nobody = piped(command(&home.path().join("none"), &["chat"]));
    assert_eq!(wait(nobody).status.code(), Some(69));
    let refuses = || {
        Daemon::start(1, |_, peer| {
            let body = json!({"error": {"message": "there is no model `nope`", "param": "model"}});
            peer.answer("404 Not Found", "", &body);
        })
    };
    // Nothing is typed.
    let (out, err, code) = texts(&wait(refuses().piped(&["chat", "--model", "nope"])));
    assert_eq!((out.as_str(), code), ("", Some(1)), "{err}");
    assert!(err.contains("there is no model `nope`"), "{err}");
}

#[test]
fn what_a_chat_is_told_is_checked_at_once() {
    let home = tempfile::tempdir().unwrap();
    let empty = home.path().join("empty.txt");
    std::fs::write(&empty, "").unwrap();
    for (line, told) in [
        ("/set temperature -1", "from 0 to 2"),
        ("/set max-tokens 0", "-1 for no limit"),
        ("/set stop", "/set stop and a value"),
        (
            &format!("/file {}", empty.display()),
            "empty.txt: it is empty",
        ),
        ("/file /nowhere/x", "/nowhere/x: No such file"),
        ("/image -", "name a file"),
        ("/nope", "no command /nope"),
    ] {
        // A script ends there: the next line would be asked without it.
        let daemon = Daemon::for_chat(1, |_, _| {});
        let mut chat = daemon.piped(&["chat"]);
        let mut input = chat.stdin.take().unwrap();
        input.write_all(format!("{line}\n").as_bytes()).unwrap();
        drop(input);
        let (_, err, code) = texts(&wait(chat));
        assert_ne!(code, Some(0), "{line}: {err}");
        assert!(err.contains(told), "{line}: {err}");
    }
    let daemon = Daemon::start(2, |index, peer| {
        let body = json!({"id": "tiny", "error": {"message": "there is no model `nope`"}});
        peer.answer(["200 OK", "404 Not Found"][index], "", &body);
    });
    let (_, err, code) = texts(&daemon.run_with(&["chat"], "/model nope\n"));
    assert!(
        code == Some(1) && err.contains("there is no model `nope`"),
        "{err}"
    );
}

#[test]
fn tab_completes_commands() {
    let daemon = Daemon::answering(1);
    // The command, then a model by its beginning, then a line that is no command.
    let typed = "/thi\ton\rone?\r/qu\t\r";
    let output = daemon.run_on_terminal("xterm", &["chat"], "> ", typed);
    let (shown, err, code) = texts(&output);
    assert_eq!(code, Some(0), "{shown}{err}");
    assert!(shown.contains("thinking is on"), "{shown}");
    assert_eq!(daemon.questions(), ["one?"]);
}
