"""Selectors of the kinds that the core must carry, written for the tests: soft frames, soft regions, a key slab.

They are the shapes of STTS in training and of EVAD, without their scorers and details. The soft ones list every
candidate, which is easy to follow and takes the memory of all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tubelet.errors import SelectionError
from tubelet.selection.budgets import frames_left, region_left, region_tokens
from tubelet.selection.core import Layout, Selection, Tokens
from tubelet.selection.plan import Selector


@dataclass(frozen=True, kw_only=True)
class SoftSelection(Selection):
    """A differentiable choice: each unit that leaves is a weighted mean of candidates (frames, or regions of a frame).

    `candidates` (U or 1, A, n) lists the tokens of each of A candidates for each of U units, `weights` (B, U, A).
    What cannot be averaged (positions, sizes, signals) follows the heaviest candidate, which `index` holds.
    """

    candidates: Tensor
    weights: Tensor

    @classmethod
    def of(cls, candidates: Tensor, weights: Tensor, layout: Layout, scores: Tensor | None = None) -> SoftSelection:
        best = weights.argmax(dim=-1)  # (B, U)
        units = torch.arange(weights.shape[1], device=weights.device)
        rows = candidates.expand(weights.shape[1], -1, -1)[units, best]  # (B, U, n)
        return cls(rows.flatten(1), layout, scores, candidates=candidates, weights=weights)

    def _features(self, tokens: Tokens) -> Tensor:
        options = tokens.patches[:, self.candidates]  # (B, U or 1, A, n, C)
        weights = self.weights.to(options.dtype)
        if self.candidates.shape[0] == 1:  # every unit chooses among the same candidates
            mixed = torch.einsum("bua,banc->bunc", weights, options[:, 0])
        else:
            mixed = torch.einsum("bua,buanc->bunc", weights, options)
        if tokens.framed:
            first = tokens.frames[:, :, :1]  # (B, P, 1, C)
            if self.candidates.shape[0] == 1:  # whole frames were mixed, their class tokens with them
                frame = self.candidates[0, :, 0] // (tokens.layout.tokens // tokens.prefix)
                first = torch.einsum("bua,banc->bunc", weights, first[:, frame])
            return torch.cat([first, mixed.unflatten(1, (first.shape[1], -1)).flatten(2, 3)], dim=2).flatten(1, 2)
        return torch.cat([tokens.x[:, : tokens.prefix], mixed.flatten(1, 2)], dim=1)


class SoftFrames(Selector):
    """Each kept frame is a weighted mean of all frames; the weights are a softmax of a learned score."""

    name = "soft_frames"

    def __init__(self, dim, frames):
        super().__init__()
        self.frames = frames
        self.score = torch.nn.Linear(dim, frames)

    def leaves(self, layout, start):
        return frames_left(layout, self.frames, self.name)

    def forward(self, tokens, left):
        grid = tokens.layout.grid
        frame = tokens.patches.unflatten(1, (grid.t, -1)).mean(2)  # (B, T, C)
        weights = self.score(frame).transpose(1, 2).softmax(-1)  # (B, T', T)
        candidates = torch.arange(grid.tokens).view(1, grid.t, grid.per_frame)
        return SoftSelection.of(candidates, weights, left)


class SoftRegion(Selector):
    """In each frame a weighted mean of all the regions of a size; the weights are a softmax of a learned score."""

    name = "soft_region"

    def __init__(self, dim, side):
        super().__init__()
        self.side = side
        self.score = torch.nn.Linear(dim, 1)

    def leaves(self, layout, start):
        return region_left(layout, self.side, self.name)

    def forward(self, tokens, left):
        grid, box = tokens.layout.grid, left.grid
        score = self.score(tokens.patches)[..., 0].view(-1, *grid)
        pooled = torch.nn.functional.avg_pool2d(score, (box.h, box.w), stride=1)  # (B, T, rows, columns)
        rows, columns = pooled.shape[2:]
        corner = torch.arange(rows * columns)
        one = [region_tokens(c // columns + grid_zero(grid), c % columns + grid_zero(grid), grid, box) for c in corner]
        candidates = torch.stack([o.view(grid.t, -1) for o in one], dim=1)  # (T, anchors, h w)
        return SoftSelection.of(candidates, pooled.flatten(2).softmax(-1), left)


def grid_zero(grid):
    return torch.zeros(1, grid.t, dtype=torch.long)


class KeySlab(Selector):
    """Keeps the whole middle frame, in front, and the other tokens that it attends to most, in falling order."""

    name = "key_slab"
    place = "inside"
    reads_attention = True
    weighs_queries = True

    def __init__(self, kept, weight=4.0):
        super().__init__()
        self.kept, self.weight = kept, weight

    def slab(self, layout):
        """Places of the key slab: in the grid at first, then in front."""
        if layout.grid is not None:
            return range(layout.grid.t // 2 * layout.grid.per_frame, (layout.grid.t // 2 + 1) * layout.grid.per_frame)
        if not layout.pinned:
            raise SelectionError(f"{self.name}: an earlier step dropped a part of the key slab")
        return range(layout.pinned)

    def leaves(self, layout, start):
        slab = self.slab(layout)
        if self.kept >= layout.tokens:
            return layout
        return Layout(self.kept, segments=1, pinned=len(slab))

    def query_weight(self, tokens):
        weight = torch.ones(tokens.x.shape[0], tokens.layout.tokens)
        weight[:, list(self.slab(tokens.layout))] = self.weight
        return weight

    def forward(self, tokens, left):
        slab = torch.tensor(self.slab(tokens.layout)).expand(tokens.x.shape[0], -1)
        score = tokens.attention.scatter(1, slab, float("-inf"))
        best = score.sort(dim=1, descending=True, stable=True).indices[:, : left.tokens - left.pinned]
        return Selection(torch.cat([slab, best], dim=1), left, tokens.attention)
