"""The layouts in which MViT (version 1) is published: SlowFast and STTS, PyTorchVideo, torchvision.

One set of weights serves all: the names differ, and what no weight tells (strides) is that of the published MViT-B.
STTS's files also hold scorers of frames and regions; which steps they belong to, the selection has to say.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from tubelet.checkpoints.layout import Description, Layout, Rename, Weights
from tubelet.checkpoints.scorers import renames
from tubelet.checkpoints.vit import depth_of, mlp_ratio, most_common, stored_classes
from tubelet.errors import CheckpointError
from tubelet.models.config import ModelConfig, Preprocessing
from tubelet.models.mvit import MViT

PARTS = ("q", "k", "v")
BLOCK = (
    "blocks.{i}.norm1.{p}", "blocks.{i}.norm2.{p}", "blocks.{i}.proj.{p}",
    "blocks.{i}.attn.proj.{p}", "blocks.{i}.mlp.fc1.{p}", "blocks.{i}.mlp.fc2.{p}",
)  # fmt: skip
POOLS = tuple(f"blocks.{{i}}.attn.{name}" for x in PARTS for name in (f"pool_{x}.weight", f"norm_{x}.{{p}}"))
FUSED = "blocks.{i}.attn.qkv.{p}"
APART = tuple(Rename(f"blocks.{{i}}.attn.{x}.{{p}}", FUSED, (n, 3)) for n, x in enumerate(PARTS))
TABLES = ("cls_token", "pos_embed", "pos_embed_spatial", "pos_embed_temporal", "pos_embed_class")

SLOWFAST_RENAMES = (
    *(Rename(name, name) for name in (*TABLES, "patch_embed.proj.{p}", "norm_stem.{p}", "norm.{p}")),
    *(Rename(name, name) for name in (*BLOCK, *POOLS, FUSED)),
    *APART,
    Rename("head.projection.{p}", "head.{p}"),
    *renames(),
)
PYTORCHVIDEO_RENAMES = (
    *(Rename(f"cls_positional_encoding.{name}", name) for name in TABLES),
    Rename("patch_embed.patch_model.{p}", "patch_embed.proj.{p}"),
    *(Rename(name, name) for name in (*BLOCK, *POOLS, FUSED)),
    *APART,
    Rename("norm_embed.{p}", "norm.{p}"),
    Rename("head.proj.{p}", "head.{p}"),
)
TORCHVISION_RENAMES = (
    Rename("conv_proj.{p}", "patch_embed.proj.{p}"),
    Rename("pos_encoding.class_token", "cls_token"),
    Rename("pos_encoding.spatial_pos", "pos_embed_spatial"),
    Rename("pos_encoding.temporal_pos", "pos_embed_temporal"),
    Rename("pos_encoding.class_pos", "pos_embed_class"),
    Rename("blocks.{i}.norm1.{p}", "blocks.{i}.norm1.{p}"),
    Rename("blocks.{i}.norm2.{p}", "blocks.{i}.norm2.{p}"),
    Rename(FUSED, FUSED),
    Rename("blocks.{i}.attn.project.0.{p}", "blocks.{i}.attn.proj.{p}"),
    *(Rename(f"blocks.{{i}}.attn.pool_{x}.pool.weight", f"blocks.{{i}}.attn.pool_{x}.weight") for x in PARTS),
    *(Rename(f"blocks.{{i}}.attn.pool_{x}.norm_act.0.{{p}}", f"blocks.{{i}}.attn.norm_{x}.{{p}}") for x in PARTS),
    Rename("blocks.{i}.mlp.0.{p}", "blocks.{i}.mlp.fc1.{p}"),
    Rename("blocks.{i}.mlp.3.{p}", "blocks.{i}.mlp.fc2.{p}"),
    Rename("blocks.{i}.project.{p}", "blocks.{i}.proj.{p}"),
    Rename("norm.{p}", "norm.{p}"),
    Rename("head.1.{p}", "head.{p}"),
)
# What no weight tells; of the published MViT-B 16x4.
UNSEEN = {"patch_stride": (2, 4, 4), "pool_kv_stride": (1, 8, 8), "eps": 1e-6, "pool_eps": 1e-5}
Q_STRIDE = (1, 2, 2)  # of each block that pools queries
RELEASED_SLOTS = 8
SHAPES = ("dim", "depth", "heads", "mlp_ratio", "patch_kernel", "patch_stride", "dim_mul", "head_mul", "pool_q_stride")
VIEWS = (5, 1)  # clips x crops that are averaged, as published


def describe(weights: Weights, config: dict[str, Any] | None, given: Mapping[str, Any]) -> Description:
    """Everything from names and shapes, but strides."""
    arguments = infer_arguments(weights, given)
    grid = position_grid(weights, arguments, given)
    stride = arguments["patch_stride"]
    height, width = grid[1] * stride[1], grid[2] * stride[2]
    arguments["frames"] = given.get("frames", grid[0] * stride[0])
    arguments["size"] = given.get("size", height if height == width else (height, width))
    base = inspect.signature(MViT).parameters
    same = all(base[key].default == arguments[key] for key in SHAPES)
    model = ModelConfig(
        "mvit_base_16x4" if same else "mvit",
        "mvit",
        arguments,
        position_grid=grid,
        preprocessing=Preprocessing(
            frames=arguments["frames"], size=arguments["size"], sampling="k400", **MViT.normalisation
        ),
        views=VIEWS,
    )
    description = Description(model)
    description.notes.append(
        f"not in the file: queries are pooled by {Q_STRIDE}, the first keys by {arguments['pool_kv_stride']}, tubelets "
        f"begin every {stride}, sampling stride 4, mean 0.45 and deviation 0.225, {VIEWS[0]} x {VIEWS[1]} views"
    )
    if not same and "pool_kv_stride" not in given:
        description.warnings.append(
            f"nothing says by how much keys and values are pooled: {arguments['pool_kv_stride']} in the first block, "
            "as in the published MViT-B; with another stride all answers are wrong: give pool_kv_stride= "
            "(tubelet convert --set)"
        )
    return description


def describe_torchvision(weights: Weights, config: dict[str, Any] | None, given: Mapping[str, Any]) -> Description:
    """torchvision leaves axes of length 1 out of its tables, and has one eps for all norms."""
    for name in TABLES:
        axes = (None, None) if name in ("cls_token", "pos_embed_class") else (None,)
        if name in weights:
            weights.pieces[name] = [piece._replace(tensor=piece.tensor[axes]) for piece in weights.pieces[name]]
    return describe(weights, config, {"pool_eps": 1e-6, **given})


def infer_arguments(weights: Weights, given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of MViT from names and shapes. Raises CheckpointError if a weight it needs is absent."""
    patches = weights.need("patch_embed.proj.weight")  # (C, 3, t, h, w)
    if patches.dim() != 5 or patches.shape[1] != 3:
        raise CheckpointError(
            f"{weights.key_of('patch_embed.proj.weight')} has shape {tuple(patches.shape)}: "
            "(dim, 3, t, h, w) is expected"
        )
    kernel = tuple(patches.shape[2:])
    depth = depth_of(weights)
    entering = ("norm1.{p}", "norm2.{p}", "attn.proj.{p}")
    widths = [_rows(weights, *(f"blocks.{i}.{name}" for name in entering)) for i in range(depth)]
    hidden = [_rows(weights, f"blocks.{i}.mlp.fc1.{{p}}") for i in range(depth)]
    ratios = [mlp_ratio(rows, width) for rows, width in zip(hidden, widths, strict=True) if rows and width]
    kernels = [tuple(t.shape[2:]) for t in weights.tensors("blocks.{i}.attn.pool_{any}") if t.dim() == 5]
    heads = _heads(weights, widths)
    arguments = {
        "num_classes": stored_classes(weights),
        "dim": widths[0] if widths and widths[0] else patches.shape[0],
        "depth": depth,
        "heads": heads[0] if heads else 1,
        "mlp_ratio": most_common(ratios) or 4.0,
        "patch_kernel": kernel,
        "patch_padding": tuple(k // 2 for k in kernel),
        "dim_mul": _growth([*widths, _rows(weights, "norm.{p}", f"blocks.{depth - 1}.mlp.fc2.{{p}}")]),
        "head_mul": _growth(heads),
        "pool_kernel": most_common(kernels) or (3, 3, 3),
        "pool_q_stride": tuple((i, *Q_STRIDE) for i in _pooling(weights, depth, "q")),
        "unpooled_kv": tuple(i for i in range(depth) if i not in _pooling(weights, depth, "k", "v")),
        "qkv_bias": weights.any("blocks.{i}.attn.qkv.bias"),
        "positions": "joint" if "pos_embed" in weights else "separable",
        "class_token": "cls_token" in weights or "pos_embed_class" in weights,
        "norm_stem": weights.any("norm_stem.{p}"),
        **UNSEEN,
    }
    return {**arguments, **{key: given[key] for key in arguments if key in given and key != "num_classes"}}


def position_grid(weights: Weights, arguments: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[int, int, int]:
    """The grid of the position tables: what the user says, or square. Raises CheckpointError if it is neither."""
    if given.get("position_grid"):
        t, h, w = given["position_grid"]
        return t, h, w
    stride, size = arguments["patch_stride"], given.get("size")
    frames = given["frames"] // stride[0] if "frames" in given else None
    joint = arguments["positions"] == "joint"
    name = "pos_embed" if joint else "pos_embed_spatial"
    places = _positions(weights, name) - (joint and arguments["class_token"])
    times = (frames or RELEASED_SLOTS) if joint else _positions(weights, "pos_embed_temporal")
    if joint:
        if places % times:
            token = "" if "cls_token" in weights else f", and there is no {weights.key_of('cls_token')}"
            raise CheckpointError(
                f"{weights.key_of(name)} has {places} positions, which are not those of {times} slots of time{token}: "
                "give the frames the weights were trained with"
            )
        places //= times
    elif frames not in (None, times):
        raise CheckpointError(
            f"{weights.key_of('pos_embed_temporal')} has {times} positions, and frames={given['frames']} has {frames}: "
            "give the frames the weights were trained with, or position_grid= beside others"
        )
    side = math.isqrt(places)
    h, w = (side, side)
    if size is not None:
        height, width = (size, size) if isinstance(size, int) else size
        h, w = height // stride[1], width // stride[2]
    if h * w != places:
        what = f"those of {h} x {w}" if size is not None else "those of a square"
        raise CheckpointError(
            f"{weights.key_of(name)} has {places} positions a frame, not {what}: give the size the weights were "
            "trained with, or position_grid= beside another"
        )
    return times, h, w


def _positions(weights: Weights, name: str) -> int:
    table = weights.need(name)
    if table.dim() != 3 or table.shape[0] != 1:
        shape = tuple(table.shape)
        raise CheckpointError(f"{weights.key_of(name)} has shape {shape}: (1, positions, dim) is expected")
    return table.shape[1]


def _rows(weights: Weights, *patterns: str) -> int:
    """Rows that most weights of these names have."""
    return most_common(t.shape[0] for pattern in patterns for t in weights.tensors(pattern) if t.dim()) or 0


def _heads(weights: Weights, widths: list[int]) -> list[int]:
    """Of each block, by the width of a head in its pooling; without any, heads are as wide as before."""
    heads: list[int] = []
    width_of_head = widths[0] if widths else 0
    for i, width in enumerate(widths):
        pools = (f"blocks.{i}.attn.{kind}_{x}.{{p}}" for kind in ("pool", "norm") for x in PARTS)
        width_of_head = _rows(weights, *pools) or width_of_head
        heads.append(max(width // max(width_of_head, 1), 1))
    return heads


def _growth(sizes: list[int]) -> tuple[tuple[int, float], ...]:
    """(block, factor) wherever a size differs from the one before."""
    pairs = enumerate(pairwise(sizes), start=1)
    return tuple((i, after / before) for i, (before, after) in pairs if before and after and before != after)


def _pooling(weights: Weights, depth: int, *names: str) -> list[int]:
    """Blocks with any weight of such a pooling."""
    kinds = [f"{kind}_{name}" for kind in ("pool", "norm") for name in names]
    return [i for i in range(depth) if any(weights.any(f"blocks.{i}.attn.{kind}.{{p}}") for kind in kinds)]


LAYOUTS = (
    Layout("slowfast", "MViT of SlowFast or STTS", SLOWFAST_RENAMES, (), describe),
    Layout("pytorchvideo", "MViT of PyTorchVideo", PYTORCHVIDEO_RENAMES, (), describe),
    Layout("torchvision", "MViT (version 1) of torchvision", TORCHVISION_RENAMES, (), describe_torchvision),
)
