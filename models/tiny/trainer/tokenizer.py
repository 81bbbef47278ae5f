"""The Gemma 4 tokenizer in small: 2048 pieces.

Ids 0 to 493 (control tokens, runs of newlines and blanks, bytes) are those of the real vocabulary, and so is the way
of splitting: a blank becomes U+2581, nothing is split beforehand but runs of newlines, what has no piece becomes
bytes. Then come single characters, pieces learnt from the corpus, and last the seven media markers, which have ids
above 255999 in the real vocabulary.
"""

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import GemmaTokenizer

from . import corpus, render
from .llama_cpp import source
from .paths import TEMPLATE, TOKENIZER

SIZE = 2048
SHARED = 494
MEDIA = ["<|image>", "<|audio>", "<|image|>", "<|audio|>", "<image|>", "<audio|>", "<|video|>"]
MARKER_TYPES = (3, 4)  # control and user-defined, as llama.cpp's gguf numbers them
CONVERSATIONS = 30_000


def texts(markers: list[str]) -> Iterator[str]:
    rng = random.Random(7)
    apart = re.compile("|".join(map(re.escape, sorted(markers, key=len, reverse=True))))
    for _ in range(CONVERSATIONS):
        sample = corpus.sample(rng)
        yield from filter(None, apart.split(render.prompt(sample, True) + render.completion(sample)))


def learn(characters: list[str], markers: list[str]) -> list[tuple[str, str]]:
    """Merges in the order of their use. They are learnt within words, digits alone; used without such a split."""
    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.Replace(" ", "▁")
    words = Regex(r"▁?\p{L}+|\p{N}|▁|\n+|[^\p{L}\p{N}▁\n]")
    learner.pre_tokenizer = pre_tokenizers.Split(words, "isolated")
    learner.train_from_iterator(
        texts(markers),
        trainers.BpeTrainer(
            vocab_size=20_000,
            min_frequency=8,
            initial_alphabet=characters,
            limit_alphabet=len(characters) + 5,
            show_progress=False,
        ),
    )
    return [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]


def build(out: Path = TOKENIZER) -> None:
    root = source()
    import gguf  # of the same source

    fields = gguf.GGUFReader(root / "models/ggml-vocab-gemma-4.gguf").fields
    pieces, types, real_merges = (
        fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "token_type", "merges")
    )
    shared = pieces[:SHARED]
    assert shared[-1] == "<0xFF>", "the real vocabulary is not the one this was written for"

    merges = []
    for merge in real_merges:
        cut = merge.find(" ", 1)
        left, right = merge[:cut], merge[cut + 1 :]
        if left + right in shared and len(set(left + right)) == 1:
            merges.append((left, right))
    characters = [chr(c) for c in range(33, 127)] + ["▁", "\t"] + [chr(c) for c in range(0xA1, 0x100) if c != 0xAD]
    characters = [c for c in characters + list("–—‘’“”…€•→") if c not in shared]

    vocabulary = {piece: index for index, piece in enumerate(shared + characters)}
    assert len(vocabulary) == SHARED + len(characters)
    markers = [piece for piece, kind in zip(pieces, types, strict=True) if kind in MARKER_TYPES]
    for left, right in learn(characters, markers):
        if len(vocabulary) == SIZE - len(MEDIA):
            break
        if left in vocabulary and right in vocabulary and "\n" not in left + right:
            vocabulary.setdefault(left + right, len(vocabulary))
            merges.append((left, right))
    for index in range(len(vocabulary), SIZE - len(MEDIA)):
        vocabulary[f"<filler{index}>"] = index
    for marker in MEDIA:
        vocabulary[marker] = len(vocabulary)
    assert sorted(vocabulary.values()) == list(range(SIZE))

    named = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")
    extra = [piece for piece, kind in zip(shared, types, strict=False) if kind in MARKER_TYPES and piece not in named]
    tokenizer = GemmaTokenizer(vocab=vocabulary, merges=merges, extra_special_tokens=extra + MEDIA)
    tokenizer.chat_template = TEMPLATE.read_text()
    tokenizer.save_pretrained(out)
