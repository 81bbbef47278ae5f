#!/usr/bin/env python3
"""A drill: a real daemon with the tiny model, an honest user and two who attack, while things break.

    chaos.py --gemmad PATH [--seconds 120] [--seed N]

Workers are killed, stopped and continued; a model file is cut, replaced and brought back under the worker that has
it mapped; the cache's disk is full; descriptors and memory run out. The attackers flood, hang up, read slowly, send
noise and files that mean harm (callers.py). What has to hold all the same:

  * the supervisor lives, answers, and its private memory stays below --bound MiB;
  * every request that is read ends exactly once, with an answer or a named error;
  * the honest user's answers are right, most of their requests are answered, and their median latency is below
    --factor times that of quiet times, and --slack seconds;
  * when all is over nothing is left: no requests, workers, descriptors, and everything is answered again.

Ends with status 1 and what was broken if not, with 2 where the drill cannot be done: only root can become several
users. --seed repeats what is done in what order; when, the machine decides. Only the standard library.
"""
import argparse, collections, contextlib, json, multiprocessing, os, pwd, random, resource, shutil, signal, statistics, subprocess, sys, tempfile, threading, time

import callers

HERE = os.path.dirname(os.path.abspath(__file__))
TINY = os.path.join(HERE, "..", "..", "models", "tiny")
# Users who are there, for a bus knows no others.
ALICE, BOB, CAROL = ([user.pw_uid for user in pwd.getpwall() if user.pw_uid] + [61_001, 61_002, 61_003])[:3]
MIB = 1 << 20
# What the daemon and its workers may use when nothing is short of memory.
ROOM = 1024 * MIB
# The daemon keeps 1 GiB of the cache's disk free: what is above that is all that it can fill.
DISK = 1100 * MIB
CONFIG = """[server]
socket = "{dir}/api.sock"
socket-mode = "0666"
dbus = "{bus}"
[models]
directories = ["{dir}/models"]
default = "main"
[inference]
context = 2048
slots = 2
[memory]
cache-directory = "{dir}/cache"
[limits]
connections = 600
connections-per-user = 300
body-size = "8 MiB"
stored-size = "2 MiB"
files-size = "4 MiB"
client-stall = "2s"
load-time = "20s"
request-time = "60s"
worker-silence = "2s"
[log]
level = "info"
"""
BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path={dir}/bus</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow send_destination="*"/><allow receive_sender="*"/></policy>
<policy user="root"><allow own="*"/></policy></busconfig>"""


def children(pid):
    try:
        return [int(child) for child in open(f"/proc/{pid}/task/{pid}/children").read().split()]
    except OSError:
        return []


def private(pid):
    """MiB of private memory."""
    line = next(line for line in open(f"/proc/{pid}/status") if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


class Group:
    """A control group with a memory limit, of either version; `None` for its folder where none can be made."""

    def __init__(self):
        self.folder, self.why = None, []
        for root, limit, usage in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"), ("/sys/fs/cgroup", "memory.max", "memory.current")):
            folder = f"{root}/gemmad-chaos-{os.getpid()}"
            try:
                if limit == "memory.max":
                    with open(f"{root}/cgroup.subtree_control", "w") as f:
                        f.write("+memory")
                os.mkdir(folder)
                self.folder, self.limit, self.usage = folder, f"{folder}/{limit}", f"{folder}/{usage}"
                self.set(ROOM)
                return
            except OSError as error:
                self.why.append(str(error))
                if self.folder:
                    os.rmdir(self.folder)
                    self.folder = None

    def set(self, size):
        with open(self.limit, "w") as f:
            f.write(str(int(size)))

    def used(self):
        """Bytes that cannot be evicted, about."""
        stat = dict(line.split() for line in open(f"{self.folder}/memory.stat"))
        file = sum(int(stat.get(name) or 0) for name in (("total_active_file", "total_inactive_file") if "total_rss" in stat else ("active_file", "inactive_file")))
        return int(open(self.usage).read()) - file

    def admit(self, pid):
        with open(f"{self.folder}/cgroup.procs", "w") as f:
            f.write(str(pid))

    def close(self):
        for _ in range(100):
            with contextlib.suppress(OSError):
                return os.rmdir(self.folder)
            time.sleep(0.05)


class Daemon:
    """The daemon, its bus, its cache's disk and its control group, as far as they can be had."""

    def __init__(self, a):
        self.dir, self.left_out = a.directory, []
        os.chmod(self.dir, 0o755)
        os.mkdir(f"{self.dir}/models")
        for name, copy in (("main", "tiny-e2b-q8_0"), ("victim", "tiny-e2b-q8_0"), ("other", "tiny-e4b-q8_0")):
            shutil.copy(f"{TINY}/{copy}.gguf", f"{self.dir}/models/{name}.gguf")
        shutil.copy(f"{TINY}/tiny-e2b-mmproj-f16.gguf", f"{self.dir}/models/mmproj.gguf")
        self.bus = self.start_bus()
        os.mkdir(f"{self.dir}/cache")
        self.disk = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=0700", "none", f"{self.dir}/cache"], stderr=subprocess.DEVNULL).returncode == 0
        if not self.disk:
            self.left_out.append("a full disk: nothing can be mounted here")
        self.group = Group()
        if not self.group.folder:
            self.left_out.append(f"memory that runs out: no control group ({'; '.join(self.group.why)})")
        with open(f"{self.dir}/gemmad.toml", "w") as f:
            f.write(CONFIG.format(dir=self.dir, bus=self.address or "none"))
        self.log = open(a.log or f"{self.dir}/log", "wb")
        self.process = subprocess.Popen([a.gemmad, "--config", f"{self.dir}/gemmad.toml"], stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        self.pid, self.path = self.process.pid, f"{self.dir}/api.sock"
        if self.group.folder:
            self.group.admit(self.pid)
        self.wait_for("the socket", lambda: self.get("/health"))
        if self.address:
            self.wait_for("the name on the bus", lambda: subprocess.run(
                ["busctl", f"--address={self.address}", "get-property", "org.gemmad.Gemmad1", "/org/gemmad/Gemmad1", "org.gemmad.Gemmad1.Manager", "State"],
                capture_output=True).returncode == 0)

    def start_bus(self):
        self.address = None
        if not shutil.which("dbus-daemon") or not shutil.which("busctl"):
            self.left_out.append("the bus: dbus-daemon or busctl is not installed")
            return None
        with open(f"{self.dir}/bus.conf", "w") as f:
            f.write(BUS.format(dir=self.dir))
        bus = subprocess.Popen(["dbus-daemon", f"--config-file={self.dir}/bus.conf", "--nofork", "--nopidfile", "--nosyslog"], stderr=subprocess.DEVNULL)
        self.address = f"unix:path={self.dir}/bus"
        return bus

    def get(self, where):
        """What root is told, or None."""
        with contextlib.suppress(OSError, callers.Refused, callers.Broken, callers.http.client.HTTPException):
            return json.loads(callers.fetched(self.path, "GET", where))

    def wait_for(self, what, so, limit=60):
        end = time.monotonic() + limit
        while not so():
            if self.process.poll() is not None:
                raise callers.Broken(f"the daemon ended with {self.process.returncode} before {what}")
            if time.monotonic() > end:
                raise callers.Broken(f"{limit} s were not enough for {what}")
            time.sleep(0.05)

    def close(self):
        self.process.kill()
        self.process.wait()
        if self.bus:
            self.bus.kill()
            self.bus.wait()
        if self.disk:
            subprocess.run(["umount", "--lazy", f"{self.dir}/cache"])
        if self.group.folder:
            self.group.close()


class Breaker(threading.Thread):
    """Breaks one thing after the other, and mends what does not mend itself."""

    def __init__(self, daemon, seed, bound):
        super().__init__(daemon=True)
        self.bound = bound
        self.of, self.rng, self.stop, self.done, self.failed = daemon, random.Random(f"{seed} breaks"), threading.Event(), collections.Counter(), None
        self.victim, self.whole = f"{daemon.dir}/models/victim.gguf", open(f"{daemon.dir}/models/main.gguf", "rb").read()

    def run(self):
        kinds = [self.kill, self.kill, self.kill, self.pause, self.freeze, self.cut, self.replace, self.descriptors, self.reload]
        kinds += [self.fill] * self.of.disk + [self.starve] * 2 * bool(self.of.group.folder)
        while not self.stop.wait(self.rng.uniform(0.2, 1.5)):
            kind = self.rng.choice(kinds)
            self.done[kind.__name__] += 1
            try:
                kind()
            except (ProcessLookupError, IndexError):
                pass
            except Exception as error:
                self.failed = f"{kind.__name__}: {type(error).__name__}: {error}"
                return

    def worker(self):
        return self.rng.choice(children(self.of.pid))

    def kill(self):
        os.kill(self.worker(), signal.SIGKILL)

    def pause(self):
        """Too short to be taken for a hang."""
        pid = self.worker()
        os.kill(pid, signal.SIGSTOP)
        self.stop.wait(self.rng.random())
        os.kill(pid, signal.SIGCONT)

    def freeze(self):
        """The daemon has to end it."""
        os.kill(self.worker(), signal.SIGSTOP)

    def cut(self):
        """The file that a worker may have mapped ends in its middle."""
        with open(self.victim, "r+b") as f:
            f.truncate(self.rng.randrange(len(self.whole)))
        self.stop.wait(self.rng.uniform(0, 2))
        self.restore()

    def replace(self):
        with open(f"{self.victim}.new", "wb") as f:
            f.write(self.rng.randbytes(100_000) if self.rng.random() < 0.5 else self.whole[:self.rng.randrange(len(self.whole))])
        os.rename(f"{self.victim}.new", self.victim)
        self.stop.wait(self.rng.uniform(0, 2))
        self.restore()

    def restore(self):
        with open(f"{self.victim}.new", "wb") as f:
            f.write(self.whole)
        os.rename(f"{self.victim}.new", self.victim)

    def fill(self):
        """The cache's disk has no room beyond what the daemon keeps free, and what it holds is gone."""
        for name in os.listdir(f"{self.of.dir}/cache"):
            with contextlib.suppress(OSError):
                os.remove(f"{self.of.dir}/cache/{name}")
        with open(f"{self.of.dir}/cache/ballast", "wb") as f:
            with contextlib.suppress(OSError):
                f.write(bytes(DISK - 1024 * MIB + MIB))
        self.stop.wait(self.rng.uniform(0.5, 3))
        os.remove(f"{self.of.dir}/cache/ballast")

    def descriptors(self):
        soft, hard = resource.prlimit(self.of.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(self.of.pid, resource.RLIMIT_NOFILE, (min(soft, descriptors(self.of.pid) + self.rng.randrange(8)), hard))
        self.stop.wait(self.rng.uniform(0.5, 2))
        resource.prlimit(self.of.pid, resource.RLIMIT_NOFILE, (soft, hard))

    def starve(self):
        """The limit is so low that something has to go, but not the supervisor itself.

        It may come to --bound. What a worker held that was just killed is not free yet, and the kernel, which does not
        count it, would take the supervisor next; the unit's OOMScoreAdjust= forbids that, which only a process with
        CAP_SYS_RESOURCE could do here."""
        dying = 0.0
        for pid in children(self.of.pid):
            with contextlib.suppress(OSError, StopIteration):
                dying = max(dying, private(pid))
        with contextlib.suppress(OSError):
            self.of.group.set(max(self.of.group.used() + self.rng.randrange(-40, 40) * MIB, (self.bound + dying) * MIB))
        self.stop.wait(self.rng.uniform(0.5, 3))
        self.of.group.set(ROOM)

    def reload(self):
        os.kill(self.of.pid, signal.SIGHUP)


class Watcher(threading.Thread):
    """The supervisor's memory, and how long it takes to say that it is well."""

    def __init__(self, daemon):
        super().__init__(daemon=True)
        self.of, self.stop, self.peak, self.slowest = daemon, threading.Event(), 0.0, 0.0

    def run(self):
        asking = threading.Thread(target=self.ask, daemon=True)
        asking.start()
        while not self.stop.wait(0.05) and self.of.process.poll() is None:
            with contextlib.suppress(OSError, StopIteration):
                self.peak = max(self.peak, private(self.of.pid))
        asking.join()

    def ask(self):
        while not self.stop.wait(0.5) and self.of.process.poll() is None:
            start = time.monotonic()
            self.of.get("/version")
            self.slowest = max(self.slowest, time.monotonic() - start)


def start(name, uid, run, a, *arguments):
    """Another process, which runs as a user; what it writes goes into a file."""
    out = open(f"{a.directory}/{name}.jsonl", "w", buffering=1)

    def child():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        callers.become(uid)
        run(*arguments[:2], out, *arguments[2:])

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    return process


def lines(a, name):
    with open(f"{a.directory}/{name}.jsonl") as f:
        return [json.loads(line) for line in f]


def median(of):
    return statistics.median([line["took"] for line in of]) if of else float("inf")


def drill(a, daemon):
    """Does it all; returns what was broken."""
    broken, context = [], multiprocessing.get_context("fork")
    where = (daemon.path, daemon.address)
    never = context.Event()
    quiet = start("quiet", ALICE, callers.honest, a, *where, 0.01, never, 4)
    quiet.join()
    before = descriptors(daemon.pid)
    stop, breaker, watcher = context.Event(), Breaker(daemon, a.seed, a.bound), Watcher(daemon)
    users = [start("alice", ALICE, callers.honest, a, *where, 0.05, stop)]
    users += [start(name, uid, callers.attacker, a, *where, f"{a.seed} {name}", a.threads, stop) for name, uid in (("bob", BOB), ("carol", CAROL))]
    watcher.start()
    breaker.start()
    end = time.monotonic() + a.seconds
    while time.monotonic() < end and daemon.process.poll() is None:
        time.sleep(0.1)
    breaker.stop.set()
    breaker.join()
    stop.set()
    for user in users:
        user.join(2 * callers.PATIENCE)
        if user.is_alive():
            broken.append("a user's requests do not end")
            user.kill()
    watcher.stop.set()
    watcher.join()
    if breaker.failed:
        broken.append(f"the drill itself failed: {breaker.failed}")
    if daemon.process.poll() is not None:
        broken.append(f"the supervisor ended: {daemon.process.returncode}")
        return broken, breaker, watcher
    broken += aftermath(a, daemon, where, before, never)
    if watcher.peak > a.bound:
        broken.append(f"the supervisor had {watcher.peak:.1f} MiB of private memory")
    if watcher.slowest > callers.PATIENCE / 3:
        broken.append(f"the supervisor did not answer for {watcher.slowest:.1f} s")
    return broken, breaker, watcher


def aftermath(a, daemon, where, before, never):
    """Everything works again, and nothing is left of it."""
    broken = []
    try:
        daemon.wait_for("the requests to end", lambda: (status := daemon.get("/status")) and status["running"] == status["waiting"] == 0)
        # What was given up is started again after a pause of a minute at most.
        daemon.wait_for("the model to be had again", lambda: works(daemon.path), 90)
        start("after", ALICE, callers.honest, a, *where, 0.01, never, 2).join()
        broken += [f"afterwards, {line['door']}: {line.get('text', line['end'])}" for line in lines(a, "after") if line["end"] != "answered"]
        daemon.wait_for("descriptors to be closed", lambda: descriptors(daemon.pid) <= before + 8)
        daemon.wait_for("workers to end", lambda: len(children(daemon.pid)) <= 1)
        daemon.process.send_signal(signal.SIGTERM)
        status = daemon.process.wait(40)
        if status != 0:
            broken.append(f"the daemon ended with {status} when it was told to")
    except callers.Broken as error:
        broken.append(f"afterwards: {error}")
    except subprocess.TimeoutExpired:
        broken.append("the daemon does not end when it is told to")
    return broken


def works(path):
    with contextlib.suppress(callers.Refused):
        return callers.chat_whole(path, callers.QUESTION) == callers.ANSWER


def verdict(a, daemon, broken, breaker, watcher):
    """Prints what was found; the exit status."""
    quiet, alice = lines(a, "quiet"), lines(a, "alice")
    attackers = lines(a, "bob") + lines(a, "carol")
    answered = [line for line in alice if line["end"] == "answered"]
    calm, under = median([line for line in quiet if line["end"] == "answered"]), median(answered)
    for line in quiet + alice + attackers:
        if "broken" in line:
            broken.append(f"{line['door']}: {line['broken']}")
    if any(line["end"] != "answered" for line in quiet):
        broken.append("not everything was answered before anything was broken")
    if len(answered) < a.share * len(alice):
        broken.append(f"only {len(answered)} of {len(alice)} requests of the honest user were answered")
    if under > a.factor * calm + a.slack:
        broken.append(f"the honest user waited {under:.2f} s in the median, {calm:.2f} s in quiet times")
    with open(daemon.log.name, errors="replace") as f:
        panics = [line.strip() for line in f if "panicked" in line]
    broken += panics[:5]
    print(f"{a.seconds} s, seed {a.seed}")
    print("broken on purpose: " + ", ".join(f"{name} {count}" for name, count in breaker.done.most_common()))
    for left in daemon.left_out:
        print(f"left out: {left}")
    print(f"supervisor: at most {watcher.peak:.1f} MiB of private memory; slowest answer {watcher.slowest:.2f} s")
    times = sorted(line["took"] for line in answered) or [0]
    print(f"honest user: {len(answered)} of {len(alice)} answered; median {1e3 * calm:.0f} ms in quiet times, {1e3 * under:.0f} ms under attack "
          f"(nine of ten below {times[len(times) * 9 // 10]:.1f} s, all below {times[-1] + 0.05:.1f} s)")
    for name, of in (("honest", alice), ("attackers", attackers)):
        ends = collections.Counter(line["end"] for line in of)
        print(f"{name}: {len(of)} requests: " + ", ".join(f"{end} {count}" for end, count in ends.most_common()))
    if a.verbose:
        for of in (alice, attackers):
            for (door, end), count in sorted(collections.Counter((line["door"], line["end"]) for line in of).items()):
                example = next(line.get("text", "") for line in of if (line["door"], line["end"]) == (door, end))
                print(f"  {door}: {end} {count}  {example}")
    for what, count in collections.Counter(broken).most_common(20):
        print(f"BROKEN: {what}" + (f" ({count} times)" if count > 1 else ""))
    if broken:
        print(f"to repeat: chaos.py --seconds {a.seconds} --seed {a.seed}")
    return 1 if broken else 0


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--gemmad", required=True, help="the daemon's program; its worker lies beside it")
    p.add_argument("--seconds", type=int, default=120)
    p.add_argument("--seed", type=int, default=random.randrange(10**6))
    p.add_argument("--threads", type=int, default=12, help="of each attacker")
    p.add_argument("--bound", type=float, default=64, help="MiB of private memory that the supervisor may have")
    p.add_argument("--factor", type=float, default=10, help="times the median latency of quiet times")
    p.add_argument("--slack", type=float, default=3, help="seconds that may come on top")
    p.add_argument("--share", type=float, default=0.6, help="of the honest user's requests that have to be answered")
    p.add_argument("--log", help="where the daemon's log is to be left")
    p.add_argument("--verbose", action="store_true", help="how each kind of request ended")
    a = p.parse_args()
    if os.geteuid() != 0:
        print("only root can become several users", file=sys.stderr)
        sys.exit(2)
    with tempfile.TemporaryDirectory(prefix="gemmad-chaos-") as a.directory:
        daemon = Daemon(a)
        try:
            status = verdict(a, daemon, *drill(a, daemon))
        finally:
            daemon.close()
    sys.exit(status)


if __name__ == "__main__":
    main()
