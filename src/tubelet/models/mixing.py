"""Space-time mixing attention (Bulat et al., NeurIPS 2021): attention within frames that reads their neighbours.

Of the C channels of keys and values, all heads in a row, the first C // div come from the next frame, as many after
them from the frame before, the rest from the frame itself; zeros beyond the ends:

    K~[t] = [ K[t + 1, : w], K[t - 1, w : 2 w], K[t, 2 w :] ]        w = C // div; V~ likewise

This costs no product. A head whose channels all come from one frame is plain attention to that frame: an offset, exact
whatever tokens that frame still has. Other heads join the channels of several frames at the same place of the picture;
where tokens were dropped, channels whose frame has dropped the place are zero, and a place that no frame of the head
has is masked. With `per_head` the channels are counted inside each head: the paper's equation 9.
"""

from __future__ import annotations

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tubelet.selection.core import NOTHING, Ask, Signals, take

NEXT, OWN, BEFORE = 1, 0, -1  # the frame that a channel comes from, counted from its own


class Frames:
    """How the T frames of each clip stand to each other: which exchange, and where in the picture their tokens lie.

    Args:
        exchange: (B or 1, T - 1) bool, whether frames t and t + 1 exchange; None: all of them do.
        place: (B, T, n) place of each patch token in a picture of `places`; None: all frames hold the same places.
    """

    def __init__(self, exchange: Tensor | None = None, place: Tensor | None = None, places: int = 0) -> None:
        self.exchange, self.place, self.places = exchange, place, places
        self._partners: dict[int, tuple[Tensor, Tensor]] = {}

    def neighbour(self, x: Tensor, step: int) -> Tensor:
        """x (B, T, ...) of the next frame or of the one before; zeros where there is none to exchange with."""
        other = x[:, 1:] if step == NEXT else x[:, :-1]
        if self.exchange is not None:
            other = torch.where(_wider(self.exchange, x), other, 0)
        edge = torch.zeros_like(x[:, :1])
        return torch.cat([other, edge] if step == NEXT else [edge, other], dim=1)

    def at_place(self, x: Tensor, step: int) -> Tensor:
        """x (B, T, L, ...) of the neighbour's token at the same place as each token; zeros where that was dropped.

        As if x were scattered to the whole picture with zeros between, shifted by a frame, and gathered again.
        """
        other = self.neighbour(x, step)
        if self.place is None:
            return other
        row, there = self.partner(step)
        batch, frames, length = row.shape
        rows = other.reshape(batch * frames, length, prod(x.shape[3:]))
        return torch.where(_wider(there, x), take(rows, row.flatten(0, 1)).view(x.shape), 0)

    def partner(self, step: int) -> tuple[Tensor, Tensor]:
        """(B, T, L) the neighbour's row at the same place as each token, class token first, and whether it has one."""
        assert self.place is not None
        if step not in self._partners:
            slot = F.pad(self.place + 1, (1, 0))  # (B, T, 1 + n): slot 0 is the class token's
            number = torch.arange(1, slot.shape[2] + 1, device=slot.device).expand_as(slot)
            rows = slot.new_zeros(*slot.shape[:2], 1 + self.places).scatter(2, slot, number)  # 0: dropped
            row = self.neighbour(rows, step).gather(2, slot)
            self._partners[step] = (row - 1).clamp(min=0), row > 0
        return self._partners[step]


def _wider(mask: Tensor, x: Tensor) -> Tensor:
    return mask.view(*mask.shape, *(1,) * (x.dim() - mask.dim()))


class MixingAttention(nn.Module):
    """Attention within each frame, some channels of whose keys and values are those of the neighbouring frames.

    Args:
        width: channels that come from the next frame, and as many after them from the one before; 0: none.
        per_head: count channels inside each head (eq. 9), not over all heads in a row.
    """

    def __init__(self, dim: int, heads: int, *, width: int, per_head: bool = False, qkv_bias: bool = True) -> None:
        super().__init__()
        self.dim, self.heads, self.width = dim, heads, width
        self.groups = heads if per_head else 1  # equal parts of the channels, each of which is mixed alike
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        sources = [set(head) for head in self.sources().view(heads, -1).tolist()]
        self.joining = [head for head, frames in enumerate(sources) if len(frames) > 1]  # they read several frames

    def sources(self, device: torch.device | str = "cpu") -> Tensor:
        """(C) the frame that each channel of keys and values comes from: NEXT, BEFORE or OWN."""
        channel = torch.arange(self.dim, device=device) % (self.dim // self.groups)
        return (channel < self.width).long() - ((channel >= self.width) & (channel < 2 * self.width)).long()

    def forward(self, x: Tensor, frames: Frames, ask: Ask = NOTHING) -> tuple[Tensor, Signals]:
        """x (B, T, L, C), the class token of each frame first -> the same shape, and the signals asked for."""
        batch, count, length, dim = x.shape
        qkv = self.qkv(x)  # (B, T, L, 3 C)
        parts = qkv.view(batch, count, length, 3, self.heads, dim // self.heads)
        keys = parts[:, :, 1:, 1].mean(dim=3).flatten(1, 2) if ask.keys else None  # a token's own: not yet mixed
        mask = self.mix(qkv, frames) if self.width else None
        q, k, v = parts.flatten(0, 1).permute(2, 0, 3, 1, 4)  # each (B T, heads, L, d)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=None if mask is None else mask.flatten(0, 1))
        out = self.proj(out.transpose(1, 2).reshape(x.shape))
        return out, Signals(keys, self.received(parts, mask, frames) if ask.attention else None)

    def mix(self, qkv: Tensor, frames: Frames) -> Tensor | None:
        """Bring in the channels of the neighbours, within qkv (B, T, L, 3 C): only what comes from there is copied.

        Returns (B, T, heads, 1, L) bool, the keys that there are: None if all.
        """
        both = qkv.unflatten(3, (3, self.groups, -1))[:, :, :, 1:]  # (B, T, L, keys and values, groups, C / groups)
        ahead, behind = both[..., : self.width], both[..., self.width : 2 * self.width]
        heads = qkv.unflatten(3, (3, self.heads, -1))[:, :, :, 1:]  # the same memory, (B, T, L, 2, heads, d)
        apart = frames.place is not None and bool(self.joining)  # rows of neighbours are not of the same place
        joined = self._join(heads[..., self.joining, :], frames) if apart else None
        ahead.copy_(frames.neighbour(ahead, NEXT))
        behind.copy_(frames.neighbour(behind, BEFORE))
        if joined is None:
            return None
        heads[..., self.joining, :], seen = joined
        mask = seen.new_ones(*seen.shape[:3], self.heads)
        mask[..., self.joining] = seen
        return mask.transpose(2, 3).unsqueeze(3)

    def _join(self, own: Tensor, frames: Frames) -> tuple[Tensor, Tensor]:
        """Keys and values (B, T, L, 2, J, d) of the heads that read several frames: what each place of those holds.

        Channels whose frame has dropped the place are zero. Also (B, T, L, J) bool: any of the head's frames has it.
        """
        source = self.sources(own.device).view(self.heads, -1)[self.joining]  # (J, d)
        joined = torch.where(source == NEXT, frames.at_place(own, NEXT), own)
        joined = torch.where(source == BEFORE, frames.at_place(own, BEFORE), joined)
        seen = (source == OWN).any(dim=1).expand(*own.shape[:3], -1)
        for step in (NEXT, BEFORE):
            seen = seen | ((source == step).any(dim=1) & frames.partner(step)[1][..., None])
        seen[:, :, 0] = True  # a frame without neighbours sees the zeros of training, by its class token
        return joined, seen

    def received(self, parts: Tensor, mask: Tensor | None, frames: Frames) -> Tensor:
        """(B, N) attention of the class tokens that each patch token receives, mean over the heads that look at it.

        `parts` (B, T, L, 3, heads, d) are mixed already. A head that reads the next frame credits the tokens there; one
        that joins channels of several frames credits each by its share of them.
        """
        q, k = parts[:, :, :1, 0].transpose(2, 3), parts[:, :, :, 1].transpose(2, 3)  # (B, T, heads, 1 or L, d)
        logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)  # (B, T, heads, 1, L)
        weights = (logits if mask is None else logits.masked_fill(~mask, float("-inf"))).softmax(dim=-1)
        weights = weights.squeeze(3).transpose(2, 3)  # (B, T, L, heads)
        received = self._credited(weights, frames) / self._credited(torch.ones_like(weights), frames).clamp(min=1e-6)
        return received[:, :, 1:].flatten(1, 2)

    def _credited(self, weights: Tensor, frames: Frames) -> Tensor:
        """Of each frame's view (B, T, L, heads) -> (B, T, L), to the tokens that were looked at."""
        source = self.sources(weights.device).view(self.heads, -1)
        total = weights @ (source == OWN).to(weights.dtype).mean(dim=1)
        for step in (NEXT, BEFORE):
            share = (source == step).to(weights.dtype).mean(dim=1)  # (heads)
            for shift, here in ((frames.neighbour, share == 1), (frames.at_place, share < 1)):
                total = total + shift(weights @ (share * here), -step)
        return total
