"""RLT: run-length tokens (Choudhury et al., NeurIPS 2024). Training-free; reads pixels, before the model.

A tubelet that shows what the one before it at the same place has shown is a repetition, and is dropped:

    change  d = mean |last frame of this tubelet - first frame of the one before|     over colours and pixels
    keep    d > tau (0.1 of the normalised pixels); the first slot always

As published the number of tokens differs from clip to clip. Here it is a fixed share: the tokens of greatest change of
each clip, the first slot before all others. `kept_by_threshold` says what share the threshold would have kept.
The published embedding of the length of a run needs training and is left out.
"""

from __future__ import annotations

from torch import Tensor

from tubelet.errors import SelectionError, SpecError
from tubelet.selection.budgets import pick_tokens, tokens_left
from tubelet.selection.core import Grid, Layout, Selection, Tokens, pixel_change
from tubelet.selection.plan import Host, Placed, Selector
from tubelet.selection.registry import Method
from tubelet.selection.spec import Term

TAU = 0.1


def kept_by_threshold(clip: Tensor, grid: Grid, tau: float = TAU) -> Tensor:
    """(B,): the share of tokens that the published rule keeps of normalised clips (B, 3, T, H, W)."""
    return (pixel_change(clip, grid) > tau).float().mean(dim=1)


class RunLength(Selector):
    name = "rlt"
    place = "before"
    reads_pixels = True

    def __init__(self, keep: float) -> None:
        super().__init__()
        self.keep = keep

    def extra_repr(self) -> str:
        return f"keep={self.keep}"

    def leaves(self, layout: Layout, start: Layout) -> Layout:
        left = tokens_left(layout, self.keep, self.name)
        if layout.grid and left.tokens < layout.grid.per_frame:
            raise SelectionError(
                f"rlt:keep={self.keep} leaves {left.tokens} of {layout}: less than the first slot, which it keeps "
                f"whole; keep at least {layout.grid.per_frame / layout.tokens}"
            )
        return left

    def forward(self, tokens: Tokens, left: Layout) -> Selection:
        return pick_tokens(tokens.change, left)


def build(term: Term, host: Host) -> list[Placed]:
    if len(term.steps) != 1 or len(term.steps[0].places) > 1:
        raise SpecError(f"{term}: rlt acts once, before block 0")
    step = term.steps[0]
    assert isinstance(step.budget.amount, float)
    return [Placed(step.places[0] if step.places else 0, RunLength(step.budget.amount))]


METHOD = Method(
    name="rlt",
    summary="drops what did not change since the tubelet before; training-free (Choudhury et al., 2024)",
    budgets=("keep",),
    places="before block 0",
    build=build,
)
