#!/usr/bin/env python3
"""A soak: conversations of three users that grow, fork, stop and go on, while their workers come and go.

    soak.py --gemmad PATH [--seconds 3600] [--seed N]

A real daemon with tiny models. Each user has several conversations at a time, over the three APIs, streamed and
whole; all users talk about the same documents. They hang up, start again from earlier turns, think, and ask two
models by turns; workers are killed, stopped by an unload, and lose their KV caches to an idle release. What has to
hold:

  * every request ends, with an answer or a named error, and nothing but a kill of its worker makes it fail;
  * each answer is, thoughts included, the greedy one of a quiet daemon that has read nothing before, up to a token that
    there is about as likely as another (llama.cpp rounds differently in steps of other sizes, and tiny models are often
    undecided);
  * nobody goes on from what another has read: the first time that a user sends a document, none of it is cached;
  * what was read once is not read again, unless the worker that had it was killed: of the prompts of second and later
    turns all but a step is cached, in all but one of fifty;
  * at the end nothing is left: no requests, no descriptors, and the supervisor's private memory is below --bound MiB.

Ends with status 1 and what was broken if not, with 2 where it cannot be done: only root can become several users.
Only the standard library.
"""
import argparse, collections, json, multiprocessing, os, queue, random, signal, statistics, subprocess, sys, tempfile, threading, time

import callers
from chaos import ALICE, BOB, CAROL, children, descriptors, private

HERE = os.path.dirname(os.path.abspath(__file__))
TINY = os.path.join(HERE, "..", "..", "models", "tiny")
MODELS = ["tiny-e2b-q8_0", "tiny-e4b-q8_0"]
# Tokens that all prompts begin with, whoever asks what: the first turn's markers.
COMMON = 24
# Nats between the two most likely tokens within which either may be taken.
TIE = 0.5
# Rivals of a token that are looked at.
RIVALS = 20
# Tokens of a prompt's last step: read again where an answer is written in other tokens than it was sampled in.
STEP = 256
# The share of later turns that may read more than that again, although nobody killed their worker.
REREAD = 0.02
CONFIG = """[server]
socket = "{dir}/api.sock"
socket-mode = "0666"
dbus = "none"
[models]
directories = ["{models}"]
default = "{default}"
idle-release = "3s"
[inference]
context = 4096
slots = 2
[memory]
cache-directory = "{dir}/cache"
prompt-cache-key = "{dir}/prompt-cache.key"
[limits]
connections = 600
[log]
level = "info"
"""


def document(number):
    lines = [f"Document {number * 7919 % 10007} begins here."] + [f"Line {i} of it says that box {i * number % 97} holds {i * 13 % 71} coins." for i in range(12 + number % 17)]
    return "\n".join(lines)


class Daemon:
    def __init__(self, gemmad, folder):
        config, self.socket = os.path.join(folder, "gemmad.toml"), os.path.join(folder, "api.sock")
        os.chmod(folder, 0o755)
        with open(config, "w") as f:
            f.write(CONFIG.format(dir=folder, models=os.path.abspath(TINY), default=MODELS[0]))
        self.log = open(os.path.join(folder, "log"), "w")
        self.process = subprocess.Popen([gemmad, "--config", config], stderr=self.log)
        while True:
            try:
                callers.fetched(self.socket, "GET", "/health")
                break
            except (OSError, callers.Refused):
                time.sleep(0.05)

    def status(self):
        return json.loads(callers.fetched(self.socket, "GET", "/status"))

    def close(self):
        self.process.terminate()
        self.process.wait(30)


def ask(socket, model, door, messages, streamed, thinks, cached=True, after=None):
    """One greedy turn: its thoughts and text, the prompt's tokens and those that were cached. `after`: hangs up after so many events."""
    body = {"model": model, "messages": messages, "temperature": 0, "max_tokens": 24, "cache_prompt": cached}
    if thinks:
        body["reasoning_effort"] = "low"
    if after is not None:
        for _ in callers.events(socket, "/v1/chat/completions", body, after):
            pass
        return None
    if door == "messages":
        body = {"model": model, "messages": messages, "temperature": 0, "max_tokens": 24}
        answer = callers.whole(socket, "/v1/messages", body)
        text = "".join(block.get("text", "") for block in answer["content"])
        usage = answer["usage"]
        had = usage.get("cache_read_input_tokens", 0)
        return "", text, usage["input_tokens"] + had, had
    if streamed:
        thoughts, text, usage = "", "", {}
        for _, event in callers.events(socket, "/v1/chat/completions", {**body, "stream_options": {"include_usage": True}}):
            if event == "[DONE]":
                break
            if "error" in event:
                callers.raise_error(event["error"], "chat")
            usage = event.get("usage") or usage
            for choice in event["choices"]:
                text += choice["delta"].get("content") or ""
                thoughts += choice["delta"].get("reasoning_content") or ""
    else:
        answer = callers.whole(socket, "/v1/chat/completions", body)
        message, usage = answer["choices"][0]["message"], answer["usage"]
        thoughts, text = message.get("reasoning_content") or "", message["content"] or ""
    return thoughts, text, usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]


def user(uid, socket, seed, seconds, results):
    """Talks until the time is over; a line for each turn."""
    os.setgroups([]), os.setresgid(uid, uid, uid), os.setresuid(uid, uid, uid)
    rng, end, sent, chats = random.Random(seed), time.monotonic() + seconds, set(), []
    while time.monotonic() < end:
        if len(chats) < 3 or rng.random() < 0.2:
            number, model = rng.randrange(40), rng.choice(MODELS)
            chats = chats[-3:] + [{"model": model, "messages": [], "document": number, "read": {}}]
        chat = rng.choice(chats)
        if rng.random() < 0.1 and len(chat["messages"]) > 2:
            chat["messages"], chat["read"] = chat["messages"][:-2], {}  # From an earlier turn on.
        is_first = not chat["messages"]
        question = document(chat["document"]) if is_first else rng.choice(["And the last line?", "How many coins?", "Say that again, please."])
        messages = chat["messages"] + [{"role": "user", "content": question}]
        door, thinks, streamed = rng.choice(["chat", "chat", "messages"]), rng.random() < 0.2, rng.random() < 0.5
        thinks = thinks and door == "chat"
        row = {"uid": uid, "model": chat["model"], "door": door, "messages": messages, "thinks": thinks, "first": is_first,
               "new": (chat["model"], chat["document"]) not in sent, "began": time.monotonic()}
        # Where the model is to think, a prompt says so at its very beginning: it is another one.
        row["read"], row["since"] = chat["read"].get(thinks, (0, 0))
        sent.add((chat["model"], chat["document"]))
        try:
            if rng.random() < 0.1:
                ask(socket, chat["model"], door, messages, True, thinks, after=rng.randrange(1, 12))
                continue
            thoughts, text, tokens, cached = ask(socket, chat["model"], door, messages, streamed, thinks)
            results.put({**row, "thoughts": thoughts, "text": text, "tokens": tokens, "cached": cached, "ended": time.monotonic()})
            chat["messages"], chat["read"][thinks] = messages + [{"role": "assistant", "content": text or "-"}], (tokens, row["began"])
            if len(chat["messages"]) > 14:
                chats.remove(chat)
        except callers.Refused as refused:
            results.put({**row, "refused": str(refused)})
        except Exception as broken:
            results.put({**row, "broken": f"{type(broken).__name__}: {broken}"})
        time.sleep(rng.random() * rng.choice([0, 0.2, 2]))


def disturb(daemon, rng, end, counts, kills):
    """Ends workers, in one way or the other; notes when it kills one."""
    while time.monotonic() < end:
        time.sleep(rng.uniform(1, 6))
        what = rng.choice(["kill", "unload", "pause"])
        counts[what] += 1
        if what == "kill":
            kills.append(time.monotonic())
            for pid in children(daemon.process.pid):
                os.kill(pid, signal.SIGKILL)
        elif what == "unload":
            callers.whole(daemon.socket, "/models/unload", {})
        else:
            time.sleep(5)  # Long enough for the idle release, if nobody asks.


def alone(socket, row):
    """The thoughts and the answer of a daemon that does nothing else, token by token, each with its likeliest rivals."""
    body = {"model": row["model"], "messages": row["messages"], "temperature": 0, "max_tokens": 24, "cache_prompt": False, "logprobs": True, "top_logprobs": RIVALS}
    if row["thinks"]:
        body["reasoning_effort"] = "low"
    choice = callers.whole(socket, "/v1/chat/completions", body)["choices"][0]
    tokens = lambda kind: choice["logprobs"].get(kind) or []
    message = choice["message"]
    return (message.get("reasoning_content") or "", tokens("reasoning_content")), (message["content"] or "", tokens("content"))


def replayed(socket, row):
    """Whether a daemon that does nothing else answers so when the conversation comes to it turn by turn, each from what it has cached:
    a cached prompt was computed in other steps than one that is read at once, and the tiny models may part by nats at what is strange to them."""
    turns = [i for i, message in enumerate(row["messages"]) if message["role"] == "user"]
    for i in turns:
        thoughts, text, _, _ = ask(socket, row["model"], "chat", row["messages"][: i + 1], False, row["thinks"])
    return bool(turns) and (thoughts, text) == (row["thoughts"], row["text"])


def compare(row, quiet):
    """`None` if both say the same; else how much likelier the quiet daemon's token is where they part, in nats, at least."""
    thoughts = compare_part(row["thoughts"], quiet[0])
    return compare_part(row["text"], quiet[1]) if thoughts is None else thoughts


def compare_part(text, quiet):
    whole, tokens = quiet
    if text == whole:
        return None
    # A token may begin as another one does (" " and " c"): so the rivals at all places until the texts part count.
    said, apart = "", []
    for token in tokens:
        rest, rivals = text[len(said):], [rival for rival in token["top_logprobs"] if rival["token"] != token["token"]]
        # The token that ends a part has no text of it.
        fits = [rival for rival in rivals if (rest.startswith(rival["token"]) if rest else rival["token"].startswith("<"))]
        apart += [token["logprob"] - rival["logprob"] for rival in fits if rival["token"]]
        if not rest.startswith(token["token"]):
            # One that is not among them is less likely than all of them.
            return min(apart, default=token["logprob"] - min(rival["logprob"] for rival in token["top_logprobs"]))
        said += token["token"]
    return 0  # It goes on where the other ends; of the token that ended it nothing is told.


def check(rows, kills, a):
    """What was broken, and what is to be said."""
    broken, texts = [], {}
    answered = [row for row in rows if "text" in row]
    for row in rows:
        if "broken" in row:
            broken.append(f"a request of {row['uid']} did not end as promised: {row['broken']}")
        if row.get("refused") and "worker" not in row["refused"] and "unload" not in row["refused"]:
            broken.append(f"a request of {row['uid']} was refused: {row['refused']}")
    for row in answered:
        if row["first"] and row["new"] and row["cached"] > COMMON:
            broken.append(f"{row['cached']} tokens were cached of a document that {row['uid']} had never sent")
    # What a worker had not handed over yet is gone when it is killed.
    killed = lambda row: any(row["since"] <= at <= row["ended"] for at in kills)
    later = [row for row in answered if row["read"]]
    again = [row for row in later if not killed(row)]
    whole = [row for row in again if row["read"] - row["cached"] > STEP]
    print(f"{len(rows)} requests, {len(answered)} answered; of {len(later)} later turns {len(later) - len(again)} had their worker killed; of the other {len(again)} {len(whole)} read more than a step of their prompt again")
    for row in whole:
        print(f"  {row['read']} tokens were read {row['began'] - row['since']:.1f} s before, and {row['cached']} were cached ({row['model']}, {row['door']}, thinks: {row['thinks']})")
    if len(whole) > max(1, len(again) * REREAD):
        broken.append(f"{len(whole)} of {len(again)} later turns read what had been read")
    with tempfile.TemporaryDirectory(prefix="gemmad-soak-") as folder:
        quiet, found, gaps = Daemon(a.gemmad, folder), collections.Counter(), []
        for row in answered:
            key = json.dumps([row["model"], row["messages"], row["thinks"], row["door"]])
            if key not in texts:
                texts[key] = alone(quiet.socket, row)
            apart = compare(row, texts[key])
            kind = "same" if apart is None else "tie" if apart < TIE else "other"
            if kind == "other" and row["cached"] > 0 and replayed(quiet.socket, row):
                kind = "tie"
            gaps += [apart] if apart else []
            found[kind, row["cached"] > 0] += 1
            if kind == "other":
                broken.append(f"{apart:.2f} nats apart: {row['uid']} was answered {row['text']!r}, alone it is {texts[key][1][0]!r} ({row['model']}, {row['door']}, {row['cached']} of {row['tokens']} cached, thinks: {row['thinks']})")
        quiet.close()
    gaps.sort()
    print(f"where answers part, their tokens are apart by {', '.join(f'{gap:.2f}' for gap in gaps)} nats")
    for cached in (True, False):
        print(f"answers with{'' if cached else 'out'} a cached part: {found['same', cached]} as those of a quiet daemon, {found['tie', cached]} that part at a tie, {found['other', cached]} others")
    return broken


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--gemmad", required=True)
    p.add_argument("--seconds", type=float, default=3600)
    p.add_argument("--seed", type=int, default=None)
    p.add_argument("--bound", type=float, default=16, help="MiB of private memory that the supervisor may have at the end")
    a = p.parse_args()
    if os.geteuid() != 0:
        print("only root can become several users", file=sys.stderr)
        sys.exit(2)
    seed = a.seed if a.seed is not None else random.randrange(1 << 30)
    print(f"seed {seed}")
    with tempfile.TemporaryDirectory(prefix="gemmad-soak-") as folder:
        daemon, results, rows, counts, kills = Daemon(a.gemmad, folder), multiprocessing.Queue(), [], collections.Counter(), []
        callers.whole(daemon.socket, "/models/load", {"model": MODELS[0]})
        callers.whole(daemon.socket, "/models/unload", {})
        before = descriptors(daemon.process.pid)
        users = [multiprocessing.Process(target=user, args=(uid, daemon.socket, seed + i, a.seconds, results)) for i, uid in enumerate([ALICE, BOB, CAROL])]
        for process in users:
            process.start()
        end = time.monotonic() + a.seconds
        disturber = threading.Thread(target=disturb, args=(daemon, random.Random(seed), end, counts, kills))
        disturber.start()
        while any(process.is_alive() for process in users) or not results.empty():
            try:
                rows.append(results.get(timeout=0.2))
            except queue.Empty:
                pass
        disturber.join()
        broken = []
        cache = json.loads(callers.fetched(daemon.socket, "GET", "/cache"))["prompts"]
        print(f"{dict(counts)}; kept: {len(cache['entries'])} prompts, {cache['bytes'] >> 10} KiB")
        callers.whole(daemon.socket, "/models/unload", {})
        callers.whole(daemon.socket, "/cache/prompts/clear?all=true", {})
        time.sleep(2)
        status, left, memory = daemon.status(), descriptors(daemon.process.pid), private(daemon.process.pid)
        print(f"at the end: {status['running']} running, {status['waiting']} waiting; {left} descriptors ({before} before); {memory:.1f} MiB of private memory")
        if status["running"] or status["waiting"]:
            broken.append("requests are left")
        if left > before + 2:
            broken.append(f"{left} descriptors are left, {before} were there")
        if memory > a.bound:
            broken.append(f"{memory:.1f} MiB of private memory are left")
        daemon.close()
    broken += check(rows, kills, a)
    for line in broken[:20]:
        print(f"BROKEN: {line}")
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
