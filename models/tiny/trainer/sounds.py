"""Sounds with a question and its answer: high and low tones, patterns of tones and speech-like vowels.

Samples are mono at 16 kHz, whole multiples of 40 ms: a sound of n such frames is n soft tokens in both forms of the
model. They are rounded to 16 bits, so that a WAV file holds the very numbers that were trained on. A little noise
covers every sound from end to end: transformers takes log(x + 0.001) of a mel band and llama.cpp
log(max(x, 0.001)), which agree only well above 0.001.
"""

import io
import random
import wave
import zlib
from dataclasses import dataclass

import numpy as np

RATE = 16_000  # samples a second
FRAME = 640  # samples: 40 ms, one soft token
KINDS = ("tone", "pattern", "vowels")
LANGUAGES = ("en", "de", "fr", "es")
TIMBRES = ("pure", "soft", "bright")
NOTES = {"low": range(48, 61), "high": range(79, 92)}  # MIDI: 131-262 Hz and 784-1568 Hz

# resonances of the vocal tract (Hz), near the means usually given for an adult
FORMANTS = {
    "a": (750, 1250, 2500),
    "e": (480, 2000, 2600),
    "i": (280, 2350, 3000),
    "o": (470, 850, 2450),
    "u": (300, 700, 2250),
}
BANDWIDTHS = (80, 100, 140)  # Hz

WORDS = {
    "en": {"high": "high", "low": "low"},
    "de": {"high": "hoch", "low": "tief"},
    "fr": {"high": "aigu", "low": "grave"},
    "es": {"high": "agudo", "low": "grave"},
}
TONES = {
    "en": {"high": "A high tone.", "low": "A low tone."},
    "de": {"high": "Ein hoher Ton.", "low": "Ein tiefer Ton."},
    "fr": {"high": "Un son aigu.", "low": "Un son grave."},
    "es": {"high": "Un tono agudo.", "low": "Un tono grave."},
}
VOWELS = {  # of one, of several
    "en": ("The vowel is {}.", "The vowels are {}."),
    "de": ("Der Vokal ist {}.", "Die Vokale sind {}."),
    "fr": ("La voyelle est {}.", "Les voyelles sont {}."),
    "es": ("La vocal es {}.", "Las vocales son {}."),
}
COUNTED = {  # the thought before the answer
    "en": ("One tone.", "Two tones.", "Three tones.", "Four tones."),
    "de": ("Ein Ton.", "Zwei Töne.", "Drei Töne.", "Vier Töne."),
    "fr": ("Un son.", "Deux sons.", "Trois sons.", "Quatre sons."),
    "es": ("Un tono.", "Dos tonos.", "Tres tonos.", "Cuatro tonos."),
}
COUNTED_VOWELS = {
    "en": ("One vowel.", "Two vowels.", "Three vowels."),
    "de": ("Ein Vokal.", "Zwei Vokale.", "Drei Vokale."),
    "fr": ("Une voyelle.", "Deux voyelles.", "Trois voyelles."),
    "es": ("Una vocal.", "Dos vocales.", "Tres vocales."),
}
QUESTIONS = {
    "tone": {
        "en": ("Is the tone high or low?", "What do you hear?", "Which tone is this, high or low?"),
        "de": ("Ist der Ton hoch oder tief?", "Was hörst du?", "Welcher Ton ist das, hoch oder tief?"),
        "fr": ("Le son est-il aigu ou grave ?", "Qu'entends-tu ?", "Quel son est-ce, aigu ou grave ?"),
        "es": ("¿El tono es agudo o grave?", "¿Qué oyes?", "¿Qué tono es, agudo o grave?"),
    },
    "pattern": {
        "en": ("Which tones do you hear, in order?", "Name the tones in order.", "What is the pattern of the tones?"),
        "de": ("Welche Töne hörst du, der Reihe nach?", "Nenne die Töne der Reihe nach.",
               "Wie ist die Folge der Töne?"),
        "fr": ("Quels sons entends-tu, dans l'ordre ?", "Nomme les sons dans l'ordre.",
               "Quelle est la suite des sons ?"),
        "es": ("¿Qué tonos oyes, en orden?", "Nombra los tonos en orden.", "¿Cuál es la serie de tonos?"),
    },
    "vowels": {
        "en": ("Which vowels do you hear?", "What is being said?", "Write down the vowels."),
        "de": ("Welche Vokale hörst du?", "Was wird gesagt?", "Schreib die Vokale auf."),
        "fr": ("Quelles voyelles entends-tu ?", "Que dit-on ?", "Écris les voyelles."),
        "es": ("¿Qué vocales oyes?", "¿Qué se dice?", "Escribe las vocales."),
    },
}


@dataclass
class Sound:
    """A sound (float32, mono, 16 kHz) with a question about it, the thought before the answer, and the answer."""

    samples: np.ndarray
    question: str
    answer: str
    thought: str
    kind: str


def is_held_out(*key: str | int) -> bool:
    """Whether sounds of this content are kept for the test: a fixed tenth of all contents."""
    return zlib.crc32(repr(key).encode()) % 10 == 1


def fade(samples: np.ndarray, seconds: float) -> np.ndarray:
    """Lets a sound begin and end softly, without a click."""
    ramp = np.sin(np.linspace(0, np.pi / 2, int(seconds * RATE))) ** 2
    shaped = samples.copy()
    shaped[: len(ramp)] *= ramp
    shaped[-len(ramp) :] *= ramp[::-1]
    return shaped


def tone(note: int, timbre: str, seconds: float) -> np.ndarray:
    """A tone of a MIDI note with no, a few or many overtones."""
    frequency = 440 * 2 ** ((note - 69) / 12)
    phase = 2 * np.pi * frequency * np.arange(int(seconds * RATE)) / RATE
    overtones = {"pure": (1,), "soft": (1, 0.3, 0.1), "bright": (1, 0.5, 0.33, 0.25)}[timbre]
    wave_form = sum(a * np.sin((k + 1) * phase) for k, a in enumerate(overtones))
    return fade(wave_form / np.abs(wave_form).max(), 0.02)


def vowel(rng: random.Random, name: str, pitch: float, tract: float, seconds: float) -> np.ndarray:
    """A pulse train of the voice (Hz), gliding a little, through resonators scaled by the length of the tract."""
    length = int(seconds * RATE)
    glide = pitch * np.linspace(1, rng.uniform(0.9, 1.1), length)
    cycles = np.cumsum(glide / RATE)
    pulses = np.diff(np.floor(cycles), prepend=0.0)
    room = 2 * length  # the resonances ring out instead of wrapping round
    z = np.exp(-2j * np.pi * np.arange(room // 2 + 1) / room)
    response = (1 - z) / (1 - 0.95 * z) ** 2  # the glottis falls by 12 dB an octave, the lips give 6 back
    for formant, width in zip(FORMANTS[name], BANDWIDTHS):
        radius = np.exp(-np.pi * width / RATE)
        angle = 2 * np.pi * formant * tract / RATE
        feedback = (-2 * radius * np.cos(angle), radius * radius)
        response *= (1 + sum(feedback)) / (1 + feedback[0] * z + feedback[1] * z * z)
    voice = np.fft.irfft(np.fft.rfft(pulses, room) * response, room)[:length]
    return fade(voice / np.abs(voice).max(), 0.03)


def finish(rng: random.Random, parts: list[np.ndarray], gap: float) -> np.ndarray:
    """Joins the parts with gaps (seconds), at some loudness, in noise, filled up to whole frames of 40 ms."""
    silence = np.zeros(int(gap * RATE))
    pieces = [np.zeros(int(rng.uniform(0.02, 0.12) * RATE))]
    for part in parts:
        pieces += [part, silence]
    joined = np.concatenate(pieces)
    joined = np.pad(joined, (0, -len(joined) % FRAME)) * rng.uniform(0.2, 0.7)
    noise = np.random.default_rng(rng.getrandbits(32)).standard_normal(len(joined))
    return (np.round((joined + rng.uniform(0.004, 0.008) * noise) * 32767) / 32768).astype(np.float32)


def sample(rng: random.Random, held_out: bool, language: str = "en") -> Sound:
    """A sound of a random kind, of a content that is (`held_out`) or is not kept for the test.

    Held out are single tones by note and timbre, patterns by their sequence, vowels by their sequence and, when
    there is only one, by the pitch of the voice.
    """
    kind = rng.choice(KINDS)
    while True:
        names = [rng.choice(tuple(NOTES if kind != "vowels" else FORMANTS)) for _ in range(4)]
        if kind == "tone":
            names, note, timbre = names[:1], rng.choice(NOTES[names[0]]), rng.choice(TIMBRES)
            key = (kind, note, timbre)
        elif kind == "pattern":
            names = names[: rng.randint(2, 4)]
            key = (kind, *names)
        else:
            names, pitch = names[: rng.randint(1, 3)], rng.randint(9, 22) * 10
            key = (kind, *names, pitch) if len(names) == 1 else (kind, *names)
        if is_held_out(*key) == held_out:
            break
    listed = ", ".join(names)
    if kind == "tone":
        samples = finish(rng, [tone(note, timbre, rng.uniform(0.4, 1.4))], 0.05)
        answer = TONES[language][names[0]]
        thought = COUNTED[language][0]
    elif kind == "pattern":
        timbre, seconds = rng.choice(TIMBRES), rng.uniform(0.2, 0.34)
        parts = [tone(rng.choice(NOTES[name]), timbre, seconds) for name in names]
        samples = finish(rng, parts, rng.uniform(0.07, 0.12))
        listed = ", ".join(WORDS[language][name] for name in names)
        answer = listed[0].upper() + listed[1:] + "."
        thought = COUNTED[language][len(names) - 1]
    else:
        tract, seconds = rng.uniform(0.93, 1.1), rng.uniform(0.3, 0.48)
        parts = [vowel(rng, name, pitch + rng.uniform(-5, 5), tract, seconds) for name in names]
        samples = finish(rng, parts, rng.uniform(0.07, 0.12))
        answer = VOWELS[language][len(names) > 1].format(listed)
        thought = COUNTED_VOWELS[language][len(names) - 1]
    return Sound(samples, rng.choice(QUESTIONS[kind][language]), answer, thought, kind)


def wav(samples: np.ndarray) -> bytes:
    """The samples as a WAV file of 16 bits, without loss for what `sample` makes."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(np.round(samples * 32768).clip(-32768, 32767).astype("<i2").tobytes())
    return buffer.getvalue()
