//! What is refused, and by whom.

use super::*;

#[test]
fn refusals_have_exit_codes() {
    let cases = [
        (
            "429 Too Many Requests",
            "retry-after: 7\r\n",
            75,
            "64 wait\ntry again in 7 s",
        ),
        ("429 Too Many Requests", "", 75, "64 wait\ntry again later"),
        (
            "503 Service Unavailable",
            "retry-after: 2\r\n",
            75,
            "try again in 2 s",
        ),
        ("503 Service Unavailable", "", 1, "gemmactl: 64 wait\n"),
        ("400 Bad Request", "", 1, "gemmactl: 64 wait\n"),
    ];
    for (status, headers, expected, message) in cases {
        let daemon = Daemon::start(1, move |_, peer| {
            peer.answer(
                status,
                headers,
                &json!({"error": {"message": "64 wait", "type": "t", "param": null, "code": null}}),
            );
        });
        let (out, err, code) = texts(&daemon.run(&["ask", "hello"]));
        assert_eq!(
            (out.as_str(), code),
            ("", Some(expected)),
            "{status}: {err}"
        );
        assert!(err.contains(message), "{status}: {err}");
    }
}

#[test]
fn without_a_daemon_every_command_says_how_to_start_it() {
    let home = tempfile::tempdir().unwrap();
    // A socket that nobody listens on any more, and none at all.
    let dead = home.path().join("dead");
    drop(UnixListener::bind(&dead).unwrap());
    for socket in [&dead, &home.path().join("none")] {
        for args in [
            &["ask", "hello"][..],
            &["status"],
            &["models"],
            &["load", "m"],
            &["unload"],
            &["memory"],
            &["cache"],
            &["cache", "clear"],
        ] {
            let (_, err, code) = texts(&command(socket, args).output().unwrap());
            assert_eq!(code, Some(69), "{args:?}: {err}");
            assert!(
                err.contains("systemctl start gemmad") && err.contains(socket.to_str().unwrap()),
                "{args:?}: {err}"
            );
        }
    }
    let from_environment = Command::new(GEMMACTL)
        .arg("status")
        .env("GEMMAD_SOCKET", &dead)
        .output()
        .unwrap();
    assert!(texts(&from_environment).1.contains(dead.to_str().unwrap()));
}

/// Needs someone who is not root: root may open everything.
#[test]
fn a_closed_socket_names_the_group_that_may() {
    let daemon = Daemon::start(0, |_, _| {});
    let open = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap()
    };
    open(daemon.home.path(), 0o755);
    open(&daemon.socket(), 0o000);
    let mut command = if rustix::process::getuid().is_root() {
        // The build directory may be closed to others, so the program goes where the socket is.
        let program = daemon.home.path().join("gemmactl");
        std::fs::copy(GEMMACTL, &program).unwrap();
        open(&program, 0o755);
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(program);
        command
    } else {
        Command::new(GEMMACTL)
    };
    let output = match command
        .arg("--socket")
        .arg(daemon.socket())
        .arg("status")
        .stdin(Stdio::null())
        .output()
    {
        Err(error) => {
            return skip(
                "a user who may not open the socket",
                format!("setpriv cannot be run: {error}"),
            );
        }
        Ok(output) => output,
    };
    let (_, err, code) = texts(&output);
    if err.starts_with("setpriv:") {
        return skip("a user who may not open the socket", err);
    }
    assert_eq!(code, Some(77), "{err}");
    assert!(
        err.contains("you may not open") && err.contains("belongs to the group"),
        "{err}"
    );
}

#[test]
fn a_refusal_names_what_was_typed() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("a b.png");
    std::fs::write(&path, b"\x89PNG").unwrap();
    let schema = home.path().join("s.json");
    std::fs::write(&schema, "{}").unwrap();
    let (picture, schema) = (path.to_str().unwrap(), schema.to_str().unwrap());
    let part = "messages[1].content[0].image_url";
    let cases = [
        (
            &["ask", "x", "--system", "s", "--image", picture][..],
            part,
            format!("`{part}` is damaged"),
            format!("gemmactl: {picture} is damaged\n"),
        ),
        (
            &["ask", "x", "--schema", schema],
            "response_format.json_schema.schema",
            "the answer's format at `/a` is odd".into(),
            format!("gemmactl: --schema {schema}: the answer's format at `/a` is odd\n"),
        ),
        (
            &["ask", "x", "--json", "--stop", "a"],
            "stop",
            "`stop` has 17 entries".into(),
            "gemmactl: --stop has 17 entries\n".into(),
        ),
    ];
    for (args, field, message, told) in cases {
        let daemon = Daemon::start(1, move |_, peer| {
            let error = json!({"error": {"message": message, "param": field}});
            peer.answer("400 Bad Request", "", &error);
        });
        let (_, err, code) = texts(&daemon.run(args));
        assert_eq!((err, code), (told, Some(2)));
    }
    // In a chat, where it may be one that was shown long ago.
    let daemon = Daemon::for_chat(2, |index, peer| match index {
        0 => peer.say("yes"),
        _ => {
            let error = json!({"error": {"message": "the model cannot see", "param": "messages[0].content[0].image_url"}});
            peer.answer("400 Bad Request", "", &error);
        }
    });
    let typed = format!("/image {picture}\none?\ntwo?\n");
    let (_, err, code) = texts(&daemon.run_with(&["chat"], &typed));
    assert_eq!(code, Some(2), "{err}");
    assert!(
        err.contains(&format!("{picture}: the model cannot see\n")),
        "{err}"
    );
}
