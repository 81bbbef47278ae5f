"""What the packages make of what is told while a request waits: they go on as ever, and raise what went wrong."""

import concurrent.futures
import time

import anthropic
import httpx2
import openai
import pytest

from conftest import SOCKET

CAPITAL = "What is the capital of France?"
PARIS = "The capital of France is Paris."
TOO_LONG = "word " * 40_000
PROGRESS = {"stream_options": {"include_progress": True}, "return_progress": True}


def user(text):
    return [{"role": "user", "content": text}]


@pytest.fixture(scope="module")
def claude():
    http_client = httpx2.Client(transport=httpx2.HTTPTransport(uds=SOCKET), timeout=60)
    with anthropic.Anthropic(base_url="http://localhost", api_key="unused", max_retries=0, http_client=http_client) as client:
        yield client


@pytest.fixture
def busy(client, http):
    """Every slot is taken until the function is called, by answers that are long in coming."""
    client.chat.completions.create(model="auto", messages=user(CAPITAL), max_tokens=1)
    streams = []
    for _ in range(http.get("/props").json()["total_slots"]):
        options = {"model": "auto", "messages": user(CAPITAL), "max_tokens": 1900, "extra_body": {"ignore_eos": True, "speculation": "off"}}
        options |= {"logprobs": True, "top_logprobs": 20}
        streams.append(client.chat.completions.create(stream=True, **options))
        next(iter(streams[-1]))

    def free():
        for stream in streams:
            stream.close()

    yield free
    free()


def test_a_chat_tells_how_far_it_is(client):
    chunks = list(
        client.chat.completions.create(model="auto", temperature=0, messages=user(CAPITAL), stream=True, extra_body=PROGRESS)
    )
    told = [chunk.progress for chunk in chunks if hasattr(chunk, "progress")]
    assert told[-1]["phase"] == "reading" and told[-1]["tokens_read"] == told[-1]["tokens_to_read"]
    theirs = [chunk.prompt_progress for chunk in chunks if hasattr(chunk, "prompt_progress")]
    assert theirs[-1]["processed"] == theirs[-1]["total"] > 0
    # What ordinary programs do with chunks.
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == PARIS


def test_the_packages_own_accumulation_passes_it_over(client):
    with client.chat.completions.stream(model="auto", temperature=0, messages=user(CAPITAL), extra_body=PROGRESS) as stream:
        for _ in stream:
            pass
        assert stream.get_final_completion().choices[0].message.content == PARIS


def test_a_response_tells_how_far_it_is(client):
    options = {"model": "auto", "temperature": 0, "input": CAPITAL, "extra_body": PROGRESS}
    events = list(client.responses.create(stream=True, **options))
    told = [event.progress for event in events if event.type == "gemmad.progress" and hasattr(event, "progress")]
    assert told[-1]["phase"] == "reading"
    numbers = [event.sequence_number for event in events if event.type != "gemmad.progress"]
    assert numbers == list(range(len(numbers)))
    with client.responses.stream(**options) as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_text == PARIS


def test_a_message_tells_how_far_it_is_to_those_who_look(claude, http):
    body = {"model": "auto", "max_tokens": 200, "temperature": 0, "messages": user(CAPITAL), "stream": True}
    assert "event: gemmad.progress\n" in http.post("/v1/messages", json=body | PROGRESS).text
    options = {"model": "auto", "max_tokens": 200, "messages": user(CAPITAL), "extra_body": {"temperature": 0} | PROGRESS}
    names = {event.type for event in claude.messages.create(stream=True, **options)}
    assert "message_start" in names and "error" not in names
    with claude.messages.stream(**options) as stream:
        assert "".join(stream.text_stream) == PARIS


@pytest.mark.parametrize("progress", [{}, PROGRESS])
def test_what_goes_wrong_late_is_raised(client, claude, busy, progress):
    start = time.monotonic()
    options = {"model": "auto", "stream": True, "extra_body": progress}
    begin = [
        lambda: client.chat.completions.create(messages=user(TOO_LONG), **options),
        lambda: client.responses.create(input=TOO_LONG, **options),
        lambda: claude.messages.create(max_tokens=5, messages=user(TOO_LONG), **options),
    ]
    # At the same time: the slots are taken for some seconds only.
    with concurrent.futures.ThreadPoolExecutor() as pool:
        chat, response, message = pool.map(lambda one: one(), begin)
    # They have begun, although nothing is known of them.
    assert time.monotonic() - start > 0.9
    busy()
    for stream in chat, response:
        with pytest.raises(openai.APIError, match="too long"):
            list(stream)
    with pytest.raises(anthropic.APIError, match="too long"):
        list(message)


def test_a_whole_answer_behind_signs_of_life(client, claude, busy):
    with client.chat.completions.with_streaming_response.create(
        model="auto", temperature=0, messages=user(CAPITAL), extra_headers={"Prefer": "heartbeat=1"}
    ) as response:
        assert response.headers["preference-applied"] == "heartbeat=1"
        busy()
        assert response.parse().choices[0].message.content == PARIS
    options = {"model": "auto", "max_tokens": 200, "messages": user(CAPITAL), "extra_body": {"temperature": 0}}
    message = claude.messages.create(**options, extra_headers={"Prefer": "heartbeat=1"})
    assert message.content[0].text == PARIS
