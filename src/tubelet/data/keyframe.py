"""From pictures to the input of a detector: a clip around a key frame, whole pictures in their own proportions, boxes.

Boxes (n, 4) are x1, y1, x2, y2 in pixels; frames are uint8 (T, H, W, 3).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tubelet.data import transforms
from tubelet.errors import TubeletError

LONGEST = 1333  # pixels that the long side has at most, as published


def scale_of(height: int, width: int, short: int, longest: int = LONGEST) -> float:
    """By how much a picture grows so that its short side is `short`, or less where the other would be too long."""
    if min(height, width) < 1 or short < 1:
        raise TubeletError(f"a picture of {width} x {height} cannot be resized to a short side of {short}")
    return min(short / min(height, width), longest / max(height, width))


def resized_size(height: int, width: int, short: int, longest: int = LONGEST) -> tuple[int, int]:
    """(height, width) after resizing, each side half rounding up."""
    scale = scale_of(height, width, short, longest)
    return max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1)


def resized(frames: Tensor, short: int, longest: int = LONGEST) -> Tensor:
    """(T, H, W, 3) -> (T, h, w, 3), bilinear without antialias, as published."""
    size = resized_size(frames.shape[1], frames.shape[2], short, longest)
    if tuple(frames.shape[1:3]) == size:
        return frames
    pictures = frames.permute(0, 3, 1, 2)
    if frames.device.type == "cpu":  # where there is a kernel for uint8, many times as fast as the one for float
        return F.interpolate(pictures, size, mode="bilinear", align_corners=False).permute(0, 2, 3, 1)
    enlarged = F.interpolate(pictures.float(), size, mode="bilinear", align_corners=False)
    return enlarged.round().to(torch.uint8).permute(0, 2, 3, 1)


def resized_boxes(
    boxes: Tensor, height: int, width: int, short: int, longest: int = LONGEST, *, published: bool = False
) -> Tensor:
    """Boxes of a picture in the resized one, cut at its edges; as published at W - 1 and H - 1."""
    ends = boxes.new_tensor([width, height, width, height]) - (1 if published else 0)
    return boxes.clamp(min=0).minimum(ends) * scale_of(height, width, short, longest)


def flipped_boxes(boxes: Tensor, width: int, *, published: bool = False) -> Tensor:
    """Boxes of a mirrored picture of that width: x becomes W - x, since a box is its edges.

    published:  W - 1 - x, which takes x for the number of a column, and so moves boxes off the people by a pixel
    """
    x1, y1, x2, y2 = boxes.unbind(-1)
    end = width - 1 if published else width
    return torch.stack([end - x2, y1, end - x1, y2], dim=-1)


def areas(boxes: Tensor) -> Tensor:
    """(n, 4) -> (n,): square pixels, 0 of a box that is none."""
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1)


def zoomed(
    frames: Tensor, boxes: Tensor, scale: float, place: tuple[float, float], fill: Tensor
) -> tuple[Tensor, Tensor]:
    """Pictures shrunk or enlarged about a place within the same (T, H, W, 3), and the boxes (n, 4) in them.

    place:  shares (down, right) of the room there is: of a small picture in the frame, or of the frame in a large one
    fill:   uint8 (3,), the colour of what a small picture leaves
    Boxes are cut at the frame; (0, 0, 0, 0) is one that lies outside.
    """
    height, width = frames.shape[1:3]
    size = (max(round(height * scale), 1), max(round(width * scale), 1))
    pictures = F.interpolate(frames.permute(0, 3, 1, 2), size, mode="bilinear", align_corners=False).permute(0, 2, 3, 1)
    top, left = (round(share * (a - b)) for share, a, b in zip(place, (height, width), size, strict=True))
    found = fill.expand_as(frames).clone()
    rows, columns = (slice(max(at, 0), at + b) for at, b in ((top, size[0]), (left, size[1])))
    cut = pictures[:, max(-top, 0) : height - top, max(-left, 0) : width - left]
    found[:, rows, columns] = cut
    there = boxes * boxes.new_tensor([size[1] / width, size[0] / height] * 2) + boxes.new_tensor([left, top] * 2)
    there = there.clamp(min=0).minimum(boxes.new_tensor([width, height] * 2))
    outside = (there[:, 2:] <= there[:, :2]).any(dim=1)
    return found, there.masked_fill(outside[:, None], 0.0)


def prepared(
    frames: Tensor, short: int, mean: Sequence[float], std: Sequence[float], *, longest: int = LONGEST
) -> Tensor:
    """uint8 (T, H, W, 3) -> float32 (3, T, h, w): resized and normalised."""
    return transforms.normalize(resized(frames, short, longest), mean, std)
