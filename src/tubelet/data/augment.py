"""Random views for training, on uint8 frames (T, H, W, 3): when, which part of the picture, mirrored or not."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from tubelet.data import transforms
from tubelet.errors import TubeletError

AREA, RATIO = (0.5, 1.0), (3 / 4, 4 / 3)


def random_slots(rng: np.random.Generator, sampling: str, total: int, frames: int, stride: int) -> list[int]:
    """The training counterpart of a sampling of `data.sampling`.

    dense, k400:    every `stride`-th frame from a random start; a video that is too short repeats its last frame
    uniform, ssv2:  a random frame of each of `frames` equal segments

    Raises TubeletError for another sampling.
    """
    if sampling in ("dense", "k400"):
        start = int(rng.integers(max(total - ((frames - 1) * stride + 1), 0) + 1))
        return [min(start + i * stride, total - 1) for i in range(frames)]
    if sampling not in ("uniform", "ssv2"):
        raise TubeletError(f"no random clips for sampling {sampling!r}; allowed: dense, k400, uniform, ssv2")
    within = rng.random(frames)
    return [min(int((i + within[i]) * total / frames), total - 1) for i in range(frames)]


def random_resized_crop(
    frames: Tensor,
    rng: np.random.Generator,
    size: transforms.Size,
    area: tuple[float, float] = AREA,
    ratio: tuple[float, float] = RATIO,
) -> Tensor:
    """(T, H, W, 3) -> (T, h, w, 3): a part of this share of the area and these proportions, the same in all frames."""
    height, width = frames.shape[1:3]
    pixels = rng.uniform(*area) * height * width
    shape = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))  # width / height
    h = min(max(round(math.sqrt(pixels / shape)), 1), height)
    w = min(max(round(math.sqrt(pixels * shape)), 1), width)
    top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    return transforms.resize(frames[:, top : top + h, left : left + w], transforms.height_width(size))


def random_view(
    frames: Tensor, rng: np.random.Generator, size: transforms.Size, *, flip: bool, area: tuple[float, float] = AREA
) -> Tensor:
    """(T, H, W, 3) -> (T, h, w, 3): a random part, mirrored every second time where that may be."""
    view = random_resized_crop(frames, rng, size, area)
    return view.flip(2) if flip and rng.random() < 0.5 else view
