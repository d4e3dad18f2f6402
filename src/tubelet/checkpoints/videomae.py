"""The layout of the released VideoMAE files (and of STA, VideoMAE V2): fine-tuned, or pre-trained under `encoder.`.

The project's own names are these, so the table only strips the prefix.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tubelet.checkpoints.layout import Description, Layout, Rename, Weights
from tubelet.checkpoints.vit import finish, guesses, infer_arguments, learned_grid, released_preprocessing
from tubelet.models.config import ModelConfig

TRUNK = (
    "patch_embed.proj.{p}", "pos_embed", "cls_token", "norm.{p}",
    "blocks.{i}.norm1.{p}", "blocks.{i}.norm2.{p}", "blocks.{i}.gamma_1", "blocks.{i}.gamma_2",
    "blocks.{i}.attn.qkv.weight", "blocks.{i}.attn.q_bias", "blocks.{i}.attn.v_bias", "blocks.{i}.attn.proj.{p}",
    "blocks.{i}.mlp.fc1.{p}", "blocks.{i}.mlp.fc2.{p}",
)  # fmt: skip
RENAMES = (
    *(Rename(f"[encoder.]{name}", name) for name in TRUNK),
    Rename("fc_norm.{p}", "fc_norm.{p}"),
    Rename("head.{p}", "head.{p}"),
)
PRETRAINING = "of the pre-training decoder"
UNUSED = (
    ("decoder.{any}", PRETRAINING),
    ("encoder_to_decoder.{any}", PRETRAINING),
    ("mask_token", PRETRAINING),
)


def describe(weights: Weights, config: dict[str, Any] | None, given: Mapping[str, Any]) -> Description:
    """Everything from keys and shapes. The released code builds its models with eps 1e-6, for 16 x 224 x 224."""
    arguments = {**infer_arguments(weights, given), "eps": given.get("eps", 1e-6)}
    grid = learned_grid(weights, arguments)
    description = finish(
        weights,
        ModelConfig("videomae", "vit", arguments, position_grid=grid, preprocessing=released_preprocessing(arguments)),
        given,
    )
    description.warnings += guesses(weights, arguments, given)
    description.notes.append(
        f"not in the file: {arguments['heads']} heads, {arguments['frames']} frames, size {arguments['size']}, "
        "stride 4, ImageNet mean and deviation"
    )
    return description


LAYOUT = Layout("videomae", "released VideoMAE, STA", RENAMES, UNUSED, describe)
