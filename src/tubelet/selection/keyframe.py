"""Keyframe-centred token pruning of EVAD (Chen et al., ICCV 2023).

A detector answers about one frame of its clip. All S tokens of that frame's slab stay; every other token j is ranked by
the attention it receives in the block where it may be dropped, A being that block's softmax attention of N tokens:

    I_j = 1 / (heads N) sum_h sum_i w_i A[h, i, j]        w_i = `weight` for the queries i of the key slab, else 1

and ceil(keep N) - S of highest importance go on, in falling order behind the slab. The weights only rank: values are
gathered with A as it is. With weight above 1 this is the paper's query enhancement.

The key slab is the middle one, t // 2 of t: the later frames of it begin at the middle of the clip.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction

import torch
from torch import Tensor

from tubelet.errors import SelectionError, SpecError
from tubelet.selection.core import Layout, Selection, Tokens
from tubelet.selection.plan import Host, Placed, Selector
from tubelet.selection.registry import Method
from tubelet.selection.spec import Step, Term


def key_slab(layout: Layout, name: str = "keyframe") -> range:
    """Places of the key slab in the sequence: the middle of the grid, and in front once other tokens were dropped.

    Raises SelectionError where there is none.
    """
    if layout.grid is None:
        if not layout.pinned:
            raise SelectionError(f"{name}: an earlier step may have dropped a part of the key slab; there are {layout}")
        return range(layout.pinned)
    slots, size = layout.grid.t, layout.grid.per_frame
    if slots % 2:
        raise SelectionError(
            f"{name}: the key slab is the middle one of an even number of time slots, and there are {slots}; with two "
            "frames a slot, give frames in multiples of 4"
        )
    return range(slots // 2 * size, (slots // 2 + 1) * size)


def query_weights(slab: range, tokens: int, weight: float) -> Tensor:
    """w (N,): how much each query counts."""
    weights = torch.ones(tokens)
    weights[slab.start : slab.stop] = weight
    return weights


def left_beside_key(layout: Layout, start: Layout, share: float, so_far: Fraction, name: str) -> Layout:
    """ceil(share N) tokens, those of the key slab among them; the same layout if that is all.

    `so_far` is the product of the shares up to this one, `start` what entered the first of them.
    Raises SelectionError where nothing but the key slab could be left in the end.
    """
    slab = key_slab(layout, name)
    kept = math.ceil(share * layout.tokens)  # in floating point, as published
    if kept >= layout.tokens:
        return layout
    if kept <= len(slab) or so_far * start.tokens <= len(slab):
        raise SelectionError(
            f"{name}:keep={share} would leave {kept} of {layout.tokens} tokens, and the key slab alone has "
            f"{len(slab)}: the shares of all steps multiplied are {float(so_far):.3g} here, and must stay above "
            f"1/{start.tokens // len(slab)}"
        )
    return Layout(kept, segments=1, pinned=len(slab))


def pick_beside_key(scores: Tensor, entered: Layout, left: Layout, name: str = "keyframe") -> Selection:
    """The key slab, then the others of highest score (B, N) in falling order; the lower place first where they tie."""
    slab = key_slab(entered, name)
    others = torch.cat([scores[:, : slab.start], scores[:, slab.stop :]], dim=1)  # (B, N - S)
    order = others.sort(dim=1, descending=True, stable=True).indices
    return Selection(beside_key(order[:, : left.tokens - len(slab)], slab), left, scores)


def beside_key(others: Tensor, slab: range) -> Tensor:
    """Places (B, S + K) of the key slab and of K others, which are counted without it: (B, K)."""
    front = torch.arange(slab.start, slab.stop, device=others.device).expand(others.shape[0], -1)
    return torch.cat([front, torch.where(others < slab.start, others, others + len(slab))], dim=1)


class Keyframe(Selector):
    name = "keyframe"
    place = "inside"
    reads_attention = True
    weighs_queries = True

    def __init__(self, share: float, so_far: Fraction, weight: float) -> None:
        super().__init__()
        self.share, self.so_far, self.weight = share, so_far, weight

    def extra_repr(self) -> str:
        return f"keep={self.share}, weight={self.weight:g}"

    def leaves(self, layout: Layout, start: Layout) -> Layout:
        return left_beside_key(layout, start, self.share, self.so_far, self.name)

    def query_weight(self, tokens: Tokens) -> Tensor | None:
        if self.weight == 1:
            return None
        weights = query_weights(key_slab(tokens.layout), tokens.layout.tokens, self.weight)
        return weights.to(tokens.x).expand(tokens.x.shape[0], -1)

    def forward(self, tokens: Tokens, left: Layout) -> Selection:
        return pick_beside_key(tokens.attention, tokens.layout, left)


def products(steps: list[tuple[int, float]]) -> list[tuple[int, float, Fraction]]:
    """(block, share) -> in the order of the blocks, with the product of the shares so far."""
    found, so_far = [], Fraction(1)
    for block, share in sorted(steps, key=lambda step: step[0]):
        so_far *= Fraction(repr(share))  # 0.7 is seven tenths
        found.append((block, share, so_far))
    return found


def placed_steps(steps: tuple[Step, ...], host: Host, term: Term) -> list[tuple[int, float]]:
    """(block, share) of each step; without places a quarter, half and three quarters of the depth."""
    if len(steps) > 1 and not all(step.places for step in steps):
        raise SpecError(f"{term}: with several steps say at which blocks each acts, such as {steps[0].budget}@3")
    found = []
    for step in steps:
        assert isinstance(step.budget.amount, float)
        places = step.places or sorted({i * host.depth // 4 for i in (1, 2, 3)})
        found += [(block, step.budget.amount) for block in places]
    return found


def build(term: Term, host: Host) -> list[Placed]:
    text = term.option("weight") or "1"
    if not re.fullmatch(r"\d+\.?\d*|\.\d+", text, re.ASCII) or not 0 < float(text) < math.inf:
        raise SpecError(f"weight={text} in {term}: a number above 0")
    steps = products(placed_steps(term.steps, host, term))
    return [Placed(block, Keyframe(share, so_far, float(text))) for block, share, so_far in steps]


METHOD = Method(
    name="keyframe",
    summary="all of the key frame, and what it attends to most elsewhere; training-free (EVAD; Chen et al., 2023)",
    budgets=("keep",),
    places="inside blocks depth/4, 2 depth/4, 3 depth/4, before the MLP",
    options={"weight": "1, how much queries of the key frame count"},
    build=build,
)
