"""3D windows of a grid as Video Swin forms them: which tokens meet, and where each pair finds its position bias.

Windows are `window` (time, rows, columns) tokens large, from a corner that is moved by `shift` in every other block. As
published: a window is clipped to a smaller grid and then not shifted along that side; a side that it does not divide is
padded at its end; and with a shift the grid is a ring, so a window at the end holds tokens of both ends, which do not
attend to each other (100 is taken off their logits). All this is known from the grid alone. Windows that look alike,
with the same padding and the same seam, make one `Kind`, and one attention call.

Padding takes part as keys and values, but no product is needed for it: a padded token is zero, so its key and its value
are the biases of their layers, the same for all of a window. To a query q all of them together are one key, whose
position bias is the logarithm of the sum of their exponentials:

    sum_p exp(q b_k + bias_p)  =  exp(q b_k + log sum_p exp(bias_p))        for the denominator, and times b_v above it
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import prod
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tubelet.graphs import constant_result

Size = tuple[int, int, int]  # time, rows, columns
SEAM = -100.0  # on the logits of pairs that only the ring brings together, as published


class Run(NamedTuple):
    """Neighbouring windows along one axis that look alike."""

    first: int  # token, in the order of the shifted axis
    windows: int
    real: list[int]  # slots of a window that hold tokens,
    padding: list[int]  # and those that do not
    side: list[int]  # of each slot: 1 behind the seam


class Kind(NamedTuple):
    """Windows W of n tokens each that share their position bias."""

    tokens: Tensor  # (W, n) numbers in the grid
    bias: Tensor  # (n n) places in a table that is followed by itself with SEAM added
    padding: Tensor | None  # (n p) likewise, for p padded keys


@dataclass(frozen=True)
class Windows:
    """A grid cut into windows."""

    kinds: tuple[Kind, ...]
    place: Tensor  # (N): where each token of the grid stands when the kinds are put one behind the other
    table: Size  # the window whose pairs the table of position biases is for


def clipped(size: int, window: int, shift: int) -> tuple[int, int]:
    """Window and shift along a side of the grid."""
    return (size, 0) if size <= window else (window, shift)


def fitted(frames: int, window: int) -> int:
    """The largest temporal window up to `window` that divides the frames; if that is below half, the next larger."""
    if frames <= window:
        return window  # clipped anyway
    divisors = [d for d in range(1, frames + 1) if frames % d == 0]
    below = [d for d in divisors if window <= 2 * d <= 2 * window]
    return max(below) if below else min((d for d in divisors if d > window), default=frames)


def axis_runs(size: int, window: int, shift: int) -> list[Run]:
    """The windows along one axis of `size` tokens, those alike together."""
    padded = -(-size // window) * window
    runs: list[Run] = []
    first = 0
    for start in range(0, padded, window):
        slots = range(start, start + window)  # on the shifted axis
        real = [i - start for i in slots if (i + shift) % padded < size]
        padding = [i - start for i in slots if (i + shift) % padded >= size]
        side = [int(shift > 0 and i >= padded - shift) for i in slots]
        if runs and runs[-1][2:] == (real, padding, side):
            runs[-1] = runs[-1]._replace(windows=runs[-1].windows + 1)
        else:
            runs.append(Run(first, 1, real, padding, side))
        first += len(real)
    return runs


def windows_of(grid: Sequence[int], window: Sequence[int], shifted: bool, device: torch.device) -> Windows:
    """Made once for a grid, and remembered."""
    t, h, w = (operator.index(n) for n in grid)  # to a compiler: this number, no symbol
    return _constant(t, h, w, window[0], window[1], window[2], shifted, device)


# A compiler and an exporter take the result as it is (the first takes plain numbers alone): with numpy, nothing of its
# making comes into a graph.
@constant_result
def _constant(t: int, h: int, w: int, w_t: int, w_h: int, w_w: int, shifted: bool, device: torch.device) -> Windows:
    with torch.inference_mode(False):  # they may serve a training later
        return _remembered((t, h, w), (w_t, w_h, w_w), shifted, device)


@lru_cache(maxsize=32)
def _remembered(grid: Size, window: Size, shifted: bool, device: torch.device) -> Windows:
    sides = [clipped(n, w, w // 2 * shifted) for n, w in zip(grid, window, strict=True)]
    kinds, order = [], []

    def as_tensor(numbers: NDArray) -> Tensor:
        return torch.from_numpy(numbers).to(device)

    for runs in product(*(axis_runs(n, *side) for n, side in zip(grid, sides, strict=True))):
        t, h, w = (_places(*axis) for axis in zip(runs, grid, sides, strict=True))  # each (windows, slots)
        tokens = (
            t[:, None, None, :, None, None] * (grid[1] * grid[2])
            + h[None, :, None, None, :, None] * grid[2]
            + w[None, None, :, None, None, :]
        ).reshape(len(t) * len(h) * len(w), -1)  # (W, n)
        bias, padding = _bias_places(runs, [size for size, _ in sides], window)
        kinds.append(Kind(as_tensor(tokens), as_tensor(bias), None if padding is None else as_tensor(padding)))
        order.append(tokens.ravel())
    place = np.concatenate(order).argsort()
    return Windows(tuple(kinds), as_tensor(place), window)


def pair_places(window: Size) -> Tensor:
    """(n, n): where the bias of each pair of a whole window is in the table; released files hold it."""
    return windows_of(window, window, False, torch.device("cpu")).kinds[0].bias.view(prod(window), -1).long()


def _places(run: Run, size: int, side: tuple[int, int]) -> NDArray:
    """Where along its axis the tokens of each window of a run are: (windows, slots)."""
    count = run.windows * len(run.real)
    return ((np.arange(run.first, run.first + count) + side[1]) % size).reshape(run.windows, -1)


def _bias_places(runs: tuple[Run, ...], window: Sequence[int], table: Size) -> tuple[NDArray, NDArray | None]:
    """Places in the doubled table of all pairs of tokens, and of tokens and padding."""
    real, padding = [run.real for run in runs], [run.padding for run in runs]
    every = [list(range(size)) for size in window]
    boxes = [[padding[0], every[1], every[2]], [real[0], padding[1], every[2]], [real[0], real[1], padding[2]]]
    where, side = _slots(real, runs, window, table)
    length = prod(2 * size - 1 for size in table)

    def pairs(where_k: NDArray, side_k: NDArray) -> NDArray:
        offset = where[:, None] - where_k + length // 2  # the middle of the table is for a token and itself
        return (offset + length * (side[:, None] != side_k)).ravel().astype(np.int32)

    if pads := [_slots(box, runs, window, table) for box in boxes if all(box)]:
        where_k, side_k = (np.concatenate(parts) for parts in zip(*pads, strict=True))
        return pairs(where, side), pairs(where_k, side_k)
    return pairs(where, side), None


def _slots(
    box: Sequence[list[int]], runs: tuple[Run, ...], window: Sequence[int], table: Size
) -> tuple[NDArray, NDArray]:
    """Of the slots of a box in the window: where their rows of the table begin, and on which side of seams they are."""
    number = np.ravel_multi_index(np.ix_(*box), tuple(window)).ravel()
    sides = [[run.side[i] << axis for i in box[axis]] for axis, run in enumerate(runs)]
    t, h, w = np.ix_(*sides)
    side = (t + h + w).ravel()
    # As published, the slots of a clipped window are numbered as the first ones of a whole window. Where rows or
    # columns are clipped, their pairs find biases of other pairs; the weights were trained with that.
    t, h, w = np.unravel_index(number, table)
    return (t * (2 * table[1] - 1) + h) * (2 * table[2] - 1) + w, side
