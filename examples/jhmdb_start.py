"""A structured start for a ViT that sees few clips: what a larger data set would teach it first is put in by hand.

embedding   principal components of the training clips' tubelets, scaled to equal variance (no labels are used)
positions   sines of time, row and column apart, so that near tokens are alike in all three; learned from there on
attention   near-identity query-key products and near-minus-identity value-projection products, so that tokens attend
            to like ones near by (Mimetic Initialization of Self-Attention Layers, Trockman & Kolter, ICML 2023)
"""

from __future__ import annotations

import torch
from jhmdb_clips import Cache, Rows, centre_clip, to_input
from torch import Tensor

from tubelet.models.layers import sinusoid_table
from tubelet.models.vit import ViT


@torch.no_grad()
def start(model: ViT, cache: Cache, rows: Rows) -> None:
    """Sets the weights of a ViT with learned positions in place."""
    conv = model.patch_embed.proj
    filters, bias = components(cache, rows, model)
    conv.weight.copy_(filters.view_as(conv.weight))
    conv.bias.copy_(bias)
    model.pos_embed.copy_(positions(model))
    for block in model.blocks:
        attention = block.attn
        dim, heads = model.dim, attention.heads
        q, k, v = attention.qkv.weight.view(3, heads, dim // heads, dim)
        for head in range(heads):
            u, s, w = torch.linalg.svd(0.7 * torch.randn(dim, dim) / dim**0.5 + 0.7 * torch.eye(dim))
            root = s[: dim // heads].sqrt()[:, None]
            q[head], k[head] = root * u.T[: dim // heads], root * w[: dim // heads]
        u, s, w = torch.linalg.svd(0.4 * torch.randn(dim, dim) / dim**0.5 - 0.4 * torch.eye(dim))
        attention.proj.weight.copy_(u * s.sqrt())
        v.copy_((s.sqrt()[:, None] * w).view_as(v))


def components(cache: Cache, rows: Rows, model: ViT, clips: int = 200) -> tuple[Tensor, Tensor]:
    """Filters (dim, 3 * 2 * 16 * 16) and bias (dim) that give tubelets uncorrelated values of variance 1/4."""
    step = max(len(rows) // clips, 1)
    t, p = model.tubelet_size, model.patch_size
    parts = []
    for video, _ in rows[::step]:
        clip = to_input([centre_clip(cache, video)])[0]  # (3, T, H, W)
        patches = clip.unfold(1, t, t).unfold(2, p, p).unfold(3, p, p)  # (3, T', H', W', t, p, p)
        parts.append(patches.permute(1, 2, 3, 0, 4, 5, 6).reshape(model.grid.tokens, -1)[::4])
    x = torch.cat(parts)
    mean = x.mean(dim=0)
    values, vectors = torch.linalg.eigh((x - mean).T @ (x - mean) / len(x))  # ascending
    filters = 0.5 * (vectors / (values + 0.01).sqrt()).T.flip(0)[: model.dim]
    return filters, -filters @ mean


def positions(model: ViT) -> Tensor:
    """(1, N, dim): a third of the channels each for time, row and column."""
    third = model.dim // 3
    axes = [sinusoid_table(n, third)[0] for n in model.grid]
    t, h, w = torch.meshgrid(*(torch.arange(n) for n in model.grid), indexing="ij")
    return torch.cat([axis[i.flatten()] for axis, i in zip(axes, (t, h, w), strict=True)], dim=1)[None]
