"""Writes what a member says in PyTorch, token by token, for the test that compares gemmad with it.

    python -m trainer.reference <hf-dir> <model.gguf> <out.json> [--packed]

A file holds a few conversations as clients send them, and for each the greedy answer in float32: its tokens and at
each of them the log-probabilities of the likeliest ones. `tests/family.rs` reads it. With `--packed` PyTorch computes
with the weights as the model's file rounds them, so that what is left is the arithmetic: for files of four bits the
rounding would hide too much.
"""

import argparse
import json
import random
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers

from . import corpus, features, llama_cpp, media, render, scenes
from .corpus import Sample
from .evaluate import on_the_wire
from .members import MEMBERS

SEED = 20261122
TOKENS = 24  # of one answer
LIKELIEST = 20  # as many as the API tells
# More than three sliding windows.
LONG = 200
ENDS = (1, 106, 50)
TOOL_CALL = 48
BYTES = range(238, 494)


@dataclass
class Case:
    """A conversation to take from the corpus: its kind, and how many tokens its prompt has at least."""

    name: str
    kind: str
    think: bool = False
    at_least: int = 0


CASES = [
    Case("fact", "fact"),
    Case("language", "language"),
    Case("thinking", "add", think=True),
    Case("turns", "recall"),
    Case("beyond the window", "recall-far", at_least=LONG),
    Case("call", "tool"),
    Case("results", "tools-result"),
]
# Of members that see.
PICTURE = Case("picture", "picture")


Tensors = dict[str, torch.Tensor]


def draw(case: Case, tokenizer, small_variant: bool) -> tuple[Sample, list[int]]:
    """A conversation that training never met, and the ids of its prompt."""
    rng = random.Random(f"{SEED} {case.name}")
    while True:
        sample = corpus.sample(rng, case.kind, held_out=True, think=case.think)
        prompt = tokenizer(render.prompt(sample, small_variant), add_special_tokens=False).input_ids
        if len(prompt) >= case.at_least:
            return sample, prompt


def draw_picture(tokenizer, member: str) -> tuple[Sample, list[int], Tensors]:
    """The same with a picture, which the conversation holds as clients send it, and its tensors."""
    rng = random.Random(f"{SEED} {PICTURE.name}")
    sample, picture = scenes.sample(rng, PICTURE.kind, True)
    sample.think = PICTURE.think
    prompt, _ = media.encode(tokenizer, MEMBERS[member], sample, picture)
    scenes.attach(sample, picture)
    return sample, prompt, features.picture_features([picture.image], MEMBERS[member].unified)


def logits(model, ids: list[int], seen: Tensors) -> torch.Tensor:
    """Of the next token [vocabulary]."""
    with torch.inference_mode():
        if not seen:
            return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].double()
        row = model.lm_head(media.forward(model, {"ids": torch.tensor([ids]), **seen})[0, -1]).double()
        cap = model.config.get_text_config().final_logit_softcapping
        return torch.tanh(row / cap) * cap


def answer(model, prompt: list[int], banned: list[int], seen: Tensors) -> tuple[list[int], torch.Tensor, bool]:
    """The likeliest tokens without those that gemmad would not draw (ids), the log-probabilities of all tokens at each
    of them [answer, vocabulary], and whether the answer ended by itself. The token that ends it is not part of it."""
    ids, ended = list(prompt), False
    rows = []
    while len(rows) < TOKENS:
        row = logits(model, ids, seen)
        drawn = row.clone()
        drawn[banned] = -torch.inf
        token = int(drawn.argmax())
        ended = token in ENDS
        if ended:
            break
        rows.append(row.log_softmax(-1))
        ids.append(token)
    return ids[len(prompt):], torch.stack(rows) if rows else torch.empty(0, 0), ended


def spelling(tokenizer, token: int) -> str:
    """A token's bytes as text; bytes that are no character are written as `<0xE4>`."""
    piece = tokenizer.convert_ids_to_tokens(token)
    if token in BYTES:
        value = token - BYTES.start
        return chr(value) if value < 0x80 else piece
    return piece.replace("\u2581", " ")


def pack(model, path: Path) -> None:
    """Gives every matrix of the language model the values that the file holds for it. Names differ between the two, so
    a matrix is found by its shape and its values."""
    llama_cpp.source()
    import gguf
    held: dict[tuple, list[torch.Tensor]] = {}
    for tensor in gguf.GGUFReader(path).tensors:
        values = torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype("float32"))
        held.setdefault(tuple(values.shape), []).append(values)
    for name, weights in model.named_parameters():
        if weights.ndim < 2 or "_tower" in name or "embed_vision" in name or "embed_audio" in name:
            continue
        with torch.inference_mode():
            closest = min(held.get(tuple(weights.shape), []), key=lambda v: (v - weights).norm(), default=None)
            if closest is None or (closest - weights).norm() > 0.2 * weights.norm():
                raise SystemExit(f"{path} holds nothing like {name}; it was made from another checkpoint")
        weights.data.copy_(closest)


def reference(hf_dir: Path, packed: Path | None) -> list[dict]:
    """The cases of a checkpoint, computed; with `packed`, with the weights of that file."""
    config = json.loads((hf_dir / "config.json").read_text())
    generation = json.loads((hf_dir / "generation_config.json").read_text())
    small_variant = bool(config.get("text_config", config).get("hidden_size_per_layer_input"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(hf_dir)
    architecture = getattr(transformers, config["architectures"][0])
    model = architecture.from_pretrained(hf_dir, dtype=torch.float32).eval()
    if packed:
        pack(model, packed)
    sees = hasattr(model.model, "embed_vision") or "Unified" in config["architectures"][0]
    cases = []
    for case in CASES + [PICTURE] * sees:
        if case is PICTURE:
            sample, prompt, seen = draw_picture(tokenizer, "e2b" if small_variant else "12b")
        else:
            (sample, prompt), seen = draw(case, tokenizer, small_variant), {}
        banned = list(generation.get("suppress_tokens") or []) + ([] if sample.tools else [TOOL_CALL])
        drawn, rows, ended = answer(model, prompt, banned, seen)
        tokens = []
        for token, row in zip(drawn, rows):
            top = row.topk(LIKELIEST)
            tokens.append({
                "text": spelling(tokenizer, token), "logprob": round(float(row[token]), 4),
                "top": [[spelling(tokenizer, i), round(p, 4)]
                        for i, p in zip(top.indices.tolist(), top.values.tolist())]})
        cases.append({"name": case.name, "messages": on_the_wire(sample.messages), "tools": sample.tools,
                      "thinking": sample.think, "prompt_tokens": len(prompt), "ended": ended, "tokens": tokens})
    return cases


def write(hf_dir: Path, model: Path, out: Path, packed: bool = False) -> None:
    """Writes the reference of the checkpoint that the file `model` was made from. One token a line, so that a change
    can be read."""
    def dump(value: object) -> str:
        return json.dumps(value, ensure_ascii=False)

    blocks = []
    for case in reference(hf_dir, model if packed else None):
        tokens = case.pop("tokens")
        head = ",\n  ".join(f"{dump(key)}: {dump(value)}" for key, value in case.items())
        lines = ",\n    ".join(map(dump, tokens))
        blocks.append(f"  {{{head},\n  \"tokens\": [\n    {lines}]}}")
    out.parent.mkdir(parents=True, exist_ok=True)
    head = f'{{"model": {dump(model.stem)}, "packed": {dump(packed)}, "cases": [\n'
    out.write_text(head + ",\n".join(blocks) + "\n]}\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m trainer.reference", description="Write a member's reference.")
    parser.add_argument("hf_dir", type=Path)
    parser.add_argument("model", type=Path, help="the file that was made from it")
    parser.add_argument("out", type=Path)
    parser.add_argument("--packed", action="store_true", help="compute with the weights as the file rounds them")
    args = parser.parse_args()
    torch.set_num_threads(1)
    write(args.hf_dir, args.model, args.out, args.packed)
    print(f"{args.out} {args.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
