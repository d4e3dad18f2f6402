"""The layouts of X-ViT's released files, with its temporal head or with averaging, and of the image ViT it begins from.

No file says how it mixes: the configurations released with the code do, by data set. `new_fc` is the classifier of
averaged frames; beside the temporal head it is there and unused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tubelet.checkpoints.layout import Description, Layout, Rename, Weights
from tubelet.checkpoints.vit import HEADS, depth_of, mlp_ratio, most_common, stored_classes
from tubelet.errors import CheckpointError
from tubelet.models.config import ModelConfig, Preprocessing
from tubelet.models.xvit import SIZES, XViT

TRUNK = (
    "patch_embed.proj.{p}", "cls_token", "pos_embed", "norm.{p}", "blocks.{i}.norm1.{p}", "blocks.{i}.norm2.{p}",
    "blocks.{i}.attn.qkv.{p}", "blocks.{i}.attn.proj.{p}", "blocks.{i}.mlp.fc1.{p}", "blocks.{i}.mlp.fc2.{p}",
)  # fmt: skip
BACKBONE = tuple(Rename(f"base_model.{name}", name) for name in (*TRUNK, "temp_embed"))
TEMPORAL_BLOCK = ("norm1.{p}", "norm2.{p}", "attn.qkv.weight", "attn.proj.{p}", "mlp.fc1.{p}", "mlp.fc2.{p}")
TEMPORAL_HEAD = (
    Rename("consensus.cls_token", "temporal.cls_token"),
    *(Rename(f"consensus.temporal_encoder.{{i}}.{n}", f"temporal.blocks.{{i}}.{n}") for n in TEMPORAL_BLOCK),
    Rename("consensus.mlp_head.0.{p}", "temporal.norm.{p}"),
    Rename("consensus.mlp_head.1.{p}", "temporal.fc.{p}"),
    Rename("consensus.mlp_head.4.{p}", "head.{p}"),
)
# The released configurations: what they say of the model, and of the clips it was tested on.
KINETICS = {"frames": 16, "mixing_div": 8, "segment_length": 8}, {"stride": 16, "sampling": "dense"}
SSV2 = {"frames": 16, "mixing_div": 4, "segment_length": 16}, {"stride": 1, "sampling": "uniform"}
IMAGE = {"frames": 8, "mixing_div": 8, "segment_length": None}, {"stride": 16, "sampling": "dense"}
VIEWS = (1, 3)


def describe(weights: Weights, config: dict[str, Any] | None, given: Mapping[str, Any]) -> Description:
    """A released X-ViT: what its keys and shapes do not say is that of the configuration for its data."""
    ssv2 = stored_classes(weights) == 174
    released, clips = SSV2 if ssv2 else KINETICS
    times = weights.need("temp_embed").shape
    if len(times) != 4:
        key = weights.key_of("temp_embed")
        raise CheckpointError(f"{key} has shape {tuple(times)}: (1, frames, 1, dim) is expected")
    arguments, (_, h, w) = _arguments(weights, given, released)
    arguments["temporal_rule"] = "modulo"
    if weights.layout is AVERAGE:
        arguments["pool"] = "average"
    else:
        block = "temporal.blocks.{i}.mlp."
        hidden = _width(weights, (block + "fc1.{p}", 0), (block + "fc2.weight", 1)) or 4 * arguments["dim"]
        arguments |= {
            "temporal_depth": depth_of(weights, "temporal.blocks."),
            "temporal_mlp_ratio": mlp_ratio(hidden, arguments["dim"]),
            "head_dim": _width(weights, ("temporal.fc.{p}", 0), ("head.weight", 1)),
        }
    made = ModelConfig(_name(arguments), "xvit", arguments, position_grid=(times[1], h, w))
    made.preprocessing = _preprocessing(arguments, clips)
    made.views = VIEWS
    made.released_options = {"average": "logits"}
    description = Description(made)
    if guessed := [name for name in ("mixing_div", "segment_length") if name not in given]:
        taken = ", ".join(f"{name}={arguments[name]}" for name in guessed)
        needed = " and ".join(f"{name}=" for name in guessed)
        data = "Something-Something" if ssv2 else "Kinetics"
        description.warnings.append(
            f"nothing says how its frames mix: {taken} is taken, as in the released configuration for {data}; with "
            f"another all answers are wrong: give {needed} (tubelet convert --set)"
        )
    _tell(description, given)
    return description


def describe_image(weights: Weights, config: dict[str, Any] | None, given: Mapping[str, Any]) -> Description:
    """An X-ViT that begins as an image ViT: all that is of time is new."""
    released, clips = IMAGE
    arguments, (_, h, w) = _arguments(weights, given, released)
    made = ModelConfig(_name(arguments), "xvit", arguments, position_grid=(arguments["frames"], h, w))
    made.preprocessing = _preprocessing(arguments, clips)
    begin = {
        "temp_embed": "zeros: an image model knows no time",
        "temporal.{any}": "random: the transformer over the frames, to be trained",
        "temporal.cls_token": "zeros: of the transformer over the frames, to be trained",
    }
    description = Description(made, begin=dict(reversed(begin.items())))  # the first that fits counts
    description.warnings.append(
        f"a ViT of images: it becomes an X-ViT whose frames mix with mixing_div={given.get('mixing_div', 8)}, without "
        "the classifier of images; all that is of time is new, so train it"
    )
    _tell(description, given)
    return description


def _arguments(
    weights: Weights, given: Mapping[str, Any], released: Mapping[str, Any]
) -> tuple[dict[str, Any], tuple[int, int, int]]:
    """Arguments of XViT that names and shapes show, the others as given or released; and the grid of its positions."""
    patches = weights.need("patch_embed.proj.weight")  # (C, 3, p, p)
    if patches.dim() != 4 or patches.shape[1] != 3 or patches.shape[2] != patches.shape[3]:
        raise CheckpointError(
            f"{weights.key_of('patch_embed.proj.weight')} has shape {tuple(patches.shape)}: (dim, 3, p, p) is expected"
        )
    dim = _width(weights, ("blocks.{i}.norm{i}.{p}", 0)) or patches.shape[0]
    hidden = _width(weights, ("blocks.{i}.mlp.fc1.{p}", 0)) or 4 * dim
    heads = given.get("heads", HEADS.get(dim))
    if heads is None:
        known = ", ".join(f"{heads} for {width}" for width, heads in HEADS.items())
        raise CheckpointError(
            f"weights do not show the number of heads, and width {dim} is not a known one ({known}): give heads= "
            "(tubelet convert --set)"
        )
    patch = patches.shape[2]
    h, w = _picture(weights, given.get("size"), patch)
    arguments = {
        "num_classes": stored_classes(weights),
        "dim": dim,
        "depth": depth_of(weights),
        "heads": heads,
        "mlp_ratio": mlp_ratio(hidden, dim),
        "patch_size": patch,
        "qkv_bias": weights.any("blocks.{i}.attn.qkv.bias"),
        "size": given.get("size", h * patch if h == w else (h * patch, w * patch)),
        "eps": given.get("eps", 1e-6),
        **{name: given.get(name, value) for name, value in released.items()},
    }
    return arguments, (arguments["frames"], h, w)


def _width(weights: Weights, *where: tuple[str, int]) -> int | None:
    """What most weights of these names have in these dimensions: one of a wrong shape does not decide."""
    return most_common(t.shape[axis] for name, axis in where for t in weights.tensors(name) if t.dim() > axis)


def _picture(weights: Weights, size: Any, patch: int) -> tuple[int, int]:
    """Rows and columns of the position table: those of the size given, or of a square."""
    table = weights.need("pos_embed")
    key = weights.key_of("pos_embed")
    if table.dim() != 3:
        raise CheckpointError(f"{key} has shape {tuple(table.shape)}: (1, 1 + n, dim) is expected")
    places = table.shape[1] - 1
    if size is not None:
        height, width = (size, size) if isinstance(size, int) else size
        if (height // patch) * (width // patch) == places:
            return height // patch, width // patch
    side = math.isqrt(max(places, 0))
    if side * side != places or not places:
        raise CheckpointError(f"{key} has {places} positions, not those of a square: give the size, (height, width)")
    return side, side


def _preprocessing(arguments: Mapping[str, Any], clips: Mapping[str, Any]) -> Preprocessing:
    return Preprocessing(frames=arguments["frames"], size=arguments["size"], **clips, **XViT.normalisation)


def _tell(description: Description, given: Mapping[str, Any]) -> None:
    arguments = description.config.arguments
    if "heads" not in given:
        description.warnings.append(
            f"nothing says how many heads the attention has: {arguments['heads']} are taken, as usual for the width "
            f"{arguments['dim']}; with another number all answers are wrong: give heads= (tubelet convert --set)"
        )
    frames, size = arguments["frames"], arguments["size"]
    description.notes.append(f"not in the file: {frames} frames, size {size}, mean and deviation 0.5")


def _name(arguments: Mapping[str, Any]) -> str:
    usual = {"mlp_ratio": 4.0, "patch_size": 16}
    sizes = {name: {**size, **usual} for name, size in SIZES.items()}
    return next((n for n, size in sizes.items() if all(arguments[k] == v for k, v in size.items())), "xvit")


LAYOUT = Layout(
    "xvit",
    "released X-ViT",
    (*BACKBONE, *TEMPORAL_HEAD),
    (("new_fc.{p}", "the classifier of averaged frames: the temporal head has its own"),),
    describe,
)
AVERAGE = Layout(
    "xvit_average", "released X-ViT, frames averaged", (*BACKBONE, Rename("new_fc.{p}", "head.{p}")), (), describe
)
IMAGE_VIT = Layout(
    "timm",
    "an image ViT of timm, to begin an X-ViT from",
    tuple(Rename(name, name) for name in TRUNK),
    (("head.{p}", "the classifier of images"), ("pre_logits.fc.{p}", "of the classifier of images")),
    describe_image,
)
