#!/usr/bin/env python3
"""Serve within a memory limit: what is chosen, whether the answer comes, and what happens when memory is taken away.

    limits.py choice --gemmad P --models DIR --limits 1 2 3 4 8 [--peer llama-server]
    limits.py hog --gemmad P --models DIR --limits 4 [--peer llama-server]
    limits.py react --gemmad P --models DIR --limits 1 [--rounds 100]

`choice` starts the daemon in a control group with each limit (GiB) and an empty page cache, asks `auto` something, and
reports the model, the context, the time of the answer and whether the kernel had to kill anything. llama.cpp's server
gets the file that the daemon has chosen, or the smallest. `hog` keeps requests running while a program in the same group
takes memory step by step until little is left and gives it back again: answers that were lost after they had begun, and
how long after the shortage the daemon did something about it. `react` measures that time alone, often: a model is loaded and
answers, a program takes memory in one step, and the clock stops when the daemon has told its worker to give back. Needs root and a memory controller of either version.
Models that were loaded once have their packed weights in `--cache`; the first start fills it.
"""
import argparse, http.client, json, os, random, socket, statistics, subprocess, sys, tempfile, threading, time

import bench

GIB = 1 << 30
PEER_CONTEXT = 4096
# A program that takes as many MiB as each line of its input says, touched and kept; 0 gives all back.
HOG = """
import sys
kept = []
for line in sys.stdin:
    mib = int(line)
    kept = kept + [bytearray(b"x") * (mib << 20)] if mib else []
    print(len(kept), flush=True)
"""


class Group:
    """A control group with a memory limit."""

    def __init__(self, limit):
        v1 = "/sys/fs/cgroup/memory"
        self.v1 = os.path.isdir(v1)
        self.limit = limit
        self.folder = os.path.join(v1 if self.v1 else "/sys/fs/cgroup", f"gemmad-limits-{os.getpid()}")
        os.mkdir(self.folder)
        self.write("memory.limit_in_bytes" if self.v1 else "memory.max", limit)

    def write(self, name, value):
        with open(os.path.join(self.folder, name), "w") as f:
            f.write(str(value))

    def read(self, name):
        with open(os.path.join(self.folder, name)) as f:
            return f.read()

    def fields(self, name):
        return {key: int(value) for key, value in (line.split() for line in self.read(name).splitlines())}

    def enter(self):
        """Takes the calling process into it."""
        self.write("cgroup.procs", os.getpid())

    def kills(self):
        return self.fields("memory.oom_control" if self.v1 else "memory.events").get("oom_kill", 0)

    def free(self):
        """Bytes below the limit that are not taken for good: pages of files can go."""
        stat, used = self.fields("memory.stat"), int(self.read("memory.usage_in_bytes" if self.v1 else "memory.current"))
        prefix = "total_" if self.v1 else ""
        return self.limit - used + stat[prefix + "active_file"] + stat[prefix + "inactive_file"]

    def close(self):
        for _ in range(100):
            try:
                return os.rmdir(self.folder)
            except OSError:
                time.sleep(0.1)


class Process:
    """A server in the group."""

    def __init__(self, group, command, connect, log):
        self.connect, self.start = connect, time.monotonic()
        self.process = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=group.enter)

    def ready(self, limit=600):
        """Waits until it is up; False if it ended instead."""
        while self.process.poll() is None and time.monotonic() - self.start < limit:
            try:
                if self.get("/health")[0] == 200:
                    return True
            except OSError:
                pass
            time.sleep(0.02)
        return False

    def get(self, path):
        c = self.connect()
        c.request("GET", path)
        r = c.getresponse()
        return r.status, r.read()

    def status(self):
        return json.loads(self.get("/status")[1])

    def ask(self, words, tokens, seed, begun=lambda: None):
        """One streamed answer: (model, tokens/s) or what went wrong. Calls `begun` at the first piece."""
        body = {"model": "auto", "messages": [{"role": "user", "content": bench.prompt(words, seed)}], "max_tokens": tokens, "stream": True,
                "stream_options": {"include_usage": True}, "ignore_eos": True, "cache_prompt": False, "seed": 1}
        model, first, pieces = None, None, 0
        c = self.connect()
        c.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        r = c.getresponse()
        if r.status != 200:
            return None, f"HTTP {r.status}: {r.read().decode()[:300]}"
        for line in r:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            if "error" in event:
                return None, event["error"].get("message", str(event))
            model = event.get("model", model)
            if event.get("choices") and any(event["choices"][0]["delta"].get(key) for key in ("content", "reasoning_content")):
                if first is None:
                    first = time.monotonic()
                    begun()
                pieces += 1
        return model, (pieces - 1) / max(time.monotonic() - first, 1e-9) if first else 0.0

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def gemmad(a, group, log):
    config, sock = os.path.join(a.directory, "gemmad.toml"), os.path.join(a.directory, "api.sock")
    with open(config, "w") as f:
        f.write(f'[server]\nsocket = "{sock}"\n[models]\ndirectories = ["{os.path.abspath(a.models)}"]\n[memory]\ncache-directory = "{a.cache}"\n{a.memory}\n'
                f'[inference]\nslots = {a.slots}\n[limits]\nrequest-time = "1h"\n')
    return Process(group, [a.gemmad, "--config", config], lambda: bench.UnixConnection(sock), log)


def peer(a, group, log, model):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = [a.peer, "-m", model, "-c", str(PEER_CONTEXT), "-np", str(a.slots), "-t", str(os.cpu_count()), "--host", "127.0.0.1", "--port", str(port), "--jinja", "--no-webui"]
    return Process(group, command, lambda: http.client.HTTPConnection("127.0.0.1", port, timeout=1800), log)


def files(a):
    """The model files by their ids, the smallest first."""
    paths = [os.path.join(a.models, name) for name in os.listdir(a.models) if name.endswith(".gguf") and "mmproj" not in name]
    return {os.path.basename(path)[:-5].lower(): path for path in sorted(paths, key=os.path.getsize)}


def once(a, limit, start):
    """Starts a server in a fresh group and asks it twice: a row of the table, and the model's id."""
    group = Group(limit)
    try:
        bench.drop_caches()
        with open(os.path.join(a.directory, "log"), "ab") as log:
            server = start(group, log)
            try:
                if not server.ready():
                    return ["", "", "", "not up", group.kills()], None
                try:
                    model, rate = server.ask(40, 16, 1)
                    took = time.monotonic() - server.start
                    again = server.ask(40, 16, 2) if model else (None, rate)
                except (OSError, http.client.HTTPException) as error:
                    return ["", "", "", f"broke off: {error}", group.kills()], None
                if again[0] is None:
                    return ["", "", "", again[1], group.kills()], None
                try:
                    context = server.status()["context"]
                except (KeyError, ValueError):
                    context = PEER_CONTEXT
                return [model, context, f"{took:.1f}", f"{again[1]:.1f}", group.kills()], model
            finally:
                server.close()
    finally:
        group.close()


def choice(a):
    print("| limit, GiB | server | model | context | start to end of the first answer, s | decode of the second, tokens/s | killed |\n|---|---|---|---|---|---|---|")
    for limit in a.limits:
        row, model = once(a, int(limit * GIB), lambda group, log: gemmad(a, group, log))
        print(f"| {limit:g} | gemmad | " + " | ".join(map(str, row)) + " |", flush=True)
        if a.peer:
            found = files(a)
            path = found.get(model) or next(iter(found.values()))
            row, _ = once(a, int(limit * GIB), lambda group, log: peer(a, group, log, path))
            row[0] = os.path.basename(path)[:-5].lower()
            print(f"| {limit:g} | llama-server | " + " | ".join(map(str, row)) + " |", flush=True)


def hog_one(a, limit, start):
    """Requests that run while memory is taken away and given back."""
    group = Group(limit)
    bench.drop_caches()
    results, stop, watched = [], threading.Event(), []
    with open(os.path.join(a.directory, "log"), "ab") as log:
        server = start(group, log)
        try:
            if not server.ready():
                return {"up": "no", "killed": group.kills()}
            server.ask(10, 1, 0)

            def client(number):
                seed = number * 1000
                while not stop.is_set():
                    begun, seed = [], seed + 1
                    try:
                        model, outcome = server.ask(60, 48, seed, lambda: begun.append(True))
                    except (OSError, http.client.HTTPException, ValueError) as error:
                        model, outcome = None, str(error)
                    results.append((model, outcome, bool(begun)))
                    if model is None:
                        time.sleep(0.5)

            # When memory got short (less than twice the daemon's floor), and when the daemon had done something.
            def watch():
                short = None
                while not stop.is_set():
                    try:
                        low, memory = group.free() < 2 * limit // 64, server.status().get("memory", {})
                    except (OSError, http.client.HTTPException, ValueError):
                        low, memory = False, {}
                    short = (short or time.monotonic()) if low else None
                    if short and memory.get("level", "calm") != "calm":
                        watched.append(time.monotonic() - short)
                        short = None
                        while not stop.is_set() and group.free() < 3 * limit // 64:
                            time.sleep(0.05)
                    time.sleep(0.02)

            threads = [threading.Thread(target=client, args=(n,)) for n in (1, 2)] + [threading.Thread(target=watch)]
            for thread in threads:
                thread.start()
            time.sleep(10)
            hog = subprocess.Popen([sys.executable, "-c", HOG], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=group.enter)
            for _ in range(a.cycles):
                while hog.poll() is None and group.free() > limit // 64:
                    print(max(16, int(group.free() / 8) >> 20), file=hog.stdin, flush=True)
                    hog.stdout.readline()
                    time.sleep(a.pause)
                time.sleep(a.rest)
                if hog.poll() is None:
                    print(0, file=hog.stdin, flush=True)
                    hog.stdout.readline()
                time.sleep(a.rest)
            stop.set()
            for thread in threads:
                thread.join()
            hog_killed = hog.poll() is not None
            hog.kill()
            hog.wait()
            lost = [outcome for model, outcome, begun in results if model is None and begun]
            refused = [outcome for model, outcome, begun in results if model is None and not begun]
            for outcome in sorted(set(lost + refused)):
                print(f"  {outcome}", file=sys.stderr)
            watched.sort()
            delays = f"median {statistics.median(watched):.2f}, p99 {watched[int(0.99 * len(watched))]:.2f} s of {len(watched)}" if watched else "none"
            return {"answered": sum(model is not None for model, _, _ in results), "lost after they had begun": len(lost), "refused": len(refused),
                    "time to react": delays, "killed": group.kills(), "of them the program": int(hog_killed), "up at the end": "yes" if server.process.poll() is None else "no"}
        finally:
            stop.set()
            server.close()
            group.close()


def hog(a):
    for limit in a.limits:
        found = list(files(a).values())
        both = {"gemmad": lambda group, log: gemmad(a, group, log)}
        if a.peer:
            both["llama-server"] = lambda group, log: peer(a, group, log, found[0])
        for name, start in both.items():
            row = hog_one(a, int(limit * GIB), start)
            print(f"{limit:g} GiB, {name}: " + "; ".join(f"{key} {value}" for key, value in row.items()), flush=True)


def react_one(a, limit):
    """Seconds from a shortage to what the daemon does about it, of each round."""
    group, times, stop = Group(limit), [], threading.Event()
    with open(os.path.join(a.directory, "log"), "ab") as log:
        server = gemmad(a, group, log)
        hog = subprocess.Popen([sys.executable, "-c", HOG], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=group.enter)

        def take(mib):
            print(mib, file=hog.stdin, flush=True)
            hog.stdout.readline()

        def client():
            seed = 0
            while not stop.is_set():
                seed += 1
                server.ask(20, 200, seed)

        def level():
            return server.status().get("memory", {}).get("level")

        try:
            if not server.ready():
                raise SystemExit("the daemon did not start")
            server.ask(10, 1, 0)
            client = threading.Thread(target=client)
            client.start()
            for _ in range(a.rounds):
                # It is short below two of 64 parts, and low, which is another matter, below one. The last step is a small one,
                # so that it takes no time itself.
                take(max(1, (group.free() - 5 * limit // 64) >> 20))
                time.sleep(1.2)
                begun = time.monotonic()
                take(max(1, (group.free() - 3 * limit // 128) >> 20))
                while level() == "calm" and time.monotonic() - begun < 60:
                    time.sleep(0.005)
                times.append(time.monotonic() - begun)
                take(0)
                c = server.connect()
                c.request("POST", "/v1/models/unload")
                c.getresponse().read()
                # The client's next request loads the model again.
                deadline = time.monotonic() + 60
                while server.status().get("state") != "ready" and time.monotonic() < deadline:
                    time.sleep(0.02)
                time.sleep(random.random())
        finally:
            stop.set()
            hog.kill()
            hog.wait()
            server.close()
            group.close()
    return sorted(times)


def react(a):
    for limit in a.limits:
        times = react_one(a, int(limit * GIB))
        print(f"{limit:g} GiB, {len(times)} rounds: median {statistics.median(times):.2f} s, p99 {times[int(0.99 * len(times))]:.2f} s, most {times[-1]:.2f} s")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=["choice", "hog", "react"])
    p.add_argument("--gemmad", required=True, help="the daemon's program; its worker lies beside it")
    p.add_argument("--models", required=True, help="a directory with full-size files")
    p.add_argument("--cache", default=os.path.expanduser("~/.cache/gemmad/bench/packed"), help="where packed weights are kept")
    p.add_argument("--peer", help="llama.cpp's llama-server, to compare with")
    p.add_argument("--limits", type=float, nargs="+", default=[4], help="GiB")
    p.add_argument("--memory", default="", help="more lines for `[memory]`, like \"allow-overcommit = true\"")
    p.add_argument("--slots", type=int, default=1)
    p.add_argument("--rounds", type=int, default=100, help="react: how often")
    p.add_argument("--pause", type=float, default=2, help="hog: seconds between its steps")
    p.add_argument("--rest", type=float, default=15, help="hog: seconds that it keeps what it has, and seconds before it begins anew")
    p.add_argument("--cycles", type=int, default=2, help="hog: how often memory is taken away and given back")
    a = p.parse_args()
    with tempfile.TemporaryDirectory(prefix="gemmad-limits-") as a.directory:
        try:
            globals()[a.what](a)
        finally:
            if os.environ.get("KEEP_LOG"):
                os.rename(os.path.join(a.directory, "log"), os.environ["KEEP_LOG"])


main()
