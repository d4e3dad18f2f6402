"""Frame-mAP as AVA judges: one box list a second, actions that exclude nothing, PASCAL's area under the curve.

The rules, as in the published evaluator:
- rows of a label outside of the map, of an excluded (video, second), or with an empty box are left out of both files;
- within a frame and class the detections take their turn in the order of the file, not by score. Each looks at the one
  true box it overlaps best; if that is taken by then, it is false, also where another true box would have been free;
- the curve ranks all detections of a class by score, those of frames without ground truth included;
- a class without ground truth has no AP and is left out of the mean.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tubelet.data.datasets.ava import (
    AvaBoxes,
    excluded_frames,
    pair_problems,
    read_ava_csv,
    read_ava_excluded,
    read_label_map,
    row_problems,
)
from tubelet.errors import TubeletError
from tubelet.evaluation.boxes import (
    THRESHOLDS,
    MeanPrecision,
    as_thresholds,
    claim_best,
    envelope,
    mean_precision,
    number_rows,
    overlaps,
    pairs,
)

ORDERS = ("file", "score")


@dataclass(frozen=True, eq=False)
class AvaResult:
    """frame: the average precisions;  ids: those of its labels;  order: whose turn it was
    notes: sentences on what is odd about the files
    """

    frame: MeanPrecision
    ids: tuple[int, ...]
    order: str
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {"order": self.order, **self.frame.to_json(), "ids": list(self.ids), "notes": list(self.notes)}

    def __str__(self) -> str:
        sorted_ = "; detections sorted by score first, which the published evaluator does not do"
        means = self.frame.to_json()["mAP"]
        told = ", ".join(
            f"{name} {means[name]:.4f}" for name in ("0.5", "0.75", "0.5:0.95") if means.get(name) is not None
        )
        return f"frame-mAP {told or 'undefined: no ground truth'}{sorted_ if self.order == 'score' else ''}"


def evaluate_ava(
    truth: AvaBoxes | str | Path,
    detections: AvaBoxes | str | Path,
    label_map: Mapping[int, str] | str | Path,
    *,
    excluded: Collection[tuple[str, int]] | str | Path = (),
    thresholds: Sequence[float] = THRESHOLDS,
    order: str = "file",
) -> AvaResult:
    """Frame-mAP of all thresholds of overlap at once, from files or from what their readers give.

    excluded:  the (video, second) that are not judged
    order:     "file" as published: of two detections of one person the first in the file takes it, whatever their
               scores; "score": the better one does. Where detections overlap each other the second is often much higher
               (0.42 instead of 0.33 in a test), so the two cannot be compared; the result says which it is.

    Changes nothing it is given. Raises TubeletError where the files do not fit, instead of an mAP of 0.
    """
    if order not in ORDERS:
        raise TubeletError(f"order {order!r}; there are {', '.join(ORDERS)}")
    levels = as_thresholds(thresholds)
    truth = truth if isinstance(truth, AvaBoxes) else read_ava_csv(truth)
    detections = detections if isinstance(detections, AvaBoxes) else read_ava_csv(detections, scored=True)
    names = label_map if isinstance(label_map, Mapping) else read_label_map(label_map)
    without = read_ava_excluded(excluded) if isinstance(excluded, (str, Path)) else excluded_frames(excluded)
    notes = _check(truth, detections, names)

    truth, detections = _judged(truth, names, without), _judged(detections, names, without)
    videos = sorted({*truth.videos, *detections.videos})
    true_video, video = _numbers(truth, videos), _numbers(detections, videos)
    ids = np.array(sorted(names))
    true_label, label = np.searchsorted(ids, truth.label), np.searchsorted(ids, detections.label)
    rank = np.arange(len(detections))
    if order == "score":
        rank[np.argsort(-detections.scores, kind="stable")] = np.arange(len(detections))

    groups, true_groups = number_rows((video, detections.second, label), (true_video, truth.second, true_label))
    detection, one = pairs(groups, true_groups)
    overlap = overlaps(detections.boxes[detection], truth.boxes[one])
    table = mean_precision(
        levels,
        [names[int(number)] for number in ids],
        videos,
        {
            "video": video,
            "label": label,
            "score": detections.scores,
            "hits": claim_best(rank, detection, one, overlap, levels),
        },
        {"video": true_video, "label": true_label},
        envelope,
    )
    return AvaResult(table, tuple(ids.tolist()), order, tuple(notes))


def _check(truth: AvaBoxes, detections: AvaBoxes, names: Mapping[int, str]) -> list[str]:
    notes = []
    checks = [row_problems(truth, names), *([row_problems(detections, names)] if len(detections) else [])]
    for wrong, odd in [*checks, pair_problems(truth, detections)]:
        if wrong:
            raise TubeletError(wrong[0])
        notes += odd
    if len(detections) and (detections.scores == 1).all():
        notes.append(f"{detections.source}: every score is 1; is the last column, the scores, missing?")
    return notes if len(detections) else [*notes, f"{detections.source}: no detection"]


def _judged(boxes: AvaBoxes, names: Mapping[int, str], excluded: Collection[tuple[str, int]]) -> AvaBoxes:
    """What the rules leave, with the order of the file."""
    sides = boxes.boxes
    keep = (sides[:, 0] < sides[:, 2]) & (sides[:, 1] < sides[:, 3]) & np.isin(boxes.label, list(names))
    number = {name: index for index, name in enumerate(boxes.videos)}
    for name, second in excluded:
        if name in number:
            keep &= (boxes.video != number[name]) | (boxes.second != second)
    return boxes.rows(keep)


def _numbers(boxes: AvaBoxes, videos: Sequence[str]) -> NDArray[np.int64]:
    """Of its videos in a common list."""
    return np.searchsorted(videos, np.array(boxes.videos, str))[boxes.video] if len(boxes) else boxes.video
