"""What a method must beat: random, uniform and attention, under the budgets of any method and at its places.

T and S stand before a block (as STTS's), keep before a block, r after STA's blocks in STA's groups.
On a detector keep acts as keyframe's: inside the block, beside the key slab, with its counts.
"""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from collections.abc import Callable
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor

from tubelet.errors import SpecError
from tubelet.selection import budgets
from tubelet.selection.core import Layout, Selection, Tokens
from tubelet.selection.keyframe import beside_key, key_slab, left_beside_key, pick_beside_key, placed_steps, products
from tubelet.selection.plan import Host, Placed, Selector
from tubelet.selection.registry import Method
from tubelet.selection.spec import Budget, Term
from tubelet.selection.sta import schedule_places, scheduled


class Baseline(Selector):
    """A step of any budget; how it chooses is for the subclasses to say.

    `so_far`: on a detector, the product of the shares up to this one; the step then acts beside the key slab.
    """

    def __init__(
        self,
        budget: Budget,
        schedule: tuple[int, ...] = (),
        groups: int = 1,
        seed: int = 0,
        so_far: Fraction | None = None,
    ) -> None:
        super().__init__()
        self.budget, self.schedule, self.groups, self.seed, self.so_far = budget, schedule, groups, seed, so_far
        self.place = "after" if budget.kind == "r" else "before" if so_far is None else "inside"

    def extra_repr(self) -> str:
        return f"budget={self.budget}"

    def leaves(self, layout: Layout, start: Layout) -> Layout:
        kind, amount = self.budget.kind, self.budget.amount
        if kind == "T":
            return budgets.frames_left(layout, amount, self.name)
        if kind == "S":
            return budgets.region_left(layout, amount, self.name)
        if kind == "r":
            return scheduled(layout, start, amount, self.schedule, self.groups, self.name)
        assert isinstance(amount, float)
        if self.so_far is not None:
            return left_beside_key(layout, start, amount, self.so_far, self.name)
        return budgets.tokens_left(layout, amount, self.name)


class Uniform(Baseline):
    """Evenly spaced frames or tokens; the centre region."""

    name = "uniform"

    def forward(self, tokens: Tokens, left: Layout) -> Selection:
        batch, device, entered = tokens.x.shape[0], tokens.x.device, tokens.layout
        if self.so_far is not None:
            slab = key_slab(entered, self.name)
            others = evenly(left.tokens - len(slab), entered.tokens - len(slab), device)
            return Selection(beside_key(others.expand(batch, -1), slab), left)
        if self.budget.kind == "S":
            assert entered.grid and left.grid
            corner = torch.ones(batch, entered.grid.t, dtype=torch.long, device=device)
            row, column = (entered.grid.h - left.grid.h) // 2, (entered.grid.w - left.grid.w) // 2
            index = budgets.region_tokens(corner * row, corner * column, entered.grid, left.grid)
            return Selection(index, left)
        if self.budget.kind == "T":
            assert entered.grid and left.grid
            frames = evenly(left.grid.t, entered.grid.t, device)
            tokens_of = torch.arange(entered.grid.per_frame, device=device)
            index = frames[:, None] * entered.grid.per_frame + tokens_of
        else:
            groups = self.groups if self.budget.kind == "r" else 1
            size = entered.tokens // groups
            index = torch.arange(groups, device=device)[:, None] * size + evenly(left.tokens // groups, size, device)
        return Selection(index.flatten().expand(batch, -1), left)


class Scored(Baseline):
    """Chooses by one number a candidate, the higher the better."""

    def forward(self, tokens: Tokens, left: Layout) -> Selection:
        kind, entered = self.budget.kind, tokens.layout
        if kind == "T":
            return budgets.pick_frames(self.frame_scores(tokens), entered, left)
        if kind == "S":
            return budgets.pick_regions(self.region_scores(tokens, left), entered, left)
        if kind == "r":
            return budgets.pick_in_groups(self.token_scores(tokens), left)
        if self.so_far is not None:
            return pick_beside_key(self.token_scores(tokens), entered, left, self.name)
        return budgets.pick_tokens(self.token_scores(tokens), left)

    @abstractmethod
    def frame_scores(self, tokens: Tokens) -> Tensor:
        """(B, T)"""

    @abstractmethod
    def region_scores(self, tokens: Tokens, left: Layout) -> Tensor:
        """(B, T, rows, columns), one for each place that the region's top left corner can take"""

    @abstractmethod
    def token_scores(self, tokens: Tokens) -> Tensor:
        """(B, N)"""


class Random(Scored):
    """In evaluation one draw for every clip, fixed by the seed: a clip's answer must not hang on its neighbours.

    So run several seeds before believing a difference. In training each clip and step has a draw of its own.
    """

    name = "random"

    def frame_scores(self, tokens: Tokens) -> Tensor:
        assert tokens.layout.grid
        return self._draw(tokens, (tokens.layout.grid.t,))

    def region_scores(self, tokens: Tokens, left: Layout) -> Tensor:
        assert tokens.layout.grid and left.grid
        grid, box = tokens.layout.grid, left.grid
        return self._draw(tokens, (grid.t, grid.h - box.h + 1, grid.w - box.w + 1))

    def token_scores(self, tokens: Tokens) -> Tensor:
        return self._draw(tokens, (tokens.layout.tokens,))

    def _draw(self, tokens: Tokens, shape: tuple[int, ...]) -> Tensor:
        batch, device = tokens.x.shape[0], tokens.x.device
        if self.training:
            return torch.rand(batch, *shape, device=device)
        return hashed(math.prod(shape), self.seed, device).view(1, *shape).expand(batch, *shape)


class MostAttended(Scored):
    """Attention of the class token where there is one, else the mean attention that a token receives.

    Before block i it is that of block i - 1; with r, after block i, that of block i.
    """

    name = "attention"
    reads_attention = True

    def frame_scores(self, tokens: Tokens) -> Tensor:
        return self._map(tokens).mean(dim=(2, 3))

    def region_scores(self, tokens: Tokens, left: Layout) -> Tensor:
        assert left.grid
        return F.avg_pool2d(self._map(tokens), (left.grid.h, left.grid.w), stride=1)

    def token_scores(self, tokens: Tokens) -> Tensor:
        return tokens.attention

    def _map(self, tokens: Tokens) -> Tensor:
        assert tokens.layout.grid
        return tokens.attention.view(-1, *tokens.layout.grid)  # (B, T, h, w)


def evenly(kept: int, total: int, device: torch.device) -> Tensor:
    """The centres of `kept` equal parts of `total` places."""
    return ((torch.arange(kept, device=device) * 2 + 1) * total) // (2 * kept)


def hashed(count: int, seed: int, device: torch.device) -> Tensor:
    """`count` whole numbers that look random and depend on the seed alone, on every device and when exported.

    A 32-bit integer hash (xor-shift and multiply, twice) of place and seed, in 64-bit arithmetic.
    """
    mask = 0xFFFFFFFF
    x = (torch.arange(count, device=device) + 1 + seed * 0x9E3779B9) & mask
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = ((x ^ (x >> shift)) * factor) & mask
    return x ^ (x >> 16)


def build_with(kind: type[Baseline]) -> Callable[[Term, Host], list[Placed]]:
    def build(term: Term, host: Host) -> list[Placed]:
        seed = term.option("seed") or "0"
        if not re.fullmatch("[0-9]+", seed):
            raise SpecError(f"seed={seed} in {term}: a whole number")
        if term.option("groups") is not None and all(step.budget.kind != "r" for step in term.steps):
            raise SpecError(f"{term}: groups belong to an r budget, such as {term.name}:r=48,groups=8/4/2")
        placed = []
        for number, step in enumerate(term.steps):
            draw = int(seed) * 1009 + number * 31
            if step.budget.kind == "r":
                places, groups = schedule_places(Term(term.name, (step,), term.options), host)
                for i, block in enumerate(places):
                    placed.append(Placed(block, kind(step.budget, groups, groups[i], draw + i), schedule=number))
                continue
            if step.budget.kind == "keep" and host.key_frame:
                continue
            if not step.places:
                raise SpecError(
                    f"{term}: say before which block {step.budget} acts, such as {term.name}:{step.budget}@4"
                )
            blocks = step.places if step.budget.kind == "keep" else [host.before(place) for place in step.places]
            placed += [Placed(block, kind(step.budget, seed=draw + block), schedule=number) for block in blocks]
        if host.key_frame:
            steps = tuple(step for step in term.steps if step.budget.kind == "keep")
            for block, share, so_far in products(placed_steps(steps, host, term)):
                step_seed = int(seed) * 1009 + block
                placed.append(Placed(block, kind(Budget("keep", share), seed=step_seed, so_far=so_far), schedule="key"))
        return sorted(placed, key=_frames_first)

    return build


def _frames_first(placed: Placed) -> tuple[int, bool]:
    selector = placed.selector
    assert isinstance(selector, Baseline)
    return placed.block, selector.budget.kind != "T"


def _method(kind: type[Baseline], summary: str, **options: str) -> Method:
    return Method(
        name=kind.name,
        summary=summary,
        budgets=("T", "S", "keep", "r"),
        places="T, S, keep: before the blocks named (keep on a detector: as keyframe); r: as sta",
        options={**options, "groups": "8/4/2, with r"},
        build=build_with(kind),
    )


METHODS = [
    _method(Random, "any tokens, frames or regions, by a seed", seed="0"),
    _method(Uniform, "evenly spaced tokens or frames, or the centre region"),
    _method(MostAttended, "what the block before attended to most"),
]
