"""What chaos.py's users do: an honest one who asks and checks every answer, and two who attack.

Each runs in a process of their own, as a user of their own, and writes a line of JSON for each request: which
door, how it ended, how long it took, and `broken` if it did not end as promised (exactly once, with an answer or
a named error).
"""
import base64, contextlib, http.client, json, os, random, socket, struct, subprocess, threading, time, zlib

QUESTION, ANSWER = "What is the capital of France?", "The capital of France is Paris."
# No request that is read takes longer than `request-time`, which the drill sets below this.
PATIENCE = 90


class Broken(Exception):
    """A request did not end as promised."""


class Refused(Exception):
    """It ended with a named error."""

    def __init__(self, status, name, message):
        super().__init__(f"{status} {name}: {message}")
        self.status, self.name = status, name


class Connection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=PATIENCE)
        self.path = path

    def connect(self):
        end = time.monotonic() + PATIENCE
        while True:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(PATIENCE)
            try:
                return self.sock.connect(self.path)
            except BlockingIOError:
                # So many wait to be accepted that the kernel takes no more.
                self.sock.close()
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)


def named(status, body):
    """The error that a body tells, which must have a name and a text."""
    try:
        error = json.loads(body)["error"]
        name, message = error.get("code") or error.get("type"), error["message"]
    except (ValueError, KeyError, TypeError, AttributeError):
        name = message = None
    if not name or not message:
        raise Broken(f"HTTP {status} without a named error: {body[:200]!r}")
    return Refused(status, name, message)


@contextlib.contextmanager
def reply(path, method, where, body=None, kind="application/json"):
    """The response to a request, at its head."""
    c = Connection(path)
    try:
        try:
            c.request(method, where, body, {"Content-Type": kind, "Connection": "close"})
        except (BrokenPipeError, ConnectionResetError):
            # Who is refused at the door is answered before all of the request was read.
            if c.sock is None:
                raise
        with c.getresponse() as r:
            yield r
    finally:
        c.close()


def whole(path, where, body):
    """The JSON that a request is answered with."""
    with reply(path, "POST", where, json.dumps(body)) as r:
        text = r.read()
    if r.status != 200:
        raise named(r.status, text)
    return json.loads(text)


def events(path, where, body, after=None):
    """The events of a stream, as (name, data); hangs up when `after` of them have come."""
    with reply(path, "POST", where, json.dumps({**body, "stream": True})) as r:
        if r.status != 200:
            raise named(r.status, r.read())
        name, count = None, 0
        # Broken off without the last chunk, this raises.
        for line in r:
            if line.startswith(b"event: "):
                name = line[7:].strip().decode()
            elif line.startswith(b"data: "):
                data = line[6:].strip()
                yield name, "[DONE]" if data == b"[DONE]" else json.loads(data)
                name, count = None, count + 1
                if after is not None and count >= after:
                    return


def once(ends, rest, what):
    """One event is the end, and nothing follows it."""
    if len(ends) != 1 or rest:
        raise Broken(f"{what}: {len(ends)} ends, {len(rest)} events after the first")


def raise_error(error, what):
    if not error.get("message") or not (error.get("code") or error.get("type")):
        raise Broken(f"{what}: an error without a name: {error}")
    raise Refused(200, error.get("code") or error.get("type"), error["message"])


def chat_body(text, **more):
    return {"model": "auto", "messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 60, **more}


def chat_whole(path, text, **more):
    return whole(path, "/v1/chat/completions", chat_body(text, **more))["choices"][0]["message"]["content"]


def chat_streamed(path, text, **more):
    said, all_events = "", [data for _, data in events(path, "/v1/chat/completions", chat_body(text, **more))]
    ends = [i for i, e in enumerate(all_events) if e != "[DONE]" and ("error" in e or (e["choices"] and e["choices"][0]["finish_reason"]))]
    rest = all_events[ends[0] + 1:] if ends else []
    failed = ends and "error" in all_events[ends[0]]
    once(ends, rest if failed else [e for e in rest if e != "[DONE]" and e.get("choices")], "chat")
    if failed:
        raise_error(all_events[ends[0]]["error"], "chat")
    if all_events.count("[DONE]") != 1 or all_events[-1] != "[DONE]":
        raise Broken("chat: an end without [DONE]")
    for e in all_events[:-1]:
        for choice in e["choices"]:
            said += choice["delta"].get("content") or ""
    return said


def output_text(response):
    if response["status"] == "failed":
        raise_error(response["error"], "responses")
    return "".join(part["text"] for item in response["output"] if item["type"] == "message" for part in item["content"])


def responses_body(text, **more):
    return {"model": "auto", "input": text, "temperature": 0, "max_output_tokens": 60, "store": False, **more}


def responses_whole(path, text, **more):
    return output_text(whole(path, "/v1/responses", responses_body(text, **more)))


def responses_streamed(path, text, **more):
    all_events = [data for _, data in events(path, "/v1/responses", responses_body(text, **more))]
    ends = [i for i, e in enumerate(all_events) if e["type"] in ("response.completed", "response.incomplete", "response.failed", "error")]
    once(ends, all_events[ends[0] + 1:] if ends else [], "responses")
    if all_events[-1]["type"] == "error":
        raise_error(all_events[-1]["error"], "responses")
    return output_text(all_events[-1]["response"])


def messages_body(text, **more):
    return {"model": "auto", "max_tokens": 60, "temperature": 0, "messages": [{"role": "user", "content": text}], **more}


def messages_whole(path, text, **more):
    return "".join(block.get("text", "") for block in whole(path, "/v1/messages", messages_body(text, **more))["content"])


def messages_streamed(path, text, **more):
    all_events = [data for _, data in events(path, "/v1/messages", messages_body(text, **more))]
    ends = [i for i, e in enumerate(all_events) if e["type"] in ("message_stop", "error")]
    once(ends, all_events[ends[0] + 1:] if ends else [], "messages")
    if all_events[-1]["type"] == "error":
        raise_error(all_events[-1]["error"], "messages")
    return "".join(e["delta"].get("text", "") for e in all_events if e["type"] == "content_block_delta")


def upload(path, content):
    """Leaves a file there; its id."""
    edge = "--------drill"
    body = (f'--{edge}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
            f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="note.txt"\r\n\r\n').encode() + content + f"\r\n--{edge}--\r\n".encode()
    with reply(path, "POST", "/v1/files", body, f"multipart/form-data; boundary={edge}") as r:
        text = r.read()
    if r.status != 200:
        raise named(r.status, text)
    return json.loads(text)["id"]


def fetched(path, method, where):
    with reply(path, method, where) as r:
        text = r.read()
    if r.status != 200:
        raise named(r.status, text)
    return text


def files(path, text):
    """A file that is kept is the file that was sent. Not a question to a model, so it answers itself."""
    content = os.urandom(2000).hex().encode()
    kept = upload(path, content)
    found = fetched(path, "GET", f"/v1/files/{kept}/content")
    fetched(path, "DELETE", f"/v1/files/{kept}")
    if found != content:
        raise Broken("files: another file came back")
    return ANSWER


DOORS = {"chat": chat_whole, "chat, streamed": chat_streamed, "responses": responses_whole, "responses, streamed": responses_streamed,
         "messages": messages_whole, "messages, streamed": messages_streamed, "files": files}


def over_bus(address):
    """A door to the bus, by a program of its own for each call."""
    def ask(_, text):
        command = ["busctl", f"--address={address}", f"--timeout={PATIENCE}", "call", "org.gemmad.Gemmad1", "/org/gemmad/Gemmad1",
                   "org.gemmad.Gemmad1.Manager", "Ask", "sa{sv}", text, "2", "timeout", "u", "60", "temperature", "d", "0"]
        ended = subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=PATIENCE)
        if ended.returncode == 0:
            return ended.stdout.strip()[3:-1]
        if not ended.stderr.strip():
            raise Broken("bus: an error without a text")
        raise Refused(0, "bus", ended.stderr.strip())
    return ask


def png(width, height, rng):
    """A picture of noise."""
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = b"".join(b"\0" + rng.randbytes(width * 3) for _ in range(height))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")


def shown(file):
    return [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + base64.b64encode(file).decode()}}, {"type": "text", "text": "What is this?"}]


class Attacks:
    """What an attacker does, each by its method's name. Those that read to the end check it as the honest one does."""

    def __init__(self, path, address, rng, stop):
        self.path, self.address, self.rng, self.stop = path, address, rng, stop

    def flood(self):
        DOORS[self.rng.choice(["chat", "responses", "messages"])](self.path, QUESTION)

    def flood_streamed(self):
        DOORS[self.rng.choice(["chat, streamed", "responses, streamed", "messages, streamed"])](self.path, "Tell me a story.")

    def several_answers(self):
        whole(self.path, "/v1/chat/completions", chat_body("Tell me a story.", n=4, temperature=1))

    def hangs_up(self):
        for _ in events(self.path, "/v1/chat/completions", chat_body(QUESTION, max_tokens=1500, ignore_eos=True), self.rng.randrange(1, 60)):
            pass

    def leaves_at_once(self):
        c = Connection(self.path)
        with contextlib.suppress(OSError):
            c.request("POST", "/v1/chat/completions", json.dumps(chat_body(QUESTION, max_tokens=1500, ignore_eos=True)))
            time.sleep(self.rng.random() / 4)
        c.close()

    def reads_slowly(self):
        """Is cut off without a word, or reads to the end: nothing is checked."""
        body = chat_body(QUESTION, max_tokens=1500, ignore_eos=True, stream=True, logprobs=True, top_logprobs=20)
        end = time.monotonic() + 8
        with contextlib.suppress(OSError, http.client.HTTPException), reply(self.path, "POST", "/v1/chat/completions", json.dumps(body)) as r:
            while time.monotonic() < end and not self.stop.is_set() and r.read(64):
                time.sleep(0.2)

    def half_a_request(self):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as s:
            s.connect(self.path)
            s.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n{\"messages\": [")
            self.stop.wait(3)

    def noise(self):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as s:
            s.settimeout(5)
            s.connect(self.path)
            s.sendall(self.rng.randbytes(self.rng.randrange(1, 20_000)))
            s.recv(100)

    def hoards(self):
        kept = []
        try:
            for _ in range(200):
                s = socket.socket(socket.AF_UNIX)
                kept.append(s)
                s.settimeout(1)
                s.connect(self.path)
        except OSError:
            pass
        self.stop.wait(2)
        for s in kept:
            s.close()

    def long_prompt(self):
        chat_whole(self.path, "a" * self.rng.randrange(1_000_000, 6_000_000))

    def nested(self):
        with reply(self.path, "POST", "/v1/responses", b'{"input": ' + b"[" * 500_000 + b"]" * 500_000 + b"}") as r:
            raise named(r.status, r.read())

    def slow_schema(self):
        schema = {"type": "object", "properties": {f"p{self.rng.random()}": {"type": "string", "pattern": "^(a|aa|aaa)*(b?){400}c$"} for _ in range(20)}}
        form = {"type": "json_schema", "json_schema": {"name": "slow", "schema": schema}}
        chat_whole(self.path, "Hi", response_format=form, max_tokens=8)

    def picture(self):
        chat_whole(self.path, shown(png(self.rng.randrange(32, 600), self.rng.randrange(32, 600), self.rng)), max_tokens=8)

    def broken_picture(self):
        file = bytearray(png(200, 200, self.rng))
        for _ in range(20):
            file[self.rng.randrange(8, len(file))] = self.rng.randrange(256)
        chat_whole(self.path, shown(bytes(file)), max_tokens=8)

    def document(self):
        data = base64.b64encode(b"%PDF-1.7\n" + self.rng.randbytes(5000)).decode()
        parts = [{"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64," + data}, {"type": "input_text", "text": "What is this?"}]
        responses_whole(self.path, [{"role": "user", "content": parts}], max_output_tokens=16)

    def stores(self):
        kept = whole(self.path, "/v1/responses", responses_body("a" * 3000, background=True, store=True))
        self.stop.wait(self.rng.random())
        fetched(self.path, "GET", f"/v1/responses/{kept['id']}")

    def keeps_files(self):
        upload(self.path, self.rng.randbytes(1_500_000))

    def spoiled_model(self):
        chat_whole(self.path, QUESTION, model="victim")

    def other_model(self):
        chat_whole(self.path, QUESTION, model="other")

    def bus(self):
        if self.address:
            over_bus(self.address)(self.path, QUESTION)

    def leaves_the_bus(self):
        if self.address:
            command = ["busctl", f"--address={self.address}", "call", "org.gemmad.Gemmad1", "/org/gemmad/Gemmad1", "org.gemmad.Gemmad1.Manager",
                       "Ask", "sa{sv}", QUESTION, "1", "timeout", "u", "60"]
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/") as caller:
                time.sleep(self.rng.random() / 3)
                caller.kill()

    ALL = [flood, flood, flood_streamed, flood_streamed, several_answers, hangs_up, hangs_up, leaves_at_once, reads_slowly, half_a_request, noise,
           hoards, long_prompt, nested, slow_schema, picture, broken_picture, document, stores, keeps_files, spoiled_model, other_model, bus, leaves_the_bus]


def record(out, door, act):
    """Does something and writes down how it ended."""
    start, line = time.monotonic(), {"door": door}
    try:
        said = act()
        line["end"] = "answered"
        if said is not None and said != ANSWER:
            line.update(end="wrong", broken=f"another answer: {said[:100]!r}")
    except Refused as error:
        line.update(end=f"{error.status} {error.name}", text=str(error)[:200])
    except Broken as error:
        line.update(end="broken", broken=str(error))
    except (TimeoutError, subprocess.TimeoutExpired):
        line.update(end="broken", broken=f"no end within {PATIENCE} s")
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        line.update(end="broken", broken=f"{type(error).__name__}: {error}")
    line.update(at=start, took=time.monotonic() - start)
    out.write(json.dumps(line) + "\n")
    return line


def become(uid):
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def honest(path, address, out, pause, stop, rounds=None):
    """Asks at every door in turn."""
    doors = dict(DOORS, **({"bus": over_bus(address)} if address else {}))
    done = 0
    while not stop.is_set() and (rounds is None or done < rounds):
        for door, ask in doors.items():
            record(out, door, lambda: ask(path, QUESTION))
            stop.wait(pause)
        done += 1


def attacker(path, address, out, seed, threads, stop):
    def run(number):
        rng = random.Random(f"{seed} {number}")
        attacks = Attacks(path, address, rng, stop)
        while not stop.is_set():
            attack = rng.choice(Attacks.ALL)

            def act():
                attack(attacks)

            record(out, attack.__name__, act)
            stop.wait(rng.random() / 5)

    workers = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
