"""The members of the tiny family: each has its variant's structure at a small width.

What makes a variant is kept (which layers see how far, which share keys and values, Per-Layer Embeddings, experts,
values that are the keys of global layers); widths and counts are small. llama.cpp asks for two things: the last two
layers with keys and values of their own, and the last two layers of all, are a sliding and a global one.
"""

from dataclasses import dataclass

import torch
from transformers import Gemma4ForCausalLM, Gemma4TextConfig

HIDDEN = 128
WINDOW = 64
S, F = "sliding_attention", "full_attention"
COMMON = dict(
    vocab_size=2048, hidden_size=HIDDEN, num_attention_heads=4, head_dim=32, global_head_dim=64, sliding_window=WINDOW,
    final_logit_softcapping=30.0, max_position_embeddings=4096, tie_word_embeddings=True, pad_token_id=0,
    eos_token_id=[1, 106, 50], bos_token_id=2,
    rope_parameters={S: {"rope_type": "default", "rope_theta": 1e4},
                     F: {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1e6}})
LARGE = dict(hidden_size_per_layer_input=0, num_kv_shared_layers=0, attention_k_eq_v=True)


@dataclass(frozen=True)
class Member:
    """`small_variant`: the chat template opens no empty thought. `type`: of the file's large tensors."""

    name: str
    title: str
    type: str
    small_variant: bool
    text: dict


MEMBERS = {member.name: member for member in [
    Member("e2b", "Tiny Gemma 4 E2B", "q8_0", True, dict(
        layer_types=[S, S, F] * 2, num_key_value_heads=1, intermediate_size=256, use_double_wide_mlp=True,
        num_kv_shared_layers=3, hidden_size_per_layer_input=32, vocab_size_per_layer_input=2048)),
    Member("e4b", "Tiny Gemma 4 E4B", "q8_0", True, dict(
        layer_types=[S, S, S, F] * 2, num_key_value_heads=2, intermediate_size=320, use_double_wide_mlp=False,
        num_kv_shared_layers=4, hidden_size_per_layer_input=32, vocab_size_per_layer_input=2048)),
    Member("12b", "Tiny Gemma 4 12B", "q8_0", False, dict(
        layer_types=[S, S, F] * 2, num_key_value_heads=2, num_global_key_value_heads=1, intermediate_size=448, **LARGE)),
    Member("26b-a4b", "Tiny Gemma 4 26B-A4B", "q8_0", False, dict(
        layer_types=[S, S, F] * 2, num_key_value_heads=2, num_global_key_value_heads=1, intermediate_size=192,
        enable_moe_block=True, num_experts=8, top_k_experts=2, moe_intermediate_size=64, **LARGE)),
    Member("31b", "Tiny Gemma 4 31B", "q4_0", False, dict(
        layer_types=[S, S, F] * 2, num_key_value_heads=4, num_global_key_value_heads=2, intermediate_size=512, **LARGE)),
]}


def text_config(member: Member) -> Gemma4TextConfig:
    return Gemma4TextConfig(**COMMON, **member.text, num_hidden_layers=len(member.text["layer_types"]))


def text_model(member: Member) -> Gemma4ForCausalLM:
    """The untrained model, with weights that training starts well from."""
    model = Gemma4ForCausalLM(text_config(member))
    with torch.no_grad():
        for index, layer in enumerate(model.model.layers):
            # Not trained, and not 1, so that a runtime that leaves the scale out is found out.
            layer.layer_scalar.fill_([0.9, 0.8, 0.95, 0.85, 0.9, 1.0][index % 6])
            attention = layer.self_attn
            # Gemma 4 does not scale attention by the head's size: begin with scores of unit size.
            attention.q_norm.weight.fill_(attention.head_dim**-0.25)
            if getattr(attention, "k_norm", None) is not None:
                attention.k_norm.weight.fill_(attention.head_dim**-0.25)
            for name, module in layer.named_modules():
                if name.startswith("post_") and hasattr(module, "weight") and module.weight is not None and module.weight.ndim == 1:
                    module.weight.fill_(0.3)
    return model
