"""From a budget to whole numbers, and from scores to the tokens they pick: frames, regions, tokens, groups.

Every count follows from the layout alone. A share becomes a count half rounding up.
"""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import torch
from torch import Tensor

from tubelet.errors import SelectionError
from tubelet.graphs import constant_result
from tubelet.selection.core import Grid, Layout, Selection
from tubelet.selection.spec import Amount


# A compiler takes the counts as they are, instead of following fractions: they depend on the grid alone.
@constant_result
def share_of(share: float, total: int) -> int:
    """`share` of `total`, half rounding up; the share as it is written (0.7 is seven tenths)."""
    return math.floor(Fraction(Decimal(repr(share))) * total + Fraction(1, 2))


@constant_result
def side_of(share: float, side: int) -> int:
    """sqrt(share) of a side, half rounding up, exactly: the largest n with (2 n - 1)^2 <= 4 share side^2."""
    return (math.isqrt(math.floor(4 * Fraction(Decimal(repr(share))) * side**2)) + 1) // 2


def frames_left(layout: Layout, amount: Amount, name: str) -> Layout:
    """Whole frames: T budget."""
    grid = _dense(layout, name, "T", "whole frames")
    assert not isinstance(amount, tuple)
    frames = share_of(amount, grid.t) if isinstance(amount, float) else amount
    if not 1 <= frames <= grid.t:
        raise SelectionError(f"{name}:T{amount} would keep {frames} of {grid.t} frames (tubelet slots); 1 to {grid.t}")
    return Layout.dense(Grid(frames, grid.h, grid.w))


def region_left(layout: Layout, amount: Amount, name: str) -> Layout:
    """One region of equal size in each frame: S budget."""
    grid = _dense(layout, name, "S", "a region of each frame")
    if isinstance(amount, tuple):
        h, w = amount
    elif isinstance(amount, float):
        h, w = side_of(amount, grid.h), side_of(amount, grid.w)
    else:
        h = w = amount
    if not (1 <= h <= grid.h and 1 <= w <= grid.w):
        raise SelectionError(
            f"{name}: a region of {h} x {w} tokens does not fit in frames of {grid.h} x {grid.w} tokens"
        )
    return Layout.dense(Grid(grid.t, h, w))


def tokens_left(layout: Layout, share: float, name: str) -> Layout:
    """Any tokens, wherever they are: keep budget."""
    kept = share_of(share, layout.tokens)
    if kept < 1:
        raise SelectionError(f"{name}:keep={share} would keep none of {layout.tokens} tokens")
    if kept == layout.tokens:
        return layout
    return Layout(kept, segments=1)


def groups_left(layout: Layout, groups: int, r: int, name: str) -> Layout:
    """The same number of tokens out of each of `groups` equal stretches of time: r budget."""
    if layout.segments % groups:
        raise SelectionError(
            f"{name}: groups={groups} would cut across frames: {layout}; another selector acts between its steps, "
            f"put it before the first or after the last"
        )
    size = layout.tokens // groups
    if r >= size:
        raise SelectionError(f"{name}: r={r} leaves nothing of a group of {size} tokens ({layout})")
    return Layout(groups * (size - r), segments=groups)


def fitting_groups(segments: int, wanted: tuple[int, ...] = (8, 4, 2)) -> str:
    """The groups nearest below `wanted` that divide what is there, each dividing the one before: "4/4/2" for 4."""
    fitting: list[int] = []
    for groups in wanted:
        segments = max(g for g in range(1, min(groups, segments) + 1) if segments % g == 0)
        fitting.append(segments)
    return "/".join(map(str, fitting))


@constant_result
def r_for_share(keep: float, tokens: int, groups: tuple[int, ...]) -> int:
    """The r a group at each step that leaves nearest to `keep` of the tokens at the end (the smaller r on a tie)."""
    wanted = Fraction(Decimal(repr(keep))) * tokens
    exact = (tokens - wanted) / sum(groups)
    return min((math.floor(exact), math.ceil(exact)), key=lambda r: (abs(tokens - r * sum(groups) - wanted), r))


def pick_frames(scores: Tensor, entered: Layout, left: Layout) -> Selection:
    """The frames of highest score (B, T), in their order in time."""
    assert entered.grid and left.grid
    best = _highest(scores, left.grid.t).sort(dim=1).values  # (B, T')
    tokens = torch.arange(entered.grid.per_frame, device=scores.device)
    index = best[..., None] * entered.grid.per_frame + tokens  # (B, T', h w)
    return Selection(index.flatten(1), left, scores)


def pick_regions(scores: Tensor, entered: Layout, left: Layout) -> Selection:
    """In each frame the region whose top left corner has the highest score (B, T, rows, columns of corners)."""
    assert entered.grid and left.grid
    corner = _highest(scores.flatten(2), 1)[..., 0]  # (B, T)
    row, column = corner // scores.shape[-1], corner % scores.shape[-1]
    return Selection(region_tokens(row, column, entered.grid, left.grid), left, scores)


def region_tokens(row: Tensor, column: Tensor, entered: Grid, left: Grid) -> Tensor:
    """Flat token numbers (B, T h w) of a region of `left` size at (row, column) (B, T) of each frame of `entered`."""
    device = row.device
    start = torch.arange(entered.t, device=device) * entered.per_frame + row * entered.w + column  # (B, T)
    rows = torch.arange(left.h, device=device)[:, None] * entered.w
    offset = (rows + torch.arange(left.w, device=device)).flatten()  # (h w)
    return (start[..., None] + offset).flatten(1)


def pick_tokens(scores: Tensor, left: Layout) -> Selection:
    """The tokens of highest score (B, N), in the order they had."""
    return Selection(_highest(scores, left.tokens).sort(dim=1).values, left, scores)


def pick_in_groups(scores: Tensor, left: Layout) -> Selection:
    """In each group the tokens of highest score (B, N), in the order they had."""
    groups = left.segments
    grouped = scores.unflatten(1, (groups, -1))  # (B, G, n)
    best = _highest(grouped, left.tokens // groups).sort(dim=-1).values
    first = torch.arange(groups, device=scores.device)[:, None] * grouped.shape[-1]
    return Selection((best + first).flatten(1), left, scores)


def _highest(scores: Tensor, count: int) -> Tensor:
    """Places of the `count` highest scores along the last dimension; the lower place first where they tie."""
    return scores.sort(dim=-1, descending=True, stable=True).indices[..., :count]


def _dense(layout: Layout, name: str, kind: str, what: str) -> Grid:
    if layout.grid is None:
        raise SelectionError(f"{name}: {kind} keeps {what} and needs a dense grid; an earlier step left {layout}")
    return layout.grid
