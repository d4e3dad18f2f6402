"""EVAD's second half: actors are refined together with all tokens that are left, and their actions named.

Each actor begins as what its box holds of the whole clip: tokens that were dropped are stood in for by one learned
token, the box is pooled from every slot of time (the largest of each bin, then the mean over the slots). Actors and
tokens then attend to each other, block by block; after every block the actors' actions are read off.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tubelet.models.layers import sinusoid_table
from tubelet.models.roi import roi_align
from tubelet.models.vit import Block
from tubelet.selection.core import Grid, Layout, Tokens, take


class ContextDecoder(nn.Module):
    """dim, depth, heads, mlp_ratio, eps: of the blocks;  hidden: of the classifiers;  position_grid: see EVAD."""

    def __init__(
        self,
        *,
        backbone_dim: int,
        dim: int,
        depth: int,
        heads: int,
        mlp_ratio: float,
        eps: float,
        hidden: int,
        num_classes: int,
        position_grid: Grid,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.pos_embed: Tensor
        self.embed = nn.Linear(backbone_dim, dim, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.register_buffer("pos_embed", sinusoid_table(position_grid.tokens, dim), persistent=False)
        self.register_load_state_dict_post_hook(_restore_table)
        self.blocks = nn.ModuleList(Block(dim, heads, mlp_ratio, eps=eps) for _ in range(depth))
        self.classifiers = nn.ModuleList(Classifier(dim, hidden, num_classes) for _ in range(depth))

    def forward(
        self, x: Tensor, places: Tensor | None, codes: Tensor, grid: Grid, boxes: Tensor, stride: int
    ) -> Tensor:
        """Backbone tokens x (B, K, D) and where each belongs in the clip's grid (B, K) -> (blocks, B, Q, classes).

        codes: (1, grid.tokens, dim) positions;  boxes: (B, Q, 4) pixels, in every slot;  stride: pixels of a cell
        """
        x = self.embed(x)  # (B, K, dim)
        full = self.full_map(x, places, codes)  # (B, grid.tokens, dim)
        actors = pool_actors(full.unflatten(1, tuple(grid)), boxes, stride)  # (B, Q, dim)
        # At their places the tokens of the map are the tokens that are left, with their positions.
        context = full if places is None else take(full, places)
        return self.refine(context, actors)[0]

    def full_map(self, x: Tensor, places: Tensor | None, codes: Tensor) -> Tensor:
        """(B, all places, dim): tokens x (B, K, dim) at their places, the mask token elsewhere, and positions."""
        codes = codes.to(x.dtype)
        if places is None:
            return x + codes
        base = self.mask_token.to(x.dtype).expand(x.shape[0], codes.shape[1], -1)
        return base.scatter(1, places[..., None].expand(-1, -1, x.shape[-1]), x) + codes

    def refine(self, context: Tensor, actors: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Action logits (blocks, B, Q, classes), and the sequence of tokens and actors after each block."""
        kept = context.shape[1]
        x = torch.cat([context, actors], dim=1)  # (B, K + Q, dim)
        tokens = Tokens(x, Layout(x.shape[1], segments=1), Grid(1, 1, x.shape[1]))
        logits, sequences = [], []
        for block, classifier in zip(self.blocks, self.classifiers, strict=True):
            tokens = block(tokens)
            logits.append(classifier(tokens.x[:, kept:]))
            sequences.append(tokens.x)
        return torch.stack(logits), sequences


class Classifier(nn.Module):
    def __init__(self, dim: int, hidden: int, num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(dim, hidden, bias=False)
        self.norm = nn.LayerNorm(hidden)
        self.logits = nn.Linear(hidden, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(F.relu(self.norm(self.fc(x))))


def pool_actors(full: Tensor, boxes: Tensor, stride: int) -> Tensor:
    """A map (B, t, h, w, C) and boxes (B, Q, 4) that hold in every slot -> (B, Q, C).

    The boxes are pooled once for all slots, with time among the channels.
    """
    batch, slots, height, width, channels = full.shape
    folded = full.permute(0, 2, 3, 1, 4).reshape(batch, height, width, slots * channels)
    largest = roi_align([folded], boxes, (stride,)).amax(dim=2)  # (B, Q, t C)
    return largest.unflatten(-1, (slots, channels)).mean(dim=2)


def _restore_table(model: ContextDecoder, keys: object) -> None:
    """The fixed table is not in the state dict: a model that was built without memory gets it with its weights."""
    model.pos_embed.copy_(sinusoid_table(model.pos_embed.shape[1], model.dim))
