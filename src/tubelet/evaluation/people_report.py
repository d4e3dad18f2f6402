"""From what detectors saw to one table: frame-mAP and video-mAP with intervals, beside the first row, against cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

from tubelet.data.datasets.keyframes import KeyframeClips
from tubelet.errors import TubeletError
from tubelet.evaluation.ava import AvaResult
from tubelet.evaluation.ava_people import AvaVideos, SeenSecond, measured_ava
from tubelet.evaluation.boxes import bootstrap
from tubelet.evaluation.people import RULES, Looked, Seen, clip_size, measured
from tubelet.evaluation.report import CLUSTERS, costs_of
from tubelet.evaluation.tubes import TubeResult
from tubelet.models.evad import EVAD
from tubelet.profiling.latency import Progress

DRAWS = 1000
SHOWN = {"frame": ("0.5", "0.75", "0.5:0.95"), "video": ("0.2", "0.5", "0.75", "0.5:0.95")}


@dataclass(frozen=True)
class Detector:
    """A detector that looked. name: as given;  dataset: what it looked at"""

    name: str
    model: EVAD
    dataset: KeyframeClips
    looked: Looked[Seen]

    shown = SHOWN

    def key_frames(self, select: str) -> set[tuple[str, int]]:
        return {(row.name, frame) for row in self.looked.rows[select].values() for frame in row.frames}

    def measured(self, select: str, rule: str) -> TubeResult:
        looked = self.looked
        options: dict[str, Any] = {"every": looked.every, "rule": rule, "all_frames": looked.all_frames}
        return measured(self.dataset, looked.rows[select].values(), **options)


@dataclass(frozen=True)
class AvaDetector:
    """One that looked at AVA, where nobody is followed and boxes and actions are those of the published rule."""

    name: str
    model: EVAD
    dataset: AvaVideos
    looked: Looked[SeenSecond]

    shown = {"frame": SHOWN["frame"]}

    def key_frames(self, select: str) -> set[tuple[str, int]]:
        return {(row.name, row.second) for row in self.looked.rows[select].values()}

    def measured(self, select: str, rule: str) -> AvaResult:
        if rule != "published":
            raise TubeletError(f"rule {rule!r}: AVA is judged by the published rule alone")
        return measured_ava(self.dataset, self.looked.rows[select].values())


def people_table(
    detectors: Sequence[Detector] | Sequence[AvaDetector],
    data: str,
    *,
    rule: str = RULES[0],
    by: str = "source",
    draws: int = DRAWS,
    seed: int = 0,
    timing: bool = True,
    device: str = "cpu",
    threads: int = 1,
    runs: int = 7,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """A row a detector and selection, the first of which the others are compared with, on the same key frames.

    Args:
        rule: see `detections_of`; of AVA "published".
        by: what is drawn again for intervals: "source", the films that videos were cut from where their names tell, or
            "video".
        timing: measure milliseconds of one clip, runs interleaved; without it those fields are left out.

    Fields (shares are 0 to 1; `..._95` are intervals): model, select, data, every, all_frames, rule, videos,
    key_frames, unreadable; frame_map@0.5, @0.75, @0.5:0.95 and video_map@0.2, @0.5, @0.75, @0.5:0.95;
    frame_difference@... and video_difference@... to the first row; size (height x width of the clips, of most of them),
    gmacs (a clip), ratio, tokens, params_m; ms_median, ms_p95, speedup; notes, sentences on what was judged. None where
    it does not apply; of AVA there is no video_map and no video_difference.

    Raises TubeletError if the detectors did not look at the same key frames.
    """
    if by not in CLUSTERS:
        raise TubeletError(f"by={by!r}: one of {', '.join(CLUSTERS)}")
    first: TubeResult | AvaResult | None = None
    looked_at: set[tuple[str, int]] = set()
    found: list[dict[str, Any]] = []
    for one in detectors:
        rows_of: dict[str, list[Seen | SeenSecond]] = {s: list(rows.values()) for s, rows in one.looked.rows.items()}
        if not all(rows_of.values()):
            raise TubeletError(f"{data}: none of its videos could be read")
        size = clip_size(row.size for row in next(iter(rows_of.values())))
        costs = costs_of(one.model, list(rows_of), timing, device, threads, runs, progress, size)
        for select, rows in rows_of.items():
            seen = one.key_frames(select)
            if looked_at and seen != looked_at:
                raise TubeletError(f"{one.name} looked at other key frames than {detectors[0].name}")
            looked_at = seen
            result = one.measured(select, rule)
            clusters = {row.name: row.source if by == "source" else row.name for row in rows}
            options: dict[str, Any] = {"draws": draws, "seed": seed, "clusters": clusters}
            cost = costs[select]
            found.append(
                {
                    "model": one.name,
                    "select": select,
                    "data": data,
                    "every": one.looked.every,
                    "all_frames": one.looked.all_frames,
                    "rule": rule,
                    "videos": len(clusters),
                    "key_frames": len(seen),
                    "unreadable": len(one.looked.bad),
                    **_figures(one.shown, "map", result, options),
                    **_figures(one.shown, "difference", first, options, result),
                    "size": "{}x{}".format(*size),
                    "gmacs": cost["gmacs"],
                    "ratio": (found[0]["gmacs"] if found else cost["gmacs"]) / cost["gmacs"],
                    "tokens": cost["tokens"],
                    "params_m": cost["params_m"],
                    **{key: cost[key] for key in ("ms_median", "ms_p95", "speedup") if key in cost},
                    "notes": [*one.looked.notes, *(result.notes if isinstance(result, AvaResult) else ())],
                }
            )
            first = first or result
    return found


def _figures(
    kinds: Mapping[str, Sequence[str]],
    what: str,
    result: TubeResult | AvaResult | None,
    options: dict[str, Any],
    other: TubeResult | AvaResult | None = None,
) -> dict[str, Any]:
    """Figures of a result or, given another, of how much higher that is, each with its interval; None of none."""
    found: dict[str, Any] = {}
    for kind, shown in kinds.items():
        names = [f"{kind}_{what}@{level}" for level in shown]
        if result is None:
            found |= {name + ending: None for name in names for ending in ("", "_95")}
            continue
        intervals = bootstrap(getattr(result, kind), None if other is None else getattr(other, kind), **options)
        for name, level in zip(names, shown, strict=True):
            one = intervals[level]
            found[name] = None if isnan(one.value) else one.value
            found[f"{name}_95"] = None if isnan(one.low) else (one.low, one.high)
    return found
