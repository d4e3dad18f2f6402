"""Token merging (ToMe; Bolya et al., ICLR 2023). Training-free.

Inside each block, between attention and MLP, tokens are split in two sets by turns; every token of the first finds the
most similar (cosine of keys, mean over heads) of the second, and the r most similar pairs become one token each: the
mean, weighted by how many input tokens each stands for. Attention then counts a merged token as many (`prop`), and the
classifier's mean weighs it likewise.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tubelet.errors import SpecError
from tubelet.selection.core import Layout, MergeSelection, Tokens
from tubelet.selection.plan import Host, Placed, Selector
from tubelet.selection.registry import Method
from tubelet.selection.spec import Term


def match(keys: Tensor, r: int, *, first: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Bipartite matching of keys (B, N, D).

    The tokens first, first + 2, ... look for a partner among the others. Returns, each (B, .): the places in the
    sequence of the seekers that stay, from most to least similar; the places of the r that join a partner; the number,
    among the others, of each one's partner; and the similarity of each seeker to its best partner.
    """
    keys = F.normalize(keys.float(), dim=-1)
    similarity, partner = (keys[:, first::2] @ keys[:, 1 - first :: 2].transpose(1, 2)).max(dim=-1)  # (B, seekers)
    order = similarity.sort(dim=1, descending=True, stable=True).indices
    joining, staying = order[:, :r], order[:, r:]
    return staying * 2 + first, joining * 2 + first, partner.gather(1, joining), similarity


class Merge(Selector):
    name = "merge"
    place = "inside"
    reads_keys = True

    def __init__(self, r: int, proportional: bool) -> None:
        super().__init__()
        self.r, self.proportional = r, proportional

    def extra_repr(self) -> str:
        return f"r={self.r}, prop={self.proportional}"

    def leaves(self, layout: Layout, start: Layout) -> Layout:
        joined = min(self.r, layout.tokens // 2)  # at most every seeker, as published
        return Layout(layout.tokens - joined, segments=1, merged=True) if joined else layout

    def forward(self, tokens: Tokens, left: Layout) -> MergeSelection:
        keys = tokens.keys
        # Turns are counted with the class token, as published.
        first = tokens.prefix % 2
        staying, joining, into, similarity = match(keys, tokens.layout.tokens - left.tokens, first=first)
        if tokens.prefix:  # published: with a class token the seekers that stay keep their order
            staying = staying.sort(dim=1).values
        others = torch.arange(1 - first, tokens.layout.tokens, 2, device=keys.device).expand(keys.shape[0], -1)
        index = torch.cat([staying, others], dim=1)
        scores = keys.new_full(keys.shape[:2], -1.0)
        scores[:, first::2] = similarity
        return MergeSelection(
            index, left, scores, joining=joining, into=into + staying.shape[1], proportional=self.proportional
        )


def proportional(term: Term) -> bool:
    prop = term.option("prop") or "true"
    if prop not in ("true", "false"):
        raise SpecError(f"prop={prop} in {term}: true or false")
    return prop == "true"


def build(term: Term, host: Host) -> list[Placed]:
    placed = []
    for step in term.steps:
        assert isinstance(step.budget.amount, int)
        for block in step.places or range(host.depth):
            placed.append(Placed(block, Merge(step.budget.amount, proportional(term))))
    return placed


METHOD = Method(
    name="merge",
    summary="joins the r most alike pairs of tokens in each block; training-free (Bolya et al., 2023)",
    budgets=("r",),
    places="inside every block, before its MLP",
    options={"prop": "true|false"},
    build=build,
)
