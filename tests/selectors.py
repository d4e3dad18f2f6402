"""Selectors of the kinds that the core must carry, written for the tests: soft frames, soft regions, a key slab.

They are the shapes of STTS in training and of EVAD, without their scorers and details.
"""

import torch

from tubelet.errors import SelectionError
from tubelet.selection.budgets import frames_left, region_left, region_tokens
from tubelet.selection.core import Layout, Selection, SoftSelection
from tubelet.selection.plan import Selector


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
