//! A real bus on a private address, with the system's own configuration and the shipped policy.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use gemmad::bus::NAME;
use gemmad::bus::proxy::{ManagerProxy, Options};
use zbus::Connection;
use zbus::connection::Builder;
use zbus::fdo::DBusProxy;
use zbus::proxy::CacheProperties;

use crate::harness::skip::skip;
use crate::harness::{self, Daemon, wait_for};

const SYSTEM: &str = "/usr/share/dbus-1/system.conf";

/// Debian and Ubuntu have it here.
pub const POLKITD: &str = "/usr/lib/polkit-1/polkitd";
const POLKIT_ACTIONS: &str = "/usr/share/polkit-1/actions";

/// Users who are nobody's administrators: of the group that the policy lets in, and of none.
pub const NOBODY: u32 = 65534;
pub const STRANGER: u32 = 1;

/// A running bus; killed at the end of its test.
pub struct Bus {
    process: Child,
    dir: tempfile::TempDir,
    pub address: String,
}

/// Whether there is what these tests need; says so if not.
pub fn possible() -> bool {
    let there = Path::new(SYSTEM).exists() && rustix::process::geteuid().is_root();
    if !there {
        skip(
            "the service on the bus",
            "only root can have a bus with several users, and dbus-daemon must be installed",
        );
    }
    there
}

/// Writes `bus.conf` for the system's own bus with this policy, but that it starts nothing by itself:
/// that would be the system's, not a test's.
pub fn configure(dir: &Path, policy: &str) {
    fs::write(dir.join("policy.conf"), policy).unwrap();
    let system = fs::read_to_string(SYSTEM)
        .unwrap()
        .replace("<standard_system_servicedirs/>", "");
    let system = system.replace(
        "<includedir>system.d",
        "<includedir>/usr/share/dbus-1/system.d",
    );
    let include = format!("<include>{}/policy.conf</include>", dir.display());
    let config = system.replace("</busconfig>", &format!("{include}</busconfig>"));
    fs::write(dir.join("bus.conf"), config).unwrap();
}

impl Bus {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
        let shipped = fs::read_to_string(
            Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/dbus/org.gemmad.Gemmad1.conf"),
        )
        .unwrap();
        // The machine need not have the service's user and group: here the daemon is root, and
        // nobody is let in.
        let policy = shipped
            .replace("user=\"gemmad\"", "user=\"root\"")
            .replace("group=\"gemmad\"", "group=\"nogroup\"");
        assert_ne!(policy, shipped);
        configure(dir.path(), &policy);
        let address = format!("unix:path={}/bus", dir.path().display());
        let process = Self::run(&dir, &address);
        Self {
            process,
            dir,
            address,
        }
    }

    fn run(dir: &tempfile::TempDir, address: &str) -> Child {
        let socket = dir.path().join("bus");
        let _ = fs::remove_file(&socket);
        let process = Command::new("dbus-daemon")
            .arg(format!(
                "--config-file={}",
                dir.path().join("bus.conf").display()
            ))
            .args([
                "--nofork",
                "--nopidfile",
                "--nosyslog",
                &format!("--address={address}"),
            ])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_for("the bus", || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
        process
    }

    /// Ends the bus and starts another one in its place.
    pub fn restart(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        self.process = Self::run(&self.dir, &self.address);
    }

    /// A daemon on this bus that has its name.
    pub fn daemon(&self, options: harness::Options) -> Daemon {
        self.daemon_with(options, &[])
    }

    pub fn daemon_with(&self, options: harness::Options, environment: &[(&str, &str)]) -> Daemon {
        let server = format!("{}\ndbus = \"system\"", options.server);
        let bus = ("DBUS_SYSTEM_BUS_ADDRESS", self.address.as_str());
        let daemon = Daemon::with_environment(
            harness::Options { server, ..options },
            &[&[bus], environment].concat(),
        );
        self.wait_for_name();
        daemon
    }

    pub fn wait_for_name(&self) {
        wait_for("the service's name", || self.has(NAME));
    }

    fn has(&self, name: &str) -> bool {
        let owner = self.busctl(
            0,
            &[
                "call",
                "org.freedesktop.DBus",
                "/",
                "org.freedesktop.DBus",
                "NameHasOwner",
                "s",
                name,
            ],
        );
        String::from_utf8_lossy(&owner.stdout).trim() == "b true"
    }

    /// polkit on this bus, which knows these actions and no others.
    pub fn polkit(&self, actions: &str) -> Polkit {
        let file = self.dir().join("org.gemmad.policy");
        fs::write(&file, actions).unwrap();
        // It reads one directory, in which a test may not leave anything: this process sees another
        // one there.
        let own = "mount -t tmpfs none \"$1\" && cp \"$2\" \"$1\" && exec \"$0\" --no-debug";
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", own, POLKITD, POLKIT_ACTIONS])
            .arg(file);
        let process = command
            .env("DBUS_SYSTEM_BUS_ADDRESS", &self.address)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let polkit = Polkit(process);
        wait_for("polkit", || self.has("org.freedesktop.PolicyKit1"));
        polkit
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A program on this bus, as the user with this id.
    pub fn as_user(&self, uid: u32, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        let id = uid.to_string();
        command.args([
            "--reuid",
            &id,
            "--regid",
            &id,
            "--clear-groups",
            "--",
            program,
        ]);
        command
            .current_dir("/")
            .env("DBUS_SYSTEM_BUS_ADDRESS", &self.address);
        command
    }

    pub fn busctl(&self, uid: u32, args: &[&str]) -> Output {
        self.as_user(uid, "busctl").args(args).output().unwrap()
    }

    pub async fn connect(&self) -> Connection {
        Builder::address(self.address.as_str())
            .unwrap()
            .build()
            .await
            .unwrap()
    }
}

/// A running polkitd; killed at the end of its test.
pub struct Polkit(Child);

impl Drop for Polkit {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The service, without a memory of its properties.
pub async fn manager(connection: &Connection) -> ManagerProxy<'static> {
    ManagerProxy::builder(connection)
        .cache_properties(CacheProperties::No)
        .build()
        .await
        .unwrap()
}

/// Options for answers that are the same each time.
pub fn sober() -> Options<'static> {
    Options::from([("temperature", 0.0.into()), ("timeout", 60u32.into())])
}

/// The error's name on the bus, and its text.
pub fn named<T: std::fmt::Debug>(result: zbus::Result<T>) -> (String, String) {
    match result.unwrap_err() {
        zbus::Error::MethodError(name, text, _) => (name.to_string(), text.unwrap_or_default()),
        other => panic!("{other:?}"),
    }
}

pub async fn bus_of(connection: &Connection) -> DBusProxy<'static> {
    DBusProxy::new(connection).await.unwrap()
}
