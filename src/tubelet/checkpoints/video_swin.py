"""The layouts in which VideoSwin is published: mmaction's (the authors' and STTS's files) and torchvision's swin3d.

One set of weights serves both: the names differ. Frames and size are not in them; nothing depends on them. The index
of pairs that both store beside each table of biases follows from the window; it tells which window that is, and is
checked. STTS's files also hold scorers; which steps they belong to, the selection has to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from math import prod
from typing import Any

import torch
from torch import Tensor

from tubelet.checkpoints import scorers
from tubelet.checkpoints.layout import Description, Layout, Rename, Weights
from tubelet.checkpoints.vit import mlp_ratio, most_common, stored_classes
from tubelet.errors import CheckpointError
from tubelet.models.config import ModelConfig, Preprocessing
from tubelet.models.video_swin import SIZES, STRIDE
from tubelet.models.windows import pair_places

STAGES = 8  # more than anybody publishes
INDEX = "index.{i}.{i}"  # the stored index of a block's pairs, until it is checked
TABLE = "layers.{i}.blocks.{i}.attn.relative_position_bias_table"
BLOCK = ("norm1.{p}", "norm2.{p}", "attn.qkv.{p}", "attn.proj.{p}", "attn.relative_position_bias_table")
MMACTION_RENAMES = (
    *(Rename(f"[backbone.]{name}", name) for name in ("patch_embed.proj.{p}", "patch_embed.norm.{p}", "norm.{p}")),
    *(
        Rename(f"[backbone.]layers.{{i}}.blocks.{{i}}.{name}", f"layers.{{i}}.blocks.{{i}}.{name}")
        for name in (*BLOCK, "mlp.fc1.{p}", "mlp.fc2.{p}")
    ),
    Rename("[backbone.]layers.{i}.blocks.{i}.attn.relative_position_index", INDEX),
    Rename("[backbone.]layers.{i}.downsample.norm.{p}", "layers.{i}.downsample.norm.{p}"),
    Rename("[backbone.]layers.{i}.downsample.reduction.weight", "layers.{i}.downsample.reduction.weight"),
    Rename("cls_head.fc_cls.{p}", "head.{p}"),
    *scorers.renames("[backbone.]"),
)


def _torchvision(stage: int) -> tuple[Rename, ...]:
    """A stage and the merging behind it stand in one list."""
    block, merging = f"features.{2 * stage}.{{i}}.", f"features.{2 * stage + 1}."
    ours, down = f"layers.{stage}.blocks.{{i}}.", f"layers.{stage}.downsample."
    return (
        *(Rename(block + name, ours + name) for name in BLOCK),
        Rename(block + "mlp.0.{p}", ours + "mlp.fc1.{p}"),
        Rename(block + "mlp.3.{p}", ours + "mlp.fc2.{p}"),
        Rename(block + "attn.relative_position_index", f"index.{stage}.{{i}}"),
        Rename(merging + "norm.{p}", down + "norm.{p}"),
        Rename(merging + "reduction.weight", down + "reduction.weight"),
    )


TORCHVISION_RENAMES = (
    *(Rename(name, name) for name in ("patch_embed.proj.{p}", "patch_embed.norm.{p}", "norm.{p}", "head.{p}")),
    *(rename for stage in range(STAGES) for rename in _torchvision(stage)),
)
KNOWN_WINDOWS = ((8, 7, 7), (16, 7, 7))
# As tested by the authors, by classes: sampling, clips x crops.
PROTOCOLS = {400: ("k400", (4, 3)), 600: ("k400", (4, 3)), 174: ("ssv2", (1, 3))}


def describe(weights: Weights, config: dict[str, Any] | None, given: Mapping[str, Any]) -> Description:
    """Everything from names and shapes, but frames and size."""
    arguments, sure = infer_arguments(weights, given)
    window = arguments["window_size"]
    sampling, views = PROTOCOLS.get(given.get("num_classes") or arguments["num_classes"], ("k400", (1, 1)))
    preprocessing = Preprocessing(frames=arguments["frames"], size=arguments["size"], sampling=sampling, stride=STRIDE)
    model = ModelConfig(_name(arguments), "video_swin", arguments, preprocessing=preprocessing, views=views)
    description = Description(model)
    check_index(weights, window)
    description.notes.append(
        f"not in the file: {arguments['frames']} frames, size {arguments['size']}, sampling stride "
        f"{preprocessing.stride}, ImageNet mean and deviation, {views[0]} x {views[1]} views"
    )
    if not sure:
        description.warnings.append(
            f"nothing says which window the table of biases is for: {window} is taken; with another one all answers "
            "are wrong: give window_size= (tubelet convert --set)"
        )
    return description


def infer_arguments(weights: Weights, given: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """Arguments of VideoSwin, and whether the window is sure. Raises CheckpointError if a weight it needs is absent."""
    patches = weights.need("patch_embed.proj.weight")  # (C, 3, t, p, p)
    if patches.dim() != 5 or patches.shape[1] != 3 or patches.shape[3] != patches.shape[4]:
        raise CheckpointError(
            f"{weights.key_of('patch_embed.proj.weight')} has shape {tuple(patches.shape)}: "
            "(dim, 3, t, p, p) is expected"
        )
    dim = patches.shape[0]
    depths = whole_stages(weights)
    if not depths:
        raise CheckpointError(f"the weights hold no whole block: {weights.key_of('layers.0.blocks.0.norm1.weight')}")
    tables = [t for t in weights.tensors(TABLE) if t.dim() == 2]
    heads = [_columns(weights, stage) for stage in range(len(depths))]
    if 0 in heads:
        lost = weights.key_of(f"layers.{heads.index(0)}.blocks.0.attn.relative_position_bias_table")
        raise CheckpointError(f"the weights lack {lost}, which tells the number of heads")
    hidden = [(t.shape[0], t.shape[1]) for t in weights.tensors("layers.0.blocks.{i}.mlp.fc1.weight") if t.dim() == 2]
    window, sure = find_window(weights, most_common(t.shape[0] for t in tables) or 0, given.get("window_size"))
    arguments = {
        "num_classes": stored_classes(weights),
        "dim": dim,
        "depths": depths,
        "heads": tuple(heads),
        "window_size": window,
        "mlp_ratio": mlp_ratio(*(most_common(hidden) or (4 * dim, dim))),
        "patch_size": patches.shape[3],
        "tubelet_size": patches.shape[2],
        "patch_norm": weights.any("patch_embed.norm.{p}"),
        "qkv_bias": weights.any("layers.{i}.blocks.{i}.attn.qkv.bias"),
        "frames": given.get("frames", 32),
        "size": given.get("size", 224),
    }
    return arguments, sure


def whole_stages(weights: Weights) -> tuple[int, ...]:
    """Blocks of each stage up to the last whole one: a stray key far behind is no reason to build it."""
    counts: dict[tuple[int, int], int] = {}
    for name in weights.pieces:
        parts = name.split(".")
        if parts[0] == "layers" and parts[2] == "blocks":
            place = (int(parts[1]), int(parts[3]))
            counts[place] = counts.get(place, 0) + 1
    whole = [place for place, count in counts.items() if 2 * count > max(counts.values())]
    stages = range(max((stage for stage, _ in whole), default=-1) + 1)
    return tuple(max((block + 1 for stage, block in whole if stage == this), default=1) for this in stages)


def find_window(
    weights: Weights, offsets: int, given: tuple[int, int, int] | None
) -> tuple[tuple[int, int, int], bool]:
    """The window of a table of so many offsets, as the stored index tells; without it a known or square one, unsure."""
    if given is not None:
        return (given[0], given[1], given[2]), True
    odd = [n for n in range(1, offsets + 1, 2) if offsets % n == 0]
    fits = [tuple((n + 1) // 2 for n in sides) for sides in product(odd, repeat=3) if prod(sides) == offsets]
    windows = [(t, h, w) for t, h, w in fits]
    for index in weights.tensors(INDEX):
        for window in windows:
            if index.numel() == prod(window) ** 2 and same_index(index, window):
                return window, True
    likely = [window for window in KNOWN_WINDOWS if window in windows]
    likely += [window for window in windows if window[1] == window[2] and window[0] > 1]
    if not likely:
        key = weights.key_of("layers.0.blocks.0.attn.relative_position_bias_table")
        raise CheckpointError(
            f"{key} has {offsets} rows, which no window of square frames has: give window_size= (tubelet convert --set)"
        )
    return likely[0], False


def check_index(weights: Weights, window: tuple[int, int, int]) -> None:
    """Every stored index must be that of the window. Raises CheckpointError with the key of one that is not."""
    for name, pieces in list(weights.pieces.items()):
        if name.startswith("index.") and not same_index(pieces[0].tensor, window):
            raise CheckpointError(
                f"{pieces[0].key} of shape {tuple(pieces[0].tensor.shape)} is not the index of pairs in a window of "
                f"{' x '.join(map(str, window))}"
            )
    weights.drop(INDEX, "places of a window's pairs in its table, which follow from its size; checked")


def same_index(index: Tensor, window: tuple[int, int, int]) -> bool:
    if index.is_floating_point() or index.numel() != prod(window) ** 2:
        return False
    return torch.equal(index.reshape(-1).long(), pair_places(window).reshape(-1))


def _columns(weights: Weights, stage: int) -> int:
    tables = weights.tensors(f"layers.{stage}.blocks.{{i}}.attn.relative_position_bias_table")
    return most_common(t.shape[1] for t in tables if t.dim() == 2) or 0


def _name(arguments: Mapping[str, Any]) -> str:
    usual = {"window_size": (8, 7, 7), "mlp_ratio": 4.0, "patch_size": 4, "tubelet_size": 2}
    for name, size in SIZES.items():
        wanted = {key: value for key, value in {**usual, **size}.items() if key != "num_classes"}
        if all(arguments[key] == value for key, value in wanted.items()):
            return name
    return "videoswin"


LAYOUTS = (
    Layout("mmaction", "VideoSwin of its authors (mmaction) or STTS", MMACTION_RENAMES, (), describe),
    Layout("swin3d", "swin3d of torchvision", TORCHVISION_RENAMES, (), describe),
)
