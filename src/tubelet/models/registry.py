"""Models by name: `create_model("videomae_base", num_classes=7, select="sta:r=64")`."""

from __future__ import annotations

import inspect
from copy import deepcopy
from fnmatch import fnmatch
from typing import Any

import torch
from torch import Tensor

from tubelet.errors import TubeletError, suggestion
from tubelet.models.base import VideoModel
from tubelet.models.config import ModelConfig, Preprocessing
from tubelet.models.evad import EVAD
from tubelet.models.evad import SIZES as EVAD_SIZES
from tubelet.models.mvit import SIZES as MVIT_SIZES
from tubelet.models.mvit import MViT
from tubelet.models.video_swin import SIZES as SWIN_SIZES
from tubelet.models.video_swin import VideoSwin
from tubelet.models.vit import SIZES as VIT_SIZES
from tubelet.models.vit import ViT
from tubelet.models.xvit import SIZES as XVIT_SIZES
from tubelet.models.xvit import XViT
from tubelet.selection.plan import Kept
from tubelet.selection.registry import build_plan

# architecture: its builder, and the named sizes of it
BUILDERS: dict[str, tuple[type[VideoModel], dict[str, dict[str, Any]]]] = {
    "vit": (ViT, VIT_SIZES),
    "mvit": (MViT, MVIT_SIZES),
    "video_swin": (VideoSwin, SWIN_SIZES),
    "xvit": (XViT, XVIT_SIZES),
    "evad": (EVAD, EVAD_SIZES),
}
ARCHITECTURES = {name: builder for name, (builder, _) in BUILDERS.items()}
MODELS = {model: (name, sizes[model]) for name, (_, sizes) in BUILDERS.items() for model in sizes}


def list_models(pattern: str = "*") -> list[str]:
    """Names for create_model, all or those that match a pattern with * and ?."""
    return [name for name in MODELS if fnmatch(name, pattern)]


def create_model(name: str, *, select: str = "none", **arguments: Any) -> VideoModel:
    """A model with random weights, in evaluation mode.

    Args:
        name: one of list_models().
        select: a selection spec, such as "sta:r=64" (see tubelet.list_selectors()).
        arguments: what differs from the named size: frames, size, num_classes, and every width, depth and head count.

    Raises TubeletError on an unknown name or argument; SpecError, SelectionError on a selection that cannot be right.
    """
    if name not in MODELS:
        raise TubeletError(f"no model {name!r}; there are {', '.join(MODELS)}{suggestion(name, MODELS)}")
    architecture, sizes = MODELS[name]
    return build_model(ModelConfig(name, architecture, {**sizes, **arguments}, select=select))


def build_model(config: ModelConfig) -> VideoModel:
    """The model that a config describes, with random weights, in evaluation mode. `model.config` is a full copy."""
    config = deepcopy(config)
    if config.architecture not in ARCHITECTURES:
        raise TubeletError(f"no architecture {config.architecture!r}; there are {', '.join(ARCHITECTURES)}")
    builder = ARCHITECTURES[config.architecture]
    known = [p for p in inspect.signature(builder).parameters if p != "plan"]
    if unknown := [a for a in config.arguments if a not in known]:
        hint = suggestion(unknown[0], known)
        raise TubeletError(f"{config.model} has no argument {unknown[0]!r}; its arguments are {', '.join(known)}{hint}")
    arguments = dict(config.arguments)
    if config.position_grid is not None:
        if "position_grid" not in known:
            raise TubeletError(f"{config.model} has no table of positions, so no position_grid {config.position_grid}")
        arguments["position_grid"] = config.position_grid
    model = builder(**arguments)
    config.position_grid = (*model.position_grid,) if model.position_grid else None
    if config.preprocessing == Preprocessing():  # none was given: that of the architecture at its size
        config.preprocessing = model.preprocessing()
    model.config = config
    model.set_plan(build_plan(config.select, model.host()))
    return model.eval()


def set_selection(model: VideoModel, select: str) -> VideoModel:
    """Give a model another selection, in place; "none" makes it dense. Returns the model.

    A learned selector keeps its weights where the new selection has the same one before the same block, whatever it
    keeps there; others begin random, and count as untrained.

    Raises SpecError on a spec that cannot be read, SelectionError where it cannot be right on this model.
    """
    plan = build_plan(select, model.host())
    known = plan.inherit(model.plan)
    model.set_plan(plan)
    model.config.trained_selectors = [key for key in model.config.trained_selectors if key in known]
    return model


def trace(model: VideoModel, clip: Tensor) -> list[Kept]:
    """What each selection step keeps of clips (B, 3, T, H, W): positions, mask and scores; [] for a dense model."""
    record: list[Kept] = []
    with torch.no_grad():
        model(clip, record)
    return record
