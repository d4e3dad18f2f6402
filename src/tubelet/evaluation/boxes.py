"""What the judging of boxes shares: overlap, who claims which ground truth, average precision, intervals.

A detection hits at a threshold or it does not, and the video it lies in decides that alone. So a `Ranking` (the
detections of a class, best first, with their videos and hits) is all that average precision needs, of the videos as
they are and of any draw of them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tubelet.errors import TubeletError

Array = NDArray[Any]

THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
CELLS = 2_000_000  # numbers that one step of a computation over draws holds


def as_thresholds(thresholds: Sequence[float]) -> tuple[float, ...]:
    """Distinct, ascending. Raises TubeletError for none, or one outside of 0 < t <= 1."""
    found = tuple(sorted({float(threshold) for threshold in thresholds}))
    if not found or not all(0 < threshold <= 1 for threshold in found):
        raise TubeletError(
            f"thresholds of overlap {list(thresholds)}; needed: at least one, each above 0 and at most 1"
        )
    return found


def overlaps(a: Array, b: Array, pixel: float = 0.0) -> Array:
    """Intersection over union of boxes x1, y1, x2, y2: (..., 4) and (..., 4) -> (...), 0 where both are empty.

    pixel:  is added to each side: 1 where x2 and y2 name the last pixel inside, 0 where they are edges
    """
    width = np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0]) + pixel
    height = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1]) + pixel
    shared = np.maximum(width, 0) * np.maximum(height, 0)
    union = areas(a, pixel) + areas(b, pixel) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def areas(boxes: Array, pixel: float = 0.0) -> Array:
    return (boxes[..., 2] - boxes[..., 0] + pixel) * (boxes[..., 3] - boxes[..., 1] + pixel)


def pairs(detections: Array, truths: Array) -> tuple[Array, Array]:
    """All (detection, truth) that lie in the same group, by detection, then by truth.

    detections: int64 (n,), the group of each;  truths: int64 (m,)
    """
    order = np.argsort(truths, kind="stable")
    first = np.searchsorted(truths[order], detections, "left")
    count = np.searchsorted(truths[order], detections, "right") - first
    detection = np.repeat(np.arange(len(detections)), count)
    place = np.arange(len(detection)) - np.repeat(np.cumsum(count) - count, count)
    return detection, order[np.repeat(first, count) + place]


def number_rows(*tables: Sequence[Array]) -> list[Array]:
    """One number for each distinct row of whole numbers, common to all tables, in the order of their columns.

    tables: columns (n,) each
    """
    joined = [np.concatenate(same) for same in zip(*tables, strict=True)]
    key = np.zeros(len(joined[0]), np.int64)
    for column in joined if len(key) else ():
        key = key * (np.ptp(column) + 1) + column - column.min()
    return np.split(key, np.cumsum([len(table[0]) for table in tables])[:-1])


def claim_best(rank: Array, detection: Array, truth: Array, overlap: Array, thresholds: Sequence[float]) -> Array:
    """Each detection looks at the one truth it overlaps best; the first to reach the threshold there hits: bool (T, n).

    rank: (n,), whose turn it is within a group;  detection, truth, overlap: (p,), as `pairs` gives them

    So one hits at the thresholds up to its own overlap and above all overlaps of those before it: no loop over them.
    """
    hits = np.zeros((len(thresholds), len(rank)), bool)
    if not len(detection):
        return hits
    starts = np.flatnonzero(np.diff(detection, prepend=-1))
    best = np.repeat(np.maximum.reduceat(overlap, starts), np.diff(starts, append=len(detection)))
    at = np.flatnonzero(overlap == best)
    at = at[np.unique(detection[at], return_index=True)[1]]  # of equal overlaps the first truth
    at = at[np.lexsort((rank[detection[at]], truth[at]))]
    levels = len(thresholds) + 1
    reached = np.searchsorted(thresholds, overlap[at], side="right")  # how many thresholds
    before = np.concatenate([[-1], np.maximum.accumulate(truth[at] * levels + reached)[:-1]]) - truth[at] * levels
    for number in range(len(thresholds)):
        hits[number, detection[at]] = (before <= number) & (number < reached)
    return hits


def claim_remaining(
    rank: Array, detection: Array, truth: Array, overlap: Array, groups: Array, thresholds: Sequence[float]
) -> Array:
    """In turn, each takes the truth of its group that it overlaps best among those not taken: hits, bool (T, n).

    rank: (n,), whose turn it is;  detection, truth, overlap: (p,), as `pairs` gives them
    groups: (m,), the group of each truth

    One round gives every group its next detection; what reaches no threshold anywhere can take nothing.
    """
    hits = np.zeros((len(thresholds), len(rank)), bool)
    near = overlap >= thresholds[0]
    detection, truth, overlap = detection[near], truth[near], overlap[near]
    if not len(detection):
        return hits
    order = np.argsort(groups, kind="stable")
    named, first, group = np.unique(groups[order], return_index=True, return_inverse=True)
    place = np.empty(len(groups), np.int64)
    place[order] = np.arange(len(groups)) - first[group]  # of a truth in its group
    group_of = np.searchsorted(named, groups)
    seen, row = np.unique(detection, return_inverse=True)
    seen_group = np.empty(len(seen), np.int64)
    seen_group[row] = group_of[truth]
    table = np.full((len(seen), int(place.max()) + 1), -1.0)  # overlap with each truth of the group
    table[row, place[truth]] = overlap
    turn = _turns(seen_group, rank[seen])
    for number, threshold in enumerate(thresholds):
        taken = np.zeros((len(named), table.shape[1]), bool)
        for now in turn:
            free = np.where(taken[seen_group[now]], -1.0, table[now])
            best = free.argmax(1)
            hit = free[np.arange(len(now)), best] >= threshold
            hits[number, seen[now[hit]]] = True
            taken[seen_group[now[hit]], best[hit]] = True
    return hits


def _turns(groups: Array, rank: Array) -> list[Array]:
    """Round 0 holds the first of every group by rank, round 1 the second, ..."""
    order = np.lexsort((rank, groups))
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    number = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    by_round = order[np.argsort(number, kind="stable")]
    return np.split(by_round, np.cumsum(np.bincount(number))[:-1])


@dataclass(frozen=True, eq=False)
class Ranking:
    """The detections of one class, the best first.

    video: int (n,), number of the video of each;  scores: float (n,);  hits: bool (T, n), at each threshold
    positives: int (V,), how many there are to find in each video
    """

    video: Array
    scores: Array
    hits: Array
    positives: Array


Area = Callable[[Array, Array, Array], Array]


def envelope(found: Array, rank: Array, times: Array) -> Array:
    """Area under the monotone envelope of precision, times the positives (PASCAL VOC 2010, AVA): (R, h) -> (R,).

    The hits in order: found: how many by then;  rank: how many detections by then;  times: how often each was drawn
    """
    precision = found / np.maximum(rank, 1)
    return (np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1] * times).sum(1)


def trapezoid(found: Array, rank: Array, times: Array) -> Array:
    """Area under straight lines through the raw points, from precision 1 at recall 0 (ACT, MOC). As `envelope`."""
    area = np.zeros(len(found))
    for copy in range(int(times.max(initial=0))):
        left = times - copy - 1  # copies after this one
        hit, all_ = found - left, rank - left
        before = np.where(all_ > 1, (hit - 1) / np.maximum(all_ - 1, 1), 1.0)
        area += np.where(left >= 0, (hit / np.maximum(all_, 1) + before) / 2, 0).sum(1)
    return area


def average_precision(ranking: Ranking, area: Area, draws: Array) -> Array:
    """AP of one class for each draw of videos, nan without anything to find: (R, T).

    draws: int (R, V), how often each draw has each video; one row of ones is the data as it is
    """
    result = np.full((len(draws), len(ranking.hits)), np.nan)
    draws = draws.astype(np.int32)
    last = int(np.flatnonzero(ranking.hits.any(0))[-1]) + 1 if ranking.hits.any() else 0
    video = ranking.video[:last]  # what comes after the last hit changes nothing
    rows = max(CELLS // max(last, 1), 1)
    for start in range(0, len(draws), rows):
        drawn = draws[start : start + rows]
        times = np.take(drawn, video, axis=1)  # (R, n)
        rank, positives = np.cumsum(times, axis=1, dtype=np.int32), drawn @ ranking.positives
        some = positives > 0
        for number, hits in enumerate(ranking.hits):
            at = np.flatnonzero(hits)
            found = area(np.cumsum(times[:, at], axis=1), rank[:, at], times[:, at])
            result[start : start + rows, number][some] = found[some] / positives[some]
    return result


@dataclass(frozen=True, eq=False)
class MeanPrecision:
    """AP of every class at every threshold of overlap, and its mean.

    values: (T, C), nan where a class has nothing to find;  videos: those that were judged
    """

    thresholds: tuple[float, ...]
    labels: tuple[str, ...]
    values: Array
    videos: tuple[str, ...] = field(repr=False)
    rankings: tuple[Ranking, ...] = field(repr=False)
    area: Area = field(repr=False)

    def at(self, threshold: float) -> float:
        """mAP at one threshold: over the classes that have something to find, nan where none has."""
        return _mean(self.values[self._number(threshold)])

    def over(self, low: float = 0.5, high: float = 0.95) -> float:
        """The mean of mAP over the thresholds from low to high."""
        return _mean(np.array([self.at(threshold) for threshold in self._between(low, high)]))

    def per_class(self, threshold: float) -> dict[str, float | None]:
        """None where a class has nothing to find."""
        return dict(zip(self.labels, _plain(self.values[self._number(threshold)]), strict=True))

    def per_class_array(self, threshold: float) -> Array:
        """(C,), nan where a class has nothing to find."""
        return self.values[self._number(threshold)]

    def to_json(self) -> dict[str, Any]:
        """Shares of 1: `mAP` by threshold, and 0.5:0.95 where all of those are there; `AP` by class, in their order."""
        means = {f"{threshold:g}": _plain(self.at(threshold)) for threshold in self.thresholds}
        if set(THRESHOLDS) <= set(self.thresholds):
            means["0.5:0.95"] = _plain(self.over())
        by_class = {label: _plain(self.values[:, number]) for number, label in enumerate(self.labels)}
        return {"thresholds": list(self.thresholds), "mAP": means, "AP": by_class}

    def _number(self, threshold: float) -> int:
        for number, known in enumerate(self.thresholds):
            if abs(known - threshold) < 1e-9:
                return number
        raise TubeletError(
            f"no threshold {threshold:g} here; there are {', '.join(map('{:g}'.format, self.thresholds))}"
        )

    def _between(self, low: float, high: float) -> list[float]:
        found = [threshold for threshold in self.thresholds if low - 1e-9 <= threshold <= high + 1e-9]
        if not found:
            raise TubeletError(f"no threshold from {low:g} to {high:g} here; there are {list(self.thresholds)}")
        return found


def mean_precision(
    thresholds: tuple[float, ...],
    labels: Sequence[str],
    videos: Sequence[str],
    detections: Mapping[str, Array],
    truths: Mapping[str, Array],
    area: Area,
) -> MeanPrecision:
    """Ranks what was claimed.

    detections: video, label: int (n,), score: (n,), hits: bool (T, n);  truths: video, label: int (m,)
    Of equal scores the earlier goes first.
    """
    order = np.argsort(-detections["score"], kind="stable")
    order = order[np.argsort(detections["label"][order], kind="stable")]
    ends = np.searchsorted(detections["label"][order], np.arange(len(labels) + 1))
    everything = np.ones((1, len(videos)), np.int64)
    rankings, values = [], np.empty((len(thresholds), len(labels)))
    for label in range(len(labels)):
        mine = order[ends[label] : ends[label + 1]]
        positives = np.bincount(truths["video"][truths["label"] == label], minlength=len(videos))
        columns = detections["video"][mine], detections["score"][mine], detections["hits"][:, mine]
        rankings.append(Ranking(*columns, positives))
        values[:, label] = average_precision(rankings[-1], area, everything)[0]
    return MeanPrecision(thresholds, tuple(labels), values, tuple(videos), tuple(rankings), area)


@dataclass(frozen=True)
class Interval:
    """A value, and the bounds between which it lies when other videos of the same kind had been drawn."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


def bootstrap(
    result: MeanPrecision,
    other: MeanPrecision | None = None,
    *,
    draws: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    clusters: Mapping[str, Hashable] | None = None,
) -> dict[str, Interval]:
    """Intervals of mAP from draws of whole videos with replacement, by threshold and for "0.5:0.95" where it is there.

    other:     of the same ground truth: the intervals are of its mAP minus that of `result`, both of the same draw
    clusters:  of each video, what it is drawn together with, such as the film it was cut from; None: each alone

    Matches are made once: a video brings the hits it has. A class that a draw leaves nothing to find in is left out of
    its mean, as in the whole. Raises TubeletError where the two cannot be compared.
    """
    if draws < 2 or not 0 < confidence < 1:
        raise TubeletError(f"{draws} draws, confidence {confidence:g}; needed: at least 2, between 0 and 1")
    results = [result] if other is None else [result, other]
    for field_name in ("thresholds", "labels"):
        if other is not None and getattr(result, field_name) != getattr(other, field_name):
            raise TubeletError(f"results of different {field_name} cannot be compared")
    if other is not None and _to_find(result) != _to_find(other):
        raise TubeletError("results on different ground truth cannot be compared")
    names = sorted({name for one in results for name in one.videos})
    if not names:
        raise TubeletError("no video to draw from")
    together = {name: name for name in names} if clusters is None else {name: clusters[name] for name in names}
    number_of = {cluster: index for index, cluster in enumerate(dict.fromkeys(together.values()))}
    number, count = {name: number_of[together[name]] for name in names}, len(number_of)
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)
    drawn = np.concatenate([np.ones((1, count), drawn.dtype), drawn])  # first the videos as they are
    means = []
    for one in results:
        own = drawn[:, [number[name] for name in one.videos]]
        classes = np.stack([average_precision(ranking, one.area, own) for ranking in one.rankings])
        means.append(_nanmean(classes))  # (1 + R, T)
    values = means[0] if other is None else means[1] - means[0]
    columns = {f"{threshold:g}": values[:, index] for index, threshold in enumerate(result.thresholds)}
    if set(THRESHOLDS) <= set(result.thresholds):
        inside = [result.thresholds.index(threshold) for threshold in THRESHOLDS]
        columns["0.5:0.95"] = values[:, inside].mean(1)
    tail = 50 * (1 - confidence)
    found = {}
    for name, column in columns.items():
        rest = column[1:][~np.isnan(column[1:])]
        low, high = np.percentile(rest, [tail, 100 - tail]) if len(rest) else (np.nan, np.nan)
        found[name] = Interval(float(column[0]), float(low), float(high))
    return found


def _to_find(result: MeanPrecision) -> dict[tuple[str, str], int]:
    return {
        (result.videos[video], label): int(ranking.positives[video])
        for label, ranking in zip(result.labels, result.rankings, strict=True)
        for video in np.flatnonzero(ranking.positives)
    }


def _nanmean(values: Array) -> Array:
    """Over the first axis, what is nan left out; nan where all is."""
    known = ~np.isnan(values)
    count = known.sum(0)
    return np.divide(np.where(known, values, 0).sum(0), count, out=np.full(count.shape, np.nan), where=count > 0)


def _mean(values: ArrayLike) -> float:
    return float(_nanmean(np.asarray(values, float)))


def _plain(values: Any) -> Any:
    """For JSON, which knows no nan."""
    if isinstance(values, np.ndarray):
        return [_plain(value) for value in values]
    return None if np.isnan(values) else float(values)
