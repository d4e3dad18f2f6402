"""Targets as shares of classes, and batches mixed with themselves: label smoothing, mixup, CutMix."""

from __future__ import annotations

import math

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from tubelet.training.config import AugmentSection


def soft_targets(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    """(B,) -> (B, classes): 1 - smoothing on the class, the rest spread over all (Szegedy et al., 2016)."""
    return F.one_hot(labels, classes).float() * (1 - smoothing) + smoothing / classes


def mix(clips: Tensor, targets: Tensor, augment: AugmentSection, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A batch (B, 3, T, H, W) mixed with itself in reverse order, targets (B, classes) alike; one draw a batch.

    mixup    share x + (1 - share) x'                      share ~ Beta(mixup, mixup)    (Zhang et al., 2018)
    CutMix   a box of x', the same in all frames, in x     1 - share of the area         (Yun et al., 2019)
    """
    if not (augment.mixup or augment.cutmix) or rng.random() >= augment.mix_share:
        return clips, targets
    cut = augment.cutmix > 0 and (not augment.mixup or rng.random() < augment.switch)
    alpha = augment.cutmix if cut else augment.mixup
    share = float(rng.beta(alpha, alpha))
    if cut:
        rows, columns = _box(rng, 1 - share, *clips.shape[-2:])
        clips, other = clips.clone(), clips.flip(0)
        clips[..., rows, columns] = other[..., rows, columns]
        area = (rows.stop - rows.start) * (columns.stop - columns.start)
        share = 1 - area / (clips.shape[-2] * clips.shape[-1])
    else:
        clips = clips * share + clips.flip(0) * (1 - share)
    return clips, targets * share + targets.flip(0) * (1 - share)


def _box(rng: np.random.Generator, area: float, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of a box of this share of the picture around a random point, cut at the edges."""
    h, w = height * math.sqrt(area), width * math.sqrt(area)
    row, column = rng.integers(height), rng.integers(width)
    top, bottom = (int(min(max(row + side * h / 2, 0), height)) for side in (-1, 1))
    left, right = (int(min(max(column + side * w / 2, 0), width)) for side in (-1, 1))
    return slice(top, bottom), slice(left, right)
