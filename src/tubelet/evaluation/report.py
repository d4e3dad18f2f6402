"""From rows to one table: accuracy with intervals, beside the dense model, against what it cost and took."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tubelet.errors import TubeletError
from tubelet.evaluation.rows import Columns, Row, columns
from tubelet.evaluation.run import Judged
from tubelet.evaluation.statistics import DRAWS, Paired, accuracy, paired
from tubelet.models.base import VideoModel
from tubelet.profiling import bench, flops_table
from tubelet.profiling.latency import Progress

CLUSTERS = ("source", "video")


@dataclass(frozen=True)
class Candidate:
    """A model that was judged. name: as given;  views: (clips, crops) that were averaged"""

    name: str
    model: VideoModel
    judged: Judged
    views: tuple[int, int] = (1, 1)


def table(
    candidates: Sequence[Candidate],
    data: str,
    *,
    by: str = "source",
    draws: int = DRAWS,
    seed: int = 0,
    timing: bool = True,
    device: str = "cpu",
    threads: int = 1,
    runs: int = 7,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """A row a model and selection, the first of which the others are compared with, on the videos both have.

    Args:
        by: what is drawn again for intervals: "source", the videos that clips were cut from where their names tell, or
            "video", each clip.
        timing: measure milliseconds of one view, runs interleaved; without it those fields are left out.

    Fields (shares are 0 to 1; `..._95` are intervals): model, select, data, views, videos, unreadable, top1, top5,
    mean_class, log_loss; difference (of top1 to the first row), only_first, only_this, p (McNemar); gmacs (a view),
    gmacs_video, ratio, tokens, params_m; ms_median, ms_p95, speedup; recall, precision, kept, and of the same budget
    at random, in the mean: random_recall, random_precision. None where it does not apply.
    """
    if by not in CLUSTERS:
        raise TubeletError(f"by={by!r}: one of {', '.join(CLUSTERS)}")
    first: Columns | None = None
    found: list[dict[str, Any]] = []
    for one in candidates:
        costs = costs_of(one.model, list(one.judged.rows), timing, device, threads, runs, progress)
        for select, rows in one.judged.rows.items():
            if not rows:
                raise TubeletError(f"{data}: none of its videos could be read")
            own = columns(rows.values())
            first = first or own
            scores = accuracy(own.rank, own.label, _clusters(own, by), draws=draws, seed=seed)
            views = one.views[0] * one.views[1]
            cost = costs[select]
            found.append(
                {
                    "model": one.name,
                    "select": select,
                    "data": data,
                    "views": "{}x{}".format(*one.views),
                    "videos": len(rows),
                    "unreadable": len(one.judged.bad),
                    **vars(scores),
                    "log_loss": float(-own.log_prob.mean()),
                    **_beside(first, own, by, draws, seed),
                    "gmacs": cost["gmacs"],
                    "gmacs_video": cost["gmacs"] * views,
                    "ratio": (found[0]["gmacs"] if found else cost["gmacs"]) / cost["gmacs"],
                    "tokens": cost["tokens"],
                    "params_m": cost["params_m"],
                    **{key: cost[key] for key in ("ms_median", "ms_p95", "speedup") if key in cost},
                    **quality(rows.values()),
                }
            )
    return found


def pair_of(first: Columns, second: Columns, by: str = "source", draws: int = DRAWS, seed: int = 0) -> Paired:
    """Two models or selections on the videos that both have, told by name. Raises TubeletError if there are none."""
    known = {name: number for number, name in enumerate(first.name)}
    both = [(known[name], number) for number, name in enumerate(second.name) if name in known]
    if not both:
        raise TubeletError("nothing to compare: no video is in both evaluations")
    a, b = np.array(both).T
    clusters = _clusters(second, by)
    return paired(first.rank[a], second.rank[b], [clusters[i] for i in b], draws=draws, seed=seed)


def quality(rows: Any) -> dict[str, float | None]:
    """Means over the videos whose truth is known: of the selection, and of as many tokens drawn at random."""
    known: list[Row] = [row for row in rows if row.recall is not None]
    names = {"recall": "recall", "precision": "precision", "kept": "kept"}
    names |= {"random_recall": "kept", "random_precision": "truth"}
    return {name: float(np.mean([getattr(row, of) for row in known])) if known else None for name, of in names.items()}


def write(
    rows: Sequence[dict[str, Any]],
    folder: Path,
    note: Callable[[str], None] = lambda sentence: None,
    figure: str = "top1",
) -> None:
    """report.json, report.csv and, where matplotlib is installed, curve.png, which shows one of the fields."""
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / "report.json", json.dumps(rows, indent=1) + "\n")
    flat = [flattened(row) for row in rows]
    part = folder / ".report.csv.part"
    with open(part, "w", newline="") as file:
        writer = csv.DictWriter(file, list(flat[0]))
        writer.writeheader()
        writer.writerows(flat)
    os.replace(part, folder / "report.csv")
    try:
        from tubelet.evaluation.curve import draw

        draw(rows, folder / "curve.png", figure)
    except ImportError:
        note("curve.png is not drawn: it needs matplotlib (pip install 'tubelet[plots]')")


def flattened(row: dict[str, Any]) -> dict[str, Any]:
    """A row for a csv: an interval becomes two columns, tokens one text."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if key.endswith("_95"):
            flat[f"{key[:-3]}_low"], flat[f"{key[:-3]}_high"] = value or ("", "")
        else:
            flat[key] = " ".join(map(str, value)) if isinstance(value, list) else value
    return flat


def _beside(first: Columns, own: Columns, by: str, draws: int, seed: int) -> dict[str, Any]:
    if own is first:
        return dict.fromkeys(("difference", "difference_95", "only_first", "only_this", "p"))
    pair = pair_of(first, own, by, draws, seed)
    return {
        "difference": pair.difference,
        "difference_95": pair.difference_95,
        "only_first": pair.only_first,
        "only_this": pair.only_second,
        "p": pair.p,
    }


def _clusters(rows: Columns, by: str) -> Sequence[Hashable]:
    return rows.source if by == "source" else rows.name


def costs_of(
    model: VideoModel,
    selects: list[str],
    timing: bool,
    device: str,
    threads: int,
    runs: int,
    progress: Progress | None,
    size: tuple[int, int] | None = None,
) -> dict[str, dict[str, Any]]:
    """Multiply-adds of each selection, and times where wanted, of one view in the size that the model is given, or
    another (height, width)."""
    p = model.config.preprocessing
    others = [select for select in selects if select != "none"]
    shape: dict[str, Any] = {"frames": p.frames, "size": size or p.size}
    if timing:
        rows = bench(model, others, device=device, threads=threads, runs=runs, progress=progress, **shape)
    else:
        rows = flops_table(model, others, **shape)
    return {row["select"]: row for row in rows}


def _replace(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(text)
    os.replace(part, path)
