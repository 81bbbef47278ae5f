"""What a member's projector makes of the tests' own media, as a reference for the worker.

    python -m trainer.embeddings <hf_dir> <out>

One soft token a row, each scaled to 127 at its largest number and rounded: the direction is what is compared.
"""

import argparse
import base64
import json
import wave
from pathlib import Path

import numpy as np
import torch
import transformers
from PIL import Image

from . import features
from .paths import REPOSITORY

DATA = REPOSITORY / "tests/data"
PICTURES = ["pictures/red-circle.png", "pictures/blue-square.png"]
SOUNDS = ["sounds/tone-1.wav", "sounds/vowels-1.wav"]


def rows(found) -> torch.Tensor:
    """[tokens, width], however this version of transformers wraps them."""
    for name in ("pooler_output", "last_hidden_state"):
        found = getattr(found, name, found)
    found = found[0] if isinstance(found, (tuple, list)) else found
    return found.reshape(-1, found.shape[-1]).float()


def samples(path: Path) -> np.ndarray:
    with wave.open(str(path)) as sound:
        if (sound.getframerate(), sound.getnchannels(), sound.getsampwidth()) != (16000, 1, 2):
            raise ValueError(f"{path}: not 16 kHz, mono, 16 bits")
        return np.frombuffer(sound.readframes(sound.getnframes()), dtype="<i2").astype(np.float32) / 32768


def packed(found: torch.Tensor) -> str:
    scaled = (found / found.abs().amax(-1, keepdim=True) * 127).round().to(torch.int8)
    return base64.b64encode(scaled.numpy().tobytes()).decode()


def write(hf_dir: Path, out: Path) -> None:
    """Writes what the checkpoint with media makes of them."""
    config = json.loads((hf_dir / "config.json").read_text())
    unified = "Unified" in config["architectures"][0]
    model = getattr(transformers, config["architectures"][0]).from_pretrained(hf_dir, dtype=torch.float32).eval()
    media = []
    with torch.inference_mode():
        for name in PICTURES:
            seen = features.picture_features([Image.open(DATA / name).convert("RGB")], unified)
            media.append((name, rows(model.model.get_image_features(**seen))))
        for name in SOUNDS:
            heard = features.sound_features([samples(DATA / name)], unified)
            media.append((name, rows(model.model.get_audio_features(**heard))))
    out.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"file": name, "tokens": len(found), "width": found.shape[1], "rows": packed(found)}) for name, found in media]
    out.write_text("[\n" + ",\n".join(lines) + "\n]\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m trainer.embeddings", description="Write what a projector makes of media.")
    parser.add_argument("hf_dir", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    write(args.hf_dir, args.out)
    print(f"{args.out} {args.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
