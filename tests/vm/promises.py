#!/usr/bin/env python3
"""What a machine with gemmad in it promises. Runs as root in a booted machine (see run.py), which it may spoil.

A promise is a function whose docstring's first line says what is promised; it raises if that is not so. They run in the order
in which they stand here, those of one boot together. alice may ask, bob may not, and neither is anything else.
"""

import fcntl
import grp
import hashlib
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

MODELS = ["tiny-e2b-q8_0.gguf", "tiny-e2b-mmproj-f16.gguf", "tiny-31b-q4_0.gguf"]
PRODUCT = Path("/opt/product")
DATA = PRODUCT / "source/tests/data"
SOCKET = "/run/gemmad/api.sock"
GROUP = Path("/sys/fs/cgroup/system.slice/gemmad.service")
SAMPLE = Path("/etc/gemmad/gemmad.toml")
CONFIG = Path("/etc/gemmad/gemmad.toml.d/50-machine.toml")
STRICT = Path("/etc/systemd/system/gemmad.service.d/strict.conf")
DROP_IN = Path("/run/systemd/system/gemmad.service.d/machine.conf")
BEFORE = Path("/var/tmp/files-before")
# Where an installation leaves its files, and what else changes there while a machine runs.
INSTALLED_INTO = ["/etc", "/usr", "/var/lib/gemmad", "/var/cache/gemmad"]

FRANCE, PARIS = "What is the capital of France?", "The capital of France is Paris."
MANAGER = ["org.gemmad.Gemmad1", "/org/gemmad/Gemmad1", "org.gemmad.Gemmad1.Manager"]
# Stands in a prompt, and in no log.
CANARY = "xylophonquagga"
# A promise that takes longer is broken: seconds of an emulated machine.
PATIENCE = 100

ALL = []


def promise(*boots, seconds=PATIENCE):
    """Marks a promise of these boots, to be kept within so many seconds."""
    def mark(function):
        ALL.append((boots, function, seconds))
        return function
    return mark


def title(function):
    return function.__doc__.strip().splitlines()[0]


def of(boot, only=""):
    """A boot's promises: all, or what everything needs and those that have a word in their titles."""
    return [one for one in ALL if boot in one[0] and (only in title(one[1]) or one[1] is installed)]


class Broken(Exception):
    pass


def check(condition, *detail):
    if not condition:
        raise Broken("\n".join(told(part) for part in detail))


def told(what):
    if isinstance(what, subprocess.CompletedProcess):
        return f"{what.args[-6:]} ended with {what.returncode}\n{what.stdout}{what.stderr}"
    return str(what)


def run(*command, user=None, env=None, seconds=60, given=None):
    """What a program says, as root or as a user."""
    if user:
        command = ["runuser", "-u", user, "--", *command]
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds, input=given,
                          stdin=None if given is not None else subprocess.DEVNULL, cwd="/", env={**os.environ, **(env or {})})


def do(*command, **options):
    """Runs a program that must succeed, and returns what it printed."""
    done = run(*command, **options)
    check(done.returncode == 0, done)
    return done.stdout


def wait_for(what, condition, seconds=40):
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        check(time.monotonic() < end, f"waited {seconds} s for {what}")
        time.sleep(0.2)


def ask(*words, user="alice", **options):
    return run("gemmactl", "ask", "--temperature", "0", *words, user=user, **options)


def answers(*words, expected=PARIS, **options):
    done = ask(*(words or [FRANCE]), **options)
    check(done.returncode == 0 and done.stdout.strip() == expected, done)


def bus(*call, user="alice", wait=60):
    return run("busctl", f"--timeout={wait}", "call", *MANAGER, *call, user=user, seconds=wait + 10)


def bus_answers(user="alice"):
    done = bus("Ask", "sa{sv}", FRANCE, "2", "temperature", "d", "0", "timeout", "u", "60", user=user)
    check(done.stdout.strip() == f's "{PARIS}"', done)


def status():
    return json.loads(do("gemmactl", "status", "--json"))


def of_unit(name, unit="gemmad.service"):
    return do("systemctl", "show", "--value", "-p", name, unit).strip()


def active(unit="gemmad.service"):
    return of_unit("ActiveState", unit)


def configure(**tables):
    """The administrator's own file; read at once if the daemon runs."""
    CONFIG.parent.mkdir(exist_ok=True)
    tables.setdefault("models", []).append('default = "tiny-e2b-q8_0"')
    CONFIG.write_text("".join(f"[{name}]\n" + "\n".join(lines) + "\n" for name, lines in tables.items()))
    if active() == "active":
        do("systemctl", "reload", "gemmad")


def service(*lines):
    """A drop-in of the unit for the promises that follow; none without lines. The daemon starts anew with the next request."""
    DROP_IN.parent.mkdir(parents=True, exist_ok=True)
    DROP_IN.write_text("[Service]\n" + "\n".join(lines) + "\n")
    do("systemctl", "daemon-reload")
    do("systemctl", "stop", "gemmad.service")


class Stream:
    """An answer of alice's that goes on until it is full, as it comes."""

    def __init__(self, tokens=1900):
        body = {"model": "auto", "stream": True, "ignore_eos": True, "speculation": "off", "temperature": 1.0, "max_tokens": tokens,
                "messages": [{"role": "user", "content": FRANCE}]}
        self.process = subprocess.Popen(
            ["runuser", "-u", "alice", "--", "curl", "-sN", "--unix-socket", SOCKET, "-d", json.dumps(body),
             "http://localhost/v1/chat/completions"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.events(3)

    def events(self, count):
        """The next events that have something."""
        found = []
        for line in self.process.stdout:
            if line.startswith("data: "):
                found.append(line[6:].strip())
                if len(found) == count:
                    return found
        raise Broken(f"the stream ended: {found}")

    def end(self):
        """The last event: `[DONE]`, or an error."""
        last = [line[6:].strip() for line in self.process.stdout if line.startswith("data: ")]
        self.process.wait()
        return last[-1] if last else ""

    def close(self):
        self.process.kill()
        self.process.wait()


class Hog:
    """A program that takes memory: all but so much, or until the kernel kills somebody."""

    def __init__(self, leave=None):
        # With pages that no zram can compress. One that never stops is less likely to be killed than the worker.
        script = ("import os, sys, time\n"
                  "leave = int(sys.argv[1])\n"
                  "piece, kept = os.urandom(4096) * 256, []\n"
                  "def free(): return int(next(l for l in open('/proc/meminfo') if l.startswith('MemAvailable')).split()[1]) >> 10\n"
                  "while leave < 0 or free() > leave: kept.append(bytearray(piece))\n"
                  "print('full', flush=True); time.sleep(600)\n")
        self.process = subprocess.Popen([sys.executable, "-c", script, str(-1 if leave is None else leave)], stdout=subprocess.PIPE, text=True)
        Path(f"/proc/{self.process.pid}/oom_score_adj").write_text("-300" if leave is None else "0")

    def full(self):
        self.process.stdout.readline()
        return self

    def killed(self, seconds):
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.close()
            raise Broken("the kernel killed nobody") from None

    def close(self):
        self.process.kill()
        self.process.wait()


def kernel_log():
    return do("journalctl", "--no-pager", "-b", "-o", "short", "-k") + do("journalctl", "--no-pager", "-b", "-o", "short", "_TRANSPORT=audit")


def denials():
    """The kernel's lines about system calls and files that it denied, and about programs that crashed."""
    signs = r"audit: type=(1326|14\d\d)|SECCOMP auid=|AUDIT1326|AUDIT14\d\d|landlock.*(denied|blockers)|segfault at|trap invalid opcode"
    return [line for line in kernel_log().splitlines() if re.search(signs, line)]


def files():
    found = set()
    for top in INSTALLED_INTO:
        for folder, _, names in os.walk(top):
            found.update(os.path.join(folder, name) for name in names)
            found.add(folder)
    return found


# --- Installed as the README says.

def apt(*words):
    """What apt says, which must succeed and asks nobody."""
    return do("apt-get", "-y", "-q", *words, seconds=200, env={"DEBIAN_FRONTEND": "noninteractive"})


def package(name="package"):
    """The file of a package: the version under test, or the `newer` one."""
    return next((PRODUCT / name).glob("gemmad_*.deb"))


def version():
    return " ".join(do("dpkg-query", "-W", "-f", "${db:Status-Abbrev} ${Version}", "gemmad").split())


@promise("first", "memory", "old", seconds=240)
def installed():
    """`apt install` puts the service in, with a socket that listens and nothing running before it is asked"""
    BEFORE.write_text("\n".join(sorted(files())))
    apt("install", package())
    check(version().startswith("ii "), version())
    check(do("dpkg", "--verify", "gemmad") == "", "files are not as packaged")
    check(do("systemctl", "is-enabled", "gemmad.socket").strip() == "enabled", "the socket is not enabled")
    # A call that the unit denies ends the process here, which the kernel logs; as the unit is, it only fails.
    STRICT.parent.mkdir(parents=True, exist_ok=True)
    STRICT.write_text("[Service]\nSystemCallErrorNumber=kill\n")
    do("systemctl", "daemon-reload")
    for user in ["alice", "bob"]:
        do("useradd", "--create-home", "--shell", "/bin/bash", user)
    do("usermod", "-aG", "gemmad", "alice")
    for name in MODELS:
        do("install", "-m644", PRODUCT / "source/models/tiny" / name, "/var/lib/gemmad/models")
    configure()
    models = os.stat("/var/lib/gemmad/models")
    check((models.st_mode & 0o7777, grp.getgrgid(models.st_gid).gr_name) == (0o3775, "gemmad-models"), oct(models.st_mode))
    found = os.stat(SOCKET)
    check((found.st_mode & 0o777, pwd.getpwuid(found.st_uid).pw_name) == (0o660, "root"), oct(found.st_mode))
    check(active() == "inactive" and active("gemmad.socket") == "active", active(), active("gemmad.socket"))
    do("gemmactl", "config", "check")
    for name in ["man/man1/gemmactl.1.gz", "man/man5/gemmad.toml.5.gz", "man/man8/gemmad.8.gz", "bash-completion/completions/gemmactl",
                 "zsh/site-functions/_gemmactl", "fish/vendor_completions.d/gemmactl.fish", "doc/gemmad/LICENSE"]:
        check((Path("/usr/share") / name).is_file(), name)


@promise("first", "second", "memory", "old")
def answered():
    """A member of the group is answered over the socket, and that starts the daemon"""
    check(active() == "inactive", active())
    answers()
    check(active() == "active", active())


@promise("first", "old")
def kernels():
    """The worker runs the kernels for this CPU: the best of the package, or those that are built in"""
    answers()
    said = status()
    mapped = {Path(line.split()[-1]).name for line in Path(f"/proc/{said['pid']}/maps").read_text().splitlines() if "libggml-cpu-" in line}
    if list(Path("/usr/lib/gemmad").glob("libggml-cpu-*.so")):
        flags = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")).split()
        expected = "haswell" if "avx2" in flags else "sse42"
        check(said["cpu_variant"] == expected and mapped == {f"libggml-cpu-{expected}.so"}, said["cpu_variant"], mapped)
        check(f"kernels for {expected}" in do("gemmactl", "status"), do("gemmactl", "status"))
    else:
        check(said["cpu_variant"] is None and not mapped, said["cpu_variant"], mapped)


@promise("first", "old")
def confined():
    """Daemon and worker run as the service's user, and the worker is confined by what this kernel has"""
    said = status()
    for pid in [int(of_unit("MainPID")), said["pid"]]:
        lines = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
        check(pwd.getpwuid(int(lines["Uid"].split()[0])).pw_name == "gemmad", lines)
        check((lines["Seccomp"], lines["NoNewPrivs"], int(lines["CapEff"], 16)) == ("2", "1", 0), lines)
    adjusted = [Path(f"/proc/{pid}/oom_score_adj").read_text().strip() for pid in (of_unit("MainPID"), said["pid"])]
    check(adjusted == ["-1000", "800"], adjusted)
    expected = "landlock" in Path("/sys/kernel/security/lsm").read_text()
    sandbox = said["sandbox"]
    check(sandbox["seccomp"] is True and (sandbox["landlock_abi"] is not None) == expected, sandbox)
    view = do("gemmactl", "status", user="alice")
    check((f"Landlock ABI {sandbox['landlock_abi']}" if expected else "no Landlock") in view, view)


@promise("first")
def refused():
    """A user outside the group is refused with exit code 77 and told what to do"""
    done = ask(FRANCE, user="bob")
    check(done.returncode == 77 and "usermod" in done.stderr and done.stdout == "", done)


@promise("first")
def media():
    """Pictures, sounds and files are read"""
    answers("--image", DATA / "pictures/red-circle.png", "What is in the picture?", expected="A red circle.")
    done = ask("--audio", DATA / "sounds/tone-1.flac", "What do you hear?")
    check(done.returncode == 0 and done.stdout.strip(), done)
    page = Path("/home/alice/page.html")
    page.write_text("<html><body><p>Anna is 27 years old and lives in Rome.</p></body></html>")
    done = ask("--file", page, "How old is Anna?")
    check(done.returncode == 0 and done.stdout.strip(), done)


@promise("first")
def shown():
    """systemd shows what is loaded, and rates the unit as the README says"""
    text = of_unit("StatusText")
    check("Ready" in text and "tiny-e2b-q8_0" in text, text)
    *_, rated = do("systemd-analyze", "security", "--no-pager", "gemmad").strip().splitlines()
    check(float(re.search(r"(\d+\.\d+)", rated)[1]) <= 0.6, rated)


@promise("first")
def pulled():
    """A model is fetched by processes that may use the network, for a daemon that has none, and belongs to the daemon"""
    folder = Path("/tmp/hub")
    folder.mkdir()
    shutil.copy(PRODUCT / "source/models/tiny/tiny-e4b-q8_0.gguf", folder / "pulled-e4b.gguf")
    hub = subprocess.Popen(["python3", PRODUCT / "source/tests/hub.py", folder, "-"], stdout=subprocess.PIPE, text=True)
    try:
        configure(pull=[f'hub = "http://127.0.0.1:{int(hub.stdout.readline())}"', 'proxy = "none"'])
        answers()
        check(os.readlink(f"/proc/{of_unit('MainPID')}/ns/net") != os.readlink("/proc/self/ns/net"), "the daemon has a network")
        done = run("gemmactl", "pull", "--yes", "tiny/models:pulled-e4b.gguf")
        check(done.returncode == 0, do("journalctl", "--no-pager", "-n", "20", "-u", "gemmad*"), done)
    finally:
        hub.kill()
    found = os.stat("/var/lib/gemmad/models/tiny--models/pulled-e4b.gguf")
    check((pwd.getpwuid(found.st_uid).pw_name, found.st_mode & 0o777) == ("gemmad", 0o644), oct(found.st_mode))
    wait_for("the model", lambda: "pulled-e4b" in do("gemmactl", "models"))
    socket = os.stat("/run/gemmad/pull.sock")
    check((pwd.getpwuid(socket.st_uid).pw_name, socket.st_mode & 0o777) == ("gemmad", 0o600), oct(socket.st_mode))
    shutil.rmtree("/var/lib/gemmad/models/tiny--models")
    configure()


@promise("first")
def logged():
    """The journal has fields for values, and no prompt"""
    ask(f"What is a {CANARY}?")
    entries = [json.loads(line) for line in do("journalctl", "-u", "gemmad", "-o", "json", "--no-pager").splitlines()]
    check(any("GEMMAD_MODEL" in entry for entry in entries), [sorted(entry) for entry in entries[-3:]])
    check(CANARY not in json.dumps(entries), "the prompt is in the journal")


@promise("first")
def killed():
    """A worker that is killed in the middle costs its answer, and the next request has a new one"""
    stream, daemon, worker = Stream(), of_unit("MainPID"), status()["pid"]
    os.kill(worker, signal.SIGKILL)
    check("error" in stream.end(), "the stream said nothing of it")
    answers()
    check(of_unit("MainPID") == daemon and status()["pid"] != worker, "the daemon is another")


@promise("first")
def reloaded():
    """A reload takes a changed configuration, and a mistake in it changes nothing"""
    configure(inference=["context = 1024"])
    do("gemmactl", "unload")
    answers()
    check(status()["context"] == 1024, status())
    CONFIG.write_text("[inference]\ncontext = 1\n")
    run("systemctl", "reload", "gemmad")
    answers()
    check(status()["context"] == 1024 and active() == "active", status())
    configure()


@promise("first")
def mistaken():
    """A mistake in the configuration that only the start finds is named by `config check`, and is no restart loop"""
    do("systemctl", "stop", "gemmad.service")
    CONFIG.write_text('[access]\nadmins = ["nobody-of-this-name"]\n')
    done = run("gemmactl", "config", "check")
    check(done.returncode == 78 and "nobody-of-this-name" in done.stderr, done)
    run("systemctl", "start", "gemmad.service")
    # One that is to be started again is "activating".
    wait_for("the start to fail for good", lambda: active() == "failed")
    check(of_unit("NRestarts") == "0" and of_unit("ExecMainStatus") == "78", of_unit("NRestarts"), of_unit("ExecMainStatus"))
    configure()
    do("systemctl", "reset-failed", "gemmad.service")
    do("systemctl", "start", "gemmad.socket")
    answers()


@promise("first")
def administrators():
    """Members of `admin-groups` load and unload; others may not"""
    do("groupadd", "--force", "modeladmins")
    do("usermod", "-aG", "modeladmins,gemmad", "alice")
    done = run("gemmactl", "unload", user="alice")
    check(done.returncode == 77, done)
    configure(access=['admin-groups = ["modeladmins"]'])
    do("gemmactl", "unload", user="alice")
    do("gemmactl", "load", "tiny-e2b-q8_0", user="alice")
    configure()
    do("gpasswd", "-d", "alice", "modeladmins")


@promise("first")
def apps():
    """Whoever connects to the socket of an app is that app: root may no more there, and others may not connect"""
    unit = "gemmad-app@notes.socket"
    do("systemctl", "enable", unit)
    do("systemctl", "stop", "gemmad.service")
    do("systemctl", "start", unit)

    def post(path, body, user=None):
        return run("curl", "--silent", "--show-error", "--unix-socket", "/run/gemmad-app/notes/api.sock", "--data", json.dumps(body),
                   "--write-out", " %{http_code}", f"http://localhost{path}", user=user)

    question = {"model": "auto", "temperature": 0, "messages": [{"role": "user", "content": FRANCE}]}
    done = post("/v1/chat/completions", question)
    check(PARIS in done.stdout and done.stdout.endswith(" 200"), done)
    done = post("/models/unload", {})
    check("`notes`" in done.stdout and done.stdout.endswith(" 403"), done)
    done = post("/v1/chat/completions", question, user="alice")
    check(done.returncode == 7, done)
    answers()
    do("systemctl", "disable", "--now", unit)
    do("systemctl", "stop", "gemmad.service")


@promise("first")
def credentials():
    """The key of tokens can be an encrypted credential: tokens outlive a restart, and are nothing without it"""
    sealed = Path("/etc/credstore.encrypted/tokens.key")
    sealed.parent.mkdir(mode=0o700, exist_ok=True)
    do("sh", "-c", f"head -c 32 /dev/urandom | systemd-creds encrypt --name=tokens.key - {sealed}")
    service("LoadCredentialEncrypted=tokens.key")
    token = do("gemmactl", "token", "issue", "--ttl", "1h", user="alice").split()[-1]
    check("credential" in do("gemmactl", "status"), do("gemmactl", "status"))

    def models():
        return do("curl", "--silent", "--unix-socket", "/run/gemmad/api.sock", "--header", f"Authorization: Bearer {token}", "--output",
                  "/dev/null", "--write-out", "%{http_code}", "http://localhost/v1/models", user="alice")

    do("systemctl", "restart", "gemmad.service")
    check(models() == "200", models())
    sealed.unlink()
    service()
    check(models() == "401", models())


# --- The bus.

@promise("first", "second")
def on_the_bus(expected={"first": "dbus-broker", "second": "dbus-daemon"}):
    """The bus starts a stopped daemon and answers, and lets nobody else than the group ask"""
    which = do("systemctl", "show", "--value", "-p", "ExecStart", "dbus.service")
    check(expected[BOOT] in which, which)
    do("systemctl", "stop", "gemmad.service")
    bus_answers()
    check(active() == "active", active())
    done = bus("Ask", "sa{sv}", FRANCE, "0", user="bob")
    check(done.returncode != 0 and "denied" in done.stderr, done)
    state = run("busctl", "get-property", *MANAGER, "State", user="bob")
    check(state.stdout.strip() == 's "ready"', state)
    done = run("gemmactl", "--bus", "ask", FRANCE, user="bob")
    check(done.returncode == 77 and done.stderr.strip(), done)


def in_session(*command, tty=None):
    """What a program of alice's says in a login session of its own: on a terminal of the seat, or from elsewhere."""
    Path("/etc/pam.d/machine-session").write_text("account required pam_permit.so\nsession required pam_systemd.so\n")
    out = Path("/var/tmp/session-out")
    out.write_text("")
    terminal = [f"-pTTYPath=/dev/{tty}", "-pStandardInput=tty-force"] if tty else ["-pStandardInput=null"]
    done = run("systemd-run", "--wait", "--quiet", "--collect", "-pUser=alice", "-pPAMName=machine-session", *terminal,
               f"-pStandardOutput=file:{out}", f"-pStandardError=append:{out}", "sh", "-c",
               'loginctl show-session "$XDG_SESSION_ID" -p Active -p Seat; exec "$@"', "sh", *map(str, command))
    return done.returncode, out.read_text()


def as_callers(*call):
    """The same call of alice's from an active session, from one in the background, and from a remote one."""
    # Beyond the terminals on which logind starts a login when they are shown (`NAutoVTs=6`).
    with open("/dev/tty0", "rb", buffering=0) as console:
        fcntl.ioctl(console, 0x5606, 8)  # VT_ACTIVATE
    command = ["busctl", "--timeout=60", "call", *MANAGER, *call]
    found = {"active": in_session(*command, tty="tty8"), "inactive": in_session(*command, tty="tty9"), "remote": in_session(*command)}
    for which, (_, text) in found.items():
        check(("Active=yes" in text) == (which != "inactive"), which, text)
        check(("Seat=seat0" in text) == (which != "remote"), which, text)
    return found


ASK = ["Ask", "sa{sv}", FRANCE, "2", "temperature", "d", "0", "timeout", "u", "60"]
RULE = Path("/etc/polkit-1/rules.d/10-machine.rules")


@promise("first")
def polkit_by_default():
    """polkit lets every session of the group ask, and none load without an administrator's password"""
    for which, (code, text) in as_callers(*ASK).items():
        check(code == 0 and PARIS in text, which, text)
    for which, (code, text) in as_callers("Unload", "a{sv}", "0").items():
        check(code != 0 and "org.gemmad.load" in text, which, text)


@promise("first")
def polkit_by_rule():
    """A rule of polkit lets the active session load, and keeps remote ones from asking"""
    RULE.write_text("""polkit.addRule(function(action, subject) {
  if (action.id == "org.gemmad.load" && subject.user == "alice" && subject.local && subject.active) return polkit.Result.YES;
  if (action.id == "org.gemmad.infer" && !subject.local) return polkit.Result.NO;
});
""")
    do("systemctl", "restart", "polkit")
    try:
        found = as_callers("Unload", "a{sv}", "0")
        check([found[which][0] == 0 for which in ["active", "inactive", "remote"]] == [True, False, False], found)
        found = as_callers(*ASK)
        check([found[which][0] == 0 for which in ["active", "inactive", "remote"]] == [True, True, False], found)
        check("polkit does not let user" in found["remote"][1], found["remote"][1])
    finally:
        RULE.unlink()
        do("systemctl", "restart", "polkit")


# --- The manager.

def manager_of(user):
    """A user's own manager, which runs until `loginctl disable-linger`. Returns what its programs find in their environment."""
    do("loginctl", "enable-linger", user)
    home = f"/run/user/{pwd.getpwnam(user).pw_uid}"
    wait_for(f"{user}'s manager", lambda: Path(home, "systemd/private").exists() and Path(home, "bus").exists())
    return {"XDG_RUNTIME_DIR": home, "DBUS_SESSION_BUS_ADDRESS": f"unix:path={home}/bus", "HOME": f"/home/{user}",
            "GEMMAD_SOCKET": f"{home}/gemmad/api.sock"}


def of_users(name, user, env, unit="gemmad.service"):
    return do("systemctl", "--user", "show", "--value", "-p", name, unit, user=user, env=env).strip()


@promise("first")
def of_a_user():
    """A user without any right has an instance of their own, started by the first program, over socket and bus"""
    models = Path("/home/bob/.local/share/gemmad/models")
    do("mkdir", "-p", models, user="bob")
    do("cp", PRODUCT / "source/models/tiny" / MODELS[0], models, user="bob")
    env = manager_of("bob")
    do("systemctl", "--user", "enable", "--now", "gemmad.socket", user="bob", env=env)
    state = lambda: of_users("ActiveState", "bob", env)
    check(state() == "inactive", state())
    answers(user="bob", env=env)
    check(state() == "active", state())
    do("systemctl", "--user", "stop", "gemmad.service", user="bob", env=env)
    answers("--bus=session", FRANCE, user="bob", env=env)
    check(state() == "active", state())
    done = ask(FRANCE, user="alice", env={"GEMMAD_SOCKET": env["GEMMAD_SOCKET"]})
    check(done.returncode == 77, "another user came in", done)
    do("systemctl", "--user", "disable", "--now", "gemmad.socket", "gemmad.service", user="bob", env=env)
    do("loginctl", "disable-linger", "bob")


@promise("first")
def watched():
    """A daemon that hangs is killed and started again"""
    service("WatchdogSec=4s")
    answers()
    daemon = of_unit("MainPID")
    os.kill(int(daemon), signal.SIGSTOP)
    wait_for("another daemon", lambda: of_unit("MainPID") not in ["0", daemon] and active() == "active")
    answers()
    service()


@promise("first")
def idle():
    """`exit-when-idle` ends a daemon without work, and the next program starts it again"""
    configure(server=['exit-when-idle = "1s"'], models=['idle-unload = "500ms"'])
    answers()
    wait_for("the daemon to leave", lambda: active() == "inactive")
    check(active("gemmad.socket") == "active", active("gemmad.socket"))
    answers()
    configure()
    do("systemctl", "stop", "gemmad.service")


# --- Limits.

def limit(**values):
    do("systemctl", "set-property", "--runtime", "gemmad.service", *[f"{name}={value}" for name, value in values.items()])


@promise("first")
def few_tasks():
    """A `TasksMax` that leaves no thread and no process refuses for now, hangs nobody, and loses nothing"""
    answers()
    do("gemmactl", "unload")
    daemon, allowed = of_unit("MainPID"), of_unit("TasksMax")
    wait_for("the worker's end", lambda: status()["pid"] is None)
    limit(TasksMax=(GROUP / "pids.current").read_text().strip())
    try:
        done = ask(FRANCE, seconds=60)
        check(done.returncode != 0 and "try again" in done.stderr, done)
        check(status()["pid"] is None, status())
    finally:
        limit(TasksMax=allowed)
    wait_for("an answer", lambda: ask(FRANCE).stdout.strip() == PARIS)
    check(of_unit("MainPID") == daemon, "the daemon is another")


# --- Memory.

@promise("first")
def small_group():
    """A limit of 60 MB runs a model that needs 20"""
    answers()
    do("gemmactl", "unload")
    limit(MemoryMax="60M")
    try:
        check((GROUP / "memory.max").read_text().strip() == str(60 << 20), "the limit is not set")
        answers()
        plan = do("gemmactl", "memory", "plan", "--json")
        check("gemmad.service" in plan, plan[:300])
    finally:
        limit(MemoryMax="infinity")


@promise("first")
def limits_change():
    """`MemoryMax` and `MemoryHigh` that fall and rise while it answers take the daemon from nobody"""
    answers()
    daemon = of_unit("MainPID")
    for name in ["MemoryMax", "MemoryHigh"]:
        stream = Stream()
        limit(**{name: "24M"})
        time.sleep(2)
        done = ask(FRANCE, seconds=90)
        check(done.returncode == 0 or "MiB" in done.stderr, name, done)
        limit(**{name: "infinity"})
        stream.close()
        wait_for("an answer", lambda: ask(FRANCE).stdout.strip() == PARIS)
        check(of_unit("MainPID") == daemon, f"{name}: the daemon is another")


def pressure_is_answered():
    """Whether memory that runs short is seen and given way to; returns what wakes the daemon."""
    answers()
    triggers = status()["memory"]["psi_triggers"]
    hog = Hog(leave=20).full()
    try:
        wait_for("a step", lambda: (lambda now: now["memory"]["level"] != "calm" or now["state"] != "ready")(status()))
    finally:
        hog.close()
    wait_for("an answer", lambda: ask(FRANCE).stdout.strip() == PARIS)
    return triggers


@promise("second")
def without_triggers():
    """Memory that runs short is given way to with the PSI triggers that this kernel allows a service"""
    triggers = pressure_is_answered()
    # Without CAP_SYS_RESOURCE some kernels allow slow ones (Linux 6.5, and older ones that took the change over).
    trigger = 'import os; os.write(os.open("/proc/pressure/memory", os.O_RDWR), b"some 200000 2000000\\0")'
    allowed = run("python3", "-c", trigger, user="gemmad").returncode == 0
    check(("machine" in triggers) == allowed, f"allowed: {allowed}", triggers)


@promise("second")
def with_triggers():
    """With CAP_SYS_RESOURCE the kernel wakes the daemon at once when memory runs short"""
    service("AmbientCapabilities=CAP_SYS_RESOURCE", "CapabilityBoundingSet=CAP_SYS_RESOURCE")
    triggers = pressure_is_answered()
    check("machine" in triggers, triggers)
    service()


def out_of_memory():
    answers()
    daemon = of_unit("MainPID")
    before = len(re.findall("Killed process", kernel_log()))
    Hog().killed(90)
    wait_for("an answer", lambda: ask(FRANCE).stdout.strip() == PARIS, seconds=60)
    check(of_unit("MainPID") == daemon and of_unit("NRestarts") == "0", "the daemon was ended")
    killed = re.findall(r"Killed process \d+ \(([^)]+)\)", kernel_log())[before:]
    check(killed and set(killed) <= {"gemmad-worker", "python3"}, killed)


@promise("second", "memory")
def kernel_kills():
    """When the kernel kills for memory, it takes the worker or the hog, and the daemon serves again"""
    out_of_memory()


@promise("second", "memory")
def kernel_kills_with_zram():
    """The same with a compressed swap of half the memory"""
    do("modprobe", "zram")
    Path("/sys/block/zram0/disksize").write_text({"memory": "1G", "second": "256M"}[BOOT])
    do("mkswap", "/dev/zram0")
    do("swapon", "/dev/zram0")
    out_of_memory()
    do("swapoff", "/dev/zram0", seconds=120)


def tests(name, *chosen):
    """Runs a test program of the project, or only some of its tests. Where it was built is compiled into it."""
    for path, target in json.loads((PRODUCT / "tests/paths.json").read_text()).items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        if not Path(path).is_symlink():
            Path(path).symlink_to(PRODUCT / target)
    done = run(PRODUCT / "tests" / name, "--test-threads=1", *chosen, seconds=300, env={"GEMMAD_NO_SKIPS": "1"})
    check(done.returncode == 0 and " 0 passed" not in done.stdout, done)


@promise("first")
def tests_of_limits():
    """On control groups of version 2, a worker that the kernel takes is followed by a smaller one, and a lower limit costs no answer"""
    tests("pressure", "a_worker_that_the_kernel_takes_is_followed_by_a_smaller_one")
    tests("packed", "a_lowered_memory_limit_costs_time_and_no_answer")


@promise("memory", seconds=600)
def tests_of_memory():
    """All tests of memory pressure and of packed weights pass on control groups of version 2"""
    tests("pressure")
    tests("packed")


# --- From one boot to the next.

def packed_files():
    """Inode and contents of each file in the cache."""
    names = sorted(Path("/var/cache/gemmad").iterdir())
    return "\n".join(f"{name} {name.stat().st_ino} {hashlib.sha256(name.read_bytes()).hexdigest()}" for name in names)


@promise("first")
def packed():
    """Packed weights are written to the cache, the daemon's alone"""
    done = ask("--model", "tiny-31b-q4_0", FRANCE)
    check(done.returncode == 0 and done.stdout.strip(), done)
    wait_for("packed weights", packed_files)
    check([file.stat().st_mode & 0o777 for file in Path("/var/cache/gemmad").iterdir()] == [0o600], packed_files())
    Path("/var/tmp/packed").write_text(packed_files())


@promise("second")
def packed_before():
    """Weights that were packed in the first boot are used in the second"""
    done = ask("--model", "tiny-31b-q4_0", FRANCE)
    check(done.returncode == 0, done)
    check(packed_files() == Path("/var/tmp/packed").read_text(), packed_files())
    drawn = do("gemmactl", "memory")
    check("packed" in drawn and "packed     nothing" not in drawn, drawn)


# --- Other versions.

@promise("second", seconds=400)
def upgraded():
    """An upgrade cuts off no answer and asks nothing, and restarts those daemons that run, for which newcomers wait"""
    answers()
    stream, began = Stream(), time.monotonic()
    stream.events(40)
    rate = 40 / (time.monotonic() - began)
    stream.close()
    # Not alice: a daemon of her own would be asked in place of the system's.
    do("useradd", "--create-home", "--shell", "/bin/bash", "carol")
    users = {user: manager_of(user) for user in ["bob", "carol"]}
    for user, env in users.items():
        do("systemctl", "--user", "enable", "--now", "gemmad.socket", user=user, env=env)
    answers(user="bob", env=users["bob"])
    kept = [own_configuration(), contents("/var/lib/gemmad/models")]
    socket, daemon, bobs = os.stat(SOCKET).st_ino, of_unit("MainPID"), of_users("MainPID", "bob", users["bob"])
    do("dpkg", "--unpack", package("newer"), seconds=100)
    check(of_unit("MainPID") == daemon, "it was restarted before it was configured")
    with tempfile.TemporaryFile("w+") as said:
        configuring = subprocess.Popen(["dpkg", "--configure", "gemmad"], stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        newcomers = []

        def newcomer():
            wait_for("the restart", lambda: active() == "deactivating" or configuring.poll() is not None, seconds=200)
            newcomers.append(ask(FRANCE, seconds=100))
        asking = threading.Thread(target=newcomer)
        asking.start()
        # One answer after the other, each well within `shutdown-grace`: the restart comes into one of them.
        answered = []
        while configuring.poll() is None and of_unit("MainPID") == daemon and active() == "active":
            try:
                stream, began = Stream(tokens=max(20, int(rate * 12))), time.monotonic()
            except Broken:
                # One that has not begun when the daemon is told to leave is refused.
                check(active() != "active" or of_unit("MainPID") != daemon, "the stream did not begin")
                break
            answered.append((began, stream.end(), time.monotonic()))
        configuring.wait(200)
        asking.join()
        said.seek(0)
        check(configuring.returncode == 0, said.read())
    check({end for _, end, _ in answered} == {"[DONE]"}, answered)
    restarted = int(of_unit("ActiveExitTimestampMonotonic")) / 1e6
    check(any(began < restarted < ended for began, _, ended in answered), "the restart came into no answer", restarted, answered)
    check(newcomers and newcomers[0].stdout.strip() == PARIS, *newcomers)
    check(version() == f"ii {version_of(package('newer'))}", version())
    check(of_unit("MainPID") not in [daemon, "0"] and os.stat(SOCKET).st_ino == socket, "the daemon is the same, or the socket another")
    check([own_configuration(), contents("/var/lib/gemmad/models")] == kept, "configuration or models changed")
    # The newer package has another sample, and nobody has changed this one.
    check(SAMPLE.read_text().endswith("# A newer sample.\n"), "the sample is not the newer package's")
    wait_for("bob's restart", lambda: of_users("MainPID", "bob", users["bob"]) not in [bobs, "0"])
    answers(user="bob", env=users["bob"])
    check(of_users("ActiveState", "carol", users["carol"]) == "inactive", "a daemon of carol's was started")


def version_of(file):
    return do("dpkg-deb", "-f", file, "Version").strip()


def own_configuration():
    """What the administrator has put beside the package's sample."""
    return {name: text for name, text in contents("/etc/gemmad").items() if name != str(SAMPLE)}


def contents(folder):
    """Each file below a folder and what is in it."""
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in Path(folder).rglob("*") if file.is_file()}


@promise("second", seconds=240)
def downgraded():
    """A downgrade starts no daemon that does not run, and the next question is answered"""
    do("systemctl", "stop", "gemmad.service")
    apt("install", "--allow-downgrades", package())
    check("newer" not in SAMPLE.read_text(), "the sample is still the newer package's")
    check(version() == f"ii {version_of(package())}", version())
    check(active() == "inactive" and active("gemmad.socket") == "active", active(), active("gemmad.socket"))
    answers()


@promise("first", "second", "memory", "old")
def nothing_denied():
    """The kernel denied no system call and no file to daemon or worker, and nothing crashed"""
    # That a denied call would be seen is tried with a program that may not set the clock.
    run("systemd-run", "--wait", "--quiet", "--collect", "-pSystemCallFilter=~@clock", "date", "--set=now")
    wait_for("the denied call of another program", lambda: [line for line in denials() if 'comm="date"' in line])
    bad = [line for line in denials() if 'comm="date"' not in line]
    bad += [line for line in do("journalctl", "-b", "-u", "gemmad", "-o", "cat", "--no-pager").splitlines() if "SIGSYS" in line]
    check(not bad, *bad[:10])
    failed = do("systemctl", "--failed", "--no-legend", "--plain").split()
    check(not [unit for unit in failed if "gemmad" in unit], failed)


@promise("first")
def other_bus():
    """The machine is given the other message bus for its next boot"""
    do("systemctl", "disable", "dbus-broker.service")
    do("systemctl", "--global", "disable", "dbus-broker.service")


def left(*expected):
    """Checks that of all files of gemmad's these are left, with what is in them, and no others."""
    ours = sorted(name for name in files() - set(BEFORE.read_text().splitlines()) if "gemmad" in name or "gemmactl" in name)
    said = [*map(Path, expected), STRICT.parent]
    check(all(os.path.lexists(path) for path in said), "less is left than is said", *ours)
    unsaid = [name for name in ours if not any(path.is_relative_to(name) or Path(name).is_relative_to(path) for path in said)]
    check(not unsaid, *unsaid)
    pwd.getpwnam("gemmad")


@promise("second", seconds=240)
def removed():
    """`apt remove` ends every daemon, and leaves models, caches, configuration and user, and nothing else"""
    env = manager_of("bob")
    answers()
    answers(user="bob", env=env)
    apt("remove", "gemmad")
    check(active() == "inactive" and active("gemmad.socket") == "inactive" and not Path("/run/gemmad").exists(), "it still runs")
    check(run("pgrep", "-x", "gemmad|gemmad-worker").returncode == 1, do("ps", "-e"))
    # The link says that the socket was enabled: so it is after the next installation.
    left("/etc/gemmad", "/var/lib/gemmad", "/var/cache/gemmad", "/etc/systemd/system/sockets.target.wants/gemmad.socket")


@promise("second", seconds=240)
def reinstalled():
    """Installed again it goes on with its models, packed weights and configuration, and with what was changed in the sample"""
    with SAMPLE.open("a") as sample:
        sample.write("# The administrator was here.\n")
    kept = [contents("/etc/gemmad"), contents("/var/lib/gemmad/models"), packed_files()]
    apt("install", package())
    check([contents("/etc/gemmad"), contents("/var/lib/gemmad/models"), packed_files()] == kept, "something changed")
    answers()


@promise("second", seconds=300)
def purged():
    """`apt purge` says that it leaves the models, and leaves nothing else; without models it leaves nothing"""
    said = apt("purge", "gemmad")
    check("models stay" in said, said)
    left("/var/lib/gemmad/models")
    check(sorted(MODELS) == sorted(os.listdir("/var/lib/gemmad/models")), os.listdir("/var/lib/gemmad/models"))
    apt("install", package())
    answers("--model", "tiny-e2b-q8_0", FRANCE)
    do("gemmactl", "config", "check")
    for name in MODELS:
        Path("/var/lib/gemmad/models", name).unlink()
    said = apt("purge", "gemmad")
    check("models stay" not in said, said)
    left()


def main():
    global BOOT
    BOOT = re.search(r"promises=(\w+)", Path("/proc/cmdline").read_text())[1]
    reports = open("/dev/ttyS1", "w", buffering=1)
    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(Broken("not done in time")))
    only = re.search(r"promises\.only=(\S*)", Path("/proc/cmdline").read_text())[1]
    for _, function, seconds in of(BOOT, only):
        started, detail = time.monotonic(), ""
        signal.alarm(seconds)
        try:
            function()
        except Broken as broken:
            detail = str(broken) or "broken"
        except Exception:
            detail = traceback.format_exc(limit=3)
        signal.alarm(0)
        if detail:
            # What the daemon said lately explains most.
            since = f"-{int(time.monotonic() - started) + 1}s"
            log = run("journalctl", "-u", "gemmad", "--since", since, "-o", "cat", "--no-pager").stdout
            detail = "\n".join([detail, "the daemon's log:", *log.splitlines()[-12:]])
        report = {"promise": title(function), "kept": not detail, "seconds": time.monotonic() - started, "detail": detail[-4000:]}
        reports.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
