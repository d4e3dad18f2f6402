"""STA: Semantic-aware Temporal Accumulation (Ding et al., ICCV 2023). Training-free.

After three blocks the sequence is cut into groups of equal stretches of time, visited one after the other. A token is
dropped when what it holds has been seen in the group before (temporal redundancy) and it is weakly active (semantics):

    semantic    s = (|x|_1 - min) / (max - min)                   within a group, x the block's output
    first group keep the odd tokens; of the even ones drop those most similar (cosine of keys) to an odd one
    transition  P[i, j] = softmax_i(k_i . k_j)                     i in this group, j in the one before, unit keys
    mass        m_i = sum_j P[i, j] m_j                            over the j that were kept; 1 each in the first group
    score       a_i = m_i (1 - s_i)                                keep the lowest, in ascending order; m is normalised

The keys are those of the block's attention, mean over heads. Order matters: survivors stay in the order of their
score, and the next step's first group is split into even and odd by position in that order.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tubelet.errors import SelectionError, SpecError
from tubelet.selection.budgets import fitting_groups, groups_left, r_for_share
from tubelet.selection.core import Layout, Selection, Tokens, take
from tubelet.selection.plan import Host, Placed, Selector
from tubelet.selection.registry import Method
from tubelet.selection.spec import Amount, Term

GROUPS = (8, 4, 2)


class Scores(NamedTuple):
    """One step's numbers; groups in storage order, tokens n of a group in the order they came."""

    kept: Tensor  # (B, G, n - r) places within the group, in output order
    first_similarity: Tensor  # (B, ceil(n / 2)) of each even token of the first visited group to its nearest odd one
    mass: Tensor  # (B, G, n) accumulated mass; 1 in the first visited group
    semantic: Tensor  # (B, G, n)
    score: Tensor  # (B, G, n) the lower the better; in the first visited group the similarity, -1 for odd tokens


def semantic_weight(x: Tensor) -> Tensor:
    """L1 norm over channels of x (B, G, n, C), scaled to 0..1 in each group: (B, G, n). 0 where all are equal."""
    # Several times as fast as linalg.vector_norm(ord=1) on a CPU; in float32, since half precision overflows.
    activity = x.abs().sum(dim=-1, dtype=torch.float32)
    low, high = activity.amin(-1, keepdim=True), activity.amax(-1, keepdim=True)
    spread = high - low
    return (activity - low) / torch.where(spread > 0, spread, torch.ones_like(spread))


def self_redundancy(keys: Tensor, kept: int) -> tuple[Tensor, Tensor]:
    """Unit keys (B, n, D) of one group -> places kept (B, kept): odd tokens, then even ones from unlike to like."""
    even, odd = keys[:, 0::2], keys[:, 1::2]
    similarity = (even @ odd.transpose(1, 2)).amax(dim=-1)  # (B, ceil(n / 2))
    odd_places = torch.arange(1, keys.shape[1], 2, device=keys.device).expand(keys.shape[0], -1)
    even_places = 2 * similarity.sort(dim=1, stable=True).indices
    return torch.cat([odd_places, even_places], dim=1)[:, :kept], similarity


def accumulate(x: Tensor, keys: Tensor, groups: int, r: int, *, backward: bool = False) -> Scores:
    """One step of STA on x (B, G n, C) with keys (B, G n, D)."""
    x = x.unflatten(1, (groups, -1))
    keys = F.normalize(keys.float(), dim=-1).unflatten(1, (groups, -1))
    batch, _, n, _ = keys.shape
    semantic = semantic_weight(x)

    visits = range(groups - 1, -1, -1) if backward else range(groups)
    first, later = visits[0], visits[1:]
    chosen, first_similarity = self_redundancy(keys[:, first], n - r)
    score = keys.new_full((batch, n), -1.0)
    score[:, 0::2] = first_similarity
    mass = keys.new_ones(batch, n)  # of all of the first group, also of what it drops
    kept, masses, scores = {first: chosen}, {first: mass}, {first: score}
    before = keys[:, first]  # (B, m, D): those that hand on their mass
    for group in later:
        current = keys[:, group]
        transition = (current @ before.transpose(1, 2)).softmax(dim=1)  # (B, n, m)
        mass = (transition @ mass[..., None])[..., 0]  # (B, n)
        score = mass * (1 - semantic[:, group])
        chosen = score.sort(dim=1, stable=True).indices[:, : n - r]
        kept[group], masses[group], scores[group] = chosen, mass, score
        before, mass = take(current, chosen), mass.gather(1, chosen)
        mass = mass / mass.sum(dim=1, keepdim=True)

    def stacked(parts: dict[int, Tensor]) -> Tensor:
        return torch.stack([parts[g] for g in range(groups)], dim=1)

    return Scores(stacked(kept), first_similarity, stacked(masses), semantic, stacked(scores))


class STA(Selector):
    """One step of the schedule: r of every group go, after a block."""

    name = "sta"
    place = "after"
    reads_keys = True

    def __init__(self, amount: Amount, groups: tuple[int, ...], step: int, backward: bool) -> None:
        super().__init__()
        self.amount, self.schedule, self.backward = amount, groups, backward
        self.groups = groups[step]

    def extra_repr(self) -> str:
        return f"amount={self.amount}, groups={self.groups}, backward={self.backward}"

    def leaves(self, layout: Layout, start: Layout) -> Layout:
        return scheduled(layout, start, self.amount, self.schedule, self.groups, self.name)

    def forward(self, tokens: Tokens, left: Layout) -> Selection:
        keys = tokens.keys
        n = tokens.layout.tokens // self.groups
        scores = accumulate(tokens.patches, keys, self.groups, n - left.tokens // self.groups, backward=self.backward)
        first = torch.arange(self.groups, device=keys.device)[:, None] * n
        return Selection((scores.kept + first).flatten(1), left, scores.score.flatten(1))


def scheduled(
    layout: Layout, start: Layout, amount: Amount, schedule: tuple[int, ...], groups: int, name: str
) -> Layout:
    """What a step of STA's schedule leaves; shared by the baselines that stand in for it.

    `start` entered the first step. At step s a group holds (start - r (G_0 + ... + G_{s-1})) / G_s tokens, and more
    than r of them; so r sum(G) stays below the tokens of `start`.
    """
    most = (start.tokens - 1) // sum(schedule)
    if isinstance(amount, float):
        r = min(r_for_share(amount, start.tokens, schedule), most)
    else:
        assert isinstance(amount, int)
        r = amount
    if r == 0:
        return layout
    if start.segments % schedule[0]:
        raise SelectionError(
            f"{name}: groups={'/'.join(map(str, schedule))} would cut across frames: {start}; "
            f"use groups={fitting_groups(start.segments, schedule)}"
        )
    if r > most:
        raise SelectionError(
            f"{name}: r={r} is too large for {start}: a group would be left empty; r is at most {most} here"
        )
    return groups_left(layout, groups, r, name)


def schedule_places(term: Term, host: Host) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Blocks and groups of STA's schedule as a term gives them: by default 0, depth/3, 2 depth/3 and 8/4/2.

    Of fewer places the groups are by default the first of these.
    In a model of stages these are the thirds of its longest stage, since what is dropped comes back between stages.
    """
    step = term.steps[0]
    groups: tuple[int, ...] | None = None
    if (given := term.option("groups")) is not None:
        if not all(re.fullmatch("[1-9][0-9]*", g) for g in given.split("/")):
            raise SpecError(f"groups={given} in {term}: whole numbers with '/', one a step, such as groups=8/4/2")
        groups = tuple(int(g) for g in given.split("/"))
    places = step.places
    if not places:
        first, depth = host.longest
        places = tuple(first + i * depth // 3 for i in range(3))
        if len(set(places)) < 3:
            raise SelectionError(f"{term}: the steps after blocks {places} collide in {depth} blocks; say which blocks")
    if groups is None and len(places) > len(GROUPS):
        raise SpecError(f"{term}: {len(places)} places; give one group count a place, such as groups=8/4/2/2")
    groups = GROUPS[: len(places)] if groups is None else groups
    if len(groups) != len(places):
        raise SpecError(f"{term}: {len(groups)} groups for {len(places)} places; give one group count a place")
    if any(a % b for a, b in zip(groups, groups[1:], strict=False)):
        raise SpecError(f"groups={'/'.join(map(str, groups))} in {term}: each must divide the one before it")
    if list(places) != sorted(places):
        raise SpecError(f"{term}: places must ascend")
    return places, groups


def build(term: Term, host: Host) -> list[Placed]:
    if len(term.steps) != 1:
        raise SpecError(f"{term}: sta takes one budget, r= or keep=, for its whole schedule")
    places, groups = schedule_places(term, host)
    order = tuple("backward" if i % 2 else "forward" for i in range(len(places)))
    if (given := term.option("order")) is not None:
        order = tuple(given.split("/"))
        if set(order) - {"forward", "backward"} or len(order) != len(places):
            raise SpecError(f"order={given} in {term}: forward or backward, one a step, with '/' between them")
    amount = term.steps[0].budget.amount
    return [Placed(block, STA(amount, groups, i, order[i] == "backward")) for i, block in enumerate(places)]


METHOD = Method(
    name="sta",
    summary="drops what the frames before have shown and is weakly active; training-free (Ding et al., 2023)",
    budgets=("r", "keep"),
    places="after blocks 0, depth/3, 2 depth/3",
    options={"groups": "8/4/2", "order": "forward/backward/forward"},
    build=build,
)
