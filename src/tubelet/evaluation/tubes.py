"""Frame-mAP and video-mAP of action tubes, as published for UCF101-24 and JHMDB (ACT's evaluator as MOC changed it).

The rules (numbers in `TubeRules`):
- frame-mAP: within a frame and class, boxes that overlap a better one have their scores lowered (`suppress_softly`);
  then the detections of a class take, the best of all frames first, the true box of their frame they overlap best
  among those not taken;
- video-mAP: tubelets are suppressed in the same way and linked to tubes (`linking.py`); tubes that overlap a better one
  of their video and class are dropped; the rest takes true tubes in the same way;
- the area under a curve is that under straight lines between its raw points; of equal scores the earlier frame goes
  first. Published code leaves that to an unstable sort, which matters for tubelets: all frames of one have one score;
- a class without ground truth has no AP and is left out of the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tubelet.data.datasets.tubes import Tubes, read_boxes_csv
from tubelet.errors import TubeletError
from tubelet.evaluation.boxes import (
    THRESHOLDS,
    Array,
    MeanPrecision,
    as_thresholds,
    claim_remaining,
    mean_precision,
    number_rows,
    overlaps,
    pairs,
    trapezoid,
)
from tubelet.evaluation.detections import Detections, of_tubes, read_detections_csv
from tubelet.evaluation.linking import LinkRules, ScoredTube, link, suppress_softly, suppress_tubes, tube_overlap

FRAMES = ("all", "annotated")


@dataclass(frozen=True)
class TubeRules(LinkRules):
    """frames:  "all": a detection in a frame without any true box is false (ACT, MOC);
    "annotated": such frames are left out (YOWO), which gives higher numbers on untrimmed video
    """

    frames: str = "all"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.frames not in FRAMES:
            raise TubeletError(f"frames {self.frames!r}; there are {', '.join(FRAMES)}")


PUBLISHED = TubeRules()

EDGES = TubeRules(pixel=0.0)
"""For boxes from edge to edge. `read_jhmdb_tubes` gives such, and then this is the published rule: JHMDB's own boxes
name the last pixel inside, which `pixel=1` makes up for."""


@dataclass(frozen=True, eq=False)
class TubeResult:
    """frame, video: the average precisions;  notes: sentences on what is odd
    tubes: (video, label) -> all that was linked, those that overlap a better one too
    """

    frame: MeanPrecision
    video: MeanPrecision
    rules: TubeRules
    notes: tuple[str, ...]
    tubes: dict[tuple[str, int], list[ScoredTube]] = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        rules = {name: getattr(self.rules, name) for name in self.rules.__dataclass_fields__}
        return {
            "frame": self.frame.to_json(),
            "video": self.video.to_json(),
            "rules": rules,
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        told = []
        for name, table, wanted in (
            ("frame", self.frame, ("0.5",)),
            ("video", self.video, ("0.2", "0.5", "0.75", "0.5:0.95")),
        ):
            means = table.to_json()["mAP"]
            values = [f"{one} {means[one]:.4f}" for one in wanted if means.get(one) is not None]
            told.append(f"{name}-mAP {', '.join(values) or 'undefined'}")
        return "; ".join(told)


def evaluate_tubes(
    truth: Tubes | str | Path,
    detections: Detections | str | Path,
    *,
    rules: TubeRules = PUBLISHED,
    thresholds: Sequence[float] = THRESHOLDS,
    video_thresholds: Sequence[float] = (0.2, *THRESHOLDS),
    videos: Sequence[str] | None = None,
    advance: Callable[[], None] = lambda: None,
) -> TubeResult:
    """Frame-mAP and video-mAP of all thresholds at once; a path is a csv of one's own boxes (with scores: detections).

    truth:    the tubes of the videos that are judged, all actors of them; frames count from 0 in both
    videos:   judge these alone, such as those of a test split
    advance:  is called when the tubes of a video are linked

    Changes nothing it is given. Raises TubeletError where the two do not fit, instead of an mAP of 0.
    """
    frame_levels, video_levels = as_thresholds(thresholds), as_thresholds(video_thresholds)
    truth = truth if isinstance(truth, Tubes) else read_boxes_csv(Path(truth))
    if not isinstance(detections, Detections):
        detections = read_detections_csv(detections, truth.labels)
    truth, detections = _only(truth, detections, videos)
    names = sorted(truth.videos)
    notes = check_tubes(truth, detections)
    number = {name: index for index, name in enumerate(names)}
    video = np.array([number[name] for name in detections.videos], np.int64)[detections.video]
    frame = _frame_precision(truth, names, detections, video, rules, frame_levels)
    tubes = link_tubes(detections, rules, advance=advance)
    table = _video_precision(truth, names, tubes, rules, video_levels)
    return TubeResult(frame, table, rules, tuple(notes), tubes)


def evaluate_frames(
    truth: Tubes, detections: Detections, *, rules: TubeRules = PUBLISHED, thresholds: Sequence[float] = THRESHOLDS
) -> MeanPrecision:
    """What `evaluate_tubes` gives as `frame`, without linking, of what needs no check (`check_tubes`)."""
    names = sorted(truth.videos)
    number = {name: index for index, name in enumerate(names)}
    video = np.array([number[name] for name in detections.videos], np.int64)[detections.video]
    return _frame_precision(truth, names, detections, video, rules, as_thresholds(thresholds))


def check_tubes(truth: Tubes, detections: Detections) -> list[str]:
    """Sentences on what is odd. Raises TubeletError for what makes judging senseless."""
    if not truth.videos:
        raise TubeletError("no video to judge")
    if not len(detections):
        return ["no detection"]
    if unknown := [name for name in detections.videos if name not in truth.videos]:
        examples = f"{unknown[0]!r} here, {next(iter(truth.videos))!r} there"
        raise TubeletError(
            f"detections in {len(unknown)} videos that the ground truth does not have ({examples}); "
            f"the same names are needed in both, and `videos` to judge a part of them"
        )
    low, high, classes = detections.label.min(), detections.label.max(), len(truth.labels)
    if low < 0 or high >= classes:
        raise TubeletError(f"detections of labels {low} to {high}; the {classes} classes are numbered from 0")
    true_boxes = [tube.boxes.numpy() for tubes in truth.videos.values() for tube in tubes if len(tube.boxes)]
    true_frames = [tube.frames.numpy() for tubes in truth.videos.values() for tube in tubes if len(tube.frames)]
    if not true_boxes:
        return ["no ground truth in any video"]
    reach, true_reach = np.abs(detections.boxes).max(), max(np.abs(boxes).max() for boxes in true_boxes)
    if reach <= 1.5 < true_reach:
        raise TubeletError(f"detections seem to be shares of the picture (at most {reach:g}); pixels are needed")
    notes = []
    last = detections.frame.max() + detections.length - 1
    if detections.frame.min() == 1 and min(one.min() for one in true_frames) == 0:
        if last == max(one.max() for one in true_frames) + 1:
            notes.append(f"detections are in frames 1 to {last}, ground truth from 0: do they count from 1?")
    if detections.frame.min() < 0:
        raise TubeletError(f"a detection at frame {detections.frame.min()}; frames count from 0")
    empty = np.any(detections.boxes[..., 2:] < detections.boxes[..., :2], axis=(1, 2))
    if np.any(empty):
        row = detections.boxes[empty][0, 0].tolist()
        count = f"{int(np.sum(empty))} of {len(detections)} detections"
        notes.append(f"{count} are empty, such as {row}; x1 < x2 and y1 < y2 are needed")
    if missing := sorted(set(truth.videos) - {detections.videos[one] for one in np.unique(detections.video)}):
        notes.append(f"nothing was detected in {len(missing)} of {len(truth.videos)} videos, such as {missing[0]}")
    return notes


def link_tubes(
    detections: Detections, rules: LinkRules = PUBLISHED, *, advance: Callable[[], None] = lambda: None
) -> dict[tuple[str, int], list[ScoredTube]]:
    """(video, label) -> its tubes, without ground truth. `suppress_tubes` leaves out what overlaps a better one."""
    groups = number_rows((detections.video, detections.label, detections.frame))[0]
    scores, order = suppress_softly(groups, detections.boxes, detections.scores, rules.suppress, rules.pixel)
    video, label = detections.video[order], detections.label[order]
    starts = np.flatnonzero((np.diff(video, prepend=-1) != 0) | (np.diff(label, prepend=-1) != 0))
    found = {}
    for start, end in zip(starts, [*starts, len(order)][1:], strict=True):
        rows = order[start:end]
        tubes = link(detections.frame[rows], detections.boxes[rows], scores[rows], rules)
        if tubes:
            found[detections.videos[video[start]], int(label[start])] = tubes
        if end == len(order) or video[end] != video[start]:
            advance()
    return found


def _frame_precision(
    truth: Tubes,
    names: Sequence[str],
    detections: Detections,
    video: Array,
    rules: TubeRules,
    levels: tuple[float, ...],
) -> MeanPrecision:
    truths = _true_boxes(truth, names)
    found = _single_boxes(detections, video)
    if rules.frames == "annotated":
        frames, true_frames = number_rows((found.video, found.frame), (truths.video, truths.frame))
        found = found.rows(np.isin(frames, true_frames))
    groups, true_groups = number_rows(
        (found.video, found.frame, found.label), (truths.video, truths.frame, truths.label)
    )
    scores, order = suppress_softly(groups, found.boxes, found.scores, rules.suppress, rules.pixel)
    found, groups, scores = found.rows(order), groups[order], scores[order]
    detection, one = pairs(groups, true_groups)
    overlap = overlaps(found.boxes[detection, 0].astype(np.float64), truths.boxes[one, 0], rules.pixel)
    hits = claim_remaining(_ranks(scores), detection, one, overlap, true_groups, levels)
    return mean_precision(
        levels,
        truth.labels,
        names,
        {"video": found.video, "label": found.label, "score": scores, "hits": hits},
        {"video": truths.video, "label": truths.label},
        trapezoid,
    )


def _single_boxes(detections: Detections, video: Array) -> Detections:
    """Each frame of each tubelet alone. video: int (n,), numbers in another list of names."""
    length = detections.length
    return Detections(
        detections.videos,
        np.repeat(video, length),
        (detections.frame[:, None] + np.arange(length)).reshape(-1),
        np.repeat(detections.label, length),
        detections.boxes.reshape(-1, 1, 4),
        np.repeat(detections.scores, length),
    )


def _video_precision(
    truth: Tubes,
    names: Sequence[str],
    tubes: dict[tuple[str, int], list[ScoredTube]],
    rules: TubeRules,
    levels: tuple[float, ...],
) -> MeanPrecision:
    number = {name: index for index, name in enumerate(names)}
    found = [
        (number[name], label, tube)
        for (name, label), linked in sorted(tubes.items())
        for tube in suppress_tubes(linked, rules)
    ]
    true = [
        (number[name], tube.label, ScoredTube(tube.frames.numpy(), tube.boxes.numpy().astype(np.float64), 1.0))
        for name in names
        for tube in truth.videos[name]
        if len(tube.frames)
    ]
    video, label = (np.array([row[at] for row in found], np.int64) for at in (0, 1))
    true_video, true_label = (np.array([row[at] for row in true], np.int64) for at in (0, 1))
    scores = np.array([row[2].score for row in found])
    groups, true_groups = number_rows((video, label), (true_video, true_label))
    detection, one = pairs(groups, true_groups)
    both = zip(detection.tolist(), one.tolist(), strict=True)
    overlap = np.array([tube_overlap(found[a][2], true[b][2], rules.pixel) for a, b in both], np.float64)
    hits = claim_remaining(_ranks(scores), detection, one, overlap, true_groups, levels)
    return mean_precision(
        levels,
        truth.labels,
        names,
        {"video": video, "label": label, "score": scores, "hits": hits},
        {"video": true_video, "label": true_label},
        trapezoid,
    )


def _only(truth: Tubes, detections: Detections, videos: Sequence[str] | None) -> tuple[Tubes, Detections]:
    """What lies in the videos that are judged; names that no detection has are dropped."""
    if videos is not None:
        if unknown := [name for name in videos if name not in truth.videos]:
            raise TubeletError(f"{len(unknown)} videos to judge have no ground truth, such as {unknown[0]!r}")
        truth = Tubes(truth.labels, truth.size, {name: truth.videos[name] for name in videos})
        judged = np.array([name in truth.videos for name in detections.videos], bool)
        detections = detections.rows(judged[detections.video])
    used, video = np.unique(detections.video, return_inverse=True)
    names = tuple(detections.videos[one] for one in used)
    columns = (detections.frame, detections.label, detections.boxes, detections.scores)
    return truth, Detections(names, video.reshape(-1), *columns)


def _true_boxes(truth: Tubes, names: Sequence[str]) -> Detections:
    """Each frame of each true tube, as if it had been detected; videos numbered as in names."""
    found = of_tubes(truth)
    number = {name: index for index, name in enumerate(names)}
    return _single_boxes(found, np.array([number[name] for name in found.videos], np.int64)[found.video])


def _ranks(scores: Array) -> Array:
    """Whose turn it is: the best first, of equal scores the earlier."""
    rank = np.empty(len(scores), np.int64)
    rank[np.argsort(-scores, kind="stable")] = np.arange(len(scores))
    return rank
