"""Accuracy against what it costs: multiply-adds and, where they were measured, milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

AXES = {"gmacs": "10⁹ multiply-adds a view", "ms_median": "milliseconds a view"}
FIGURES = {"top1": "top-1", "frame_map@0.5": "frame-mAP at 0.5"}
MARKS = "osD^vP*X"


def draw(rows: Sequence[dict[str, Any]], path: Path, figure_of: str = "top1") -> None:
    """A picture with a panel an axis, a line a selector; the first row is the dotted line. Needs matplotlib.

    Rows without the figure (a mean over no class is none) are left out; without that of the first there is no picture.
    """
    from matplotlib.figure import Figure

    if rows[0][figure_of] is None:
        return
    rows = [row for row in rows if row[figure_of] is not None]

    axes = {key: title for key, title in AXES.items() if key in rows[0]}
    figure = Figure(figsize=(6.4 * len(axes), 4.8), layout="constrained")
    panels = figure.subplots(1, len(axes), sharey=True, squeeze=False)[0]
    for panel, (key, title) in zip(panels, axes.items(), strict=True):
        panel.axhline(100 * rows[0][figure_of], color="0.6", linestyle=":", linewidth=1)
        for number, (name, points) in enumerate(lines(rows).items()):
            points = sorted(points, key=lambda row: row[key])
            heights = [100 * row[figure_of] for row in points]
            bars = [[100 * abs(row[figure_of] - row[f"{figure_of}_95"][side]) for row in points] for side in (0, 1)]
            panel.errorbar(
                [row[key] for row in points], heights, bars, label=name, marker=MARKS[number % len(MARKS)],
                markersize=5, linewidth=1, elinewidth=0.6, capsize=2,
            )  # fmt: skip
        panel.set_xlabel(title)
        panel.grid(color="0.9")
    panels[0].set_ylabel(f"{FIGURES[figure_of]}, %, on {rows[0]['videos']} videos of {rows[0]['data']}")
    panels[-1].legend(fontsize=8)
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    figure.savefig(part, dpi=150)
    part.replace(path)


def lines(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The rows of each model and selector: what differs in its budget alone is one line."""
    several = len({row["model"] for row in rows}) > 1
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        name = "+".join(term.partition(":")[0] for term in row["select"].split("+"))
        name = "dense" if name == "none" else name
        found.setdefault(f"{row['model']} {name}" if several else name, []).append(row)
    return found
