//! The confinement of a process that decodes pictures and sounds, tried from inside: it stands still
//! while nobody reads what it says.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use gemmad::ipc::frame;
use gemmad::ipc::{DecodeRequest, EncodedMedium, MediumKind, WorkerKind};
use gemmad::sys::socket;
use syscalls::Sysno;

use super::denials::{KILLED, files, network, processes, stop, the_rest};
use super::harness::wait_for;
use super::inject::Outcome;
use super::status;

/// More than the channel holds what is said of.
const MANY: usize = 4000;
const MEMORY: u64 = 100 << 20;

/// A sound of two samples.
const WAV: &[u8] = b"RIFF\x28\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x80\x3e\0\0\0\x7d\0\0\x02\0\x10\0data\x04\0\0\0\0\0\0\0";

/// A decoder that has something to say and cannot, and the end of the channel on which it does.
fn standing() -> (Child, UnixStream) {
    let (encoded, decoded) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    encoded.write_all_at(&WAV.repeat(MANY), 0).unwrap();
    let medium = EncodedMedium {
        kind: MediumKind::Sound,
        bytes: WAV.len() as u64,
    };
    decoded
        .set_len(MANY as u64 * medium.kind.most_bytes())
        .unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let worker = Command::new(env!("CARGO_BIN_EXE_gemmad-worker"))
        .arg(WorkerKind::Decode.name())
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let request = DecodeRequest {
        media: vec![medium; MANY],
        memory: MEMORY,
    };
    let mut bytes = vec![];
    frame::encode(&request, &mut bytes).unwrap();
    socket::send_all(&ours, &bytes, &[encoded.as_fd(), decoded.as_fd()]).unwrap();
    wait_for("the decoder to stand still", || {
        let pid = worker.id();
        let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
        let sends = Sysno::sendmsg.id().to_string();
        call.split(' ').next() == Some(&sends) && status(pid, "Seccomp") == "2"
    });
    (worker, ours)
}

#[test]
fn who_decodes_has_the_file_that_it_fills_and_nothing_else() {
    if !rustix::process::geteuid().is_root() {
        super::skip::skip("what a decoder is kept from", "only root can debug it");
        return;
    }
    let (mut child, channel) = standing();
    let pid = child.id();
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    // The one that counts and the one that it cannot be raised beyond.
    let both = |name: &str| {
        let line = limits.lines().find(|line| line.starts_with(name));
        let words = line.unwrap()[name.len()..].split_whitespace();
        let numbers: Vec<u64> = words.take(2).map(|word| word.parse().unwrap()).collect();
        (numbers[0], numbers[1])
    };
    let limit = |name: &str| both(name).1;
    let most = MANY as u64 * MediumKind::Sound.most_bytes();
    assert_eq!(
        (limit("Max data size"), limit("Max file size")),
        (MEMORY, most)
    );
    // It ends by SIGXCPU, which nobody else sends.
    assert_eq!(both("Max cpu time"), (20, 21));
    assert_eq!(status(pid, "NoNewPrivs"), "1");
    assert_eq!(status(pid, "Threads"), "1");
    let Some(worker) = stop(pid) else { return };
    let path = worker.write(b"/etc/passwd\0");
    let ours = u64::from(std::process::id());
    let here = libc::AT_FDCWD as u64;
    let more = vec![
        (Sysno::openat, [here, path, 0, 0, 0, 0]),
        (Sysno::newfstatat, [here, path, path, 0, 0, 0]),
        (Sysno::statx, [here, path, 0, 0, path, 0]),
        (Sysno::recvmsg, [0, path, 0, 0, 0, 0]),
        (Sysno::read, [0, path, 1, 0, 0, 0]),
        (Sysno::clone3, [path, 64, 0, 0, 0, 0]),
        (Sysno::fcntl, [0, libc::F_GETFL as u64, 0, 0, 0, 0]),
        (Sysno::ioctl, [0, 0, 0, 0, 0, 0]),
        (Sysno::prlimit64, [0, 2, 0, 0, 0, 0]),
    ];
    let calls = [
        network(path),
        processes(path, ours),
        files(path),
        the_rest(path),
        more,
    ];
    for (call, arguments) in calls.into_iter().flatten() {
        assert_eq!(worker.call(call, arguments), KILLED, "{call}{arguments:?}");
    }
    // What it decodes it has in memory; what it fills is a file. A model that another test of this process
    // makes is open here, too: llama.cpp does not mark it, as the daemon does before it starts anyone.
    let named = |file: &u64| fs::read_link(format!("/proc/{pid}/fd/{file}")).unwrap();
    let is_model = |file: &u64| named(file).extension().is_some_and(|kind| kind == "gguf");
    let descriptors: Vec<u64> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| fs::metadata(entry.path()).is_ok_and(|file| file.is_file()))
        .map(|entry| entry.file_name().into_string().unwrap().parse().unwrap())
        .filter(|file| !is_model(file))
        .collect();
    let names: Vec<_> = descriptors.iter().map(named).collect();
    assert_eq!(descriptors.len(), 1, "{names:?}");
    for file in descriptors {
        assert_eq!(
            worker.call(Sysno::pread64, [file, path, 1, 0, 0, 0]),
            Outcome::Returned(1)
        );
    }
    drop(worker);
    drop(channel);
    child.kill().unwrap();
    child.wait().unwrap();
}
