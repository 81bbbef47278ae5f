"""Pictures and sounds as the tensors that the models take, and how many soft tokens each takes.

Two forms: the towers (e2b: patches of 16 pixels for `gemma4v`, log-mel frames for `gemma4a`) and the unified form
(12b: patches of 48 pixels, frames of 640 raw samples), which has no encoder.
"""

import functools
import re
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from PIL import Image
from transformers import Gemma4AudioFeatureExtractor

PATCH = 16  # pixels
POOL = 3  # patches a side that make a soft token
FRAME = 640  # samples a soft token of sound: 40 ms at 16 kHz


def picture_tokens(image: Image.Image) -> int:
    """Soft tokens of a picture, in both forms."""
    side = PATCH * POOL
    if image.width % side or image.height % side:
        raise ValueError(f"a picture of {image.width}x{image.height}: make both sides multiples of {side} pixels")
    return (image.width // side) * (image.height // side)


def sound_tokens(samples: np.ndarray, unified: bool) -> int:
    """Soft tokens of a sound: a frame each (unified), or mel frames halved twice, rounding up."""
    if unified:
        return -(-len(samples) // FRAME)
    frames = (len(samples) - 161) // 160 + 1  # windows of 320 + 1 samples, half a window of silence before the sound
    return (frames + 3) // 4


def picture_features(images: Sequence[Image.Image], unified: bool) -> dict[str, torch.Tensor]:
    """`pixel_values` [pictures, patches, patch² * 3] in 0..1, `image_position_ids` [pictures, patches, 2], x and y.

    Pictures with fewer patches than the largest are filled with zeros at position -1, which the models leave out.
    """
    patch = PATCH * POOL if unified else PATCH
    pixels, positions = [], []
    for image in images:
        picture_tokens(image)  # refuses sizes that would have to be resized
        across, down = image.width // patch, image.height // patch
        array = np.asarray(image, dtype=np.uint8).reshape(down, patch, across, patch, 3)
        patches = array.transpose(0, 2, 1, 3, 4).reshape(down * across, patch * patch * 3)
        pixels.append(torch.from_numpy(np.ascontiguousarray(patches)).float() / 255)
        y, x = np.divmod(np.arange(down * across), across)
        positions.append(torch.from_numpy(np.stack([x, y], axis=-1)))
    pad = functools.partial(torch.nn.utils.rnn.pad_sequence, batch_first=True)
    return {"pixel_values": pad(pixels), "image_position_ids": pad(positions, padding_value=-1)}


@functools.cache
def mel_extractor() -> Gemma4AudioFeatureExtractor:
    return Gemma4AudioFeatureExtractor()


def sound_features(sounds: Sequence[np.ndarray], unified: bool) -> dict[str, torch.Tensor]:
    """`input_features` [sounds, frames, 128 mel bands or 640 samples] and `input_features_mask` [sounds, frames]."""
    if not unified:
        batch = mel_extractor()(list(sounds), return_tensors="pt")
        return {"input_features": batch["input_features"], "input_features_mask": batch["input_features_mask"]}
    counts = [sound_tokens(samples, unified) for samples in sounds]
    features = np.zeros((len(sounds), max(counts) * FRAME), dtype=np.float32)
    for row, samples in zip(features, sounds):
        row[: len(samples)] = samples
    mask = torch.arange(max(counts))[None, :] < torch.tensor(counts)[:, None]
    return {"input_features": torch.from_numpy(features).view(len(sounds), -1, FRAME), "input_features_mask": mask}


def expand_markers(text: str, pictures: Iterable[int] = (), sounds: Iterable[int] = ()) -> str:
    """Puts begin, the soft tokens of the next picture or sound, and end for each `<|image|>` and `<|audio|>`."""
    counts = {"image": iter(pictures), "audio": iter(sounds)}

    def replace(match: re.Match[str]) -> str:
        name = match[1]
        count = next(counts[name], None)
        if count is None:
            raise ValueError(f"more <|{name}|> in the text than counts for them: give one count for each")
        return f"<|{name}>" + f"<|{name}|>" * count + f"<{name}|>"

    expanded = re.sub(r"<\|(image|audio)\|>", replace, text)
    for name, rest in counts.items():
        if next(rest, None) is not None:
            raise ValueError(f"more counts than <|{name}|> in the text: put one marker for each")
    return expanded
