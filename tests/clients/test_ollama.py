"""Ollama's API, as the `ollama` packages for Python and Node, LangChain, Home Assistant and Open WebUI speak it."""

import asyncio
import base64
import json
import os
import subprocess
import types
import typing
from pathlib import Path

import httpx
import ollama
import pydantic
import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_ollama import ChatOllama

from conftest import SOCKET
from test_openai import CAPITAL, COUNT, KITCHEN, PARIS, STORY, TOOLS, user

DATA = Path(__file__).parents[1] / "data"
TINY = "tiny-e2b-q8_0"
CIRCLE = DATA / "pictures/red-circle.png"
ON = {"room": "kitchen", "state": "on"}
LIGHT = "The light in the kitchen is now on."
SURE = {"temperature": 0, "num_predict": 200}
SUM = "What is 27 + 58?"


@pytest.fixture(scope="module")
def client():
    return ollama.Client(host="http://localhost", transport=httpx.HTTPTransport(uds=SOCKET), timeout=60)


@pytest.fixture(scope="module")
def default(http):
    [model] = [model["id"] for model in http.get("/v1/models").json()["data"] if model["default"]]
    return model


def chat(client, messages, **more):
    messages = user(messages) if isinstance(messages, str) else messages
    return client.chat(**{"model": "auto", "messages": messages, "options": SURE} | more)


# Answers


def test_an_answer(client, default):
    answer = chat(client, CAPITAL)
    assert (answer.message.role, answer.message.content, answer.message.tool_calls) == ("assistant", PARIS, None)
    assert (answer.model, answer.done, answer.done_reason) == (f"{default}:latest", True, "stop")
    assert answer.prompt_eval_count > 5 and answer.eval_count > 5
    parts = answer.load_duration + answer.prompt_eval_duration + answer.eval_duration
    assert 0 < answer.eval_duration <= parts <= answer.total_duration < 60e9
    assert chat(client, COUNT, options=SURE | {"num_predict": 3}).done_reason == "length"
    assert chat(client, COUNT, options=SURE | {"stop": ["4"]}).message.content.strip() == "1, 2, 3,"


def test_a_streamed_answer(client):
    chunks = list(chat(client, CAPITAL, stream=True))
    assert "".join(chunk.message.content for chunk in chunks) == PARIS and len(chunks) > 3
    assert [chunk.done for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert (chunks[-1].message.content, chunks[-1].done_reason) == ("", "stop") and chunks[-1].eval_count > 5


def test_lines_are_the_default(http):
    response = http.post("/api/chat", json={"messages": user(CAPITAL), "options": SURE})
    assert response.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in response.text.splitlines()]
    assert "".join(line["message"]["content"] for line in lines) == PARIS


def test_a_prompt(client):
    answer = client.generate("auto", CAPITAL, options=SURE)
    assert (answer.response, answer.done_reason, answer.context) == (PARIS, "stop", None)
    chunks = list(client.generate("auto", CAPITAL, options=SURE, stream=True))
    assert "".join(chunk.response for chunk in chunks) == PARIS
    named = client.generate("auto", "What is my name?", system="The user is called Anna.", options=SURE)
    assert named.response == chat(client, [{"role": "system", "content": "The user is called Anna."}, *user("What is my name?")]).message.content


def test_a_raw_prompt(client, http):
    turns = http.post("/apply-template", json={"messages": user(CAPITAL)}).json()["prompt"]
    answer = client.generate("auto", turns.removeprefix("<bos>"), raw=True, options=SURE)
    assert answer.response == PARIS
    for more in [{"system": "be brief"}, {"images": [CIRCLE]}]:
        with pytest.raises(ollama.ResponseError, match="no place in a prompt that is `raw`"):
            client.generate("auto", "x", raw=True, **more)


@pytest.mark.parametrize("think", [True, "low", "medium", "high"])
def test_thoughts(client, think):
    answer = chat(client, SUM, think=think)
    assert answer.message.content == "27 + 58 = 85." and answer.message.thinking
    text = client.generate("auto", SUM, think=think, options=SURE)
    assert (text.response, text.thinking) == (answer.message.content, answer.message.thinking)
    chunks = list(chat(client, SUM, think=think, stream=True))
    assert "".join(chunk.message.thinking or "" for chunk in chunks) == answer.message.thinking


def test_without_thoughts(client):
    for think in [False, None]:
        assert chat(client, SUM, think=think).message.thinking is None


class Person(pydantic.BaseModel):
    name: str
    age: int


ANNA = "Extract the data as JSON with name and age: Anna is 27 years old and lives in Rome."


def test_forms(client):
    schema = Person.model_json_schema()
    assert Person.model_validate_json(chat(client, ANNA, format=schema).message.content) == Person(name="Anna", age=27)
    assert Person.model_validate_json(client.generate("auto", ANNA, format=schema, options=SURE).response).age == 27
    assert isinstance(json.loads(chat(client, ANNA, format="json").message.content), dict)


def test_log_probabilities(client):
    answer = chat(client, CAPITAL, logprobs=True, top_logprobs=2)
    assert "".join(token.token for token in answer.logprobs).startswith(PARIS)
    assert all(token.logprob <= 0 and len(token.top_logprobs) == 2 for token in answer.logprobs)
    chunks = list(chat(client, CAPITAL, logprobs=True, stream=True))
    assert sum(len(chunk.logprobs or []) for chunk in chunks) == len(answer.logprobs)
    assert client.generate("auto", CAPITAL, logprobs=True, options=SURE).logprobs[0].token == answer.logprobs[0].token


# Functions


def set_light(room: str, state: str) -> str:
    """Turn a light on or off

    Args:
      room: Name of the room
      state: on or off
    """
    return f"{room} {state}"


@pytest.mark.parametrize("tools", [TOOLS, [set_light]])
@pytest.mark.parametrize("stream", [False, True])
def test_functions(client, tools, stream):
    messages = user(KITCHEN)
    answer = chat(client, messages, tools=tools, stream=stream)
    answers = list(answer) if stream else [answer]
    [call] = [call for one in answers for call in one.message.tool_calls or []]
    assert (call.function.name, call.function.arguments) == ("set_light", ON)
    assert answers[-1].done_reason == "stop"
    [spoken] = [one.message for one in answers if one.message.tool_calls]
    messages += [spoken, {"role": "tool", "tool_name": "set_light", "content": '{"ok": true}'}]
    assert chat(client, messages, tools=tools).message.content == LIGHT


# Pictures and sounds


def test_pictures_and_sounds(client):
    for image in [CIRCLE, str(CIRCLE), CIRCLE.read_bytes(), base64.b64encode(CIRCLE.read_bytes()).decode()]:
        said = [{"role": "user", "content": "What is in the picture?", "images": [image]}]
        answer = chat(client, said, model=TINY).message.content
        assert "red" in answer and "circle" in answer
    assert client.generate(TINY, "What is in the picture?", images=[CIRCLE], options=SURE).response == answer
    sound = (DATA / "sounds/tone-3.wav").read_bytes()
    assert chat(client, [{"role": "user", "content": "What do you hear?", "images": [sound]}], model=TINY).message.content == "A high tone."
    with pytest.raises(ollama.ResponseError, match=r"`messages\[1\].images\[0\]`") as error:
        chat(client, [*user("Hi"), {"role": "user", "content": "What?", "images": [base64.b64encode(b"no picture").decode()]}], model=TINY)
    assert error.value.status_code == 400


# Models


def test_models(client, http, default):
    listed = client.list().models
    models = {model["id"]: model for model in http.get("/v1/models").json()["data"]}
    assert {model.model for model in listed} == {f"{id}:latest" for id in models}
    for model in listed:
        known = models[model.model.removesuffix(":latest")]
        assert model.size >= known["size"] and len(model.digest) == 64
        assert (model.details.family, model.details.format, model.details.quantization_level) == ("gemma4", "gguf", known["quantization"])
        assert int(model.modified_at.timestamp()) == known["created"]
    assert len({model.digest for model in listed}) == len(listed)
    # What is listed can be asked, and shown.
    assert chat(client, CAPITAL, model=f"{default}:latest").message.content == PARIS
    for name in [default, f"{default}:latest", f"{default}.gguf", "gemma4", "gemma4:latest"]:
        shown = client.show(name)
        assert "completion" in shown.capabilities and shown.modelinfo["general.architecture"] == "gemma4"
        assert shown.modelinfo["gemma4.context_length"] > 1000
    seeing = client.show(TINY)
    assert {"completion", "tools", "thinking", "vision", "audio"} == set(seeing.capabilities)
    assert seeing.modelfile.startswith("FROM /") and "temperature 1" in seeing.parameters


def test_names_with_tags(client):
    answer = chat(client, CAPITAL, model="gemma4:e2b")
    assert answer.model.startswith("tiny-e2b")
    assert chat(client, CAPITAL, model="gemma4:e2b-it-q8_0").model == f"{TINY}:latest"


def test_what_is_in_memory(client, http, default):
    loaded = client.generate(default)
    assert (loaded.done_reason, loaded.response, loaded.model) == ("load", "", f"{default}:latest")
    [running] = client.ps().models
    assert (running.model, running.name, running.size_vram) == (loaded.model, loaded.model, 0)
    assert running.size > 0 and running.context_length == http.get("/status").json()["context"]
    assert running.digest == next(model.digest for model in client.list().models if model.model == running.model)
    assert client.chat(default, keep_alive="10m").done_reason == "load"
    # Another model stays where it is.
    assert client.generate("gemma4:e4b", keep_alive=0).done_reason == "unload"
    assert len(client.ps().models) == 1
    assert client.generate(default, keep_alive=0).done_reason == "unload"
    assert client.ps().models == []
    assert client.chat(default, messages=[], keep_alive=0).done_reason == "unload"
    assert list(client.generate(default, stream=True))[-1].done_reason == "load"


def test_the_server_is_known(http):
    for method in ["GET", "HEAD"]:
        response = http.request(method, "/")
        assert response.status_code == 200 and response.text == ("Ollama is running" if method == "GET" else "")
        assert http.request(method, "/api/tags").status_code == http.request(method, "/api/version").status_code == 200
    assert [int(part) for part in http.get("/api/version").json()["version"].split(".")] >= [0, 6, 4]


# What cannot be had


@pytest.mark.parametrize("ask, status, words", [
    (lambda c: c.embed("auto", "a"), 404, "embeddings: not served here"),
    (lambda c: c.embeddings("auto", "a"), 404, "embeddings: not served here"),
    (lambda c: c.create("mine", from_="auto", system="be brief"), 404, "send `system`, `options` and `messages` with each request"),
    (lambda c: c.copy("auto", "mine"), 404, "gemmactl import --link"),
    (lambda c: c.push("auto"), 404, "publishing models: not served here"),
    (lambda c: c.create_blob(CIRCLE), 404, "gemmactl import"),
    (lambda c: c.generate("auto", "def f(", suffix="return"), 400, '`suffix` can only be ""'),
    (lambda c: c.generate("auto", "a", context=[1, 2]), 400, "send the conversation to `/api/chat`"),
    (lambda c: c.generate("auto", "a", template="{{ .Prompt }}"), 400, '`template` can only be ""'),
    (lambda c: chat(c, "a", options={"mirostat": 2}), 400, "`options.mirostat` can only be 0"),
    (lambda c: chat(c, "a", options={"temperature": 9}), 400, "`options.temperature` must be between 0 and 2"),
    (lambda c: chat(c, "a", model="llama3.2"), 404, "there is no model `llama3.2`"),
    (lambda c: list(chat(c, "a", model="llama3.2", stream=True)), 404, "there is no model `llama3.2`"),
    (lambda c: c.show("llama3.2"), 404, "there is no model `llama3.2`"),
    (lambda c: c.delete("llama3.2"), 404, "there is no model `llama3.2`"),
    (lambda c: c.pull("llama3.2"), 404, "llama3.2"),
    (lambda c: chat(c, "word " * 60_000), 400, "prompt is too long"),
])
def test_what_cannot_be_had(client, ask, status, words):
    with pytest.raises(ollama.ResponseError) as error:
        ask(client)
    assert words in error.value.error and error.value.status_code == status


def test_what_was_left_out_is_said(http):
    body = {"messages": user(CAPITAL), "options": SURE | {"num_ctx": 4096, "num_gpu": 1}, "keep_alive": -1, "stream": False}
    assert http.post("/api/chat", json=body).headers["x-gemmad-ignored"] == "options.num_ctx, options.num_gpu, keep_alive"
    assert http.get("/api/chat").json() == {"error": "/api/chat does not take GET"}


# Home Assistant: history without ids and names, `format` and functions in the dialect of OpenAPI.


def test_home_assistant():
    async def turns():
        client = ollama.AsyncClient(host="http://localhost", transport=httpx.AsyncHTTPTransport(uds=SOCKET), timeout=60)
        models = {model["model"] for model in (await client.list())["models"]}
        functions = [{"type": "function", "function": tool["function"]} for tool in TOOLS]
        messages = [
            ollama.Message(role="system", content="You operate a home."),
            ollama.Message(role="user", content=KITCHEN),
        ]
        said = []
        for _ in range(2):
            content, thinking, calls = "", "", []
            async for chunk in await client.chat(
                model=f"{TINY}:latest", messages=list(messages), tools=functions, stream=True, keep_alive=-1,
                options={"num_ctx": 8192, "temperature": 0}, think=False, format=None,
            ):
                message = chunk["message"]
                content += message.get("content") or ""
                thinking += message.get("thinking") or ""
                calls += [(call["function"]["name"], call["function"]["arguments"]) for call in message.get("tool_calls") or []]
            said.append((content, calls))
            functions_called = [ollama.Message.ToolCall(function=ollama.Message.ToolCall.Function(name=name, arguments=values)) for name, values in calls]
            messages.append(ollama.Message(role="assistant", content=content, thinking=None, tool_calls=functions_called or None))
            # Its own results have an `error` as well, of which the tiny model thinks the worst.
            messages += [ollama.Message(role="tool", content='{"ok": true}') for _ in calls]
        assert f"{TINY}:latest" in models and not thinking
        return said

    assert asyncio.run(turns()) == [("", [("set_light", ON)]), (LIGHT, [])]


# Open WebUI: some of its fields stand beside `options`.


def test_open_webui(http, default):
    [model] = [model for model in http.get("/api/tags").json()["models"] if model["model"] == f"{default}:latest"]
    body = {
        "model": model["model"], "stream": True, "num_predict": 200, "metadata": {"chat_id": "1", "features": {}},
        "messages": [
            {"role": "system", "content": "You operate a home."}, {"role": "user", "content": KITCHEN},
            {"role": "assistant", "content": "", "tool_calls": [{"index": 0, "id": "call_1", "function": {"name": "set_light", "arguments": ON}}]},
            {"role": "tool", "content": '{"ok": true}', "tool_call_id": "call_1"},
        ],
        "tools": TOOLS, "options": {"temperature": 0, "num_ctx": 8192, "repeat_last_n": 64, "use_mmap": True}, "keep_alive": "5m", "think": False,
    }
    lines = [json.loads(line) for line in http.post("/api/chat", json=body).text.splitlines()]
    assert "".join(line["message"]["content"] for line in lines) == LIGHT
    assert {model["name"] for model in http.get("/api/ps").json()["models"]} == {f"{default}:latest"}


# LangChain


def test_langchain():
    transport = {"transport": httpx.HTTPTransport(uds=SOCKET)}
    model = ChatOllama(
        model="auto", base_url="http://localhost", temperature=0, num_predict=200, num_ctx=4096, keep_alive="5m",
        sync_client_kwargs=transport, async_client_kwargs={"transport": httpx.AsyncHTTPTransport(uds=SOCKET)},
    )
    answer = model.invoke(CAPITAL)
    assert answer.content == PARIS and answer.usage_metadata["output_tokens"] > 5
    assert answer.response_metadata["done_reason"] == "stop"
    assert "".join(chunk.content for chunk in model.stream(CAPITAL)) == PARIS
    thought = model.invoke(SUM, reasoning=True)
    assert thought.content == "27 + 58 = 85." and thought.additional_kwargs["reasoning_content"]
    assert model.with_structured_output(Person, method="json_schema").invoke(ANNA) == Person(name="Anna", age=27)
    offering = model.bind_tools([set_light])
    asked = [HumanMessage(KITCHEN)]
    called = offering.invoke(asked)
    [call] = called.tool_calls
    assert (call["name"], call["args"]) == ("set_light", ON)
    assert offering.invoke([*asked, called, ToolMessage('{"ok": true}', tool_call_id=call["id"])]).content == LIGHT
    picture = {"type": "image_url", "image_url": f"data:image/png;base64,{base64.b64encode(CIRCLE.read_bytes()).decode()}"}
    seen = model.invoke([HumanMessage([{"type": "text", "text": "What is in the picture?"}, picture])])
    assert "red" in seen.content
    assert asyncio.run(model.ainvoke(CAPITAL)).content == PARIS


# Answers are what the packages' types say: no member is missing or of another type, and what the types do not know is named here.

EXTENSIONS = {"id", "index", "capabilities", "name", "bytes", "system", "messages", "parameters"}
BODIES = [
    ("/api/chat", {"messages": user(CAPITAL)}, ollama.ChatResponse),
    ("/api/chat", {"messages": user(SUM), "think": True, "logprobs": True, "top_logprobs": 1}, ollama.ChatResponse),
    ("/api/chat", {"messages": user(KITCHEN), "tools": TOOLS}, ollama.ChatResponse),
    ("/api/chat", {"messages": user(STORY), "options": {"num_predict": 4}}, ollama.ChatResponse),
    ("/api/chat", {}, ollama.ChatResponse),
    ("/api/generate", {"prompt": SUM, "think": "low"}, ollama.GenerateResponse),
    ("/api/generate", {}, ollama.GenerateResponse),
]


def known(kind, value):
    """Refuses what the type does not know."""
    for name, field in value.items():
        of = {f.alias or n: f.annotation for n, f in kind.model_fields.items()}
        assert name in of or name in EXTENSIONS, f"{kind.__name__} has no {name}"
        for inner in kinds(of.get(name)):
            for one in field if isinstance(field, list) else [field]:
                if isinstance(one, dict):
                    known(inner, one)


def kinds(annotation):
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation] if issubclass(annotation, pydantic.BaseModel) else []
    return [kind for argument in typing.get_args(annotation) for kind in kinds(argument)]


def lines_of(http, path, body):
    response = http.post(path, json={"options": SURE} | body)
    assert response.status_code == 200, response.text
    return [json.loads(line) for line in response.text.splitlines()]


@pytest.mark.parametrize("path, body, kind", BODIES)
def test_the_types_of_the_package(http, path, body, kind):
    [whole] = lines_of(http, path, body | {"stream": False})
    for value in [whole, *lines_of(http, path, body)]:
        kind.model_validate(value)
        known(kind, value)


def test_the_types_of_models(http):
    for path, kind in [("/api/tags", ollama.ListResponse), ("/api/ps", ollama.ProcessResponse)]:
        value = http.get(path).json()
        assert value["models"], path
        kind.model_validate(value)
        known(kind, value)
    shown = http.post("/api/show", json={"model": TINY}).json()
    ollama.ShowResponse.model_validate(shown)
    known(ollama.ShowResponse, shown)


TYPES = """
type Wire<T> = T extends Date ? string : T extends Map<string, any> ? Record<string, any>
  : T extends (infer U)[] ? Wire<U>[] : T extends object ? { [K in keyof T]: Wire<T[K]> } : T;
"""


def typescript(kind, value):
    def without(value):
        if isinstance(value, list):
            return [without(one) for one in value]
        if isinstance(value, dict):
            # An argument's name is the function's own.
            return {name: field if name in ("arguments", "model_info") else without(field)
                    for name, field in value.items() if name not in {"id", "index", "bytes", "capabilities", "context_length"} or kind.startswith("Wire<ShowResponse")}
        return value

    return f"({json.dumps(without(value))}) satisfies {kind};\n"


def test_the_types_of_the_package_for_node(http, tmp_path):
    modules = os.environ.get("GEMMAD_NODE_MODULES")
    if not modules:
        pytest.skip("GEMMAD_NODE_MODULES names no folder with the packages of tests/clients/package.json; `make test` makes one")
    (tmp_path / "node_modules").symlink_to(modules)
    source = 'import type { ChatResponse, GenerateResponse, ListResponse, ModelResponse, ShowResponse, VersionResponse } from "ollama";\n' + TYPES
    for path, body, _ in BODIES:
        kind = "ChatResponse" if path == "/api/chat" else "GenerateResponse"
        [whole] = lines_of(http, path, body | {"stream": False})
        # No answer has a context, as Ollama's own has none to a prompt that is raw.
        source += typescript(f"Omit<Wire<{kind}>, 'context'>", whole)
        pieces = lines_of(http, path, body)
        source += "".join(typescript(f"Partial<Wire<{kind}>>", piece) for piece in pieces[:2] + pieces[-2:])
    model = "Omit<Wire<ModelResponse>, 'expires_at' | 'size_vram'>"
    source += "".join(typescript(model, value) for value in http.get("/api/tags").json()["models"])
    running = "Omit<Wire<ModelResponse>, 'modified_at'>"
    source += "".join(typescript(running, value) for value in http.get("/api/ps").json()["models"])
    source += typescript("Wire<ShowResponse>", http.post("/api/show", json={"model": TINY}).json())
    source += typescript("VersionResponse", http.get("/api/version").json())
    (tmp_path / "answers.ts").write_text(source)
    checked = subprocess.run(
        ["node", f"{modules}/typescript/bin/tsc", "--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--target", "es2022", "answers.ts"],
        cwd=tmp_path, capture_output=True, text=True,
    )
    assert checked.returncode == 0, checked.stdout[:4000]
