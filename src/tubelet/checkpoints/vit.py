"""What the shapes of a video ViT's weights say about its arguments."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from tubelet.checkpoints.layout import Description, Weights, matches
from tubelet.errors import CheckpointError
from tubelet.models.config import ModelConfig, Preprocessing
from tubelet.models.vit import SIZES

T = TypeVar("T")
# Where the models of the project have their classifiers: the layer that ends in classes.
CLASSIFIERS = ("head.{p}", "context.classifiers.{i}.logits.{p}")
# No weight tells the number of heads. By width: VideoMAE S, B, L, H and VideoMAE V2 g.
HEADS = {384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16}
RELEASED_FRAMES, RELEASED_SIZE = 16, 224
# How the released models were tested, by their number of classes: the name, sampling, views.
PROTOCOLS: dict[int, tuple[str, str, tuple[int, int]]] = {
    400: ("Kinetics-400", "k400", (5, 3)),
    174: ("Something-Something V2", "ssv2", (2, 3)),
}
TRUNK_NORM = "the norm of a trunk without classifier: the mean of the tokens is normalised instead, as in fine-tuning"


def infer_arguments(weights: Weights, given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of tubelet.models.vit.ViT from names and shapes; what was given goes first where no shape tells.

    Raises CheckpointError if a weight it needs is absent, or if only an argument can say what is missing.
    """
    patches = weights.need("patch_embed.proj.weight")  # (C, 3, t, p, p)
    if patches.dim() != 5 or patches.shape[1] != 3 or patches.shape[3] != patches.shape[4]:
        raise CheckpointError(
            f"{weights.key_of('patch_embed.proj.weight')} has shape {tuple(patches.shape)}: "
            "(dim, 3, t, p, p) is expected"
        )
    dim = most_common(t.shape[0] for t in weights.tensors("blocks.{i}.norm{i}.{p}") if t.dim()) or patches.shape[0]
    hidden = most_common(t.shape[0] for t in weights.tensors("blocks.{i}.mlp.fc1.{p}") if t.dim()) or 4 * dim
    heads = given.get("heads", HEADS.get(dim))
    if heads is None:
        known = ", ".join(f"{heads} for {width}" for width, heads in HEADS.items())
        raise CheckpointError(
            f"weights do not show the number of heads, and width {dim} is not a known one ({known}): give heads= "
            "(tubelet convert --set)"
        )
    arguments = {
        "num_classes": stored_classes(weights),
        "dim": dim,
        "depth": depth_of(weights),
        "heads": heads,
        "mlp_ratio": mlp_ratio(hidden, dim),
        "patch_size": patches.shape[3],
        "tubelet_size": patches.shape[2],
        "qkv_bias": weights.any("blocks.{i}.attn.q_bias") or weights.any("blocks.{i}.attn.v_bias"),
        "positions": "learned" if "pos_embed" in weights else "sinusoid",
        "class_token": "cls_token" in weights,
        "pool": "mean" if has_mean_head(weights) else "first",
        "layer_scale": 1.0 if weights.any("blocks.{i}.gamma_{i}") else None,
        "frames": given.get("frames", RELEASED_FRAMES),
        "size": given.get("size", RELEASED_SIZE),
    }
    return arguments


def guesses(weights: Weights, arguments: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """What infer_arguments could not know, in words for a warning."""
    found = []
    if "heads" not in given:
        found.append(
            f"nothing says how many heads the attention has: {arguments['heads']} are taken, as in the released model "
            f"of width {arguments['dim']}; with another number all answers are wrong: give heads= "
            "(tubelet convert --set)"
        )
    if not arguments["qkv_bias"] and "qkv_bias" not in given:
        found.append(
            "there are no biases of query and value, as in a model made without them; all released VideoMAE files have "
            "some, and some versions of transformers lose them when they save: give qkv_bias=False if that is right"
        )
    return found


def learned_grid(weights: Weights, arguments: Mapping[str, Any]) -> tuple[int, int, int] | None:
    """The grid of a learned position table: that of the arguments, or square frames. None: the table is not learned."""
    if arguments["positions"] != "learned":
        return None
    table = weights.need("pos_embed")
    if table.dim() != 3:
        raise CheckpointError(
            f"{weights.key_of('pos_embed')} has shape {tuple(table.shape)}: (1, positions, dim) is expected"
        )
    positions = table.shape[1] - int(arguments["class_token"])
    size = arguments["size"]
    height, width = (size, size) if isinstance(size, int) else size
    patch, t = arguments["patch_size"], arguments["frames"] // arguments["tubelet_size"]
    if t * (height // patch) * (width // patch) == positions:
        return t, height // patch, width // patch
    side = math.isqrt(positions // max(t, 1))
    if t * side * side != positions:
        raise CheckpointError(
            f"{weights.key_of('pos_embed')} has {positions} positions, not those of {arguments['frames']} frames of "
            f"{height} x {width} nor of square ones: give the frames and the size the weights were trained with"
        )
    return t, side, side


def finish(weights: Weights, config: ModelConfig, given: Mapping[str, Any]) -> Description:
    """What holds for every VideoMAE, wherever it was published: a trunk alone, the test protocol, the name."""
    description = Description(config)
    arguments = config.arguments
    if not has_mean_head(weights) and stored_classes(weights) is None and given.get("pool") != "first":
        arguments["pool"] = "mean"
        weights.drop("norm.{p}", TRUNK_NORM)
        description.begin["fc_norm.{p}"] = "weight 1, bias 0: the file has no norm after the mean of the tokens"
    classes = given.get("num_classes", arguments["num_classes"])
    if classes in PROTOCOLS:
        dataset, config.preprocessing.sampling, config.views = PROTOCOLS[classes]
        clips, crops = config.views
        description.notes.append(
            f"{classes} classes are taken for {dataset}, tested as published: sampling "
            f"{config.preprocessing.sampling}, {clips} clips x {crops} crops"
        )
    config.model = _name(arguments)
    return description


def stored_classes(weights: Weights) -> int | None:
    """Rows of the classifier; None if there is none. Raises CheckpointError if its weights differ in that."""
    names = [name for name in weights.pieces if any(matches(pattern, name) for pattern in CLASSIFIERS)]
    found = {weights.key_of(name): weights.need(name) for name in names}
    rows = {key: tensor.shape[0] for key, tensor in found.items() if tensor.dim()}
    if len(set(rows.values())) > 1:
        what = " and ".join(f"{key} of {count}" for key, count in rows.items())
        raise CheckpointError(f"the weights have {what} classes, which should be as many")
    return next(iter(rows.values()), None)


def has_mean_head(weights: Weights) -> bool:
    return weights.any("fc_norm.{p}")


def released_preprocessing(arguments: Mapping[str, Any]) -> Preprocessing:
    return Preprocessing(frames=arguments["frames"], size=arguments["size"])


def mlp_ratio(hidden: int, dim: int) -> float:
    """The ratio r with int(dim * r) == hidden, whatever the rounding."""
    ratio = hidden / dim
    return ratio if int(dim * ratio) == hidden else (hidden + 0.5) / dim


def depth_of(weights: Weights, stem: str = "blocks.") -> int:
    """Blocks up to the last whole one: a stray key of a block far behind is no reason to build it."""
    names = (name.removeprefix(stem) for name in weights.pieces if name.startswith(stem))
    keys = Counter(int(name.split(".")[0]) for name in names)
    return max((i for i, count in keys.items() if 2 * count > max(keys.values())), default=-1) + 1


def most_common(sizes: Iterable[T]) -> T | None:
    """One weight of a wrong shape does not decide: it is named when the shapes are compared."""
    return next((size for size, _ in Counter(sizes).most_common(1)), None)


def _name(arguments: Mapping[str, Any]) -> str:
    usual = {"mlp_ratio": 4.0, "patch_size": 16, "tubelet_size": 2}
    for name, size in SIZES.items():
        if all(arguments[key] == value for key, value in {**size, **usual}.items()):
            return name
    return "videomae"
