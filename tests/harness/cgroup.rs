//! A control group with a memory limit, of whichever version this machine has.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::skip::skip;

/// How the two versions spell it (`Documentation/admin-guide/cgroup-v{1,2}`).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Version {
    fn root(self) -> &'static Path {
        Path::new(if self == Self::One {
            "/sys/fs/cgroup/memory"
        } else {
            "/sys/fs/cgroup"
        })
    }

    fn limit(self) -> &'static str {
        if self == Self::One {
            "memory.limit_in_bytes"
        } else {
            "memory.max"
        }
    }

    fn usage(self) -> &'static str {
        if self == Self::One {
            "memory.usage_in_bytes"
        } else {
            "memory.current"
        }
    }

    /// Stands before the names in `memory.stat` that count the groups below as well.
    fn total(self) -> &'static str {
        if self == Self::One { "total_" } else { "" }
    }
}

/// A control group; gone at the end of its test, once its processes are.
pub struct Group {
    pub folder: PathBuf,
    version: Version,
}

impl Group {
    /// `None` where this test may not make one, which is said to be `promise` that is skipped.
    pub fn new(promise: &str, limit: u64) -> Option<Self> {
        let name = format!(
            "gemmad-test-{}-{}",
            promise.replace(' ', "-"),
            std::process::id()
        );
        let made = [Version::One, Version::Two].map(|version| Self::make(version, &name, limit));
        let errors = match made {
            [Ok(group), _] | [_, Ok(group)] => return Some(group),
            [Err(one), Err(two)] => (one, two),
        };
        skip(
            promise,
            format!(
                "no memory controller that can be written (version 1: {}; version 2: {})",
                errors.0, errors.1
            ),
        );
        None
    }

    fn make(version: Version, name: &str, limit: u64) -> io::Result<Self> {
        if version == Version::Two {
            // systemd has done so for its own groups; a bare mount begins without.
            fs::write(version.root().join("cgroup.subtree_control"), "+memory")?;
        }
        let folder = version.root().join(name);
        fs::create_dir(&folder)?;
        let group = Self { folder, version };
        group.set_limit(limit)?;
        Ok(group)
    }

    pub fn admit(&self, pid: u32) {
        fs::write(self.folder.join("cgroup.procs"), pid.to_string()).unwrap();
    }

    pub fn set_limit(&self, bytes: u64) -> io::Result<()> {
        fs::write(self.folder.join(self.version.limit()), bytes.to_string())
    }

    /// Bytes below the limit that are not taken for good.
    pub fn free(&self) -> u64 {
        let stat = fs::read_to_string(self.folder.join("memory.stat")).unwrap();
        let line = |name: &str| {
            let name = format!("{}{name} ", self.version.total());
            stat.lines()
                .find_map(|line| line.strip_prefix(&name)?.trim().parse::<u64>().ok())
                .unwrap()
        };
        let number = |file: &str| {
            fs::read_to_string(self.folder.join(file))
                .unwrap()
                .trim()
                .parse::<u64>()
                .unwrap()
        };
        let taken = number(self.version.usage()) - line("inactive_file") - line("active_file");
        number(self.version.limit()).saturating_sub(taken)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let end = Instant::now() + Duration::from_secs(5);
        while fs::remove_dir(&self.folder).is_err() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A program in the group that takes memory.
pub struct Hog(Child);

impl Hog {
    /// Takes so much at once that only so many bytes are free, or so many are missing, and waits.
    pub fn leave(group: &Group, bytes: i64) -> Self {
        let script = "import sys,time; print(flush=True); kept = b'x' * int(sys.stdin.readline()); time.sleep(600)";
        let mut child = Command::new("python3")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        group.admit(child.id());
        child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
        writeln!(
            child.stdin.as_ref().unwrap(),
            "{}",
            group.free() as i64 - bytes
        )
        .unwrap();
        Self(child)
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
