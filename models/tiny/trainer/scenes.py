"""Conversations about a picture or a sound."""

import base64
import io
import random

from . import corpus, pictures, sounds
from .corpus import Sample

KINDS = ("picture", "sound")


def sample(rng: random.Random, kind: str, held_out: bool) -> tuple[Sample, pictures.Picture | sounds.Sound]:
    """A conversation whose last message asks about a picture or a sound, and that."""
    language = "en" if rng.random() < 0.6 else rng.choice(["de", "fr", "es"])
    medium = (pictures if kind == "picture" else sounds).sample(rng, held_out, language)
    parts = [{"type": "image" if kind == "picture" else "audio"}, {"type": "text", "text": medium.question}]
    # Clients put the medium before the question or behind it.
    parts = parts[::-1] if rng.random() < 0.4 else parts
    messages = corpus.maybe_system(rng) if rng.random() < 0.3 else []
    messages += corpus.chatter(rng, 1) if rng.random() < 0.15 else []
    made = Sample(kind, [*messages, {"role": "user", "content": parts}], medium.answer, medium.thought)
    made.think = rng.random() < 0.15
    return made, medium


def attach(made: Sample, picture: pictures.Picture) -> None:
    """Puts the picture itself into the message, as clients send it."""
    file = io.BytesIO()
    picture.image.save(file, "PNG", optimize=True)
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    parts = made.messages[-1]["content"]
    parts[[part["type"] for part in parts].index("image")] = {"type": "image_url", "image_url": {"url": url}}
