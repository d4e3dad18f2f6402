"""From a detector's predictions to people in pixels of the video."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tubelet.models.boxes import clipped, whwh
from tubelet.models.evad import Predictions


def scaled_boxes(found: Predictions, originals: Sequence[tuple[int, int]]) -> Tensor:
    """(B, Q, 4): the last head's boxes within the picture, in pixels of pictures of these (height, width)."""
    boxes = clipped(found.boxes[-1].float(), found.sizes)
    return boxes * (whwh(torch.tensor(originals, dtype=torch.float32, device=boxes.device)) / whwh(found.sizes))


def kept_proposals(scores: Tensor, threshold: float, *, all_if_none: bool = False) -> Tensor:
    """Which proposals (B, Q) are people: bool. `all_if_none`: the rule of the published evaluation, which keeps every
    proposal of a frame where none passes."""
    kept = scores >= threshold
    return kept | ~kept.any(dim=1, keepdim=True) if all_if_none else kept
