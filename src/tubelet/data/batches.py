"""Batches, and which clips each training step takes: the same for the same seed, from any step on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tubelet.data.datasets.base import Key
from tubelet.errors import TubeletError


@dataclass
class Batch:
    """B samples, or none of a batch whose clips could all not be read (`Loader` passes over those).

    clips:   uint8 (B, V, T, H, W, 3), V views of each;  labels: int64 (B,)
    truth:   bool (B, time, row, column) where the data set knows it
    bad, warnings:  name -> sentence
    """

    clips: Tensor
    labels: Tensor
    names: list[str]
    indices: list[int]
    truth: Tensor | None = None
    bad: dict[str, str] = field(default_factory=dict)
    warnings: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    def pin_memory(self) -> Batch:
        """For torch's DataLoader, before it is sent to a GPU."""
        truth = None if self.truth is None else self.truth.pin_memory()
        return replace(self, clips=self.clips.pin_memory(), labels=self.labels.pin_memory(), truth=truth)

    def parts(self, count: int) -> list[Batch]:
        """The batch in `count` equal parts; fewer if it has fewer clips."""
        if count == 1:
            return [self]
        size = -(-len(self) // count)
        return [self._part(slice(at, at + size)) for at in range(0, len(self), size)]

    def _part(self, which: slice) -> Batch:
        """What is told of each clip is cut, the rest is left out."""
        told = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("bad", "warnings")}
        cut: dict[str, Any] = {name: None if value is None else value[which] for name, value in told.items()}
        return type(self)(**cut)

    def input(self, mean: Sequence[float], std: Sequence[float], device: torch.device | str = "cpu") -> Tensor:
        """float32 (B * V, 3, T, H, W): what a model takes, the views of the first clip first."""
        clips = self.clips.to(device, non_blocking=True).flatten(0, 1).permute(0, 4, 1, 2, 3)
        scale = torch.tensor(std, device=device).view(3, 1, 1, 1)
        centre = torch.tensor(mean, device=device).view(3, 1, 1, 1)
        return (clips / 255).sub_(centre).div_(scale).contiguous()


class Steps:
    """The keys of each training step: whole batches of a new random order each epoch, the same for the same seed.

    count:  clips of the data set;  steps: how many batches in all;  start: how many of them are done (a resumed run)
    rank, world:  of several processes each takes its part of every batch
    shuffled:  False takes the clips as they are listed, for data that is random already
    repeated:  views of each clip that stand in a batch side by side, each of an epoch of its own for the data set

    What does not fill a batch at the end of an order is left to the next epoch. Raises TubeletError if the batch is
    larger than the data set, or does not divide among the processes and into groups of views.
    """

    def __init__(
        self,
        count: int,
        batch: int,
        steps: int,
        *,
        start: int = 0,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        repeated: int = 1,
        shuffled: bool = True,
    ) -> None:
        if not 1 <= batch // repeated <= count:
            views = f" of {repeated} views each" if repeated > 1 else ""
            raise TubeletError(f"a batch must have 1 to {count} clips{views}, all of the data set; got {batch}")
        if batch % (world * repeated):
            groups = f" in groups of {repeated} views" if repeated > 1 else ""
            raise TubeletError(f"a batch of {batch} clips does not divide among {world} processes{groups}")
        self.count, self.batch, self.steps, self.start = count, batch, steps, start
        self.seed, self.rank, self.world, self.repeated, self.shuffled = seed, rank, world, repeated, shuffled

    def __len__(self) -> int:
        return max(self.steps - self.start, 0)

    @property
    def per_epoch(self) -> int:
        return self.count // (self.batch // self.repeated)

    def __iter__(self) -> Iterator[list[Key]]:
        order, of_epoch = np.empty(0, dtype=int), -1
        for step in range(self.start, self.steps):
            epoch, at = divmod(step, self.per_epoch)
            if epoch != of_epoch:
                rng, of_epoch = np.random.default_rng((self.seed, epoch)), epoch
                order = rng.permutation(self.count) if self.shuffled else np.arange(self.count)
            clips = self.batch // self.repeated
            chosen = order[at * clips : (at + 1) * clips][self.rank :: self.world]
            views = range(epoch * self.repeated, (epoch + 1) * self.repeated)
            yield [Key(int(index), view, step / self.steps) for index in chosen for view in views]
