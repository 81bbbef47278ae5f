"""The Messages API, as the `anthropic` package sees it."""

import anthropic
import httpx2
import pytest

from conftest import SOCKET

CAPITAL = "What is the capital of France?"
PARIS = "The capital of France is Paris."
KITCHEN = "Turn on the light in the kitchen."
LIGHT = {
    "name": "set_light",
    "description": "Turn a light on or off",
    "input_schema": {
        "type": "object",
        "properties": {
            "room": {"type": "string", "description": "Name of the room"},
            "state": {"type": "string", "description": "on or off", "enum": ["on", "off"]},
        },
        "required": ["room", "state"],
    },
}


@pytest.fixture(scope="module")
def claude():
    http_client = httpx2.Client(transport=httpx2.HTTPTransport(uds=SOCKET), timeout=60)
    with anthropic.Anthropic(base_url="http://localhost", api_key="unused", max_retries=0, http_client=http_client) as client:
        yield client


def question(content, **options):
    messages = content if isinstance(content, list) else [{"role": "user", "content": content}]
    # The package does not offer `temperature` for every model any more; it is sent all the same.
    return {"model": "auto", "max_tokens": 200, "messages": messages, "extra_body": {"temperature": 0}} | options


def test_a_message(claude):
    message = claude.messages.create(**question(CAPITAL, system="Answer in one sentence."))
    assert [(block.type, block.text) for block in message.content] == [("text", PARIS)]
    assert (message.role, message.stop_reason, message.stop_sequence) == ("assistant", "end_turn", None)
    assert message.id.startswith("msg_") and message.model != "auto"
    again = claude.messages.create(**question(CAPITAL, system="Answer in one sentence."))
    usage = again.usage
    assert usage.cache_read_input_tokens > 0 and usage.output_tokens == message.usage.output_tokens
    count = claude.messages.count_tokens(model="auto", system="Answer in one sentence.", messages=question(CAPITAL)["messages"])
    assert usage.input_tokens + usage.cache_read_input_tokens == count.input_tokens


def test_the_ends_of_an_answer(claude):
    cut = claude.messages.create(**question(CAPITAL, max_tokens=2))
    assert cut.stop_reason == "max_tokens"
    stopped = claude.messages.create(**question(CAPITAL, stop_sequences=["nothing", " is"]))
    assert (stopped.stop_reason, stopped.stop_sequence, stopped.content[0].text) == ("stop_sequence", " is", "The capital of France")


def test_a_stream(claude):
    with claude.messages.stream(**question(CAPITAL)) as stream:
        assert "".join(stream.text_stream) == PARIS
        message = stream.get_final_message()
    assert (message.content[0].text, message.stop_reason) == (PARIS, "end_turn")
    whole = claude.messages.create(**question(CAPITAL))
    assert message.usage.output_tokens == whole.usage.output_tokens
    names = [event.type for event in claude.messages.create(**question(CAPITAL), stream=True)]
    assert names[:2] == ["message_start", "content_block_start"]
    assert names[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(names[2:-3]) == {"content_block_delta"}


def test_thinking(claude):
    options = question("What is 27 + 58?", max_tokens=1500, thinking={"type": "enabled", "budget_tokens": 1024})
    message = claude.messages.create(**options)
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert "carry 1" in message.content[0].thinking and message.content[1].text == "27 + 58 = 85."
    with claude.messages.stream(**options) as stream:
        streamed = stream.get_final_message()
    assert [block.model_dump() for block in streamed.content] == [block.model_dump() for block in message.content]


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_and_its_result(claude, stream):
    messages = [{"role": "user", "content": KITCHEN}]
    if stream:
        with claude.messages.stream(**question(messages, tools=[LIGHT])) as events:
            message = events.get_final_message()
    else:
        message = claude.messages.create(**question(messages, tools=[LIGHT]))
    [call] = message.content
    assert (message.stop_reason, call.type, call.name) == ("tool_use", "tool_use", "set_light")
    assert call.input == {"room": "kitchen", "state": "on"}
    messages.append({"role": "assistant", "content": [block.model_dump() for block in message.content]})
    messages.append({"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": '{"ok": true}'}]})
    answer = claude.messages.create(**question(messages, tools=[LIGHT]))
    assert answer.content[0].text == "The light in the kitchen is now on."


def test_calls_can_be_forced(claude):
    [call] = claude.messages.create(**question(CAPITAL, tools=[LIGHT], tool_choice={"type": "any"})).content
    assert (call.type, call.name, sorted(call.input)) == ("tool_use", "set_light", ["room", "state"])
    [call] = claude.messages.create(**question(CAPITAL, tools=[LIGHT], tool_choice={"type": "tool", "name": "set_light"})).content
    assert (call.type, call.name) == ("tool_use", "set_light")
    [text] = claude.messages.create(**question(KITCHEN, tools=[LIGHT], tool_choice={"type": "none"})).content
    assert text.type == "text"


def test_errors_have_their_shape(claude):
    with pytest.raises(anthropic.BadRequestError) as caught:
        claude.messages.create(**question([{"role": "user", "content": ""}]))
    assert caught.value.body["type"] == "error" and caught.value.body["error"]["type"] == "invalid_request_error"
    assert "messages[0]" in caught.value.body["error"]["message"]
    assert caught.value.request_id.startswith("req_")
    with pytest.raises(anthropic.NotFoundError) as caught:
        claude.messages.create(**question(CAPITAL) | {"model": "claude-opus-4"})
    assert caught.value.body["error"]["type"] == "not_found_error"
    with pytest.raises(anthropic.BadRequestError) as caught:
        claude.messages.create(**question("word " * 5000))
    assert caught.value.body["error"]["message"].startswith("prompt is too long: ")


# What agents send


def raw(http, body):
    return http.post("/v1/messages?beta=true", json={"model": "auto", "max_tokens": 200, "temperature": 0} | body, headers={"anthropic-beta": "unknown-2030-01-01"})


def text(answer):
    assert answer.status_code == 200, answer.text
    return "".join(block.get("text", "") for block in answer.json()["content"])


USER = {"role": "user", "content": CAPITAL}


def test_what_agents_send_is_taken(http):
    search = {"type": "web_search_20250305", "name": "web_search", "max_uses": 8}
    body = {
        "messages": [USER | {"content": [{"type": "text", "text": CAPITAL, "cache_control": {"type": "ephemeral"}}]}, {"role": "system", "content": "Be brief."}],
        "system": [{"type": "text", "text": "Answer.", "cache_control": {"type": "ephemeral"}}],
        "thinking": {"type": "adaptive", "display": "omitted"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "output_config": {"effort": "low"},
        "metadata": {"user_id": "x"},
        "service_tier": "auto",
        "mcp_servers": [],
        "container": None,
        "tools": [LIGHT | {"cache_control": {"type": "ephemeral"}, "eager_input_streaming": True}, search],
    }
    answer = raw(http, body)
    assert (answer.status_code, answer.headers["x-gemmad-ignored"]) == (200, "tools[1] web_search_20250305"), answer.text
    message = answer.json()
    assert (message["container"], message["context_management"]) == (None, {"applied_edits": []})
    count = {name: value for name, value in body.items()} | {"max_tokens": 5, "stream": True}
    counted = http.post("/v1/messages/count_tokens", json={"model": "auto"} | count)
    usage = message["usage"]
    assert counted.json()["input_tokens"] == usage["input_tokens"] + usage["cache_read_input_tokens"]


def test_a_thought_that_is_not_shown_comes_back_in_its_signature(claude, http):
    body = {"messages": [{"role": "user", "content": "What is 27 + 58?"}], "max_tokens": 1500}
    shown, hidden = (raw(http, body | {"thinking": {"type": "enabled", "display": display}}).json()["content"][0] for display in ["summarized", "omitted"])
    assert "carry 1" in shown["thinking"] and shown["signature"] and hidden["thinking"] == "" and len(hidden["signature"]) > len(shown["signature"])
    call = [{"type": "tool_use", "id": "t1", "name": "set_light", "input": {}}]
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "x"}]}
    count = lambda blocks: http.post(
        "/v1/messages/count_tokens", json={"model": "auto", "messages": body["messages"] + [{"role": "assistant", "content": blocks + call}, result]}
    ).json()["input_tokens"]
    assert count([shown]) == count([hidden]) > count([])
    events = list(claude.messages.create(**question("What is 27 + 58?", max_tokens=1500, thinking={"type": "adaptive"}), stream=True))
    kinds = [event.delta.type for event in events if event.type == "content_block_delta"]
    assert kinds.count("signature_delta") == 1 and kinds.index("signature_delta") == kinds.count("thinking_delta")


def test_a_begun_answer_is_gone_on_with(http):
    begun = {"role": "assistant", "content": "The capital of France is"}
    assert text(raw(http, {"messages": [USER, begun]})) == " Paris."
    thinking = {"type": "enabled", "budget_tokens": 1024}
    assert text(raw(http, {"messages": [USER, begun], "thinking": thinking})) == " Paris."
    assert text(raw(http, {"messages": [USER, {"role": "assistant", "content": []}]})) == PARIS


def test_a_deferred_tool_is_offered_when_it_was_found(http):
    search = {"name": "ToolSearch", "description": "Find tools", "input_schema": {"type": "object", "properties": {"query": {"type": "string"}}}}
    tools = [search, LIGHT | {"defer_loading": True}]
    found = [
        {"role": "user", "content": KITCHEN},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "ToolSearch", "input": {"query": "light"}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "tool_reference", "tool_name": "set_light"}]}]},
    ]
    count = lambda messages: http.post("/v1/messages/count_tokens", json={"model": "auto", "messages": messages, "tools": tools}).json()["input_tokens"]
    added = [found[0], {"role": "system", "content": [{"type": "tool_addition", "tool": {"type": "tool_reference", "name": "set_light"}}]}]
    assert count(added) > count(found[:1]) + 20
    assert raw(http, {"messages": found, "tools": tools}).status_code == 200


def test_what_went_wrong_before_does_not_end_a_conversation(http):
    call = {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "set_light", "input": {}}]}
    orphan = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t9", "content": "x"}]}
    for messages in [
        [USER, call, USER],
        [USER, orphan],
        [USER, {"role": "assistant", "content": ""}, USER],
        [USER, {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm", "signature": "EqQB"}]}, USER],
        [USER, {"role": "assistant", "content": [{"type": "redacted_thinking", "data": "xx"}]}, USER],
        [USER, {"role": "assistant", "content": [{"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "x"}},
         {"type": "web_search_tool_result", "tool_use_id": "s", "content": []}]}, USER],
    ]:
        answer = raw(http, {"messages": messages, "tools": [LIGHT], "max_tokens": 20})
        assert answer.status_code == 200, (messages, answer.text)
    named = raw(http, {"messages": [USER, call], "tools": [LIGHT]})
    assert named.status_code == 400 and "`messages[1]`" in named.json()["error"]["message"]


def test_a_thread_is_declined_as_its_clients_expect(http):
    for thread in [{"type": "create"}, {"type": "continue", "previous_message_id": "msg_1"}]:
        answer = raw(http, {"messages": [USER], "thread": thread})
        details = answer.json()["error"]["details"]
        assert (answer.status_code, details) == (400, {"error_code": "thread_unsupported_request", "unsupported": ["thread"]})
    assert raw(http, {"messages": [USER], "thread": None}).status_code == 200
