"""Video Swin Transformer (Liu et al., CVPR 2022): attention within 3D windows that shift from block to block.

From top to bottom: patches of 2 x 4 x 4 pixels, norm -> stages of blocks; between them 2 x 2 tokens of a frame become
one of twice the width -> norm -> mean of the tokens -> classes. Parameter names are those of the released checkpoints,
without their `backbone.` and with `head` for the classifier.

Differences from the released code: attention is fused, one call for windows that look alike (windows.py); of padding
nothing is computed, with the same numbers; on a CPU blocks work through a few windows and a few tokens at a time.
`window="fitted"` is another computation, see VideoSwin.

Selection. T and S budgets stand before a stage and leave a smaller box, on which all goes on as on a smaller clip.
Any other set of tokens (keep=, r=) is this project's own design, published by nobody. It acts before or after a block,
and the windows stay as they are. Tokens that were dropped keep their last features. They are not projected (no query,
key, value, MLP), they do not attend, and nobody attends to them: their keys are masked, since for a stale key each
block would have to project them after all. Where the grid is needed again, when tokens are merged between stages, all
of them stand again, the dropped ones as they last were: such a selection lasts until the end of its stage. After the
last stage the mean is that of the tokens left. What it saves are the linear layers (of VideoSwin-B two thirds of a
block in the first stage, nine tenths in the third); the products of queries and keys are those of whole windows, and
are counted as such.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tubelet.errors import SelectionError, TubeletError
from tubelet.models.base import VideoModel
from tubelet.models.config import Preprocessing
from tubelet.models.layers import MLP, DropPath, attend_and_count, drop_path_rates, init_linear
from tubelet.models.windows import SEAM, Kind, Windows, fitted, windows_of
from tubelet.selection.core import NOTHING, Ask, Grid, Layout, Signals, Tokens, put, take
from tubelet.selection.plan import Host, Kept, Place, Plan

# Of a clip, on a CPU: what is between linear layers stays in the cache, and in memory that is there already.
WINDOWS_AT_ONCE, TOKENS_AT_ONCE = 8, 3136
STRIDE = 2  # frames of the video from one frame of a clip to the next
LEFT_OUT = -1e4  # on the logits of keys that were dropped: nothing is left of them in any number type


class WindowAttention(nn.Module):
    """Multi-head attention within windows, with a learned bias for each offset between two tokens."""

    def __init__(self, dim: int, heads: int, window: tuple[int, int, int], *, qkv_bias: bool = True) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        offsets = (2 * window[0] - 1) * (2 * window[1] - 1) * (2 * window[2] - 1)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(offsets, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self, x: Tensor, windows: Windows, ask: Ask = NOTHING, cell: Tensor | None = None
    ) -> tuple[Tensor, Signals]:
        """x (B, N, C) -> the same shape, and the signals asked for. `cell` (B, N): places in the grid, if not all."""
        table = self.bias_table(windows.table[0])
        weight, qkv, present = ask.query_weight, None, None
        if cell is not None:  # the tokens left, at their places in a grid of nothing: (B, grid tokens, 3 C)
            rows, left = self.qkv(x), x.new_ones(cell.shape)
            qkv = put(rows, cell, rows.new_zeros(x.shape[0], windows.place.shape[0], rows.shape[-1]))
            weight = spread(left if weight is None else weight, cell, windows.place.shape[0])
            present = spread(left, cell, windows.place.shape[0])
        outs: list[Tensor] = []
        keys: list[Tensor] = []
        received: list[Tensor] = []
        sharp: list[Tensor] = []
        for kind in windows.kinds:
            bias = self.bias(kind, table)  # (1, heads, n, n or n + 1)
            for tokens in kind.tokens.split(WINDOWS_AT_ONCE if x.is_cpu else kind.tokens.shape[0]):  # (W, n)
                index, n = tokens.flatten(), tokens.shape[1]
                part = self.qkv(x.index_select(1, index)) if qkv is None else qkv.index_select(1, index)
                q, k, v = part.view(-1, n, 3, self.heads, x.shape[-1] // self.heads).permute(2, 0, 3, 1, 4)
                logits = bias.to(q.dtype)
                if present is not None:
                    left_out = (LEFT_OUT * (1 - present.index_select(1, index))).view(-1, 1, 1, n)
                    logits = logits + F.pad(left_out, (0, bias.shape[-1] - n)).to(q.dtype)
                if ask.keys:
                    keys.append(k.mean(dim=1).reshape(x.shape[0], -1, k.shape[-1]))
                if kind.padding is not None:
                    k, v = self.with_padding(k, 1), self.with_padding(v, 2)
                if ask.attention or ask.sharpness:
                    counted = None if weight is None else weight.index_select(1, index).view(-1, n)
                    out, attention, sharpness = attend_and_count(q, k, v, logits, counted, sharpness=ask.sharpness)
                    received.append(attention[:, :n].reshape(x.shape[0], -1, 1))
                    if ask.sharpness:
                        sharp.append(sharpness.reshape(x.shape[0], -1, 1))
                else:
                    out = F.scaled_dot_product_attention(q, k, v, attn_mask=logits)
                outs.append(out.transpose(1, 2).reshape(x.shape[0], -1, x.shape[-1]))  # (B, W n, C)

        def in_order(parts: list[Tensor]) -> Tensor:
            whole = torch.cat(parts, dim=1).index_select(1, windows.place)
            return whole if cell is None else take(whole, cell)

        signals = Signals(
            keys=in_order(keys) if keys else None,
            attention=in_order(received)[..., 0] if ask.attention else None,
            sharpness=in_order(sharp)[..., 0] if sharp else None,
        )
        return self.proj(in_order(outs)), signals

    def with_padding(self, x: Tensor, part: int) -> Tensor:
        """Keys (part 1) or values (2) (B, heads, n, d) and that of padding, which is the bias of the layer."""
        shape = (x.shape[0], self.heads, 1, x.shape[-1])
        if self.qkv.bias is None:
            return torch.cat([x, x.new_zeros(shape)], dim=2)
        bias = self.qkv.bias.chunk(3)[part].view(1, self.heads, 1, -1).to(x.dtype)
        return torch.cat([x, bias.expand(shape)], dim=2)

    def bias_table(self, frames: int) -> Tensor:
        """(heads, 2 offsets): the table for windows of `frames`, and once more for pairs across a seam."""
        table = self.relative_position_bias_table.t()
        if frames != self.window[0]:  # both ends stay ends, and the middle the middle
            lines = table.reshape(1, -1, 2 * self.window[0] - 1, table.shape[1] // (2 * self.window[0] - 1))
            size = (2 * frames - 1, lines.shape[-1])
            table = F.interpolate(lines, size=size, mode="bilinear", align_corners=True).view(self.heads, -1)
        return torch.cat([table, table + SEAM], dim=1)

    def bias(self, kind: Kind, table: Tensor) -> Tensor:
        """(1, heads, n, n), and of padding one more key: (1, heads, n, n + 1)."""
        n = kind.tokens.shape[1]
        bias = table.index_select(1, kind.bias).view(1, self.heads, n, n)
        if kind.padding is None:
            return bias
        padding = table.index_select(1, kind.padding).view(1, self.heads, n, -1)
        return torch.cat([bias, padding.logsumexp(dim=-1, keepdim=True)], dim=-1)


class Block(nn.Module):
    """Pre-norm block. A step of the plan may act between the attention's residual and the MLP."""

    def __init__(
        self,
        dim: int,
        heads: int,
        window: tuple[int, int, int],
        *,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        eps: float = 1e-5,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = WindowAttention(dim, heads, window, qkv_bias=qkv_bias)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = MLP(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(
        self,
        tokens: Tokens,
        windows: Windows,
        ask: Ask = NOTHING,
        inside: Callable[[Tokens], Tokens] | None = None,
    ) -> Tokens:
        y, signals = self.attn(self.norm1(tokens.x), windows, ask, tokens.cell)
        tokens = tokens.after_attention(tokens.x + self.drop_path(y), signals)
        if inside is not None:
            tokens = inside(tokens)
        at_once = TOKENS_AT_ONCE if tokens.x.is_cpu else tokens.x.shape[1]
        y = [self.mlp(self.norm2(part)) for part in tokens.x.split(at_once, dim=1)]
        return tokens.with_x(tokens.x + self.drop_path(torch.cat(y, dim=1)))


class PatchMerging(nn.Module):
    """2 x 2 tokens of a frame become one of twice the width; an odd row or column gets zeros beside it."""

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim, eps=eps)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, tokens: Tokens) -> Tokens:
        tokens = tokens.filled()
        grid, signals = tokens.layout.grid, tokens.signals
        assert grid is not None
        if signals is not None:  # what the four received is what the new one would have
            keys = None if signals.keys is None else squares(signals.keys, grid).sum(dim=2)
            received = (
                None if signals.attention is None else squares(signals.attention[..., None], grid).sum(dim=(2, 3))
            )
            signals = Signals(keys, received)
        x = self.reduction(self.norm(squares(tokens.x, grid).flatten(2)))
        return replace(tokens.pooled(x, merged(grid), (1, 2, 2)), signals=signals)


def merged(grid: Grid) -> Grid:
    return Grid(grid.t, -(-grid.h // 2), -(-grid.w // 2))


def squares(x: Tensor, grid: Grid) -> Tensor:
    """Tokens (B, t h w, C) -> (B, t h/2 w/2, 4, C): squares of four, the first column from above, then the second."""
    x = F.pad(x.unflatten(1, grid), (0, 0, 0, grid.w % 2, 0, grid.h % 2))
    x = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))  # (B, t, h / 2, 2, w / 2, 2, C)
    return x.permute(0, 1, 2, 4, 5, 3, 6).reshape(x.shape[0], merged(grid).tokens, 4, x.shape[-1])


def spread(values: Tensor, cell: Tensor, tokens: int) -> Tensor:
    """Values (B, N) at their cells of a grid of `tokens`, 0 elsewhere."""
    return values.new_zeros(values.shape[0], tokens).scatter(1, cell, values)


class PatchEmbed(nn.Module):
    """Each patch of pixels becomes a token; the clip is padded with zeros to whole patches."""

    def __init__(self, dim: int, patch: tuple[int, int, int], *, norm: bool = True, eps: float = 1e-5) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv3d(3, dim, kernel_size=patch, stride=patch)
        self.norm = nn.LayerNorm(dim, eps=eps) if norm else None

    def pad(self, clip: Tensor) -> Tensor:
        t, h, w = (-size % p for size, p in zip(clip.shape[2:], self.patch, strict=True))
        return F.pad(clip, (0, w, 0, h, 0, t)) if t or h or w else clip

    def forward(self, clip: Tensor) -> Tensor:
        x = self.proj(self.pad(clip)).flatten(2).transpose(1, 2)  # (B, N, C)
        return x.contiguous() if self.norm is None else self.norm(x)


class Stage(nn.Module):
    """Blocks on one grid, every other one with shifted windows."""

    def __init__(self, blocks: list[Block], downsample: PatchMerging | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample  # to the grid of the next stage


class VideoSwin(VideoModel):
    """Video Swin's encoder and classifier.

    Args:
        frames, size: of the clips it is made for (size: side, or (height, width)); others may be given to forward.
        num_classes: 0 leaves the classifier out, and forward returns features (B, width of the last stage).
        dim: width of the first stage; each later one is twice as wide.
        depths, heads: blocks and heads of each stage.
        window_size: tokens of a window in (time, rows, columns).
        window: "released": where the frames are no multiple of the window, its padding takes part, as the weights were
            trained; 9 to 15 tokens in time then make two windows of 8, the second partly empty. "fitted": a temporal
            window that divides the frames at hand, near the released one, its biases resized: no slot is empty. Of
            padding nothing is computed either way, so a fitted window costs a little less only where it is the shorter
            one (10, 12, 14 tokens in time: 5, 6, 7), and more where it is longer (9, 11, 13). It is another
            computation: weights need fine-tuning with it.
    """

    def __init__(
        self,
        *,
        frames: int = 32,
        size: int | tuple[int, int] = 224,
        num_classes: int = 400,
        dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        heads: Sequence[int] = (3, 6, 12, 24),
        window_size: tuple[int, int, int] = (8, 7, 7),
        window: str = "released",
        mlp_ratio: float = 4.0,
        patch_size: int = 4,
        tubelet_size: int = 2,
        patch_norm: bool = True,
        qkv_bias: bool = True,
        drop_path: float = 0.0,
        dropout: float = 0.0,
        eps: float = 1e-5,
        plan: Plan | None = None,
    ) -> None:
        super().__init__()
        if window not in ("released", "fitted"):
            raise TubeletError(f"window={window!r}: 'released' or 'fitted'")
        if len(depths) != len(heads):
            raise TubeletError(f"depths={tuple(depths)} and heads={tuple(heads)}: one of each for every stage")
        self.depths, self.widths = tuple(depths), [dim * 2**stage for stage in range(len(depths))]
        if bad := [(w, h) for w, h in zip(self.widths, heads, strict=True) if w % h]:
            raise TubeletError(f"a stage of width {bad[0][0]} is not a multiple of its heads={bad[0][1]}")
        self.frames = frames
        self.size = (size, size) if isinstance(size, int) else (size[0], size[1])
        self.patch = (tubelet_size, patch_size, patch_size)
        self.window, self.window_size = window, (window_size[0], window_size[1], window_size[2])
        self.num_classes = num_classes
        self.grid = self.grid_of(frames, *self.size)

        self.patch_embed = PatchEmbed(dim, self.patch, norm=patch_norm, eps=eps)
        rates = iter(drop_path_rates(drop_path, sum(depths)))
        self.layers = nn.ModuleList()
        for stage, (width, depth) in enumerate(zip(self.widths, depths, strict=True)):
            blocks = [
                Block(
                    width, heads[stage], self.window_size, mlp_ratio=mlp_ratio, qkv_bias=qkv_bias, eps=eps,
                    drop_path=next(rates),
                )
                for _ in range(depth)
            ]  # fmt: skip
            self.layers.append(Stage(blocks, PatchMerging(width, eps) if stage < len(depths) - 1 else None))
        self.norm = nn.LayerNorm(self.widths[-1], eps=eps)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(self.widths[-1], num_classes) if num_classes else None
        self.apply(init_linear)
        self.plan = Plan()
        self.set_plan(plan or Plan())

    def forward(self, clip: Tensor, record: list[Kept] | None = None) -> Tensor:
        """Logits (B, num_classes) of clips (B, 3, T, H, W), normalised floats. `record` takes what each step kept."""
        features = self.features(self.forward_features(clip, record))
        return features if self.head is None else self.head(self.dropout(features))

    def features(self, tokens: Tokens) -> Tensor:
        """(B, C): what the classifier reads."""
        return self.norm(tokens.x).mean(dim=1)

    def forward_features(self, clip: Tensor, record: list[Kept] | None = None) -> Tokens:
        """The tokens that are left after the last block."""
        tokens = self.embed(clip) if record is None else self.embed(clip).traced()
        schedule = self.plan.schedule(tokens.source)
        tokens = schedule.begin(tokens, self.patch_embed.pad(clip))
        i = 0
        for stage in self.layers:
            assert isinstance(stage, Stage)
            for number, block in enumerate(stage.blocks):
                tokens = schedule.apply("before", i, tokens, record)
                windows = self.windows(tokens, shifted=number % 2 == 1)
                tokens = block(tokens, windows, schedule.ask(i, tokens), schedule.inside(i, record))
                tokens = schedule.apply("after", i, tokens, record)
                i += 1
            if stage.downsample is not None:
                tokens = stage.downsample(tokens)
        return tokens

    def preprocessing(self) -> Preprocessing:
        """32 frames, every second of the video, as published."""
        return replace(super().preprocessing(), stride=STRIDE)

    def embed(self, clip: Tensor) -> Tokens:
        if clip.dim() != 5 or clip.shape[1] != 3:
            raise TubeletError(f"clip of shape {tuple(clip.shape)}: (B, 3, T, H, W) is expected")
        grid = self.grid_of(*clip.shape[2:])
        return Tokens(self.patch_embed(clip), Layout.dense(grid), grid, fills=True)

    def windows(self, tokens: Tokens, shifted: bool) -> Windows:
        """Of the grid that the tokens form, or formed before some of them were dropped."""
        grid = (tokens.whole or tokens).layout.grid
        assert grid is not None
        t, h, w = self.window_size
        if self.window == "fitted":
            t = fitted(grid.t, t)
        return windows_of(grid, (t, h, w), shifted, tokens.x.device)

    def grid_of(self, frames: int, height: int, width: int) -> Grid:
        """The grid of tokens of a clip, which is padded to whole patches as published."""
        if min(frames, height, width) < 1:
            raise TubeletError(f"a clip of {frames} x {height} x {width} (frames, height, width) is empty")
        return Grid(*(-(-n // p) for n, p in zip((frames, height, width), self.patch, strict=True)))

    def host(self) -> Host:
        """What a plan must know of this model: boxes, or any set of tokens until the end of a stage."""
        starts = tuple(sum(self.depths[:stage]) for stage in range(len(self.depths)))
        widths = [w for w, depth in zip(self.widths, self.depths, strict=True) for _ in range(depth)]

        def arriving(block: int, place: Place, layout: Layout) -> Layout:
            if place != "before" or block not in starts[1:]:
                return layout
            assert layout.grid is not None
            return Layout.dense(merged(layout.grid))

        return Host(
            "VideoSwin",
            tuple(widths),
            check=_refuse_merged,
            arriving=arriving,
            nominal_strides=tuple(2 if block in starts[1:] else 1 for block in range(len(widths))),
            stages=starts,
            refills=starts[1:],
            pixels=True,
        )


def _refuse_merged(block: int, layout: Layout) -> None:
    if layout.merged:
        raise SelectionError(
            "VideoSwin's windows and position biases need each token at one place of the grid, and a merged token "
            "stands for several; sta, random, uniform and attention leave tokens where they are"
        )


SIZES = {
    "videoswin_tiny": {"dim": 96, "depths": (2, 2, 6, 2), "heads": (3, 6, 12, 24)},
    "videoswin_small": {"dim": 96, "depths": (2, 2, 18, 2), "heads": (3, 6, 12, 24)},
    "videoswin_base": {"dim": 128, "depths": (2, 2, 18, 2), "heads": (4, 8, 16, 32)},
    "videoswin_base_ssv2": {
        "dim": 128, "depths": (2, 2, 18, 2), "heads": (4, 8, 16, 32), "window_size": (16, 7, 7), "num_classes": 174,
    },
}  # fmt: skip

__all__ = ["Block", "PatchMerging", "SIZES", "VideoSwin", "WindowAttention"]
