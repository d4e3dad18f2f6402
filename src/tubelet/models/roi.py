"""RoIAlign in plain torch: what a feature map holds inside boxes, on a grid of `resolution` x `resolution` bins.

Each bin is the mean of `samples` x `samples` points, each point the bilinear mean of four cells; a point more than a
cell outside the map counts as 0 (He et al., 2017, with the later half-cell correction). So a bin is a weighted sum of
few rows of the map, and all bins of all boxes, on whichever level of a pyramid each lies, are one `embedding_bag`.
The channels come last, so that a map of several time slots is pooled at once, with time among the channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tubelet.models.boxes import area

CANONICAL = 224.0  # a box of this side lies on level 2 of 4, the one of stride 16 (Lin et al., 2017, eq. 1)


def levels_of(boxes: Tensor, levels: int) -> Tensor:
    """The pyramid level, 0 the finest, that each box (..., 4) is pooled from: (...), int64."""
    level = torch.floor(4 + torch.log2(area(boxes).sqrt() / CANONICAL + 1e-8))
    return level.clamp(2, levels + 1).long() - 2


def roi_align(
    maps: Sequence[Tensor],
    boxes: Tensor,
    strides: Sequence[float],
    level: Tensor | None = None,
    *,
    resolution: int = 7,
    samples: int = 2,
) -> Tensor:
    """Boxes (B, Q, 4) in pixels, maps (B, h, w, C) of these strides -> (B, Q, bins, C), bins row by row.

    level: (B, Q) which of the maps each box is pooled from; None: the first.
    """
    batch, count = boxes.shape[:2]
    channels = maps[0].shape[-1]
    table = torch.cat([one.flatten(1, 2) for one in maps], dim=1)  # (B, cells, C)
    if level is None:
        level = torch.zeros(batch, count, dtype=torch.long, device=boxes.device)
    heights = boxes.new_tensor([one.shape[1] for one in maps])[level]  # (B, Q)
    widths = boxes.new_tensor([one.shape[2] for one in maps])[level]
    scale = 1 / boxes.new_tensor(strides)[level]
    cells = [one.shape[1] * one.shape[2] for one in maps]
    starts = torch.tensor([sum(cells[:i]) for i in range(len(maps))], device=boxes.device)[level]
    starts = starts + torch.arange(batch, device=boxes.device)[:, None] * table.shape[1]  # (B, Q)

    edges = boxes * scale[..., None] - 0.5
    column, column_weight = _along(edges[..., 0], edges[..., 2], widths, resolution, samples)  # (B, Q, bins, 2 samples)
    row, row_weight = _along(edges[..., 1], edges[..., 3], heights, resolution, samples)
    row = row * widths.long()[..., None, None] + starts[..., None, None]
    index = row[:, :, :, None, :, None] + column[:, :, None, :, None, :]  # (B, Q, bins, bins, 2 samples, 2 samples)
    weight = row_weight[:, :, :, None, :, None] * column_weight[:, :, None, :, None, :]
    parts = (2 * samples) ** 2
    pooled = F.embedding_bag(
        index.reshape(-1, parts),
        table.reshape(-1, channels),
        mode="sum",
        per_sample_weights=weight.reshape(-1, parts).to(table.dtype),
    )
    return pooled.view(batch, count, resolution**2, channels)


def _along(low: Tensor, high: Tensor, length: Tensor, resolution: int, samples: int) -> tuple[Tensor, Tensor]:
    """Along one axis, the cells that the bins of each box read, and how much of each: (B, Q, resolution, 2 samples)."""
    points = (torch.arange(resolution * samples, device=low.device, dtype=low.dtype) + 0.5) / samples / resolution
    at = low[..., None] + (high - low)[..., None] * points  # (B, Q, points)
    last = length[..., None] - 1
    inside = (at >= -1) & (at <= last + 1)
    at = at.clamp(min=0).minimum(last)
    first = at.detach().floor()
    part = at - first
    weight = torch.stack([1 - part, part], dim=-1) * inside[..., None] / samples
    cell = torch.stack([first, (first + 1).minimum(last)], dim=-1).long()
    return tuple(one.view(*low.shape, resolution, 2 * samples) for one in (cell, weight))  # type: ignore[return-value]
