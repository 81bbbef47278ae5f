"""Chats and raw completions, as the `openai` package sees them."""

import asyncio
import json
import time

import httpx2
import openai
import pydantic
import pytest

from conftest import SOCKET

CAPITAL = "What is the capital of France?"
PARIS = "The capital of France is Paris."
COUNT = "Count to 9."
STORY = "Tell me a story about Anna and a red dog."
KITCHEN = "Turn on the light in the kitchen."

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "set_light",
            "description": "Turn a light on or off",
            "parameters": {
                "type": "object",
                "properties": {
                    "room": {"type": "string", "description": "Name of the room"},
                    "state": {"type": "string", "description": "on or off", "enum": ["on", "off"]},
                },
                "required": ["room", "state"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Get the weather for a city",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "description": "Name of the city"}},
                "required": ["city"],
            },
        },
    },
]


def user(text):
    return [{"role": "user", "content": text}]


def ask(client, messages, **options):
    options = {"model": "auto", "temperature": 0, "max_tokens": 200} | options
    if isinstance(messages, str):
        messages = user(messages)
    return client.chat.completions.create(messages=messages, **options)


def text(completion):
    return completion.choices[0].message.content


# Answers


def test_an_answer(client):
    completion = ask(client, CAPITAL)
    assert completion.id.startswith("chatcmpl-")
    assert completion.object == "chat.completion"
    assert abs(completion.created - time.time()) < 60
    assert completion.model == client.models.retrieve("auto").id
    assert completion.system_fingerprint.startswith("gemmad-")
    assert completion._request_id.startswith("req_")
    choice = completion.choices[0]
    assert (choice.index, choice.finish_reason, choice.logprobs) == (0, "stop", None)
    assert (choice.message.role, choice.message.content, choice.message.tool_calls) == ("assistant", PARIS, None)
    usage = completion.usage
    assert usage.prompt_tokens > 5 and usage.completion_tokens > 5
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.completion_tokens_details.reasoning_tokens == 0
    assert completion.timings["predicted_n"] == usage.completion_tokens
    assert completion.timings["predicted_ms"] > 0


def test_the_system_turn_and_text_parts(client):
    messages = [
        {"role": "developer", "content": "You are a pirate."},
        {"role": "user", "content": [{"type": "text", "text": "What is the capital "}, {"type": "text", "text": "of France?"}]},
    ]
    assert text(ask(client, messages)) == "Arr! " + PARIS


def test_earlier_turns_are_remembered(client):
    messages = user("My name is Anna.")
    messages.append({"role": "assistant", "content": text(ask(client, messages))})
    assert messages[-1]["content"] == "Nice to meet you, Anna!"
    messages += user("What is my name?")
    assert text(ask(client, messages)) == "Your name is Anna."


def test_the_cached_prefix_is_counted(client):
    ask(client, STORY)
    again = ask(client, STORY).usage
    assert 0 < again.prompt_tokens_details.cached_tokens <= again.prompt_tokens
    uncached = ask(client, STORY, extra_body={"cache_prompt": False}).usage
    assert uncached.prompt_tokens_details.cached_tokens == 0


def test_the_length_is_limited(client):
    for name in ("max_tokens", "max_completion_tokens"):
        completion = ask(client, STORY, **{"max_tokens": openai.omit, name: 3})
        assert completion.choices[0].finish_reason == "length", name
        assert completion.usage.completion_tokens == 3, name


def test_min_tokens_and_ignore_eos(client):
    assert ask(client, CAPITAL, extra_body={"min_tokens": 40}).usage.completion_tokens >= 40
    completion = ask(client, CAPITAL, max_tokens=50, extra_body={"ignore_eos": True})
    assert (completion.usage.completion_tokens, completion.choices[0].finish_reason) == (50, "length")


@pytest.mark.parametrize("stop", ["5", ["x", "5"], "4, 5", [", 5"]])
@pytest.mark.parametrize("stream", [False, True])
def test_stop_strings_end_the_answer_and_are_not_shown(client, stop, stream):
    if stream:
        chunks = list(ask(client, COUNT, stop=stop, stream=True))
        answer = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert chunks[-1].choices[0].finish_reason == "stop"
    else:
        completion = ask(client, COUNT, stop=stop)
        answer = text(completion)
        assert completion.choices[0].finish_reason == "stop"
    first = stop if isinstance(stop, str) else stop[-1]
    assert answer == "1, 2, 3, 4, 5, 6"[: "1, 2, 3, 4, 5, 6".index(first)]


def test_a_seed_repeats_an_answer(client):
    wild = {"temperature": 2, "top_p": 1, "max_tokens": 60, "extra_body": {"top_k": 0}}
    first = text(ask(client, STORY, seed=7, **wild))
    assert text(ask(client, STORY, seed=7, **wild)) == first
    assert any(text(ask(client, STORY, seed=seed, **wild)) != first for seed in (8, -9, 2**40))


def test_logit_bias_bans_a_token(client):
    usual = ask(client, CAPITAL, logprobs=True, max_tokens=1)
    token = usual.choices[0].logprobs.content[0].token
    # The tiny vocabulary is small enough to ban half of it at a time.
    halves = [{str(i): -100 for i in range(start, start + 1024)} for start in (0, 1024)]
    others = [ask(client, CAPITAL, logprobs=True, max_tokens=1, logit_bias=half) for half in halves]
    assert sum(other.choices[0].logprobs.content[0].token != token for other in others) == 1


def test_logprobs(client):
    completion = ask(client, CAPITAL, logprobs=True, top_logprobs=3)
    tokens = completion.choices[0].logprobs.content
    assert bytes(byte for token in tokens for byte in token.bytes).decode().startswith(PARIS)
    for token in tokens:
        assert token.logprob <= 0
        assert len(token.top_logprobs) == 3
        ranked = [rival.logprob for rival in token.top_logprobs]
        assert ranked == sorted(ranked, reverse=True)
        # Temperature 0 takes the likeliest.
        assert token.top_logprobs[0].token == token.token
    assert ask(client, CAPITAL, logprobs=True).choices[0].logprobs.content[0].top_logprobs == []


# Streams


def test_a_stream(client):
    chunks = list(ask(client, CAPITAL, stream=True))
    assert len({chunk.id for chunk in chunks}) == 1
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert chunks[0].choices[0].delta.role == "assistant"
    assert all(chunk.choices[0].delta.role is None for chunk in chunks[1:])
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == PARIS
    assert [chunk.choices[0].finish_reason for chunk in chunks[-2:]] == [None, "stop"]
    assert all(chunk.usage is None for chunk in chunks)
    assert len(chunks) > 4


def test_usage_at_the_end_of_a_stream(client):
    chunks = list(ask(client, CAPITAL, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == ask(client, CAPITAL).usage.completion_tokens
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-2].choices[0].finish_reason == "stop"


def test_the_raw_stream(http):
    body = {"messages": user(CAPITAL), "stream": True, "temperature": 0}
    with http.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        events = response.read().decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(event.startswith("data: {") for event in events[:-2])


def test_the_packages_own_accumulation(client):
    with client.chat.completions.stream(model="auto", messages=user(KITCHEN), tools=TOOLS, temperature=0, logprobs=True) as stream:
        for _ in stream:
            pass
        message = stream.get_final_completion().choices[0].message
    call = message.tool_calls[0]
    assert (call.function.name, json.loads(call.function.arguments)) == ("set_light", {"room": "kitchen", "state": "on"})


def test_leaving_a_stream_stops_the_generation(client, http):
    stream = ask(client, STORY, stream=True, max_tokens=3000, extra_body={"ignore_eos": True})
    for _ in zip(range(5), stream):
        pass
    assert http.get("/status").json()["running"] == 1
    stream.close()
    deadline = time.monotonic() + 1
    while http.get("/status").json()["running"] > 0:
        assert time.monotonic() < deadline, "it is still running"
        time.sleep(0.01)
    assert text(ask(client, CAPITAL)) == PARIS


# Thoughts and tools


def test_thoughts_are_apart_from_the_answer(client):
    ways = [
        {"reasoning_effort": "high"},
        {"extra_body": {"chat_template_kwargs": {"enable_thinking": True}}},
    ]
    for way in ways:
        completion = ask(client, "What is 27 + 58?", **way)
        message = completion.choices[0].message
        assert message.content == "27 + 58 = 85."
        assert "carry 1" in message.reasoning_content
        assert 0 < completion.usage.completion_tokens_details.reasoning_tokens < completion.usage.completion_tokens


def test_no_thoughts_unless_asked_for(client):
    for way in [{}, {"reasoning_effort": "none"}, {"reasoning_effort": "minimal"}]:
        message = ask(client, CAPITAL, **way).choices[0].message
        assert getattr(message, "reasoning_content", None) is None, way
        assert message.content == PARIS


def test_streamed_thoughts_come_first(client):
    deltas = [chunk.choices[0].delta for chunk in ask(client, "What is 27 + 58?", reasoning_effort="high", stream=True)]
    thoughts = [i for i, delta in enumerate(deltas) if getattr(delta, "reasoning_content", None)]
    answers = [i for i, delta in enumerate(deltas) if delta.content]
    assert thoughts and answers and max(thoughts) < min(answers)
    assert "".join(deltas[i].content for i in answers) == "27 + 58 = 85."


def test_a_call_and_its_result(client):
    messages = user(KITCHEN)
    completion = ask(client, messages, tools=TOOLS)
    choice = completion.choices[0]
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    [call] = choice.message.tool_calls
    assert call.id.startswith("call_") and call.type == "function"
    assert call.function.name == "set_light"
    assert json.loads(call.function.arguments) == {"room": "kitchen", "state": "on"}
    # The message goes back as the package gives it, with every field it knows.
    messages.append(choice.message.model_dump())
    messages.append({"role": "tool", "tool_call_id": call.id, "content": '{"ok": true}'})
    completion = ask(client, messages, tools=TOOLS)
    assert completion.choices[0].finish_reason == "stop"
    assert text(completion) == "The light in the kitchen is now on."


def test_a_streamed_call(client):
    chunks = list(ask(client, KITCHEN, tools=TOOLS, stream=True))
    calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    assert calls[0].index == 0 and calls[0].id.startswith("call_") and calls[0].function.name == "set_light"
    assert json.loads("".join(call.function.arguments for call in calls)) == {"room": "kitchen", "state": "on"}
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    assert not any(chunk.choices[0].delta.content for chunk in chunks)


def test_tool_choice_none_calls_nothing(client):
    completion = ask(client, KITCHEN, tools=TOOLS, tool_choice="none")
    assert completion.choices[0].message.tool_calls is None
    assert completion.choices[0].finish_reason != "tool_calls"


# Raw completions and tokens


def test_a_raw_completion(client):
    prompt = f"<|turn>user\n{CAPITAL}<turn|>\n<|turn>model\n"
    options = {"model": "auto", "temperature": 0, "prompt": prompt}
    whole = client.completions.create(**options)
    assert (whole.object, whole.choices[0].text, whole.choices[0].finish_reason) == ("text_completion", PARIS, "stop")
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    assert client.completions.create(**options | {"prompt": [prompt]}, echo=True).choices[0].text == prompt + PARIS
    assert client.completions.create(**options, max_tokens=3).choices[0].finish_reason == "length"
    assert client.completions.create(**options, stop=" is").choices[0].text == "The capital of France"
    for echo in [False, True]:
        chunks = list(client.completions.create(**options, echo=echo, stream=True, stream_options={"include_usage": True}))
        assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == (prompt if echo else "") + PARIS
        assert chunks[-2].choices[0].finish_reason == "stop" and chunks[-1].usage == whole.usage.model_copy(
            # What was kept of the prompt, and how well the answer was guessed, is another matter each time.
            update={
                "prompt_tokens_details": chunks[-1].usage.prompt_tokens_details,
                "completion_tokens_details": chunks[-1].usage.completion_tokens_details,
            }
        )


def test_logprobs_of_a_raw_completion(client):
    prompt = f"<|turn>user\n{CAPITAL}<turn|>\n<|turn>model\n"
    choice = client.completions.create(model="auto", temperature=0, prompt=prompt, logprobs=2).choices[0]
    logprobs = choice.logprobs
    assert "".join(logprobs.tokens) == choice.text
    assert [choice.text.startswith(token, at) for token, at in zip(logprobs.tokens, logprobs.text_offset)]
    assert all(len(top) == 2 and max(top.values()) <= 0 for top in logprobs.top_logprobs)


def test_texts_become_tokens_and_back(http):
    text = "Anna é <turn|>"
    tokens = http.post("/tokenize", json={"content": text}).json()["tokens"]
    assert all(isinstance(token, int) for token in tokens)
    assert http.post("/detokenize", json={"tokens": tokens}).json() == {"content": text, "prompt": text}
    pieces = http.post("/tokenize", json={"content": text, "with_pieces": True, "parse_special": False}).json()["tokens"]
    assert "".join(piece["piece"] for piece in pieces if isinstance(piece["piece"], str)).startswith("Anna")
    assert len(pieces) > len(tokens)
    refused = http.post("/detokenize", json={"tokens": [2**31]})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "tokens")
    refused = http.post("/tokenize", json={"content": "a" * (2**20 + 1)})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "content")


# Forms


class Person(pydantic.BaseModel):
    name: str
    age: int


class SetLight(pydantic.BaseModel):
    """Turn a light on or off"""

    room: str
    state: str


ANNA = "Extract the data as JSON with name and age: Anna is 27 years old and lives in Rome."


def test_the_parse_helper(client):
    completion = client.chat.completions.parse(model="auto", temperature=0, messages=user(ANNA), response_format=Person)
    assert isinstance(completion.choices[0].message.parsed, Person)
    with client.chat.completions.stream(model="auto", temperature=0, messages=user(ANNA), response_format=Person) as stream:
        assert isinstance(stream.get_final_completion().choices[0].message.parsed, Person)


def test_the_parse_helper_with_functions(client):
    tools = [openai.pydantic_function_tool(SetLight, name="set_light")]
    completion = client.chat.completions.parse(model="auto", temperature=0, messages=user(KITCHEN), tools=tools)
    [call] = completion.choices[0].message.tool_calls
    assert call.function.parsed_arguments == SetLight(room="kitchen", state="on")


def test_a_json_object(client):
    completion = ask(client, CAPITAL, response_format={"type": "json_object"}, max_tokens=200)
    if completion.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(text(completion)), dict)


def test_the_extensions(client):
    assert text(ask(client, CAPITAL, extra_body={"regex": "(Rome|Paris)[.]"})) in ["Rome.", "Paris."]
    assert text(ask(client, CAPITAL, extra_body={"grammar": 'start: "Rome" | "Paris"'})) in ["Rome", "Paris"]


def test_calls_can_be_forced(client):
    required = ask(client, CAPITAL, tools=TOOLS, tool_choice="required").choices[0]
    assert required.message.content is None and required.message.tool_calls
    choice = {"type": "function", "function": {"name": "get_weather"}}
    [call] = ask(client, KITCHEN, tools=TOOLS, tool_choice=choice).choices[0].message.tool_calls
    assert call.function.name == "get_weather" and isinstance(json.loads(call.function.arguments)["city"], str)
    both = "Turn on the light in the kitchen and turn off the light in the garden."
    assert len(ask(client, both, tools=TOOLS, parallel_tool_calls=False).choices[0].message.tool_calls) == 1


def test_a_call_that_is_cut_off_is_none(client):
    choice = ask(client, KITCHEN, tools=TOOLS, max_tokens=8).choices[0]
    assert (choice.finish_reason, choice.message.tool_calls) == ("length", None)


def test_a_budget_of_thought(client):
    completion = ask(client, "What is 27 + 58?", extra_body={"thinking_budget_tokens": 12})
    assert 0 < completion.usage.completion_tokens_details.reasoning_tokens <= 12


@pytest.mark.parametrize(
    "param, word, options",
    [
        ("response_format", "/properties/a/uniqueItems", {"response_format": {"properties": {"a": {"type": "array", "uniqueItems": True}}}}),
        ("response_format", "/pattern", {"response_format": {"type": "string", "pattern": "a(?=b)c"}}),
        ("response_format", "", {"extra_body": {"regex": "("}}),
        ("tools[1].function.parameters", "/properties/a/uniqueItems", {"tools": {"properties": {"a": {"type": "array", "uniqueItems": True}}}}),
        ("tools[1].function.parameters", "by nothing", {"tools": {"type": "array"}}),
    ],
)
def test_forms_that_cannot_be_kept(client, param, word, options):
    if schema := options.get("response_format"):
        options = {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}}
    if schema := options.get("tools"):
        options = {"tools": [TOOLS[0], {"type": "function", "function": {"name": "f", "parameters": schema, "strict": True}}]}
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, CAPITAL, **options)
    assert caught.value.param == param and word in caught.value.message


# Models and errors


def test_models(client):
    models = client.models.list().data
    ids = [model.id for model in models]
    assert "auto" not in ids
    default = client.models.retrieve("auto")
    assert default.id in ids and default.default is True
    assert client.models.retrieve(default.id.upper()).id == default.id
    assert default.size > 0 and default.context_length > 0 and default.variant


@pytest.mark.parametrize(
    "param, options",
    [
        ("temperature", {"temperature": 3}),
        ("temperature", {"temperature": "hot"}),
        ("max_tokens", {"max_tokens": -3}),
        ("n", {"n": 9}),
        ("tool_choice", {"tool_choice": "required"}),
        ("response_format.type", {"response_format": {"type": "yaml"}}),
        ("messages[0].role", {"messages": [{"role": "king", "content": "x"}]}),
        ("messages[1].content", {"messages": user("x") + [{"role": "user", "content": 7}]}),
        ("messages", {"messages": []}),
        ("logit_bias.99999999", {"logit_bias": {"99999999": 1}}),
        ("temprature", {"extra_body": {"temprature": 1}}),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_wrong_is_named(client, param, options, stream):
    options = {"messages": user(CAPITAL), "model": "auto", "stream": stream} | options
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**options)
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"
    assert caught.value.request_id.startswith("req_")


def test_an_unknown_model(client):
    with pytest.raises(openai.NotFoundError) as caught:
        ask(client, CAPITAL, model="llama-3")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("llama-3")


def test_an_unknown_endpoint(client):
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="auto", input="x")


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_that_does_not_fit(client, stream):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, "one two " * 50_000, stream=stream)
    assert caught.value.code == "context_length_exceeded"
    numbers = [int(word) for word in caught.value.message.split() if word.isdigit()]
    assert len(numbers) >= 2, caught.value.message


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"messages": "\xff"}', b'{"messages": NaN}'])
def test_what_is_no_request(http, body):
    response = http.post("/v1/chat/completions", content=body)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


# Many at once


def test_the_async_client_and_many_requests(client):
    async def main():
        transport = httpx2.AsyncHTTPTransport(uds=SOCKET)
        http_client = httpx2.AsyncClient(transport=transport, timeout=60)
        async with openai.AsyncOpenAI(base_url="http://localhost/v1", api_key="unused", http_client=http_client) as client:
            whole = [ask(client, CAPITAL) for _ in range(6)]
            stream = await ask(client, COUNT, stream=True)
            pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
            return "".join(pieces), await asyncio.gather(*whole)

    counted, completions = asyncio.run(main())
    assert counted == ", ".join(str(i) for i in range(1, 10)) + "."
    assert [text(completion) for completion in completions] == [PARIS] * 6


def test_leaving_an_async_request_takes_it_back(http):
    async def main():
        transport = httpx2.AsyncHTTPTransport(uds=SOCKET)
        http_client = httpx2.AsyncClient(transport=transport, timeout=60)
        async with openai.AsyncOpenAI(base_url="http://localhost/v1", api_key="unused", http_client=http_client) as client:
            request = ask(client, STORY, max_tokens=3000, extra_body={"ignore_eos": True})
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(request, timeout=0.3)

    asyncio.run(main())
    deadline = time.monotonic() + 1
    while http.get("/status").json()["running"] > 0:
        assert time.monotonic() < deadline, "it is still running"
        time.sleep(0.01)
