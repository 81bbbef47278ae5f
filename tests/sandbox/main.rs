//! The worker's confinement, tried from inside a real worker: a debugger makes its main thread ask
//! for what it must not have.

#[cfg(target_arch = "x86_64")]
mod decoding;
#[path = "../harness/mod.rs"]
mod harness;
#[cfg(target_arch = "x86_64")]
mod inject;
#[path = "../worker/quantize.rs"]
mod quantize;

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::skip::{self, skip};
use harness::{Daemon, Options, TINY, question, wait_for};
use quantize::{packs, quantized};
use serde_json::json;

const FRANCE: &str = "What is the capital of France?";
const PARIS: &str = "The capital of France is Paris.";
/// What a violation is reported with.
const VIOLATION: &str = "made a system call that it must not make";

fn status(pid: u32, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(":\t"));
    line.unwrap_or_else(|| panic!("{field}: {status}"))
        .to_owned()
}

#[test]
fn the_kernel_agrees_that_the_worker_is_confined() {
    let daemon = Daemon::start();
    assert_eq!(daemon.chat(&question(FRANCE)).content(), PARIS);
    let pid = daemon.status()["pid"].as_u64().unwrap() as u32;
    assert_eq!(
        (
            status(pid, "NoNewPrivs").as_str(),
            status(pid, "Seccomp").as_str()
        ),
        ("1", "2")
    );
    let tasks: Vec<u32> = fs::read_dir(format!("/proc/{pid}/task"))
        .unwrap()
        .map(|t| t.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .collect();
    assert!(tasks.len() > 2, "{tasks:?}");
    assert!(
        tasks.iter().all(|&task| status(task, "Seccomp") == "2"),
        "every thread is confined"
    );
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let limit = |name: &str| {
        let line = limits
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_else(|| panic!("{limits}"));
        line[name.len()..]
            .split_whitespace()
            .take(2)
            .map(|n| n.parse().unwrap())
            .collect::<Vec<u64>>()
    };
    assert_eq!(limit("Max core file size"), [0, 0]);
    assert_eq!(limit("Max open files"), [512, 512]);
    assert!(limit("Max file size")[1] < 100 << 20);
    // Neither of the two processes writes its memory, in which prompts are, to a core file.
    for pid in [pid, daemon.pid()] {
        assert_eq!(
            fs::read_to_string(format!("/proc/{pid}/coredump_filter"))
                .unwrap()
                .trim(),
            "00000000"
        );
    }
    assert!(
        !daemon.log().contains("this kernel has no seccomp"),
        "{}",
        daemon.log()
    );
}

#[test]
fn others_of_its_user_cannot_look_into_it() {
    if !rustix::process::geteuid().is_root() {
        skip(
            "a worker that others of its user look into",
            "only root can become another user",
        );
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("gemmad-worker");
    fs::copy(env!("CARGO_BIN_EXE_gemmad-worker"), &copy).unwrap();
    fs::set_permissions(
        dir.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut worker = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&copy)
        .arg("serve")
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
        .spawn()
        .unwrap();
    let mut length = [0; 4];
    (&ours).read_exact(&mut length).unwrap();
    let mut hello = vec![0; u32::from_le_bytes(length) as usize];
    (&ours).read_exact(&mut hello).unwrap();
    // What the kernel protects from a user's other processes it gives to root.
    assert_eq!(
        fs::metadata(format!("/proc/{}/maps", worker.id()))
            .unwrap()
            .uid(),
        0
    );
    drop(ours);
    assert!(worker.wait().unwrap().success());
}

#[test]
fn a_full_workload_needs_nothing_that_is_denied() {
    let (folder, _) = quantized("tiny-e2b-q8_0.gguf");
    let projector = "tiny-e2b-mmproj-f16.gguf";
    fs::copy(
        harness::tiny_models().join(projector),
        folder.path().join(projector),
    )
    .unwrap();
    let daemon = Daemon::with(Options {
        models: folder.path().into(),
        ..Options::default()
    });
    let picture = STANDARD.encode(include_bytes!("../data/pictures/red-circle.png"));
    let sound = STANDARD.encode(include_bytes!("../data/sounds/tone-1.opus"));
    let content = json!([
        {"type": "text", "text": "What is on the picture?"},
        {"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{picture}")}},
        {"type": "input_audio", "input_audio": {"data": sound, "format": "opus"}}
    ]);
    // The first round packs the weights, the second finds them packed.
    for round in 0..2 {
        assert_eq!(daemon.chat(&question(FRANCE)).content(), PARIS);
        let mut body = question("");
        body["messages"][0]["content"] = content.clone();
        assert_eq!(daemon.chat(&body).status, 200);
        assert_eq!(daemon.get("/memory").status, 200);
        if round == 0 && packs() {
            wait_for("the packed weights", || {
                daemon.get("/cache").json()["files"]
                    .as_array()
                    .is_some_and(|files| files.len() == 1)
            });
        }
        assert_eq!(daemon.post("/models/unload", &json!({})).status, 200);
    }
    assert_eq!(daemon.status()["crashes"], 0);
    assert!(!daemon.log().contains(VIOLATION), "{}", daemon.log());
}

#[cfg(target_arch = "x86_64")]
mod denials {
    use super::*;
    use inject::{Outcome, Stopped};
    use syscalls::Sysno;

    pub const KILLED: Outcome = Outcome::Signal(libc::SIGSYS);
    const READ_WRITE: u64 = (libc::PROT_READ | libc::PROT_WRITE) as u64;
    const EXECUTABLE: u64 = (libc::PROT_READ | libc::PROT_EXEC) as u64;
    const HERE: u64 = libc::AT_FDCWD as u64;
    // fcntl.h's, which libc leaves out.
    const SETSIG: u64 = 10;
    const SETOWN_EX: u64 = 15;

    /// `None` where this test cannot debug another process.
    pub fn stop(pid: u32) -> Option<Stopped> {
        match Stopped::attach(pid) {
            Ok(stopped) => Some(stopped),
            Err(error) => {
                skip(
                    "what a worker is kept from",
                    format!("it cannot be debugged ({error}); root can"),
                );
                None
            }
        }
    }

    /// A system call and its arguments.
    pub type Call = (Sysno, [u64; 6]);

    /// The network, and other programs on this machine.
    pub fn network(path: u64) -> Vec<Call> {
        vec![
            (
                Sysno::socket,
                [libc::AF_INET as u64, libc::SOCK_STREAM as u64, 0, 0, 0, 0],
            ),
            (
                Sysno::socket,
                [libc::AF_UNIX as u64, libc::SOCK_STREAM as u64, 0, 0, 0, 0],
            ),
            (
                Sysno::socketpair,
                [
                    libc::AF_UNIX as u64,
                    libc::SOCK_STREAM as u64,
                    0,
                    path,
                    0,
                    0,
                ],
            ),
            (Sysno::connect, [0, path, 16, 0, 0, 0]),
            (Sysno::bind, [0, path, 16, 0, 0, 0]),
            (Sysno::listen, [0, 1, 0, 0, 0, 0]),
            (Sysno::accept4, [0, 0, 0, 0, 0, 0]),
            (Sysno::sendto, [0, path, 1, 0, 0, 0]),
        ]
    }

    /// Programs and processes.
    pub fn processes(path: u64, ours: u64) -> Vec<Call> {
        vec![
            (Sysno::execve, [path, 0, 0, 0, 0, 0]),
            (Sysno::execveat, [HERE, path, 0, 0, 0, 0]),
            (Sysno::fork, [0; 6]),
            (Sysno::vfork, [0; 6]),
            (Sysno::clone, [libc::SIGCHLD as u64, 0, 0, 0, 0, 0]),
            (
                Sysno::clone,
                [
                    (libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_NEWUSER) as u64,
                    0,
                    0,
                    0,
                    0,
                    0,
                ],
            ),
            (Sysno::ptrace, [0; 6]),
            (Sysno::process_vm_readv, [ours, path, 1, path, 1, 0]),
            (Sysno::pidfd_open, [ours, 0, 0, 0, 0, 0]),
            (Sysno::kill, [ours, 0, 0, 0, 0, 0]),
            (Sysno::tgkill, [ours, ours, 0, 0, 0, 0]),
            (Sysno::prlimit64, [ours, 0, 0, 0, 0, 0]),
            // Signals by way of a descriptor, which Landlock does not see before its version 6.
            (Sysno::fcntl, [0, libc::F_SETOWN as u64, ours, 0, 0, 0]),
            (Sysno::fcntl, [0, SETSIG, libc::SIGKILL as u64, 0, 0, 0]),
            (Sysno::fcntl, [0, SETOWN_EX, path, 0, 0, 0]),
            (
                Sysno::fcntl,
                [0, libc::F_SETFL as u64, libc::O_ASYNC as u64, 0, 0, 0],
            ),
            (Sysno::fcntl, [0, libc::F_NOTIFY as u64, 1, 0, 0, 0]),
        ]
    }

    /// Files.
    pub fn files(path: u64) -> Vec<Call> {
        vec![
            (
                Sysno::openat,
                [
                    HERE,
                    path,
                    (libc::O_CREAT | libc::O_WRONLY) as u64,
                    0o600,
                    0,
                    0,
                ],
            ),
            (Sysno::openat, [HERE, path, libc::O_RDWR as u64, 0, 0, 0]),
            (Sysno::openat, [HERE, path, libc::O_PATH as u64, 0, 0, 0]),
            (Sysno::open, [path, 0, 0, 0, 0, 0]),
            (Sysno::creat, [path, 0o600, 0, 0, 0, 0]),
            (Sysno::openat2, [HERE, path, path, 24, 0, 0]),
            (Sysno::mkdirat, [HERE, path, 0o700, 0, 0, 0]),
            (Sysno::unlinkat, [HERE, path, 0, 0, 0, 0]),
            (Sysno::renameat2, [HERE, path, HERE, path, 0, 0]),
            (Sysno::symlinkat, [path, HERE, path, 0, 0, 0]),
            (
                Sysno::linkat,
                [0, path, HERE, path, libc::AT_EMPTY_PATH as u64, 0],
            ),
            (Sysno::fchmod, [0, 0o777, 0, 0, 0, 0]),
            (Sysno::ftruncate, [0; 6]),
            (Sysno::memfd_create, [path, 0, 0, 0, 0, 0]),
            (Sysno::mount, [path, path, 0, 0, 0, 0]),
        ]
    }

    /// Code, the confinement itself, and large parts of the kernel that nobody here needs.
    pub fn the_rest(path: u64) -> Vec<Call> {
        vec![
            // Code.
            (
                Sysno::mmap,
                [
                    0,
                    4096,
                    EXECUTABLE,
                    (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64,
                    u64::MAX,
                    0,
                ],
            ),
            (Sysno::mprotect, [path & !4095, 4096, EXECUTABLE, 0, 0, 0]),
            // The confinement itself.
            (Sysno::prctl, [libc::PR_SET_DUMPABLE as u64, 1, 0, 0, 0, 0]),
            (Sysno::prctl, [libc::PR_SET_PDEATHSIG as u64, 0, 0, 0, 0, 0]),
            (Sysno::rt_sigaction, [libc::SIGSYS as u64, 0, 0, 8, 0, 0]),
            (Sysno::setuid, [0; 6]),
            (Sysno::unshare, [libc::CLONE_NEWUSER as u64, 0, 0, 0, 0, 0]),
            // Large parts of the kernel that nobody here needs.
            (Sysno::io_uring_setup, [1, path, 0, 0, 0, 0]),
            (Sysno::bpf, [0; 6]),
            (Sysno::userfaultfd, [0; 6]),
            (Sysno::perf_event_open, [0; 6]),
            (Sysno::keyctl, [0; 6]),
            (Sysno::add_key, [0; 6]),
        ]
    }

    #[test]
    fn what_is_not_in_the_table_is_not_done() {
        let daemon = Daemon::start();
        let pid = daemon.load();
        let Some(worker) = stop(pid) else { return };
        let path = worker.write(b"/tmp/gemmad-must-not\0");
        let ours = u64::from(std::process::id());
        let calls = [
            network(path),
            processes(path, ours),
            files(path),
            the_rest(path),
        ];
        for (call, arguments) in calls.into_iter().flatten() {
            assert_eq!(worker.call(call, arguments), KILLED, "{call}{arguments:?}");
        }
        assert_eq!(
            worker.call(Sysno::clone3, [path, 64, 0, 0, 0, 0]),
            Outcome::Failed(libc::ENOSYS)
        );
        assert!(!fs::exists("/tmp/gemmad-must-not").unwrap());
        // None of it happened, so the worker goes on.
        drop(worker);
        assert_eq!(daemon.chat(&question(FRANCE)).content(), PARIS);
        assert_eq!(daemon.status()["pid"], pid);
    }

    /// Counts the files that a process has open. What it has open for writing is a channel, never a
    /// file.
    fn files_open_for_reading(pid: u32) -> usize {
        let mut files = 0;
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
            let entry = entry.unwrap();
            let number = entry.file_name().into_string().unwrap();
            let Ok(target) = fs::metadata(entry.path()) else {
                continue;
            };
            let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).unwrap();
            let flags = info
                .lines()
                .find_map(|line| line.strip_prefix("flags:"))
                .unwrap();
            let flags = i32::from_str_radix(flags.trim(), 8).unwrap();
            if target.is_file() && flags & libc::O_PATH == 0 {
                assert_eq!(flags & libc::O_ACCMODE, libc::O_RDONLY, "{number}: {info}");
                files += 1;
            }
        }
        files
    }

    #[test]
    fn only_its_own_files_can_be_opened() {
        if !packs() {
            return;
        }
        let (folder, _) = quantized("tiny-e2b-q8_0.gguf");
        let daemon = Daemon::with(Options {
            models: folder.path().into(),
            ..Options::default()
        });
        assert_eq!(daemon.chat(&question(FRANCE)).content(), PARIS);
        wait_for("the packed weights", || {
            daemon.get("/cache").json()["files"]
                .as_array()
                .is_some_and(|files| files.len() == 1)
        });
        let pid = daemon.status()["pid"].as_u64().unwrap() as u32;
        if daemon.log().contains("this kernel has no Landlock") {
            skip(
                "which files a worker may open",
                "this kernel has no Landlock",
            );
            return;
        }
        let Some(worker) = stop(pid) else { return };
        let open = |path: &str| {
            worker.call(
                Sysno::openat,
                [
                    HERE,
                    worker.write(format!("{path}\0").as_bytes()),
                    0,
                    0,
                    0,
                    0,
                ],
            )
        };
        let config = daemon.config().display().to_string();
        for path in [
            "/etc/passwd",
            "/etc/hostname",
            "/dev/null",
            "/proc/1/status",
            "/sys/kernel",
            "/",
            &config,
        ] {
            assert_eq!(open(path), Outcome::Failed(libc::EACCES), "{path}");
        }
        assert!(matches!(open("/proc/self/maps"), Outcome::Returned(_)));
        assert!(files_open_for_reading(pid) > 0);
        // Neither can the weights be changed through memory, although this worker has packed them.
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let cache = daemon.dir.path().join("cache").display().to_string();
        let packed = maps
            .lines()
            .find(|line| line.contains(" r--s ") && line.contains(&cache))
            .unwrap_or_else(|| panic!("{maps}"));
        let start = u64::from_str_radix(packed.split('-').next().unwrap(), 16).unwrap();
        assert_eq!(
            worker.call(Sysno::mprotect, [start, 4096, READ_WRITE, 0, 0, 0]),
            Outcome::Failed(libc::EACCES)
        );
    }

    #[test]
    fn a_forbidden_call_is_named_and_ends_the_worker_alone() {
        let daemon = Daemon::start();
        let pid = daemon.load();
        let mut body = question(FRANCE);
        body["model"] = json!(TINY);
        // All its threads are there when this is answered: signals are blocked while one is
        // started.
        assert_eq!(daemon.chat(&body).content(), PARIS);
        let Some(worker) = stop(pid) else { return };
        worker.call_and_let_go(
            Sysno::socket,
            [libc::AF_INET as u64, libc::SOCK_STREAM as u64, 0, 0, 0, 0],
        );
        wait_for("the worker's end", || daemon.status()["crashes"] == 1);
        let log = daemon.log();
        assert!(
            log.contains(&format!("{VIOLATION}: socket")) && log.contains("SIGSYS"),
            "{log}"
        );
        assert_eq!(daemon.chat(&body).content(), PARIS);
    }
}
