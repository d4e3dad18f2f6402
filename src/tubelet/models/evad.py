"""EVAD (Chen et al., ICCV 2023): who does what on the key frame of a clip, on a fraction of its tokens.

From top to bottom: clip -> ViT, which drops tokens beside the key slab by the model's plan (selector `keyframe`)
 -> pyramid of the key slab's tokens -> learned proposals find people (proposals.py)
 -> the tokens that are left go back to their places in the clip; each person's box, enlarged, is pooled from all slots
 -> a decoder refines those actors together with the tokens -> actions of each actor.
`backbone`, `pyramid`, `proposals` and `context` stand alone.

Differences from the released code: tokens go back to where they came from, which they do not there (see `restoration`);
a position table is resized whenever the grid differs, not only when the number of tokens does (see `resize_when`); all
slots are pooled at once; attention is fused but in the blocks that drop; gradients need no checkpointing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import _register_namedtuple

from tubelet.errors import SelectionError, TubeletError
from tubelet.models.base import VideoModel
from tubelet.models.boxes import extended
from tubelet.models.config import Preprocessing
from tubelet.models.context import ContextDecoder
from tubelet.models.layers import resize_positions
from tubelet.models.proposals import LEVELS, Proposals, Pyramid
from tubelet.models.vit import ViT
from tubelet.selection.core import Grid, Layout, Tokens
from tubelet.selection.plan import Host, Kept, Plan

PRETRAINED = 224  # pixels of the side that VideoMAE's positions were made for
RESTORATIONS = ("exact", "published")
RESIZE_WHEN = ("grid", "count")


class Predictions(NamedTuple):
    """What the detector says of B key frames, with Q proposals each. The last head and block are the answer.

    Boxes are x1, y1, x2, y2 in pixels of the (unpadded) clip given, and may leave it.
    """

    person_logits: Tensor  # (heads, B, Q, 2): person, nobody
    boxes: Tensor  # (heads, B, Q, 4)
    action_logits: Tensor  # (blocks of the decoder, B, Q, classes)
    sizes: Tensor  # (B, 2): height and width of each clip without padding

    @property
    def person_scores(self) -> Tensor:
        """(B, Q): probability of a person in the last head's box."""
        return self.person_logits[-1].float().softmax(dim=-1)[..., 0]

    @property
    def action_scores(self) -> Tensor:
        """(B, Q, classes): probability of each action, which do not exclude each other."""
        return self.action_logits[-1].float().sigmoid()


_register_namedtuple(Predictions, serialized_type_name="tubelet.Predictions")  # so that an exported model can be saved


class EVAD(VideoModel):
    """The detector.

    Args:
        frames, size: of the clips it is made for, the key frame in the middle (size: short side, or (height, width)).
            Others may be given to forward: sides are padded to a multiple of two patches, frames must be a multiple of
            two tubelets.
        num_classes: actions, at least one.
        dim, depth, heads, mlp_ratio, patch_size, tubelet_size, qkv_bias, positions, layer_scale, drop_path, eps: of the
            backbone, see ViT.
        position_grid: (t, h, w) that the positions were made for; by default that of clips of 224 x 224.
        taps: the four blocks after which the pyramid reads the key slab; by default at each quarter of the depth.
        width: channels of the pyramid and the proposals; proposals: how many; proposal_heads: rounds of refinement;
            attention_heads, hidden, dynamic: of each round.
        decoder_dim, decoder_depth, decoder_heads: of the context decoder; action_dim: hidden width of its classifiers.
        roi_extension: shares by which a person's box is made wider and higher to see the actor's surroundings.
        restoration: "exact": kept tokens go back to their own places in the clip. "published": in their order of
            importance to the places that are filled, as the released code does and its weights expect. The same where
            nothing is dropped.
        resize_when: a position table is resized where the "grid" differs from its own, or, as published, only where the
            "count" of tokens does.
    """

    def __init__(
        self,
        *,
        frames: int = 16,
        size: int | tuple[int, int] = 288,
        num_classes: int = 80,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        mlp_ratio: float = 4.0,
        patch_size: int = 16,
        tubelet_size: int = 2,
        qkv_bias: bool = True,
        positions: str = "sinusoid",
        position_grid: tuple[int, int, int] | None = None,
        layer_scale: float | None = None,
        drop_path: float = 0.0,
        eps: float = 1e-6,
        taps: tuple[int, ...] | None = None,
        width: int = 256,
        proposals: int = 100,
        proposal_heads: int = 6,
        attention_heads: int = 8,
        hidden: int = 2048,
        dynamic: int = 64,
        decoder_dim: int = 384,
        decoder_depth: int = 6,
        decoder_heads: int = 6,
        action_dim: int = 2048,
        roi_extension: tuple[float, float] = (0.4, 0.2),
        restoration: str = "exact",
        resize_when: str = "grid",
        plan: Plan | None = None,
    ) -> None:
        super().__init__()
        if restoration not in RESTORATIONS:
            raise TubeletError(f"restoration={restoration!r}: one of {', '.join(RESTORATIONS)}")
        if resize_when not in RESIZE_WHEN:
            raise TubeletError(f"resize_when={resize_when!r}: one of {', '.join(RESIZE_WHEN)}")
        if num_classes < 1:
            raise TubeletError("num_classes=0: a detector says which actions are done, it needs at least 1 class")
        for name, whole, parts in (("width", width, attention_heads), ("decoder_dim", decoder_dim, decoder_heads)):
            if whole % parts:
                raise TubeletError(f"{name}={whole} is not a multiple of its {parts} attention heads")
        self.frames = frames
        self.size = (size, size) if isinstance(size, int) else (size[0], size[1])
        self.patch_size, self.tubelet_size = patch_size, tubelet_size
        self.dim, self.depth, self.num_classes, self.head = dim, depth, num_classes, None
        self.taps = tuple(taps) if taps is not None else tuple((i + 1) * depth // LEVELS - 1 for i in range(LEVELS))
        if len(self.taps) != LEVELS or not all(0 <= tap < depth for tap in self.taps):
            raise TubeletError(f"taps={self.taps}: {LEVELS} of the blocks 0 to {depth - 1} are needed")
        self.roi_extension = (roi_extension[0], roi_extension[1])
        self.restoration, self.resize_when = restoration, resize_when
        self.grid = self.grid_of(frames, *self.size)
        side = max(PRETRAINED // patch_size, 1)
        self.position_grid: Grid = Grid(*position_grid) if position_grid else Grid(self.grid.t, side, side)

        self.backbone = ViT(
            frames=frames,
            size=(self.grid.h * patch_size, self.grid.w * patch_size),
            num_classes=0,
            dim=dim,
            depth=depth,
            heads=heads,
            mlp_ratio=mlp_ratio,
            patch_size=patch_size,
            tubelet_size=tubelet_size,
            qkv_bias=qkv_bias,
            positions=positions,
            position_grid=self.position_grid,
            layer_scale=layer_scale,
            drop_path=drop_path,
            eps=eps,
        )
        self.pyramid = Pyramid(dim, width)
        self.proposals = Proposals(
            count=proposals,
            width=width,
            depth=proposal_heads,
            heads=attention_heads,
            hidden=hidden,
            dynamic=dynamic,
            strides=[patch_size * times for times in (1 / 4, 1 / 2, 1, 2)],
        )
        self.context = ContextDecoder(
            backbone_dim=dim,
            dim=decoder_dim,
            depth=decoder_depth,
            heads=decoder_heads,
            mlp_ratio=mlp_ratio,
            eps=eps,
            hidden=action_dim,
            num_classes=num_classes,
            position_grid=self.position_grid,
        )
        for part in (self.proposals.heads, self.context):
            for parameter in part.parameters():
                if parameter.dim() > 1:
                    nn.init.xavier_uniform_(parameter)
        self.plan = Plan()
        self.set_plan(plan or Plan())

    def forward(
        self,
        clip: Tensor | Sequence[Tensor],
        record: list[Kept] | None = None,
        sizes: Tensor | Sequence[tuple[int, int]] | None = None,
    ) -> Predictions:
        """What is done by whom on the key frames of clips, normalised floats. `record` takes what each step kept.

        clip:   (B, 3, T, H, W), or a list of (3, T, H, W) of any heights and widths, which are padded with zeros
        sizes:  (B, 2) heights and widths of clips that were padded before (below and on the right)
        """
        clip, sizes = self.padded(clip, sizes)
        tokens, maps = self.forward_features(clip, record)
        person_logits, boxes = self.proposals(self.pyramid(maps), sizes)
        around = extended(boxes[-1].detach(), sizes, self.roi_extension)  # (B, Q, 4), the same in all slots
        assert self.backbone.fc_norm is not None
        x = self.backbone.fc_norm(tokens.x)
        places = restored_places(tokens, self.restoration)
        codes = self.positions_for(self.context.pos_embed, tokens.source)
        action_logits = self.context(x, places, codes, tokens.source, around, self.patch_size)
        return Predictions(person_logits, boxes, action_logits, sizes)

    def forward_features(self, clip: Tensor, record: list[Kept] | None = None) -> tuple[Tokens, list[Tensor]]:
        """Padded clips -> the tokens left after the last block, and four maps (B, dim, h, w) of the key slab."""
        grid = self.grid_of(*clip.shape[2:])
        table = self.backbone.pos_embed
        assert isinstance(table, Tensor)
        x = self.backbone.patch_embed(clip)
        x = x + self.positions_for(table, grid)
        tokens = Tokens(x, Layout.dense(grid), grid)
        schedule = self.plan.schedule(grid)
        after: dict[int, Tensor] = {}
        for i, block in enumerate(self.backbone.blocks):
            tokens = schedule.apply("before", i, tokens, record)
            tokens = block(tokens, schedule.ask(i, tokens), schedule.inside(i, record))
            tokens = schedule.apply("after", i, tokens, record)
            if i in self.taps:
                after[i] = key_map(tokens)
        return tokens, [after[tap] for tap in self.taps]

    def padded(
        self, clip: Tensor | Sequence[Tensor], sizes: Tensor | Sequence[tuple[int, int]] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Clips below and on the right filled with zeros up to whole cells of the pyramid, and their sizes before."""
        if not isinstance(clip, Tensor):
            if not clip or any(one.dim() != 4 or one.shape[:2] != clip[0].shape[:2] for one in clip):
                given = [tuple(one.shape) for one in clip]
                raise TubeletError(f"clips of shapes {given}: several (3, T, H, W) of one T are expected")
            sizes = [(one.shape[2], one.shape[3]) for one in clip] if sizes is None else sizes
            height, width = (max(one.shape[axis] for one in clip) for axis in (2, 3))
            clip = torch.stack([F.pad(one, (0, width - one.shape[3], 0, height - one.shape[2])) for one in clip])
        if clip.dim() != 5 or clip.shape[1] != 3:
            raise TubeletError(f"clip of shape {tuple(clip.shape)}: (B, 3, T, H, W) is expected")
        height, width = clip.shape[3:]
        if sizes is None:
            sizes = torch.tensor([[height, width]], device=clip.device).expand(clip.shape[0], -1)
        sizes = torch.as_tensor(sizes, dtype=torch.float32, device=clip.device)
        grid = self.grid_of(*clip.shape[2:])
        below, right = grid.h * self.patch_size - height, grid.w * self.patch_size - width
        return (F.pad(clip, (0, right, 0, below)) if below or right else clip), sizes

    def positions_for(self, table: Tensor, grid: Grid) -> Tensor:
        """(1, grid.tokens, C): a table that was made for `position_grid`, resized."""
        if self.resize_when == "count" and grid.tokens == self.position_grid.tokens:
            return table
        return resize_positions(table, self.position_grid, grid)

    def grid_of(self, frames: int, height: int, width: int) -> Grid:
        """The grid of tokens of a clip, padded; raises TubeletError if there is no middle slot or nothing at all."""
        if frames < 1 or frames % (2 * self.tubelet_size) or min(height, width) < 1:
            raise TubeletError(
                f"a clip of {frames} x {height} x {width} (frames, height, width): frames in multiples of "
                f"{2 * self.tubelet_size} are needed, so that the key frame is in the middle slot of an even number"
            )
        cell = 2 * self.patch_size  # the coarsest of the pyramid
        return Grid(frames // self.tubelet_size, -(-height // cell) * 2, -(-width // cell) * 2)

    def host(self) -> Host:
        """What a plan must know of this model: any tokens may go but those of the key slab."""
        return Host("EVAD", (self.dim,) * self.depth, check=_needs_key_slab, key_frame=True)

    def preprocessing(self) -> Preprocessing:
        size = self.size[0] if self.size[0] == self.size[1] else self.size
        return Preprocessing(self.frames, 4, size, (0.45, 0.45, 0.45), (0.225, 0.225, 0.225), "keyframe")


def _needs_key_slab(block: int, layout: Layout) -> None:
    if not layout.pinned:
        raise SelectionError(
            f"a detector needs every token of its key frame, and at block {block} a part of them may go; give keyframe "
            "or a baseline with a keep= budget, such as keyframe:keep=0.7 or random:keep=0.7"
        )


def key_map(tokens: Tokens) -> Tensor:
    """(B, C, h, w): the tokens of the key slab: the middle of the grid or, once others were dropped, in front."""
    grid = tokens.source
    first = grid.t // 2 * grid.per_frame if tokens.position is None else 0
    slab = tokens.x[:, first : first + grid.per_frame]
    return slab.unflatten(1, (grid.h, grid.w)).permute(0, 3, 1, 2)


def restored_places(tokens: Tokens, restoration: str) -> Tensor | None:
    """(B, K): the flat place in the clip's grid that each token left goes back to; None: all are left, in order."""
    if tokens.position is None or restoration == "exact":
        return tokens.position
    key = tokens.source.per_frame
    return torch.cat([tokens.position[:, :key], tokens.position[:, key:].sort(dim=1).values], dim=1)


# The released sizes; and a small one, whose backbone is that of the packaged JHMDB classifier, to be trained on JHMDB.
SIZES: dict[str, dict[str, object]] = {
    "evad_base": {"dim": 768, "depth": 12, "heads": 12},
    "evad_large": {
        "dim": 1024,
        "depth": 24,
        "heads": 16,
        "decoder_dim": 512,
        "decoder_depth": 12,
        "decoder_heads": 8,
    },
    "evad_tiny": {
        "size": 128,
        "num_classes": 21,
        "dim": 192,
        "depth": 6,
        "heads": 3,
        "positions": "learned",
        "position_grid": (8, 7, 7),
        "width": 64,
        "proposals": 20,
        "proposal_heads": 3,
        "attention_heads": 4,
        "hidden": 256,
        "dynamic": 16,
        "decoder_dim": 96,
        "decoder_depth": 3,
        "decoder_heads": 3,
        "action_dim": 256,
    },
}

__all__ = ["EVAD", "SIZES", "Predictions"]
