//! Whose model files are used: real files of real other users. Needs root, who can become them.

mod harness;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harness::skip::skip;
use harness::{Daemon, Options, TINY, signal, tiny_models, wait_for, write_config};

/// Users that no machine has.
const ALICE: u32 = 31_001;
const BOB: u32 = 31_002;

/// Whether this test can be other users.
fn is_root(promise: &str) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        skip(promise, "only root can become another user");
    }
    is_root
}

/// Puts the tiny model into a folder under a name, as this user's.
fn install(folder: &Path, name: &str, user: u32) {
    let file = folder.join(format!("{name}.gguf"));
    fs::copy(tiny_models().join(format!("{TINY}.gguf")), &file).unwrap();
    chown(&file, Some(user), Some(user)).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
}

fn listed(daemon: &Daemon) -> Vec<String> {
    let models = daemon.get("/v1/models").json();
    let models = models["data"].as_array().unwrap();
    let id = |model: &serde_json::Value| model["id"].as_str().unwrap().to_owned();
    models.iter().map(id).collect()
}

/// The line of the log that says why a path is passed over.
fn reason(daemon: &Daemon, path: &Path) -> String {
    let (log, path) = (daemon.log(), path.display().to_string());
    let line = log
        .lines()
        .find(|line| line.contains("not a model") && line.contains(&path));
    line.unwrap_or_else(|| panic!("{path} is not named:\n{log}"))
        .to_owned()
}

/// A daemon that another user runs.
fn run_as(user: u32, options: Options) -> Daemon {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("api.sock");
    write_config(dir.path(), &options);
    // The build may lie where only its owner looks.
    let program = dir.path().join("gemmad");
    fs::copy(env!("CARGO_BIN_EXE_gemmad"), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    chown(dir.path(), Some(user), Some(user)).unwrap();
    let log = fs::File::create(dir.path().join("log")).unwrap();
    let process = Command::new(&program)
        .arg("--config")
        .arg(dir.path().join("gemmad.toml"))
        .uid(user)
        .gid(user)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let daemon = Daemon {
        dir,
        process,
        socket,
    };
    wait_for("the daemon's socket", || {
        UnixStream::connect(&daemon.socket).is_ok()
    });
    daemon
}

#[test]
fn files_of_strangers_are_passed_over_until_the_configuration_names_them() {
    if !is_root("whose files are used") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    install(folder.path(), "mine", 0);
    install(folder.path(), "alices", ALICE);
    install(folder.path(), "bobs", BOB);
    install(folder.path(), "open", 0);
    let open = folder.path().join("open.gguf");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o666)).unwrap();
    let options = |access: String| Options {
        models: folder.path().into(),
        access,
        ..Options::default()
    };
    let daemon = Daemon::with(options(String::new()));
    assert_eq!(listed(&daemon), ["mine"]);
    let alices = reason(&daemon, &folder.path().join("alices.gguf"));
    assert!(
        alices.contains("belongs to the user of number 31001")
            && alices.contains("`chown root ")
            && alices.contains("`admins` in gemmad.toml"),
        "{alices}"
    );
    let open = reason(&daemon, &open);
    assert!(
        open.contains("everyone may change") && open.contains("`chmod o-w "),
        "{open}"
    );

    // Whoever lists the models is told.
    let listing = Command::new(env!("CARGO_BIN_EXE_gemmactl"))
        .arg("--socket")
        .arg(&daemon.socket)
        .arg("models")
        .output()
        .unwrap();
    let remarks = String::from_utf8_lossy(&listing.stderr);
    assert!(
        remarks.contains("alices.gguf is passed over: not used"),
        "{remarks}"
    );
    let passed_over = daemon.status()["passed_over"].clone();
    assert_eq!(passed_over.as_array().unwrap().len(), 3, "{passed_over}");
    assert_eq!(daemon.get("/v1/models").json()["passed_over"], passed_over);
    for name in ["alices", "alices.gguf", "/models/ALICES.gguf"] {
        let mut request = harness::question("Hello");
        request["model"] = name.into();
        let reply = daemon.chat(&request);
        let error = reply.error();
        assert_eq!(reply.status, 404, "{error}");
        assert_eq!(reply.json()["error"]["code"], "model_not_found");
        assert!(
            error.contains("alices.gguf is passed over: not used, because")
                && error.contains("`chown root ")
                && error.ends_with("installed: mine"),
            "{error}"
        );
    }
    assert_eq!(daemon.get("/v1/models/nobodys").status, 404);
    assert!(!daemon.get("/v1/models/nobodys").error().contains("passed"));

    // Named as an administrator, also while the daemon runs.
    write_config(
        daemon.dir.path(),
        &options(format!("admins = [\"{ALICE}\"]")),
    );
    signal(daemon.pid(), "HUP");
    wait_for("alice's model", || listed(&daemon) == ["alices", "mine"]);
}

#[test]
fn a_folder_that_a_group_may_write_needs_the_groups_name() {
    if !is_root("whose folders are used") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    install(folder.path(), "mine", 0);
    chown(folder.path(), Some(0), Some(BOB)).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o2775)).unwrap();
    let options = |models_keys: String| Options {
        models: folder.path().into(),
        models_keys,
        ..Options::default()
    };
    let daemon = Daemon::with(options(String::new()));
    assert_eq!(listed(&daemon), Vec::<String>::new());
    let body =
        serde_json::json!({"model": "mine", "messages": [{"role": "user", "content": "Hi"}]});
    let named = daemon.chat(&body).error();
    assert!(
        named.contains(&folder.path().display().to_string()) && named.contains("may change"),
        "{named}"
    );
    let said = reason(&daemon, folder.path());
    assert!(
        said.contains("the group of number 31002 may change")
            && said.contains("`installers` in gemmad.toml"),
        "{said}"
    );
    write_config(
        daemon.dir.path(),
        &options(format!("installers = \"{BOB}\"")),
    );
    signal(daemon.pid(), "HUP");
    wait_for("the model", || listed(&daemon) == ["mine"]);
}

/// Waits until a daemon whose folders have changed has noticed.
fn noticed(daemon: &Daemon, expected: &[&str], what: &str) {
    let start = Instant::now();
    wait_for(what, || listed(daemon) == expected);
    let took = start.elapsed();
    assert!(took < Duration::from_secs(10), "{what}: {took:?}");
}

#[test]
fn what_is_repaired_moved_or_made_anew_is_noticed() {
    if !is_root("what a user who may not read a file notices") {
        return;
    }
    let top = tempfile::tempdir().unwrap();
    let chmod = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    chmod(top.path(), 0o755);
    let (parent, folder) = (top.path().join("parent"), top.path().join("parent/models"));
    let make = || {
        fs::create_dir_all(&folder).unwrap();
        install(&folder, "one", ALICE);
    };
    let models = folder.clone();
    // Neither the folder nor its parent is there when the daemon starts.
    let daemon = run_as(
        ALICE,
        Options {
            models,
            ..Options::default()
        },
    );
    assert_eq!(listed(&daemon), Vec::<String>::new());
    make();
    noticed(&daemon, &["one"], "a folder that comes later");

    let file = folder.join("one.gguf");
    for broken in [&file, &folder, &parent] {
        let mode = if *broken == file { 0o644 } else { 0o755 };
        chmod(broken, 0o000);
        noticed(&daemon, &[], "rights that were taken");
        let passed_over = daemon.status()["passed_over"].to_string();
        assert!(
            passed_over.contains("cannot be read by the daemon's user of number 31001"),
            "{passed_over}"
        );
        chmod(broken, mode);
        noticed(&daemon, &["one"], "rights that were given back");

        chown(broken, Some(BOB), Some(BOB)).unwrap();
        noticed(&daemon, &[], "an owner who may not install");
        chown(broken, Some(ALICE), Some(ALICE)).unwrap();
        noticed(&daemon, &["one"], "an owner who may");
    }

    for removed in [&folder, &parent] {
        fs::remove_dir_all(removed).unwrap();
        noticed(&daemon, &[], "a folder that is gone");
        make();
        noticed(&daemon, &["one"], "a folder that was made again");
        let away = top.path().join("away");
        fs::rename(removed, &away).unwrap();
        noticed(&daemon, &[], "a folder that was moved away");
        fs::rename(&away, removed).unwrap();
        noticed(&daemon, &["one"], "a folder that was moved back");
    }

    // What a link stands for is none of the folder's.
    let elsewhere = tempfile::tempdir().unwrap();
    chmod(elsewhere.path(), 0o755);
    install(elsewhere.path(), "two", ALICE);
    let target = elsewhere.path().join("two.gguf");
    std::os::unix::fs::symlink(&target, folder.join("two.gguf")).unwrap();
    noticed(&daemon, &["one", "two"], "a link");
    chmod(&target, 0o000);
    noticed(&daemon, &["one"], "a linked file without rights");
    chmod(&target, 0o644);
    noticed(&daemon, &["one", "two"], "a linked file with rights");
}

#[test]
fn what_is_mounted_over_a_folder_is_noticed() {
    let new_namespace = ["unshare", "--mount"];
    let can = Command::new(new_namespace[0])
        .args([new_namespace[1], "true"])
        .stderr(Stdio::null())
        .status();
    if !can.is_ok_and(|status| status.success()) {
        return skip(
            "what is mounted over a model folder",
            "nothing can be mounted here",
        );
    }
    let (folder, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let models = folder.path().join("models");
    fs::create_dir(&models).unwrap();
    install(&models, "below", 0);
    install(disk.path(), "above", 0);
    fs::set_permissions(disk.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let daemon = Daemon::with(Options {
        models: models.clone(),
        starter: new_namespace.map(String::from).to_vec(),
        ..Options::default()
    });
    assert_eq!(listed(&daemon), ["below"]);
    let in_its_namespace = |command: &[&str]| {
        let done = Command::new("nsenter")
            .args(["--mount", "--target", &daemon.pid().to_string()])
            .args(command)
            .status();
        assert!(done.unwrap().success(), "{command:?}");
    };
    let (from, to) = (disk.path().to_str().unwrap(), models.to_str().unwrap());
    in_its_namespace(&["mount", "--bind", from, to]);
    noticed(&daemon, &["above"], "a disk that comes later");
    in_its_namespace(&["umount", to]);
    noticed(&daemon, &["below"], "a disk that is taken away");
    // Over what leads to the folder, where nothing is.
    let above = folder.path().to_str().unwrap();
    in_its_namespace(&["mount", "-t", "tmpfs", "none", above]);
    noticed(&daemon, &[], "a disk over the folder's parent");
}

#[test]
fn a_user_s_own_daemon_uses_the_user_s_own_files_without_configuration() {
    if !is_root("a user's own daemon") {
        return;
    }
    // Below /tmp, which is sticky.
    let folder = tempfile::tempdir().unwrap();
    chown(folder.path(), Some(ALICE), Some(ALICE)).unwrap();
    install(folder.path(), "alices", ALICE);
    install(folder.path(), "roots", 0);
    install(folder.path(), "bobs", BOB);
    let daemon = run_as(
        ALICE,
        Options {
            models: folder.path().into(),
            ..Options::default()
        },
    );
    assert_eq!(listed(&daemon), ["alices", "roots"]);
    let bobs = reason(&daemon, &folder.path().join("bobs.gguf"));
    assert!(
        bobs.contains("belongs to the user of number 31002"),
        "{bobs}"
    );
}
