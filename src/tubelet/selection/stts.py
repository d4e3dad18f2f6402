"""STTS: frames, then one region of each frame, chosen by a learned scorer (Wang et al., ECCV 2022).

    s' = scorer(q)                        equations 2 and 3, in the form of the released code
    s  = (s' - min) / (max - min)         over the frames of a clip, or over the anchors of a frame
    T  the k frames of highest s          a frame's q is the mean and the maximum of its tokens
    S  the anchor of highest mean s       anchors: overlapping regions of equal size; a token's q is itself

In training the choice is soft: each place takes a mean of all candidates, weighted by the perturbed top-k (topk.py),
whose noise fades as training goes on (`set_progress`); in evaluation it is hard.

Differences from the paper are those of the released code: four linear layers with a norm and GELU, a context from
channels of its own, a frame's maximum beside its mean, the min-max after the mean over an anchor. Differences from the
released code: a region is gathered by index, and mixed by adding slices up, instead of unfolding all anchors; frames
need not be square. `anchors`, `scores`, `bookkeeping` and `gradient` offer what the paper or the released code have
besides.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from tubelet.errors import SelectionError, SpecError
from tubelet.selection import budgets
from tubelet.selection.core import Grid, Layout, Selection, Tokens
from tubelet.selection.plan import Host, Placed, Selector
from tubelet.selection.registry import Method
from tubelet.selection.spec import Amount, Budget, Term
from tubelet.selection.topk import SAMPLES, perturbed_top_k, top_k

EPS = 1e-5  # of the min-max, and of the scorer's norm


class Scorer(nn.Module):
    """One number a candidate: what it is itself beside what all candidates of its set are in the mean."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim < 4:
            raise SelectionError(f"a scorer of {dim} channels is too narrow: at least 4")
        self.local = dim // 2
        self.in_conv = nn.Sequential(nn.LayerNorm(dim, eps=EPS), nn.Linear(dim, dim), nn.GELU())
        self.out_conv = nn.Sequential(
            nn.Linear(dim, dim // 2), nn.GELU(), nn.Linear(dim // 2, dim // 4), nn.GELU(), nn.Linear(dim // 4, 1)
        )
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, q: Tensor) -> Tensor:
        """q (..., L, D) -> (..., L)"""
        f = self.in_conv(q.to(next(self.parameters()).dtype))
        context = f[..., self.local :].mean(dim=-2, keepdim=True).expand(*f.shape[:-1], -1)
        return self.out_conv(torch.cat([f[..., : self.local], context], dim=-1))[..., 0]


def min_max(scores: Tensor) -> Tensor:
    """Scores (..., L) from 0 to 1; gradients flow through minimum and maximum."""
    low, high = scores.amin(dim=-1, keepdim=True), scores.amax(dim=-1, keepdim=True)
    return (scores - low) / (high - low + EPS)


def frame_features(x: Tensor, grid: Grid) -> Tensor:
    """Patch tokens (B, T h w, C) -> (B, T, 2 C): mean and maximum of each frame's tokens."""
    frames = x.unflatten(1, (grid.t, grid.per_frame))
    return torch.cat([frames.mean(dim=2), frames.amax(dim=2)], dim=-1)


def anchor_starts(side: int, region: int, anchors: str) -> list[int]:
    """Where a region may begin along one side of a frame.

    "released": every max((side - region) // 2, 1) tokens, which may never reach the end; "cover": and at the end too.
    """
    starts = list(range(0, side - region + 1, max((side - region) // 2, 1)))
    if anchors == "cover" and starts[-1] != side - region:
        starts.append(side - region)
    return starts


@dataclass(frozen=True)
class Anchors:
    """The candidate regions of a frame: all pairs of a first row and a first column, rows first. A of them."""

    entered: Grid
    region: Grid
    rows: list[int]
    columns: list[int]

    @classmethod
    def of(cls, entered: Grid, region: Grid, kind: str) -> Anchors:
        rows, columns = (anchor_starts(entered[i], region[i], kind) for i in (1, 2))
        return cls(entered, region, rows, columns)

    @property
    def corners(self) -> list[tuple[int, int]]:
        return [(row, column) for row in self.rows for column in self.columns]

    def tokens(self, device: torch.device) -> Tensor:
        """(A, h w): the token numbers, within a frame, of each anchor."""
        first = torch.tensor([row * self.entered.w + column for row, column in self.corners], device=device)
        rows = torch.arange(self.region.h, device=device)[:, None] * self.entered.w
        return first[:, None] + (rows + torch.arange(self.region.w, device=device)).flatten()

    def slices(self, frames: Tensor) -> list[Tensor]:
        """Frames (B, T, H, W, ...) cut to each anchor, (B, T, h, w, ...): views, nothing is copied."""
        h, w = self.region.h, self.region.w
        return [frames[:, :, row : row + h, column : column + w] for row, column in self.corners]


@dataclass(frozen=True, kw_only=True)
class SoftFrames(Selection):
    """Each frame that leaves is a weighted mean of all (equation 9); `weights` (B, k, T)."""

    weights: Tensor

    @classmethod
    def of(cls, weights: Tensor, entered: Grid, left: Layout, scores: Tensor) -> SoftFrames:
        heaviest = weights.argmax(dim=-1)  # (B, k)
        index = heaviest[..., None] * entered.per_frame + torch.arange(entered.per_frame, device=weights.device)
        return cls(index.flatten(1), left, scores, weights=weights)

    def _features(self, tokens: Tokens) -> Tensor:
        whole = tokens.x if tokens.framed else tokens.patches  # a class token of a frame goes with it
        frames = whole.unflatten(1, (self.weights.shape[-1], -1)).flatten(2)  # (B, T, n C), a view
        mixed = (self.weights.to(frames.dtype) @ frames).view(frames.shape[0], -1, tokens.x.shape[-1])
        return mixed if tokens.framed else tokens.beside_prefix(mixed)


@dataclass(frozen=True, kw_only=True)
class SoftRegions(Selection):
    """In each frame a weighted mean of its anchors; `weights` (B, T, A)."""

    weights: Tensor
    anchors: Anchors

    @classmethod
    def of(cls, weights: Tensor, anchors: Anchors, left: Layout, scores: Tensor) -> SoftRegions:
        inside = anchors.tokens(weights.device)[weights.argmax(dim=-1)]  # (B, T, h w)
        return cls(_in_frames(inside, anchors.entered), left, scores, weights=weights, anchors=anchors)

    def _features(self, tokens: Tokens) -> Tensor:
        frames = tokens.patches.unflatten(1, self.anchors.entered)  # (B, T, H, W, C), a view
        weights = self.weights.to(frames.dtype)[..., None, None, None]  # (B, T, A, 1, 1, 1)
        slices = self.anchors.slices(frames)
        mixed = weights[:, :, 0] * slices[0]
        for number, region in enumerate(slices[1:], start=1):  # saves views for the way back, never a crop
            mixed = torch.addcmul(mixed, weights[:, :, number], region)
        return tokens.beside_prefix(mixed.flatten(1, 3))


@dataclass(frozen=True, kw_only=True)
class SoftTokens(Selection):
    """In each frame k weighted means of its tokens, wherever they are; `weights` (B, T, k, h w)."""

    weights: Tensor

    @classmethod
    def of(cls, weights: Tensor, entered: Grid, left: Layout, scores: Tensor) -> SoftTokens:
        return cls(_in_frames(weights.argmax(dim=-1), entered), left, scores, weights=weights)

    def _features(self, tokens: Tokens) -> Tensor:
        frames = tokens.patches.unflatten(1, (self.weights.shape[1], -1))  # (B, T, h w, C)
        mixed = self.weights.to(frames.dtype) @ frames
        return tokens.beside_prefix(mixed.flatten(1, 2))


def _in_frames(inside: Tensor, entered: Grid) -> Tensor:
    """Token numbers within each frame (B, T, n) -> within the clip (B, T n)."""
    first = torch.arange(entered.t, device=inside.device)[:, None] * entered.per_frame
    return (inside + first).flatten(1)


def released_amount(source: Grid, steps: Sequence[tuple[int, Budget]], strides: Sequence[int]) -> Amount:
    """Frames, or side of the region, that the last of `steps` (block, budget) keeps in the released code.

    Its shares are taken of nominal sizes: a side is halved, rounding down, on reaching a block that pools, also for the
    selector before that block, where the convolutions round up and pool behind it; after a selector the nominal area is
    the truncated product, not the square of the side.
    """
    frames, area, reached = source.t, source.per_frame, 0
    amount: Amount = 0
    for block, budget in steps:
        for stride in strides[reached : block + 1]:
            area = area if stride == 1 else (math.isqrt(area) // stride) ** 2
        reached, amount = block + 1, budget.amount
        if budget.kind == "T":
            assert not isinstance(amount, tuple)
            amount = frames = int(frames * amount) if isinstance(amount, float) else amount
        elif isinstance(amount, float):
            area = int(area * amount)
            amount = math.isqrt(area)
        else:
            area = amount[0] * amount[1] if isinstance(amount, tuple) else amount**2
    return amount


@dataclass(frozen=True)
class Options:
    """Of a spec, such as "stts:T5@0,gradient=full"."""

    gradient: str = "diagonal"
    samples: int = SAMPLES
    sigma: float = 0.1
    bookkeeping: str = "grid"
    anchors: str = "released"
    scores: str = "token"


class STTS(Selector):
    """A step of STTS: `Frames` or `Regions`."""

    name = "stts"

    def __init__(
        self, dim: int, steps: Sequence[tuple[int, Budget]], options: Options | None = None, strides: Sequence[int] = ()
    ) -> None:
        """`dim`: channels of a candidate. `steps`: (block, budget) of all up to this one, for released counts."""
        super().__init__()
        self.options = options or Options()
        self.budget, self.steps, self.strides = steps[-1][1], tuple(steps), tuple(strides)
        self.counts_from_input = self.options.bookkeeping == "released"
        self.sigma = self.options.sigma
        self.score_network = Scorer(dim)

    def extra_repr(self) -> str:
        return f"budget={self.budget}, {self.options}"

    @property
    def label(self) -> str:
        return f"{self.name}_{self.budget.kind}" + ("_anchor" if self.options.scores == "anchor" else "")

    def set_progress(self, done: float) -> None:
        """The noise fades linearly to nothing, so that in the end training chooses as evaluation does."""
        self.sigma = self.options.sigma * (1.0 - done)

    def amount(self, start: Layout) -> Amount:
        if not self.counts_from_input:
            return self.budget.amount
        assert start.grid
        if start.grid.h != start.grid.w and any(budget.kind == "S" for _, budget in self.steps):
            raise SelectionError(
                f"{self.name}: bookkeeping=released counts in square frames, and these are {start.grid.h} x "
                f"{start.grid.w} tokens; use bookkeeping=grid"
            )
        return released_amount(start.grid, self.steps, self.strides)

    def soft(self, scores: Tensor, k: int, noise: Tensor | None) -> Tensor:
        """Scores (..., D) -> weights (..., k, D) of the perturbed top-k."""
        weights = perturbed_top_k(
            scores.reshape(-1, scores.shape[-1]),
            k,
            self.sigma,
            samples=self.options.samples,
            full=self.options.gradient == "full",
            noise=noise,
        )
        return weights.view(*scores.shape[:-1], k, -1)


class Frames(STTS):
    """The k best frames, in their order in time."""

    def leaves(self, layout: Layout, start: Layout) -> Layout:
        return budgets.frames_left(layout, self.amount(start), self.name)

    def raw_scores(self, tokens: Tokens) -> Tensor:
        """(B, T)"""
        assert tokens.layout.grid
        return self.score_network(frame_features(tokens.patches, tokens.layout.grid))

    def forward(self, tokens: Tokens, left: Layout, noise: Tensor | None = None) -> Selection:
        """`noise` (B, S, T): fixed, for tests of the training choice."""
        assert tokens.layout.grid and left.grid
        scores = min_max(self.raw_scores(tokens))
        if not self.training:
            return replace(budgets.pick_frames(scores, tokens.layout, left), shown=scores)
        return SoftFrames.of(self.soft(scores, left.grid.t, noise), tokens.layout.grid, left, scores)


class Regions(STTS):
    """In each frame, by itself, the best of some overlapping regions."""

    def leaves(self, layout: Layout, start: Layout) -> Layout:
        return budgets.region_left(layout, self.amount(start), self.name)

    def raw_scores(self, tokens: Tokens) -> Tensor:
        """(B, T, h w): of each token of each frame"""
        assert tokens.layout.grid
        return self.score_network(tokens.patches.unflatten(1, (tokens.layout.grid.t, -1)))

    def anchor_scores(self, tokens: Tokens, anchors: Anchors) -> tuple[Tensor, Tensor | None]:
        """(B, T, A), 0 to 1, and those of the tokens (B, T h w), where they have their own"""
        if self.options.scores == "anchor":  # the scorer sees what an anchor is in the mean
            frames = tokens.patches.unflatten(1, anchors.entered)  # (B, T, H, W, C)
            means = [region.mean(dim=(2, 3)) for region in anchors.slices(frames)]
            return min_max(self.score_network(torch.stack(means, dim=2))), None
        raw = self.raw_scores(tokens)
        return min_max(raw[..., anchors.tokens(raw.device)].mean(dim=-1)), min_max(raw).flatten(1)

    def forward(self, tokens: Tokens, left: Layout, noise: Tensor | None = None) -> Selection:
        """`noise` (B T, S, A): fixed, for tests of the training choice."""
        assert tokens.layout.grid and left.grid
        if self.options.anchors == "none":
            return self._scattered(tokens, left, noise)
        anchors = Anchors.of(tokens.layout.grid, left.grid, self.options.anchors)
        scores, shown = self.anchor_scores(tokens, anchors)
        if self.training:
            return SoftRegions.of(self.soft(scores, 1, noise)[:, :, 0], anchors, left, scores)
        best = scores.sort(dim=-1, descending=True, stable=True).indices[..., 0]  # (B, T)
        return Selection(_in_frames(anchors.tokens(best.device)[best], anchors.entered), left, scores, shown)

    def _scattered(self, tokens: Tokens, left: Layout, noise: Tensor | None) -> Selection:
        """The best tokens of each frame wherever they are, put together in their order (the paper's Table 6).

        The region is one by name alone: what stands side by side in it did not in the frame.
        """
        assert tokens.layout.grid and left.grid
        scores, k = min_max(self.raw_scores(tokens)), left.grid.per_frame  # (B, T, h w)
        if self.training:
            return SoftTokens.of(self.soft(scores, k, noise), tokens.layout.grid, left, scores)
        return Selection(_in_frames(top_k(scores, k), tokens.layout.grid), left, scores, scores.flatten(1))


CHOICES = {
    "gradient": ("diagonal", "full"),
    "bookkeeping": ("grid", "released"),
    "anchors": ("released", "cover", "none"),
    "scores": ("token", "anchor"),
}


def read_options(term: Term) -> Options:
    given: dict[str, Any] = dict(term.options)
    for key, allowed in CHOICES.items():
        if given.get(key, allowed[0]) not in allowed:
            raise SpecError(f"{key}={given[key]} in {term}: {' or '.join(allowed)}")
    if "samples" in given:
        if not re.fullmatch("[1-9][0-9]*", given["samples"]):
            raise SpecError(f"samples={given['samples']} in {term}: a whole number from 1 on")
        given["samples"] = int(given["samples"])
    if "sigma" in given:
        if not re.fullmatch(r"\d+(\.\d*)?|\.\d+", given["sigma"]):
            raise SpecError(f"sigma={given['sigma']} in {term}: a number from 0 on, such as 0.1")
        given["sigma"] = float(given["sigma"])
    if given.get("anchors") == "none" and given.get("scores") == "anchor":
        raise SpecError(f"{term}: without anchors there is no score of one; leave out scores=anchor or anchors=none")
    return Options(**given)


def build(term: Term, host: Host) -> list[Placed]:
    options = read_options(term)
    steps = ordered_steps(term, host)
    placed = []
    for number, (block, budget) in enumerate(steps):
        kind, dim = (Frames, 2 * host.widths[block]) if budget.kind == "T" else (Regions, host.widths[block])
        placed.append(Placed(block, kind(dim, steps[: number + 1], options, host.nominal_strides), schedule=number))
    return placed


def ordered_steps(term: Term, host: Host) -> list[tuple[int, Budget]]:
    """(block, budget) of each step, as they act: by block, frames before regions."""
    steps = []
    for step in term.steps:
        if not step.places:
            raise SpecError(f"{term}: say before which block {step.budget} acts, such as {term.name}:{step.budget}@4")
        for place in step.places:
            block = host.before(place)
            if block >= host.depth:
                raise SelectionError(
                    f"{term.name}: block {block} does not exist; {host.name} has blocks 0 to {host.depth - 1}"
                )
            steps.append((block, step.budget))
    return sorted(steps, key=lambda step: (step[0], step[1].kind != "T"))


METHOD = Method(
    name="stts",
    summary="frames, then a region of each, by a learned scorer (Wang et al., 2022)",
    budgets=("T", "S"),
    places="before the blocks named (VideoSwin: stages)",
    options={
        "gradient": "diagonal|full",
        "samples": "500",
        "sigma": "0.1",
        "bookkeeping": "grid|released",
        "anchors": "released|cover|none",
        "scores": "token|anchor",
    },
    build=build,
    learned=True,
)
