"""Answers are what the `openai` package's types say, to the letter: no member is missing, of another type, or one that the
types do not know, but for the extensions that docs/http.md names.
"""

import json
import os
import subprocess

import pydantic
import pytest
from openai.types import Completion, Model, completion_choice
from openai.types.chat import ChatCompletion, ChatCompletionChunk, chat_completion, chat_completion_chunk, chat_completion_message

from test_openai import CAPITAL, KITCHEN, TOOLS, user

# What the types do not know.
EXTENSIONS = {
    ChatCompletion: {"timings"},
    ChatCompletionChunk: {"timings"},
    Completion: {"timings"},
    chat_completion_message.ChatCompletionMessage: {"reasoning_content"},
    chat_completion_chunk.ChoiceDelta: {"reasoning_content"},
    chat_completion.ChoiceLogprobs: {"reasoning_content"},
    chat_completion_chunk.ChoiceLogprobs: {"reasoning_content"},
}


def check(kind, value):
    """Refuses what is of another type, and what no type knows."""
    return known(kind.model_validate(value, strict=True))


def known(model):
    for name, value in model:
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, pydantic.BaseModel):
                known(one)
    unknown = set(model.model_extra or {}) - EXTENSIONS.get(type(model), set())
    assert not unknown, f"{type(model).__name__} has no {unknown}"
    return model


def post(http, path, **body):
    response = http.post(path, json={"temperature": 0, "max_tokens": 200} | body)
    assert response.status_code == 200, response.text
    return response.json()


def events(http, path, **body):
    text = http.post(path, json={"temperature": 0, "max_tokens": 200, "stream": True} | body).text
    assert text.endswith("data: [DONE]\n\n"), text
    return [json.loads(event.removeprefix("data: ")) for event in text.split("\n\n")[:-2]]


CHATS = [
    {"messages": user(CAPITAL)},
    {"messages": user(CAPITAL), "logprobs": True, "top_logprobs": 2, "n": 3},
    {"messages": user(CAPITAL), "max_tokens": 3},
    {"messages": user("What is 27 + 58?"), "reasoning_effort": "high", "logprobs": True},
    {"messages": user(KITCHEN), "tools": TOOLS},
    {"messages": user(KITCHEN), "tools": TOOLS, "max_tokens": 8},
    {"messages": user(CAPITAL), "response_format": {"type": "json_object"}},
]
TEXTS = [
    {"prompt": CAPITAL},
    {"prompt": [CAPITAL, CAPITAL], "n": 2, "logprobs": 2},
    {"prompt": CAPITAL, "echo": True, "logprobs": 1},
]


@pytest.mark.parametrize("body", CHATS)
def test_a_chat(http, body):
    answer = check(ChatCompletion, post(http, "/v1/chat/completions", **body))
    assert [choice.index for choice in answer.choices] == list(range(body.get("n", 1)))
    usage = {"stream_options": {"include_usage": True}}
    for chunk in events(http, "/v1/chat/completions", **body, **usage):
        check(ChatCompletionChunk, chunk)


@pytest.mark.parametrize("body", TEXTS)
def test_a_text(http, body):
    answer = check(Completion, post(http, "/v1/completions", **body))
    assert all(isinstance(choice, completion_choice.CompletionChoice) for choice in answer.choices)
    for chunk in events(http, "/v1/completions", **body):
        # The package has one type for both; a chunk's reason is null before the end.
        for choice in chunk["choices"]:
            choice["finish_reason"] = choice["finish_reason"] or "stop"
        check(Completion, chunk)


def test_a_model(http):
    for model in http.get("/v1/models").json()["data"]:
        Model.model_validate(model, strict=True)


def test_nothing_of_a_thought_is_in_the_text(http):
    body = {"messages": user("What is 27 + 58?"), "reasoning_effort": "high", "logprobs": True}
    choice = post(http, "/v1/chat/completions", **body)["choices"][0]
    joined = lambda tokens: bytes(byte for token in tokens for byte in token["bytes"]).decode()
    said, message = joined(choice["logprobs"]["content"]), choice["message"]
    assert said.removesuffix("<turn|>") == message["content"]
    thought = joined(choice["logprobs"]["reasoning_content"])
    assert message["reasoning_content"] in thought and "<" not in thought


def test_thoughts_can_be_left_out(http):
    for way in [{"reasoning": {"effort": "high", "exclude": True}}, {"think": True, "include_reasoning": False}]:
        message = post(http, "/v1/chat/completions", messages=user("What is 27 + 58?"), **way)["choices"][0]["message"]
        assert message["content"] == "27 + 58 = 85." and "reasoning_content" not in message


# The types of the package for Node: a literal of a type may have no member that the type does not know.


def typescript(kind, value):
    extensions = {"timings", "reasoning_content"}

    def without(value):
        if isinstance(value, list):
            return [without(one) for one in value]
        if isinstance(value, dict):
            return {name: without(one) for name, one in value.items() if name not in extensions}
        return value

    return f"({json.dumps(without(value))}) satisfies {kind};\n"


def test_the_types_of_the_package_for_node(http, tmp_path):
    modules = os.environ.get("GEMMAD_NODE_MODULES")
    if not modules:
        pytest.skip("GEMMAD_NODE_MODULES names no folder with the packages of tests/clients/package.json; `make test` makes one")
    (tmp_path / "node_modules").symlink_to(modules)
    source = 'import type { ChatCompletion, ChatCompletionChunk, Completion } from "openai/resources";\n'
    for body in CHATS:
        source += typescript("ChatCompletion", post(http, "/v1/chat/completions", **body))
        chunks = events(http, "/v1/chat/completions", **body)
        source += "".join(typescript("ChatCompletionChunk", chunk) for chunk in chunks[:2] + chunks[-2:])
    # Before the first token of a prompt of tokens is nothing: there the package's types have no null, and OpenAI's answers do.
    for body in TEXTS:
        source += typescript("Completion", post(http, "/v1/completions", **body))
    (tmp_path / "answers.mts").write_text(source)
    compiler = [f"{modules}/typescript/bin/tsc", "--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--target", "es2022", "answers.mts"]
    run = subprocess.run(["node", *compiler], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stdout[-3000:]


# Several answers


def test_streamed_answers_come_side_by_side(client):
    chunks = client.chat.completions.create(
        model="auto", messages=user(CAPITAL), temperature=0, n=4, stream=True, stream_options={"include_usage": True}
    )
    texts, ends = {}, {}
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
            if choice.finish_reason:
                ends[choice.index] = choice.finish_reason
        usage = chunk.usage
    one = client.chat.completions.create(model="auto", messages=user(CAPITAL), temperature=0)
    assert texts == dict.fromkeys(range(4), one.choices[0].message.content)
    assert ends == dict.fromkeys(range(4), "stop")
    assert usage.prompt_tokens == one.usage.prompt_tokens
    assert usage.completion_tokens == 4 * one.usage.completion_tokens


def test_answers_of_one_seed_differ(client):
    options = {"model": "auto", "messages": user("Tell me a story about Anna and a red dog."), "temperature": 2, "top_p": 1, "seed": 7, "n": 3}
    said = lambda: [choice.message.content for choice in client.chat.completions.create(**options, max_tokens=40, extra_body={"top_k": 0}).choices]
    first = said()
    assert len(set(first)) > 1 and said() == first


def test_the_first_token_belongs_to_the_prompt(http):
    answer = post(http, "/v1/chat/completions", messages=user("Count to 9."))
    timings = answer["timings"]
    expected = (timings["predicted_n"] - 1) * 1e3 / timings["predicted_ms"]
    assert timings["predicted_per_second"] == pytest.approx(expected, rel=1e-3)
    one = post(http, "/v1/chat/completions", messages=user("Count to 9."), max_tokens=1)["timings"]
    assert (one["predicted_n"], one["predicted_per_second"]) == (1, 0)


# Prompts


def tokens_of(http, text, begin):
    return http.post("/tokenize", json={"content": text, "add_special": begin}).json()["tokens"]


def test_prompts_of_tokens(http):
    text = f"<|turn>user\n{CAPITAL}<turn|>\n<|turn>model\n"
    tokens = tokens_of(http, text, True)
    for prompt in [text, tokens, [text, tokens], [tokens]]:
        answer = post(http, "/v1/completions", prompt=prompt)
        assert {choice["text"] for choice in answer["choices"]} == {"The capital of France is Paris."}
        assert answer["usage"]["prompt_tokens"] == len(tokens) * len(answer["choices"])
    refused = http.post("/v1/completions", json={"prompt": [2**31]})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "prompt")


def test_the_tokens_of_a_prompt_are_rated(http):
    """As evaluation harnesses ask for the likelihood of a text."""
    text = f"<|turn>user\n{CAPITAL}<turn|>\n<|turn>model\n"
    tokens = tokens_of(http, text, True)
    answer = post(http, "/v1/completions", prompt=tokens, logprobs=2, max_tokens=20)["choices"][0]
    drawn = answer["logprobs"]
    said = tokens_of(http, answer["text"], False)
    options = {"echo": True, "logprobs": 2, "max_tokens": 1}
    rated = post(http, "/v1/completions", prompt=tokens + said, **options)["choices"][0]
    logprobs = rated["logprobs"]
    # The one that is drawn behind it ends the turn, and has its place all the same.
    assert len(logprobs["tokens"]) == len(tokens) + len(said) + 1
    assert logprobs["tokens"][-1] == "<turn|>" and rated["finish_reason"] == "stop"
    assert logprobs["token_logprobs"][0] is None and logprobs["top_logprobs"][0] is None
    # The model's own words are rated as they were when it drew them, and are the likeliest.
    own = slice(len(tokens), len(tokens) + len(said))
    assert logprobs["token_logprobs"][own] == pytest.approx(drawn["token_logprobs"][: len(said)], abs=0.02)
    for logprob, top in zip(logprobs["token_logprobs"][own], logprobs["top_logprobs"][own]):
        assert logprob == max(top.values())
    assert rated["text"].startswith("<bos>" + text)
    # As a text it is the same, but for the token that is put before it.
    as_text = post(http, "/v1/completions", prompt=text + answer["text"], **options)["choices"][0]["logprobs"]
    assert as_text["tokens"] == logprobs["tokens"][1:]
    assert as_text["token_logprobs"] == pytest.approx(logprobs["token_logprobs"][1:], abs=0.02)
    assert as_text["text_offset"][0] == 0
    # And without an answer.
    alone = post(http, "/v1/completions", prompt=tokens, **options | {"max_tokens": 0})
    assert alone["usage"]["completion_tokens"] == 0
    assert len(alone["choices"][0]["logprobs"]["tokens"]) == len(tokens)


# Histories


def call(id, arguments, **more):
    return {"id": id, "type": "function", "function": {"name": "set_light", "arguments": arguments} | more}


def said(*calls, **more):
    return {"role": "assistant", "content": None, "tool_calls": list(calls)} | more


def prompt(http, messages, **more):
    response = http.post("/apply-template", json={"messages": messages} | more)
    assert response.status_code == 200, response.text
    return response.json()["prompt"]


def test_a_call_that_was_cut_off_is_shown_as_far_as_it_went(http):
    result = {"role": "tool", "tool_call_id": "c1", "content": "invalid JSON"}
    messages = user(KITCHEN) + [said(call("c1", '{"room":"kitchen"')), result]
    shown = prompt(http, messages, tools=TOOLS)
    assert 'call:set_light{room:<|"|>kitchen<|"|>}' in shown and "invalid JSON" in shown
    post(http, "/v1/chat/completions", messages=messages, tools=TOOLS)


def test_results_without_calls_and_calls_without_results(http):
    result = {"role": "tool", "tool_call_id": "c1", "content": "it is on"}
    orphan = prompt(http, user("a") + [result] + user("b"))
    assert orphan.index("it is on") < orphan.index("user\nb") and "which is not in this conversation" in orphan
    alone = prompt(http, user("a") + [said(call("c1", "{}"))] + user("b"))
    assert "no result" in alone and alone.count("<|tool_response>") == alone.count("<tool_response|>") == 1
    late = prompt(http, user("a") + [said(call("c1", "{}"))] + user("b") + [result] + user("c"))
    assert late.index("it is on") < late.index("user\nb")
    for messages in [[result], user("a") + [result], user("a") + [said(call("c1", "{}"))] + user("b")]:
        post(http, "/v1/chat/completions", messages=messages, max_tokens=3)


def test_answers_come_back_as_they_were(http):
    for answer in [
        {"content": ""},
        {"content": None},
        {},
        {"content": "", "reasoning_content": "hm"},
        {"content": "ok", "reasoning": "hm", "refusal": None, "annotations": [], "parsed": {"a": 1}, "id": "x"},
        {"content": [{"type": "text", "text": "ok", "cache_control": {"type": "ephemeral"}}]},
    ]:
        messages = user("a") + [{"role": "assistant"} | answer] + user(CAPITAL)
        post(http, "/v1/chat/completions", messages=messages, max_tokens=3)


def test_a_required_that_is_no_list(http):
    parameters = {"type": "object", "required": True, "properties": {"room": {"type": "object", "required": False, "properties": {}}}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": parameters}}]
    assert "declaration:f" in prompt(http, user("a"), tools=tools)


# Other servers' words


def test_paths_and_names_of_other_servers(http, client):
    default = client.models.retrieve("auto").id
    for name in ["", "default", "gpt-4o", "gemma4", default + ".gguf", default + ":latest", "models/" + default.upper()]:
        body = {"model": name, "messages": user(CAPITAL), "max_tokens": 1}
        for path in ["/v1/chat/completions", "/chat/completions"]:
            assert post(http, path, **body)["model"] == default
    assert http.get("/models").json() == http.get("/v1/models").json()
    assert http.post("/infill", json={}).json()["error"]["code"] == "unsupported_endpoint"
    assert http.post("/embeddings", json={}).status_code == 404


def test_llama_cpps_server(http):
    text = f"<|turn>user\n{CAPITAL}<turn|>\n<|turn>model\n"
    answer = http.post("/completion", json={"prompt": text, "temperature": 0, "n_probs": 2, "id_slot": -1}).json()
    assert (answer["content"], answer["stop"], answer["stop_type"]) == ("The capital of France is Paris.", True, "eos")
    assert len(answer["completion_probabilities"][0]["top_logprobs"]) == 2
    stopped = http.post("/completion", json={"prompt": text, "temperature": 0, "stop": [" is"], "stream": True}).text
    pieces = [json.loads(event.removeprefix("data: ")) for event in stopped.split("\n\n")[:-1]]
    assert "".join(piece["content"] for piece in pieces) == "The capital of France"
    assert (pieces[-1]["stop_type"], pieces[-1]["stopping_word"]) == ("word", " is")
    assert prompt(http, user(CAPITAL)).endswith(text)
    count = http.post("/v1/chat/completions/input_tokens", json={"messages": user(CAPITAL)}).json()["input_tokens"]
    assert count == post(http, "/v1/chat/completions", messages=user(CAPITAL))["usage"]["prompt_tokens"]
    props, slots = http.get("/props").json(), http.get("/slots").json()
    assert props["total_slots"] == len(slots) > 0
    assert slots[0]["n_ctx"] == props["default_generation_settings"]["n_ctx"] > 0
