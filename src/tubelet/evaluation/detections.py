"""What a detector found: boxes of single frames, or tubelets (a box in each of K frames in a row), with scores."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tubelet.data.datasets.box_rows import FAR, FRAMES, read_box_rows
from tubelet.data.datasets.listing import numbers_of
from tubelet.data.datasets.text import read_text
from tubelet.data.datasets.tubes import Tubes
from tubelet.errors import TubeletError


@dataclass(frozen=True, eq=False)
class Detections:
    """n tubelets of K frames; K is 1 of a detector that works frame by frame.

    videos: the names;  video: int64 (n,), number of the name;  frame: int64 (n,), the first one, from 0
    label:  int64 (n,);  boxes: float32 (n, K, 4), x1 y1 x2 y2;  scores: float32 (n,)
    """

    videos: tuple[str, ...]
    video: NDArray[np.int64]
    frame: NDArray[np.int64]
    label: NDArray[np.int64]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.video)

    @property
    def length(self) -> int:
        """K"""
        return self.boxes.shape[1]

    def rows(self, which: NDArray) -> Detections:
        """Those that a mask or a list of numbers takes, in its order."""
        columns = (self.video, self.frame, self.label, self.boxes, self.scores)
        return Detections(self.videos, *(column[which] for column in columns))


def as_detections(
    video: Sequence[str],
    frame: Sequence[int] | NDArray,
    label: Sequence[int] | NDArray,
    boxes: Any,
    scores: Sequence[float] | NDArray,
) -> Detections:
    """From columns of equal length; boxes (n, 4), (n, 4 K) or (n, K, 4). Raises TubeletError where they do not fit."""
    names, number = np.unique(np.asarray(video, str), return_inverse=True)
    sides = np.asarray(boxes, np.float32)
    if sides.size % 4 or (len(number) and sides.shape[-1] % 4):
        raise TubeletError(f"boxes of shape {sides.shape}; needed: (n, 4), (n, 4 K) or (n, K, 4)")
    found = Detections(
        tuple(names.tolist()),
        number.reshape(-1).astype(np.int64),
        np.asarray(frame, np.int64).reshape(-1),
        np.asarray(label, np.int64).reshape(-1),
        sides.reshape(len(number), -1, 4) if len(number) else np.zeros((0, 1, 4), np.float32),
        np.asarray(scores, np.float32).reshape(-1),
    )
    lengths = [len(column) for column in (found.video, found.frame, found.label, found.scores)]
    if len(set(lengths)) > 1:
        raise TubeletError(f"columns of different length: video, frame, label, scores have {lengths}")
    if len(found) and not (np.isfinite(found.boxes).all() and np.isfinite(found.scores).all()):
        raise TubeletError("a box or a score is no finite number")
    return found


def of_tubes(tubes: Tubes) -> Detections:
    """Ground truth as if a perfect detector had found it, every score 1: what it is judged at is the best there is."""
    video, frame, label, boxes = [], [], [], []
    for name, found in tubes.videos.items():
        for tube in found:
            video += [name] * len(tube.frames)
            frame.append(tube.frames.numpy())
            label += [tube.label] * len(tube.frames)
            boxes.append(tube.boxes.numpy())
    columns = [np.concatenate(column) if column else np.zeros(0) for column in (frame, boxes)]
    return as_detections(video, columns[0], label, columns[1], np.ones(len(video)))


def read_detections_csv(path: str | Path, labels: Sequence[str]) -> Detections:
    """A csv with the columns path,frame,x1,y1,x2,y2,label,score: one's own boxes with a score each.

    Raises TubeletError that names the line of what is no such row.
    """
    _, rows = read_box_rows(path, labels, scored=True)
    return as_detections(
        [row.path for row in rows],
        [row.frame for row in rows],
        [row.label for row in rows],
        [row.box for row in rows],
        [row.score for row in rows],
    )


def read_detect_json(path: str | Path, labels: Sequence[str], names: Mapping[str, str] | None = None) -> Detections:
    """What `tubelet detect --json` prints: each action of each person, with its own score.

    names:  what the ground truth calls a video, where that is not the path it was given by
    """
    try:
        rows: list[tuple[Any, ...]] = [
            (_name(video["video"], names or {}), one["frame"], action["label"], one["box"], action["score"])
            for video in json.loads(read_text(path))
            for one in video.get("detections", ())
            for action in one["actions"]
        ]
        for video, frame, _, box, score in rows:
            _check_numbers(video, frame, box, score)
    except TubeletError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise TubeletError(
            f"{path}: not what `tubelet detect --json` prints ({type(error).__name__}: {error})"
        ) from None
    known = numbers_of([str(row[2]) for row in rows], labels)
    if None in known:
        label = rows[known.index(None)][2]
        raise TubeletError(f"{path}: has the class {label!r}, which is none of the {len(labels)}")
    videos, frames, _, boxes, scores = ([row[at] for row in rows] for at in range(5))
    return as_detections(videos, frames, [n for n in known if n is not None], boxes, scores)


def _name(given: Any, names: Mapping[str, str]) -> str:
    if not isinstance(given, str):
        raise TypeError(f"the name of a video is {given!r}")
    return names.get(given, given)


def _check_numbers(video: str, frame: Any, box: Any, score: Any) -> None:
    if type(frame) is not int or not 0 <= frame < FRAMES:
        raise TypeError(f"{video} has the frame {frame!r}")
    numbers = [*box, score]
    if len(box) != 4 or not all(type(number) in (int, float) and abs(number) <= FAR for number in numbers):
        raise TypeError(f"{video} has the box {box!r} with score {score!r} at frame {frame}")
