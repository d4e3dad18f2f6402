"""A detector that begins with the backbone of a classifier, or of a pre-training."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from tubelet.checkpoints.load import load_model
from tubelet.checkpoints.report import Report, name_some
from tubelet.errors import CheckpointError
from tubelet.models.base import VideoModel
from tubelet.models.evad import EVAD
from tubelet.models.layers import resize_positions
from tubelet.models.vit import ViT


def load_backbone(model: VideoModel, source: str | Path) -> Report:
    """Put the weights of a video ViT (anything load_model takes: VideoMAE, VideoMAE V2, a packaged classifier, ...)
    into the backbone of a detector, in place; the rest of it stays as it is.

    Learned positions are resized to the detector's `position_grid`. Returns what became of each key.
    Raises CheckpointError if the source is no video ViT, or of other sizes.
    """
    if not isinstance(model, EVAD):
        raise CheckpointError(f"{model.config.model} is no detector: load_model gives it weights")
    backbone = model.backbone
    heads = backbone.blocks[0].attn.heads  # type: ignore[union-attr]  # in no file, but known here
    trunk = load_model(source, num_classes=0, select="none", heads=heads, pool="mean")
    if not isinstance(trunk, ViT) or trunk.cls_token is not None:
        raise CheckpointError(f"{source} is no plain video ViT without class token: no detector can begin with it")
    found, wanted = trunk.state_dict(), backbone.state_dict()
    if lost := [name for name in wanted if name not in found]:
        raise CheckpointError(f"the weights of {source} lack {name_some(lost)}, which the backbone has")
    if more := [name for name in found if name not in wanted]:
        raise CheckpointError(
            f"the backbone lacks {name_some(more)} of {source}: make the detector with the same arguments (positions, "
            "layer_scale, qkv_bias)"
        )
    if "pos_embed" in wanted:
        table: Tensor = found["pos_embed"]
        found["pos_embed"] = resize_positions(table, trunk.position_grid, model.position_grid)
    different = [
        f"{name} {tuple(found[name].shape)} where {tuple(tensor.shape)} is expected"
        for name, tensor in wanted.items()
        if found[name].shape != tensor.shape
    ]
    if different:
        raise CheckpointError(f"the weights of {source} do not fit the backbone: {name_some(different)}")
    with torch.no_grad():
        backbone.load_state_dict(found)
    report = trunk.report
    assert isinstance(report, Report)
    return report
