"""All that is needed, beside the weights, to give the same answer elsewhere: the content of config.json."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from tubelet.errors import CheckpointError
from tubelet.models.fields import (
    COUNT,
    COUNT_OR_0,
    GRID,
    LABELS,
    NOT_NEGATIVE,
    NULL,
    NUMBER,
    POSITIVE,
    SHARE,
    SIZE,
    SWITCH,
    TABLE,
    TEXT,
    any_of,
    check,
    check_names,
    either,
    one_of,
    row,
)

FORMAT = 1
# Fields -> what they may hold.
FIELDS = {
    "model": TEXT, "architecture": TEXT, "arguments": TABLE, "select": TEXT, "position_grid": GRID,
    "preprocessing": TABLE, "views": row(COUNT, 2), "id2label": LABELS, "released_options": TABLE,
}  # fmt: skip
PREPROCESSING = {
    "frames": COUNT, "stride": COUNT, "size": SIZE, "mean": row(NUMBER, 3), "std": row(POSITIVE, 3),
    "sampling": one_of(("uniform", "dense", "k400", "ssv2", "keyframe")),
}  # fmt: skip
# Of the models' constructors; load_model's are checked by it too.
ARGUMENTS = {
    "frames": COUNT, "size": SIZE, "num_classes": COUNT_OR_0, "dim": COUNT, "depth": COUNT,
    "heads": either(COUNT, any_of(COUNT)), "depths": any_of(COUNT), "window_size": row(COUNT, 3), "window": TEXT,
    "patch_norm": SWITCH,
    "mlp_ratio": POSITIVE, "patch_size": COUNT, "tubelet_size": COUNT, "qkv_bias": SWITCH, "positions": TEXT,
    "position_grid": GRID, "class_token": SWITCH, "pool": TEXT, "layer_scale": either(NUMBER, NULL),
    "drop_path": SHARE, "dropout": SHARE, "eps": POSITIVE, "fc_norm_eps": either(POSITIVE, NULL),
    "patch_kernel": row(COUNT, 3), "patch_stride": row(COUNT, 3), "patch_padding": row(COUNT_OR_0, 3),
    "dim_mul": any_of(row(NOT_NEGATIVE, 2)), "head_mul": any_of(row(NOT_NEGATIVE, 2)), "pool_kernel": row(COUNT, 3),
    "pool_q_stride": any_of(row(COUNT_OR_0, 4)), "pool_kv_stride": row(COUNT, 3), "unpooled_kv": any_of(COUNT_OR_0),
    "norm_stem": SWITCH, "pool_eps": POSITIVE,
    "mixing": TEXT, "mixing_div": COUNT, "mixing_layers": either(any_of(COUNT_OR_0), NULL),
    "segment_length": either(COUNT, NULL), "position_init": TEXT, "temporal_rule": TEXT, "frame_shift": TEXT,
    "temporal_depth": COUNT,
    "temporal_heads": either(COUNT, NULL), "temporal_mlp_ratio": POSITIVE, "head_dim": either(COUNT, NULL),
    # of detectors
    "taps": either(row(COUNT_OR_0, 4), NULL), "width": COUNT, "proposals": COUNT, "proposal_heads": COUNT,
    "attention_heads": COUNT, "hidden": COUNT, "dynamic": COUNT, "decoder_dim": COUNT, "decoder_depth": COUNT,
    "decoder_heads": COUNT, "action_dim": COUNT, "roi_extension": row(NUMBER, 2), "restoration": TEXT,
    "resize_when": TEXT,
}  # fmt: skip


@dataclass
class Preprocessing:
    """From a video to what the model takes: which frames, how large, how normalised."""

    frames: int = 16
    stride: int = 4  # frames of the video from one frame of the clip to the next; for sampling="uniform" unused
    size: int | tuple[int, int] = 224  # side, or (height, width)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    sampling: str = "dense"  # a name of tubelet.data.sampling


@dataclass
class ModelConfig:
    """config.json of a saved model."""

    model: str  # the name it was made by, e.g. videomae_base
    architecture: str  # which builder: a key of tubelet.models.registry.ARCHITECTURES
    arguments: dict[str, Any] = field(default_factory=dict)
    select: str = "none"
    position_grid: tuple[int, int, int] | None = None  # grid of tokens that the weights' positions were made for
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    views: tuple[int, int] = (1, 1)  # clips x crops that are averaged
    id2label: dict[int, str] = field(default_factory=dict)
    released_options: dict[str, Any] = field(
        default_factory=dict
    )  # of these weights: "average" of views as released, "trained_selectors", such as {"average": "logits"}

    @property
    def trained_selectors(self) -> list[str]:
        """Keys in the plan (`Plan.selectors`) of the learned selectors whose weights are no random ones."""
        return list(self.released_options.get("trained_selectors", []))

    @trained_selectors.setter
    def trained_selectors(self, keys: list[str]) -> None:
        others = {name: value for name, value in self.released_options.items() if name != "trained_selectors"}
        self.released_options = {**others, "trained_selectors": keys} if keys else others

    def to_json(self) -> dict[str, Any]:
        content = asdict(self)
        content["id2label"] = {str(k): v for k, v in self.id2label.items()}
        return {"format": FORMAT, **content}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> ModelConfig:
        """Raises CheckpointError on another format, a field that is absent, unknown or holds what it cannot."""
        content = dict(content)
        version = content.pop("format", None)
        if type(version) is not int or version != FORMAT:
            raise CheckpointError(f"config.json is not of format {FORMAT}: it was not written by this version")
        check_names(content, FIELDS, "config.json")
        check(content, FIELDS, "config.json")
        preprocessing, arguments = content["preprocessing"], content["arguments"]
        check_names(preprocessing, PREPROCESSING, "preprocessing in config.json")
        check(preprocessing, PREPROCESSING, "preprocessing in config.json")
        check(arguments, ARGUMENTS, "arguments in config.json")
        content["preprocessing"] = Preprocessing(**{k: _tuple(v) for k, v in preprocessing.items()})
        content["arguments"] = {k: _tuple(v) for k, v in arguments.items()}
        content["id2label"] = {int(k): v for k, v in content["id2label"].items()}
        return cls(**{k: _tuple(v) for k, v in content.items()})


def _tuple(value: Any) -> Any:
    return tuple(map(_tuple, value)) if isinstance(value, list) else value
