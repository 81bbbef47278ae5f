#!/usr/bin/env python3
"""Makes cases.json: the tokens that transformers finds in each text, with the real vocabulary of Gemma 4.

    pip install transformers
    python tests/data/tokens/make.py LLAMA_CPP/models

The directory holds the test strings that llama.cpp publishes with this vocabulary, `ggml-vocab-gemma-4.gguf.inp`, and
the tokens that it expects, `ggml-vocab-gemma-4.gguf.out` (llama.cpp is under the MIT licence). This
script builds its tokenizer from the vocabulary in models/tokenizer, and stops if it finds other tokens than those
published.
"""

import hashlib
import io
import json
import lzma
import pathlib
import struct
import sys

import tokenizers
import transformers
from samples import CODE, LANGUAGES, LONG, ODD, SPACES, SPELLED, SYMBOLS

HERE = pathlib.Path(__file__).parent
VOCABULARY = HERE.parents[2] / "models/tokenizer/gemma-4-vocab.gguf.xz"
CONTROL, USER_DEFINED = 3, 4
SCALARS = "BbHhIif?"  # of GGUF's value types 0 to 7
STRING, ARRAY = 8, 9


def header(file: io.BytesIO) -> dict[str, object]:
    """The key-value pairs of a GGUF file, version 3, little-endian."""

    def scalar(code: str) -> object:
        return struct.unpack("<" + code, file.read(struct.calcsize("<" + code)))[0]

    def value(kind: int) -> object:
        if kind == STRING:
            return file.read(scalar("Q")).decode()
        if kind == ARRAY:
            inner, length = scalar("I"), scalar("Q")
            return [value(inner) for _ in range(length)]
        return scalar((SCALARS + "  Qqd")[kind])

    magic, version, _tensors, pairs = (scalar(code) for code in ("4s", "I", "Q", "Q"))
    assert (magic, version) == (b"GGUF", 3), (magic, version)
    return {value(STRING): value(scalar("I")) for _ in range(pairs)}


def tokenizer(fields: dict[str, object]) -> transformers.GemmaTokenizer:
    """transformers' tokenizer of the family with the file's tokens and merges."""
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    # A merge is two tokens with a space between; no token holds a space.
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    special = [token for token, kind in zip(tokens, types) if kind in (CONTROL, USER_DEFINED)]
    return transformers.GemmaTokenizer(
        vocab={token: number for number, token in enumerate(tokens)}, merges=merges, extra_special_tokens=special[5:]
    )


def published(models: pathlib.Path) -> list[tuple[str, list[int]]]:
    texts = (models / "ggml-vocab-gemma-4.gguf.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    lines = (models / "ggml-vocab-gemma-4.gguf.out").read_text().split("\n")
    lines = lines[: len(texts)]
    assert len(texts) == len(lines), (len(texts), len(lines))
    return [(text, [int(number) for number in line.split()]) for text, line in zip(texts, lines)]


def main() -> None:
    raw = lzma.decompress(VOCABULARY.read_bytes())
    hf = tokenizer(header(io.BytesIO(raw)))

    def case(name: str, text: str) -> dict[str, object]:
        ids = hf.encode(text, add_special_tokens=False)
        back = hf.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        # `back` only where it is not the text again.
        return {"name": name, "text": text, "ids": ids} | ({"back": back} if back != text else {})

    def long(name: str, text: str, times: int) -> dict[str, object]:
        ids = hf.encode(text * times, add_special_tokens=False)
        digest = hashlib.sha256(struct.pack(f"<{len(ids)}i", *ids)).hexdigest()
        return {"name": name, "text": text, "times": times, "tokens": len(ids), "sha256": digest}

    known = []
    for text, expected in published(pathlib.Path(sys.argv[1])):
        known.append(case("published", text))
        assert known[-1]["ids"] == expected, f"{text!r}: published {expected}, transformers {known[-1]['ids']}"
    plain = LANGUAGES | SYMBOLS | SPACES | CODE | ODD
    lists = {
        "published": known,
        "plain": [case(name, text) for name, text in plain.items()],
        "spelled": [case(name, text) for name, text in SPELLED.items()],
        "long": [long(name, text, times) for name, (text, times) in LONG.items()],
    }
    made = {
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
        "vocabulary": hashlib.sha256(raw).hexdigest(),
    }
    with open(HERE / "cases.json", "w", encoding="utf-8") as file:
        file.write('{"made_with": ' + json.dumps(made))
        for name, cases in lists.items():
            # Escaped: some of these characters cannot be seen, or turn the line around.
            lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
            file.write(f',\n"{name}": [\n{lines}\n]')
        file.write("}\n")
    print({name: len(cases) for name, cases in lists.items()}, (HERE / "cases.json").stat().st_size, "bytes")


if __name__ == "__main__":
    main()
