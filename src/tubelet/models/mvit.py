"""Multiscale Vision Transformer, version 1 (MViT-B; Fan et al., ICCV 2021): attention over pooled keys and values.

From top to bottom: overlapping tubelets + positions + class token -> blocks, of which some halve the grid and some
double the channels -> norm -> class token (or the mean of the tokens) -> classes.
Parameter names are those of the released code of STTS (a SlowFast), but that of the classifier is `head`.

Differences from the released code: attention is fused; keys and values are pooled in one convolution over channels that
lie together in memory, so that nothing is transposed for it; positions are resized to the clip at hand; frames need not
be square; tokens may be dropped before or after any block, as long as those left form a dense box.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tubelet.errors import SelectionError, TubeletError
from tubelet.models.base import VideoModel
from tubelet.models.layers import (
    MLP,
    DropPath,
    attend_and_count,
    attention_row,
    drop_path_rates,
    init_linear,
    resize_positions,
)
from tubelet.selection.core import NOTHING, Ask, Grid, Layout, Signals, Tokens
from tubelet.selection.plan import Host, Kept, Place, Plan

Stride = tuple[int, int, int]  # in time, rows, columns


class PoolingAttention(nn.Module):
    """Multi-head self-attention whose keys and values (and queries, with `q_stride`) a convolution pools.

    The convolutions are depth-wise and shared by the heads; the class token passes them by. A norm follows each.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        kernel: Stride = (3, 3, 3),
        q_stride: Stride | None = None,
        kv_stride: Stride | None = None,
        qkv_bias: bool = True,
        eps: float = 1e-5,
    ) -> None:
        """`q_stride`, `kv_stride`: None leaves the pooling out, and its parameters."""
        super().__init__()
        self.heads, self.head_dim = heads, dim // heads
        self.q_stride, self.kv_stride = q_stride, kv_stride
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        for name in ("q",) * (q_stride is not None) + ("k", "v") * (kv_stride is not None):
            width, padding = self.head_dim, (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
            stride = q_stride if name == "q" else kv_stride
            conv = nn.Conv3d(width, width, kernel, stride or 1, padding, groups=width, bias=False)
            self.add_module(f"pool_{name}", conv)
            self.add_module(f"norm_{name}", nn.LayerNorm(width, eps=eps))

    def forward(self, x: Tensor, grid: Grid, prefix: int = 0, ask: Ask = NOTHING) -> tuple[Tensor, Signals, Grid]:
        """x (B, P + N, C) -> (B, P + N', C), the signals asked for of the N' tokens, and their grid."""
        dim = x.shape[-1]
        weight, bias = self.qkv.weight, self.qkv.bias
        q = F.linear(x, weight[:dim], None if bias is None else bias[:dim])
        kv = F.linear(x, weight[dim:], None if bias is None else bias[dim:])  # (B, P + N, 2 C)
        (q,), q_grid = self._pool(q, "q", grid, prefix, self.q_stride)  # each (B, heads, P + n, d) from here
        (k, v), k_grid = self._pool(kv, "kv", grid, prefix, self.kv_stride)
        received = None
        if ask.attention and not prefix:
            out, received, _ = attend_and_count(q, k, v, None, ask.query_weight)
        else:
            out = F.scaled_dot_product_attention(q, k, v)
            if ask.attention:
                received = attention_row(q[:, :, :1], k, None)[:, 0, prefix:]  # of the class token alone
        if received is not None:
            received = spread(received, k_grid, self.kv_stride, grid, self.q_stride)
        return self.proj(out.transpose(1, 2).flatten(2)), Signals(attention=received), q_grid

    def _pool(self, x: Tensor, names: str, grid: Grid, prefix: int, stride: Stride | None) -> tuple[list[Tensor], Grid]:
        """x (B, P + N, C a name) -> for each name (B, heads, P + n, d), and the pooled grid."""
        parts = (len(names), self.heads, self.head_dim)
        if stride is None:
            return [part.transpose(1, 2) for part in x.unflatten(2, parts).unbind(2)], grid
        convs = [getattr(self, f"pool_{name}") for name in names]
        weight = torch.cat([conv.weight.repeat(self.heads, 1, 1, 1, 1) for conv in convs])  # (C a name, 1, *kernel)
        maps = x[:, prefix:].unflatten(1, grid).permute(0, 4, 1, 2, 3)  # (B, C, T, H, W), channels last in memory
        maps = F.conv3d(maps, weight, None, stride, convs[0].padding, groups=len(weight))
        pooled_grid = Grid(*maps.shape[2:])
        pooled = maps.permute(0, 2, 3, 4, 1).flatten(1, 3)  # (B, n, C a name), as it lies
        if prefix:
            pooled = torch.cat([x[:, :prefix], pooled], dim=1)
        norms = [getattr(self, f"norm_{name}") for name in names]
        parted = pooled.unflatten(2, parts).unbind(2)
        return [norm(part).transpose(1, 2) for norm, part in zip(norms, parted, strict=True)], pooled_grid


def spread(received: Tensor, keys: Grid, kv_stride: Stride | None, entered: Grid, q_stride: Stride | None) -> Tensor:
    """Attention that pooled keys received (B, n) -> that of the tokens that leave the block (B, N').

    A key stands for the cell of `kv_stride` tokens that it is pooled at; a token that leaves for the mean of its cell.
    """
    maps = received.unflatten(1, keys)
    for axis, stride in enumerate(kv_stride or (1, 1, 1), start=1):
        if stride > 1:
            maps = maps.repeat_interleave(stride, dim=axis)
    maps = maps[:, : entered.t, : entered.h, : entered.w]
    if q_stride is not None and math.prod(q_stride) > 1:
        maps = F.avg_pool3d(maps[:, None], q_stride, stride=q_stride, ceil_mode=True)[:, 0]
    return maps.flatten(1)


class Block(nn.Module):
    """Pre-norm transformer block. Where it pools queries the residual is pooled with them, by the maximum.

    A change of width is made by its MLP, and in the residual from the normalised tokens (as in version 1).
    """

    def __init__(
        self, attention: PoolingAttention, dim: int, dim_out: int, mlp_ratio: float, *, eps: float, drop_path: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = attention
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = MLP(dim, int(dim * mlp_ratio), dim_out)
        self.proj = nn.Linear(dim, dim_out) if dim != dim_out else None
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tokens, ask: Ask = NOTHING, inside: Callable[[Tokens], Tokens] | None = None) -> Tokens:
        grid, prefix = tokens.layout.grid, tokens.prefix
        assert grid is not None
        y, signals, pooled = self.attn(self.norm1(tokens.x), grid, prefix, ask)
        if (stride := self.attn.q_stride) is not None and math.prod(stride) > 1:
            tokens = tokens.pooled(max_pool(tokens.x, grid, prefix, stride), pooled, stride)
        tokens = tokens.after_attention(tokens.x + self.drop_path(y), signals)
        if inside is not None:
            tokens = inside(tokens)
        y = self.norm2(tokens.x)
        skip = tokens.x if self.proj is None else self.proj(y)
        return tokens.with_x(skip + self.drop_path(self.mlp(y)))


def max_pool(x: Tensor, grid: Grid, prefix: int, stride: Stride) -> Tensor:
    """Tokens (B, P + N, C), the maximum over windows that overlap by one: (B, P + N', C). The prefix stays."""
    window = tuple(s + 1 if s > 1 else s for s in stride)
    padding = tuple(w // 2 for w in window)
    maps = x[:, prefix:].unflatten(1, grid)  # (B, T, H, W, C)
    if stride[0] == 1:  # in two dimensions there is a kernel for channels that lie together
        flat = maps.flatten(0, 1).permute(0, 3, 1, 2)  # (B T, C, H, W)
        flat = F.max_pool2d(flat, window[1:], stride[1:], padding[1:])
        pooled = flat.permute(0, 2, 3, 1).reshape(x.shape[0], -1, x.shape[-1])
    else:
        deep = F.max_pool3d(maps.permute(0, 4, 1, 2, 3), window, stride, padding)
        pooled = deep.permute(0, 2, 3, 4, 1).flatten(1, 3)
    return torch.cat([x[:, :prefix], pooled], dim=1) if prefix else pooled


class PatchEmbed(nn.Module):
    """Overlapping tubelets, each a token."""

    def __init__(self, dim: int, kernel: Stride, stride: Stride, padding: Stride) -> None:
        super().__init__()
        self.proj = nn.Conv3d(3, dim, kernel_size=kernel, stride=stride, padding=padding)

    def forward(self, clip: Tensor) -> Tensor:
        return self.proj(clip).flatten(2).transpose(1, 2)  # (B, 3, T, H, W) -> (B, N, C): time, row, column


class MViT(VideoModel):
    """MViT's encoder and classifier.

    Args:
        frames, size: of the clips it is made for (size: side, or (height, width)); others may be given to forward.
        num_classes: 0 leaves the classifier out, and forward returns features (B, channels of the last block).
        dim, heads: of the first block; dim_mul, head_mul: (block, factor) where they grow.
        pool_kernel: of the convolutions that pool queries, keys and values; sides are odd.
        pool_q_stride: (block, time, rows, columns) of the blocks that pool queries, and with them the grid.
        pool_kv_stride: of keys and values in the first block; divided wherever the queries are pooled.
        unpooled_kv: blocks whose keys and values are not pooled, and have no parameters for it.
        positions: "separable" (a table of places in a frame and one of frames), or "joint".
        position_grid: (t, h, w) that the weights' positions were made for, where it is not that of frames and size.
        class_token: read by the head; without it the mean of the tokens is.
        norm_stem: a norm before the first block.
        eps: of the blocks' norms and the last; pool_eps: of those after pooling.
    """

    normalisation: ClassVar[dict[str, Any]] = {"mean": (0.45, 0.45, 0.45), "std": (0.225, 0.225, 0.225)}

    def __init__(
        self,
        *,
        frames: int = 16,
        size: int | tuple[int, int] = 224,
        num_classes: int = 400,
        dim: int = 96,
        depth: int = 16,
        heads: int = 1,
        mlp_ratio: float = 4.0,
        patch_kernel: Stride = (3, 7, 7),
        patch_stride: Stride = (2, 4, 4),
        patch_padding: Stride = (1, 3, 3),
        dim_mul: Sequence[tuple[int, float]] = ((1, 2.0), (3, 2.0), (14, 2.0)),
        head_mul: Sequence[tuple[int, float]] = ((1, 2.0), (3, 2.0), (14, 2.0)),
        pool_kernel: Stride = (3, 3, 3),
        pool_q_stride: Sequence[tuple[int, int, int, int]] = ((1, 1, 2, 2), (3, 1, 2, 2), (14, 1, 2, 2)),
        pool_kv_stride: Stride = (1, 8, 8),
        unpooled_kv: Sequence[int] = (),
        qkv_bias: bool = True,
        positions: str = "separable",
        position_grid: tuple[int, int, int] | None = None,
        class_token: bool = True,
        norm_stem: bool = False,
        drop_path: float = 0.0,
        dropout: float = 0.0,
        eps: float = 1e-6,
        pool_eps: float = 1e-5,
        plan: Plan | None = None,
    ) -> None:
        super().__init__()
        if positions not in ("separable", "joint"):
            raise TubeletError(f"positions={positions!r}: 'separable' or 'joint'")
        if any(k % 2 == 0 for k in pool_kernel):
            raise TubeletError(f"pool_kernel={tuple(pool_kernel)}: odd sides")
        q_strides = {block: (t, h, w) for block, t, h, w in pool_q_stride}
        if any(s != 1 and s % 2 for stride in (*q_strides.values(), pool_kv_stride) for s in stride):
            raise TubeletError("strides of pooling are 1 or even: elsewhere the residual would be of another size")
        self.frames = frames
        self.size = (size, size) if isinstance(size, int) else (size[0], size[1])
        self.patch_kernel, self.patch_stride, self.patch_padding = patch_kernel, patch_stride, patch_padding
        self.dim, self.depth, self.num_classes = dim, depth, num_classes
        self.grid = self.grid_of(frames, *self.size)
        self.position_grid: Grid = Grid(*position_grid) if position_grid else self.grid

        self.patch_embed = PatchEmbed(dim, patch_kernel, patch_stride, patch_padding)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim)) if class_token else None
        self.positions, prefix = positions, int(class_token)
        if positions == "joint":
            self.pos_embed = nn.Parameter(torch.zeros(1, prefix + self.position_grid.tokens, dim))
        else:
            self.pos_embed_spatial = nn.Parameter(torch.zeros(1, self.position_grid.per_frame, dim))
            self.pos_embed_temporal = nn.Parameter(torch.zeros(1, self.position_grid.t, dim))
            if class_token:
                self.pos_embed_class = nn.Parameter(torch.zeros(1, 1, dim))
        self.norm_stem = nn.LayerNorm(dim, eps=eps) if norm_stem else None

        widths, all_heads = widths_and_heads(dim, heads, depth, dim_mul, head_mul)  # entering each block, and leaving
        rates = drop_path_rates(drop_path, depth)
        self.widths = tuple(widths[:depth])
        self.q_strides = [q_strides.get(i) for i in range(depth)]
        kv_stride = (pool_kv_stride[0], pool_kv_stride[1], pool_kv_stride[2])
        self.blocks = nn.ModuleList()
        for i in range(depth):
            if (q_stride := self.q_strides[i]) is not None:
                t, h, w = (max(kv // q, 1) for kv, q in zip(kv_stride, q_stride, strict=True))
                kv_stride = (t, h, w)
            attention = PoolingAttention(
                widths[i],
                all_heads[i],
                kernel=pool_kernel,
                q_stride=q_stride,
                kv_stride=None if i in unpooled_kv else kv_stride,
                qkv_bias=qkv_bias,
                eps=pool_eps,
            )
            self.blocks.append(Block(attention, widths[i], widths[i + 1], mlp_ratio, eps=eps, drop_path=rates[i]))
        self.norm = nn.LayerNorm(widths[depth], eps=eps)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(widths[depth], num_classes) if num_classes else None
        self.apply(init_linear)
        for table in self.parameters(recurse=False):  # positions and the class token
            nn.init.trunc_normal_(table, std=0.02)
        self.plan = Plan()
        self.set_plan(plan or Plan())

    def forward(self, clip: Tensor, record: list[Kept] | None = None) -> Tensor:
        """Logits (B, num_classes) of clips (B, 3, T, H, W), normalised floats. `record` takes what each step kept."""
        features = self.features(self.forward_features(clip, record))
        return features if self.head is None else self.head(self.dropout(features))

    def forward_features(self, clip: Tensor, record: list[Kept] | None = None) -> Tokens:
        """The tokens that are left after the last block."""
        tokens = self.embed(clip)
        if record is not None:
            tokens = tokens.traced()
        schedule = self.plan.schedule(tokens.source)
        for i, block in enumerate(self.blocks):
            tokens = schedule.apply("before", i, tokens, record)
            tokens = block(tokens, schedule.ask(i, tokens), schedule.inside(i, record))
            tokens = schedule.apply("after", i, tokens, record)
        return tokens

    def features(self, tokens: Tokens) -> Tensor:
        """(B, C) that the classifier reads: the class token, or the mean of the tokens, normalised."""
        return self.norm(tokens.x[:, 0]) if tokens.prefix else self.norm(tokens.x).mean(dim=1)

    def embed(self, clip: Tensor) -> Tokens:
        """Tubelets with positions, and the class token in front where there is one."""
        if clip.dim() != 5 or clip.shape[1] != 3:
            raise TubeletError(f"clip of shape {tuple(clip.shape)}: (B, 3, T, H, W) is expected")
        grid = self.grid_of(*clip.shape[2:])
        x = self.patch_embed(clip)
        first, table = self._positions(grid)
        x = x + table
        if first is not None:
            x = torch.cat([first.to(x.dtype).expand(x.shape[0], -1, -1), x], dim=1)
        if self.norm_stem is not None:
            x = self.norm_stem(x)
        return Tokens(x, Layout.dense(grid), grid, prefix=int(self.cls_token is not None))

    def _positions(self, grid: Grid) -> tuple[Tensor | None, Tensor]:
        """The class token with its position, and the positions (1, N, C) of the others."""
        trained = self.position_grid
        if self.positions == "joint":
            prefix = int(self.cls_token is not None)
            first: Tensor | None = self.pos_embed[:, :prefix]
            table = resize_positions(self.pos_embed[:, prefix:], trained, grid)
        else:
            places = resize_positions(self.pos_embed_spatial, trained._replace(t=1), grid._replace(t=1))
            times = resize_positions(self.pos_embed_temporal, Grid(trained.t, 1, 1), Grid(grid.t, 1, 1))
            first = None if self.cls_token is None else self.pos_embed_class
            table = (places[:, None] + times[:, :, None]).flatten(1, 2)
        return (None if self.cls_token is None or first is None else self.cls_token + first), table

    def grid_of(self, frames: int, height: int, width: int) -> Grid:
        """The grid of tokens of a clip; raises TubeletError if the tubelet does not divide it."""
        t, h, w = self.patch_stride
        if frames % t or height % h or width % w or min(frames, height, width) < 1:
            raise TubeletError(
                f"a clip of {frames} x {height} x {width} (frames, height, width) is not made of whole tubelets: "
                f"frames in multiples of {t}, height in multiples of {h}, width in multiples of {w}"
            )
        sides = zip((frames, height, width), self.patch_kernel, self.patch_stride, self.patch_padding, strict=True)
        return Grid(*((side + 2 * p - k) // s + 1 for side, k, s, p in sides))

    def host(self) -> Host:
        """What a plan must know of this model: what goes on is a dense box, and some blocks pool it."""
        return Host(
            "MViT",
            self.widths,
            self.cls_token is not None,
            check=_refuse_all_but_boxes,
            arriving=self._arriving,
            nominal_strides=tuple(1 if stride is None else stride[1] for stride in self.q_strides),
        )

    def _arriving(self, block: int, place: Place, layout: Layout) -> Layout:
        """A block that pools its queries leaves a smaller grid, for its MLP and what follows."""
        stride = self.q_strides[block]
        if place != "inside" or stride is None or layout.grid is None:
            return layout
        sides = Grid(*(-(-side // s) for side, s in zip(layout.grid, stride, strict=True)))
        return layout if sides == layout.grid else Layout.dense(sides)


def _refuse_all_but_boxes(block: int, layout: Layout) -> None:
    if layout.grid is None:
        raise SelectionError(
            "MViT pools over a dense grid of tokens: whole frames may be dropped (T), or all but a region of each (S); "
            f"block {block} would get {layout}"
        )


def widths_and_heads(
    dim: int, heads: int, depth: int, dim_mul: Sequence[tuple[int, float]], head_mul: Sequence[tuple[int, float]]
) -> tuple[list[int], list[int]]:
    """Channels and heads entering each block, and leaving the last."""
    grow_dim, grow_heads = dict(dim_mul), dict(head_mul)
    all_heads = [round_width(heads, grow_heads.get(0, 1.0))]
    widths = [round_width(dim, grow_dim.get(0, 1.0), all_heads[0])]
    for i in range(1, depth + 1):
        all_heads.append(round_width(all_heads[-1], grow_heads.get(i, 1.0)))
        widths.append(round_width(widths[-1], grow_dim.get(i, 1.0), all_heads[-1]))
    return widths, all_heads


def round_width(width: int, factor: float, divisor: int = 1) -> int:
    """A width times a factor as a multiple of the divisor, at least nine tenths of what was asked for."""
    wanted = width * factor
    rounded = max(divisor, int(wanted + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * wanted else rounded + divisor


SIZES: dict[str, dict[str, int]] = {"mvit_base_16x4": {}}

__all__ = ["SIZES", "Block", "MViT", "PoolingAttention"]
