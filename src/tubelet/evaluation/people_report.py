"""From what detectors saw to one table: frame-mAP and video-mAP with intervals, beside the first row, against cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

from tubelet.data.datasets.keyframes import KeyframeClips
from tubelet.errors import TubeletError
from tubelet.evaluation.boxes import bootstrap
from tubelet.evaluation.people import RULES, Looked, clip_size, measured
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
    looked: Looked


def people_table(
    detectors: Sequence[Detector],
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
        rule: see `detections_of`.
        by: what is drawn again for intervals: "source", the films that videos were cut from where their names tell, or
            "video".
        timing: measure milliseconds of one clip, runs interleaved; without it those fields are left out.

    Fields (shares are 0 to 1; `..._95` are intervals): model, select, data, every, rule, videos, key_frames,
    unreadable; frame_map@0.5, @0.75, @0.5:0.95 and video_map@0.2, @0.5, @0.75, @0.5:0.95; frame_difference@... and
    video_difference@... to the first row; size (height x width of the clips, of most of them), gmacs (a clip), ratio,
    tokens, params_m; ms_median, ms_p95, speedup. None where it does not apply.

    Raises TubeletError if the detectors did not look at the same key frames.
    """
    if by not in CLUSTERS:
        raise TubeletError(f"by={by!r}: one of {', '.join(CLUSTERS)}")
    first: TubeResult | None = None
    looked_at: set[tuple[str, tuple[int, ...]]] = set()
    found: list[dict[str, Any]] = []
    for one in detectors:
        rows_of = {select: list(rows.values()) for select, rows in one.looked.rows.items()}
        if not all(rows_of.values()):
            raise TubeletError(f"{data}: none of its videos could be read")
        size = clip_size(next(iter(rows_of.values())))
        costs = costs_of(one.model, list(rows_of), timing, device, threads, runs, progress, size)
        for select, rows in rows_of.items():
            seen = {(row.name, tuple(row.frames)) for row in rows}
            if looked_at and seen != looked_at:
                raise TubeletError(f"{one.name} looked at other key frames than {detectors[0].name}")
            looked_at = seen
            result = measured(one.dataset, rows, every=one.looked.every, rule=rule)
            clusters = {row.name: row.source if by == "source" else row.name for row in rows}
            options: dict[str, Any] = {"draws": draws, "seed": seed, "clusters": clusters}
            cost = costs[select]
            found.append(
                {
                    "model": one.name,
                    "select": select,
                    "data": data,
                    "every": one.looked.every,
                    "rule": rule,
                    "videos": len(rows),
                    "key_frames": sum(len(row.frames) for row in rows),
                    "unreadable": len(one.looked.bad),
                    **_figures("map", result, options),
                    **_figures("difference", first, options, result),
                    "size": "{}x{}".format(*size),
                    "gmacs": cost["gmacs"],
                    "ratio": (found[0]["gmacs"] if found else cost["gmacs"]) / cost["gmacs"],
                    "tokens": cost["tokens"],
                    "params_m": cost["params_m"],
                    **{key: cost[key] for key in ("ms_median", "ms_p95", "speedup") if key in cost},
                }
            )
            first = first or result
    return found


def _figures(
    what: str, result: TubeResult | None, options: dict[str, Any], other: TubeResult | None = None
) -> dict[str, Any]:
    """Figures of a result or, given another, of how much higher that is, each with its interval; None of none."""
    found: dict[str, Any] = {}
    for kind, shown in SHOWN.items():
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
