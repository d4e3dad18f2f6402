"""Layers that several backbones share: attention that tells what a selector asks, MLP, drop path, position tables."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tubelet.selection.core import NOTHING, Ask, Grid, Signals

QUERY_CHUNK = 256  # queries at a time where attention weights are formed: bounds memory at heads x 256 x N


class Attention(nn.Module):
    """Multi-head self-attention, fused. Keys have no bias; queries and values have one with `qkv_bias` (VideoMAE)."""

    def __init__(self, dim: int, heads: int, *, qkv_bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(dim)) if qkv_bias else None
        self.v_bias = nn.Parameter(torch.zeros(dim)) if qkv_bias else None
        self.proj = nn.Linear(dim, dim)

    def forward(
        self, x: Tensor, ask: Ask = NOTHING, key_bias: Tensor | None = None, prefix: int = 0
    ) -> tuple[Tensor, Signals]:
        """x (B, P + N, C) -> the same shape, and the signals asked for, of the N patch tokens."""
        batch, length, dim = x.shape
        bias = None
        if self.q_bias is not None and self.v_bias is not None:
            bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        qkv = F.linear(x, self.qkv.weight, bias).view(batch, length, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, P + N, d)
        key_bias = None if key_bias is None else key_bias.to(q.dtype)
        received = sharpness = None
        if ask.sharpness:
            out, received, sharpness = attend_and_count(q, k, v, key_bias, ask.query_weight, sharpness=True)
            sharpness = sharpness[:, prefix:]
        elif ask.attention and prefix == 0:
            out, received, _ = attend_and_count(q, k, v, key_bias, ask.query_weight)
        else:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=key_bias)
        if ask.attention and prefix:
            received = attention_row(q[:, :, :1], k, key_bias)[:, 0, prefix:]  # of the class token alone
        out = self.proj(out.transpose(1, 2).reshape(batch, length, dim))
        keys = k[:, :, prefix:].mean(dim=1) if ask.keys else None
        return out, Signals(keys=keys, attention=received if ask.attention else None, sharpness=sharpness)


def attention_row(q: Tensor, k: Tensor, key_bias: Tensor | None) -> Tensor:
    """Softmax attention of a few queries (B, heads, Q, d) to k (B, heads, N, d), mean over heads: (B, Q, N)."""
    return _weights(q, k, key_bias).mean(dim=1)


def attend_and_count(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_bias: Tensor | None,
    query_weight: Tensor | None,
    *,
    sharpness: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Attention output (B, heads, N, d), and the attention each key received: mean over heads and (weighted) queries.

    With `sharpness` also the negative entropy of each query's attention, mean over heads (B, N), without a gradient.

    The weights are formed a chunk of queries at a time and serve both, so the N x N matrix is never held at once
    (but by autograd, for the backward pass).
    """
    outputs, received = [], q.new_zeros(k.shape[0], k.shape[2])
    sharp = [q.new_empty(q.shape[0], 0)]
    for start in range(0, q.shape[2], QUERY_CHUNK):
        bias = key_bias
        if bias is not None and bias.shape[2] > 1:  # one for each query
            bias = bias[:, :, start : start + QUERY_CHUNK]
        weights = _weights(q[:, :, start : start + QUERY_CHUNK], k, bias)  # (B, heads, chunk, N)
        outputs.append(weights @ v)
        if sharpness:
            rows = weights.detach().mean(dim=1, dtype=torch.float32)  # (B, chunk, N)
            sharp.append(-torch.special.entr(rows).sum(dim=-1))
        if query_weight is None:
            received = received + weights.sum(dim=(1, 2))
        else:
            rows = query_weight[:, None, start : start + QUERY_CHUNK, None]
            received = received + (weights * rows).sum(dim=(1, 2))
    return torch.cat(outputs, dim=2), received / (q.shape[1] * q.shape[2]), torch.cat(sharp, dim=1)


def _weights(q: Tensor, k: Tensor, key_bias: Tensor | None) -> Tensor:
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    return (logits if key_bias is None else logits + key_bias).softmax(dim=-1)


class MLP(nn.Module):
    def __init__(self, dim: int, hidden: int, dim_out: int | None = None) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim_out or dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class DropPath(nn.Module):
    """Drops a residual branch for a whole clip while training, with probability `rate` (Huang et al., 2016)."""

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        mask = x.new_empty((x.shape[0],) + (1,) * (x.dim() - 1)).bernoulli_(keep)
        return x * mask / keep

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


def sinusoid_table(positions: int, dim: int) -> Tensor:
    """(1, positions, dim) fixed positions of Vaswani et al. (2017): even channels sine, odd ones cosine."""
    position = torch.arange(positions, dtype=torch.float64)[:, None]
    channel = torch.arange(dim, dtype=torch.float64)[None]
    angle = position / torch.pow(torch.tensor(10000.0, dtype=torch.float64), 2 * (channel // 2) / dim)
    table = torch.where(channel.long() % 2 == 0, angle.sin(), angle.cos())
    return table.float()[None]


def resize_positions(table: Tensor, trained: Grid, wanted: Grid) -> Tensor:
    """A table (1, trained.tokens, C) for another grid: bicubic in each frame, then linear along time."""
    if trained == wanted:
        return table
    channels = table.shape[-1]
    frames = table.view(trained.t, trained.h, trained.w, channels).permute(0, 3, 1, 2)  # (t, C, h, w)
    if trained[1:] != wanted[1:]:
        frames = F.interpolate(frames.float(), size=wanted[1:], mode="bicubic", align_corners=False)
    if trained.t != wanted.t:
        lines = frames.permute(2, 3, 1, 0).reshape(-1, channels, trained.t)  # (h w, C, t)
        lines = F.interpolate(lines.float(), size=wanted.t, mode="linear", align_corners=False)
        frames = lines.view(wanted.h, wanted.w, channels, wanted.t).permute(3, 2, 0, 1)
    return frames.permute(0, 2, 3, 1).reshape(1, wanted.tokens, channels).to(table.dtype)


def init_linear(module: nn.Module) -> None:
    """Matrices as Glorot and Bengio (2010) say, zero biases, unit norms.

    At the width of a ViT-B this is the usual deviation of 0.02; a narrow model that begins with 0.02 attends to
    everything alike and does not leave the plateau for thousands of steps.
    """
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)


def drop_path_rates(rate: float, depth: int) -> list[float]:
    """0 for the first block, growing linearly to `rate` for the last."""
    return [rate * i / max(depth - 1, 1) for i in range(depth)]
