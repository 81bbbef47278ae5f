"""The files of docs/clients, run as they are."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from conftest import SOCKET

EXAMPLES = pathlib.Path(__file__).parents[2] / "docs" / "clients"
PARIS = "The capital of France is Paris."
ANNA = "Anna 27"
LIGHT = "The light in the kitchen is now on."

# What each prints, among other things, in this order.
EXPECTED = {
    "openai_chat.py": [PARIS, PARIS, "set_light kitchen on", LIGHT],
    "openai_responses.py": [PARIS, ANNA, "Anna"],
    "anthropic_messages.py": [PARIS, PARIS],
    "langchain_chat.py": [PARIS, PARIS, "set_light kitchen on", ANNA],
    "ollama_chat.py": [PARIS, PARIS, "set_light kitchen on", LIGHT],
    "ollama_chat.mjs": [PARIS, PARIS, ANNA, ":latest"],
    "curl.sh": [PARIS, PARIS, "message_stop", '"openapi"'],
    "openai_chat.mjs": [PARIS, PARIS, "set_light kitchen on", LIGHT, ANNA, PARIS],
    "ai_sdk.mjs": [PARIS, "set_light kitchen on", LIGHT, ANNA],
    "media.mjs": ["red circle", "A high tone.", "the file is the same by its id", "red circle", "A high tone."],
}

DATA = pathlib.Path(__file__).parents[1] / "data"
# What an example is told beside the socket.
ARGUMENTS = {"media.mjs": [str(DATA / "pictures/red-circle.png"), str(DATA / "sounds/tone-3.wav"), str(DATA.parent / "clients/requirements.txt")]}


def command(example, folder):
    if example.suffix == ".py":
        return [sys.executable, str(example)]
    if example.suffix == ".sh":
        return ["sh", str(example)]
    modules = os.environ.get("GEMMAD_NODE_MODULES")
    if not modules:
        pytest.skip("GEMMAD_NODE_MODULES names no folder with the packages of tests/clients/package.json; `make test` makes one")
    # Node looks for packages beside the file that wants them.
    (folder / "node_modules").symlink_to(modules)
    return ["node", shutil.copy(example, folder)]


# An example that takes a model's id gets another one as well: only the id is to be changed.
RUNS = [(path.name, ARGUMENTS.get(path.name, [])) for path in sorted(EXAMPLES.iterdir()) if path.is_file()] + [("ai_sdk.mjs", ["google/gemma-4-26b-a4b-it"])]


@pytest.mark.parametrize("name, arguments", RUNS)
def test_an_example(name, arguments, tmp_path, http):
    [default] = [model["id"] for model in http.get("/v1/models").json()["data"] if model["default"]]
    run = subprocess.run([*command(EXAMPLES / name, tmp_path), SOCKET, *arguments], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stdout + run.stderr
    rest = run.stdout
    for line in EXPECTED[name]:
        assert line in rest, f"{line!r} is not in what is left: {run.stdout}"
        rest = rest.split(line, 1)[1]
    # For `auto` in what comes after this.
    assert http.post("/models/load", json={"model": default}).status_code == 200
