"""Boxes as tensors (..., 4): x1, y1, x2, y2 in pixels, from the left edge of the first to the right edge of the last.

`sizes` are (B, 2), height and width of each image, for boxes (B, Q, 4).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

DELTA_WEIGHTS = (2.0, 2.0, 1.0, 1.0)  # Sparse R-CNN's: deltas are divided by these
MOST_GROWTH = math.log(100_000 / 16)  # of a side, as a logarithm


def area(boxes: Tensor) -> Tensor:
    """(...): 0 where a side is negative."""
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    return sides[..., 0] * sides[..., 1]


def shared_area(a: Tensor, b: Tensor) -> Tensor:
    """(...): of boxes (..., 4) of two tensors that broadcast."""
    sides = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    return sides.clamp(min=0).prod(dim=-1)


def from_centres(boxes: Tensor) -> Tensor:
    """Centre x, centre y, width, height -> x1, y1, x2, y2."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def whwh(sizes: Tensor) -> Tensor:
    """(B, 2) height, width -> (B, 1, 4) width, height, width, height."""
    return sizes.flip(-1).repeat(1, 2)[:, None]


def apply_deltas(boxes: Tensor, deltas: Tensor) -> Tensor:
    """Boxes moved by deltas of their centre (in sides) and of their sides (in logarithms)."""
    dx, dy, dw, dh = (deltas / deltas.new_tensor(DELTA_WEIGHTS)).unbind(-1)
    width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    x, y = boxes[..., 0] + width / 2 + dx * width, boxes[..., 1] + height / 2 + dy * height
    width, height = width * dw.clamp(max=MOST_GROWTH).exp(), height * dh.clamp(max=MOST_GROWTH).exp()
    return torch.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], dim=-1)


def clipped(boxes: Tensor, sizes: Tensor) -> Tensor:
    """Boxes within [0, W - 1] x [0, H - 1], as published."""
    return boxes.clamp(min=0).minimum(whwh(sizes).to(boxes) - 1)


def extended(boxes: Tensor, sizes: Tensor, share: tuple[float, float]) -> Tensor:
    """Boxes wider and higher by these shares (of width, of height), then clipped."""
    width, height = (boxes[..., 2:] - boxes[..., :2] + 1).unbind(-1)
    x, y = width * share[0] / 2, height * share[1] / 2
    return clipped(boxes + torch.stack([-x, -y, x, y], dim=-1), sizes)


def pair_iou(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and union of boxes (..., 4) of two tensors that broadcast."""
    shared = shared_area(a, b)
    union = area(a) + area(b) - shared
    return shared / union.clamp(min=torch.finfo(union.dtype).tiny), union


def generalised_iou(a: Tensor, b: Tensor) -> Tensor:
    """Rezatofighi et al. (2019): IoU, less the empty share of the smallest box around both."""
    iou, union = pair_iou(a, b)
    around = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    hull = around.clamp(min=0).prod(dim=-1)
    return iou - (hull - union) / hull.clamp(min=torch.finfo(hull.dtype).tiny)
