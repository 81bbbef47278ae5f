"""Asks a member what training never showed it, through gemmad's API, and counts what it answers exactly.

    python -m trainer.evaluate <model.gguf> [--projector FILE] [--gemmad PROGRAM] [--cases N] [--wrong N]
                               [--markdown OUT] [--json OUT]
    python -m trainer.evaluate --url http://HOST:PORT | unix:SOCKET ...

Needs nothing but Python; with `--projector`, for the pictures that it then asks about, Pillow and NumPy. With `--url`
a server that runs already is asked, for comparison.
"""

import argparse
import http.client
import json
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from . import corpus
from .corpus import Sample

SEED = 777
AT_A_TIME = 2
MAX_TOKENS = 400
# Seconds: for the server to start, for one answer.
START, ANSWER = 30, 300
FENCE = "```json\n"


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str):
        super().__init__("localhost", timeout=ANSWER)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def connection(url: str) -> http.client.HTTPConnection:
    if url.startswith("unix:"):
        return UnixConnection(url.removeprefix("unix:"))
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        sys.exit(f"{url}: not a URL of the form http://HOST:PORT or unix:SOCKET")
    return http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=ANSWER)


@contextmanager
def serving(gemmad: str, files: list[Path]) -> Iterator[str]:
    """A daemon of its own in a private directory, with this one model, and its projector. Gives its URL."""
    for file in files:
        if not file.is_file():
            sys.exit(f"{file}: no such file")
    with tempfile.TemporaryDirectory() as folder:
        models, path = Path(folder) / "models", Path(folder) / "api.sock"
        models.mkdir()
        for file in files:
            (models / file.name).symlink_to(file.resolve())
        config = Path(folder) / "gemmad.toml"
        config.write_text(f'[server]\nsocket = "{path}"\n[models]\ndirectories = ["{models}"]\n'
                          f'[inference]\ncontext = 2048\nslots = {AT_A_TIME}\n[log]\nlevel = "warn"\n')
        daemon = subprocess.Popen([gemmad, "--config", config])
        try:
            deadline = time.monotonic() + START
            while not path.exists():
                if daemon.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"{gemmad} did not start; its messages are above")
                time.sleep(0.05)
            yield f"unix:{path}"
        finally:
            daemon.terminate()
            daemon.wait()


def on_the_wire(messages: list[dict]) -> list[dict]:
    """Messages as clients send them: the arguments of calls are text."""
    sent = json.loads(json.dumps(messages))
    for message in sent:
        for call in message.get("tool_calls", []):
            call["function"]["arguments"] = json.dumps(call["function"]["arguments"])
    return sent


def ask(url: str, sample: Sample) -> dict:
    """The answer's message, with its `finish_reason`."""
    body = {"model": "auto", "messages": on_the_wire(sample.messages), "temperature": 0, "max_tokens": MAX_TOKENS,
            "chat_template_kwargs": {"enable_thinking": sample.think}}
    if sample.tools:
        body["tools"] = sample.tools
    server = connection(url)
    try:
        server.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        reply = server.getresponse()
        text = reply.read()
    finally:
        server.close()
    if reply.status != 200:
        sys.exit(f"HTTP {reply.status}: {text[:500].decode(errors='replace')}")
    choice = json.loads(text)["choices"][0]
    return {**choice["message"], "finish_reason": choice["finish_reason"]}


def parsed(text: str) -> object:
    """What an answer says: whether it is fenced, and its JSON; or the text itself."""
    inner = text.removeprefix(FENCE).removesuffix("\n```")
    try:
        value = json.loads(inner)
    except ValueError:
        return text
    return (inner != text, value) if isinstance(value, dict | list) else text


def is_right(sample: Sample, message: dict) -> bool:
    """The very text or JSON value, the very calls in their order, and a thought if and only if one was asked for."""
    if bool(message.get("reasoning_content")) != sample.think:
        return False
    content, made = message.get("content") or "", message.get("tool_calls") or []
    if isinstance(sample.answer, str):
        return not made and message["finish_reason"] == "stop" and parsed(content) == parsed(sample.answer)
    try:
        calls = [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in made]
    except ValueError:
        return False
    return not content and message["finish_reason"] == "tool_calls" and calls == list(map(tuple, sample.answer))


@dataclass
class Score:
    asked: int = 0
    right: int = 0

    def add(self, right: bool) -> None:
        self.asked += 1
        self.right += right

    @property
    def percent(self) -> float:
        return 100 * self.right / self.asked if self.asked else 0.0

    def cell(self) -> str:
        return f"{self.right} of {self.asked}" if self.asked else "–"


@dataclass
class Row:
    """One task, without and with thinking."""

    plain: Score
    thinking: Score

    @property
    def total(self) -> Score:
        return together([self.plain, self.thinking])


def draw(kind: str, cases: int, seed: int) -> list[Sample]:
    rng = random.Random(f"{seed} {kind}")
    if kind in corpus.KINDS:
        return [corpus.sample(rng, kind, held_out=True) for _ in range(cases)]
    from . import scenes
    drawn = [scenes.sample(rng, kind, True) for _ in range(cases)]
    for sample, picture in drawn:
        scenes.attach(sample, picture)
        sample.kind = f"{kind}: {picture.kind}"
    return [sample for sample, _ in drawn]


def evaluate(url: str, kinds: list[str], cases: int, seed: int) -> tuple[dict[str, Row], list[tuple[Sample, dict]]]:
    """The score of every task, and the cases that were answered wrong with what was answered."""
    samples = [sample for kind in kinds for sample in draw(kind, cases, seed)]
    rows = {sample.kind: Row(Score(), Score()) for sample in samples}
    wrong = []
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        for sample, message in zip(samples, pool.map(lambda sample: ask(url, sample), samples)):
            right = is_right(sample, message)
            row = rows[sample.kind]
            (row.thinking if sample.think else row.plain).add(right)
            if not right:
                wrong.append((sample, message))
    return rows, wrong


def together(scores: list[Score]) -> Score:
    return Score(sum(score.asked for score in scores), sum(score.right for score in scores))


def markdown(rows: dict[str, Row]) -> str:
    """A table for the README."""
    lines = ["| task | thinking off | thinking on | right |", "|---|---|---|---|"]
    all_rows = rows.values()
    everything = Row(together([row.plain for row in all_rows]), together([row.thinking for row in all_rows]))
    for kind, row in [*rows.items(), ("all", everything)]:
        lines.append(f"| {kind} | {row.plain.cell()} | {row.thinking.cell()} | {row.total.percent:.1f} % |")
    return "\n".join(lines) + "\n"


def question(sample: Sample) -> str:
    content = sample.messages[-1]["content"]
    return content if isinstance(content, str) else " ".join(part.get("text", "[picture]") for part in content)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m trainer.evaluate", description="Count what a member answers right.")
    parser.add_argument("model", type=Path, nargs="?", help="the model's file")
    parser.add_argument("--projector", type=Path, help="its projector: ask about pictures too")
    parser.add_argument("--url", help="ask this server instead: http://HOST:PORT or unix:SOCKET")
    parser.add_argument("--gemmad", default="gemmad", metavar="PROGRAM", help="the daemon to start for the model")
    parser.add_argument("--cases", type=int, default=50, metavar="N", help="questions of each task")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--markdown", type=Path, metavar="OUT", help="write the table there")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the numbers there")
    parser.add_argument("--wrong", type=int, default=0, metavar="N", help="show as many wrong answers")
    args = parser.parse_args()
    if (args.model is None) == (args.url is None):
        parser.error("give a model's file or a server's URL")
    kinds = corpus.KINDS + ["picture"] * bool(args.projector)
    if args.url:
        rows, wrong = evaluate(args.url, kinds, args.cases, args.seed)
    else:
        with serving(args.gemmad, [args.model] + [args.projector] * bool(args.projector)) as url:
            rows, wrong = evaluate(url, kinds, args.cases, args.seed)
    table = markdown(rows)
    print(table, end="")
    for sample, message in wrong[: args.wrong]:
        print(f"\n{sample.kind}{' (thinking)' if sample.think else ''}: {question(sample)}\n"
              f"  expected {sample.answer!r}\n  answered {message}")
    if args.markdown:
        args.markdown.write_text(table)
    if args.json:
        numbers = {kind: {"plain": vars(row.plain), "thinking": vars(row.thinking)} for kind, row in rows.items()}
        args.json.write_text(json.dumps({"seed": args.seed, "cases": args.cases, "tasks": numbers}, indent=1) + "\n")


if __name__ == "__main__":
    main()
