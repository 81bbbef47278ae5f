#!/usr/bin/env python3
"""Builds the programs and llama.cpp with AddressSanitizer, and has the tiny models answer, see, hear, read, call and
write JSON: asan.py DIRECTORY [--built]. Whatever reads or writes where it must not ends its process and is reported.

An instrumented worker has more memory than any limit allows and makes system calls that no table has, so it is built
with `--cfg asan`, which leaves its confinement out."""

import base64
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "tests" / "data"
MODELS = ROOT / "models" / "tiny"
# What lives as long as its process is no mistake.
OPTIONS = "detect_leaks=0:abort_on_error=0:exitcode=99:allocator_may_return_null=1"
START = 120


def build(directory: Path) -> Path:
    host = next(line.split()[1] for line in subprocess.check_output(["rustc", "-vV"], text=True).splitlines() if line.startswith("host"))
    flags = "-fsanitize=address -fno-omit-frame-pointer"
    under = host.replace("-", "_")
    environment = os.environ | {
        # A stable compiler has the sanitizers as well.
        "RUSTC_BOOTSTRAP": "1",
        # `--target` keeps them from what runs while it is built.
        "RUSTFLAGS": "-Zsanitizer=address --cfg asan -C target-cpu=native",
        f"CFLAGS_{under}": flags,
        f"CXXFLAGS_{under}": flags,
        "CARGO_TARGET_DIR": str(directory / "build"),
        "CARGO_PROFILE_RELEASE_PACKAGE_GEMMAD_OPT_LEVEL": "1",
    }
    environment.pop("CFLAGS", None)
    environment.pop("CXXFLAGS", None)
    subprocess.run(["cargo", "build", "--release", "--locked", "--bins", "--target", host], cwd=ROOT, env=environment, check=True)
    return directory / "build" / host / "release"


class Daemon:
    def __init__(self, programs: Path, folder: Path):
        self.folder = folder
        self.socket = folder / "api.sock"
        worker = folder / "worker"
        worker.write_text(f"#!/bin/sh\nASAN_OPTIONS={OPTIONS}:log_path={folder}/report exec {programs}/gemmad-worker \"$@\"\n")
        worker.chmod(0o755)
        config = folder / "gemmad.toml"
        config.write_text(
            f'[server]\nsocket = "{self.socket}"\ndbus = "none"\n[models]\ndirectories = ["{MODELS}"]\n'
            f'[inference]\nworker = "{worker}"\ncontext = 2048\n[memory]\ncache-directory = "{folder}/cache"\n'
        )
        self.log = (folder / "log").open("w")
        environment = os.environ | {"ASAN_OPTIONS": f"{OPTIONS}:log_path={folder}/report"}
        self.process = subprocess.Popen([programs / "gemmad", "--config", config], env=environment, stderr=self.log)
        end = time.monotonic() + START
        while not self.socket.exists():
            if self.process.poll() is not None or time.monotonic() > end:
                sys.exit(f"the daemon does not start:\n{(folder / 'log').read_text()}")
            time.sleep(0.1)

    def post(self, path: str, body: dict) -> tuple[int, dict]:
        connection = http.client.HTTPConnection("localhost", timeout=600)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(self.socket))
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read())


def data_url(kind: str, file: Path) -> str:
    return f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"


def requests():
    """What is asked, each with a name."""
    def chat(model, content, **more):
        return "/v1/chat/completions", {"model": model, "messages": [{"role": "user", "content": content}], "temperature": 0,
                                        "max_tokens": 48} | more
    question = "What is the capital of France?"
    picture = {"type": "image_url", "image_url": {"url": data_url("image/png", DATA / "pictures" / "red-circle.png")}}
    sound = {"type": "input_audio", "input_audio": {"format": "flac", "data": base64.b64encode((DATA / "sounds" / "tone-1.flac").read_bytes()).decode()}}
    page = {"type": "file", "file": {"filename": "page.html", "file_data": data_url("text/html", ROOT / "tests/fuzz/seeds/document/page.html")}}
    schema = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "string"}}}}}
    for model in sorted(path.stem for path in MODELS.glob("*.gguf") if "mmproj" not in path.stem and "mtp" not in path.stem):
        yield f"{model}: text", *chat(model, question)
        yield f"{model}: sampled", *chat(model, question, temperature=1.5, top_k=5, frequency_penalty=0.5, logprobs=True, top_logprobs=3, n=3)
        yield f"{model}: a long prompt", *chat(model, "Count. " * 300)
        yield f"{model}: a schema", *chat(model, question, response_format=schema)
        yield f"{model}: a call", *chat(model, question, tools=[tool], tool_choice="required")
        if (MODELS / f"{model.rsplit('-', 1)[0]}-mmproj-f16.gguf").exists():
            yield f"{model}: a picture", *chat(model, [picture, {"type": "text", "text": "What is it?"}])
            yield f"{model}: a sound", *chat(model, [sound, {"type": "text", "text": "What is it?"}])
        yield f"{model}: a page", *chat(model, [page, {"type": "text", "text": "What is it?"}])
    yield "tokens", "/tokenize", {"model": "tiny-e2b-q8_0", "content": "Größe <|turn> 😀"}


def main() -> None:
    directory = Path(sys.argv[1]).resolve()
    programs = next((directory / "build").glob("*/release/gemmad"), directory).parent if "--built" in sys.argv else build(directory)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        daemon = Daemon(programs, Path(folder))
        try:
            for name, path, body in requests():
                status, answer = daemon.post(path, body)
                failed += status != 200
                print(f"{status} {name}" + ("" if status == 200 else f": {json.dumps(answer)[:400]}"), flush=True)
        finally:
            daemon.process.terminate()
            daemon.process.wait(60)
        reports = sorted(Path(folder).glob("report*"))
        for report in reports:
            print(report.read_text())
        if failed or reports:
            print((Path(folder) / "log").read_text()[-4000:])
            sys.exit(f"{failed} requests failed, {len(reports)} reports")
    print("nothing was found")


if __name__ == "__main__":
    main()
