"""Writes a trained checkpoint as GGUF, through llama.cpp's own converter.

    python -m trainer.export <hf-dir> <out.gguf> --name NAME [--type q8_0|q4_0|f16] [--mmproj OUT]
                             [--template small|large]
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from . import llama_cpp
from .paths import TEMPLATE

TYPES = ("q8_0", "q4_0", "f16")
# What gemmad knows the members by: general.size_label.
SIZES = ("E2B", "E4B", "12B", "26B-A4B", "31B")
# Tables that are read by row and, as the tied head, decide every token: what eight bits cost here is little.
KEEP_Q8_0 = ("token_embd.weight", "per_layer_token_embd.weight")
# Pictures as 0..1 without mean and deviation (floats: llama.cpp takes no others). The converter asks for this file; the
# trainer's processors need none.
PROCESSOR = {
    "image_processor": {
        "image_processor_type": "Gemma4ImageProcessor", "patch_size": 16, "pooling_kernel_size": 3,
        "max_soft_tokens": 280, "image_seq_length": 280, "do_resize": True, "do_rescale": True,
        "rescale_factor": 1 / 255, "do_normalize": False, "image_mean": [0.0, 0.0, 0.0], "image_std": [1.0, 1.0, 1.0],
    }
}


def template(small: bool) -> str:
    """The family's chat template as a file carries it. gemmad passes `small_variant` itself; others do not know it."""
    head = "{%- set small_variant = true -%}\n" if small else ""
    return head + TEMPLATE.read_text()


def is_drafter(config: dict) -> bool:
    return "Assistant" in config["architectures"][0]


def is_small(config: dict) -> bool:
    """Whether it has per-layer embeddings, as E2B and E4B have."""
    text = config.get("text_config", config)
    return bool(text.get("hidden_size_per_layer_input"))


def stage(hf_dir: Path, folder: Path, chat_template: str | None) -> None:
    """Makes `folder` a copy of the checkpoint, by links, with what the converter stumbles over put right."""
    for path in hf_dir.iterdir():
        if path.is_file() and path.name not in ("config.json", "tokenizer_config.json", "chat_template.jinja"):
            (folder / path.name).symlink_to(path.resolve())
    config = json.loads((hf_dir / "config.json").read_text())
    if "text_config" in config:
        # transformers leaves the key out where there are no experts, the converter insists on it.
        config["text_config"].setdefault("moe_intermediate_size", None)
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((hf_dir / "tokenizer_config.json").read_text())
    tokenizer.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    if chat_template is not None:
        (folder / "chat_template.jinja").write_text(chat_template)
    if not (folder / "processor_config.json").exists():
        (folder / "processor_config.json").write_text(json.dumps(PROCESSOR))


def convert(hf_dir: Path, out: Path, outtype: str, name: str, chat_template: str | None, mmproj: bool) -> None:
    """Runs the converter. `outtype` is one of its own."""
    with tempfile.TemporaryDirectory() as folder:
        staged = Path(folder) / "checkpoint"
        staged.mkdir()
        stage(hf_dir, staged, chat_template)
        metadata = {"general.name": name, "general.basename": "tiny-gemma-4"}
        if label := re.search(rf"\b({'|'.join(SIZES)})\b", name):
            metadata["general.size_label"] = label[1]
        (Path(folder) / "metadata.json").write_text(json.dumps(metadata))
        converter = llama_cpp.source() / "convert_hf_to_gguf.py"
        command = [sys.executable, str(converter), str(staged), "--outfile", str(out), "--outtype", outtype,
                   "--metadata", f"{folder}/metadata.json"] + ["--mmproj"] * mmproj
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            sys.exit(f"llama.cpp's converter could not convert {hf_dir}:\n{done.stdout[-4000:]}")


def to_q4_0(eight: Path, full: Path, out: Path) -> None:
    """Writes a Q4_0 file, which the converter cannot. `eight` is the checkpoint in Q8_0, `full` the same in F32: what
    the converter makes Q8_0 becomes Q4_0 from the full values, but for `KEEP_Q8_0`; the rest stays as it is."""
    llama_cpp.source()
    import gguf
    q8_0, q4_0 = gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.Q4_0
    source = gguf.GGUFReader(eight)
    values = {tensor.name: tensor.data for tensor in gguf.GGUFReader(full).tensors}
    writer = gguf.GGUFWriter(out, source.get_field("general.architecture").contents())
    for field in source.fields.values():
        # The writer writes those by itself.
        if field.name == "general.architecture" or field.name.startswith("GGUF."):
            continue
        value, kind = field.contents(), field.types[0]
        if field.name == "general.file_type":
            value = int(gguf.LlamaFileType.MOSTLY_Q4_0)
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, value, kind, sub_type=inner)
    tensors = []
    for tensor in source.tensors:
        data, kind = tensor.data, tensor.tensor_type
        if kind == q8_0 and tensor.name not in KEEP_Q8_0:
            data, kind = gguf.quants.quantize(np.asarray(values[tensor.name], dtype=np.float32), q4_0), q4_0
        writer.add_tensor_info(tensor.name, data.shape, data.dtype, data.nbytes, kind)
        tensors.append(data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for data in tensors:
        writer.write_tensor_data(data)
    writer.close()


def export(hf_dir: Path, out: Path, kind: str, name: str, small: bool | None = None) -> None:
    """Writes the text model, or the drafter, of a checkpoint to `out`. `small` chooses the chat template; without it
    the checkpoint does. Drafters carry none: they never see a conversation."""
    config = json.loads((hf_dir / "config.json").read_text())
    chat_template = None if is_drafter(config) else template(is_small(config) if small is None else small)
    out.parent.mkdir(parents=True, exist_ok=True)
    if kind != "q4_0":
        convert(hf_dir, out, kind, name, chat_template, mmproj=False)
        return
    with tempfile.TemporaryDirectory() as folder:
        eight, full = Path(folder) / "q8_0.gguf", Path(folder) / "f32.gguf"
        convert(hf_dir, eight, "q8_0", name, chat_template, mmproj=False)
        convert(hf_dir, full, "f32", name, chat_template, mmproj=False)
        to_q4_0(eight, full, out)


def export_projector(hf_dir: Path, out: Path, name: str) -> None:
    """Writes the vision and audio projector of a checkpoint to `out`, in F16."""
    out.parent.mkdir(parents=True, exist_ok=True)
    convert(hf_dir, out, "f16", f"{name} projector", None, mmproj=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m trainer.export", description="Write a checkpoint as GGUF.")
    parser.add_argument("hf_dir", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--type", choices=TYPES, default="q8_0")
    parser.add_argument("--mmproj", type=Path, metavar="OUT", help="write the projector too, in F16")
    parser.add_argument("--name", required=True, help="general.name; its size (E2B, 31B, ...) becomes general.size_label")
    parser.add_argument("--template", choices=("small", "large"), help="which chat template to embed")
    args = parser.parse_args()
    small = None if args.template is None else args.template == "small"
    export(args.hf_dir, args.out, args.type, args.name, small)
    written = [args.out]
    if args.mmproj:
        export_projector(args.hf_dir, args.mmproj, args.name)
        written.append(args.mmproj)
    for path in written:
        print(f"{path} {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
