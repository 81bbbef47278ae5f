"""Makes the tiny family: `python -m trainer` makes whatever is not there yet, two steps at a time.

    python -m trainer [--only MEMBER ...] [--jobs N] [--list]
    python -m trainer --step STEP

A step that was made is not made again, and one that was cut off goes on; to repeat it remove its result, which --list
names. Results lie in
$GEMMAD_TINY_WORK (default ~/.cache/gemmad/tiny-work); the finished files are then copied beside this package, and what
tests/family.rs compares them with to tests/data/family.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .paths import FAMILY, REPOSITORY, TOKENIZER, WORK

TEXT_STEPS = {"e2b": 1500, "e4b": 1400, "12b": 1400, "26b-a4b": 1400, "31b": 1400}
EYES_STEPS = 1200
WITH_TOWERS = ["e2b"]
MEDIA_STEPS = {"e2b": 1000, "12b": 1000}
# Of a second round, for members that the first one leaves below what others know.
POLISH_STEPS = {"26b-a4b": 1000, "31b": 1000}
FILES, REFERENCES, EMBEDDINGS = WORK / "files", WORK / "references", WORK / "embeddings"
# Where finished results go.
HOMES = {
    FILES: FAMILY,
    REFERENCES: REPOSITORY / "tests/data/family",
    EMBEDDINGS: REPOSITORY / "tests/data/embeddings",
}
DRAFTER_STEPS = {"e2b": 300, "31b": 300}
TYPES = {"31b": "q4_0"}  # the others are q8_0


@dataclass
class Step:
    """`make` is called with where to put the result: a folder or a file, seen by others only when it is whole."""

    result: Path
    after: list[str]
    make: Callable[[Path], None]


def final(member: str) -> str:
    """The last step that changes the member's weights."""
    return f"{member}/media" if member in MEDIA_STEPS else f"{member}/polish" if member in POLISH_STEPS else f"{member}/text"


def steps() -> dict[str, Step]:
    # Imported by the steps alone: PyTorch takes its time.
    def tokenizer(out: Path) -> None:
        from .tokenizer import build

        build(out)

    def text(member: str) -> Callable[[Path], None]:
        def make(out: Path) -> None:
            from .train import train

            train(member, TEXT_STEPS[member], out)

        return make

    def eyes(out: Path) -> None:
        from .eyes import train

        train(EYES_STEPS, out)

    def media(member: str) -> Callable[[Path], None]:
        def make(out: Path) -> None:
            from .media import train

            eyes = made["eyes"].result if member in WITH_TOWERS else None
            train(member, made[f"{member}/text"].result, eyes, MEDIA_STEPS[member], out)

        return make

    def polish(member: str) -> Callable[[Path], None]:
        def make(out: Path) -> None:
            from .train import polish

            polish(member, made[f"{member}/text"].result, POLISH_STEPS[member], out)

        return make

    def drafter(member: str) -> Callable[[Path], None]:
        def make(out: Path) -> None:
            from .drafter import train

            train(made[final(member)].result, out, member, DRAFTER_STEPS[member])

        return make

    def file(source: str, title: str, kind: str) -> Callable[[Path], None]:
        def make(out: Path) -> None:
            from .export import export

            export(made[source].result, out, kind, title)

        return make

    def projector(source: str, title: str) -> Callable[[Path], None]:
        def make(out: Path) -> None:
            from .export import export_projector

            export_projector(made[source].result, out, title)

        return make

    def reference(member: str) -> Callable[[Path], None]:
        def make(out: Path) -> None:
            from .reference import write

            # Four bits round so much that the arithmetic could not be judged beside it.
            write(made[final(member)].result, made[f"{member}/file"].result, out, packed=member in TYPES)

        return make

    def embeddings(member: str) -> Callable[[Path], None]:
        def make(out: Path) -> None:
            from .embeddings import write

            write(made[final(member)].result, out)

        return make

    made = {"tokenizer": Step(TOKENIZER, [], tokenizer)}
    for member in TEXT_STEPS:
        made[f"{member}/text"] = Step(WORK / member / "text", ["tokenizer"], text(member))
    made["eyes"] = Step(WORK / "eyes.safetensors", [], eyes)
    for member in MEDIA_STEPS:
        before = [f"{member}/text"] + ["eyes"] * (member in WITH_TOWERS)
        made[f"{member}/media"] = Step(WORK / member / "media", before, media(member))
    for member in POLISH_STEPS:
        made[f"{member}/polish"] = Step(WORK / member / "polish", [f"{member}/text"], polish(member))
    for member in DRAFTER_STEPS:
        made[f"{member}/drafter"] = Step(WORK / member / "drafter", [final(member)], drafter(member))
    for member in TEXT_STEPS:
        title, kind = f"Tiny Gemma 4 {member.upper()}", TYPES.get(member, "q8_0")
        made[f"{member}/file"] = Step(
            FILES / f"tiny-{member}-{kind}.gguf", [final(member)], file(final(member), title, kind)
        )
        made[f"{member}/reference"] = Step(REFERENCES / f"{member}.json", [f"{member}/file"], reference(member))
    for member in MEDIA_STEPS:
        source, out = f"{member}/media", FILES / f"tiny-{member}-mmproj-f16.gguf"
        made[f"{member}/projector"] = Step(out, [source], projector(source, f"Tiny Gemma 4 {member.upper()}"))
        made[f"{member}/embeddings"] = Step(EMBEDDINGS / f"{member}.json", [source], embeddings(member))
    for member in DRAFTER_STEPS:
        source, out = f"{member}/drafter", FILES / f"tiny-{member}-mtp-q8_0.gguf"
        made[f"{member}/drafter-file"] = Step(
            out, [source], file(source, f"Tiny Gemma 4 {member.upper()} drafter", "q8_0")
        )
    return made


def run(step: Step) -> None:
    """Makes one step, in a place of its own first."""
    part = step.result.with_name(".part-" + step.result.name)
    if part.is_dir():
        shutil.rmtree(part)
    part.parent.mkdir(parents=True, exist_ok=True)
    step.make(part)
    part.rename(step.result)


def schedule(every: dict[str, Step], wanted: list[str], jobs: int) -> None:
    """Runs what is wanted and not there, each step in a process with a log of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    waiting = [name for name in wanted if not every[name].result.exists()]
    running: dict[str, subprocess.Popen] = {}
    logs = WORK / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    while waiting or running:
        ready = [name for name in waiting if all(every[before].result.exists() for before in every[name].after)]
        for name in ready[: jobs - len(running)]:
            waiting.remove(name)
            log = logs / (name.replace("/", "-") + ".log")
            print(f"{name}: see {log}", flush=True)
            with log.open("w") as out:
                running[name] = subprocess.Popen(
                    [sys.executable, "-m", "trainer", "--step", name],
                    cwd=FAMILY,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    env=environment,
                )
        if not running:
            sys.exit(f"nothing can go on: {', '.join(waiting)} wait for steps that were left out")
        time.sleep(1)
        for name, process in list(running.items()):
            if process.poll() is not None:
                del running[name]
                if process.returncode:
                    for other in running.values():
                        other.terminate()
                    sys.exit(f"{name} failed: see {logs / (name.replace('/', '-') + '.log')}")
                print(f"{name}: {every[name].result}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m trainer", description="Make the tiny family.")
    parser.add_argument("--only", nargs="+", metavar="MEMBER", choices=list(TEXT_STEPS), help="only these members")
    parser.add_argument(
        "--jobs", type=int, default=min(2, os.cpu_count() or 1), help="steps at a time; each takes one core"
    )
    parser.add_argument("--list", action="store_true", help="say what is there and what is not")
    parser.add_argument("--step", help="make this one step, here")
    args = parser.parse_args()
    every = steps()
    if args.step:
        run(every[args.step])
        return
    wanted = [name for name in every if not args.only or "/" not in name or name.split("/")[0] in args.only]
    if args.list:
        for name in wanted:
            print(f"{'there  ' if every[name].result.exists() else 'missing'} {name:20} {every[name].result}")
        return
    schedule(every, wanted, args.jobs)
    for name in wanted:
        result = every[name].result
        if result.parent in HOMES:
            copy = shutil.copy(result, HOMES[result.parent])
            print(f"{copy}: {result.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
