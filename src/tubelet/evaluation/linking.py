"""From tubelets to tubes: soft suppression, linking over time, suppression of tubes (ACT, and as MOC changed it)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import numpy as np

from tubelet.errors import TubeletError
from tubelet.evaluation.boxes import Array, overlaps, pairs


@dataclass(frozen=True)
class LinkRules:
    """pixel:   see `overlaps`
    suppress:  a tubelet that overlaps a better one by more has its score lowered
    keep:      of the tubelets of one frame and class so many go on, the best
    link:      a tube takes tubelets that overlap its last one by so much
    shortest:  frames that a tube has at least;  weakest: mean score that it has at least
    apart:     a tube that overlaps a better one by more is dropped
    """

    pixel: float = 1.0
    suppress: float = 0.6
    keep: int = 10
    link: float = 0.5
    shortest: int = 15
    weakest: float = 0.005
    apart: float = 0.3

    def __post_init__(self) -> None:
        if not (0 <= self.suppress <= 1 and 0 < self.link <= 1 and 0 <= self.apart <= 1 and self.pixel >= 0):
            raise TubeletError(f"{self}: overlaps are from 0 to 1, pixel at least 0")
        if self.keep < 1 or self.shortest < 1:
            raise TubeletError(f"{self}: keep and shortest are at least 1")


@dataclass(frozen=True, eq=False)
class ScoredTube:
    """frames: int64 (n,), all in a row;  boxes: float (n, 4);  score: the mean of the tubelets it is made of"""

    frames: Array
    boxes: Array
    score: float


def suppress_softly(groups: Array, boxes: Array, scores: Array, above: float, pixel: float) -> tuple[Array, Array]:
    """Lowers the scores of what overlaps a better one, once, within each group: (scores (n,), order (n,)).

    groups: int64 (n,);  boxes: (n, K, 4);  order: by group, the best of the lowered scores first

    From the best down, each that no better one has lowered lowers those whose overlap, the mean over its K frames, is
    above the bound: score * (1 - overlap). As published the factor takes the SUM over the frames: with K > 1 it can be
    negative, and is for every duplicate. Of equal scores the later goes first.
    """
    order = np.lexsort((-np.arange(len(groups)), -scores, groups))
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1)) if len(order) else order
    sizes = np.diff(starts, append=len(order))
    weights = np.ones(len(groups), boxes.dtype)
    for size in np.unique(sizes[sizes > 1]):  # all groups of one size together
        rows = order[starts[sizes == size][:, None] + np.arange(size)]  # (G, size), best first
        for some in np.array_split(rows, -(-rows.size * boxes.shape[1] // 500_000)):
            mine, free = boxes[some], np.ones(some.shape, bool)
            for turn in range(size - 1):
                leads = free[:, turn]
                sums = overlaps(mine[:, turn, None], mine[:, turn + 1 :], pixel).sum(-1)  # (G, rest)
                lowered = leads[:, None] & free[:, turn + 1 :] & (sums > above * boxes.shape[1])
                group, place = np.nonzero(lowered)
                weights[some[group, turn + 1 + place]] = 1 - sums[group, place]
                free[:, turn + 1 :] &= ~lowered
    lowered_scores = scores * weights
    return lowered_scores, np.lexsort((-np.arange(len(groups)), -lowered_scores, groups))


def link(frames: Array, boxes: Array, scores: Array, rules: LinkRules) -> list[ScoredTube]:
    """The tubes of one class in one video, from tubelets that were suppressed and are sorted by frame, then score.

    frames: int (n,);  boxes: (n, K, 4);  scores: (n,)

    Frame by frame the tubes, the best mean first, take the best tubelet that overlaps their last one enough; what is
    left begins new ones. A tube ends when it took none for K frames.
    """
    starts = np.flatnonzero(np.diff(frames, prepend=-1)) if len(frames) else frames
    place = np.arange(len(frames)) - np.repeat(starts, np.diff(starts, append=len(frames)))
    kept = place < rules.keep
    frames, boxes, scores = frames[kept], boxes[kept], scores[kept]
    at, score, length = frames.tolist(), scores.tolist(), boxes.shape[1]
    near = _near(frames, boxes, rules)
    done: list[list[int]] = []
    open_: list[tuple[float, list[int]]] = []  # sum of the scores, rows
    for now, group in groupby(range(len(at)), key=at.__getitem__):
        free = set(rows := list(group))
        done += [tube for _, tube in open_ if now - at[tube[-1]] > length]
        open_ = [(total, tube) for total, tube in open_ if now - at[tube[-1]] <= length]
        open_.sort(key=lambda one: -one[0] / len(one[1]))
        for number, (total, tube) in enumerate(open_):
            best = next((row for row in near.get((tube[-1], now), ()) if row in free), None)
            if best is not None:
                free.remove(best)
                tube.append(best)
                open_[number] = (total + score[best], tube)
        open_ += [(score[row], [row]) for row in rows if row in free]
    done += [tube for _, tube in open_]
    return [found for rows in done if (found := _tube(rows, frames, boxes, scores, rules)) is not None]


def _near(frames: Array, boxes: Array, rules: LinkRules) -> dict[tuple[int, int], list[int]]:
    """(tubelet, later frame) -> the tubelets that begin there and overlap it enough, the best score first.

    The overlap is the mean over the frames that both cover; where they only meet, that of the last and the first box.
    """
    length = boxes.shape[1]
    found: dict[tuple[int, int], list[int]] = {}
    for behind in range(1, length + 1):
        last, new = pairs(frames + behind, frames)
        skip = min(behind, length - 1)
        overlap = overlaps(boxes[last, skip:], boxes[new, : length - skip], rules.pixel).mean(1)
        enough = overlap >= rules.link
        last, new = last[enough], new[enough]
        for one, now, other in zip(last.tolist(), frames[new].tolist(), new.tolist(), strict=True):
            found.setdefault((one, now), []).append(other)
    return found


def _tube(members: list[int], frames: Array, boxes: Array, scores: Array, rules: LinkRules) -> ScoredTube | None:
    """The mean of the tubelets that cover each frame; nothing if it is too short or too weak."""
    first, span = int(frames[members[0]]), boxes.shape[1]
    count = int(frames[members[-1]]) + span - first
    if count < rules.shortest:  # most are, and end here
        return None
    score = float(scores[members].mean(dtype=np.float64))
    if score < rules.weakest:
        return None
    place = (frames[members] - first)[:, None] + np.arange(span)
    total, covered = np.zeros((count, 4)), np.zeros(count)
    np.add.at(total, place, boxes[members])
    np.add.at(covered, place, 1)
    return ScoredTube(first + np.arange(count), total / covered[:, None], score)


def tube_overlap(a: ScoredTube, b: ScoredTube, pixel: float) -> float:
    """The mean overlap of their boxes over the frames of both, times the share of these among the frames of either."""
    common, in_a, in_b = np.intersect1d(a.frames, b.frames, assume_unique=True, return_indices=True)
    if not len(common):
        return 0.0
    either = len(a.frames) + len(b.frames) - len(common)
    return float(overlaps(a.boxes[in_a], b.boxes[in_b], pixel).mean()) * len(common) / either


def suppress_tubes(tubes: list[ScoredTube], rules: LinkRules) -> list[ScoredTube]:
    """The best first, without those that overlap a better one."""
    kept: list[ScoredTube] = []
    for tube in sorted(tubes, key=lambda one: -one.score):
        if all(tube_overlap(tube, better, rules.pixel) <= rules.apart for better in kept):
            kept.append(tube)
    return kept
