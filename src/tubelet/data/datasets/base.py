"""What every data set of clips is: a list of labels and, for a `Key`, a `Sample`; the same one on every machine."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Key:
    """What decides a sample, together with the seed of its data set.

    index:     which clip;  epoch: which of the random views of it
    progress:  share of the training steps that are done, for data that grows harder
    """

    index: int
    epoch: int = 0
    progress: float = 1.0


@dataclass(frozen=True)
class Sample:
    """One clip.

    clips:    uint8 (V, T, H, W, 3), RGB: its V views to average over; in training one
    label:    number of its class;  name: what to call it in messages
    truth:    bool (time, row, column), the tokens of what is informative, where that is known
    warning:  a sentence on what is missing from its file, or nothing
    """

    clips: Tensor
    label: int
    name: str
    index: int
    truth: Tensor | None = None
    warning: str = ""


class ClipDataset(Protocol):
    """A map-style data set: torch's DataLoader takes it as it is, with whole numbers or `Key`s.

    labels:   names of the classes, in the order of their numbers
    targets:  number of the class of each clip, without reading any
    mean, std:  what a model trained on it subtracts and divides by
    """

    @property
    def labels(self) -> list[str]: ...

    @property
    def targets(self) -> list[int]: ...

    @property
    def mean(self) -> tuple[float, float, float]: ...

    @property
    def std(self) -> tuple[float, float, float]: ...

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """What a clip is called in messages, without reading it."""
        ...

    def __getitem__(self, key: int | Key) -> Sample:
        """Raises VideoError or OSError if the clip cannot be read."""
        ...


def as_key(key: int | Key) -> Key:
    return key if isinstance(key, Key) else Key(key)


def random_of(seed: int, key: Key) -> np.random.Generator:
    """The random numbers of one view: whatever was drawn before, by whichever worker."""
    return np.random.default_rng(np.random.SeedSequence((seed, key.epoch, key.index)))


def clips_id(dataset: ClipDataset) -> str:
    """The same for the same list of clips: names, classes and, of scenes, what makes them."""
    made = {key: getattr(dataset, key) for key in ("level", "split", "seed") if hasattr(dataset, key)}
    names = [dataset.name(index) for index in range(len(dataset))]
    return sha256(repr((made, dataset.labels, dataset.targets, names)).encode()).hexdigest()[:8]
