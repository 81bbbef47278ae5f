"""Training of a member's text model."""

import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as functional
from torch.utils.data import DataLoader, IterableDataset
from transformers import AutoTokenizer, Gemma4ForCausalLM
from transformers.models.gemma4 import modeling_gemma4

from .data import batches
from .members import MEMBERS, Member, text_model
from .optim import Checkpoint, Optimizers
from .paths import TOKENIZER

TOKENS = 4096  # places of a batch
# Of the second round: places of a batch, and the part of the learning rate.
POLISH_TOKENS, POLISH_LR = 2048, 0.3
BALANCE = 0.01  # weight of the loss that keeps the experts in use alike


class Stream(IterableDataset):
    def __init__(self, member: Member, seed: int, places: int):
        self.member, self.seed, self.places = member, seed, places

    def __iter__(self):
        torch.set_num_threads(1)
        return batches(AutoTokenizer.from_pretrained(TOKENIZER), self.member, self.seed, self.places)


def all_experts(self, hidden: torch.Tensor, chosen: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """The experts' output as `Gemma4TextExperts.forward` has it, computed for all of them.

    With so few and so small experts that is faster than gathering each one's tokens, and its shapes do not depend on
    the data, as compilation needs. hidden [tokens, width]; chosen, shares [tokens, experts per token].
    """
    tokens, experts = hidden.shape[0], self.num_experts
    share = torch.zeros(tokens, experts).scatter_add(1, chosen, shares)
    # One large product each way: as products of each expert they take twice the time.
    gate, up = functional.linear(hidden, self.gate_up_proj.flatten(0, 1)).view(tokens, experts, -1).chunk(2, dim=-1)
    inner = self.act_fn(gate) * up * share[:, :, None]
    return inner.flatten(1) @ self.down_proj.transpose(1, 2).flatten(0, 1)


def balance(model: torch.nn.Module, scores: list[torch.Tensor]) -> torch.Tensor:
    """1 if every expert gets as much as the others, more if not (Shazeer et al. 2017, in the form of Switch)."""
    losses = []
    for probabilities in scores:
        chosen = functional.one_hot(probabilities.topk(2).indices, probabilities.shape[-1]).float().sum(1).mean(0)
        losses.append((chosen * probabilities.mean(0)).sum() * probabilities.shape[-1] / 2)
    return torch.stack(losses).mean()


def head_loss(model, hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, float]:
    """The weighted cross-entropy, and that of the model's own tokens. Only places that count go through the head."""
    counts = weights[:, 1:] > 0
    logits = model.lm_head(hidden[:, :-1][counts])
    cap = model.config.get_text_config().final_logit_softcapping
    losses = functional.cross_entropy(torch.tanh(logits / cap) * cap, ids[:, 1:][counts], reduction="none")
    weight = weights[:, 1:][counts]
    own = weight == 1
    return (losses * weight).sum() / weight.sum(), losses[own].mean().item()


def train(name: str, steps: int, out: Path, log: Callable = print) -> None:
    torch.manual_seed(1)
    model = text_model(MEMBERS[name])
    lessons, optimizers = Stream(MEMBERS[name], 1, TOKENS), Optimizers(model, steps)
    learn(model, lessons, optimizers, out, lambda said: log(f"{name} {said}", flush=True))


def polish(name: str, before: Path, steps: int, out: Path, log: Callable = print) -> None:
    """A second round of the same from the checkpoint `before`, gentler, with other conversations."""
    torch.manual_seed(3)
    model = Gemma4ForCausalLM.from_pretrained(before, dtype=torch.float32)
    lessons, optimizers = Stream(MEMBERS[name], 3, POLISH_TOKENS), Optimizers(model, steps, lambda parameter: POLISH_LR)
    learn(model, lessons, optimizers, out, lambda said: log(f"{name} again {said}", flush=True))


def learn(
    model: Gemma4ForCausalLM, lessons: Stream, optimizers: Optimizers, out: Path, log: Callable[[str], None]
) -> None:
    torch.set_num_threads(1)
    modeling_gemma4.Gemma4TextExperts.forward = all_experts
    scores: list[torch.Tensor] = []
    for layer in model.model.layers:
        if layer.enable_moe_block:
            layer.router.register_forward_hook(lambda module, inputs, output: scores.append(output[0]))
    log(f"{sum(p.numel() for p in model.parameters()):,} parameters")

    def forward(ids: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        scores.clear()
        return model.model(input_ids=ids, use_cache=False).last_hidden_state, list(scores)

    # What inductor makes of the experts takes twice the time of the plain operations.
    if not model.config.enable_moe_block:
        forward = torch.compile(forward, dynamic=True)
    stream = iter(DataLoader(lessons, batch_size=None, num_workers=1, prefetch_factor=8))
    model.train()
    checkpoint = Checkpoint(out, model, optimizers)
    made, steps = checkpoint.resume(stream), optimizers.steps
    start, seen, average = time.monotonic(), 0, None
    for step in range(made + 1, steps + 1):
        ids, weights = next(stream)
        hidden, routed = forward(ids)
        loss, own = head_loss(model, hidden, ids, weights)
        if routed:
            loss = loss + BALANCE * balance(model, routed)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizers.step()
        checkpoint.keep(step)
        seen += ids.numel()
        average = own if average is None else 0.95 * average + 0.05 * own
        if step % 25 == 0:
            took = time.monotonic() - start
            log(f"step {step}/{steps} {took:.0f} s, {seen / took:.0f} tokens/s, loss {average:.4f}")
    # The family's sampling, which the converter writes into the file.
    model.generation_config.update(eos_token_id=[1, 106, 50], bos_token_id=2, pad_token_id=0, do_sample=True,
                                   temperature=1.0, top_k=64, top_p=0.95)
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(TOKENIZER).save_pretrained(out)
    checkpoint.drop()
