#!/usr/bin/env python3
"""Write a full-size GGUF file of a Gemma 4 variant with random weights.

Shapes, types, vocabulary and metadata are those of the published files, so the time to load, the memory and the tokens
per second are those of the real model; what it says is noise. Needs nothing but Python.

    synth.py e2b --out gemma-4-E2B-it-Q4_0.gguf
    synth.py 26b-a4b --layers 6 --out small.gguf       # fewer layers of the same widths
    synth.py e2b --eyes --out gemma-4-E2B-it-mmproj-F16.gguf    # its projector, for pictures
    synth.py e2b --drafter --out mtp-gemma-4-E2B-it.gguf        # its drafter; --clusters: with those it was trained with
"""

import argparse
import lzma
import os
import random
import struct
import sys
import time
from pathlib import Path

VOCAB = Path(__file__).resolve().parents[2] / "models/tokenizer/gemma-4-vocab.gguf.xz"
ALIGN = 32

# hidden, layers, ff, heads, kv heads (sliding), kv heads (global), PLE width, sliding window, global layer every n,
# layers that share an earlier layer's KV, double-wide FFN in those, V = K in global layers, experts, experts used,
# expert ff, context
VARIANTS = {
    "e2b":     dict(d=1536, n=35, ff=6144,  h=8,  kv=1,  gkv=1, ple=256, swa=512,  every=5, shared=20, wide=True,  keqv=False, ne=0,   nu=0, eff=0,   ctx=131072),
    "e4b":     dict(d=2560, n=42, ff=10240, h=8,  kv=2,  gkv=2, ple=256, swa=512,  every=6, shared=18, wide=False, keqv=False, ne=0,   nu=0, eff=0,   ctx=131072),
    "12b":     dict(d=3840, n=48, ff=15360, h=16, kv=8,  gkv=1, ple=0,   swa=1024, every=6, shared=0,  wide=False, keqv=True,  ne=0,   nu=0, eff=0,   ctx=262144),
    "26b-a4b": dict(d=2816, n=30, ff=2112,  h=16, kv=8,  gkv=2, ple=0,   swa=1024, every=6, shared=0,  wide=False, keqv=True,  ne=128, nu=8, eff=704, ctx=262144),
    "31b":     dict(d=5376, n=60, ff=21504, h=32, kv=16, gkv=4, ple=0,   swa=1024, every=6, shared=0,  wide=False, keqv=True,  ne=0,   nu=0, eff=0,   ctx=262144),
}
# Encoders of pictures: layers, width, heads, ff; the other two variants have the larger one or none.
EYES = {"e2b": (16, 768, 12, 3072), "e4b": (16, 768, 12, 3072), "26b-a4b": (27, 1152, 16, 4304), "31b": (27, 1152, 16, 4304)}
PATCH, POSITIONS = 16, 10240
HEAD_DIM, GLOBAL_HEAD_DIM, VOCAB_SIZE = 256, 512, 262144
# The drafters of the small variants: layers, width, ff, heads, clusters of tokens.
DRAFTERS = {"e2b": (4, 256, 2048, 4, 2048), "e4b": (4, 256, 2048, 4, 2048)}

f16 = lambda x: struct.pack("<e", x)
# name: (ggml type id, weights per block, bytes per block, one random block)
TYPES = {
    "F32":  (0,  1,   4,   None),
    "I32":  (26, 1,   4,   None),
    "F16":  (1,  1,   2,   lambda r: f16(r.gauss(0, .02))),
    "Q4_0": (2,  32,  18,  lambda r: f16(.0043) + r.randbytes(16)),
    "Q5_0": (6,  32,  22,  lambda r: f16(.0022) + r.randbytes(20)),
    "Q8_0": (8,  32,  34,  lambda r: f16(.00027) + r.randbytes(32)),
    "Q4_K": (12, 256, 144, lambda r: f16(.00054) + f16(.00405) + b"\x08" * 8 + b"\x88" * 4 + r.randbytes(128)),
    "Q5_K": (13, 256, 176, lambda r: f16(.00027) + f16(.00418) + b"\x08" * 8 + b"\x88" * 4 + r.randbytes(160)),
    "Q6_K": (14, 256, 210, lambda r: r.randbytes(192) + b"\x08" * 16 + f16(.000135)),
}
# file type -> (most weights, token embedding, per-layer token embedding)
QUANTS = {"q4_0": ("Q4_0", "Q6_K", "Q5_K"), "q4_k": ("Q4_K", "Q6_K", "Q5_K"), "q8_0": ("Q8_0", "Q8_0", "Q8_0")}


def gguf_string(s):
    b = s.encode()
    return struct.pack("<Q", len(b)) + b


def kv(key, value):
    """One metadata entry; bool, int, float, str, or a list of one of the first three."""
    def typed(v):
        if isinstance(v, bool):  return 7, struct.pack("<B", v)
        if isinstance(v, int):   return 4, struct.pack("<I", v)
        if isinstance(v, float): return 6, struct.pack("<f", v)
        return 8, gguf_string(v)
    if isinstance(value, list):
        items = [typed(v) for v in value]
        return gguf_string(key) + struct.pack("<IIQ", 9, items[0][0], len(items)) + b"".join(b for _, b in items)
    t, b = typed(value)
    return gguf_string(key) + struct.pack("<I", t) + b


def tokenizer_entries(path):
    """The raw `tokenizer.*` metadata entries of a GGUF file."""
    data = lzma.open(path).read() if str(path).endswith(".xz") else Path(path).read_bytes()
    magic, version, n_tensors, n_kv = struct.unpack_from("<4sIQQ", data)
    if magic != b"GGUF" or version != 3:
        sys.exit(f"{path}: not a GGUF v3 file")
    sizes = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
    def skip(pos, t):
        if t in sizes: return pos + sizes[t]
        if t == 8: return pos + 8 + struct.unpack_from("<Q", data, pos)[0]
        et, n = struct.unpack_from("<IQ", data, pos); pos += 12
        if et in sizes: return pos + n * sizes[et]
        for _ in range(n): pos = skip(pos, et)
        return pos
    pos, out = 24, []
    for _ in range(n_kv):
        start = pos
        n = struct.unpack_from("<Q", data, pos)[0]; key = data[pos + 8:pos + 8 + n]; pos += 8 + n
        t = struct.unpack_from("<I", data, pos)[0]; pos = skip(pos + 4, t)
        if key.startswith(b"tokenizer."): out.append(data[start:pos])
    return out


def metadata(name, v, quant):
    n = v["n"]; first_shared = n - v["shared"]
    swa = [(i + 1) % v["every"] != 0 for i in range(n)]
    a = "gemma4."
    out = [kv("general.architecture", "gemma4"), kv("general.type", "model"),
           kv("general.name", f"gemma-4-{name} (random weights)"), kv("general.file_type", {"q4_0": 2, "q4_k": 15, "q8_0": 7}[quant]),
           kv("general.quantization_version", 2), kv(a + "block_count", n), kv(a + "context_length", v["ctx"]),
           kv(a + "embedding_length", v["d"]),
           kv(a + "feed_forward_length", [v["ff"] * (2 if v["wide"] and i >= first_shared else 1) for i in range(n)]),
           kv(a + "attention.head_count", v["h"]), kv(a + "attention.head_count_kv", [v["kv"] if s else v["gkv"] for s in swa]),
           kv(a + "rope.freq_base", 1000000.0), kv(a + "rope.freq_base_swa", 10000.0),
           kv(a + "attention.layer_norm_rms_epsilon", 1e-6), kv(a + "attention.key_length", GLOBAL_HEAD_DIM),
           kv(a + "attention.value_length", GLOBAL_HEAD_DIM), kv(a + "attention.key_length_swa", HEAD_DIM),
           kv(a + "attention.value_length_swa", HEAD_DIM), kv(a + "final_logit_softcapping", 30.0),
           kv(a + "attention.sliding_window", v["swa"]), kv(a + "attention.shared_kv_layers", v["shared"]),
           kv(a + "embedding_length_per_layer_input", v["ple"]), kv(a + "attention.sliding_window_pattern", swa),
           kv(a + "rope.dimension_count", GLOBAL_HEAD_DIM), kv(a + "rope.dimension_count_swa", HEAD_DIM)]
    if v["ne"]:
        out += [kv(a + "expert_count", v["ne"]), kv(a + "expert_used_count", v["nu"]), kv(a + "expert_feed_forward_length", v["eff"])]
    return out


def tensors(v, quant):
    """(name, shape with the fastest axis first, type, fill); fill None = random."""
    most, tok, ple = QUANTS[quant]; d, n = v["d"], v["n"]; first_shared = n - v["shared"]
    yield "rope_freqs.weight", [GLOBAL_HEAD_DIM // 2], "F32", [1.0] * 64 + [1e30] * 192
    yield "token_embd.weight", [d, VOCAB_SIZE], tok, None
    if v["ple"]:
        yield "per_layer_token_embd.weight", [v["ple"] * n, VOCAB_SIZE], ple, None
        yield "per_layer_model_proj.weight", [d, v["ple"] * n], most, None
        yield "per_layer_proj_norm.weight", [v["ple"]], "F32", 1.0
    yield "output_norm.weight", [d], "F32", 1.0
    for i in range(n):
        b = f"blk.{i}."; sliding = (i + 1) % v["every"] != 0
        hd = HEAD_DIM if sliding else GLOBAL_HEAD_DIM; nkv = v["kv"] if sliding else v["gkv"]
        ff = v["ff"] * (2 if v["wide"] and i >= first_shared else 1)
        # small post-norms keep the token's own embedding the largest part of the hidden state, so that
        # different tokens are routed to different experts, as they are in trained models
        for norm, w in (("attn_norm", 1.0), ("post_attention_norm", .05), ("ffn_norm", 1.0), ("post_ffw_norm", .05)):
            yield b + norm + ".weight", [d], "F32", w
        yield b + "layer_output_scale.weight", [1], "F32", 1.0
        yield b + "attn_q.weight", [d, hd * v["h"]], most, None
        yield b + "attn_q_norm.weight", [hd], "F32", 1.0
        if i < first_shared:
            yield b + "attn_k.weight", [d, hd * nkv], most, None
            yield b + "attn_k_norm.weight", [hd], "F32", 1.0
            if sliding or not v["keqv"]:
                yield b + "attn_v.weight", [d, hd * nkv], most, None
        yield b + "attn_output.weight", [hd * v["h"], d], most, None
        yield b + "ffn_gate.weight", [d, ff], most, None
        yield b + "ffn_up.weight", [d, ff], most, None
        yield b + "ffn_down.weight", [ff, d], most, None
        if v["ne"]:
            e, w = v["ne"], v["eff"]
            yield b + "ffn_gate_inp.weight", [d, e], "F32", "random"
            yield b + "ffn_gate_inp.scale", [d], "F32", 1.0
            for norm in ("pre_ffw_norm_2", "post_ffw_norm_1", "post_ffw_norm_2"):
                yield b + norm + ".weight", [d], "F32", 1.0
            yield b + "ffn_gate_up_exps.weight", [d, 2 * w, e], most, None
            yield b + "ffn_down_exps.weight", [w, d, e], most, None
            yield b + "ffn_down_exps.scale", [e], "F32", 1.0
        if v["ple"]:
            yield b + "inp_gate.weight", [d, v["ple"]], most, None
            yield b + "proj.weight", [v["ple"], d], most, None
            yield b + "post_norm.weight", [d], "F32", .05


def eyes_metadata(name):
    n, d, h, ff = EYES[name]; c = "clip."; v = c + "vision."
    return [kv("general.architecture", "clip"), kv("general.type", "mmproj"), kv("general.name", f"gemma-4-{name} projector (random weights)"),
            kv("general.file_type", 1), kv("general.quantization_version", 2), kv(c + "has_vision_encoder", True),
            kv(v + "projector_type", "gemma4v"), kv(v + "projection_dim", VARIANTS[name]["d"]), kv(v + "image_size", 224),
            kv(v + "patch_size", PATCH), kv(v + "embedding_length", d), kv(v + "feed_forward_length", ff), kv(v + "block_count", n),
            kv(v + "attention.head_count", h), kv(v + "attention.layer_norm_epsilon", 1e-6),
            kv(v + "image_mean", [0.0] * 3), kv(v + "image_std", [1.0] * 3)]


def eyes_tensors(name):
    n, d, h, ff = EYES[name]
    yield "v.patch_embd.weight", [PATCH, PATCH, 3, d], "F16", None
    yield "v.position_embd.weight", [d, POSITIONS, 2], "F32", .01
    yield "mm.input_projection.weight", [d, VARIANTS[name]["d"]], "F16", None
    for i in range(n):
        b = f"v.blk.{i}."
        for norm, width in (("ln1", d), ("ln2", d), ("attn_post_norm", d), ("ffn_post_norm", d), ("attn_q_norm", d // h), ("attn_k_norm", d // h)):
            yield b + norm + ".weight", [width], "F32", 1.0
        for linear, shape in (("attn_q", [d, d]), ("attn_k", [d, d]), ("attn_v", [d, d]), ("attn_out", [d, d]),
                              ("ffn_gate", [d, ff]), ("ffn_up", [d, ff]), ("ffn_down", [ff, d])):
            yield b + linear + ".weight", shape, "F16", None
            for bound, at in (("input_max", 1e4), ("input_min", -1e4), ("output_max", 1e4), ("output_min", -1e4)):
                yield b + linear + "." + bound, [1], "F32", at


def drafter_metadata(name, quant):
    v, (n, d, ff, h, _) = VARIANTS[name], DRAFTERS[name]
    a = "gemma4-assistant."
    return [kv("general.architecture", "gemma4-assistant"), kv("general.type", "model"), kv("general.name", f"gemma-4-{name} drafter (random weights)"),
            kv("general.file_type", {"q4_0": 2, "q4_k": 15, "q8_0": 7}[quant]), kv("general.quantization_version", 2), kv(a + "block_count", n),
            kv(a + "context_length", v["ctx"]), kv(a + "embedding_length", d), kv(a + "embedding_length_out", v["d"]), kv(a + "feed_forward_length", ff),
            kv(a + "attention.head_count", h), kv(a + "attention.head_count_kv", [v["kv"]] * (n - 1) + [v["gkv"]]),
            kv(a + "rope.freq_base", 1000000.0), kv(a + "rope.freq_base_swa", 10000.0), kv(a + "attention.layer_norm_rms_epsilon", 1e-6),
            kv(a + "attention.key_length", GLOBAL_HEAD_DIM), kv(a + "attention.value_length", GLOBAL_HEAD_DIM),
            kv(a + "attention.key_length_swa", HEAD_DIM), kv(a + "attention.value_length_swa", HEAD_DIM),
            kv(a + "attention.sliding_window", v["swa"]), kv(a + "attention.shared_kv_layers", n), kv(a + "embedding_length_per_layer_input", 0),
            kv(a + "attention.sliding_window_pattern", [True] * (n - 1) + [False]), kv(a + "rope.dimension_count", GLOBAL_HEAD_DIM),
            kv(a + "rope.dimension_count_swa", HEAD_DIM), kv(a + "nextn_predict_layers", n)]


def drafter_tensors(name, quant, clusters, rng):
    wide, (n, d, ff, h, count), most = VARIANTS[name]["d"], DRAFTERS[name], QUANTS[quant][0]
    yield "rope_freqs.weight", [GLOBAL_HEAD_DIM // 2], "F32", [1.0] * 64 + [1e30] * 192
    yield "token_embd.weight", [d, VOCAB_SIZE], most, None
    if clusters:
        tokens = list(range(VOCAB_SIZE)); rng.shuffle(tokens)
        yield "masked_embd_centroids.weight", [d, count], "Q8_0", None
        yield "masked_embd_ordering", [VOCAB_SIZE], "I32", tokens
    for i in range(n):
        b = f"blk.{i}."; hd = HEAD_DIM if i < n - 1 else GLOBAL_HEAD_DIM
        for norm in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"):
            yield b + norm + ".weight", [d], "F32", 1.0
        yield b + "layer_output_scale.weight", [1], "F32", 1.0
        yield b + "attn_q_norm.weight", [hd], "F32", 1.0
        for linear, shape in (("attn_q", [d, hd * h]), ("attn_output", [hd * h, d]), ("ffn_gate", [d, ff]), ("ffn_up", [d, ff]), ("ffn_down", [ff, d])):
            yield b + linear + ".weight", shape, most, None
    yield "output_norm.weight", [d], "F32", 1.0
    yield "nextn.pre_projection.weight", [2 * wide, d], most, None
    yield "nextn.post_projection.weight", [d, wide], most, None


def write(variant, out, quant="q4_0", layers=None, skew=0.0, seed=1, vocab=VOCAB, hollow=False, eyes=False, drafter=False, clusters=False):
    """Writes the file; nobody sees it before it is whole."""
    v = dict(VARIANTS[variant])
    if layers:
        if layers % v["every"]: raise ValueError(f"--layers must be a multiple of {v['every']} (sliding layers, then a global one)")
        own = (v["n"] - v["shared"]) * layers // v["n"] // v["every"] * v["every"]   # the layers with KV end in a global one
        v["shared"] = v["shared"] and layers - max(own, v["every"]); v["n"] = layers
    rng = random.Random(seed)
    chunk = {t: b"".join(block(rng) for _ in range(60000)) for t, (_, _, _, block) in TYPES.items() if block}

    infos, plan, offset = [], [], 0
    if eyes:
        entries, content = eyes_metadata(variant), eyes_tensors(variant)
    elif drafter:
        entries, content = drafter_metadata(variant, quant) + tokenizer_entries(vocab), drafter_tensors(variant, quant, clusters, rng)
    else:
        entries, content = metadata(variant, v, quant) + tokenizer_entries(vocab), tensors(v, quant)
    for name, shape, t, fill in content:
        tid, per, size, _ = TYPES[t]; count = 1
        for s in shape: count *= s
        if shape[0] % per:   # a row must be whole blocks: fall back as llama-quantize does
            t = "Q8_0" if shape[0] % 32 == 0 else "F32"; tid, per, size, _ = TYPES[t]
        nbytes = count // per * size
        infos.append(gguf_string(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape) + struct.pack("<IQ", tid, offset))
        plan.append((t, count, nbytes, fill)); offset += -(-nbytes // ALIGN) * ALIGN

    start = time.time()
    with open(f"{out}.part", "wb", buffering=1 << 22) as f:
        f.write(struct.pack("<4sIQQ", b"GGUF", 3, len(infos), len(entries)) + b"".join(entries) + b"".join(infos))
        f.write(b"\0" * (-f.tell() % ALIGN))
        for t, count, nbytes, fill in plan:
            if fill is None and hollow:
                f.seek(nbytes, os.SEEK_CUR)
            elif fill is None:
                c, size = chunk[t], TYPES[t][2]; left = nbytes
                begin = rng.randrange(len(c) // size) * size
                while left:
                    piece = c[begin:begin + left]; f.write(piece); left -= len(piece); begin = 0
            elif fill == "random":   # the router: one row per expert, longer rows are chosen more often
                ranks = list(range(v["ne"])); rng.shuffle(ranks)
                for r in ranks:
                    scale = .02 * (r + 1) ** -skew
                    f.write(struct.pack(f"<{v['d']}f", *(rng.gauss(0, scale) for _ in range(v["d"]))))
            elif t == "I32":
                f.write(struct.pack(f"<{count}i", *fill))
            else:
                f.write(struct.pack(f"<{count}f", *(fill if isinstance(fill, list) else [fill] * count)))
            f.write(b"\0" * (-nbytes % ALIGN))
        f.truncate()
    os.replace(f"{out}.part", out)
    print(f"{out}: {len(infos)} tensors, {os.path.getsize(out) / 1e9:.2f} GB, {time.time() - start:.0f} s")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("variant", choices=VARIANTS)
    p.add_argument("--quant", choices=QUANTS, default="q4_0")
    p.add_argument("--layers", type=int, help="fewer layers, for a smaller file (a multiple of 5 for e2b, else of 6)")
    p.add_argument("--vocab", default=VOCAB, help="a GGUF with the Gemma 4 tokenizer")
    p.add_argument("--out", required=True)
    p.add_argument("--skew", type=float, default=0.0, help="how unequally experts are used: 0 equal, 0.3 a marked few")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--eyes", action="store_true", help="the projector for pictures in the place of the model")
    p.add_argument("--drafter", action="store_true", help="the drafter in the place of the model (e2b, e4b)")
    p.add_argument("--clusters", action="store_true", help="the drafter has clusters")
    p.add_argument("--hollow", action="store_true", help="weights of zeros that take no disk, where only sizes matter")
    a = p.parse_args()
    if (a.drafter or a.clusters) and a.variant not in DRAFTERS or a.clusters and not a.drafter:
        p.error("--drafter is for " + " and ".join(DRAFTERS) + ", --clusters for a drafter")
    write(**vars(a))


if __name__ == "__main__":
    main()
