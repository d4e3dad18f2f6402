"""The layout of Hugging Face VideoMAE: transformers 4.x (q_bias, v_bias) and 5.x (query.bias, value.bias).

Every published file has the old spelling; some versions of transformers drop those biases without a word. Differences
to the released code that are kept: its own eps, and a last norm with eps 1e-5, whatever the config says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tubelet.checkpoints.layout import Description, Layout, Rename, Weights
from tubelet.checkpoints.vit import (
    finish,
    guesses,
    infer_arguments,
    learned_grid,
    mlp_ratio,
    released_preprocessing,
    stored_classes,
)
from tubelet.errors import CheckpointError
from tubelet.models.config import ModelConfig, Preprocessing
from tubelet.models.fields import COUNT, LABELS, NUMBER, POSITIVE, SIZE, SWITCH, check, row

BLOCK = "[videomae.]encoder.layer.{i}."
ATTENTION = BLOCK + "attention.attention."
RENAMES = (
    Rename("[videomae.]embeddings.patch_embeddings.projection.{p}", "patch_embed.proj.{p}"),
    Rename("[videomae.]embeddings.position_embeddings", "pos_embed"),  # none is published: the table is fixed
    Rename(BLOCK + "layernorm_before.{p}", "blocks.{i}.norm1.{p}"),
    Rename(BLOCK + "layernorm_after.{p}", "blocks.{i}.norm2.{p}"),
    Rename(ATTENTION + "query.weight", "blocks.{i}.attn.qkv.weight", (0, 3)),
    Rename(ATTENTION + "key.weight", "blocks.{i}.attn.qkv.weight", (1, 3)),
    Rename(ATTENTION + "value.weight", "blocks.{i}.attn.qkv.weight", (2, 3)),
    Rename(ATTENTION + "q_bias", "blocks.{i}.attn.q_bias"),
    Rename(ATTENTION + "v_bias", "blocks.{i}.attn.v_bias"),
    Rename(ATTENTION + "query.bias", "blocks.{i}.attn.q_bias"),
    Rename(ATTENTION + "value.bias", "blocks.{i}.attn.v_bias"),
    Rename(BLOCK + "attention.output.dense.{p}", "blocks.{i}.attn.proj.{p}"),
    Rename(BLOCK + "intermediate.dense.{p}", "blocks.{i}.mlp.fc1.{p}"),
    Rename(BLOCK + "output.dense.{p}", "blocks.{i}.mlp.fc2.{p}"),
    Rename("[videomae.]layernorm.{p}", "norm.{p}"),
    Rename("fc_norm.{p}", "fc_norm.{p}"),
    Rename("classifier.{p}", "head.{p}"),
)
PRETRAINING = "of the pre-training decoder"
UNUSED = (
    ("decoder.{any}", PRETRAINING),
    ("encoder_to_decoder.{any}", PRETRAINING),
    ("mask_token", PRETRAINING),
    ("position_embeddings", PRETRAINING),
)
# What transformers takes where config.json is silent.
DEFAULTS: dict[str, Any] = {
    "image_size": 224, "patch_size": 16, "num_channels": 3, "num_frames": 16, "tubelet_size": 2, "hidden_size": 768,
    "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072, "hidden_act": "gelu",
    "layer_norm_eps": 1e-12, "qv_bias": True, "use_mean_pooling": True,
}  # fmt: skip
FIELDS = {
    "image_size": SIZE, "patch_size": SIZE, "num_frames": COUNT, "tubelet_size": COUNT, "hidden_size": COUNT,
    "num_hidden_layers": COUNT, "num_attention_heads": COUNT, "intermediate_size": COUNT, "layer_norm_eps": POSITIVE,
    "qv_bias": SWITCH, "use_mean_pooling": SWITCH, "id2label": LABELS,
}  # fmt: skip
PROCESSOR_FIELDS = {
    "do_rescale": SWITCH, "rescale_factor": POSITIVE, "do_normalize": SWITCH,
    "image_mean": row(NUMBER, 3), "image_std": row(POSITIVE, 3),
}  # fmt: skip
FC_NORM_EPS = 1e-5  # transformers builds fc_norm with nn.LayerNorm's own default
PROCESSOR_MEAN = PROCESSOR_STD = (0.5, 0.5, 0.5)  # what its processor takes where preprocessor_config.json is silent


def describe(weights: Weights, config: dict[str, Any] | None, given: Mapping[str, Any]) -> Description:
    """From config.json; without one from the shapes, with the eps of transformers."""
    notes, warnings = [], []
    if config is None:
        arguments = {**infer_arguments(weights, given), "eps": given.get("eps", DEFAULTS["layer_norm_eps"])}
        grid = learned_grid(weights, arguments)
        frames, size = arguments["frames"], arguments["size"]
        warnings = guesses(weights, arguments, given)
        notes.append(f"not in the file: {arguments['heads']} heads, {frames} frames, size {size}")
    else:
        arguments = arguments_of(config, weights)
        grid = grid_of(arguments)
    preprocessing = released_preprocessing(arguments)
    made = ModelConfig("videomae", "vit", arguments, position_grid=grid, preprocessing=preprocessing)
    made.id2label = labels_of(config or {})
    description = finish(weights, made, given)
    if given.get("pool", arguments["pool"]) == "mean":
        made.arguments["fc_norm_eps"] = FC_NORM_EPS
    description.notes[:0] = notes
    description.warnings += warnings
    return description


def arguments_of(config: Mapping[str, Any], weights: Weights) -> dict[str, Any]:
    """Arguments of ViT from a config.json. Raises CheckpointError for what the project's ViT does not have."""
    if "qkv_bias" in config:  # the old name
        config = {"qv_bias": config["qkv_bias"], **config}
    c = {**DEFAULTS, **{key: value for key, value in config.items() if value is not None}}
    check(c, FIELDS, "config.json")
    patch, *other = {c["patch_size"]} if isinstance(c["patch_size"], int) else set(c["patch_size"])
    if other:
        raise CheckpointError(f"config.json has patch_size {c['patch_size']}: only square patches can be read")
    for key, allowed in (("hidden_act", "gelu"), ("num_channels", 3)):
        if c[key] != allowed:
            raise CheckpointError(f"config.json has {key} {c[key]!r}: only {allowed!r} can be read")
    size = c["image_size"]
    return {
        "frames": c["num_frames"],
        "size": size if isinstance(size, int) else size[0] if size[0] == size[1] else (size[0], size[1]),
        "num_classes": stored_classes(weights),
        "dim": c["hidden_size"],
        "depth": c["num_hidden_layers"],
        "heads": c["num_attention_heads"],
        "mlp_ratio": mlp_ratio(c["intermediate_size"], c["hidden_size"]),
        "patch_size": patch,
        "tubelet_size": c["tubelet_size"],
        "qkv_bias": c["qv_bias"],
        "positions": "learned" if "pos_embed" in weights else "sinusoid",
        "pool": "mean" if c["use_mean_pooling"] else "first",
        "eps": c["layer_norm_eps"],
    }


def grid_of(arguments: Mapping[str, Any]) -> tuple[int, int, int]:
    size, patch = arguments["size"], arguments["patch_size"]
    height, width = (size, size) if isinstance(size, int) else size
    return arguments["frames"] // arguments["tubelet_size"], height // patch, width // patch


def labels_of(config: Mapping[str, Any]) -> dict[int, str]:
    """id2label; {} where it only holds the names that transformers makes up, LABEL_0, LABEL_1, ..."""
    labels = {int(index): name for index, name in (config.get("id2label") or {}).items()}
    return {} if all(name == f"LABEL_{index}" for index, name in labels.items()) else labels


def read_processor(processor: Mapping[str, Any], preprocessing: Preprocessing) -> list[str]:
    """Take mean and deviation from preprocessor_config.json, in place. Returns what else it says and is not followed.

    Raises CheckpointError for pixel values that are not in 0..1 before they are normalised.
    """
    processor = {key: value for key, value in processor.items() if value is not None}
    check(processor, PROCESSOR_FIELDS, "preprocessor_config.json")
    if not processor.get("do_rescale", True) or abs(processor.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-3:
        raise CheckpointError("preprocessor_config.json does not rescale pixels by 1/255: only that can be read")
    preprocessing.mean = tuple(processor.get("image_mean", PROCESSOR_MEAN))
    preprocessing.std = tuple(processor.get("image_std", PROCESSOR_STD))
    if not processor.get("do_normalize", True):
        preprocessing.mean, preprocessing.std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    short = processor.get("size", 224)
    short = short.get("shortest_edge") if isinstance(short, dict) else short
    size = preprocessing.size
    if isinstance(size, int) and isinstance(short, int) and short != size:
        return [f"preprocessor_config.json resizes the short side to {short}; here it becomes {size}, the crop itself"]
    return []


LAYOUT = Layout(
    "huggingface",
    "Hugging Face VideoMAE, 4.x and 5.x",
    RENAMES,
    UNUSED,
    describe,
    model_types=("videomae",),
    fields=("hidden_size", "num_attention_heads", "num_frames"),
)
