"""What a config describes, made: the clips to train on and to judge on, the model, the optimizer."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tubelet.checkpoints import load_model, packaged_models
from tubelet.checkpoints.backbone import load_backbone
from tubelet.data import open_dataset
from tubelet.data.datasets import VideoClips
from tubelet.data.datasets.base import ClipDataset
from tubelet.data.datasets.keyframes import KeyframeClips, open_keyframes
from tubelet.data.randaugment import Augment
from tubelet.errors import TubeletError
from tubelet.models.base import VideoModel
from tubelet.models.config import Preprocessing
from tubelet.models.evad import EVAD
from tubelet.models.registry import MODELS, create_model
from tubelet.models.vit import ViT
from tubelet.training.config import TrainConfig
from tubelet.training.groups import parameter_groups

Note = Callable[[str], None]


def data_and_model(
    config: TrainConfig, note: Note = lambda sentence: None
) -> tuple[ClipDataset, ClipDataset | None, VideoModel]:
    """The clips to train on, those to judge on, and the model: its classes are the data's, its clips the model's."""
    labels = open_clips(config, train=True).labels
    given = config.model
    arguments = dict(given.options)
    arguments.setdefault("num_classes", 0 if config.task == "pretrain" else len(labels))
    if given.weights is not None:
        model = _begun(config, labels, arguments, note)
    else:
        model = create_model(given.name, select=given.select or "none", **arguments)
    if config.groups.layer_decay < 1 and not isinstance(model, ViT):
        raise TubeletError(f"groups.layer_decay counts the blocks of a ViT; {model.config.model} is none")
    data = open_clips(config, train=True, model=model)
    val = None if config.val is None else open_clips(config, train=False, model=model, labels=labels)
    if model.num_classes and model.num_classes != len(labels):
        raise TubeletError(f"the model has {model.num_classes} classes, {config.data.name} has {len(labels)}")
    views = data.views if isinstance(data, VideoClips) else None
    stride = data.stride if isinstance(data, KeyframeClips) else views.stride if views else 1
    model.config.preprocessing = Preprocessing(
        frames=model.frames,
        stride=stride,
        size=model.size[0] if model.size[0] == model.size[1] else model.size,
        mean=data.mean,
        std=data.std,
        sampling=views.sampling if views else "dense",
    )
    model.config.trained_selectors = model.plan.learned
    if isinstance(val, VideoClips):
        model.config.views = (val.views.clips, val.views.crops)
    if model.num_classes:
        model.config.id2label = dict(enumerate(labels))
    return data, val, model


def open_clips(
    config: TrainConfig, *, train: bool, model: VideoModel | None = None, labels: list[str] | None = None
) -> ClipDataset:
    """`data` or `val` of a config, for the clips of a model. Without one only the labels are right."""
    section = config.data if train else config.val
    assert section is not None
    options = dict(section.options)
    options.setdefault("seed", config.seed if train else 0)
    if config.task == "detect":
        if model is not None:
            options |= {"frames": model.frames, "short": min(model.size)}
        if labels is not None and Path(section.name).is_file():
            options.setdefault("labels", labels)  # a csv of boxes; the data sets by name have classes of their own
        clips = open_keyframes(section.name, train=train, **options)
        if labels is not None and clips.labels != labels:
            what = f"{len(clips.labels)} classes, which are not the {len(labels)} of {config.data.name} in their order"
            raise TubeletError(f"{section.name}: has {what}; val is judged by the classes of data")
        return clips
    if model is not None:
        options["frames"], options["size"] = model.frames, model.size
        if train and (augment := Augment.of(config.augment.randaugment, config.augment.colour, config.augment.erasing)):
            options["finish"] = augment
    if labels is not None and not section.name.startswith("scenes"):
        options.setdefault("labels", labels)
    return open_dataset(section.name, train=train, **options)


def optimizer_of(module: nn.Module, config: TrainConfig, model: VideoModel) -> torch.optim.Optimizer:
    given = config.optimizer
    groups = parameter_groups(module, given.lr, given.weight_decay, config.groups, len(model.host().widths))
    if given.name == "sgd":
        return torch.optim.SGD(groups, momentum=given.momentum, nesterov=given.nesterov and given.momentum > 0)
    return torch.optim.AdamW(groups, betas=given.betas)


def _begun(config: TrainConfig, labels: list[str], arguments: dict[str, Any], note: Note) -> VideoModel:
    """A model from `model.weights`: with their classifier where it is for the same classes, else with a new one."""
    given, classes = config.model, arguments["num_classes"]
    assert given.weights is not None
    if config.task == "detect" and given.name and not _is_detector(given.weights):
        model = create_model(given.name, select=given.select or "none", **arguments)
        for line in load_backbone(model, given.weights).lines():
            note(line)
        return model
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        head = given.head or ("stored" if not classes or _has_classes(given.weights, labels) else "new")
        del said[:]  # of the look at its classes
        model = load_model(given.weights, select=given.select, head=head, **arguments)
    for warning in said:
        note(str(warning.message))
    if given.name:
        _check_name(given.name, model)
        model.config.model = given.name
    return model


def _check_name(name: str, model: VideoModel) -> None:
    """Raises TubeletError if weights are of another architecture than the name beside them says."""
    if name in MODELS and MODELS[name][0] != model.config.architecture:
        raise TubeletError(f"model.name is {name}, and its weights are those of a {model.config.architecture}")
    if name not in MODELS and name not in packaged_models():
        raise TubeletError(f"no model {name!r}; there are {', '.join([*MODELS, *packaged_models()])}")


def _is_detector(weights: Path) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return isinstance(load_model(weights), EVAD)
        except TubeletError:  # load_backbone says what is wrong
            return False


def _has_classes(weights: Path, labels: list[str]) -> bool:
    try:
        stored = load_model(weights)
    except TubeletError:  # it has no classifier at all, or load_model says what is wrong the second time
        return False
    return list(stored.config.id2label.values()) == list(labels)
