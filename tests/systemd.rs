//! The service as systemd sees it: what it is told, the socket it keeps, the files that are
//! installed.

mod harness;

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use harness::skip::skip;
use harness::{Daemon, Options, PATIENCE, TINY, question, signal, wait_for};

/// systemd's end of sd_notify(3).
struct Manager {
    /// Read as they come: a full queue would stop the daemon.
    messages: mpsc::Receiver<String>,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Manager {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let (heard, messages) = mpsc::channel();
        std::thread::spawn(move || {
            let mut message = [0; 4096];
            while let Ok(bytes) = socket.recv(&mut message)
                && heard
                    .send(String::from_utf8_lossy(&message[..bytes]).into_owned())
                    .is_ok()
            {}
        });
        Self {
            messages,
            path,
            _dir: dir,
        }
    }

    /// The next message within `limit`.
    fn next(&self, limit: Duration) -> Option<String> {
        self.messages.recv_timeout(limit).ok()
    }

    /// Reads on until a message has `text`, and returns it.
    fn until(&self, text: &str) -> String {
        let start = Instant::now();
        loop {
            let message = self
                .next(PATIENCE)
                .unwrap_or_else(|| panic!("waited too long for {text}"));
            if message.contains(text) {
                return message;
            }
            assert!(start.elapsed() < PATIENCE, "waited too long for {text}");
        }
    }
}

#[test]
fn systemd_hears_of_start_state_reload_and_end() {
    let manager = Manager::new();
    let socket = manager.path.display().to_string();
    let mut daemon = Daemon::with_environment(
        Options::default(),
        &[("NOTIFY_SOCKET", &socket), ("WATCHDOG_USEC", "400000")],
    );
    manager.until("READY=1");
    manager.until("STATUS=No model in memory");
    daemon.load();
    let ready = manager.until("STATUS=Ready");
    assert!(
        ready.contains(TINY) && ready.contains("gemma-4-e2b") && ready.contains("MiB in memory"),
        "{ready}"
    );
    daemon.signal("HUP");
    assert!(manager.until("RELOADING=1").contains("MONOTONIC_USEC="));
    manager.until("READY=1");
    for _ in 0..3 {
        manager.until("WATCHDOG=1");
    }
    // A daemon that hangs says nothing.
    daemon.signal("STOP");
    while manager.next(Duration::from_millis(50)).is_some() {}
    assert_eq!(manager.next(Duration::from_millis(600)), None);
    daemon.signal("CONT");
    manager.until("WATCHDOG=1");
    daemon.signal("TERM");
    manager.until("STOPPING=1");
    manager.until("EXTEND_TIMEOUT_USEC=");
    assert!(daemon.wait().success());
}

/// Whether a program is there; says so if not.
fn has(program: &str) -> bool {
    let found = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok();
    if !found {
        skip(
            "the service as systemd sees it",
            format!("{program} is not installed"),
        );
    }
    found
}

#[test]
fn the_daemon_starts_with_the_first_program_and_leaves_after_the_last() {
    if !has("systemd-socket-activate") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        server: "exit-when-idle = \"300ms\"".into(),
        models_keys: "idle-unload = \"100ms\"".into(),
        ..Options::default()
    };
    harness::write_config(dir.path(), &options);
    let socket = dir.path().join("passed.sock");
    let mut process = Command::new("systemd-socket-activate")
        .arg(format!("--listen={}", socket.display()))
        .arg(env!("CARGO_BIN_EXE_gemmad"))
        .arg("--config")
        .arg(dir.path().join("gemmad.toml"))
        .stderr(fs::File::create(dir.path().join("log")).unwrap())
        .spawn()
        .unwrap();
    let program = || fs::read_to_string(format!("/proc/{}/comm", process.id())).unwrap();
    wait_for("the socket", || socket.exists());
    assert_eq!(program().trim(), "systemd-socket-");
    let body = question("What is the capital of France?").to_string();
    let mut stream = UnixStream::connect(&socket).unwrap();
    write!(stream, "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(
        answer.contains("The capital of France is Paris."),
        "{answer}\n{}",
        fs::read_to_string(dir.path().join("log")).unwrap()
    );
    assert_eq!(program().trim(), "gemmad");
    assert!(
        !dir.path().join("api.sock").exists(),
        "the configured socket is not made"
    );
    let mut status = None;
    wait_for("the daemon to leave", || {
        status = process.try_wait().unwrap();
        status.is_some()
    });
    assert!(status.unwrap().success());
    // The socket is whoever's who made it.
    assert!(socket.exists());
}

#[test]
fn a_daemon_with_its_own_socket_stays() {
    let daemon = Daemon::with(Options {
        server: "exit-when-idle = \"50ms\"".into(),
        ..Options::default()
    });
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(daemon.get("/version").status, 200);
    assert!(
        daemon
            .log()
            .contains("`exit-when-idle` needs a socket that systemd keeps")
    );
}

#[test]
fn a_users_own_instance_lives_in_the_users_directories() {
    let home = tempfile::tempdir().unwrap();
    let models = home.path().join(".local/share/gemmad/models");
    fs::create_dir_all(&models).unwrap();
    fs::copy(
        harness::tiny_models().join(format!("{TINY}.gguf")),
        models.join(format!("{TINY}.gguf")),
    )
    .unwrap();
    let mut process = Command::new(env!("CARGO_BIN_EXE_gemmad"))
        .arg("--user")
        .env_clear()
        .env("HOME", home.path())
        .env("XDG_RUNTIME_DIR", home.path().join("run"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let socket = home.path().join("run/gemmad/api.sock");
    wait_for("the user's socket", || UnixStream::connect(&socket).is_ok());
    let answer = Command::new(env!("CARGO_BIN_EXE_gemmactl"))
        .args(["--socket", socket.to_str().unwrap(), "models"])
        .output()
        .unwrap();
    assert!(
        String::from_utf8_lossy(&answer.stdout).contains(TINY),
        "{answer:?}"
    );
    signal(process.id(), "TERM");
    assert!(process.wait().unwrap().success());
}

/// What installs packages or builds.
const BUILDERS: [&str; 14] = [
    "apt",
    "apt-get",
    "dpkg",
    "dpkg-query",
    "sudo",
    "cargo",
    "rustc",
    "cc",
    "gcc",
    "cmake",
    "pip",
    "npm",
    "curl",
    "wget",
];

/// Reaches a goal with a umask that keeps others out, and with nothing to build or to fetch with.
fn make(goal: &str, destination: &Path) {
    let stand_ins = tempfile::tempdir().unwrap();
    let called = stand_ins.path().join("called");
    for name in BUILDERS {
        let program = stand_ins.path().join(name);
        let script = format!("#!/bin/sh\necho {name} >> {}\nexit 1\n", called.display());
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = std::env::var("PATH").unwrap();
    let programs = Path::new(env!("CARGO_BIN_EXE_gemmad")).parent().unwrap();
    let mut command = Command::new("sh");
    command
        .args(["-c", "umask 077; exec make \"$@\"", "sh"])
        .args(["--no-print-directory", goal, "PREFIX=/usr"])
        .arg(format!("DESTDIR={}", destination.display()))
        .env("PATH", format!("{}:{path}", stand_ins.path().display()))
        // This test's programs, wherever they were built.
        .arg(format!("BIN={}", programs.display()));
    here(command);
    assert_eq!(
        fs::read_to_string(&called).unwrap_or_default(),
        "",
        "{goal}"
    );
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    for entry in fs::read_dir(folder)
        .into_iter()
        .flatten()
        .map(Result::unwrap)
    {
        if entry.path().is_dir() {
            found.extend(files(&entry.path()))
        } else {
            found.push(entry.path())
        }
    }
    found.sort();
    found
}

#[test]
fn what_is_installed_is_sound_and_goes_away() {
    let root = tempfile::tempdir().unwrap();
    make("install", root.path());
    let config = root.path().join("etc/gemmad/gemmad.toml");
    let units = ["gemmad.service", "gemmad-gateway.service"];
    let units = units.map(|unit| root.path().join("usr/lib/systemd/system").join(unit));
    for file in [
        "usr/bin/gemmad",
        "usr/bin/gemmad-worker",
        "usr/bin/gemmactl",
        "usr/bin/gemmad-gateway",
        "usr/share/man/man1/gemmactl.1",
        "usr/share/man/man1/gemmactl-memory-plan.1",
        "usr/share/man/man5/gemmad.toml.5",
        "usr/share/man/man8/gemmad.8",
        "usr/share/man/man8/gemmad-gateway.8",
        "usr/share/bash-completion/completions/gemmactl",
        "usr/share/zsh/site-functions/_gemmactl",
        "usr/share/fish/vendor_completions.d/gemmactl.fish",
        "usr/share/doc/gemmad/LICENSE",
        "usr/share/doc/gemmad/docs/third-party-licences.txt",
    ] {
        assert!(
            root.path().join(file).exists(),
            "{file}: {:#?}",
            files(root.path())
        );
    }
    for library in ["libllama.so.0", "libggml-cpu-x64.so"] {
        let library = root.path().join("usr/lib/gemmad").join(library);
        assert_eq!(library.exists(), cfg!(feature = "cpu-variants"));
    }
    // Everybody can read it, whatever the umask of who installs it.
    for file in files(&root.path().join("usr")) {
        let mode = file.metadata().unwrap().mode();
        assert_eq!(mode & 0o444, 0o444, "{}: {mode:o}", file.display());
        let folder = file.parent().unwrap().metadata().unwrap().mode();
        assert_eq!(folder & 0o555, 0o555, "{}: {folder:o}", file.display());
    }
    // systemd looks whether the program is there.
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "system/gemmad.service",
        "system/gemmad.socket",
        "system/gemmad-pull.socket",
        "system/gemmad-pull@.service",
        "system/gemmad-relay.socket",
        "system/gemmad-relay@.service",
        "system/gemmad-gateway.socket",
        "system/gemmad-gateway.service",
        "system/gemmad-app@.socket",
        "user/gemmad-app@.socket",
        "user/gemmad.service",
        "user/gemmad.socket",
        "user/gemmad-pull.socket",
        "user/gemmad-pull@.service",
        "user/gemmad-relay.socket",
        "user/gemmad-relay@.service",
    ] {
        let text = fs::read_to_string(root.path().join("usr/lib/systemd").join(name)).unwrap();
        assert!(!text.contains("@BINDIR@"), "{name} still has a placeholder");
        let text = text.replace(
            "ExecStart=/usr/bin/",
            &format!("ExecStart={}/usr/bin/", root.path().display()),
        );
        let copy = folder.path().join(name);
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::write(copy, text).unwrap();
    }
    if has("systemd-analyze") {
        for (scope, args) in [("system", &["verify"][..]), ("user", &["--user", "verify"])] {
            let mut units: Vec<PathBuf> = fs::read_dir(folder.path().join(scope))
                .unwrap()
                .map(|unit| unit.unwrap().path())
                .collect();
            units.sort();
            let output = Command::new("systemd-analyze")
                .args(args)
                .args(units)
                .env("XDG_RUNTIME_DIR", folder.path())
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let ours: Vec<&str> = said
                .lines()
                .filter(|line| line.contains("gemmad"))
                .collect();
            assert!(output.status.success() && ours.is_empty(), "{said}");
        }
        // The threshold is in tenths.
        let output = Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--threshold=15"])
            .args(&units)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
    }
    if has("systemd-sysusers") && has("systemd-tmpfiles") && rustix::process::geteuid().is_root() {
        for (program, file) in [
            ("systemd-sysusers", "sysusers.d"),
            ("systemd-tmpfiles", "tmpfiles.d"),
        ] {
            let file = root.path().join("usr/lib").join(file).join("gemmad.conf");
            let mut command = Command::new(program);
            command.arg(format!("--root={}", root.path().display()));
            if program == "systemd-tmpfiles" {
                command.arg("--create");
            }
            let output = command.arg(file).output().unwrap();
            assert!(
                output.status.success(),
                "{program}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        assert!(
            fs::read_to_string(root.path().join("etc/passwd"))
                .unwrap()
                .contains("gemmad")
        );
        // Those who install are others than those who ask, and change only their own files.
        let models = root
            .path()
            .join("var/lib/gemmad/models")
            .metadata()
            .unwrap();
        let groups = fs::read_to_string(root.path().join("etc/group")).unwrap();
        let installers = groups
            .lines()
            .find_map(|line| line.strip_prefix("gemmad-models:"))
            .unwrap();
        let number = installers.split(':').nth(1).unwrap();
        assert_eq!(models.gid().to_string(), number, "{groups}");
        assert!(installers.ends_with(":gemmad"), "{installers}");
        assert_eq!(models.mode() & 0o7777, 0o3775);
    }
    fs::write(&config, "# mine\n").unwrap();
    make("install", root.path());
    assert_eq!(fs::read_to_string(&config).unwrap(), "# mine\n");
    make("uninstall", root.path());
    let left: Vec<_> = files(root.path())
        .into_iter()
        .filter(|file| file.starts_with(root.path().join("usr")))
        .collect();
    assert_eq!(left, Vec::<PathBuf>::new());
    assert!(config.exists());
}

/// What `make install` would do, for a user with this home.
fn planned_installation(variables: &[(&str, &str)]) -> String {
    let mut command = Command::new("make");
    command
        .args(["--no-print-directory", "-n", "install"])
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("MAKEFLAGS")
        .envs(variables.iter().copied());
    here(command)
}

/// Runs a command in the folder of the sources, which must succeed; what it said.
fn here(mut command: Command) -> String {
    let output = command
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn users_are_made_before_the_bus_reads_its_policy() {
    let plan = planned_installation(&[]);
    let place = |text: &str| plan.find(text).unwrap_or_else(|| panic!("{text}: {plan}"));
    assert!(place("systemd-sysusers &&") < place("systemctl reload dbus"));
}

#[test]
fn with_sudo_what_the_user_has_built_is_installed() {
    let home = Path::new("/root/.cache/gemmad/target-");
    let built = |variables: &[(&str, &str)]| {
        planned_installation(variables).contains(&home.display().to_string())
    };
    assert!(built(&[("HOME", "/nonexistent"), ("SUDO_USER", "root")]));
    assert!(!built(&[("HOME", "/nonexistent"), ("SUDO_USER", "")]));
}

/// What a file of the project says.
fn told_by(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The units of a folder that run something or listen, but for those that a socket makes.
fn units_of(folder: &str) -> Vec<String> {
    let names = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let is_unit = |name: &String| {
        (name.ends_with(".service") || name.ends_with(".socket")) && !name.contains('@')
    };
    names.filter(is_unit).collect()
}

#[test]
fn every_kind_of_package_is_of_this_version_and_ends_all_that_it_brought() {
    let version = env!("CARGO_PKG_VERSION");
    for (name, line) in [
        ("cross/debian/changelog", format!("gemmad ({version}) ")),
        ("cross/rpm/gemmad.spec", format!("\nVersion: {version}\n")),
        ("cross/arch/PKGBUILD", format!("\npkgver={version}\n")),
    ] {
        assert!(
            told_by(name).contains(&line),
            "{name} is of another version than Cargo.toml"
        );
    }
    // Where each package has the list of the units that its removal ends: the system's, and each user's.
    let lists = [
        (
            "cross/debian/gemmad.prerm",
            ["deb-systemd-invoke stop", "--machine \"$user@\" stop"],
        ),
        (
            "cross/rpm/gemmad.spec",
            ["%global system_units", "%global user_units"],
        ),
        (
            "cross/arch/gemmad.install",
            ["systemctl disable --now", "--machine \"$user@\" stop"],
        ),
    ];
    for (name, starts) in lists {
        let text = told_by(name).replace("\\\n", " ");
        for (start, folder) in starts.into_iter().zip(["systemd", "systemd/user"]) {
            let line = text
                .lines()
                .find_map(|line| Some(line.split_once(start)?.1));
            let line = line.unwrap_or_else(|| panic!("{name}: no {start}"));
            for unit in units_of(folder) {
                let named = line.split_whitespace().any(|word| word == unit);
                assert!(named, "{name} leaves {unit} of {folder} running");
            }
        }
    }
}

#[test]
fn the_licences_of_what_is_built_in_are_listed() {
    let mut command = Command::new("python3");
    command.args([".ci/third-party-licences.py", "--check"]);
    here(command);
}

#[test]
fn each_line_of_the_service_has_its_reason() {
    let unit =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/gemmad.service"))
            .unwrap();
    let hardening = unit
        .split("# --- What the service cannot do")
        .nth(1)
        .unwrap()
        .split("[Install]")
        .next()
        .unwrap();
    let mut reasoned = false;
    let mut settings = 0;
    for line in hardening.lines().skip(1) {
        match line {
            "" => reasoned = false,
            comment if comment.starts_with('#') => reasoned = true,
            setting => {
                assert!(reasoned, "{setting} has no reason");
                settings += 1;
            }
        }
    }
    assert!(settings > 25);
}

#[test]
fn the_journal_gets_a_field_for_each_value() {
    if !rustix::process::geteuid().is_root() {
        skip(
            "fields in the journal",
            "only root can put a journal of its own in the place of the system's",
        );
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    harness::write_config(dir.path(), &Options::default());
    // The journal's socket and standard error are the script's own, in a name space of its own.
    let script = r#"
import os, signal, socket, subprocess, sys
os.makedirs("/run/systemd/journal", exist_ok=True)
journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); journal.bind("/run/systemd/journal/socket"); journal.settimeout(20)
stream, other = socket.socketpair()
stat = os.fstat(other.fileno())
daemon = subprocess.Popen(sys.argv[1:], stderr=other, env={"JOURNAL_STREAM": f"{stat.st_dev}:{stat.st_ino}"})
entry = b""
while b"serving" not in entry: entry = journal.recv(65536)
daemon.send_signal(signal.SIGTERM); daemon.wait()
print(entry.decode(errors="replace"))
stream.setblocking(False)
try: print("STDERR", stream.recv(4096))
except BlockingIOError: pass
"#;
    let output = Command::new("unshare")
        .args([
            "--mount",
            "sh",
            "-c",
            "mount -t tmpfs none /run && exec \"$@\"",
            "sh",
            "python3",
            "-c",
            script,
        ])
        .args([env!("CARGO_BIN_EXE_gemmad"), "--config"])
        .arg(dir.path().join("gemmad.toml"))
        .output()
        .unwrap();
    let entry = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        entry.contains("GEMMAD_VERSION") && entry.contains("PRIORITY"),
        "{entry}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(!entry.contains("STDERR"), "{entry}");
}
