"""From decoded pictures to the input of a model, in plain torch.

Pictures are (T, H, W, 3) until `normalize`, which gives the model's (3, T, H, W).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tubelet.errors import TubeletError

Size = int | tuple[int, int]
"""A side of a square, or (height, width)."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

MAX_RESIZED = 2**26
"""Pixels: a picture far longer than wide would otherwise become a huge one before it is cropped."""


def height_width(size: Size) -> tuple[int, int]:
    """(height, width) of a size. Raises TubeletError if a side is not positive."""
    height, width = (size, size) if isinstance(size, int) else size
    if height < 1 or width < 1:
        raise TubeletError(f"size must be positive, got {size}")
    return height, width


def resize(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """(T, H, W, 3) -> (T, h, w, 3), bilinear with antialias; uint8 stays uint8 (rounded), float stays float."""
    if tuple(frames.shape[1:3]) == size:
        return frames
    if size[0] * size[1] > MAX_RESIZED:
        raise TubeletError(f"a picture of {size[1]} x {size[0]} is too large; allowed: {MAX_RESIZED} pixels")
    pictures = frames.permute(0, 3, 1, 2)
    # On the CPU there is a kernel for uint8, 12 times as fast as the one for float and within one grey level of it.
    rounded = frames.dtype == torch.uint8 and frames.device.type != "cpu"
    resized = F.interpolate(pictures.float() if rounded else pictures, size, mode="bilinear", antialias=True)
    if rounded:
        resized = resized.round().clamp(0, 255).to(torch.uint8)
    return resized.permute(0, 2, 3, 1)


def covering_size(height: int, width: int, size: Size) -> tuple[int, int]:
    """The (height, width), in the proportions of the picture, that just covers `size`; if square, by its short side.

    The other side is rounded down, as in the protocols of VideoMAE.
    """
    target_height, target_width = height_width(size)
    if target_height * width >= target_width * height:  # height is the side that decides
        return target_height, max(target_height * width // height, target_width)
    return max(target_width * height // width, target_height), target_width


def short_side(frames: Tensor, size: Size) -> Tensor:
    """(T, H, W, 3) -> (T, h, w, 3): resized so that the short side is `size`, or that it covers (height, width)."""
    return resize(frames, covering_size(frames.shape[1], frames.shape[2], size))


def crops(frames: Tensor, size: Size, count: int) -> list[Tensor]:
    """1 crop: the centre; 3 crops: both ends and the centre along the long side. Each (T, h, w, 3).

    Raises TubeletError for another count, or a picture smaller than the crop.
    """
    height, width = height_width(size)
    spare_rows, spare_columns = frames.shape[1] - height, frames.shape[2] - width
    if spare_rows < 0 or spare_columns < 0:
        raise TubeletError(f"a {width} x {height} crop does not fit in a {frames.shape[2]} x {frames.shape[1]} picture")
    middle = (spare_rows // 2, spare_columns // 2)
    if count == 1:
        corners = [middle]
    elif count == 3 and spare_columns >= spare_rows:
        corners = [(middle[0], 0), middle, (middle[0], spare_columns)]
    elif count == 3:
        corners = [(0, middle[1]), middle, (spare_rows, middle[1])]
    else:
        raise TubeletError(f"crops must be 1 or 3, got {count}")
    return [frames[:, top : top + height, left : left + width] for top, left in corners]


def normalize(frames: Tensor, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD) -> Tensor:
    """uint8 (T, H, W, 3) -> float32 (3, T, H, W): (x / 255 - mean) / std."""
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise TubeletError(f"mean and std must be three numbers each, std above 0; got {list(mean)} and {list(std)}")
    clip = frames.permute(3, 0, 1, 2) / 255  # (3, T, H, W)
    centre, scale = (clip.new_tensor(list(values)).view(3, 1, 1, 1) for values in (mean, std))
    return clip.sub_(centre).div_(scale)
