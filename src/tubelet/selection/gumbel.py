"""Frames chosen by STTS's scorer, learned through the Gumbel-softmax instead (a baseline of STTS's Table 1).

A trial of k frames without replacement: noise g ~ Gumbel is added to the scores once, and the k highest are taken one
after another. Its relaxation (Jang et al., 2017; for subsets Xie & Ermon, 2019) makes the i-th pick soft,

    p_i = softmax(a_i / tau),   a_1 = s + g,   a_{i+1} = a_i + log(1 - p_i),

and the gradient goes straight through it: forward the hard picks, in their order in time, backward the soft ones.
In evaluation there is no noise. The supplement of the paper with its own settings is not public; these are ours.
"""

from __future__ import annotations

import re
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from tubelet.errors import SpecError
from tubelet.selection import budgets
from tubelet.selection.core import Layout, Selection, Tokens
from tubelet.selection.plan import Host, Placed, Selector
from tubelet.selection.registry import Method
from tubelet.selection.spec import Amount, Budget, Term
from tubelet.selection.stts import Scorer, SoftFrames, frame_features, min_max, ordered_steps

ALMOST_ONE = 1 - 1e-6  # of a pick's weight: another's logarithm stays finite


def gumbel_top_k(scores: Tensor, k: int, tau: float, noise: Tensor | None = None) -> Tensor:
    """Scores (B, T), logits -> weights (B, k, T), one-hot, ascending, with the gradient of the relaxed picks."""
    if noise is None:
        noise = -torch.empty_like(scores).exponential_().log()
    noisy = level = scores + noise
    soft, picks = [], []
    taken = torch.zeros_like(scores, dtype=torch.bool)
    for _ in range(k):
        p = F.softmax(level / tau, dim=-1)
        pick = noisy.masked_fill(taken, float("-inf")).argmax(dim=-1, keepdim=True)  # (B, 1)
        soft.append(p)
        picks.append(pick)
        taken = taken.scatter(1, pick, True)
        level = level + torch.log1p(-p.clamp(max=ALMOST_ONE))
    order = torch.cat(picks, dim=1)  # (B, k)
    in_time = order.argsort(dim=1)
    relaxed = torch.stack(soft, dim=1).gather(1, in_time[..., None].expand(-1, -1, scores.shape[1]))
    hard = torch.zeros_like(relaxed).scatter(2, order.gather(1, in_time)[..., None], 1.0)
    return hard + (relaxed - relaxed.detach())  # forward exactly the hard picks


class Gumbel(Selector):
    name = "gumbel"

    def __init__(self, dim: int, budget: Budget, tau: float) -> None:
        super().__init__()
        assert not isinstance(budget.amount, tuple)
        self.amount: Amount = budget.amount
        self.tau = tau
        self.score_network = Scorer(dim)

    def extra_repr(self) -> str:
        return f"T={self.amount}, tau={self.tau}"

    def leaves(self, layout: Layout, start: Layout) -> Layout:
        return budgets.frames_left(layout, self.amount, self.name)

    def forward(self, tokens: Tokens, left: Layout) -> Selection:
        assert tokens.layout.grid and left.grid
        scores = self.score_network(frame_features(tokens.patches, tokens.layout.grid))  # (B, T)
        if not self.training:
            return replace(budgets.pick_frames(scores, tokens.layout, left), shown=min_max(scores))
        return SoftFrames.of(gumbel_top_k(scores, left.grid.t, self.tau), tokens.layout.grid, left, scores)


def build(term: Term, host: Host) -> list[Placed]:
    tau = term.option("tau") or "1.0"
    if not re.fullmatch(r"\d+(\.\d*)?|\.\d+", tau) or float(tau) == 0:
        raise SpecError(f"tau={tau} in {term}: a number above 0, such as 1.0")
    steps = ordered_steps(term, host)
    return [
        Placed(block, Gumbel(2 * host.widths[block], budget, float(tau)), schedule=number)
        for number, (block, budget) in enumerate(steps)
    ]


METHOD = Method(
    name="gumbel",
    summary="frames by STTS's scorer, learned through the Gumbel-softmax",
    budgets=("T",),
    places="before the blocks named",
    options={"tau": "1.0"},
    build=build,
    learned=True,
)
