"""First lessons in seeing: what lies at each soft token of a picture, its colour, its shape, and whether its middle is
there.

An answer tells a model very little of what it should have seen: from answers alone a thousand batches teach it the
colours and nothing else. These lessons tell it seventy things about each picture.
"""

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as functional
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from . import features, pictures
from .members import vision_tower
from .optim import Checkpoint, Optimizers

PICTURES = 24  # of a batch
CLASSES = (1 + len(pictures.COLOURS), 1 + len(pictures.SHAPES), 2)


def shown(picture: pictures.Picture) -> torch.Tensor:
    """What each soft token shows, row by row, [tokens, 3]: see `pictures.Picture.at`."""
    across, down = (side // pictures.SOFT_TOKEN for side in picture.image.size)
    return torch.tensor([picture.at(x, y) for y in range(down) for x in range(across)])


class Lessons(nn.Module):
    """Tells from the states of soft tokens, [tokens, width], what they show."""

    def __init__(self, width: int):
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(width, classes) for classes in CLASSES)

    def forward(self, states: torch.Tensor, shows: torch.Tensor) -> tuple[torch.Tensor, list[float]]:
        """The loss, and which share of colours, shapes and middles is told right where there is something."""
        loss, right, there = torch.zeros(()), [], shows[:, 0] > 0
        for head, truth in zip(self.heads, shows.unbind(1), strict=True):
            told = head(states)
            loss = loss + functional.cross_entropy(told, truth)
            right.append((told.argmax(-1) == truth)[there].float().mean().item())
        return loss, right


class Stream(IterableDataset):
    def __init__(self, seed: int):
        self.seed = seed

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        torch.set_num_threads(1)
        rng = random.Random(self.seed)
        while True:
            drawn = [pictures.sample(rng, False) for _ in range(PICTURES)]
            batch = features.picture_features([picture.image for picture in drawn], False)
            yield batch | {"shows": torch.cat([shown(picture) for picture in drawn])}


def train(steps: int, out: Path, log: Callable = print) -> None:
    """Trains a vision tower, which knows of no text model yet, and saves its weights."""
    torch.manual_seed(3)
    torch.set_num_threads(1)
    tower = vision_tower()
    lessons = Lessons(tower.config.hidden_size)
    taught = nn.ModuleDict({"tower": tower, "lessons": lessons})
    optimizers = Optimizers(taught, steps)
    stream = iter(DataLoader(Stream(3), batch_size=None, num_workers=1, prefetch_factor=8))
    checkpoint = Checkpoint(out, taught, optimizers)
    made = checkpoint.resume(stream)
    start, average = time.monotonic(), None
    for step in range(made + 1, steps + 1):
        batch = next(stream)
        states = tower(batch["pixel_values"], pixel_position_ids=batch["image_position_ids"]).last_hidden_state
        loss, right = lessons(states, batch["shows"])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        optimizers.step()
        checkpoint.keep(step)
        now = torch.tensor([loss.item(), *right])
        average = now if average is None else 0.95 * average + 0.05 * now
        if step % 25 == 0:
            loss_now, colour, shape, middle = average.tolist()
            log(f"eyes step {step}/{steps} {time.monotonic() - start:.0f} s, loss {loss_now:.3f}, "
                f"colour {colour:.1%}, shape {shape:.1%}, middle {middle:.1%}", flush=True)
    save_file({key: value.contiguous() for key, value in tower.state_dict().items()}, out)
    checkpoint.drop()
