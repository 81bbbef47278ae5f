//! Conversations, and the other commands.

use super::*;

#[test]
fn chat_sends_the_whole_conversation_and_remembers_only_when_told() {
    let home = tempfile::tempdir().unwrap();
    let history = home.path().join("history");
    for keep in [false, true] {
        let daemon = Daemon::answering(3);
        let mut chat = daemon.command(&["chat"]);
        chat.env("XDG_STATE_HOME", home.path())
            .env("HOME", home.path());
        if keep {
            chat.arg("--history").arg(&history);
        }
        let mut child = piped(chat);
        let typed = "/system Be brief.\nfirst \\\nline\n\"\"\"\nsecond\n/quit\n\"\"\"\n/clear\n/think on\n/model m\nthird\n/quit\nnot this\n";
        child
            .stdin
            .take()
            .unwrap()
            .write_all(typed.as_bytes())
            .unwrap();
        let (out, err, code) = texts(&wait(child));
        assert_eq!(
            (out.as_str(), code),
            ("answer 0.\nanswer 1.\nanswer 2.\n", Some(0)),
            "{err}"
        );
        let bodies: Vec<_> = daemon
            .requests()
            .into_iter()
            .map(|request| request.body)
            .collect();
        let (system, user) = (
            json!({"role": "system", "content": "Be brief."}),
            |text: &str| json!({"role": "user", "content": text}),
        );
        assert_eq!(bodies[0]["messages"], json!([system, user("first \nline")]));
        let answer = json!({"role": "assistant", "content": "answer 0."});
        assert_eq!(
            bodies[1]["messages"],
            json!([system, user("first \nline"), answer, user("second\n/quit")])
        );
        assert_eq!(bodies[2]["messages"], json!([system, user("third")]));
        assert_eq!(
            (&bodies[1]["model"], &bodies[2]["model"]),
            (&json!("auto"), &json!("m"))
        );
        assert_eq!(bodies[2]["chat_template_kwargs"]["enable_thinking"], true);
        let kept: Vec<_> = std::fs::read_dir(home.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert_eq!(kept, if keep { vec![history.clone()] } else { vec![] });
    }
    assert!(std::fs::read_to_string(&history).unwrap().contains("third"));
    assert_eq!(
        std::fs::metadata(&history).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

#[test]
fn the_daemons_commands_reach_it() {
    let daemon = Daemon::start(9, |index, peer| {
        let status = json!({"state": "cold", "waiting": 0, "running": 0, "served": 5, "crashes": 0, "version": "9.9",
            "passed_over": [{"path": "/m/open.gguf", "reason": "others can change it"}]});
        let models = json!({"object": "list", "data": [{"id": "tiny", "size": 2 << 20, "context_length": 2048, "loaded": true}]});
        peer.answer(
            "200 OK",
            "",
            &[
                status.clone(),
                json!({"id": "tiny"}),
                status.clone(),
                models,
                json!({"id": "tiny"}),
                status.clone(),
                json!({"id": "tiny"}),
                status,
                json!({}),
            ][index],
        );
    });
    assert!(texts(&daemon.run(&["status"])).0.contains("9.9, cold"));
    let (out, _, _) = texts(&daemon.run(&["status", "--json"]));
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["served"], 5);
    let (listed, remarks, _) = texts(&daemon.run(&["models"]));
    assert!(listed.contains("2.0 MiB"), "{listed}");
    assert!(
        remarks.contains("/m/open.gguf is passed over: others can change it"),
        "{remarks}"
    );
    assert_eq!(
        texts(&daemon.run(&["load", "tiny"])),
        ("tiny is loaded\n".into(), String::new(), Some(0))
    );
    assert_eq!(
        texts(&daemon.run(&["unload"])),
        ("no model was loaded\n".into(), String::new(), Some(0))
    );
    let requests = daemon.requests();
    let lines: Vec<_> = requests
        .iter()
        .map(|request| request.line.strip_suffix(" HTTP/1.1").unwrap())
        .collect();
    assert_eq!(
        lines,
        [
            "GET /status",
            "GET /v1/models/auto",
            "GET /status",
            "GET /v1/models",
            "GET /v1/models/auto",
            "GET /status",
            "POST /models/load",
            "GET /status",
            "POST /models/unload"
        ]
    );
    assert_eq!(
        (&requests[6].body, &requests[8].body),
        (&json!({"model": "tiny"}), &json!({}))
    );
}

#[test]
fn config_check_names_files_and_mistakes() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("g.toml");
    let check = || {
        texts(
            &Command::new(GEMMACTL)
                .args(["config", "check", "--config"])
                .arg(&file)
                .output()
                .unwrap(),
        )
    };
    assert_eq!(check().2, Some(78));
    std::fs::write(&file, "[inference]\nslots = 3\n").unwrap();
    assert_eq!(
        check(),
        (format!("{}\nok\n", file.display()), String::new(), Some(0))
    );
    std::fs::write(&file, "[inference]\nslot = 3\n").unwrap();
    let (_, err, code) = check();
    assert_eq!(code, Some(78));
    assert!(
        err.contains("g.toml:2: unknown key `slot` in [inference]: did you mean `slots`?"),
        "{err}"
    );
    std::fs::write(&file, "[access]\nadmins = [\"nobody-of-this-name\"]\n").unwrap();
    let (_, err, code) = check();
    assert_eq!(code, Some(78));
    assert!(
        err.contains("g.toml: access.admins names `nobody-of-this-name`"),
        "{err}"
    );
}

#[test]
fn mistakes_on_the_command_line_are_usage_errors() {
    let home = tempfile::tempdir().unwrap();
    let none = home.path().join("none");
    let file = |name: &str, text: &str| {
        let path = home.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (list, schema) = (file("list.json", "[]"), file("schema.json", "{}"));
    let empty = file("empty.txt", "");
    for args in [
        &["ask"][..],
        &["nonsense"],
        &["ask", "x", "--temperature", "hot"],
        &["ask", "x", "--timeout", "soon"],
        &["ask", "x", "--temperature", "-1"],
        &["ask", "x", "--max-tokens", "0"],
        &["ask", "x", "--stop", ""],
        &["ask", "x", "--model", ""],
        &["ask", "x", "--schema", list.to_str().unwrap()],
        &["ask", "x", "--tools", schema.to_str().unwrap()],
        &["ask", "x", "--file", empty.to_str().unwrap()],
        &["memory", "plan", "--ram", "512"],
        &["memory", "plan", "--ctx", "-5"],
        &["--socket", "/tmp", "status"],
    ] {
        let (_, err, code) = texts(&command(&none, args).output().unwrap());
        assert_eq!(code, Some(2), "{args:?}: {err}");
        // It names what it is about: an option, or what was typed.
        let last = args.last().unwrap();
        let named = args
            .iter()
            .any(|arg| arg.starts_with("--") && err.contains(arg));
        assert!(
            named || err.contains(last) || args.len() == 1,
            "{args:?}: {err}"
        );
    }
    // A command that is a group shows what is in it.
    for (args, shown) in [(&[][..], "  ask "), (&["config"], "  check ")] {
        let (_, err, code) = texts(&command(&none, args).output().unwrap());
        assert!(code == Some(2) && err.contains(shown), "{args:?}: {err}");
    }
    let long = home.path().join("x".repeat(200));
    assert_eq!(
        command(&long, &["status"]).output().unwrap().status.code(),
        Some(2)
    );
}

#[test]
fn completions_manual_and_help_are_complete() {
    let run = |args: &[&str]| texts(&Command::new(GEMMACTL).args(args).output().unwrap());
    for shell in ["bash", "zsh", "fish"] {
        let (out, err, code) = run(&["completions", shell]);
        assert!(
            code == Some(0) && out.contains("gemmactl"),
            "{shell}: {err}"
        );
    }
    let (page, _, code) = run(&["man"]);
    assert_eq!(code, Some(0));
    let (help, ..) = run(&["--help"]);
    for code in ["69", "75", "77", "78", "130"] {
        assert!(
            help.contains(&format!("\n  {code}")),
            "{code} is not in --help: {help}"
        );
        assert!(
            page.contains(&format!("\\fB{code}\\fR")),
            "{code} is not in the manual"
        );
    }
    for name in ["GEMMAD_SOCKET", "GEMMAD_HISTORY", "NO_COLOR"] {
        assert!(page.contains(name), "{name} is not in the manual");
    }
    let home = tempfile::tempdir().unwrap();
    let pages = home.path().join("man1");
    assert_eq!(run(&["man", pages.to_str().unwrap()]).2, Some(0));
    for name in [
        "gemmactl.1",
        "gemmactl-ask.1",
        "gemmactl-chat.1",
        "gemmactl-memory.1",
        "gemmactl-cache-clear.1",
        "gemmactl-config-check.1",
    ] {
        let page = std::fs::read_to_string(pages.join(name)).unwrap();
        assert!(
            page.contains(".TH ") && page.contains("EXIT STATUS"),
            "{name}"
        );
    }
    let names: Vec<_> = std::fs::read_dir(&pages)
        .unwrap()
        .map(|page| page.unwrap().file_name().into_string().unwrap())
        .collect();
    // `help` has no page of its own.
    let is_help = |name: &String| name.ends_with("-help.1");
    assert!(!names.iter().any(is_help), "{names:?}");
    assert!(!page.contains("gemmactl\\-help"), "{page}");
    for (name, text) in [
        ("gemmad.8", "gemmad.toml(5)"),
        ("gemmad.toml.5", "\\fBidle\\-unload\\fR = \"10m\""),
    ] {
        let page = std::fs::read_to_string(pages.join(name)).unwrap();
        assert!(page.contains(text), "{name}: {page}");
    }
}
