//! Apps with sockets of their own: whoever connects there is the app, and no more, whichever user that is.

mod harness;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use harness::skip::skip;
use harness::users::{self, ALICE, BOB, as_user};
use harness::{Daemon, Options, PATIENCE, Reply, TINY, question, wait_for};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A folder that everybody may look into.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// The table of an app whose socket is open to everybody, and where that is: in a folder of its own.
fn app(folder: &TempDir, name: &str, keys: &str) -> (String, PathBuf) {
    let own = folder.path().join(name);
    fs::create_dir(&own).unwrap();
    fs::set_permissions(&own, fs::Permissions::from_mode(0o755)).unwrap();
    let socket = own.join("api.sock");
    let table = format!(
        "[[app]]\nname = \"{name}\"\nsocket = \"{}\"\nsocket-mode = \"0666\"\n{keys}\n",
        socket.display()
    );
    (table, socket)
}

fn daemon(tables: String) -> Daemon {
    users::daemon(Options {
        audit: tables,
        ..Options::default()
    })
}

/// Does something through another socket than the daemon's own.
fn at<T>(daemon: &mut Daemon, socket: &Path, act: impl FnOnce(&Daemon) -> T) -> T {
    let own = std::mem::replace(&mut daemon.socket, socket.to_owned());
    let done = act(daemon);
    daemon.socket = own;
    done
}

/// A GET with more headers.
fn with_headers(socket: &Path, path: &str, headers: &str) -> Reply {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n\r\n");
    // Who is refused at once is not read.
    let _ = stream.write_all(head.as_bytes());
    Reply::read(stream).unwrap()
}

fn cached(reply: &Reply) -> u64 {
    assert_eq!(reply.status, 200, "{}", reply.text());
    let usage = &reply.json()["usage"];
    usage["prompt_tokens_details"]["cached_tokens"]
        .as_u64()
        .unwrap()
}

#[test]
fn whoever_connects_to_an_apps_socket_is_the_app() {
    if !users::possible("who is connected to an app's socket") {
        return;
    }
    let sockets = folder();
    let (notes, socket) = app(&sockets, "notes", "");
    let mut daemon = daemon(notes);
    let prompt = question(&"The door of the shed has the code 7316. ".repeat(12));
    let keep = json!({"model": "auto", "input": "Hello!", "store": true, "temperature": 0});

    // What a user has asked is no app's, also not when the same user asks there.
    assert_eq!(as_user(ALICE, || cached(&daemon.chat(&prompt))), 0);
    let hers = as_user(ALICE, || daemon.post("/v1/responses", &keep).json());
    let hers = format!("/v1/responses/{}", hers["id"].as_str().unwrap());
    assert_eq!(as_user(ALICE, || daemon.get(&hers).status), 200);

    at(&mut daemon, &socket, |daemon| {
        assert_eq!(as_user(ALICE, || cached(&daemon.chat(&prompt))), 0);
        for uid in [ALICE, BOB, 0] {
            assert_eq!(as_user(uid, || daemon.get(&hers).status), 404, "{uid}");
            // What the app has asked before, whoever it was then.
            assert!(as_user(uid, || cached(&daemon.chat(&prompt))) > 50, "{uid}");
            for (path, body) in [
                ("/models/load", json!({"model": "auto"})),
                ("/models/prune", json!({})),
                ("/tokens", json!({"scopes": ["inference"]})),
                ("/tokens/rotate", json!({})),
                ("/cache/clear", json!({})),
            ] {
                let refused = as_user(uid, || daemon.post(path, &body));
                assert_eq!(refused.status, 403, "{uid} {path}: {}", refused.text());
            }
            let metrics = as_user(uid, || daemon.get("/metrics"));
            assert_eq!(metrics.status, 403);
            assert!(metrics.text().contains("the app `notes` may not do that"));
        }
    });

    let apps = at(&mut daemon, &socket, |daemon| {
        as_user(BOB, || daemon.post("/v1/responses", &keep).json())
    });
    let apps = format!("/v1/responses/{}", apps["id"].as_str().unwrap());
    for uid in [ALICE, BOB, 0] {
        assert_eq!(as_user(uid, || daemon.get(&apps).status), 404, "{uid}");
        at(&mut daemon, &socket, |daemon| {
            assert_eq!(as_user(uid, || daemon.get(&apps).status), 200, "{uid}");
            let used = as_user(uid, || daemon.get("/usage").json());
            let used = used["data"].as_array().unwrap();
            assert_eq!(used.len(), 1, "{used:?}");
            assert_eq!(used[0]["app"], "notes");
            assert_eq!(
                (&used[0]["user"], &used[0]["requests"]),
                (&Value::Null, &json!(5))
            );
        });
    }
}

#[test]
fn a_token_or_a_gateways_header_makes_an_app_nobody_else() {
    let sockets = folder();
    let (notes, socket) = app(&sockets, "notes", "");
    let daemon = daemon(notes);
    let issued = daemon.post("/tokens", &json!({"scopes": ["inference", "admin"]}));
    let token = issued.json()["token"].as_str().unwrap().to_owned();
    let bearer = format!("authorization: Bearer {token}");
    assert_eq!(
        with_headers(&daemon.socket, "/metrics", &bearer).status,
        200
    );
    let refused = with_headers(&socket, "/version", &bearer);
    assert_eq!(refused.status, 403, "{}", refused.text());
    assert!(refused.text().contains("no token is taken"));
    assert!(!daemon.log().contains(&token));
    // What clients of other services must send is nothing.
    for key in ["authorization: Bearer sk-none", "x-api-key: none", "a: b"] {
        assert_eq!(with_headers(&socket, "/version", key).status, 200, "{key}");
    }
    let peer = with_headers(&socket, "/version", "x-gemmad-peer: 127.0.0.1");
    assert_eq!(peer.status, 403);
    assert!(
        peer.text().contains("app notes is not the gateway's user"),
        "{}",
        peer.text()
    );
}

#[test]
fn an_app_may_do_what_its_table_says_now() {
    if !users::possible("what an app may do") {
        return;
    }
    let sockets = folder();
    let (notes, narrow) = app(&sockets, "notes", &format!("models = [\"{TINY}\"]"));
    let (keeper, wide) = app(&sockets, "keeper", "scopes = [\"inference\", \"admin\"]");
    let (mail, slow) = app(&sockets, "mail", "limit = 3");
    let mut daemon = daemon(format!("{notes}{keeper}{mail}"));
    let models = daemon.get("/v1/models").json();
    let other = models["data"].as_array().unwrap().iter();
    let mut other = other.filter_map(|model| model["id"].as_str());
    let other = other.find(|id| *id != TINY).unwrap();
    let ask = |daemon: &Daemon, model: &str| {
        let mut body = question("Hello!");
        body["model"] = model.into();
        as_user(BOB, || daemon.chat(&body))
    };
    at(&mut daemon, &narrow, |daemon| {
        for model in ["auto", TINY] {
            assert_eq!(ask(daemon, model).json()["model"], TINY);
        }
        let refused = ask(daemon, other);
        assert_eq!(refused.status, 403, "{}", refused.text());
        assert!(refused.text().contains(TINY));
    });
    at(&mut daemon, &wide, |daemon| {
        assert_eq!(as_user(BOB, || daemon.get("/metrics").status), 200);
        let pulled = as_user(BOB, || daemon.post("/models/prune", &json!({})));
        assert_eq!(pulled.status, 403, "{}", pulled.text());
    });
    let statuses = at(&mut daemon, &slow, |daemon| {
        [0; 4].map(|_| as_user(ALICE, || daemon.get("/version").status))
    });
    assert_eq!(statuses, [200, 200, 200, 429]);

    // It holds for connections that are there already.
    let mut stream = UnixStream::connect(&narrow).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let config = fs::read_to_string(daemon.config()).unwrap();
    let config = config.replace(&notes, "");
    fs::write(daemon.config(), &config).unwrap();
    daemon.signal("HUP");
    wait_for("the configuration to be read", || {
        daemon.log().contains("the configuration is read again")
    });
    stream
        .write_all(b"GET /version HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    assert_eq!(Reply::read(stream).unwrap().status, 403);
    let late = with_headers(&narrow, "/version", "a: b");
    assert_eq!(late.status, 403);
    assert!(
        late.text()
            .contains("no [[app]] is called `notes` any more"),
        "{}",
        late.text()
    );
    drop(daemon);
}

/// Tells, from inside of a container, what can be reached there.
const PROBE: &str = r#"
import json, os, socket, sys
def ask(method, path, body=""):
    s = socket.socket(socket.AF_UNIX); s.settimeout(60); s.connect("/run/gemmad/api.sock")
    s.sendall(f"{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
    answer = b""
    while more := s.recv(65536): answer += more
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode()
chat = json.dumps({"model": "auto", "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 4})
print(json.dumps({
    "uid": os.getuid(), "sees_own": os.path.exists(sys.argv[1]),
    "chat": ask("POST", "/v1/chat/completions", chat)[0], "load": ask("POST", "/models/load", '{"model":"auto"}')[0],
    "token": ask("POST", "/tokens", "{}")[0], "usage": json.loads(ask("GET", "/usage")[1])["data"],
}))
"#;

/// Lays out a root with the system's programs and the app's folder, and runs something there, as `--userspec` says.
const CONTAINER: &str = r#"
set -e
root=$1; app=$2; user=$3; shift 3
mount -t tmpfs none "$root"
mkdir -p "$root/usr" "$root/run/gemmad"
for link in bin lib lib64; do ln -s usr/$link "$root/$link"; done
mount --rbind /usr "$root/usr"
mount --bind "$app" "$root/run/gemmad"
exec chroot ${user:+--userspec=$user} "$root" /usr/bin/python3 -c "$@"
"#;

#[test]
fn a_container_that_is_given_one_socket_is_the_app() {
    if !users::possible("a container with an app's socket") {
        return;
    }
    let sockets = folder();
    let (notes, socket) = app(&sockets, "notes", "");
    let daemon = daemon(notes);
    let root = folder();
    let alice = format!(
        "--reuid={ALICE} --regid={ALICE} --clear-groups unshare --user --map-root-user --mount"
    );
    let bob = format!("{BOB}:{BOB}");
    // Root of the machine; another user of it; and root of a user namespace, which is a user outside.
    let ways = [
        ("unshare", "--mount --propagation private", "", 0),
        (
            "unshare",
            "--mount --propagation private",
            bob.as_str(),
            BOB,
        ),
        ("setpriv", alice.as_str(), "", 0),
    ];
    for (at, (program, args, user, uid)) in ways.into_iter().enumerate() {
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let output = Command::new(program)
            .args(args.split(' '))
            .args(["sh", "-c", CONTAINER, "container"])
            .args([root.path(), socket.parent().unwrap(), Path::new(user)])
            .args([Path::new(PROBE), daemon.socket.as_path()])
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        if at == 2 && error.contains("unshare failed") {
            skip("root of a user namespace with an app's socket", error);
            continue;
        }
        let found: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{program} {args}: {error}\n{}", daemon.log()));
        assert_eq!(found["uid"], uid);
        assert_eq!(found["sees_own"], false);
        assert_eq!(found["chat"], 200, "{found}");
        assert_eq!(
            (&found["load"], &found["token"]),
            (&json!(403), &json!(403))
        );
        let used = found["usage"].as_array().unwrap();
        assert_eq!(used.len(), 1);
        assert_eq!(
            (&used[0]["app"], &used[0]["requests"]),
            (&json!("notes"), &json!(at + 1))
        );
    }
}

#[test]
fn a_socket_that_systemd_passes_for_an_app_is_the_apps() {
    if Command::new("systemd-socket-activate")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_err()
    {
        return skip(
            "apps' sockets that systemd passes",
            "systemd-socket-activate is not installed",
        );
    }
    let dir = folder();
    harness::write_config(dir.path(), &Options::default());
    let start = |names: &str| {
        let sockets = ["main.sock", "app.sock"].map(|name| dir.path().join(name));
        for socket in &sockets {
            let _ = fs::remove_file(socket);
        }
        let process = Command::new("systemd-socket-activate")
            .args(
                sockets
                    .each_ref()
                    .map(|socket| format!("--listen={}", socket.display())),
            )
            .arg(format!("--fdname={names}"))
            .arg(env!("CARGO_BIN_EXE_gemmad"))
            .arg("--config")
            .arg(dir.path().join("gemmad.toml"))
            .stderr(fs::File::create(dir.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        wait_for("the sockets", || {
            sockets.iter().all(|socket| socket.exists())
        });
        (process, sockets)
    };
    let (mut process, [main, app]) = start("gemmad.socket:app-org.example.Notes");
    let own = with_headers(&main, "/metrics", "a: b");
    assert_eq!(own.status, 200, "{}", own.text());
    let apps = with_headers(&app, "/metrics", "a: b");
    assert_eq!(apps.status, 403);
    assert!(
        apps.text().contains("`org.example.Notes`"),
        "{}",
        apps.text()
    );
    assert_eq!(with_headers(&app, "/v1/models", "a: b").status, 200);
    harness::signal(process.id(), "TERM");
    process.wait().unwrap();

    // One whose name is none, or is written otherwise, is served to nobody.
    for (passed, named) in [
        ("app-a b", "`a b`"),
        ("gemmad-app@notes.socket", "`gemmad-app@notes.socket`"),
        ("App-notes", "`App-notes`"),
    ] {
        let (mut process, [main, _]) = start(&format!("gemmad.socket:{passed}"));
        let _first = UnixStream::connect(&main).unwrap();
        assert_eq!(process.wait().unwrap().code(), Some(78));
        let log = fs::read_to_string(dir.path().join("log")).unwrap();
        assert!(
            log.contains(&format!("{named}, which is no app's name")),
            "{log}"
        );
    }
}
