"""The members of the tiny family: each has its variant's structure at a small width.

What makes a variant is kept (which layers see how far, which share keys and values, Per-Layer Embeddings, experts,
values that are the keys of global layers); widths and counts are small. llama.cpp asks for two things: the last two
layers with keys and values of their own, and the last two layers of all, are a sliding and a global one.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import (AutoTokenizer, Gemma4AudioConfig, Gemma4Config, Gemma4ForCausalLM,
                          Gemma4ForConditionalGeneration, Gemma4TextConfig, Gemma4UnifiedConfig,
                          Gemma4UnifiedForConditionalGeneration, Gemma4VisionConfig, Gemma4VisionModel)

from .paths import TOKENIZER

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
    """`small_variant`: the chat template opens no empty thought."""

    name: str
    small_variant: bool
    text: dict

    @property
    def unified(self) -> bool:
        """Pictures and sounds come to it without an encoder."""
        return self.name == "12b"


MEMBERS = {member.name: member for member in [
    Member("e2b", True, dict(
        layer_types=[S, S, F] * 2, num_key_value_heads=1, intermediate_size=256, use_double_wide_mlp=True,
        num_kv_shared_layers=3, hidden_size_per_layer_input=32, vocab_size_per_layer_input=2048)),
    Member("e4b", True, dict(
        layer_types=[S, S, S, F] * 2, num_key_value_heads=2, intermediate_size=320, use_double_wide_mlp=False,
        num_kv_shared_layers=4, hidden_size_per_layer_input=32, vocab_size_per_layer_input=2048)),
    Member("12b", False, dict(
        layer_types=[S, S, F] * 2, num_key_value_heads=2, num_global_key_value_heads=1, intermediate_size=448,
        **LARGE)),
    Member("26b-a4b", False, dict(
        layer_types=[S, S, F] * 2, num_key_value_heads=2, num_global_key_value_heads=1, intermediate_size=192,
        enable_moe_block=True, num_experts=8, top_k_experts=2, moe_intermediate_size=64, **LARGE)),
    Member("31b", False, dict(
        layer_types=[S, S, F] * 2, num_key_value_heads=4, num_global_key_value_heads=2, intermediate_size=512,
        **LARGE)),
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
                weight = getattr(module, "weight", None)
                if name.startswith("post_") and weight is not None and weight.ndim == 1:
                    weight.fill_(0.3)
    return model


# Tables of positions are as long as the longest side of a picture that llama.cpp makes.
VISION = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
              head_dim=32, pooling_kernel_size=3, patch_size=16, position_embedding_size=3360, use_clipped_linears=True)
AUDIO = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, output_proj_dims=96, use_clipped_linears=True)
UNIFIED_VISION = dict(mm_embed_dim=HIDDEN, mm_posemb_size=1120, output_proj_dims=HIDDEN)
UNIFIED_AUDIO = dict(audio_embed_dim=640)
# What the linear layers of the towers clip at: seldom reached, but often enough that a runtime must do it.
CLIP = {"input_min": -4.0, "input_max": 4.0, "output_min": -8.0, "output_max": 8.0}
MARKERS = dict(image_token_id="<|image|>", boi_token_id="<|image>", eoi_token_id="<image|>", video_token_id="<|video|>",
               audio_token_id="<|audio|>", boa_token_id="<|audio>", eoa_token_index="<audio|>")


def start(part: torch.nn.Module) -> None:
    """Gives a tower, or what leads from it to the text model, weights that training starts well from."""
    with torch.no_grad():
        for name, parameter in part.named_parameters():
            if name.endswith(("q_norm.weight", "k_norm.weight")):
                parameter.fill_(VISION["head_dim"] ** -0.25)  # as in the text model: scores of unit size
            if name.endswith("position_embedding_table"):
                parameter.normal_(std=0.2)  # transformers begins with ones, beside which a patch is hardly seen
            if name.endswith("embedding_projection.weight"):
                parameter.normal_(std=0.15)  # soft tokens as large as embeddings of text
        for name, buffer in part.named_buffers():
            if (bound := name.rsplit(".", 1)[-1]) in CLIP:
                buffer.fill_(CLIP[bound])


def vision_tower() -> Gemma4VisionModel:
    tower = Gemma4VisionModel(Gemma4VisionConfig(**VISION))
    start(tower)
    return tower


def conditional_model(
        member: Member, text: Path) -> Gemma4ForConditionalGeneration | Gemma4UnifiedForConditionalGeneration:
    """The text model of a checkpoint with an untrained way in for pictures and sounds."""
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    markers = {key: tokenizer.convert_tokens_to_ids(marker) for key, marker in MARKERS.items()}
    trained = Gemma4ForCausalLM.from_pretrained(text, dtype=torch.float32)
    config = trained.config.to_dict()
    if member.unified:
        for key in ("model_type", "vocab_size_per_layer_input"):
            del config[key]
        # The small variants read pictures causally. llama.cpp's own programs go by the width there, and are no
        # reference for pictures shown to this e2b; gemmad goes by the Per-Layer Embeddings.
        config["use_bidirectional_attention"] = "vision"
        model = Gemma4UnifiedForConditionalGeneration(Gemma4UnifiedConfig(
            text_config=config, vision_config=UNIFIED_VISION, audio_config=UNIFIED_AUDIO, **markers))
    else:
        model = Gemma4ForConditionalGeneration(Gemma4Config(
            text_config=config, vision_config=Gemma4VisionConfig(**VISION), audio_config=Gemma4AudioConfig(**AUDIO),
            **markers))
    model.model.language_model.load_state_dict(trained.model.state_dict())
    model.tie_weights()
    for name, part in model.model.named_children():
        if name != "language_model":
            start(part)
    model.generation_config = trained.generation_config
    return model
