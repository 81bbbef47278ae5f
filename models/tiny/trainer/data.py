"""Batches of conversations, from a seed."""

import random
from collections.abc import Iterator

import torch

from . import corpus, render
from .members import Member

LONGEST = 1024  # tokens of a conversation
POOL = 384  # conversations that are sorted by length at a time
CONTEXT_SHARE, CONTEXT_WEIGHT = 0.1, 0.5  # of the tokens that the model does not write

TURN, TURN_END, CALL_END, RESPONSE_END, NEWLINE = 105, 106, 50, 51, 107


def weights(
    prompt: list[int], completion: list[int], model_token: int, first_too: bool, rng: random.Random
) -> list[float]:
    """How much each token counts: fully if the model writes it, in earlier turns as well.

    The first token of an earlier turn only with `first_too`: where the template drops a thought, or opens an empty
    one for the answer that is asked for, it is not the one that the model would write.
    """
    result = [CONTEXT_WEIGHT if rng.random() < CONTEXT_SHARE else 0.0 for _ in prompt]
    writing = first = False
    for i, token in enumerate(prompt):
        if writing:
            result[i] = 1.0 if first_too or not first else 0.0
            writing, first = token not in (TURN_END, CALL_END), False
        if token == RESPONSE_END or prompt[max(0, i - 2) : i + 1] == [TURN, model_token, NEWLINE]:
            writing = first = True
    return result + [1.0] * len(completion)


def conversations(tokenizer, member: Member, seed: int) -> Iterator[tuple[list[int], list[float]]]:
    rng = random.Random(seed)
    model_token = tokenizer.convert_tokens_to_ids("model")
    while True:
        sample = corpus.sample(rng)
        prompt, completion = (
            tokenizer(text, add_special_tokens=False).input_ids
            for text in (render.prompt(sample, member.small_variant), render.completion(sample))
        )
        if len(prompt) + len(completion) <= LONGEST:
            first_too = member.small_variant and not sample.think
            yield prompt + completion, weights(prompt, completion, model_token, first_too, rng)


def batches(tokenizer, member: Member, seed: int, tokens: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Ids (long) and weights (float), each [conversations, length], of at most `tokens` places, padded with 0."""
    source, rng = conversations(tokenizer, member, seed), random.Random(seed)
    while True:
        pool = sorted((next(source) for _ in range(POOL)), key=lambda pair: len(pair[0]))
        groups: list[list] = [[]]
        for pair in pool:
            if groups[-1] and (len(groups[-1]) + 1) * len(pair[0]) > tokens:
                groups.append([])
            groups[-1].append(pair)
        rng.shuffle(groups)
        for group in groups:
            yield padded([ids for ids, _ in group], [weight for _, weight in group])


def padded(ids: list[list[int]], weights: list[list[float]]) -> tuple[torch.Tensor, torch.Tensor]:
    pad = torch.nn.utils.rnn.pad_sequence
    return pad(list(map(torch.tensor, ids)), batch_first=True), pad(list(map(torch.tensor, weights)), batch_first=True)
