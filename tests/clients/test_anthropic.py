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
    assert "tokens" in caught.value.body["error"]["message"]
