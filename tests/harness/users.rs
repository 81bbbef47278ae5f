//! Several users on one machine.

use std::os::unix::fs::PermissionsExt;
use std::{fs, thread};

use super::skip::skip;
use super::{Daemon, Options};

pub const ALICE: u32 = 61_001;
pub const BOB: u32 = 61_002;
pub const CAROL: u32 = 61_003;

/// Whether tests can become other users.
pub fn possible(promise: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip(promise, "only root can become another user");
    }
    root
}

/// A daemon whose socket everybody may open.
pub fn daemon(options: Options) -> Daemon {
    let server = format!("socket-mode = \"0666\"\n{}", options.server);
    let daemon = Daemon::with(Options { server, ..options });
    fs::set_permissions(daemon.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    daemon
}

/// Does something as a user in no other group than their own. Connections that it opens are that
/// user's for good.
pub fn as_user<T: Send>(uid: u32, act: impl FnOnce() -> T + Send) -> T {
    let changed = move || {
        // SAFETY: plain numbers. glibc's functions change every thread's user; the kernel's calls
        // change this one's.
        let failed = unsafe {
            libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<u32>()) != 0
                || libc::syscall(libc::SYS_setresgid, uid, uid, uid) != 0
                || libc::syscall(libc::SYS_setresuid, uid, uid, uid) != 0
        };
        assert!(!failed, "{}", std::io::Error::last_os_error());
        act()
    };
    thread::scope(|scope| {
        scope
            .spawn(changed)
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
