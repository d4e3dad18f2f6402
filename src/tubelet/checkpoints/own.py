"""The project's own layout: the model's names, and a config.json that belongs to the weights beside it.

Both files of a save carry its id, and the header of the weights a copy of the configuration. So files of two saves are
told apart, and of config.json only what does not change the meaning of the weights can be edited: see EDITABLE.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from tubelet.checkpoints.layout import Description, Layout, Rename, Weights
from tubelet.checkpoints.vit import stored_classes
from tubelet.errors import CheckpointError
from tubelet.models.config import ModelConfig
from tubelet.models.registry import ARCHITECTURES

ID = "save"  # the field with the id of the save
EDITABLE = ("model", "select", "preprocessing", "views", "id2label")
NOT_ARGUMENTS = ("plan", "position_grid")  # of the constructors: made of `select`; a field by itself


def describe(weights: Weights, config: dict[str, Any] | None, given: Mapping[str, Any]) -> Description:
    if config is None:
        raise CheckpointError("layout tubelet needs the config.json that was saved with the weights")
    made = ModelConfig.from_json(without_id(config))
    classes, stored = made.arguments.get("num_classes"), stored_classes(weights)
    if classes is not None and stored is not None and classes != stored:
        raise CheckpointError(f"config.json says {classes} classes, the classifier of the weights has {stored}")
    return Description(made)


def compare(config: dict[str, Any], header: dict[str, Any], name: str) -> None:
    """Raises CheckpointError if a config.json is not that of the weights, as their header tells."""
    remedy = "remove config.json to go by the weights, whose header holds a copy of theirs"
    if config.get(ID) != header.get(ID):
        raise CheckpointError(
            f"{name}: config.json and the weights are not of one save, which may have been interrupted: save again, "
            f"or {remedy}"
        )
    here, there = (_meaning(ModelConfig.from_json(without_id(content))) for content in (config, header))
    if changed := [key for key in {**there, **here} if here.get(key) != there.get(key)]:
        raise CheckpointError(
            f"{name}: config.json was edited in {', '.join(changed)}, which the weights do not follow; only "
            f"{', '.join(EDITABLE)} may be: {remedy}"
        )


def all_arguments(config: ModelConfig) -> dict[str, Any]:
    """The arguments of a model with those left to their defaults: these may change, a saved model may not."""
    known = inspect.signature(ARCHITECTURES[config.architecture]).parameters
    defaults = {name: p.default for name, p in known.items() if name not in NOT_ARGUMENTS}
    return {**defaults, **config.arguments}


def without_id(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key != ID}


def _meaning(config: ModelConfig) -> dict[str, Any]:
    """Every field that is not EDITABLE, arguments one by one."""
    known = config.architecture in ARCHITECTURES
    fields = {key: value for key, value in vars(config).items() if key not in (*EDITABLE, "arguments")}
    return {**fields, **(all_arguments(config) if known else config.arguments)}


LAYOUT = Layout("tubelet", "saved by tubelet", (Rename("{any}", "{any}"),), (), describe, fields=("format",))
