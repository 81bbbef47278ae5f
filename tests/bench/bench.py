#!/usr/bin/env python3
"""Measure gemmad as its clients and the machine see it, and beside llama.cpp's server.

    bench.py overhead                                  what the daemon adds to its worker (tiny model)
    bench.py speed --model FILE [--peer llama-server]  prefill, decode, first token, memory
    bench.py share --model FILE [--peer llama-server]  decode beside busy programs of equal priority
    bench.py beside --model FILE [--peer llama-server] a running answer while another prompt is read
    bench.py turns --model FILE [--peer llama-server]  a second turn at once, and after all that ends a worker
    bench.py clients --model FILE [--other GEMMAD]     tokens/s of several answers together
    bench.py idle                                      the supervisor's memory and start
    bench.py picture --model FILE --eyes FILE [--peer llama-server]   the first token behind a picture
    bench.py activation [--model FILE]                 the first token when systemd starts the daemon for it
    bench.py memory [--variant e2b] [--peer …]         first and later starts, peak memory, speed: full-size files

Servers take turns (A B A B …) so that a noisy machine treats them alike; compare the ratios, not the single
numbers. Only the standard library. The models' files may be cold or warm: run once before, or drop the page
cache, to have it one way. docs/measuring.md says what was found.
"""
import argparse, base64, http.client, json, os, random, shutil, socket, statistics, struct, subprocess, sys, tempfile, threading, time, zlib

import synth

HERE = os.path.dirname(os.path.abspath(__file__))
TINY = os.path.join(HERE, "..", "..", "models", "tiny")
WORDS = "the of and to in is that for it was on are as with they at be this from have or by one had not but what all were when".split()


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=1800)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


class Server:
    """A server process, ready to answer."""

    def __init__(self, command, connect, load):
        self.command, self.connect, start = command, connect, time.monotonic()
        self.run()
        self.peak, self.loaded, self.stop = 0, None, threading.Event()
        threading.Thread(target=self.watch, daemon=True).start()
        self.wait()
        self.ready = time.monotonic() - start
        if load:
            c = self.connect()
            c.request("POST", "/models/load", "{}")  # llama.cpp's server has it loaded, and says 404
            c.getresponse().read()
            self.loaded, self.loading_peak = time.monotonic() - start, self.peak
            self.chat("hello", 1)
        self.first_token = time.monotonic() - start

    def run(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def wait(self):
        """Until it serves."""
        while True:
            if self.process.poll() is not None:
                sys.exit(f"{self.command[0]} ended with {self.process.returncode}")
            try:
                c = self.connect()
                c.request("GET", "/health")
                if c.getresponse().status == 200:
                    return
            except OSError:
                pass
            time.sleep(0.005)

    def restart(self):
        """Ends it as a service manager does, and starts it again; nothing is loaded."""
        self.process.terminate()
        self.process.wait(60)
        self.run()
        self.wait()

    def watch(self):
        # To look is to walk through the page tables of gigabytes; only while it loads does memory come and go.
        while not self.stop.wait(1 if self.loaded else 0.05):
            self.peak = max(self.peak, self.pss())

    def pids(self):
        todo, out = [self.process.pid], []
        while todo:
            pid = todo.pop()
            out.append(pid)
            try:
                todo += map(int, open(f"/proc/{pid}/task/{pid}/children").read().split())
            except OSError:
                pass
        return out

    def pss(self, field="Pss:"):
        """MiB of the whole process tree."""
        total = 0
        for pid in self.pids():
            try:
                total += sum(int(line.split()[1]) for line in open(f"/proc/{pid}/smaps_rollup") if line.startswith(field))
            except OSError:
                pass
        return total / 1024

    def chat(self, text, tokens, seen=None, **more):
        """Streams one answer (`text` may be parts): seconds to the first event with text and to the end, prompt and completion tokens, timings.

        `seen` is given the time of each event with text."""
        body = {"model": "auto", "messages": [{"role": "user", "content": text}], "max_tokens": tokens, "temperature": 1.0, "top_p": 1.0,
                "seed": 1, "stream": True, "stream_options": {"include_usage": True}, "ignore_eos": True, "cache_prompt": False,
                "chat_template_kwargs": {"enable_thinking": False}, **more}
        c, first, usage, timings = self.connect(), None, {}, {}
        c.connect()
        start = time.perf_counter()
        c.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        r = c.getresponse()
        if r.status != 200:
            sys.exit(f"HTTP {r.status}: {r.read()[:500]}")
        for line in r:
            if not line.startswith(b"data: {"):
                continue
            d = json.loads(line[6:])
            if "error" in d:
                sys.exit(str(d))
            usage, timings = d.get("usage") or usage, d.get("timings") or timings
            # Random weights may begin with a thought.
            if d.get("choices") and (d["choices"][0]["delta"].get("content") or d["choices"][0]["delta"].get("reasoning_content")):
                first = first or time.perf_counter() - start
                if seen is not None:
                    seen.append(time.perf_counter())
        return first, time.perf_counter() - start, usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0), timings

    def close(self):
        self.stop.set()
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()


def configured(a, inference=""):
    """The daemon's command, and the socket that it is told to serve on. `inference`: more lines of that table."""
    config, sock = os.path.join(a.directory, "gemmad.toml"), os.path.join(a.directory, "api.sock")
    model = os.path.abspath(a.model) if a.model else None
    models = os.path.dirname(model) if model else os.path.abspath(TINY)
    default = os.path.basename(model)[:-5].lower() if model else "auto"
    with open(config, "w") as f:
        f.write(f'[server]\nsocket = "{sock}"\n[models]\ndirectories = ["{models}", "{os.path.abspath(TINY)}"]\ndefault = "{default}"\n'
                f'[memory]\ncache-directory = "{os.path.join(a.directory, "cache")}"\nprompt-cache-key = "{os.path.join(a.directory, "prompt-cache.key")}"\n'
                f'[inference]\nslots = {a.slots}\ncontext = {a.context}\nthreads = {a.threads}\n{inference}[log]\nlevel = "error"\n')
    return [a.gemmad, "--config", config], sock


def gemmad(a, load=True, inference=""):
    command, sock = configured(a, inference)
    return Server(command, lambda: UnixConnection(sock), load)


def peer(a):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = [a.peer, "-m", a.model, "-c", str(a.context * a.slots), "-np", str(a.slots), "-t", str(a.threads or os.cpu_count()), "--host", "127.0.0.1",
               "--port", str(port), "--jinja", "--no-webui", *a.peer_options]
    return Server(command, lambda: http.client.HTTPConnection("127.0.0.1", port, timeout=1800), True)


def servers(a):
    """The servers under comparison, each as a function that starts one."""
    both = {"gemmad": lambda: gemmad(a)}
    if a.peer:
        both["llama-server"] = lambda: peer(a)
    if a.other:
        both["other"] = lambda: gemmad(argparse.Namespace(**{**vars(a), "gemmad": a.other}))
    return both


def prompt(words, seed):
    rng = random.Random(seed)
    return " ".join(rng.choice(WORDS) for _ in range(words))


def speed_of(server, a, seed):
    """Prefill and decode tokens/s: a request of one token and one of many, of prompts of the same length."""
    _, one, tokens, _, _ = server.chat(prompt(a.prompt, seed), 1)
    first, many, _, out, _ = server.chat(prompt(a.prompt, seed + 1), a.predict)
    return tokens / one, (out - 1) / max(many - one, 1e-9), first


def median(values):
    return statistics.median(values)


def report(rows, unit=""):
    """Prints each server's medians and gemmad's ratio to the other, pair by pair."""
    names = list(rows)
    for metric in rows[names[0]][0]:
        values = {name: [run[metric] for run in rows[name]] for name in names}
        text = "  ".join(f"{name} {median(values[name]):.2f}" for name in names)
        if len(names) == 2:
            ratios = sorted(x / y for x, y in zip(values[names[0]], values[names[1]]))
            text += f"  ratio {median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})"
        print(f"{metric:24} {text}{unit}", flush=True)


def overhead(a):
    """First byte and token cost beyond the worker's own time, from the `timings` that the worker reports."""
    s = gemmad(a)
    firsts, tokens, rates = [], [], []
    for _ in range(a.runs * 20):
        first, end, _, out, t = s.chat("What is the capital of France?", 200)
        firsts.append((first - t["prompt_ms"] / 1000 - t["predicted_ms"] / 1000 / out) * 1e3)
        tokens.append((end - (t["prompt_ms"] + t["predicted_ms"]) / 1000) / out * 1e6)
        rates.append(out / end)
    s.close()
    print(f"first byte beyond the worker's time: {median(firsts):.2f} ms; per token, everything counted: {median(tokens):.1f} µs; at {median(rates):.0f} tokens/s")


def disturbed(server, a, seed):
    """An answer runs while a prompt of another is read: the answer's longest pause, and what both computed in a second."""
    seen = []

    def run():
        try:
            server.chat(prompt(20, seed), a.context - 200, seen)
        except (OSError, http.client.HTTPException):
            pass  # The server was closed.

    answer = threading.Thread(target=run)
    answer.start()
    while len(seen) < 5:
        time.sleep(0.01)
    start = time.perf_counter()
    first, _, tokens, _, _ = server.chat(prompt(a.prompt, seed + 1), 1)
    end = start + first
    between = [at for at in seen if start <= at <= end]
    pauses = [b - a for a, b in zip([start, *between], [*between, end])]
    if not answer.is_alive():
        sys.exit("the answer ended before the prompt was read: raise --context")
    server.close()
    answer.join()
    return max(pauses), (tokens + len(between)) / first, first


def beside(a):
    """With the default step-time, with steps of any length, and the peer; a start for each measurement."""
    kinds = {"gemmad": lambda: gemmad(a), "whole steps": lambda: gemmad(a, inference='step-time = "1m"\n')}
    if a.peer:
        kinds["llama-server"] = lambda: peer(a)
    rows = {name: [] for name in kinds}
    for run in range(a.runs):
        for name, start in kinds.items():
            server = start()
            server.chat("hello", 8)
            pause, rate, first = disturbed(server, a, run)
            rows[name].append({"longest pause, s": pause, "tokens/s in all": rate, "other's first token, s": first})
    report({name: rows[name] for name in ("gemmad", "whole steps")})
    if a.peer:
        report({name: rows[name] for name in ("gemmad", "llama-server")})


def together(server, a, count, seed):
    """Tokens/s of so many answers together, while all of them are written."""
    seen = [[] for _ in range(count)]
    threads = [threading.Thread(target=server.chat, args=(prompt(a.prompt, seed + i), a.predict, seen[i])) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if not all(seen):
        sys.exit("an answer without any text")
    start, end = max(times[0] for times in seen), min(times[-1] for times in seen)
    return sum(sum(start < time <= end for time in times) for times in seen) / max(end - start, 1e-9)


def clients(a):
    """Tokens/s of several answers together, against the bound: as many times one answer, and no more than prompts are read."""
    a.slots = max(a.clients)
    rows = {name: [] for name in servers(a)}
    for run in range(a.runs):
        for name, start in servers(a).items():
            s = start()
            row, read = {}, []
            for i in range(a.rounds):
                read.append(speed_of(s, a, 1000 * run + 10 * i)[0])
                for count in a.clients:
                    row.setdefault(count, []).append(together(s, a, count, 1000 * run + 100 * i + count))
            one, read = median(row.get(1, [0])), median(read)
            rows[name].append({f"{count} clients, tokens/s": median(values) for count, values in row.items()} | {"prefill, tokens/s": read}
                              | {f"{count} clients, of the bound": median(values) / min(count * one, read) for count, values in row.items() if one and count > 1})
            s.close()
    report(rows)


def turn(server, messages, **more):
    """Seconds to the first token of one more turn, the tokens that were read for it, and the answer."""
    # Random weights answer with random tokens, which are not those of the text that they spell; digits are.
    digit = post(server, "/tokenize", {"content": "7"})["tokens"][0]
    body = {"model": "auto", "messages": messages, "max_tokens": 8, "temperature": 0, "ignore_eos": True, "cache_prompt": True,
            "logit_bias": {str(digit): 100}, "chat_template_kwargs": {"enable_thinking": False}, **more}
    c, start = server.connect(), time.perf_counter()
    c.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    answer = json.loads(c.getresponse().read())
    if "error" in answer:
        sys.exit(str(answer))
    took, timings = time.perf_counter() - start, answer["timings"]
    read = answer["usage"]["prompt_tokens"] - timings["cache_n"]
    return took - timings["predicted_ms"] / 1000, read, answer["choices"][0]["message"]["content"]


def post(server, path, body={}):
    c = server.connect()
    c.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    return json.loads(c.getresponse().read())


def status(server):
    c = server.connect()
    c.request("GET", "/status")
    return json.loads(c.getresponse().read())


def kill_worker(server):
    time.sleep(3)  # What was read is kept when nothing was to be done for a second.
    os.kill(status(server)["pid"], 9)


def swap_models(server):
    for model in ["tiny-e2b-q8_0", status(server)["model"]]:
        post(server, "/models/load", {"model": model})


def turns(a):
    """The first turn of a conversation, and second turns of it: the first token's time as a share of the first turn's."""
    between = {"at once": lambda server: None, "after an unload": lambda server: post(server, "/models/unload"),
               "after another model's turn": swap_models, "after a crash of the worker": kill_worker,
               "after a restart of the daemon": Server.restart}
    rows = {name: [] for name in servers(a)}
    for run in range(a.runs):
        for name, start in servers(a).items():
            results = {}
            for what, happens in between.items():
                if name != "gemmad" and what != "at once":
                    continue
                server = start()
                messages = [{"role": "user", "content": prompt(a.prompt, run)}]
                # Only what asks for it is kept over a restart.
                more = {"prompt_cache_retention": "24h"} if happens == Server.restart else {}
                first, tokens, text = turn(server, messages, **more)
                happens(server)
                messages += [{"role": "assistant", "content": text}, {"role": "user", "content": "And what else?"}]
                second, read, _ = turn(server, messages, **more)
                server.close()
                print(f"{name}: {tokens} tokens read in {first:.2f} s; second turn {what}: {read} in {second:.2f} s, {second / first:.3f}", flush=True)
                results[f"second turn {what}"] = second / first
            rows[name].append(results)
    for name, runs in rows.items():
        for what in runs[0]:
            shares = sorted(run[what] for run in runs)
            print(f"{name}: {what}: {median(shares):.3f} ({shares[0]:.3f} to {shares[-1]:.3f}) of the first turn")


def speed(a):
    rows = {name: [] for name in servers(a)}
    for run in range(a.runs):
        for name, start in servers(a).items():
            if a.cold:
                drop_caches()
            s = start()
            results = [speed_of(s, a, 10 * run + 2 * i) for i in range(a.rounds)]
            rows[name].append({"start to first token, s": s.first_token, "prefill, tokens/s": median(r[0] for r in results),
                               "decode, tokens/s": median(r[1] for r in results), "PSS, MiB": s.pss(), "of it anonymous, MiB": s.pss("Pss_Anon:"), "peak PSS, MiB": s.peak})
            s.close()
    report(rows)


def share(a):
    """Decode beside N busy loops, as a share of the undisturbed speed in the same process. Fair is CPUs/(CPUs+N)."""
    rows = {name: [] for name in servers(a)}
    for run in range(a.runs):
        for name, start in servers(a).items():
            s, row = start(), {}
            alone = median(speed_of(s, a, 100 + i)[1] for i in range(a.rounds))
            for hogs in (2, 4):
                busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(hogs)]
                time.sleep(0.5)
                beside = median(speed_of(s, a, 200 + i)[1] for i in range(a.rounds))
                for b in busy:
                    b.kill()
                    b.wait()
                row[f"share beside {hogs}, %"] = 100 * beside / alone
            rows[name].append(row)
            s.close()
    report(rows)


def drop_caches():
    subprocess.run("sync; echo 3 > /proc/sys/vm/drop_caches", shell=True, check=True)


def memory(a):
    """A table: each server's first start, later starts with a warm and a cold page cache, memory and speed."""
    a.model = a.model or synthetic(a)
    rows = {name: [] for name in servers(a)}
    for run in range(a.runs):
        for name, start in servers(a).items():
            row = {}
            if name == "gemmad":
                shutil.rmtree(os.path.join(a.directory, "cache"), ignore_errors=True)
                s = start()
                time.sleep(a.settle)
                row["first start: peak PSS while loading, MiB"] = s.loading_peak
                first = s.loaded
                s.close()
            if os.geteuid() == 0:
                drop_caches()
                s = start()
                row["cold: start to first token, s"] = s.first_token
                s.close()
            s = start()
            row["warm: start to loaded, s"] = s.loaded
            row["warm: start to first token, s"] = s.first_token
            results = [speed_of(s, a, 10 * run + 2 * i) for i in range(a.rounds)]
            row["prefill, tokens/s"] = median(r[0] for r in results)
            row["decode, tokens/s"] = median(r[1] for r in results)
            row["PSS, MiB"], row["peak PSS, MiB"] = s.pss(), s.peak
            row["anonymous, MiB"] = s.pss("Pss_Anon:")
            if name == "gemmad":
                row["first start: start to loaded, s"] = first
            s.close()
            rows[name].append(row)
            print(f"run {run + 1}, {name}: " + "; ".join(f"{k} {v:.2f}" for k, v in row.items()), file=sys.stderr, flush=True)
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith(("model name", "Model"))), os.uname().machine)
    print(f"\n{os.path.basename(a.model)} ({os.path.getsize(a.model) / 1e9:.2f} GB), context {a.context}, {a.threads or os.cpu_count()} threads, {cpu}\n")
    print("| | " + " | ".join(rows) + (" | ratio, median (range) |" if a.peer else " |") + "\n|---" + "|---" * (len(rows) + bool(a.peer)) + "|")
    for metric in rows["gemmad"][0]:
        values = [[run[metric] for run in runs] if metric in runs[0] else [] for runs in rows.values()]
        cells = [f"{median(v):.2f}" if v else "" for v in values]
        if a.peer:
            ratios = sorted(x / y for x, y in zip(*values))
            cells.append(f"{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})" if ratios else "")
        print(f"| {metric} | " + " | ".join(cells) + " |")


def synthetic(a):
    """A full-size file with random weights, made once."""
    name = os.path.join(a.files, f"gemma-4-{a.variant}-random-Q4_0.gguf")
    if not os.path.exists(name):
        os.makedirs(a.files, exist_ok=True)
        synth.write(a.variant, name, skew=0.2)
    return name


def idle(a):
    s = gemmad(a, load=False)
    time.sleep(0.5)
    status = dict(line.split(":", 1) for line in open(f"/proc/{s.process.pid}/status") if ":" in line)
    print(f"ready after {s.ready * 1e3:.0f} ms; RssAnon {status['RssAnon'].strip()}; PSS {s.pss():.2f} MiB")
    s.close()


def noise(width, height, seed):
    """A picture as a data URL, each time another one: PNG without compression."""
    rng = random.Random(seed)
    rows = b"".join(b"\0" + rng.randbytes(width * 3) for _ in range(height))
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    png += chunk(b"IDAT", zlib.compress(rows, 0)) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(png).decode()


def picture(a):
    """The same picture for both, of a size that is 256 tokens."""
    a.peer_options += ["--mmproj", a.eyes]
    rows = {name: [] for name in servers(a)}
    for run in range(a.runs):
        for name, start in servers(a).items():
            server = start()
            took = []
            for seed in range(a.rounds + 1):
                shown = {"type": "image_url", "image_url": {"url": noise(768, 768, run * 100 + seed)}}
                first, *_, tokens, _, _ = server.chat([shown, {"type": "text", "text": "What is this?"}], 1)
                took.append(first)
            rows[name].append(took)
            server.close()
            print(f"{name}: {tokens} tokens; first token after " + ", ".join(f"{seconds:.2f}" for seconds in took) + " s", flush=True)
    for name, runs in rows.items():
        print(f"{name}: median {median([s for took in runs for s in took[1:]]):.2f} s; the first picture, for which it may load: {median([took[0] for took in runs]):.2f} s")
    if a.peer:
        gemmad_row, peer_row = ([s for took in runs for s in took[1:]] for runs in rows.values())
        print(f"ratio {median(gemmad_row) / median(peer_row):.2f}")


class Activated(Server):
    """A daemon that is not running until someone connects."""

    def __init__(self, a):
        command, sock = configured(a)
        self.connect, self.stop = lambda: UnixConnection(sock), threading.Event()
        activate = ["systemd-socket-activate", "--fdname=api", f"--listen={sock}", *command]
        self.process = subprocess.Popen(activate, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not os.path.exists(sock):
            time.sleep(0.01)


def activation(a):
    starts = {"running, no model loaded": lambda: gemmad(a, load=False), "not running": lambda: Activated(a)}
    # Packs the weights, and fills the page cache.
    gemmad(a).close()
    took = {name: [] for name in starts}
    for seed in range(a.runs * a.rounds):
        for name, start in starts.items():
            server = start()
            took[name].append(server.chat(prompt(16, seed), 1)[0])
            server.close()
            if os.path.exists(os.path.join(a.directory, "api.sock")):
                os.unlink(os.path.join(a.directory, "api.sock"))
    for name, seconds in took.items():
        print(f"{name}: first token after {median(seconds) * 1e3:.0f} ms (of {len(seconds)}: {min(seconds) * 1e3:.0f} to {max(seconds) * 1e3:.0f})")
    running, activated = (median(seconds) for seconds in took.values())
    print(f"ratio {activated / running:.3f}")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", nargs="?", default="all", choices=["all", "overhead", "speed", "share", "beside", "clients", "turns", "idle", "picture", "activation", "memory"],
                   help="all: idle and overhead")
    p.add_argument("--gemmad", required=True, help="the daemon's program; its worker lies beside it")
    p.add_argument("--peer", help="llama.cpp's llama-server, to compare with")
    p.add_argument("--other", help="another build's daemon, to compare with")
    p.add_argument("--clients", type=lambda text: [int(n) for n in text.split(",")], default=[1, 4, 16], help="clients: how many at a time")
    p.add_argument("--model", help="a GGUF file; the tiny model if none is given")
    p.add_argument("--eyes", help="picture: the model's projector, which lies beside it for gemmad to find it")
    p.add_argument("--context", type=int, default=4096)
    p.add_argument("--threads", type=int, default=0)
    p.add_argument("--slots", type=int, default=1, help="conversations at a time; beside needs 2")
    p.add_argument("--prompt", type=int, default=256, help="words in a prompt")
    p.add_argument("--predict", type=int, default=32, help="tokens in an answer")
    p.add_argument("--runs", type=int, default=3, help="starts of each server")
    p.add_argument("--rounds", type=int, default=3, help="measurements in each start")
    p.add_argument("--cold", action="store_true", help="drop the page cache before each start (root)")
    p.add_argument("--variant", choices=synth.VARIANTS, default="e2b", help="memory: which full-size file")
    p.add_argument("--files", default=os.path.expanduser("~/.cache/gemmad/bench"), help="memory: where those files are kept")
    p.add_argument("--settle", type=float, default=5, help="memory: seconds that a first start has to write what it packed")
    p.add_argument("--peer-options", default=[], type=str.split, help="more for llama-server, like \"--no-repack\"")
    a = p.parse_args()
    if a.what == "picture" and not a.eyes:
        p.error("picture needs --eyes")
    if a.what == "beside":
        a.slots = max(a.slots, 2)
    if a.what in ("speed", "share", "beside", "clients", "turns", "picture") and not a.model:
        p.error(f"{a.what} needs --model")
    os.makedirs(a.files, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gemmad-bench-", dir=a.files if a.what == "memory" else None) as a.directory:
        for what in {"all": (idle, overhead)}.get(a.what) or (globals()[a.what],):
            what(a)


if __name__ == "__main__":
    main()
