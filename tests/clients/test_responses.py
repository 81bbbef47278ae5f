"""The Responses API, as the `openai` package sees it."""

import json
import time

import openai
import pytest

CAPITAL = "What is the capital of France?"
PARIS = "The capital of France is Paris."
STORY = "Tell me a story about Anna and a red dog."
SUM = "What is 27 + 58?"
KITCHEN = "Turn on the light in the kitchen."
LIGHT = {
    "type": "function",
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
    "strict": True,
}

CALL = {"type": "function_call", "call_id": "c1", "name": "set_light", "arguments": '{"room": "kitchen", "state": "on"}'}


def ask(client, input, **options):
    return client.responses.create(**{"model": "auto", "temperature": 0, "max_output_tokens": 200, "input": input} | options)


def kinds(response):
    return [item.type for item in response.output]


def test_a_response(client):
    response = ask(client, CAPITAL, metadata={"for": "a test"})
    assert (response.status, response.output_text, kinds(response)) == ("completed", PARIS, ["message"])
    assert response.id.startswith("resp_") and response.output[0].id.startswith("msg_")
    assert (response.metadata, response.store, response.max_output_tokens) == ({"for": "a test"}, False, 200)
    usage = response.usage
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens > 0
    again = ask(client, CAPITAL)
    assert again.usage.input_tokens_details.cached_tokens > 0
    assert again.model == response.model != "auto"


def test_items_and_instructions(client):
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "My name is Anna."}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hello Anna.", "annotations": []}]},
        {"role": "user", "content": CAPITAL},
    ]
    response = ask(client, items, instructions="Answer in one sentence.")
    assert "Paris" in response.output_text
    assert response.instructions == "Answer in one sentence."


def test_a_cut_answer_is_incomplete(client):
    response = ask(client, STORY, max_output_tokens=5)
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    events = list(ask(client, STORY, max_output_tokens=5, stream=True))
    assert events[-1].type == "response.incomplete"


def test_every_event_of_a_stream(client):
    whole = ask(client, SUM, reasoning={"effort": "high"})
    events = list(ask(client, SUM, reasoning={"effort": "high"}, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    names = [event.type.removeprefix("response.") for event in events]
    folded = [name for i, name in enumerate(names) if i == 0 or names[i - 1] != name or not name.endswith("delta")]
    part = lambda kind: [
        "output_item.added", "content_part.added", f"{kind}.delta", f"{kind}.done", "content_part.done", "output_item.done",
    ]
    assert folded == ["created", "in_progress", *part("reasoning_text"), *part("output_text"), "completed"]
    said = lambda kind: "".join(event.delta for event in events if event.type == f"response.{kind}.delta")
    last = events[-1].response
    assert said("output_text") == last.output_text == whole.output_text == "27 + 58 = 85."
    assert said("reasoning_text") == last.output[0].content[0].text == whole.output[0].content[0].text
    assert last.usage.output_tokens_details.reasoning_tokens > 0
    places = {event.item_id: event.output_index for event in events if hasattr(event, "item_id")}
    assert [item.id for item in last.output] == sorted(places, key=places.get)


def test_the_packages_own_stream_helper(client):
    with client.responses.stream(model="auto", temperature=0, input=CAPITAL) as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        assert stream.get_final_response().output_text == "".join(deltas) == PARIS


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_and_its_result(client, stream):
    items = [{"role": "user", "content": KITCHEN}]
    response = ask(client, items, tools=[LIGHT], stream=stream)
    if stream:
        events = list(response)
        response = events[-1].response
        arguments = "".join(e.delta for e in events if e.type == "response.function_call_arguments.delta")
        [done] = [e for e in events if e.type == "response.function_call_arguments.done"]
        assert arguments == done.arguments == response.output[0].arguments
    [call] = response.output
    assert (call.type, call.name) == ("function_call", "set_light")
    assert json.loads(call.arguments) == {"room": "kitchen", "state": "on"}
    items += [item.model_dump() for item in response.output]
    items.append({"type": "function_call_output", "call_id": call.call_id, "output": '{"ok": true}'})
    assert ask(client, items, tools=[LIGHT]).output_text == "The light in the kitchen is now on."


def test_an_answer_of_a_schema(client):
    schema = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}, "required": ["name", "age"]}
    text = {"format": {"type": "json_schema", "name": "person", "schema": schema, "strict": True}}
    response = ask(client, "Extract the data as JSON with name and age: Anna is 27 years old and lives in Rome.", text=text)
    assert json.loads(response.output_text) == {"name": "Anna", "age": 27} and response.text.format.name == "person"
    choice = {"type": "function", "name": "set_light"}
    [call] = ask(client, CAPITAL, tools=[LIGHT], tool_choice=choice).output
    assert (call.type, call.name, sorted(json.loads(call.arguments))) == ("function_call", "set_light", ["room", "state"])


def test_logprobs(client):
    response = ask(client, CAPITAL, include=["message.output_text.logprobs"], top_logprobs=2)
    logprobs = response.output[0].content[0].logprobs
    assert "".join(token.token for token in logprobs) == PARIS and len(logprobs[0].top_logprobs) == 2


# Kept responses


def test_nothing_is_kept_unless_asked(client):
    response = ask(client, CAPITAL)
    for attempt in [client.responses.retrieve, client.responses.delete, client.responses.cancel, client.responses.input_items.list]:
        with pytest.raises(openai.NotFoundError):
            attempt(response.id)
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, CAPITAL, previous_response_id=response.id)
    assert (caught.value.param, caught.value.code) == ("previous_response_id", "previous_response_not_found")


@pytest.mark.parametrize("stream", [False, True])
def test_a_conversation_goes_on_from_a_kept_response(client, stream):
    first = ask(client, "My name is Anna.", store=True, stream=stream)
    if stream:
        first = list(first)[-1].response
    kept = client.responses.retrieve(first.id)
    assert kept.store and kept.output_text == first.output_text
    second = ask(client, "What is my name?", previous_response_id=first.id, store=True)
    assert "Anna" in second.output_text and second.previous_response_id == first.id
    third = ask(client, "What is my name?", previous_response_id=second.id)
    assert third.usage.input_tokens > second.usage.input_tokens > first.usage.input_tokens
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)
    # What went on from it has all of it.
    assert "Anna" in ask(client, "What is my name?", previous_response_id=second.id).output_text


def test_input_items_come_in_pages(client):
    items = [{"role": "user", "content": text} for text in ["My name is Anna.", "I have a dog.", CAPITAL]]
    response = ask(client, items, store=True)
    listed = client.responses.input_items.list(response.id, order="asc", limit=2)
    texts = lambda items: [item.content[0].text for item in items]
    assert texts(listed.data) == ["My name is Anna.", "I have a dog."] and listed.has_more
    assert texts(client.responses.input_items.list(response.id, limit=1)) == [CAPITAL, "I have a dog.", "My name is Anna."]
    with pytest.raises(openai.BadRequestError):
        client.responses.input_items.list(response.id, limit=1000)


def finished(client, response):
    deadline = time.monotonic() + 30
    while response.status in ("queued", "in_progress"):
        assert time.monotonic() < deadline, "it does not end"
        time.sleep(0.02)
        response = client.responses.retrieve(response.id)
    return response


def test_a_response_in_the_background(client):
    response = ask(client, CAPITAL, background=True)
    assert (response.status, response.background, response.output) == ("queued", True, [])
    assert finished(client, response).output_text == PARIS
    # It has ended; there is nothing to cancel.
    assert client.responses.cancel(response.id).status == "completed"


def test_a_response_in_the_background_can_be_cancelled(client, http):
    response = ask(client, STORY, background=True, max_output_tokens=3000, extra_body={"logit_bias": {"106": -100, "1": -100}})
    assert client.responses.cancel(response.id).status == "cancelled"
    assert client.responses.retrieve(response.id).status == "cancelled"
    deadline = time.monotonic() + 5
    while http.get("/status").json()["running"] > 0:
        assert time.monotonic() < deadline, "it is still running"
        time.sleep(0.01)
    with pytest.raises(openai.BadRequestError):
        client.responses.cancel(ask(client, CAPITAL, store=True).id)


def test_a_response_in_the_background_tells_its_events_from_anywhere(client):
    events = list(ask(client, CAPITAL, background=True, stream=True))
    assert [event.type for event in events][:3] == ["response.created", "response.queued", "response.in_progress"]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    last = events[-1]
    assert (last.type, last.response.output_text, last.response.background) == ("response.completed", PARIS, True)
    again = list(client.responses.retrieve(last.response.id, stream=True))
    assert [event.model_dump() for event in again] == [event.model_dump() for event in events]
    rest = list(client.responses.retrieve(last.response.id, stream=True, starting_after=4))
    assert [event.model_dump() for event in rest] == [event.model_dump() for event in events[5:]]
    assert client.responses.retrieve(last.response.id).output_text == PARIS
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.retrieve(ask(client, CAPITAL, store=True).id, stream=True)
    assert caught.value.param == "stream"


def test_a_reader_of_a_running_response_sees_its_end(client, http):
    endless = {"logit_bias": {"106": -100, "1": -100}}
    made = ask(client, STORY, background=True, stream=True, max_output_tokens=3000, extra_body=endless)
    id = next(iter(made)).response.id
    reader = iter(client.responses.retrieve(id, stream=True, starting_after=1))
    assert next(reader).sequence_number == 2
    made.close()
    assert client.responses.retrieve(id).status == "in_progress"
    client.responses.cancel(id)
    last = list(reader)[-1]
    assert (last.type, last.response.status) == ("response.failed", "cancelled")
    client.responses.delete(id)


# What agents send


def raw(http, body):
    return http.post("/v1/responses", json={"model": "auto", "temperature": 0, "max_output_tokens": 200} | body)


def test_functions_of_a_namespace(client, http):
    home = {"type": "namespace", "name": "home", "description": "The house.", "tools": [LIGHT]}
    tools = [{"type": "web_search", "external_web_access": False}, home]
    body = {"input": KITCHEN, "tools": tools, "client_metadata": {"turn_id": "t"}, "reasoning": {"summary": "auto"}, "store": False}
    answer = raw(http, body)
    assert (answer.status_code, answer.headers["x-gemmad-ignored"]) == (200, "tools[0] web_search")
    [call] = answer.json()["output"]
    assert (call["type"], call["name"], call["namespace"]) == ("function_call", "set_light", "home")
    items = [{"role": "user", "content": KITCHEN}, call, {"type": "function_call_output", "call_id": call["call_id"], "output": '{"ok": true}'}]
    # The description of the namespace is more than the tiny model was taught; it may mistake the state.
    assert raw(http, body | {"input": items}).json()["output"][0]["content"][0]["text"].startswith("The light in the kitchen is now o")
    chosen = {"type": "function", "name": "set_light", "namespace": "home"}
    events = list(ask(client, CAPITAL, tools=tools, tool_choice=chosen, stream=True))
    assert events[-1].response.output[0].to_dict()["namespace"] == "home"


def test_a_tool_that_takes_a_text(client):
    tool = {"type": "custom", "name": "note", "description": "Take a note"}
    events = list(ask(client, CAPITAL, tools=[tool], tool_choice={"type": "custom", "name": "note"}, stream=True))
    [call] = events[-1].response.output
    assert (call.type, call.name) == ("custom_tool_call", "note")
    [done] = [event for event in events if event.type == "response.custom_tool_call_input.done"]
    said = "".join(event.delta for event in events if event.type == "response.custom_tool_call_input.delta")
    assert said == done.input == call.input
    items = [{"role": "user", "content": CAPITAL}, call.model_dump(), {"type": "custom_tool_call_output", "call_id": call.call_id, "output": "noted"}]
    assert ask(client, items, tools=[tool]).status in ("completed", "incomplete")


@pytest.mark.parametrize("stream", [False, True])
def test_a_thought_as_a_summary(client, stream):
    options = {"reasoning": {"effort": "high", "summary": "auto"}, "include": ["reasoning.encrypted_content"]}
    response = ask(client, SUM, stream=stream, **options)
    if stream:
        events = list(response)
        response = events[-1].response
        said = "".join(event.delta for event in events if event.type == "response.reasoning_summary_text.delta")
        assert said == response.output[0].summary[0].text
        names = [event.type for event in events]
        for name in ["part.added", "text.done", "part.done"]:
            assert names.count(f"response.reasoning_summary_{name}") == 1
    thought, text = response.output
    assert thought.summary[0].text == thought.content[0].text and "carry 1" in thought.summary[0].text
    assert text.content[0].text == "27 + 58 = 85."
    # Without what can be read, the sealed thought is the thought.
    sealed = {"type": "reasoning", "summary": [], "encrypted_content": thought.encrypted_content}
    plain = {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": thought.content[0].text}]}
    call = CALL | {"name": "note", "arguments": "{}"}
    count = lambda item: client.responses.input_tokens.count(
        model="auto", input=[{"role": "user", "content": SUM}, item, call, {"type": "function_call_output", "call_id": "c1", "output": "x"}]
    )
    assert count(sealed).input_tokens == count(plain).input_tokens > count({"type": "reasoning", "summary": []}).input_tokens


def test_every_field_of_a_response_is_there(http):
    response = raw(http, {"input": CAPITAL, "tools": [{"type": "function", "name": "f"}], "safety_identifier": "s", "max_tool_calls": 2}).json()
    integers = ["created_at", "completed_at", "top_logprobs", "max_output_tokens", "max_tool_calls"]
    numbers = ["temperature", "top_p", "presence_penalty", "frequency_penalty"]
    for name in integers + numbers:
        assert isinstance(response[name], int if name in integers else (int, float)), name
    for name in ["error", "incomplete_details", "previous_response_id", "instructions", "prompt_cache_key", "conversation", "user"]:
        assert response[name] is None, name
    assert response["tools"] == [{"type": "function", "name": "f", "description": None, "parameters": None, "strict": None}]
    assert (response["tool_choice"], response["text"]) == ("auto", {"format": {"type": "text"}})
    assert (response["reasoning"], response["safety_identifier"]) == ({"effort": None, "summary": None}, "s")
    assert (response["store"], response["background"], response["service_tier"], response["metadata"]) == (False, False, "default", {})
    assert raw(http, {"input": STORY, "max_output_tokens": 3}).json()["completed_at"] is None


def test_a_conversation_is_summed_up(client, http):
    items = [{"role": "user", "content": "My name is Anna."}, {"role": "assistant", "content": "Hello Anna!"}]
    answer = http.post("/v1/responses/compact", json={"model": "auto", "input": items, "prompt_cache_key": "k"}).json()
    [summary] = answer["output"]
    assert (answer["object"], summary["type"]) == ("response.compaction", "compaction")
    assert answer["usage"]["output_tokens"] > 0 and summary["encrypted_content"]
    assert ask(client, [summary, {"role": "user", "content": CAPITAL}]).status in ("completed", "incomplete")
    missing = http.post("/v1/responses/compact", json={"input": items})
    assert (missing.status_code, missing.json()["error"]["param"]) == (400, "model")


def test_what_went_wrong_before_does_not_end_a_conversation(client, http):
    user = {"role": "user", "content": KITCHEN}
    output = {"type": "function_call_output", "call_id": "c1", "output": "no"}
    for items in [
        [user, CALL | {"arguments": '{"room":"kitch', "status": "incomplete"}, output],
        [user, CALL, user],
        [user, output, user],
        [user, {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm"}]}, user],
        [user, {"role": "assistant", "content": []}, user],
        [user, {"type": "reasoning", "summary": [], "encrypted_content": "gAAAAABo"}, {"role": "assistant", "content": "Yes."}, user],
        [user, {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "x"}}, user],
    ]:
        answer = raw(http, {"input": items, "tools": [LIGHT], "max_output_tokens": 20})
        assert answer.status_code == 200, (items, answer.text)
    # A result that comes late is shown with its call.
    late = [user, CALL, {"role": "assistant", "content": "A moment."}, output]
    early = [user, CALL, output, {"role": "assistant", "content": "A moment."}]
    count = lambda items: client.responses.input_tokens.count(model="auto", input=items, tools=[LIGHT]).input_tokens
    assert count(late) == count(early)


# What does not fit, and what is wrong


def test_truncation(client):
    turns = [{"role": role, "content": "word " * 400} for _ in range(5) for role in ("user", "assistant")]
    items = turns + [{"role": "user", "content": CAPITAL}]
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, items)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "input")
    assert "maximum" in caught.value.message and "[inference] `context`" in caught.value.message
    assert ask(client, items, truncation="auto").status in ("completed", "incomplete")
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, "word " * 4000, truncation="auto")
    assert caught.value.code == "context_length_exceeded"


def test_input_tokens(client):
    counted = client.responses.input_tokens.count(model="auto", input=CAPITAL, tools=[LIGHT])
    assert counted.input_tokens == ask(client, CAPITAL, tools=[LIGHT]).usage.input_tokens


@pytest.mark.parametrize(
    "param, options",
    [
        ("input", {"input": []}),
        ("input[0].role", {"input": [{"role": "king", "content": "x"}]}),
        ("input[1]", {"input": [{"role": "user", "content": "x"}, {"role": "user", "content": ""}]}),
        ("temperature", {"temperature": 3}),
        ("tools[0].type", {"tools": [{"type": "web"}]}),
        ("tools[0].tools[0].parameters", {"tools": [{"type": "namespace", "name": "home", "tools": [LIGHT | {"parameters": 7}]}]}),
        ("input[1]", {"input": [{"role": "user", "content": KITCHEN}, CALL]}),
        ("max_tokens", {"extra_body": {"max_tokens": 5}}),
        ("conversation", {"conversation": "c"}),
    ],
)
def test_what_is_wrong_is_named(client, param, options):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, **{"input": CAPITAL} | options)
    assert caught.value.param == param
