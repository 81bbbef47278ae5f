//! A bus that has read the shipped policy before the service's user and group were made.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::harness::{self, Options};
use crate::private::{configure, possible};

/// The users of this machine are this script's own, in a name space of its own. Standard output: what
/// a member of the group, and who is none, are answered.
const SCRIPT: &str = r#"
import os, subprocess, sys, time
folder, gemmad, config = sys.argv[1:]
for name in ("passwd", "group"):
    known = [line for line in open(f"/etc/{name}") if not line.startswith("gemmad")]
    with open(f"{folder}/{name}", "w") as copy: copy.writelines(known)
    subprocess.check_call(["mount", "--bind", f"{folder}/{name}", f"/etc/{name}"])
address = f"unix:path={folder}/bus"
environment = {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": address}
children = []

def start(command, log):
    with open(f"{folder}/{log}", "w") as stderr:
        children.append(subprocess.Popen(command, env=environment, stderr=stderr))

def call(user, *args):
    """What is said to this user, of a group of the same number."""
    command = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "busctl", "--timeout=20", "call", *args]
    if user == 0: command = command[4:]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd="/")
    return (done.stdout + done.stderr).strip()

def wait(what, so):
    end = time.monotonic() + 30
    while not so():
        if time.monotonic() > end:
            raise SystemExit(f"waited too long for {what}:\n" + open(f"{folder}/log").read())
        time.sleep(0.05)

try:
    start(["dbus-daemon", f"--config-file={folder}/bus.conf", "--nofork", "--nopidfile", "--nosyslog", f"--address={address}"], "bus.log")
    wait("the bus", lambda: os.path.exists(f"{folder}/bus"))
    with open("/etc/passwd", "a") as users:
        for name, number in (("gemmad", 31050), ("member", 31051), ("other", 31052)):
            users.write(f"{name}:x:{number}:{number}::/:/bin/sh\n")
    with open("/etc/group", "a") as groups: groups.write("gemmad:x:31050:member\nmember:x:31051:\nother:x:31052:\n")
    start(["setpriv", "--reuid=31050", "--regid=31050", "--clear-groups", gemmad, "--config", config], "log")
    owner = ["org.freedesktop.DBus", "/", "org.freedesktop.DBus", "NameHasOwner", "s", "org.gemmad.Gemmad1"]
    wait("the name", lambda: call(0, *owner) == "b true")
    manager = ["org.gemmad.Gemmad1", "/org/gemmad/Gemmad1", "org.gemmad.Gemmad1.Manager"]
    print("member:", call(31051, *manager, "ListModels")[:40])
    print("other:", call(31052, *manager, "ListModels"))
finally:
    for child in children: child.kill()
"#;

#[test]
fn the_policy_holds_for_a_user_who_is_younger_than_it() {
    if !possible() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let open = |path: &Path| fs::set_permissions(path, PermissionsExt::from_mode(0o777)).unwrap();
    open(dir.path());
    let source = Path::new(env!("CARGO_MANIFEST_DIR"));
    let policy = source.join("systemd/dbus/org.gemmad.Gemmad1.conf");
    configure(dir.path(), &fs::read_to_string(policy).unwrap());
    // The checkout and the build may lie where only their owner looks.
    let gemmad = dir.path().join("gemmad");
    fs::copy(env!("CARGO_BIN_EXE_gemmad"), &gemmad).unwrap();
    let models = tempfile::tempdir().unwrap();
    fs::set_permissions(models.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let name = format!("{}.gguf", harness::TINY);
    fs::copy(
        harness::tiny_models().join(&name),
        models.path().join(&name),
    )
    .unwrap();
    harness::write_config(
        dir.path(),
        &Options {
            server: "dbus = \"system\"".into(),
            models: models.path().into(),
            ..Options::default()
        },
    );
    let output = Command::new("unshare")
        .args(["--mount", "python3", "-c", SCRIPT])
        .arg(dir.path())
        .arg(&gemmad)
        .arg(dir.path().join("gemmad.toml"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let log = fs::read_to_string(dir.path().join("log")).unwrap_or_default();
    assert!(
        output.status.success(),
        "{}{log}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(said.contains("member: aa{sv} 1"), "{said}{log}");
    assert!(
        said.lines()
            .any(|line| line.starts_with("other:") && line.contains("ccess denied")),
        "{said}{log}"
    );
}
