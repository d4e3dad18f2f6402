"""What a detector found: boxes of single frames, or tubelets (a box in each of K frames in a row), with scores."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tubelet.data.datasets.listing import numbers_of
from tubelet.data.datasets.tubes import COLUMNS, Tubes
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
    columns = (*COLUMNS, "score")
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if not set(columns) <= set(reader.fieldnames or ()):
                raise TubeletError(f"{path}: needs a header with the columns {','.join(columns)}")
            rows = list(reader)
    except FileNotFoundError:
        raise TubeletError(f"{path}: no such file") from None
    numbers = numbers_of([row["label"] for row in rows], labels)
    frame, boxes, scores = [], [], []
    for line, (row, number) in enumerate(zip(rows, numbers, strict=True), start=2):
        if number is None:
            raise TubeletError(
                f"{path}: line {line} has the class {row['label']!r}, which is none of the {len(labels)}"
            )
        try:
            frame.append(int(row["frame"]))
            boxes.append([float(row[side]) for side in ("x1", "y1", "x2", "y2")])
            scores.append(float(row["score"]))
        except (TypeError, ValueError):
            raise TubeletError(f"{path}: line {line} needs a whole frame, four numbers and a score") from None
    return as_detections([row["path"] for row in rows], frame, [n for n in numbers if n is not None], boxes, scores)


def read_detect_json(path: str | Path, labels: Sequence[str], names: Mapping[str, str] | None = None) -> Detections:
    """What `tubelet detect --json` prints: each action of each person, with its own score.

    names:  what the ground truth calls a video, where that is not the path it was given by
    """
    try:
        listed = json.loads(Path(path).read_text(encoding="utf-8"))
        rows = [
            (
                (names or {}).get(video["video"], video["video"]),
                one["frame"],
                action["label"],
                one["box"],
                action["score"],
            )
            for video in listed
            for one in video.get("detections", ())
            for action in one["actions"]
        ]
    except FileNotFoundError:
        raise TubeletError(f"{path}: no such file") from None
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise TubeletError(
            f"{path}: not what `tubelet detect --json` prints ({type(error).__name__}: {error})"
        ) from None
    known = numbers_of([str(row[2]) for row in rows], labels)
    if None in known:
        label = rows[known.index(None)][2]
        raise TubeletError(f"{path}: has the class {label!r}, which is none of the {len(labels)}")
    videos, frames, _, boxes, scores = ([row[at] for row in rows] for at in range(5))
    return as_detections(videos, frames, [n for n in known if n is not None], boxes, scores)
