"""Where the actor is, as tokens of the view that a model sees: boxes and silhouettes of JHMDB.

A pixel map of the picture goes the way of the picture itself (resized to cover the crop, cropped), and a token counts
if any pixel of its tubelet does, as in scenes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tubelet.data import transforms
from tubelet.data.datasets.base import Key, Sample, as_key
from tubelet.data.datasets.registry import data_root
from tubelet.data.datasets.tubes import Tube, read_jhmdb_tubes
from tubelet.data.datasets.videos import VideoClips
from tubelet.errors import TubeletError
from tubelet.selection.core import Grid

KINDS = ("box", "silhouette")
Pixels = Callable[[str, list[int], tuple[int, int]], Tensor]
"""(name of the video, frames, (h, w)) -> bool (T, h, w): its informative pixels in pictures of that size."""


class WithTruth:
    """The clips of a data set, each with its truth: bool (views, time, row, column), counted in tokens of `grid`."""

    def __init__(self, dataset: VideoClips, pixels: Pixels, grid: Grid) -> None:
        self.dataset, self.pixels, self.grid = dataset, pixels, grid
        self.labels, self.mean, self.std = dataset.labels, dataset.mean, dataset.std
        self.targets, self.listing = dataset.targets, dataset.listing

    def __len__(self) -> int:
        return len(self.dataset)

    def name(self, index: int) -> str:
        return self.dataset.name(index)

    def __getitem__(self, key: int | Key) -> Sample:
        index = as_key(key).index
        sample, seen = self.dataset[key], self.dataset.seen(index)
        resized = transforms.covering_size(*seen.size, self.dataset.side)
        maps = []
        for frames in seen.frames:
            pixels = self.pixels(self.name(index), frames, resized)  # (T, h, w)
            crops = transforms.crops(pixels[..., None], self.dataset.size, self.dataset.views.crops)
            maps += [token_map(crop[..., 0], self.grid) for crop in crops]
        return replace(sample, truth=torch.stack(maps))


def token_map(pixels: Tensor, grid: Grid) -> Tensor:
    """bool (T, H, W) -> bool (t, h, w): the tokens that hold any of the pixels."""
    t, h, w = (whole // parts for whole, parts in zip(pixels.shape, grid, strict=True))
    return pixels.view(grid.t, t, grid.h, h, grid.w, w).amax(dim=(1, 3, 5))


def jhmdb_pixels(kind: str, root: Path | None = None) -> Pixels:
    """Of JHMDB's boxes (tubes.json) or silhouettes (actor_masks_60x80.npz). Raises TubeletError where they are not."""
    if kind not in KINDS:
        raise TubeletError(f"no truth {kind!r} of JHMDB; allowed: {', '.join(KINDS)}")
    root = data_root() / "jhmdb" if root is None else Path(root)
    return _Boxes(root / "tubes.json") if kind == "box" else _Silhouettes(root / "actor_masks_60x80.npz")


def box_pixels(tube: Tube, frames: list[int], picture: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """bool (T, h, w): pixels whose centre is in the box of their frame; a frame without a box takes the nearest.

    picture: (width, height) that boxes count in;  size: (h, w) of the map
    """
    nearest = (tube.frames[None] - torch.tensor(frames)[:, None]).abs().argmin(dim=1)
    x1, y1, x2, y2 = tube.boxes[nearest].T[..., None]  # each (T, 1)
    rows = (torch.arange(size[0]) + 0.5) * picture[1] / size[0]
    columns = (torch.arange(size[1]) + 0.5) * picture[0] / size[1]
    inside_rows, inside_columns = (rows >= y1) & (rows < y2), (columns >= x1) & (columns < x2)
    return inside_rows[:, :, None] & inside_columns[:, None]


class _Boxes:
    def __init__(self, path: Path) -> None:
        self.tubes = read_jhmdb_tubes(path)

    def __call__(self, name: str, frames: list[int], size: tuple[int, int]) -> Tensor:
        (tube,) = self.tubes.videos[_listed(name, self.tubes.videos)]
        assert self.tubes.size is not None
        return box_pixels(tube, frames, self.tubes.size, size)


class _Silhouettes:
    """bits (frames, 600): 60 x 80 pixels, packed;  offsets: first row of each clip and the end;  names: of the clips"""

    SIZE = (60, 80)

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise TubeletError(f"{path}: no such file; the silhouettes of JHMDB are needed")
        with np.load(path) as stored:
            self.bits, offsets, names = stored["bits"], stored["offsets"], stored["names"]
        self.span = {str(name): (int(a), int(b)) for name, a, b in zip(names, offsets[:-1], offsets[1:], strict=True)}

    def __call__(self, name: str, frames: list[int], size: tuple[int, int]) -> Tensor:
        first, end = self.span[_listed(name, self.span)]
        rows = self.bits[[min(first + frame, end - 1) for frame in frames]]
        maps = torch.from_numpy(np.unpackbits(rows, axis=1)).view(-1, 1, *self.SIZE)
        return F.interpolate(maps.float(), size, mode="nearest-exact")[:, 0] > 0.5


def _listed(name: str, known: object) -> str:
    """The name "class/video" of an annotation for that of a list, which may have folders before and a suffix."""
    listed = "/".join(Path(name).with_suffix("").parts[-2:])
    if listed not in known:  # type: ignore[operator]
        raise TubeletError(f"{name}: JHMDB's annotations have no {listed!r}")
    return listed
