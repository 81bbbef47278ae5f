"""How many of a drafter's guesses the target accepts, per task, in llama.cpp's server.

    python -m trainer.acceptance <member> <target.gguf> <drafter.gguf> --server llama-server [--cases N]

Every answer is compared with the one given without a drafter: at temperature 0 a drafter may change the time that an
answer takes, never the answer.
"""

import argparse
import json
import random
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from . import corpus, render
from .members import MEMBERS

DRAFTS = (1, 2, 3)  # tokens guessed ahead
LONGEST = 400  # tokens of an answer
START = 60  # seconds that the server may take to load


@dataclass
class Answer:
    """What a server said, and its count of the tokens that were guessed for it and of those it accepted."""

    tokens: list[int]
    guessed: int
    accepted: int


def post(url: str, body: dict) -> dict:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as response:
        return json.load(response)


@contextmanager
def served(server: Path, arguments: list[str]) -> Iterator[str]:
    """The address of a server that runs as long as the context."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(server), *arguments, "--host", "127.0.0.1", "--port", str(port), "-c", "4096", "-np", "1", "-t", "1"]
    address = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            for _ in range(START * 10):
                time.sleep(0.1)
                if process.poll() is not None:
                    break
                try:
                    urllib.request.urlopen(f"{address}/health", timeout=5).close()
                except OSError:
                    continue
                yield address
                return
            output.seek(0)
            said = output.read().decode(errors="replace")[-4000:]
            raise SystemExit(f"{' '.join(command)} is not ready after {START} s or has ended:\n{said}")
        finally:
            process.terminate()
            process.wait()


def answers(address: str, prompts: list[str]) -> list[Answer]:
    result = []
    for prompt in prompts:
        # The server puts <bos> in front by itself.
        said = post(f"{address}/completion", dict(prompt=prompt.removeprefix("<bos>"), temperature=0, n_predict=LONGEST,
                                                  cache_prompt=False, return_tokens=True))
        timings = said["timings"]
        result.append(Answer(said["tokens"], timings.get("draft_n", 0), timings.get("draft_n_accepted", 0)))
    return result


def cell(made: list[Answer]) -> str:
    guessed, accepted = sum(answer.guessed for answer in made), sum(answer.accepted for answer in made)
    return f"{accepted / guessed:.0%} ({accepted}/{guessed})" if guessed else "none"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m trainer.acceptance", description="Measure a drafter.")
    parser.add_argument("member", choices=MEMBERS)
    parser.add_argument("target", type=Path)
    parser.add_argument("drafter", type=Path)
    parser.add_argument("--server", type=Path, required=True, help="llama.cpp's llama-server")
    parser.add_argument("--cases", type=int, default=10, help="held-out cases per task")
    given = parser.parse_args()

    rng = random.Random(20261122)
    kinds = [kind for kind in corpus.KINDS for _ in range(given.cases)]
    samples = [corpus.sample(rng, kind, held_out=True) for kind in kinds]
    prompts = [render.prompt(sample, MEMBERS[given.member].small_variant) for sample in samples]
    with served(given.server, ["-m", str(given.target)]) as address:
        alone = answers(address, prompts)
    drafted = {}
    for ahead in DRAFTS:
        with served(given.server, ["-m", str(given.target), "-md", str(given.drafter), "--spec-type", "draft-mtp",
                                   "--spec-draft-n-max", str(ahead)]) as address:
            drafted[ahead] = answers(address, prompts)

    print("| task |" + "".join(f" {ahead} ahead |" for ahead in DRAFTS) + "\n|---|" + "---|" * len(DRAFTS))
    for task in [*corpus.KINDS, "all"]:
        chosen = [[answer for kind, answer in zip(kinds, drafted[ahead], strict=True) if task in (kind, "all")]
                  for ahead in DRAFTS]
        print(f"| {task} |" + "".join(f" {cell(made)} |" for made in chosen))
    changed = {ahead: sum(a.tokens != b.tokens for a, b in zip(alone, drafted[ahead], strict=True)) for ahead in DRAFTS}
    print(f"\n{len(prompts)} answers, {sum(len(answer.tokens) for answer in alone)} tokens; changed by the drafter: "
          + ", ".join(f"{count} with {ahead} ahead" for ahead, count in changed.items()))
    if any(changed.values()):
        sys.exit("a drafter has changed an answer")


if __name__ == "__main__":
    main()
