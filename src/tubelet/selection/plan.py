"""Where selectors stand in a model, and what each leaves: decided from the grid, before a tensor is seen.

plan = Plan([Placed(4, selector)], host)      # built once, with the model
schedule = plan.schedule(grid)                # once a grid, remembered: integer counts, no-ops dropped, refusals
tokens = schedule.apply("before", i, tokens)  # in the model's loop over blocks; "inside" and "after" likewise
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from tubelet.errors import SelectionError
from tubelet.selection.core import NOTHING, Ask, Grid, Layout, Selection, Signals, Tokens, pixel_change

Place = Literal["before", "inside", "after"]
PLACES: tuple[Place, ...] = ("before", "inside", "after")


class Selector(nn.Module):
    """One selection step at one block. Subclasses say what they read, what they leave, and choose."""

    name = "selector"
    place: Place = "before"  # of a block; "inside" is between the attention's residual and the MLP
    reads_keys = False
    reads_attention = False
    reads_sharpness = False
    reads_pixels = False  # `tokens.change`, which is there before block 0 alone
    weighs_queries = False  # whether the attention it reads counts queries by `query_weight`
    counts_from_input = False  # its budget follows from the input's grid: `start` in `leaves` is then that

    @property
    def reads_block(self) -> bool:
        """Whether it reads what a block tells about its attention."""
        return self.reads_keys or self.reads_attention or self.reads_sharpness

    def leaves(self, layout: Layout, start: Layout) -> Layout:
        """What is left of `layout`; the same layout if nothing is dropped.

        `start` is what entered the first step of the same selector, for budgets that are a share of that (or the input
        of the model, with `counts_from_input`).
        Raises SelectionError where the step cannot be right.
        """
        raise NotImplementedError

    def forward(self, tokens: Tokens, left: Layout) -> Selection:
        """Choose `left.tokens` of `tokens`."""
        raise NotImplementedError

    def query_weight(self, tokens: Tokens) -> Tensor | None:
        """(B, N) weight of each patch token as a query in the attention read, for those with `weighs_queries`."""
        return None

    @property
    def label(self) -> str:
        """What its weights are the weights of, in a name of letters, figures and _: two that share it share them."""
        return self.name

    def set_progress(self, done: float) -> None:
        """Training tells before each step which share of its steps is done, 0 to 1; for what decays, such as noise."""


def takes_anything(block: int, layout: Layout) -> None:
    """A model whose blocks take any set of tokens."""


def goes_anywhere(block: int, entered: Layout, left: Layout) -> None:
    """A model that takes a layout whatever it took before."""


def pools_nothing(block: int, place: Place, layout: Layout) -> Layout:
    """A model whose blocks leave the tokens that enter."""
    return layout


@dataclass(frozen=True)
class Host:
    """What a plan must know of the model it is for."""

    name: str
    widths: tuple[int, ...]  # channels entering each block
    class_token: bool = False
    check: Callable[[int, Layout], None] = takes_anything  # raises SelectionError: this cannot go on
    arriving: Callable[[int, Place, Layout], Layout] = pools_nothing  # what the model's own pooling leaves at a place
    stages: tuple[int, ...] = ()  # first block of each, where T and S budgets stand before stages instead of blocks
    refills: tuple[int, ...] = ()  # blocks before which the last whole grid stands again, what was dropped included
    nominal_strides: tuple[int, ...] = ()  # by which published budgets divide a frame's side at each block; () is 1
    step: Callable[[int, Layout, Layout], None] = goes_anywhere  # raises SelectionError: this cannot follow that
    key_frame: bool = False  # a detector, which needs the whole key slab: `keep=` of any selector acts beside it
    pixels: bool = False  # whether its forward pass calls `Schedule.begin`

    @property
    def depth(self) -> int:
        return len(self.widths)

    def before(self, place: int) -> int:
        """The block before which a T or S budget at `place` stands."""
        if not self.stages:
            return place
        if place >= len(self.stages):
            raise SelectionError(
                f"stage {place} does not exist; T and S budgets stand before stages, and {self.name} has stages 0 to "
                f"{len(self.stages) - 1}"
            )
        return self.stages[place]

    @property
    def longest(self) -> tuple[int, int]:
        """First block and number of blocks of the longest run that works on one grid."""
        starts = (*(self.stages or (0,)), self.depth)
        runs = [(a, b - a) for a, b in zip(starts, starts[1:], strict=False)]
        return max(runs, key=lambda run: run[1])


@dataclass(frozen=True)
class Placed:
    """A selector at a block. Steps of one schedule (such as STA's three) share its number."""

    block: int
    selector: Selector
    schedule: Hashable = 0


@dataclass(frozen=True)
class Kept:
    """What one step kept, for pictures and reports. Positions count in the (t, h, w) token grid of the input."""

    name: str
    place: Place
    block: int
    grid: Grid
    position: Tensor  # (B, K) flat positions, in the order the model holds them
    owner: Tensor  # (B, grid tokens): index of the token that now holds each input token, -1 where none does
    scores: Tensor | None
    cells: bool = False  # the model has pooled: a token stands for all of the input's tokens in its cell
    score_map: Tensor | None = None  # (B, t, h, w) from 0 to 1 of a learned scorer; NaN where nothing entered the step

    @property
    def mask(self) -> Tensor:
        """(B, t, h, w) bool: the input tokens that still stand in the sequence, or that a pooled one stands for."""
        if self.cells:
            return (self.owner >= 0).view(-1, *self.grid)
        flat = torch.zeros(self.owner.shape, dtype=torch.bool, device=self.owner.device)
        return flat.scatter(1, self.position, True).view(-1, *self.grid)


@dataclass(frozen=True)
class Action:
    selector: Selector
    left: Layout


class Schedule:
    """A plan for one grid: what happens at each block, and how many tokens enter it."""

    def __init__(
        self, actions: dict[tuple[Place, int], list[Action]], entering: list[int], leaving: Layout, parts: list[int]
    ) -> None:
        self.actions = actions
        self.entering = entering  # patch tokens entering each block, before a drop inside it
        self.parts = parts  # in time, that they form: `segments` of their layout
        self.leaving = leaving
        self.reads: dict[int, list[Selector]] = {}  # block: who reads what it tells
        for block in range(len(entering)):
            readers = [a.selector for place in PLACES[1:] for a in actions.get((place, block), [])]
            readers += [a.selector for a in actions.get(("before", block + 1), [])]
            if any(s.reads_block for s in readers):
                self.reads[block] = readers
        first = actions.get(("before", 0), [])
        self.reads_pixels = any(a.selector.reads_pixels for a in first)

    def begin(self, tokens: Tokens, clip: Tensor) -> Tokens:
        """Before the loop over blocks: `tokens` of a clip, with what the selectors at block 0 read of its pixels."""
        if not self.reads_pixels:
            return tokens
        with full_precision(clip.device.type):
            return replace(tokens, signals=Signals(change=pixel_change(clip, tokens.source)))

    def ask(self, block: int, tokens: Tokens) -> Ask:
        """What `block` has to tell about its attention."""
        if block not in self.reads:
            return NOTHING
        readers = self.reads[block]
        weighing = [s for s in readers if s.weighs_queries]  # one at most, see Plan
        return Ask(
            keys=any(s.reads_keys for s in readers),
            attention=any(s.reads_attention for s in readers),
            query_weight=weighing[0].query_weight(tokens) if weighing else None,
            sharpness=any(s.reads_sharpness for s in readers),
        )

    def apply(self, place: Place, block: int, tokens: Tokens, record: list[Kept] | None = None) -> Tokens:
        for action in self.actions.get((place, block), ()):
            selector = action.selector
            if record is not None:
                tokens = tokens.traced()
            with marked("tubelet.choose"), full_precision(tokens.x.device.type):
                selection = selector(tokens, action.left)
            entered = tokens
            with marked("tubelet.apply"):
                tokens = selection.apply(tokens)
            if record is not None:
                assert tokens.owner is not None
                scores = None if selection.scores is None else selection.scores.detach()
                shown = selection.score_map(entered)
                shown = None if shown is None else shown.detach().view(-1, *tokens.source)
                where = (selector.name, place, block, tokens.source)
                record.append(Kept(*where, tokens.positions(), tokens.owner, scores, tokens.cells, shown))
        return tokens

    def inside(self, block: int, record: list[Kept] | None = None) -> Callable[[Tokens], Tokens] | None:
        """The step between attention and MLP of `block`, or None."""
        if ("inside", block) not in self.actions:
            return None
        return lambda tokens: self.apply("inside", block, tokens, record)


class Plan(nn.Module):
    """The selectors of a model. Empty: the dense model, by the same code."""

    def __init__(self, placed: Sequence[Placed] = (), host: Host | None = None, spec: str = "none") -> None:
        super().__init__()
        self.spec = spec
        self.host = host
        self.placed = tuple(placed)
        # Learned ones have weights, so the key says which: "block4_stts_S" is STTS's scorer of regions before block 4.
        selectors: dict[str, nn.Module] = dict(zip(_keys(placed), (p.selector for p in placed), strict=True))
        self.selectors = nn.ModuleDict(selectors)
        self._schedules: dict[Grid, Schedule] = {}
        for p in self.placed:
            self._check_place(p)

    def extra_repr(self) -> str:
        return f"spec={self.spec!r}"

    @property
    def learned(self) -> list[str]:
        """Keys of the selectors that have weights."""
        return [key for key, selector in self.selectors.items() if list(selector.parameters())]

    def inherit(self, before: Plan) -> list[str]:
        """Take over the weights of the learned selectors that both have, whatever they keep; returns their keys."""
        shared = [key for key in self.learned if key in before.selectors]
        for key in shared:
            weights = before.selectors[key].state_dict()
            if not any(weight.is_meta for weight in weights.values()):  # a model of shapes alone has none
                self.selectors[key].load_state_dict(weights)
        return shared

    def schedule(self, grid: Grid) -> Schedule:
        """The plan for `grid`; raises SelectionError where it cannot be right."""
        if grid not in self._schedules:
            self._schedules[grid] = self._make(grid)
        return self._schedules[grid]

    def _check_place(self, p: Placed) -> None:
        assert self.host is not None
        name, depth = p.selector.name, self.host.depth
        if not 0 <= p.block < depth:
            raise SelectionError(
                f"{name}: block {p.block} does not exist; {self.host.name} has blocks 0 to {depth - 1}"
            )
        if p.selector.reads_pixels and (p.selector.place, p.block) != ("before", 0):
            raise SelectionError(f"{name}: pixels are compared before block 0 alone; place it there, not at {p.block}")
        if p.selector.place == "before" and p.selector.reads_block and p.block == 0:
            raise SelectionError(f"{name}: no attention has been formed before block 0; place it at 1 to {depth - 1}")

    def _make(self, grid: Grid) -> Schedule:
        layout = dense = whole = Layout.dense(grid)
        actions: dict[tuple[Place, int], list[Action]] = {}
        entering: list[int] = []
        parts: list[int] = []
        starts: dict[Hashable, Layout] = {}
        host = self.host
        for block in range(host.depth if host else 0):
            assert host is not None
            for place in PLACES:
                if place == "inside":
                    entering.append(layout.tokens)
                    parts.append(layout.segments)
                if place == "before" and block in host.refills:
                    layout = whole
                layout = host.arriving(block, place, layout)
                whole = layout if layout.grid else whole
                for p in self.placed:
                    if p.block != block or p.selector.place != place:
                        continue
                    start = starts.setdefault(p.schedule, layout)
                    left = p.selector.leaves(layout, dense if p.selector.counts_from_input else start)
                    if left == layout:  # keeps everything: no step at all, so the dense code runs
                        continue
                    if left.tokens < 1:
                        raise SelectionError(f"{p.selector.name}: nothing would be left of {layout} at block {block}")
                    if left.pinned < layout.pinned:
                        raise SelectionError(
                            f"{p.selector.name}: it may drop a part of the key slab, {layout.pinned} tokens in front "
                            f"that must stay whole from block {block} on"
                        )
                    if p.selector.reads_pixels and not host.pixels:
                        raise SelectionError(
                            f"{p.selector.name}: {host.name} does not hand on the pixels of a clip, which it reads"
                        )
                    host.check(block, left)
                    host.step(block, layout, left)
                    actions.setdefault((place, block), []).append(Action(p.selector, left))
                    layout = left
                    whole = layout if layout.grid else whole
        schedule = Schedule(actions, entering, layout, parts)
        self._check_readers(schedule)
        return schedule

    def _check_readers(self, schedule: Schedule) -> None:
        """One attention a block: whoever weighs its queries must be the only one to read it."""
        for block, readers in schedule.reads.items():
            attentive = [s for s in readers if s.reads_attention]
            for s in attentive:
                if not s.weighs_queries:
                    continue
                if len(attentive) > 1:
                    names = " and ".join(s.name for s in attentive)
                    raise SelectionError(f"{names} read the attention of block {block} with different query weights")
                if self.host and self.host.class_token:
                    raise SelectionError(f"{s.name} weighs queries; this model tells the class token's attention alone")


def _keys(placed: Sequence[Placed]) -> list[str]:
    keys: list[str] = []
    for p in placed:
        key = f"block{p.block}_{p.selector.label}"
        before = sum(key == other or other.startswith(f"{key}_no") for other in keys)
        keys.append(f"{key}_no{before + 1}" if before else key)
    return keys


@contextmanager
def marked(name: str) -> Iterator[None]:
    """A named range in a profile, so that the share of choosing tokens can be measured; nothing while compiling."""
    if torch.compiler.is_compiling() or not torch.autograd.profiler._is_profiler_enabled:
        yield
        return
    with torch.autograd.profiler.record_function(name):
        yield


@contextmanager
def full_precision(device: str) -> Iterator[None]:
    """Scores are ranked as float32 makes them, also where the model runs under autocast."""
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):  # none on "meta"
        yield
        return
    with torch.autocast(device, enabled=False):
        yield
