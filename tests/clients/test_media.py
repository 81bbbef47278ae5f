"""Pictures and sounds, as the packages send them."""

import base64
import wave
from pathlib import Path

import openai
import pytest

DATA = Path(__file__).parents[1] / "data"
TINY = "tiny-e2b-q8_0"


def base64_of(path):
    return base64.b64encode((DATA / path).read_bytes()).decode()


def ask(client, *parts):
    answer = client.chat.completions.create(model=TINY, temperature=0, messages=[{"role": "user", "content": list(parts)}])
    return answer.choices[0].message.content


def test_a_picture_is_seen(client):
    url = f"data:image/png;base64,{base64_of('pictures/red-circle.png')}"
    text = ask(client, {"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What is in the picture?"})
    assert "red" in text and "circle" in text
    answer = client.responses.create(
        model=TINY,
        temperature=0,
        input=[
            {
                "role": "user",
                "content": [
                    {"type": "input_image", "image_url": url, "detail": "auto"},
                    {"type": "input_text", "text": "What is in the picture?"},
                ],
            }
        ],
    )
    assert answer.output_text == text


def test_a_sound_is_heard(client):
    sound = {"data": base64_of("sounds/tone-3.wav"), "format": "wav"}
    text = ask(client, {"type": "input_audio", "input_audio": sound}, {"type": "text", "text": "What do you hear?"})
    assert text == "A high tone."


def test_a_sound_is_transcribed(client):
    path = DATA / "sounds/vowels-1.wav"
    whole = client.audio.transcriptions.create(model=TINY, file=path)
    assert whole.text and whole.usage.input_tokens > 31
    assert client.audio.transcriptions.create(model=TINY, file=path, response_format="text").strip() == whole.text
    events = list(client.audio.transcriptions.create(model=TINY, file=path, stream=True))
    assert "".join(event.delta for event in events[:-1]).strip() == events[-1].text == whole.text


def test_a_long_sound_is_transcribed_with_times(client, tmp_path):
    path = tmp_path / "long.wav"
    with wave.open(str(DATA / "sounds/tone-1.wav")) as tone, wave.open(str(path), "wb") as long:
        long.setparams(tone.getparams())
        samples = tone.readframes(tone.getnframes())
        for _ in range(12):
            long.writeframes(samples * 2 + bytes(16_000))
    transcribe = lambda **fields: client.audio.transcriptions.create(model="whisper-1", file=path, language="en", **fields)
    whole = transcribe()
    # 25 tokens a second, in two pieces at least.
    assert whole.text and whole.usage.input_tokens > 35 * 25
    events = list(transcribe(stream=True))
    assert "".join(event.delta for event in events[:-1]) == events[-1].text == whole.text
    assert events[-1].type == "transcript.text.done" and events[-1].usage.total_tokens == whole.usage.total_tokens
    times = transcribe(response_format="verbose_json", timestamp_granularities=["segment"])
    assert (times.language, times.usage.type) == ("en", "duration")
    assert 35 < times.duration == times.segments[-1].end == times.usage.seconds
    assert all(before.end == after.start for before, after in zip(times.segments, times.segments[1:]))
    assert all(segment.avg_logprob < 0 and segment.text for segment in times.segments)
    assert transcribe(response_format="srt").count(" --> ") == len(times.segments)
    assert transcribe(response_format="vtt").startswith("WEBVTT")
    with pytest.raises(openai.BadRequestError) as refused:
        transcribe(response_format="verbose_json", timestamp_granularities=["word"])
    assert refused.value.param == "timestamp_granularities[]"


def test_files_are_read(client):
    said = ("Notes\n" * 3).encode()
    with_file = lambda file: client.chat.completions.create(
        model=TINY, max_tokens=4, messages=[{"role": "user", "content": [{"type": "file", "file": file}, {"type": "text", "text": "Hi"}]}]
    )
    data = {"filename": "notes.txt", "file_data": f"data:text/plain;base64,{base64.b64encode(said).decode()}"}
    tokens = with_file(data).usage.prompt_tokens
    kept = client.files.create(file=("notes.txt", said), purpose="user_data")
    assert kept.filename == "notes.txt" and kept.bytes == len(said)
    assert with_file({"file_id": kept.id}).usage.prompt_tokens == tokens
    response = client.responses.create(
        model=TINY,
        max_output_tokens=16,
        input=[{"role": "user", "content": [{"type": "input_file", "file_id": kept.id}, {"type": "input_text", "text": "Hi"}]}],
    )
    assert response.usage.input_tokens == tokens
    assert [file.id for file in client.files.list()] == [kept.id]
    assert client.files.content(kept.id).read() == said
    assert client.files.delete(kept.id).deleted
