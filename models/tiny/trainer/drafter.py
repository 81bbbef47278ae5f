"""The drafter (`gemma4-assistant`): four small layers that guess the target's next tokens.

A drafter has no keys and values. Its layers ask those of the target: the sliding ones those of the target's last
sliding layer that has its own, the global one those of the last global layer. Query n is made of token n (in the
target's embedding) and the target's final state at n-1; it stands at position n, sees the places before n, and
guesses token n+1. For the next guess the drafter's own state takes the place of the target's; position and places
seen stay as they were, so nothing needs to be computed for drafted tokens that are refused.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import torch
import torch.nn.functional as functional
import transformers
from transformers import AutoConfig, AutoTokenizer, Gemma4AssistantConfig, Gemma4AssistantForCausalLM, Gemma4TextConfig

from .data import batches
from .members import MEMBERS, F, S
from .optim import Checkpoint, Optimizers

LAYERS = [S, S, S, F]
HIDDEN = 64
DEPTH = 3  # guesses in a row that it learns
TOKENS = 4096  # places of a batch
SEED = 2
SCALES = [0.9, 0.95, 0.85, 1.0]


def made(make: Callable[[], Gemma4AssistantForCausalLM]) -> Gemma4AssistantForCausalLM:
    """What `make` makes. transformers 5.23 asks for a drafter whose layers all share, and then refuses to make it."""
    with patch.object(Gemma4TextConfig, "kv_sharing_modes", property(lambda self: ["reuse"] * self.num_hidden_layers)):
        model = make()
    # From this layer on it would drop places whose logits nobody reads, and takes Per-Layer Embeddings for granted.
    model.model.first_kv_shared_layer_idx = None
    return model


def build(target: Gemma4TextConfig) -> Gemma4AssistantForCausalLM:
    """The untrained drafter of a target: its attention has the target's shapes, its states are half as wide."""
    near, far = (target.per_layer_config[target.layer_types.index(kind)] for kind in (S, F))
    text = Gemma4TextConfig(
        vocab_size=target.vocab_size, hidden_size=HIDDEN, intermediate_size=2 * HIDDEN, tie_word_embeddings=True,
        num_hidden_layers=len(LAYERS), num_kv_shared_layers=len(LAYERS), layer_types=LAYERS,
        num_attention_heads=target.num_attention_heads, attention_k_eq_v=target.attention_k_eq_v,
        head_dim=near.head_dim, num_key_value_heads=near.num_key_value_heads,
        global_head_dim=far.head_dim, num_global_key_value_heads=far.num_key_value_heads,
        sliding_window=target.sliding_window, rope_parameters=target.rope_parameters,
        max_position_embeddings=target.max_position_embeddings, hidden_size_per_layer_input=0,
        vocab_size_per_layer_input=0, use_double_wide_mlp=False, pad_token_id=target.pad_token_id,
        bos_token_id=target.bos_token_id, eos_token_id=target.eos_token_id)
    model = made(lambda: Gemma4AssistantForCausalLM(Gemma4AssistantConfig(
        text_config=text, backbone_hidden_size=target.hidden_size, use_ordered_embeddings=False)))
    with torch.no_grad():
        for layer, scale in zip(model.model.layers, SCALES, strict=True):
            layer.layer_scalar.fill_(scale)
            layer.self_attn.q_norm.weight.fill_(layer.self_attn.head_dim**-0.25)
            layer.post_attention_layernorm.weight.fill_(0.3)
            layer.post_feedforward_layernorm.weight.fill_(0.3)
    return model


def load(directory: Path) -> Gemma4AssistantForCausalLM:
    """A trained drafter, ready to guess."""
    return made(lambda: Gemma4AssistantForCausalLM.from_pretrained(directory, dtype=torch.float32)).eval()


class Target:
    """A trained member that is only read."""

    def __init__(self, directory: Path):
        kind = getattr(transformers, AutoConfig.from_pretrained(directory).architectures[0])
        model = kind.from_pretrained(directory, dtype=torch.float32).eval().requires_grad_(False)
        self.head = model.lm_head
        self.text = getattr(model.model, "language_model", model.model)
        self.config = self.text.config
        if not self.config.num_kv_shared_layers:
            # transformers hands out keys and values only of layers that others share, and drafters are forgotten.
            for layer in self.text.layers[-2:]:
                layer.self_attn.store_full_length_kv = True

    def read(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, dict]:
        """Token embeddings and final states [conversations, length, width], and keys and values per type of layer."""
        output = self.text(input_ids=ids, use_cache=False, return_shared_kv_states=True)
        return self.text.embed_tokens(ids), output.last_hidden_state, {k: output.shared_kv_states[k] for k in (S, F)}

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        cap = self.config.final_logit_softcapping
        return torch.tanh(self.head(states) / cap) * cap


def guesses(drafter: Gemma4AssistantForCausalLM, target: Target, ids: torch.Tensor, own: torch.Tensor,
            ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """For each guess in a row the logits of drafter and target, [guesses, vocabulary], where the model writes.

    ids, own: [conversations, length]; own where the token is the model's. Tokens between query and guess are those of
    the conversation. Only queries of which a guess is asked are computed, filled up to as many per conversation.
    """
    with torch.no_grad():
        embeddings, states, shared = target.read(ids)
    length = ids.shape[1]
    asked = own.clone()
    asked[:, :-1] &= own[:, 1:]
    asked[:, -1] = asked[:, 0] = False
    n = (~asked).to(torch.uint8).argsort(dim=1, stable=True)[:, :asked.sum(1).max()]
    alive = asked.gather(1, n)
    n = n.clamp(min=1)
    places = torch.arange(length)
    before = places < n[..., None]
    near = before & (places > n[..., None] - target.config.sliding_window)
    masks = {kind: torch.zeros(seen.shape).masked_fill(~seen, float("-inf"))[:, None]
             for kind, seen in ((F, before), (S, near))}

    def at(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))

    state = at(states, n - 1)
    for depth in range(DEPTH):
        now = (n + depth).clamp(max=length - 1)
        after = (n + depth + 1).clamp(max=length - 1)
        alive = alive & own.gather(1, after) & (n + depth + 1 < length)
        if not alive.any():
            return
        inputs = drafter.pre_projection(torch.cat([at(embeddings, now), state], -1))
        output = drafter.model(inputs_embeds=inputs, attention_mask=masks, position_ids=n, shared_kv_states=shared,
                               use_cache=False).last_hidden_state
        state = drafter.post_projection(output)
        yield drafter.lm_head(output[alive]), target.logits(at(states, now)[alive])


def train(target_dir: Path, out_dir: Path, member: str, steps: int, log: Callable = print) -> None:
    """Teaches a new drafter to say what the member's checkpoint would say after the same tokens."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    target = Target(target_dir)
    drafter = build(target.config)
    tokenizer = AutoTokenizer.from_pretrained(target_dir)
    log(f"{member} drafter: {sum(p.numel() for p in drafter.parameters()):,} parameters")
    optimizers = Optimizers(drafter, steps)
    source = batches(tokenizer, MEMBERS[member], SEED, TOKENS)
    drafter.train()
    checkpoint = Checkpoint(out_dir, drafter, optimizers)
    made = checkpoint.resume(source)
    start, seen, agreement = time.monotonic(), 0, torch.zeros(DEPTH)
    for step in range(made + 1, steps + 1):
        ids, weights = next(source)
        losses = []
        for depth, (logits, wanted) in enumerate(guesses(drafter, target, ids, weights == 1)):
            losses.append(functional.cross_entropy(logits, wanted.softmax(-1)) / (depth + 1))
            agreed = (logits.argmax(-1) == wanted.argmax(-1)).float().mean()
            agreement[depth] = agreed if step == made + 1 else 0.95 * agreement[depth] + 0.05 * agreed
        torch.stack(losses).sum().backward()
        torch.nn.utils.clip_grad_norm_(drafter.parameters(), 1.0)
        optimizers.step()
        checkpoint.keep(step)
        seen += ids.numel()
        if step % 25 == 0:
            took = time.monotonic() - start
            agreed = " ".join(f"{share:.1%}" for share in agreement)
            log(f"{member} drafter step {step}/{steps} {took:.0f} s, {seen / took:.0f} tokens/s, "
                f"loss {losses[0].item():.3f}, as the target {agreed}", flush=True)
    drafter.save_pretrained(out_dir)
    tokenizer.save_pretrained(out_dir)
    checkpoint.drop()
