"""From a file to an answer: decode, crop, run the views a few at a time, average.

>>> model = open_model(select="sta:keep=0.5")  # the weights that come with the package
>>> answer = classify(model, "clip.mp4")
>>> print(answer.labels[0].label, answer.labels[0].score)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from tubelet.checkpoints import default_model, load_model
from tubelet.checkpoints.labels import Labels
from tubelet.data import Clips, load_clips
from tubelet.devices import device_of
from tubelet.errors import SelectionError, TubeletError
from tubelet.models.base import VideoModel
from tubelet.models.evad import EVAD
from tubelet.profiling import count_flops
from tubelet.views import average_of, average_views

# Below this the best class is called unlikely. A heuristic: a softmax is no probability that the answer is right, and
# a network can be sure of a class that has nothing to do with the video.
UNLIKELY = 0.3
VIEWS_AT_ONCE = 4  # so that the model's memory does not grow with the number of views

_gmacs: WeakKeyDictionary[torch.nn.Module, dict[tuple[Any, ...], float]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Label:
    label: str
    score: float


@dataclass(frozen=True)
class Seconds:
    decode: float  # opening, decoding, resizing, normalising
    model: float


@dataclass(frozen=True)
class Answer:
    """What a model says about one video.

    labels:    the best classes, best first; the score is a probability, averaged over the views (views.py)
    views:     (clips, crops) that were averaged
    gmacs:     10^9 multiply-adds of one view
    warnings:  sentences on what is missing from the file
    """

    video: str
    labels: tuple[Label, ...]
    model: str
    select: str
    views: tuple[int, int]
    gmacs: float
    seconds: Seconds
    warnings: tuple[str, ...] = ()

    @property
    def unlikely(self) -> bool:
        """Whether the best score is below UNLIKELY: perhaps no class fits. A heuristic."""
        return self.labels[0].score < UNLIKELY

    def to_json(self) -> dict[str, Any]:
        return {
            "video": self.video,
            "labels": [{"label": label.label, "score": label.score} for label in self.labels],
            "model": self.model,
            "select": self.select,
            "views": f"{self.views[0]}x{self.views[1]}",
            "gmacs": self.gmacs,
            "seconds": {"decode": self.seconds.decode, "model": self.seconds.model},
        }


def open_model(
    source: str | Path | None = None, *, select: str | None = None, labels: Labels | None = None, device: str = "cpu"
) -> VideoModel:
    """A model with weights, ready to answer.

    Args:
        source: what tubelet.load_model takes; None is the model that comes with the package.
        select: a selection spec instead of the one saved with the weights; "none" is the dense model.
        labels: names of the classes instead of those saved: a list, or a file with one a line.
        device: "cpu", "cuda" or "cuda:1".

    Raises TubeletError for a name without weights, and where no answer could come out.
    """
    where = device_of(device)
    model = load_model(default_model() if source is None else source, select=select, labels=labels)
    refuse_untrained(model)
    if model.head is None and not isinstance(model, EVAD):
        raise TubeletError(f"{model.config.model} was saved without a classifier: it gives features, no answer")
    return model.to(where)


def classify(
    model: VideoModel,
    path: str | Path,
    *,
    views: tuple[int, int] | None = None,
    topk: int = 5,
    backend: str = "auto",
    name: str | None = None,
    average: str | None = None,
    advance: Callable[[int], None] = lambda views: None,
) -> Answer:
    """Say what happens in a video.

    Args:
        model: of open_model or tubelet.load_model.
        views: (clips, crops) to average over instead of those saved with the model. More cost more and are more often
            right.
        topk: how many classes to give.
        backend: that decodes, see tubelet.data.open_video.
        name: of the model, for the answer.
        average: of the views' "probabilities" or "logits"; None: as the weights were released.
        advance: called with the number of views done, for a progress bar.

    Raises VideoError if the file yields no frame, TubeletError for options that are not allowed.
    """
    if topk < 1:
        raise TubeletError(f"topk must be at least 1, got {topk}")
    refuse_detector(model)
    config = model.config
    views = views or config.views
    clips = clips_for(model, path, views=views, backend=backend)
    began = time.perf_counter()
    logits = view_logits(model, clips.tensor, advance)
    scores = average_views(logits[None], average or average_of(config))[0]  # (classes)
    seconds = time.perf_counter() - began
    best = scores.topk(min(topk, len(scores)))
    labels = tuple(
        Label(config.id2label.get(index, str(index)), score)
        for score, index in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    )
    return Answer(
        video=str(path),
        labels=labels,
        model=name or config.model,
        select=config.select,
        views=views,
        gmacs=gmacs_of(model, clips.tensor[:1]),
        seconds=Seconds(clips.seconds, seconds),
        warnings=clips.warnings,
    )


def clips_for(
    model: VideoModel, path: str | Path, *, views: tuple[int, int] = (1, 1), backend: str = "auto", enlarge: int = 1
) -> Clips:
    """The views of a video as the model takes them; for pictures, with `enlarge` times their rows and columns."""
    p = model.config.preprocessing
    height, width = (p.size, p.size) if isinstance(p.size, int) else p.size
    return load_clips(
        path,
        frames=p.frames,
        stride=p.stride,
        size=(height * enlarge, width * enlarge),
        mean=p.mean,
        std=p.std,
        sampling=p.sampling,
        views=views,
        backend=backend,
    )


@torch.inference_mode()
def view_logits(model: VideoModel, clips: Tensor, advance: Callable[[int], None] = lambda views: None) -> Tensor:
    """Logits of each view: (views, 3, T, H, W) -> float32 (views, classes), on the CPU. A few views at a time."""
    device = next(model.parameters()).device
    found = []
    for part in clips.split(VIEWS_AT_ONCE):
        logits = model(part.to(device))
        found.append(logits.float().cpu())  # also waits for a GPU, so the time is the model's
        advance(len(part))
    return torch.cat(found)


def gmacs_of(model: VideoModel, clip: Tensor) -> float:
    """10^9 multiply-adds of one view; counted once for each selection and shape."""
    known = _gmacs.setdefault(model, {})
    key = (model.config.select, *clip.shape)
    if key not in known:
        known[key] = count_flops(model, clip.to(next(model.parameters()).device)).gmacs
    return known[key]


def refuse_detector(model: VideoModel) -> None:
    """A detector has no label for a clip as a whole."""
    if isinstance(model, EVAD):
        raise TubeletError(
            f"{model.config.model} is a detector, which says what each person does: tubelet detect takes it"
        )


def refuse_untrained(model: VideoModel) -> None:
    """A learned selector with random weights would choose at random: the weights must name it as trained."""
    trained = model.config.trained_selectors
    if untrained := [key for key in model.plan.learned if key not in trained]:
        raise SelectionError(
            f"{model.config.select}: {', '.join(untrained)} is learned, and these weights hold no trained scorer for "
            f"it; there are {', '.join(trained) or 'none'}"
        )
