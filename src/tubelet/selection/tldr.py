"""vid-TLDR: merging by saliency in the first blocks (Choi et al., CVPR 2024). Training-free.

A token whose own attention is sharp (of low entropy) is salient; background attends to everything alike:

    sharpness  s_i = sum_j A_ij log A_ij                   A: the block's attention, mean over heads
    saliency   (s - min) / (max - min), and 0 where that is below its mean
    merging    bipartite matching on the tokens themselves, as in merge.py; of those that join a partner as much
               counts as they are salient: a token of the background adds nothing to it

Inside a block, between attention and MLP. Published for the first one to four blocks, with r for each.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tubelet.selection.core import Layout, MergeSelection, Tokens
from tubelet.selection.merge import Merge, match, proportional
from tubelet.selection.plan import Host, Placed
from tubelet.selection.registry import Method
from tubelet.selection.spec import Term


def saliency(sharpness: Tensor) -> Tensor:
    """(B, N) -> (B, N), 0 to 1; 0 for all where all are equal."""
    low, high = sharpness.amin(1, keepdim=True), sharpness.amax(1, keepdim=True)
    spread = high - low
    scaled = (sharpness - low) / torch.where(spread > 0, spread, torch.ones_like(spread))
    return scaled * (scaled >= scaled.mean(dim=1, keepdim=True))


class SalientMerge(Merge):
    name = "tldr"
    reads_keys = False
    reads_sharpness = True

    def forward(self, tokens: Tokens, left: Layout) -> MergeSelection:
        salient = saliency(tokens.sharpness)
        staying, joining, into, _ = match(tokens.patches.detach(), tokens.layout.tokens - left.tokens)
        others = torch.arange(1, tokens.layout.tokens, 2, device=into.device).expand(into.shape[0], -1)
        return MergeSelection(
            torch.cat([staying, others], dim=1),
            left,
            salient,
            joining=joining,
            into=into + staying.shape[1],
            weight=salient.gather(1, joining),
            proportional=self.proportional,
        )


def build(term: Term, host: Host) -> list[Placed]:
    placed = []
    for number, step in enumerate(term.steps):
        assert isinstance(step.budget.amount, int)
        for block in step.places or (number,):
            placed.append(Placed(block, SalientMerge(step.budget.amount, proportional(term))))
    return placed


METHOD = Method(
    name="tldr",
    summary="joins alike tokens, those of sharp attention weigh more; training-free (vid-TLDR, Choi et al., 2024)",
    budgets=("r",),
    places="inside block 0, 1, ... in turn, a step each, before its MLP",
    options={"prop": "true|false"},
    build=build,
)
