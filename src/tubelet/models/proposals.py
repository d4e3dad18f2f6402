"""Finding people on the key frame with learned proposals: Sparse R-CNN (Sun et al., CVPR 2021) on a pyramid of one map.

`Pyramid` makes four maps of strides patch/4 to 2 patch from the key frame's tokens after four blocks. `Proposals` holds
learned boxes and features, and a row of heads, each of which pools its boxes from the pyramid, mixes that with the
features, and says of every proposal whether it is a person and how its box should move.

Differences from the released code: channels are reduced before maps are enlarged by repeating cells, not after it,
which gives the same numbers with less work; what is pooled comes with the channels last, as the heads use it; attention
among the proposals is fused.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tubelet.models.boxes import apply_deltas, from_centres, whwh
from tubelet.models.roi import levels_of, roi_align

RESOLUTION = 7  # bins along each side of a box
LEVELS = 4


class Pyramid(nn.Module):
    """Feature pyramid (Lin et al., 2017) of plain ViT maps, which all have the patch's stride at first."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(dim, width, kernel_size=1) for _ in range(LEVELS))
        self.output = nn.ModuleList(nn.Conv2d(width, width, kernel_size=3, padding=1) for _ in range(LEVELS))
        for conv in [*self.lateral, *self.output]:
            assert isinstance(conv, nn.Conv2d) and conv.bias is not None
            nn.init.kaiming_uniform_(conv.weight, a=1)
            nn.init.zeros_(conv.bias)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Four maps (B, dim, h, w), h and w even -> four (B, width, ., .) of 4, 2, 1 and 1/2 times their sides."""
        a, b, c, d = (conv(one) for conv, one in zip(self.lateral, maps, strict=True))
        finer = [_nearest(a, 4), _nearest(b, 2), c, d[:, :, ::2, ::2]]  # cells are repeated or left out
        for i in reversed(range(LEVELS - 1)):
            finer[i] = finer[i] + _nearest(finer[i + 1], 2)
        return [conv(one) for conv, one in zip(self.output, finer, strict=True)]


class Proposals(nn.Module):
    """Learned boxes and features, refined by `depth` heads of their own weights.

    width: channels of the pyramid and of the features;  heads: of attention among proposals
    hidden: of the feed-forward part;  dynamic: width between the two products that a proposal's features parametrise
    strides: pixels of a cell of each map
    """

    def __init__(
        self,
        *,
        count: int,
        width: int,
        depth: int,
        heads: int,
        hidden: int,
        dynamic: int,
        strides: Sequence[float],
    ) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.boxes = nn.Parameter(torch.tensor([0.5, 0.5, 1.0, 1.0]).repeat(count, 1))  # centres and sides, as shares
        self.features = nn.Parameter(torch.randn(count, width))
        self.heads = nn.ModuleList(Head(width, heads, hidden, dynamic) for _ in range(depth))

    def forward(self, maps: Sequence[Tensor], sizes: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (B, width, ., .) and heights, widths of the images (B, 2) -> what each head says.

        Person logits (heads, B, Q, 2): person, nobody. Boxes (heads, B, Q, 4) in pixels, which may leave the image.
        """
        cells = [one.permute(0, 2, 3, 1) for one in maps]  # (B, ., ., width)
        boxes = from_centres(self.boxes.float()) * whwh(sizes)  # (B, Q, 4), float32 whatever the weights are
        x = self.features.expand(sizes.shape[0], -1, -1)
        persons, moved = [], []
        for head in self.heads:
            logits, boxes, x = head(cells, boxes, x, self.strides)
            persons.append(logits)
            moved.append(boxes)
            boxes = boxes.detach()  # each head learns to move boxes as they come
        return torch.stack(persons), torch.stack(moved)


class Head(nn.Module):
    """One round of refinement."""

    def __init__(self, width: int, heads: int, hidden: int, dynamic: int) -> None:
        super().__init__()
        self.attn = ProposalAttention(width, heads)
        self.norm1 = nn.LayerNorm(width)
        self.mix = DynamicMix(width, dynamic)
        self.norm2 = nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norm3 = nn.LayerNorm(width)
        self.person = nn.Sequential(*_layer(width))
        self.move = nn.Sequential(*_layer(width), *_layer(width), *_layer(width))
        self.person_logits, self.deltas = nn.Linear(width, 2), nn.Linear(width, 4)

    def forward(
        self, maps: Sequence[Tensor], boxes: Tensor, x: Tensor, strides: Sequence[float]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (B, Q, 4), features x (B, Q, C) -> person logits (B, Q, 2), moved boxes, features."""
        where = boxes.detach()
        pooled = roi_align(maps, where, strides, levels_of(where, LEVELS), resolution=RESOLUTION)  # (B, Q, bins, C)
        x = self.norm1(x + self.attn(x))
        x = self.norm2(x + self.mix(x, pooled))
        x = self.norm3(x + self.fc2(F.relu(self.fc1(x))))
        return self.person_logits(self.person(x)), apply_deltas(boxes, self.deltas(self.move(x)).float()), x


class DynamicMix(nn.Module):
    """Two products with matrices that each proposal's features make, over what was pooled in its box."""

    def __init__(self, width: int, dynamic: int) -> None:
        super().__init__()
        self.width, self.dynamic = width, dynamic
        self.matrices = nn.Linear(width, 2 * width * dynamic)
        self.norm1, self.norm2 = nn.LayerNorm(dynamic), nn.LayerNorm(width)
        self.out = nn.Linear(RESOLUTION**2 * width, width)
        self.norm3 = nn.LayerNorm(width)

    def forward(self, x: Tensor, pooled: Tensor) -> Tensor:
        """Features (B, Q, C), pooled (B, Q, bins, C) -> (B, Q, C)."""
        down, up = self.matrices(x).split(self.width * self.dynamic, dim=-1)
        y = pooled @ down.unflatten(-1, (self.width, self.dynamic))  # (B, Q, bins, dynamic)
        y = F.relu(self.norm1(y)) @ up.unflatten(-1, (self.dynamic, self.width))  # (B, Q, bins, C)
        return F.relu(self.norm3(self.out(F.relu(self.norm2(y)).flatten(2))))


class ProposalAttention(nn.Module):
    """Multi-head attention among the proposals of an image."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, count, width = x.shape
        q, k, v = self.qkv(x).view(batch, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # (B, heads, Q, d)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, count, width))


def _layer(width: int) -> list[nn.Module]:
    return [nn.Linear(width, width, bias=False), nn.LayerNorm(width), nn.ReLU()]


def _nearest(x: Tensor, times: int) -> Tensor:
    return F.interpolate(x, scale_factor=times, mode="nearest")
