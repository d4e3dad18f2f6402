"""The objects that selectors and models share: the state of the tokens, and the decision about them.

A selector reads `Tokens` and returns a `Selection`; the model applies it with `selection.apply(tokens)` and goes on.
Nothing here knows a model or a paper.

Shapes: B clips, P prefix (class) tokens, N patch tokens that enter, K that leave, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Grid(NamedTuple):
    """Tokens in time, rows and columns. One frame of it is one tubelet slot of the clip."""

    t: int
    h: int
    w: int

    @property
    def tokens(self) -> int:
        return self.t * self.h * self.w

    @property
    def per_frame(self) -> int:
        return self.h * self.w

    def __str__(self) -> str:
        return f"{self.t} x {self.h} x {self.w}"


class Layout(NamedTuple):
    """What is known of a token sequence without looking at a tensor. Plans are made from these alone.

    `segments` says how the sequence is ordered in time: it is cut into that many equal consecutive parts, each of
    which holds tokens of its own stretch of frames. A dense grid has a segment a frame; 1 means no order is left.
    """

    tokens: int
    segments: int
    grid: Grid | None = None  # the dense box that the tokens still form, if any
    pinned: int = 0  # tokens at the front that no selector may drop (the key slab of a detector)
    merged: bool = False  # whether a token may stand for several places of the grid at once

    @classmethod
    def dense(cls, grid: Grid) -> Layout:
        return cls(tokens=grid.tokens, segments=grid.t, grid=grid)

    def __str__(self) -> str:
        if self.grid:
            return f"{self.tokens} tokens in a {self.grid} grid (time, rows, columns)"
        order = f"in {self.segments} equal parts in time" if self.segments > 1 else "without an order in time"
        return f"{self.tokens} tokens {order}"


@dataclass(frozen=True)
class Ask:
    """What the selectors at a block want to read of its attention; the block forms nothing else."""

    keys: bool = False
    attention: bool = False
    query_weight: Tensor | None = None  # (B, N): weight of each patch token as a query in `attention`; None is 1
    sharpness: bool = False


NOTHING = Ask()


@dataclass(frozen=True)
class Signals:
    """What a block says about its patch tokens when asked; `change` is what the clip itself says, before block 0."""

    keys: Tensor | None = None  # (B, N, head width): keys, mean over heads
    attention: Tensor | None = None  # (B, N): attention received, mean over heads and queries (or of the class token)
    sharpness: Tensor | None = None  # (B, N): negative entropy of each token's own attention, mean over heads
    change: Tensor | None = None  # (B, N): see `pixel_change`

    def take(self, index: Tensor) -> Signals:
        def each(signal: Tensor | None) -> Tensor | None:
            return None if signal is None else signal.gather(1, index)

        keys = None if self.keys is None else take(self.keys, index)
        return Signals(keys, each(self.attention), each(self.sharpness), each(self.change))

    def fill(self, cell: Tensor, tokens: int) -> Signals:
        """Those of a whole grid of `tokens`, 0 where nothing stands."""

        def each(signal: Tensor | None) -> Tensor | None:
            return None if signal is None else signal.new_zeros(cell.shape[0], tokens).scatter(1, cell, signal)

        keys = self.keys
        if keys is not None:
            keys = put(keys, cell, keys.new_zeros(keys.shape[0], tokens, keys.shape[2]))
        return Signals(keys, each(self.attention), each(self.sharpness), each(self.change))


@dataclass(frozen=True)
class Tokens:
    """The running state of the tokens through the blocks."""

    x: Tensor  # (B, P + N, C), prefix tokens first; `framed`: one at the head of each frame
    layout: Layout  # of the N patch tokens
    source: Grid  # the grid of the input, in which positions count
    prefix: int = 0
    framed: bool = False  # the prefix is a class token a frame (P frames of 1 + N / P tokens): it goes with its frame
    position: Tensor | None = None  # (B, N) flat position in `source`; None: all of them, in order
    size: Tensor | None = None  # (B, N) input tokens that each one stands for; None: one each
    proportional: bool = False  # whether attention weighs keys by `size`
    signals: Signals | None = None  # of the block just passed, if one was asked
    owner: Tensor | None = None  # (B, source.tokens): which token now holds each of the input's, -1: none; when traced
    cells: bool = False  # whether a token stands for the cell of the input's tokens that it was pooled from
    fills: bool = False  # whether the model fills up: steps then leave behind what `filled` needs
    whole: Tokens | None = None  # with `fills`, after a drop: the last dense state, each token as it was when dropped
    cell: Tensor | None = None  # (B, N) place of each token in it

    @property
    def patches(self) -> Tensor:
        """(B, N, C): the tokens without the prefix; a view, unless that stands between them."""
        if self.framed:
            return self.frames[:, :, 1:].flatten(1, 2)
        return self.x[:, self.prefix :] if self.prefix else self.x

    @property
    def frames(self) -> Tensor:
        """(B, P, 1 + N / P, C): the tokens of each frame, its class token first, where they are `framed`; a view."""
        return self.x.unflatten(1, (self.prefix, -1))

    def positions(self) -> Tensor:
        """(B, N) flat position of each patch token in `source`."""
        if self.position is not None:
            return self.position
        return torch.arange(self.layout.tokens, device=self.x.device).expand(self.x.shape[0], -1)

    @property
    def keys(self) -> Tensor:
        """(B, N, head width): keys of the block just passed, mean over heads; for selectors that read them."""
        assert self.signals is not None and self.signals.keys is not None
        return self.signals.keys

    @property
    def attention(self) -> Tensor:
        """(B, N): attention received in the block just passed; for selectors that read it."""
        assert self.signals is not None and self.signals.attention is not None
        return self.signals.attention

    @property
    def sharpness(self) -> Tensor:
        """(B, N): how sharply each token attended in the block just passed; for selectors that read it."""
        assert self.signals is not None and self.signals.sharpness is not None
        return self.signals.sharpness

    @property
    def change(self) -> Tensor:
        """(B, N): how much the pixels of each token changed; for selectors that read pixels."""
        assert self.signals is not None and self.signals.change is not None
        return self.signals.change

    def with_x(self, x: Tensor) -> Tokens:
        return replace(self, x=x)

    def beside_prefix(self, patches: Tensor) -> Tensor:
        """x with other patch tokens (B, K, C), as many of each frame where they are `framed`."""
        if self.framed:
            parted = patches.unflatten(1, (self.prefix, -1))
            return torch.cat([self.frames[:, :, :1], parted], dim=2).flatten(1, 2)
        return torch.cat([self.x[:, : self.prefix], patches], dim=1) if self.prefix else patches

    def traced(self) -> Tokens:
        """The same, from here on with the way back to each token of the input; a model that pools asks for it first."""
        if self.owner is not None:
            return self
        assert not self.cells
        return replace(self, owner=torch.arange(self.layout.tokens, device=self.x.device).expand(self.x.shape[0], -1))

    def after_attention(self, x: Tensor, signals: Signals) -> Tokens:
        return replace(self, x=x, signals=signals)

    def filled(self) -> Tokens:
        """The whole grid again: the tokens that went on as they are, the dropped ones as they last were."""
        if self.whole is None or self.cell is None:
            return self
        signals = None if self.signals is None else self.signals.fill(self.cell, self.whole.layout.tokens)
        return replace(self.whole, x=put(self.x, self.cell, self.whole.x), signals=signals)

    def pooled(self, x: Tensor, grid: Grid, stride: tuple[int, int, int]) -> Tokens:
        """After a model's own pooling to `grid`: x (B, P + grid.tokens, C).

        A token that leaves stands where its cell of `stride` tokens begins (there the windows of the published
        convolutions are centred), and is owner of all that the cell's tokens own. Cells at the end may be cut.
        """
        entered = self.layout.grid
        assert entered is not None
        device = x.device
        times, rows, columns = (torch.arange(n, device=device) for n in grid)
        first = ((times * stride[0])[:, None, None] * entered.h + (rows * stride[1])[:, None]) * entered.w
        corner = (first + columns * stride[2]).flatten().expand(x.shape[0], -1)  # (B, N')
        owner = self.owner
        if owner is not None:
            times, rows, columns = (torch.arange(n, device=device) // s for n, s in zip(entered, stride, strict=True))
            cell = (times[:, None, None] * grid.h + rows[:, None]) * grid.w + columns  # of each token that entered
            owner = torch.where(owner < 0, owner, cell.flatten()[owner.clamp(min=0)])
        position = corner if self.position is None else self.position.gather(1, corner)
        return replace(self, x=x, layout=Layout.dense(grid), position=position, owner=owner, cells=True, signals=None)

    def key_bias(self) -> Tensor | None:
        """(B, 1, 1, P + N) addend to attention logits that makes a merged token count as many (Bolya et al., eq. 1)."""
        if self.size is None or not self.proportional:
            return None
        log_size = self.size.log()  # float32
        if self.prefix:
            log_size = torch.cat([log_size.new_zeros(log_size.shape[0], self.prefix), log_size], dim=1)
        return log_size[:, None, None, :]

    def mean(self) -> Tensor:
        """(B, C): mean of the patch tokens, each weighted by the input tokens it stands for."""
        if self.size is None:
            return self.patches.mean(dim=1)
        weight = (self.size / self.size.sum(dim=1, keepdim=True)).to(self.x.dtype)
        return (self.patches * weight[..., None]).sum(dim=1)


def take(x: Tensor, index: Tensor) -> Tensor:
    """Rows `index` (B, K) of x (B, N, C) -> (B, K, C). Copies whole rows, which `gather` does not."""
    batch, length, channels = x.shape
    first = torch.arange(batch, device=x.device)[:, None] * length
    rows = x.reshape(batch * length, channels).index_select(0, (index + first).reshape(-1))
    return rows.view(batch, index.shape[1], channels)


def put(x: Tensor, index: Tensor, onto: Tensor) -> Tensor:
    """A copy of `onto` (B, N, C) whose rows `index` (B, K) are those of x (B, K, C)."""
    batch, length, channels = onto.shape
    first = torch.arange(batch, device=x.device)[:, None] * length
    rows = onto.reshape(batch * length, channels).index_copy(0, (index + first).reshape(-1), x.reshape(-1, channels))
    return rows.view(batch, length, channels)


def pixel_change(clip: Tensor, grid: Grid) -> Tensor:
    """(B, N): how much the pixels of each tubelet of clips (B, 3, T, H, W) differ from those of the one before it.

    Mean over colours and pixels of |its last frame - the first frame of the one before|, as in run-length tokens
    (Choudhury et al., 2024); infinite in the first slot, before which there is nothing.
    """
    frames = clip.unflatten(2, (grid.t, -1))  # (B, 3, t, frames of a tubelet, H, W)
    change = (frames[:, :, 1:, -1] - frames[:, :, :-1, 0]).abs().mean(dim=1)  # (B, t - 1, H, W)
    cells = change.unflatten(3, (grid.w, -1)).unflatten(2, (grid.h, -1)).mean(dim=(3, 5))  # (B, t - 1, h, w)
    return F.pad(cells.float(), (0, 0, 0, 0, 1, 0), value=float("inf")).flatten(1)


@dataclass(frozen=True)
class Selection:
    """The tokens that go on, in which order: a hard choice.

    `index` (B, K) counts the patch tokens that entered, `layout` says what the kept ones still form, `scores` are the
    numbers it was chosen by, one a candidate: (B, N) for tokens, (B, T) for frames, (B, T, anchors) for regions.
    `shown`, for pictures, are scores from 0 to 1 of the frames (B, T) or of the tokens (B, N) that entered.
    """

    index: Tensor
    layout: Layout
    scores: Tensor | None = None
    shown: Tensor | None = None

    def apply(self, tokens: Tokens) -> Tokens:
        """Features, positions, sizes and signals of the tokens kept."""
        return self._moved(tokens, self._features(tokens))

    def owners(self, entered: int) -> Tensor:
        """(B, N): for each token that entered the one that now holds it, -1 where it was dropped.

        Where several stand for it (soft units may share their heaviest candidate) the first of them.
        """
        batch, kept = self.index.shape
        owner = self.index.new_full((batch, entered), -1)
        places = torch.arange(kept, device=self.index.device).expand(batch, -1)
        return owner.scatter_reduce(1, self.index, places, reduce="amin", include_self=False)

    def score_map(self, tokens: Tokens) -> Tensor | None:
        """(B, source.tokens): `shown` at each token of the input, NaN where none stands for it; for traced tokens."""
        if self.shown is None or tokens.owner is None:
            return None
        shown = self.shown.repeat_interleave(tokens.layout.tokens // self.shown.shape[1], dim=1)  # (B, N)
        return shown.gather(1, tokens.owner.clamp(min=0)).masked_fill(tokens.owner < 0, float("nan"))

    def _features(self, tokens: Tokens) -> Tensor:
        index = self.index
        if tokens.framed:  # the class token of each frame that goes on, then what goes on of its tokens
            length = tokens.layout.tokens // tokens.prefix
            index = index.unflatten(1, (self.layout.segments, -1))  # (B, frames kept, .)
            frame = index // length
            first = frame[..., :1] * (length + 1)
            index = torch.cat([first, index + frame + 1], dim=2).flatten(1)
        elif tokens.prefix:  # one gather for both: the prefix keeps its place
            front = torch.arange(tokens.prefix, device=index.device).expand(index.shape[0], -1)
            index = torch.cat([front, index + tokens.prefix], dim=1)
        return take(tokens.x, index)

    def _moved(self, tokens: Tokens, x: Tensor) -> Tokens:
        return replace(
            tokens,
            x=x,
            layout=self.layout,
            prefix=self.layout.segments if tokens.framed else tokens.prefix,
            position=self.index if tokens.position is None else tokens.position.gather(1, self.index),
            size=None if tokens.size is None else tokens.size.gather(1, self.index),
            signals=None if tokens.signals is None else tokens.signals.take(self.index),
            owner=None if tokens.owner is None else self._owner(tokens.owner, tokens.layout.tokens),
            **self._behind(tokens),
        )

    def _behind(self, tokens: Tokens) -> dict[str, Any]:
        """For a model that fills up: what was there, and where in it each token stood."""
        if not tokens.fills or self.layout.grid is not None:
            return {"whole": None, "cell": None}
        cell = self.index if tokens.cell is None else tokens.cell.gather(1, self.index)
        return {"whole": replace(tokens.filled(), signals=None), "cell": cell}

    def _owner(self, owner: Tensor, entered: int) -> Tensor:
        """Of the input's tokens, through this step."""
        return torch.where(owner < 0, owner, self.owners(entered).gather(1, owner.clamp(min=0)))


@dataclass(frozen=True, kw_only=True)
class MergeSelection(Selection):
    """Some tokens join others: the mean weighted by the input tokens each stands for.

    `index` (B, K) are the tokens that stay, `joining` (B, M) those that join one, `into` (B, M) the place 0..K-1 of it.
    `weight` (B, M) is how much of each that joins counts, features and size alike; None: all of it.
    """

    joining: Tensor
    into: Tensor
    weight: Tensor | None = None
    proportional: bool = True

    def apply(self, tokens: Tokens) -> Tokens:
        size = tokens.size  # in float32: half precision does not count beyond a few hundred
        if size is None:
            size = torch.ones(tokens.patches.shape[:2], device=tokens.x.device)
        weighted = tokens.patches * size[..., None]
        joining, joining_size = take(weighted, self.joining), size.gather(1, self.joining)
        if self.weight is not None:
            joining, joining_size = joining * self.weight[..., None], joining_size * self.weight
        total = size.gather(1, self.index).scatter_add(1, self.into, joining_size)  # (B, K)
        into = self.into[..., None].expand(-1, -1, weighted.shape[-1])
        merged = take(weighted, self.index).scatter_add(1, into, joining) / total[..., None]
        x = torch.cat([tokens.x[:, : tokens.prefix], merged.to(tokens.x.dtype)], dim=1)
        return replace(self._moved(tokens, x), size=total, proportional=self.proportional)

    def owners(self, entered: int) -> Tensor:
        return super().owners(entered).scatter(1, self.joining, self.into)
