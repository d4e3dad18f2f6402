"""The plain video ViT of VideoMAE (Tong et al., NeurIPS 2022): joint space-time attention over tubelets.

From top to bottom: tubelet embedding + positions -> blocks -> mean of the tokens -> norm -> classes.
Parameter names are those of the released VideoMAE fine-tuning checkpoints.

Differences from the released code: attention is fused; positions are resized to the clip at hand instead of refusing
it; an optional class token; tokens may be dropped before, inside or after any block by the model's plan.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tubelet.errors import SelectionError, TubeletError
from tubelet.models.base import VideoModel
from tubelet.models.layers import (
    MLP,
    Attention,
    DropPath,
    drop_path_rates,
    init_linear,
    resize_positions,
    sinusoid_table,
)
from tubelet.selection.core import NOTHING, Ask, Grid, Layout, Tokens
from tubelet.selection.plan import Host, Kept, Plan, takes_anything


class Block(nn.Module):
    """Pre-norm transformer block. A step of the plan may act between the attention's residual and the MLP."""

    def __init__(
        self,
        dim: int,
        heads: int,
        mlp_ratio: float = 4.0,
        *,
        qkv_bias: bool = True,
        eps: float = 1e-6,
        drop_path: float = 0.0,
        layer_scale: float | None = None,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, heads, qkv_bias=qkv_bias)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = MLP(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path)
        self.gamma_1 = nn.Parameter(torch.full((dim,), layer_scale)) if layer_scale else None
        self.gamma_2 = nn.Parameter(torch.full((dim,), layer_scale)) if layer_scale else None

    def forward(self, tokens: Tokens, ask: Ask = NOTHING, inside: Callable[[Tokens], Tokens] | None = None) -> Tokens:
        x = tokens.x  # (B, P + N, C)
        y, signals = self.attn(self.norm1(x), ask, tokens.key_bias(), tokens.prefix)
        x = x + self.drop_path(y if self.gamma_1 is None else self.gamma_1 * y)
        tokens = tokens.after_attention(x, signals)
        if inside is not None:
            tokens = inside(tokens)  # (B, P + K, C) from here
        y = self.mlp(self.norm2(tokens.x))
        return tokens.with_x(tokens.x + self.drop_path(y if self.gamma_2 is None else self.gamma_2 * y))


class TubeletEmbed(nn.Module):
    """Each tubelet of `tubelet_size` frames x `patch_size` x `patch_size` pixels becomes a token."""

    def __init__(self, dim: int, tubelet_size: int, patch_size: int) -> None:
        super().__init__()
        kernel = (tubelet_size, patch_size, patch_size)
        self.proj = nn.Conv3d(3, dim, kernel_size=kernel, stride=kernel)

    def forward(self, clip: Tensor) -> Tensor:
        tokens = self.proj(clip).flatten(2).transpose(1, 2)  # (B, 3, T, H, W) -> (B, N, C): time, row, column
        return tokens.contiguous()  # one copy here, or every sum and norm of the residual stream is strided


class ViT(VideoModel):
    """VideoMAE's encoder and classifier.

    Args:
        frames, size: of the clips it is made for (size: side, or (height, width)); others may be given to forward.
        num_classes: 0 leaves the classifier out, and forward returns features (B, dim).
        positions: "sinusoid" (fixed, not in the state dict) or "learned".
        position_grid: (t, h, w) that the weights' positions were made for, where it is not that of frames and size.
        pool: "mean" of the tokens left, or "first" token. The first token means something with class_token only.
        layer_scale: initial value of the residual scales; None leaves them out.
        fc_norm_eps: of the norm before the classifier where it is not `eps` (transformers has 1e-5 there, always).
    """

    def __init__(
        self,
        *,
        frames: int = 16,
        size: int | tuple[int, int] = 224,
        num_classes: int = 400,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        mlp_ratio: float = 4.0,
        patch_size: int = 16,
        tubelet_size: int = 2,
        qkv_bias: bool = True,
        positions: str = "sinusoid",
        position_grid: tuple[int, int, int] | None = None,
        class_token: bool = False,
        pool: str = "mean",
        layer_scale: float | None = None,
        drop_path: float = 0.0,
        dropout: float = 0.0,
        eps: float = 1e-6,
        fc_norm_eps: float | None = None,
        plan: Plan | None = None,
    ) -> None:
        super().__init__()
        if positions not in ("sinusoid", "learned"):
            raise TubeletError(f"positions={positions!r}: 'sinusoid' or 'learned'")
        if pool not in ("mean", "first"):
            raise TubeletError(f"pool={pool!r}: 'mean' or 'first'")
        if dim % heads:
            raise TubeletError(f"dim={dim} is not a multiple of heads={heads}")
        self.frames = frames
        self.size = (size, size) if isinstance(size, int) else (size[0], size[1])
        self.patch_size, self.tubelet_size = patch_size, tubelet_size
        self.dim, self.depth, self.pool, self.num_classes = dim, depth, pool, num_classes
        self.grid = self.grid_of(frames, *self.size)
        self.position_grid: Grid = Grid(*position_grid) if position_grid else self.grid

        self.patch_embed = TubeletEmbed(dim, tubelet_size, patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim)) if class_token else None
        prefix = int(class_token)
        self.learned_positions = positions == "learned"
        if self.learned_positions:
            self.pos_embed = nn.Parameter(torch.zeros(1, prefix + self.position_grid.tokens, dim))
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        else:  # known from its shape alone: not stored with the weights
            table = sinusoid_table(prefix + self.position_grid.tokens, dim)
            self.register_buffer("pos_embed", table, persistent=False)
            self.register_load_state_dict_post_hook(_restore_table)

        rates = drop_path_rates(drop_path, depth)
        self.blocks = nn.ModuleList(
            Block(dim, heads, mlp_ratio, qkv_bias=qkv_bias, eps=eps, drop_path=rates[i], layer_scale=layer_scale)
            for i in range(depth)
        )
        self.norm = nn.LayerNorm(dim, eps=eps) if pool == "first" else None
        self.fc_norm = nn.LayerNorm(dim, eps=fc_norm_eps or eps) if pool == "mean" else None
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(dim, num_classes) if num_classes else None
        self.apply(init_linear)
        if self.head is not None:
            nn.init.trunc_normal_(self.head.weight, std=0.02)
        self.plan = Plan()
        self.set_plan(plan or Plan())

    def forward(self, clip: Tensor, record: list[Kept] | None = None) -> Tensor:
        """Logits (B, num_classes) of clips (B, 3, T, H, W), normalised floats. `record` takes what each step kept."""
        tokens = self.forward_features(clip, record)
        if self.fc_norm is not None:
            features = self.fc_norm(tokens.mean())  # (B, C)
        else:
            assert self.norm is not None
            features = self.norm(tokens.x[:, 0])
        return features if self.head is None else self.head(self.dropout(features))

    def forward_features(self, clip: Tensor, record: list[Kept] | None = None) -> Tokens:
        """The tokens that are left after the last block."""
        tokens = self.embed(clip)
        schedule = self.plan.schedule(tokens.source)
        tokens = schedule.begin(tokens, clip)
        for i, block in enumerate(self.blocks):
            tokens = schedule.apply("before", i, tokens, record)
            tokens = block(tokens, schedule.ask(i, tokens), schedule.inside(i, record))
            tokens = schedule.apply("after", i, tokens, record)
        return tokens

    def embed(self, clip: Tensor) -> Tokens:
        """Tubelets with positions, and the class token in front where there is one."""
        if clip.dim() != 5 or clip.shape[1] != 3:
            raise TubeletError(f"clip of shape {tuple(clip.shape)}: (B, 3, T, H, W) is expected")
        grid = self.grid_of(*clip.shape[2:])
        x = self.patch_embed(clip)
        prefix = 0 if self.cls_token is None else 1
        table = self.pos_embed
        x = x + resize_positions(table[:, prefix:], self.position_grid, grid)  # float32 under autocast
        if self.cls_token is not None:
            first = (self.cls_token + table[:, :1]).to(x.dtype).expand(x.shape[0], -1, -1)
            x = torch.cat([first, x], dim=1)
        return Tokens(x, Layout.dense(grid), grid, prefix)

    def grid_of(self, frames: int, height: int, width: int) -> Grid:
        """The grid of tokens of a clip; raises TubeletError if the tubelet does not divide it."""
        t, p = self.tubelet_size, self.patch_size
        if frames % t or height % p or width % p or min(frames, height, width) < 1:
            raise TubeletError(
                f"a clip of {frames} x {height} x {width} (frames, height, width) is not made of whole tubelets: "
                f"frames in multiples of {t}, height and width in multiples of {p}"
            )
        return Grid(frames // t, height // p, width // p)

    def host(self) -> Host:
        """What a plan must know of this model: any set of tokens may go on, if the head does not read a dropped one."""
        check = _refuse_first_token if self.pool == "first" and self.cls_token is None else takes_anything
        return Host("ViT", (self.dim,) * self.depth, self.cls_token is not None, check, pixels=True)


def _refuse_first_token(block: int, layout: Layout) -> None:
    raise SelectionError(
        "pool='first' without a class token reads the first patch token, which a selector may drop or move; "
        "use pool='mean'"
    )


def _restore_table(model: ViT, keys: object) -> None:
    """The fixed table is not in the state dict: a model that was built without memory gets it with its weights."""
    model.pos_embed.copy_(sinusoid_table(model.pos_embed.shape[1], model.dim))


SIZES = {
    "videomae_small": {"dim": 384, "depth": 12, "heads": 6},
    "videomae_base": {"dim": 768, "depth": 12, "heads": 12},
    "videomae_large": {"dim": 1024, "depth": 24, "heads": 16},
    "videomae_huge": {"dim": 1280, "depth": 32, "heads": 16},
}

__all__ = ["Block", "SIZES", "TubeletEmbed", "ViT"]
