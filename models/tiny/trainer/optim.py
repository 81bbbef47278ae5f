"""The optimizer: Muon for the matrices of the layers, AdamW for the rest.

Muon (Keller Jordan, 2024, https://kellerjordan.github.io/posts/muon/) makes each step's matrix orthogonal by a few
Newton-Schulz iterations. torch.optim has one, which computes in bfloat16: forty times slower than float32 on a CPU
without bfloat16 arithmetic.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

WARM_UP = 40  # steps
PLATEAU = 0.3  # of the steps
TABLES = ("embed", "lm_head", "router")  # what of a parameter's name says that its rows stand for themselves


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """The nearest (semi-)orthogonal matrices, roughly: singular values from 0.7 to 1.2. Shape [n, rows, columns]."""
    x = matrices / (matrices.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    def __init__(self, groups: list[dict]):
        super().__init__(groups, dict(momentum=0.95, weight_decay=0.05))

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            # Matrices of one shape go through the iterations together; experts are matrices already stacked.
            alike = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike[parameter.shape[-2:]].append(parameter)
            for shape, parameters in alike.items():
                updates = []
                for parameter in parameters:
                    buffer = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
                    buffer.lerp_(parameter.grad, 1 - group["momentum"])
                    updates.append(parameter.grad.lerp(buffer, group["momentum"]).reshape(-1, *shape))
                scale = max(1, shape[0] / shape[1]) ** 0.5
                steps = orthogonal(torch.cat(updates)).split([u.shape[0] for u in updates])
                for parameter, update in zip(parameters, steps, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(update.reshape(parameter.shape), alpha=-group["lr"] * scale)


class Optimizers:
    """Both optimizers, with one schedule: a short warm-up, a plateau, then a cosine down to nothing."""

    def __init__(self, model: torch.nn.Module, steps: int, share: Callable[[str], float] = lambda name: 1.0):
        """`share` gives, for a parameter's name, its part of the full learning rate."""
        groups = defaultdict(list)
        for name, parameter in model.named_parameters():
            matrix = parameter.ndim == 2 and not any(part in name for part in TABLES) or "experts." in name
            groups[matrix, parameter.ndim > 1, share(name)].append(parameter)
        muon = [dict(params=chosen, lr=0.02 * share) for (matrix, _, share), chosen in groups.items() if matrix]
        adam = [
            dict(params=chosen, lr=4e-3 * share, weight_decay=0.01 * many)
            for (matrix, many, share), chosen in groups.items()
            if not matrix
        ]
        self.steps, self.done = steps, 0
        self.parts = [Muon(muon), torch.optim.AdamW(adam, betas=(0.9, 0.98), fused=True)]
        for part in self.parts:
            for group in part.param_groups:
                group["full"] = group["lr"]

    def step(self) -> None:
        falling = max(0.0, (self.done / self.steps - PLATEAU) / (1 - PLATEAU))
        factor = min(1, (self.done + 1) / WARM_UP) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * falling)))
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = group["full"] * factor
            part.step()
            part.zero_grad(set_to_none=True)
        self.done += 1


class Checkpoint:
    """A training that was cut off goes on from the last multiple of EVERY steps, with the same numbers."""

    EVERY = 50

    def __init__(self, out: Path, model: torch.nn.Module, optimizers: Optimizers):
        """`out` is where the result will be; the checkpoint lies beside it until then."""
        self.path = out.with_name(f".{out.name.removeprefix('.part-')}.checkpoint")
        self.model, self.optimizers = model, optimizers

    def resume(self, stream: Iterator, batches: int = 1) -> int:
        """Steps that were made already; takes their batches from the stream, so many for each."""
        if not self.path.exists():
            return 0
        kept = torch.load(self.path, weights_only=True)
        self.model.load_state_dict(kept["model"])
        for part, state in zip(self.optimizers.parts, kept["parts"], strict=True):
            part.load_state_dict(state)
        self.optimizers.done = kept["steps"]
        for _ in range(kept["steps"] * batches):
            next(stream)
        return kept["steps"]

    def keep(self, step: int) -> None:
        """To be called after each step."""
        if step % self.EVERY == 0:
            beside = self.path.with_suffix(".new")
            parts = [part.state_dict() for part in self.optimizers.parts]
            torch.save({"model": self.model.state_dict(), "parts": parts, "steps": step}, beside)
            beside.replace(self.path)

    def drop(self) -> None:
        """The result is there."""
        self.path.unlink(missing_ok=True)
