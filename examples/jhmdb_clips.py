"""JHMDB-21 for examples/train_jhmdb.py: videos decoded once, and random views of them as the input of a model."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FRAMES, STRIDE, SIZE, CACHED_SIDE = 16, 2, 112, 128

Rows = list[tuple[str, int]]
"""(video, class) of each row of a split."""


def read_split(data: Path, name: str) -> Rows:
    with open(data / f"{name}.csv", newline="") as file:
        return [(row["video"], int(row["class_index"])) for row in csv.DictReader(file)]


def decode(path: Path) -> Tensor:
    """All frames of a video, short side resized to 128: uint8 (T, H, W, 3)."""
    with av.open(str(path)) as container:
        frames = torch.from_numpy(np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)]))
    scale = CACHED_SIDE / min(frames.shape[1:3])
    return resize(frames, (round(frames.shape[1] * scale), round(frames.shape[2] * scale)))


def resize(frames: Tensor, size: tuple[int, int]) -> Tensor:
    frames = frames.permute(0, 3, 1, 2)  # (T, 3, H, W) in the memory order of (T, H, W, 3)
    return F.interpolate(frames, size=size, mode="bilinear", antialias=True).permute(0, 2, 3, 1)


class Cache:
    """Decoded clips in one file on disk."""

    def __init__(self, data: Path, folder: Path, videos: list[str]) -> None:
        pixels, index = folder / "clips.npy", folder / "clips.json"
        if not index.exists():
            decoded = [decode(data / video) for video in videos]
            np.save(pixels, torch.cat(decoded).numpy())
            ends = np.cumsum([len(clip) for clip in decoded]).tolist()
            spans = {v: [end - len(c), end] for v, c, end in zip(videos, decoded, ends, strict=True)}
            index.write_text(json.dumps(spans))
        self.spans: dict[str, list[int]] = json.loads(index.read_text())
        self.pixels = torch.from_numpy(np.load(pixels, mmap_mode="c"))

    def clip(self, video: str, *, start: int | None = None, stride: int = STRIDE) -> Tensor:
        """16 frames uint8 (T, H, W, 3) from `start`, the middle by default; a short clip holds its last frame."""
        first, end = self.spans[video]
        room = max(end - first - (FRAMES - 1) * stride - 1, 0)
        start = room // 2 if start is None else min(start, room)
        return self.pixels[(first + start + torch.arange(FRAMES) * stride).clamp(max=end - 1)]


def random_clip(cache: Cache, video: str, rng: np.random.Generator, least: float) -> Tensor:
    """A clip of random start, stride, crop (of at least this share of the area) and side: uint8 (T, 112, 112, 3)."""
    frames = cache.clip(video, start=int(rng.integers(0, 40)), stride=int(rng.choice([1, 2, 2, 3])))
    height, width = frames.shape[1:3]
    area, ratio = rng.uniform(least, 1.0) * height * height, math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
    h, w = min(round(math.sqrt(area / ratio)), height), min(round(math.sqrt(area * ratio)), width)
    top, left = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
    frames = resize(frames[:, top : top + h, left : left + w], (SIZE, SIZE))
    return frames.flip(2) if rng.random() < 0.5 else frames


def centre_clip(cache: Cache, video: str) -> Tensor:
    """What the package shows of a video in one view: the middle 16 frames, centre crop."""
    frames = cache.clip(video)
    frames = resize(frames, (SIZE, frames.shape[2] * SIZE // frames.shape[1]))
    left = (frames.shape[2] - SIZE) // 2
    return frames[:, :, left : left + SIZE]


def to_input(clips: list[Tensor], rng: np.random.Generator | None = None) -> Tensor:
    """uint8 (T, H, W, 3) each -> normalised (B, 3, T, H, W); with `rng`, colours jitter a clip at a time."""
    x = torch.empty(len(clips), 3, *clips[0].shape[:3])
    for clip, out in zip(clips, x, strict=True):
        planes = clip.permute(3, 0, 1, 2).reshape(3, -1).float()
        matrix, offset = torch.eye(3) / 255, torch.zeros(3)
        if rng is not None:  # one affine map of colours does it all
            saturation, contrast, brightness = rng.uniform((0.0, 0.6, 0.6), (1.5, 1.4, 1.4))
            matrix = contrast * (saturation * matrix + (1 - saturation) / 3 / 255)
            offset = offset + (brightness - contrast) * planes.mean() / 255
        std = torch.tensor(STD)
        offset = (offset - torch.tensor(MEAN)) / std
        torch.addmm(offset[:, None], matrix / std[:, None], planes, out=out.view(3, -1))
    return x


def erase(x: Tensor, rng: np.random.Generator, chance: float = 0.25) -> None:
    """Blots out a box of some clips (B, 3, T, H, W), through all frames, in place."""
    for clip in x:
        if rng.random() < chance:
            top, left, height, width = _box(rng, rng.uniform(0.05, 0.3))
            clip[:, :, top : top + height, left : left + width] = 0


def mix(x: Tensor, target: Tensor, rng: np.random.Generator, chance: float = 0.5) -> tuple[Tensor, Tensor]:
    """Mixup or CutMix, as often, of a batch with itself reversed; targets (B, classes) are mixed alike."""
    if rng.random() >= chance:
        return x, target
    share = float(rng.beta(0.8, 0.8))
    if rng.random() < 0.5:
        x = x * share + x.flip(0) * (1 - share)
    else:
        top, left, height, width = _box(rng, 1 - share)
        x, other = x.clone(), x.flip(0)
        rows, columns = slice(top, top + height), slice(left, left + width)
        x[..., rows, columns] = other[..., rows, columns]
        share = 1 - height * width / SIZE**2
    return x, target * share + target.flip(0) * (1 - share)


def batches(items: list, size: int, rng: np.random.Generator) -> Iterator[list]:
    """Whole batches in random order; what does not fill one waits for the next epoch."""
    order = rng.permutation(len(items))
    for start in range(0, len(items) - size + 1, size):
        yield [items[i] for i in order[start : start + size]]


def _box(rng: np.random.Generator, area: float) -> tuple[int, int, int, int]:
    """top, left, height, width of a square of this share of the area, somewhere in the picture."""
    side = round(SIZE * math.sqrt(area))
    return int(rng.integers(0, SIZE - side + 1)), int(rng.integers(0, SIZE - side + 1)), side, side
