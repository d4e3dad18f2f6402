"""The clips that a model is evaluated on: as its preprocessing makes them, with its own numbers of the classes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from tubelet.data import open_dataset
from tubelet.data.datasets.base import ClipDataset
from tubelet.data.datasets.registry import READERS, SCENES, split_name
from tubelet.data.datasets.videos import VideoClips
from tubelet.data.scenes import SIZE
from tubelet.errors import TubeletError
from tubelet.evaluation.truth import WithTruth, jhmdb_pixels
from tubelet.models.base import VideoModel


def open_for(
    model: VideoModel,
    data: str | Path,
    *,
    split: str | None = None,
    root: str | Path | None = None,
    views: tuple[int, int] | None = None,
    truth: str | None = None,
    **options: Any,
) -> ClipDataset:
    """A data set as `tubelet.data.open_dataset` finds it, in the views that a model takes.

    Args:
        views: (clips, crops) instead of those saved with the model; scenes have one.
        truth: of JHMDB "box" or "silhouette", to judge where a selection looks; that of scenes is always there.
        options: of open_dataset, before what the model's preprocessing says.

    Raises TubeletError where its classes are not those of the model.
    """
    name, named = split_name(data)
    p, names = model.config.preprocessing, class_names(model)
    if name in SCENES:
        if views not in (None, (1, 1)):
            raise TubeletError(f"scenes are seen in one view, 1x1; got {views[0]}x{views[1]}")  # type: ignore[index]
        given: dict[str, Any] = {
            "frames": p.frames, "size": p.size, "curriculum": False, "fresh": False,
            "tubelet": scene_tubelet(model, options.get("frames", p.frames)),
        }  # fmt: skip
    else:
        clips, crops = views or model.config.views
        given = {
            **asdict(p), "clips": clips, "crops": crops, "root": root, "labels": None if name in READERS else names,
        }  # fmt: skip
    dataset = open_dataset(name, split=split or named, **{**given, **options})
    check_classes(model, dataset, str(data))
    if truth is None:
        return dataset
    if name != "jhmdb" or not isinstance(dataset, VideoClips):
        raise TubeletError(f"truth={truth!r}: only JHMDB has boxes and silhouettes; scenes bring their own")
    grid = model.grid_of(dataset.frames, *dataset.size)
    return WithTruth(dataset, jhmdb_pixels(truth, Path(root) if root else None), grid)


def scene_tubelet(model: VideoModel, frames: int) -> tuple[int, int, int]:
    """Frames, rows and columns of one of the model's tokens: what the truth of scenes counts in."""
    grid = model.grid_of(frames, SIZE, SIZE)
    return frames // grid.t, SIZE // grid.h, SIZE // grid.w


def protocol_of(model: VideoModel, dataset: ClipDataset) -> dict[str, Any]:
    """How the clips of a data set are made, for rows to say what they belong to."""
    found: dict[str, Any] = asdict(model.config.preprocessing)
    inner = getattr(dataset, "dataset", dataset)
    if isinstance(inner, VideoClips):
        found |= {"frames": inner.frames, "size": inner.size, **asdict(inner.views)}
        del found["flip"]  # of training
    if isinstance(dataset, WithTruth):
        found["truth"] = type(dataset.pixels).__name__.strip("_").lower()
    return found


def views_of(dataset: ClipDataset) -> tuple[int, int]:
    """(clips, crops)"""
    inner = getattr(dataset, "dataset", dataset)
    return (inner.views.clips, inner.views.crops) if isinstance(inner, VideoClips) else (1, 1)


def class_names(model: VideoModel) -> list[str] | None:
    """Names of the classes in the order of their numbers; None where the model does not know them all."""
    names = model.config.id2label
    numbers = range(model.num_classes)
    return [names[i] for i in numbers] if all(i in names for i in numbers) and names else None


def check_classes(model: VideoModel, dataset: ClipDataset, data: str) -> None:
    """Raises TubeletError if the numbers of the data set's classes are not those of the model's."""
    if model.head is None:
        raise TubeletError(f"{model.config.model} was saved without a classifier: it gives features, no answer")
    names = class_names(model)
    if names is None and len(dataset.labels) > model.num_classes:
        raise TubeletError(f"{data} has {len(dataset.labels)} classes, the model {model.num_classes}")
    if names is not None and list(dataset.labels) != names:
        at = next((i for i, pair in enumerate(zip(dataset.labels, names, strict=False)) if pair[0] != pair[1]), None)
        where = f"class {at} is {dataset.labels[at]!r} there and {names[at]!r} here" if at is not None else ""
        counts = f"{data} has {len(dataset.labels)} classes, the model {len(names)}"
        raise TubeletError(f"the classes of {data} are not those of the model: {where or counts}")
