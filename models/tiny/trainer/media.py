"""Training of a member's eyes and ears: its text model goes on learning, beside towers that begin from nothing.

    python -m trainer.media <checkpoint> [--cases N]    counts what it answers to held-out pictures and sounds
"""

import argparse
import random
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader, IterableDataset
from transformers import (
    AutoConfig,
    AutoTokenizer,
    Gemma4ForConditionalGeneration,
    Gemma4UnifiedForConditionalGeneration,
)

from . import data, features, render, scenes
from .corpus import Sample
from .eyes import Lessons, shown
from .members import HIDDEN, MEMBERS, Member, conditional_model
from .optim import Checkpoint, Optimizers
from .paths import TOKENIZER
from .train import head_loss

PICTURES, SOUNDS = 10, 16  # of a batch
TEXT_TOKENS = 2048  # places of the text batch that goes with each media batch: two conversations at least
LESSONS = 0.5  # weight of what a member without a tower learns about the soft tokens themselves
TEXT_LR = 0.3  # of the towers' learning rate, so that nothing is forgotten


def encode(tokenizer, member: Member, made: Sample, medium) -> tuple[list[int], list[int]]:
    """Ids of the prompt, with as many soft tokens as the medium takes, and of the completion."""
    prompt = render.prompt(made, member.small_variant)
    if made.kind == "picture":
        prompt = features.expand_markers(prompt, pictures=[features.picture_tokens(medium.image)])
    else:
        prompt = features.expand_markers(prompt, sounds=[features.sound_tokens(medium.samples, member.unified)])
    return tuple(tokenizer(text, add_special_tokens=False).input_ids for text in (prompt, render.completion(made)))


def batches(tokenizer, member: Member, seed: int) -> Iterator[dict[str, torch.Tensor]]:
    """`ids`, `weights`, and the tensors of the media, named as the models take them. Three of five are of pictures."""
    rng = random.Random(seed)
    model_token = tokenizer.convert_tokens_to_ids("model")
    soft = torch.tensor(tokenizer.convert_tokens_to_ids(["<|image|>", "<|audio|>"]))
    while True:
        kind = "picture" if rng.random() < 0.6 else "sound"
        made = [scenes.sample(rng, kind, False) for _ in range(PICTURES if kind == "picture" else SOUNDS)]
        encoded = [encode(tokenizer, member, *pair) for pair in made]
        weighed = [
            data.weights(prompt, completion, model_token, member.small_variant and not pair[0].think, rng)
            for (prompt, completion), pair in zip(encoded, made, strict=True)
        ]
        batch = collate(member, made, encoded, weighed)
        batch["weights"][torch.isin(batch["ids"], soft)] = 0.0
        yield batch


def collate(member: Member, made: list, encoded: list, weighed: list[list[float]]) -> dict[str, torch.Tensor]:
    """One batch of conversations that are all about pictures or all about sounds."""
    batch = dict(zip(("ids", "weights"), data.padded([p + c for p, c in encoded], weighed), strict=True))
    media = [medium for _, medium in made]
    if made[0][0].kind == "picture":
        batch["shows"] = torch.cat([shown(medium) for medium in media])
        return batch | features.picture_features([medium.image for medium in media], member.unified)
    return batch | features.sound_features([medium.samples for medium in media], member.unified)


class Stream(IterableDataset):
    """Media batches, each followed by one of text."""

    def __init__(self, member: Member, seed: int):
        self.member, self.seed = member, seed

    def __iter__(self):
        torch.set_num_threads(1)
        tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
        text = data.batches(tokenizer, self.member, self.seed, TEXT_TOKENS)
        for batch in batches(tokenizer, self.member, self.seed):
            yield batch
            yield dict(zip(("ids", "weights"), next(text), strict=True))


def masks(config, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """Who sees whom, [conversations, 1, length, length], per type of layer.

    transformers would make them, but none where the plain causal one does: compiled code would be compiled anew for
    each of those cases. Where the member has it, the soft tokens of a picture see each other in the sliding layers.
    """
    text = config.get_text_config()
    place = torch.arange(ids.shape[1])
    back = place[:, None] - place
    causal = (back >= 0).expand(len(ids), 1, -1, -1)
    near = causal
    if text.use_bidirectional_attention == "vision":
        soft = ids == config.image_token_id
        begins = soft & ~soft.roll(1, 1)
        picture = begins.cumsum(1) * soft
        near = causal | ((picture[:, None, :, None] == picture[:, None, None, :]) & soft[:, None, None, :])
    near = near & (back < text.sliding_window)
    return {"full_attention": causal.contiguous(), "sliding_attention": near.contiguous()}


def forward(model, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The hidden states [conversations, length, width] before the head."""
    ids = batch["ids"]
    media = {key: value for key, value in batch.items() if key not in ("ids", "weights", "shows")}
    return model.model(
        input_ids=ids, attention_mask=masks(model.config, ids), use_cache=False, **media
    ).last_hidden_state


def train(name: str, text: Path, eyes: Path | None, steps: int, out: Path, log=print) -> None:
    """`steps` of a media batch and a text batch each, from the text model in `text`, with the vision tower `eyes`,
    which stays as it is.

    A member without a tower has its lessons in seeing here: its own states at soft tokens tell what is there.
    """
    member = MEMBERS[name]
    torch.manual_seed(2)
    torch.set_num_threads(1)
    model = conditional_model(member, text)
    lessons = None
    if eyes:
        # They see already. What comes back to them through a text model that cannot read them yet would undo it: after
        # a thousand steps they told a quarter of the shapes instead of 97 %.
        model.model.vision_tower.load_state_dict(load_file(eyes))
        model.model.vision_tower.requires_grad_(False)
    else:
        lessons = Lessons(HIDDEN)
    log(f"{name} media: {sum(p.numel() for p in model.parameters()):,} parameters")
    taught = nn.ModuleDict({"model": model, "lessons": lessons}) if lessons else model
    optimizers = Optimizers(taught, steps, lambda parameter: TEXT_LR if "language_model" in parameter else 1.0)
    model.model.language_model.forward = torch.compile(model.model.language_model.forward, dynamic=True)
    stream = iter(DataLoader(Stream(member, 2), batch_size=None, num_workers=1, prefetch_factor=8))
    model.train()
    checkpoint = Checkpoint(out, taught, optimizers)
    made = checkpoint.resume(stream, 2)
    start, average = time.monotonic(), {}
    for step in range(made + 1, steps + 1):
        for _ in range(2):
            batch = next(stream)
            kind = "picture" if "pixel_values" in batch else "sound" if "input_features" in batch else "text"
            hidden = forward(model, batch)
            loss, own = head_loss(model, hidden, batch["ids"], batch["weights"])
            if lessons and kind == "picture":
                loss = loss + LESSONS * lessons(hidden[batch["ids"] == model.config.image_token_id], batch["shows"])[0]
            loss.backward()
            average[kind] = own if kind not in average else 0.95 * average[kind] + 0.05 * own
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizers.step()
        checkpoint.keep(step)
        if step % 25 == 0:
            losses = ", ".join(f"{kind} {value:.4f}" for kind, value in sorted(average.items()))
            log(f"{name} media step {step}/{steps} {time.monotonic() - start:.0f} s, loss: {losses}", flush=True)
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(TOKENIZER).save_pretrained(out)
    checkpoint.drop()


@torch.no_grad()
def exact(model, batch: dict[str, torch.Tensor], completions: list[int]) -> list[bool]:
    """Whether greedy decoding would write each completion, of so many tokens, exactly.

    It would if every token of it is the likeliest one after those before it, which a single pass tells.
    """
    best = model.lm_head(forward(model, batch)).argmax(-1)[:, :-1] == batch["ids"][:, 1:]
    ends = (batch["weights"] > 0).long().cumsum(1).argmax(1)
    return [
        bool(row[end - count : end].all()) for row, end, count in zip(best, ends.tolist(), completions, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m trainer.media", description="Ask about held-out pictures and sounds."
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--cases", type=int, default=400, help="of pictures, and of sounds")
    given = parser.parse_args()
    torch.set_num_threads(1)
    kind = Gemma4UnifiedForConditionalGeneration if unified(given.checkpoint) else Gemma4ForConditionalGeneration
    model, tokenizer = kind.from_pretrained(given.checkpoint).eval(), AutoTokenizer.from_pretrained(given.checkpoint)
    member, rng = MEMBERS["12b" if unified(given.checkpoint) else "e2b"], random.Random(777)
    tally: dict[str, list[bool]] = defaultdict(list)
    for kind in scenes.KINDS:
        for _ in range(given.cases // 20):
            made = [scenes.sample(rng, kind, True) for _ in range(20)]
            encoded = [encode(tokenizer, member, *pair) for pair in made]
            batch = collate(member, made, encoded, [[1.0] * len(p + c) for p, c in encoded])
            for right, (_, medium) in zip(exact(model, batch, [len(c) for _, c in encoded]), made, strict=True):
                tally[f"{kind}: {medium.kind}"].append(right)
    print("| task | right |\n|---|---|")
    for task, results in tally.items():
        print(f"| {task} | {sum(results)} of {len(results)}, {100 * sum(results) / len(results):.1f} % |")


def unified(checkpoint: Path) -> bool:
    return "Unified" in AutoConfig.from_pretrained(checkpoint).architectures[0]


if __name__ == "__main__":
    main()
