"""What a forward pass costs in multiply-adds, counted on shapes alone: no weight is read, nothing is computed.

Convention: one multiply-add is 1 (so a GMAC here is what most papers of the field print as a GFLOP). Counted are every
matrix product and convolution, fused attention and the products of selectors included, and layer norm as fvcore counts
it: 5 for each element, 4 without weight and bias. Not counted: softmax, activations, sums, sorting and gathering.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from tubelet.errors import TubeletError
from tubelet.models.base import VideoModel
from tubelet.models.registry import create_model
from tubelet.selection.plan import Plan, Selector
from tubelet.selection.registry import build_plan

Size = int | tuple[int, int]  # side, or (height, width)


@dataclass(frozen=True)
class Flops:
    """The cost of one forward pass on the clip given, and where it goes."""

    gmacs: float  # 10^9 multiply-adds
    by_operation: dict[str, float]  # GMACs; the sum is `gmacs`
    by_module: dict[str, float]  # GMACs of every module called, by its name, with all that it calls
    tokens: list[int]  # entering each block, class tokens included, before a drop inside it; [] for other models
    params_m: float  # 10^6 parameters, those of selectors included

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {gmacs:.2f}" for name, gmacs in self.by_operation.items() if gmacs)
        tokens = f"\ntokens entering the blocks: {' '.join(map(str, self.tokens))}" if self.tokens else ""
        return f"{self.gmacs:.2f} GMACs ({parts}), {self.params_m:.1f} M parameters{tokens}"


def count_flops(model: nn.Module, clip: Tensor | Sequence[int] | None = None) -> Flops:
    """Count the multiply-adds of `model(clip)` in evaluation mode.

    Args:
        model: its weights may be anywhere, the "meta" device included; it is left as it is.
        clip: a clip (B, 3, T, H, W) or such a shape; None: one clip of the size that the model is made for.
            The whole batch is counted.
    """
    shape = clip_shape(model) if clip is None else tuple(clip.shape if isinstance(clip, Tensor) else clip)
    state = [*model.named_parameters(), *model.named_buffers()]
    dtype = next((t.dtype for _, t in state if t.is_floating_point()), torch.float32)
    outlines = {name: torch.empty_like(t, device="meta") for name, t in state}
    counter = FlopCounterMode(display=False, custom_mapping=_MORE_FORMULAS)
    with torch.no_grad(), _evaluating(model), counter:
        functional_call(model, outlines, (torch.empty(shape, dtype=dtype, device="meta"),))

    counts = counter.get_flop_counts()  # {module: {operation: 2 x multiply-adds}}
    root = type(model).__name__ + "."
    selectors = [counts.get(root + name, {}) for name, m in model.named_modules() if isinstance(m, Selector)]
    by_operation = dict.fromkeys(("linear", "attention", "convolution", "layer norm", "selection"), 0.0)
    for operation, count in counts["Global"].items():
        choosing = sum(one.get(operation, 0) for one in selectors)
        by_operation["selection"] += choosing / 2e9
        by_operation[_KINDS.get(operation, "attention")] += (count - choosing) / 2e9
    return Flops(
        gmacs=sum(counts["Global"].values()) / 2e9,
        by_operation=by_operation,
        by_module={n.removeprefix(root): sum(c.values()) / 2e9 for n, c in counts.items() if n.startswith(root)},
        tokens=tokens_entering(model, shape),
        params_m=sum(p.numel() for p in model.parameters()) / 1e6,
    )


def flops_table(
    model: str | VideoModel,
    selects: Sequence[str] = (),
    *,
    frames: int | None = None,
    size: Size | None = None,
    classes: int | None = None,
) -> list[dict[str, Any]]:
    """The dense model and each selection side by side: rows as `tubelet flops --json` prints them, for one view.

    A name is built without memory for its weights. A model given is left as it is, its own selection included;
    frames and size are then those of the clip, and classes cannot be set.
    """
    with torch.device("meta"):
        model = named(model, frames, size, classes)
    shape = clip_shape(model, frames=frames, size=size)
    rows: list[dict[str, Any]] = []
    for select in ("none", *selects):
        with selected(model, select):
            cost = count_flops(model, shape)
        rows.append(
            {
                "model": model.config.model,
                "select": select,
                "gmacs": cost.gmacs,
                "ratio": (rows[0]["gmacs"] if rows else cost.gmacs) / cost.gmacs,
                "params_m": cost.params_m,
                "tokens": cost.tokens,
            }
        )
    return rows


def named(model: str | VideoModel, frames: int | None, size: Size | None, classes: int | None) -> VideoModel:
    """The model itself, or a new one of that name with what differs from its declared size."""
    if not isinstance(model, str):
        if classes is not None:
            raise TubeletError(f"classes={classes}: a model that is already built keeps its {model.config.model} head")
        return model
    arguments: dict[str, Any] = {"frames": frames, "size": size, "num_classes": classes}
    return create_model(model, **{k: v for k, v in arguments.items() if v is not None})


def clip_shape(
    model: nn.Module, batch: int = 1, frames: int | None = None, size: Size | None = None
) -> tuple[int, ...]:
    """(B, 3, T, H, W) of the clip that a model is made for, or with other frames or size."""
    if not isinstance(model, VideoModel):
        raise TubeletError(f"{type(model).__name__} does not say which clips it takes: give a clip or its shape")
    side = model.size if size is None else (size, size) if isinstance(size, int) else tuple(size)
    return batch, 3, frames or model.frames, *side


def tokens_entering(model: nn.Module, shape: Sequence[int]) -> list[int]:
    if not isinstance(model, VideoModel):
        return []
    return model.tokens_entering(model.grid_of(*shape[2:]))


@contextmanager
def selected(model: VideoModel, select: str) -> Iterator[None]:
    """Another selection for a while; the plan checks it on the clip that comes, not on the declared one."""
    before: Plan = model.plan
    model.plan = build_plan(select, model.host())
    try:
        yield
    finally:
        model.plan = before


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = [m for m in model.modules() if m.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


# torch's own formulas count 2 for a multiply-add and leave these operations out. Arguments are shapes.
def _layer_norm(x: Sequence[int], normalized: Any, weight: Any = None, *_: Any, **__: Any) -> int:
    return 2 * prod(x) * (4 if weight is None else 5)


def _matrix_vector(matrix: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * prod(matrix)


def _plus_matrix_vector(_first: Any, matrix: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * prod(matrix)


def _attention(q: Sequence[int], k: Sequence[int], v: Sequence[int], *_: Any, **__: Any) -> int:
    return sdpa_flop_count(q, k, v)


_ATEN = torch.ops.aten
_MORE_FORMULAS = {
    _ATEN.native_layer_norm: _layer_norm,
    _ATEN.mv: _matrix_vector,
    _ATEN.dot: _matrix_vector,
    _ATEN.addmv: _plus_matrix_vector,
    _ATEN._scaled_dot_product_flash_attention_for_cpu: _attention,
    _ATEN._scaled_dot_product_fused_attention_overrideable: _attention,
}
# All else are batched products: attention, fused or not. Those of selectors are told apart by the module.
_KINDS = {
    _ATEN.mm: "linear",
    _ATEN.addmm: "linear",
    _ATEN.convolution: "convolution",
    _ATEN._convolution: "convolution",
    _ATEN.native_layer_norm: "layer norm",
}
