"""X-ViT (Bulat et al., NeurIPS 2021): an image ViT on each frame, whose keys and values come in part from the
neighbouring frames, and a small transformer over the class tokens of the frames.

From top to bottom: patches + positions + time of the frame -> blocks that mix (mixing.py) -> the class token of each
frame -> temporal transformer (or the mean) -> classes. Parameter names are those of image ViTs and the released code.

Differences from the released code: attention is fused, and channels are moved within the projection's own memory;
frames exchange within a clip and a segment of it, whatever the batch; any number of frames; every block may mix,
however many there are; positions in time are resized unless temporal_rule="modulo"; mixing="per_head" is the paper's
equation 9, which the released code does not follow; tokens may be dropped, equally many in each frame, and frames.
What the paper has and that code has not is not here either: the summary token, wider windows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tubelet.errors import SelectionError, TubeletError
from tubelet.models.base import VideoModel
from tubelet.models.layers import MLP, DropPath, drop_path_rates, init_linear, resize_positions, sinusoid_table
from tubelet.models.mixing import Frames, MixingAttention
from tubelet.models.vit import Block as PlainBlock
from tubelet.selection.core import NOTHING, Ask, Grid, Layout, Tokens
from tubelet.selection.plan import Host, Kept, Plan


class Block(nn.Module):
    """Pre-norm transformer block over frames. A step of the plan may act between attention and MLP."""

    def __init__(self, attention: MixingAttention, mlp_ratio: float, *, eps: float, drop_path: float) -> None:
        super().__init__()
        dim = attention.dim
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = attention
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = MLP(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(
        self,
        tokens: Tokens,
        frames: Frames,
        ask: Ask = NOTHING,
        inside: Callable[[Tokens], Tokens] | None = None,
    ) -> Tokens:
        y, signals = self.attn(self.norm1(tokens.frames), frames, ask)  # (B, T, 1 + n, C)
        tokens = tokens.after_attention(tokens.x + self.drop_path(y.flatten(1, 2)), signals)
        if inside is not None:
            tokens = inside(tokens)
        return tokens.with_x(tokens.x + self.drop_path(self.mlp(self.norm2(tokens.x))))


class PatchEmbed(nn.Module):
    """Each patch of `patch_size` x `patch_size` pixels of a picture becomes a token."""

    def __init__(self, dim: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.proj(pictures).flatten(2).transpose(1, 2)  # (B, 3, H, W) -> (B, n, C): row, column


class TemporalTransformer(nn.Module):
    """The released temporal head: a class token over the frames' features, without positions; then a hidden layer."""

    def __init__(self, dim: int, depth: int, heads: int, mlp_ratio: float, hidden: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.blocks = nn.ModuleList(PlainBlock(dim, heads, mlp_ratio, qkv_bias=False, eps=eps) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=eps)
        self.fc = nn.Linear(dim, hidden)

    def forward(self, features: Tensor) -> Tensor:
        """(B, T, C) -> (B, hidden)"""
        x = torch.cat([self.cls_token.expand(features.shape[0], -1, -1).to(features.dtype), features], dim=1)
        grid = Grid(features.shape[1], 1, 1)
        tokens = Tokens(x, Layout.dense(grid), grid, prefix=1)
        for block in self.blocks:
            tokens = block(tokens)
        return F.gelu(self.fc(self.norm(tokens.x[:, 0])))


class XViT(VideoModel):
    """X-ViT and its classifier.

    Args:
        frames, size: of the clips it is made for (size: side, or (height, width)); others may be given to forward.
        num_classes: 0 leaves the classifier out, and forward returns the features before it.
        mixing: "over_heads" (released), "per_head" (eq. 9 of the paper) or "none".
        mixing_div: 1 / div of the channels come from the next frame, and as many from the one before.
        mixing_layers: blocks that mix; None: all.
        segment_length: frames of a segment; segments never exchange. None: the whole clip.
        position_grid: (t, h, w) that the weights' positions in time and in the picture were made for.
        position_init: how positions begin: "image", as an image model does: small in the picture, zeros in time; or
            "sinusoid", for a small model that begins from nothing and learns no motion from small ones.
        temporal_rule: positions in time for another number of frames: "resize" them, or that of frame t is the one of t
            "modulo" their number (released).
        frame_shift: neighbours, once frames were dropped: the next one "kept"; or the "true" one, zeros if it went.
        pool: "temporal" transformer over the frames, of temporal_depth blocks with temporal_heads (None: heads) and
            temporal_mlp_ratio, then a layer of head_dim (None: dim) before the classifier; or "average" of the frames.
    """

    normalisation: ClassVar[dict[str, Any]] = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}

    def __init__(
        self,
        *,
        frames: int = 8,
        size: int | tuple[int, int] = 224,
        num_classes: int = 400,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        mlp_ratio: float = 4.0,
        patch_size: int = 16,
        qkv_bias: bool = True,
        mixing: str = "over_heads",
        mixing_div: int = 8,
        mixing_layers: Sequence[int] | None = None,
        segment_length: int | None = None,
        position_grid: tuple[int, int, int] | None = None,
        position_init: str = "image",
        temporal_rule: str = "resize",
        frame_shift: str = "kept",
        pool: str = "temporal",
        temporal_depth: int = 1,
        temporal_heads: int | None = None,
        temporal_mlp_ratio: float = 4.0,
        head_dim: int | None = None,
        drop_path: float = 0.0,
        dropout: float = 0.0,
        eps: float = 1e-6,
        plan: Plan | None = None,
    ) -> None:
        super().__init__()
        for name, given, allowed in (
            ("mixing", mixing, ("over_heads", "per_head", "none")),
            ("position_init", position_init, ("image", "sinusoid")),
            ("temporal_rule", temporal_rule, ("resize", "modulo")),
            ("frame_shift", frame_shift, ("kept", "true")),
            ("pool", pool, ("temporal", "average")),
        ):
            if given not in allowed:
                raise TubeletError(f"{name}={given!r}: {' or '.join(map(repr, allowed))}")
        for name, count in (("heads", heads), ("temporal_heads", temporal_heads or heads)):
            if dim % count:
                raise TubeletError(f"dim={dim} is not a multiple of {name}={count}")
        if mixing_div < 2:
            raise TubeletError(f"mixing_div={mixing_div}: at least 2, since 1 / div comes from each side")
        if segment_length is not None and segment_length < 1:
            raise TubeletError(f"segment_length={segment_length}: at least 1 frame, or None for the whole clip")
        if strange := [layer for layer in mixing_layers or () if not 0 <= layer < depth]:
            raise TubeletError(f"mixing_layers has {strange[0]}: there are blocks 0 to {depth - 1}")
        self.frames = frames
        self.size = (size, size) if isinstance(size, int) else (size[0], size[1])
        self.patch_size, self.dim, self.depth, self.num_classes = patch_size, dim, depth, num_classes
        self.segment_length, self.temporal_rule, self.frame_shift = segment_length, temporal_rule, frame_shift
        self.grid = self.grid_of(frames, *self.size)
        self.position_grid: Grid = Grid(*position_grid) if position_grid else self.grid

        self.patch_embed = PatchEmbed(dim, patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.position_grid.per_frame, dim))
        self.temp_embed = nn.Parameter(torch.zeros(1, self.position_grid.t, 1, dim))
        for table in (self.cls_token, self.pos_embed):
            nn.init.trunc_normal_(table, std=0.02)
        if position_init == "sinusoid":
            self.pos_embed.data.copy_(sinusoid_table(self.pos_embed.shape[1], dim))
            self.temp_embed.data.copy_(sinusoid_table(self.position_grid.t, dim)[:, :, None])
        rates = drop_path_rates(drop_path, depth)
        per_head = mixing == "per_head"
        width = 0 if mixing == "none" else (dim // heads if per_head else dim) // mixing_div
        if mixing != "none" and width < 1:
            channels = f"{dim // heads} channels of a head" if per_head else f"{dim} channels"
            raise TubeletError(
                f"mixing_div={mixing_div} leaves none of the {channels} to mix; mixing='none' mixes none"
            )
        layers = range(depth) if mixing_layers is None else mixing_layers
        self.blocks = nn.ModuleList(
            Block(
                MixingAttention(dim, heads, width=width * (i in layers), per_head=per_head, qkv_bias=qkv_bias),
                mlp_ratio, eps=eps, drop_path=rates[i],
            )
            for i in range(depth)
        )  # fmt: skip
        self.norm = nn.LayerNorm(dim, eps=eps)
        hidden = head_dim or dim
        self.temporal = None
        if pool == "temporal":
            self.temporal = TemporalTransformer(
                dim, temporal_depth, temporal_heads or heads, temporal_mlp_ratio, hidden
            )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden if pool == "temporal" else dim, num_classes) if num_classes else None
        self.apply(init_linear)
        self.plan = Plan()
        self.set_plan(plan or Plan())

    def forward(self, clip: Tensor, record: list[Kept] | None = None) -> Tensor:
        """Logits (B, num_classes) of clips (B, 3, T, H, W), normalised floats. `record` takes what each step kept."""
        features = self.frame_features(self.forward_features(clip, record))
        features = features.mean(dim=1) if self.temporal is None else self.temporal(features)
        return features if self.head is None else self.head(self.dropout(features))

    def frame_features(self, tokens: Tokens) -> Tensor:
        """(B, T, C): the normalised class token of each frame that is left."""
        return self.norm(tokens.frames[:, :, 0])

    def forward_features(self, clip: Tensor, record: list[Kept] | None = None) -> Tokens:
        """The tokens that are left after the last block, those of each frame behind its class token."""
        tokens = self.embed(clip)
        schedule = self.plan.schedule(tokens.source)
        tokens = schedule.begin(tokens, clip)
        position, frames = tokens.position, self.frames_of(tokens)
        for i, block in enumerate(self.blocks):
            tokens = schedule.apply("before", i, tokens, record)
            if tokens.position is not position:  # only a selection changes how frames stand to each other
                position, frames = tokens.position, self.frames_of(tokens)
            tokens = block(tokens, frames, schedule.ask(i, tokens), schedule.inside(i, record))
            tokens = schedule.apply("after", i, tokens, record)
        return tokens

    def embed(self, clip: Tensor) -> Tokens:
        """The patches of each frame behind a class token, with their positions in the picture and in time."""
        if clip.dim() != 5 or clip.shape[1] != 3:
            raise TubeletError(f"clip of shape {tuple(clip.shape)}: (B, 3, T, H, W) is expected")
        grid = self.grid_of(*clip.shape[2:])
        pictures = clip.transpose(1, 2).flatten(0, 1)  # (B T, 3, H, W)
        patches = self.patch_embed(pictures)  # (B T, n, C)
        first = self.cls_token.to(patches.dtype).expand(patches.shape[0], -1, -1)
        x = torch.cat([first, patches], dim=1).unflatten(0, (clip.shape[0], grid.t))  # (B, T, 1 + n, C)
        x = x + (self.positions(grid) + self.times(grid.t))  # float32 under autocast
        return Tokens(x.flatten(1, 2), Layout.dense(grid), grid, prefix=grid.t, framed=True)

    def positions(self, grid: Grid) -> Tensor:
        """(1, 1 + h w, C) in the picture, the class token's first."""
        table, (_, h, w) = self.pos_embed, self.position_grid
        return torch.cat([table[:, :1], resize_positions(table[:, 1:], Grid(1, h, w), grid._replace(t=1))], dim=1)

    def times(self, frames: int) -> Tensor:
        """(T, 1, C) of each frame, the same for all its tokens."""
        table, trained = self.temp_embed[0], self.position_grid.t
        if self.temporal_rule == "modulo":
            return table[torch.arange(frames, device=table.device) % trained]
        return resize_positions(table[:, 0][None], Grid(trained, 1, 1), Grid(frames, 1, 1))[0, :, None]

    def frames_of(self, tokens: Tokens) -> Frames:
        """Which frames exchange, and where their tokens lie, by what is known without them or by their positions."""
        source, left, position = tokens.source, tokens.layout, None
        count = left.segments
        if tokens.position is None:
            frame = torch.arange(count, device=tokens.x.device)[None]
        else:
            position = tokens.position.unflatten(1, (count, -1))  # (B, T, n)
            frame = position[:, :, 0] // source.per_frame  # (B, T) in the clip
        exchange = None
        if self.segment_length is not None and self.segment_length < source.t:
            segment = frame // self.segment_length
            exchange = segment[:, 1:] == segment[:, :-1]
        if self.frame_shift == "true" and count < source.t:
            adjoining = frame[:, 1:] == frame[:, :-1] + 1
            exchange = adjoining if exchange is None else exchange & adjoining
        if position is None or (left.grid is not None and left.grid.per_frame == source.per_frame):
            return Frames(exchange)
        return Frames(exchange, position % source.per_frame, source.per_frame)

    def grid_of(self, frames: int, height: int, width: int) -> Grid:
        """The grid of tokens of a clip; raises TubeletError if the patches do not divide it."""
        p = self.patch_size
        if height % p or width % p or min(frames, height, width) < 1:
            raise TubeletError(
                f"a clip of {frames} x {height} x {width} (frames, height, width) is not made of whole patches: "
                f"height and width in multiples of {p}"
            )
        return Grid(frames, height // p, width // p)

    def host(self) -> Host:
        """What a plan must know of this model: equally many tokens of each frame may go on, and whole frames."""
        return Host("X-ViT", (self.dim,) * self.depth, class_token=True, step=_equal_frames, pixels=True)

    def tokens_entering(self, grid: Grid | None = None) -> list[int]:
        schedule = self.plan.schedule(grid or self.grid)
        return [patches + frames for patches, frames in zip(schedule.entering, schedule.parts, strict=True)]


def _equal_frames(block: int, entered: Layout, left: Layout) -> None:
    """Every layout so far had a part a frame: so has one with as many parts, or with whole frames or boxes left."""
    if left.grid is None and left.segments != entered.segments:
        groups = "/".join([str(entered.segments)] * 3)
        raise SelectionError(
            f"X-ViT attends within each frame and needs equally many tokens in each: of {entered.segments} frames "
            f"block {block} would leave {left}; T and S leave as many in each, and so do sta, random, uniform and "
            f"attention by r= with groups={groups}"
        )


SIZES = {"xvit_base": {"dim": 768, "depth": 12, "heads": 12}}

__all__ = ["Block", "PatchEmbed", "SIZES", "TemporalTransformer", "XViT"]
