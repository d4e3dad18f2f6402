"""How well a selection finds what matters, where the truth is known.

    recall     kept tokens of the truth / tokens of the truth
    precision  kept tokens of the truth / kept tokens

A budget spent at random keeps every token with the same probability: its recall is the kept share, its precision the
truth's share of all tokens, both exactly in the mean. A token that was merged into another does not count as kept.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Found:
    """Of one view. kept, truth: shares of all tokens. A view without any of the truth has a recall of 1."""

    recall: float
    precision: float
    kept: float
    truth: float


def found(kept: Tensor, truth: Tensor) -> list[Found]:
    """Masks (B, t, h, w), both bool -> one a view. Raises ValueError where their grids differ."""
    if kept.shape != truth.shape:
        raise ValueError(f"kept tokens of {tuple(kept.shape)}, truth of {tuple(truth.shape)}")
    kept, truth = kept.flatten(1), truth.flatten(1)
    both, counts, totals = (mask.sum(dim=1).tolist() for mask in (kept & truth, kept, truth))
    tokens = kept.shape[1]
    return [
        Found(hit / of_truth if of_truth else 1.0, hit / count, count / tokens, of_truth / tokens)
        for hit, count, of_truth in zip(both, counts, totals, strict=True)
    ]
