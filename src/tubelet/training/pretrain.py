"""Masked auto-encoding of a video ViT: VideoMAE (Tong et al., NeurIPS 2022), section 3.

A tube of tokens is a place in all slots of time. `mask` of the tubes are hidden; the encoder sees the other tokens
alone, a small decoder gets a mask token at the hidden places and gives back their pixels:

    loss = mean over hidden tokens |decoder(encoder(visible)) - pixels|^2

where the pixels of a tubelet are normalised by its own mean and deviation, each colour apart (`norm_pixels`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tubelet.models.layers import init_linear, resize_positions, sinusoid_table
from tubelet.models.vit import Block, ViT
from tubelet.selection.core import Grid, Layout, Selection, Tokens, take


def visible_tubes(
    batch: int, grid: Grid, mask: float, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Random tubes of a (t, h, w) grid -> flat token numbers (B, visible), (B, hidden), in order."""
    hidden = min(max(round(mask * grid.per_frame), 1), grid.per_frame - 1)
    order = torch.rand(batch, grid.per_frame, generator=generator).argsort(dim=1)
    slots = torch.arange(grid.t)[:, None] * grid.per_frame  # (t, 1)

    def tokens(places: Tensor) -> Tensor:
        return (slots + places.sort(dim=1).values[:, None]).flatten(1)

    return tokens(order[:, hidden:]), tokens(order[:, :hidden])


def tubelet_pixels(clip: Tensor, tubelet: int, patch: int, *, normalise: bool) -> Tensor:
    """(B, 3, T, H, W) -> (B, N, tubelet x patch x patch x 3): the pixels of each token, colour last."""
    batch, _, frames, height, width = clip.shape
    x = clip.reshape(batch, 3, frames // tubelet, tubelet, height // patch, patch, width // patch, patch)
    x = x.permute(0, 2, 4, 6, 3, 5, 7, 1)  # (B, t, h, w, tubelet, patch, patch, 3)
    x = x.reshape(batch, -1, tubelet * patch * patch, 3)  # (B, N, pixels, 3)
    if normalise:
        x = (x - x.mean(dim=2, keepdim=True)) / (x.var(dim=2, keepdim=True).sqrt() + 1e-6)
    return x.flatten(2)


class MaskedAutoencoder(nn.Module):
    """The encoder that is kept, and the decoder that is not. `forward` gives the loss of a batch."""

    positions: Tensor

    def __init__(self, encoder: ViT, *, mask: float, dim: int, depth: int, heads: int, normalise: bool) -> None:
        super().__init__()
        self.encoder, self.mask, self.normalise = encoder, mask, normalise
        if encoder.fc_norm is not None:
            encoder.fc_norm.requires_grad_(False)  # of the classifier to come: nothing here reads it
        pixels = encoder.tubelet_size * encoder.patch_size**2 * 3
        self.norm = nn.LayerNorm(encoder.dim, eps=1e-6)
        self.to_decoder = nn.Linear(encoder.dim, dim, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.register_buffer("positions", sinusoid_table(encoder.grid.tokens, dim), persistent=False)
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(depth))
        self.decoder_norm = nn.LayerNorm(dim, eps=1e-6)
        self.to_pixels = nn.Linear(dim, pixels)
        for part in (self.to_decoder, self.blocks, self.to_pixels):
            part.apply(init_linear)
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def forward(self, clip: Tensor) -> Tensor:
        encoder, batch = self.encoder, clip.shape[0]
        tokens = encoder.embed(clip)
        grid = tokens.source
        visible, hidden = (index.to(clip.device) for index in visible_tubes(batch, grid, self.mask))
        tokens = Selection(visible, Layout(visible.shape[1], segments=grid.t)).apply(tokens)
        for block in encoder.blocks:
            tokens = block(tokens)
        seen = self.to_decoder(self.norm(tokens.patches))  # (B, visible, D)
        positions = resize_positions(self.positions, encoder.grid, grid).to(seen.dtype).expand(batch, -1, -1)
        x = torch.cat([seen + take(positions, visible), self.mask_token + take(positions, hidden)], dim=1)
        decoded = Tokens(x, Layout(grid.tokens, segments=1), grid)
        for block in self.blocks:
            decoded = block(decoded)
        told = self.to_pixels(self.decoder_norm(decoded.x[:, visible.shape[1] :]))  # (B, hidden, pixels)
        pixels = tubelet_pixels(clip, encoder.tubelet_size, encoder.patch_size, normalise=self.normalise)
        return F.mse_loss(told.float(), take(pixels, hidden).float())
