"""The rows of a csv of boxes, of ground truth or detections, each checked before anything is made of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tubelet.data.datasets.listing import found_labels, numbers_of
from tubelet.data.datasets.text import csv_rows
from tubelet.errors import TubeletError

COLUMNS = ("path", "frame", "x1", "y1", "x2", "y2", "label")
SIDES = ("x1", "y1", "x2", "y2")

FRAMES = 2**31
"""Frames are below it: more than two years of video."""

FAR = 1e6
"""No side of a box is so many pixels from the picture."""

CLASSES = 10_000
"""So many classes at most where numbers are all there is of them: the greatest says how many there are."""


@dataclass(frozen=True)
class BoxRow:
    """A row of the file; label: number of the class;  person: empty where the file does not say;  score: 1 likewise."""

    line: int
    path: str
    frame: int
    box: tuple[float, float, float, float]
    label: int
    person: str = ""
    score: float = 1.0


def read_box_rows(
    path: str | Path, labels: Sequence[str] | None = None, *, scored: bool = False
) -> tuple[list[str], list[BoxRow]]:
    """The class list, which is `labels` or else what is found, and the rows.

    scored:  rows are detections: with a score, of boxes that may be empty

    Raises TubeletError that names the line of the first row that is none.
    """
    needed = (*COLUMNS, "score") if scored else COLUMNS
    header, *rows = csv_rows(path) or [(0, [])]
    at = {name: column for column, name in enumerate(header[1])}
    if not set(needed) <= set(at):
        raise TubeletError(f"{path}: needs a header with the columns {','.join(needed)}{'' if scored else '[,person]'}")
    if len(at) < len(header[1]):
        raise TubeletError(f"{path}: a column stands twice in its header, {','.join(header[1])}")
    for line, cells in rows:
        if problem := _problem(cells, at, scored):
            raise TubeletError(f"{path}: line {line} {problem}")
    names = [cells[at["label"]] for _, cells in rows]
    if labels is None:
        _check_numbers(path, rows, names)
    known = list(labels) if labels is not None else found_labels(names)
    found = []
    for (line, cells), number in zip(rows, numbers_of(names, known), strict=True):
        if number is None:
            label = cells[at["label"]]
            raise TubeletError(f"{path}: line {line} has the class {label!r}, which is none of the {len(known)}")
        x1, y1, x2, y2 = (float(cells[at[side]]) for side in SIDES)
        person = cells[at["person"]] if "person" in at else ""
        score = float(cells[at["score"]]) if scored else 1.0
        found.append(BoxRow(line, cells[at["path"]], int(cells[at["frame"]]), (x1, y1, x2, y2), number, person, score))
    return known, found


def second_boxes(path: str | Path, rows: Sequence[BoxRow]) -> list[str]:
    """A sentence for each row that gives one person doing one action another box in a frame: which of them is it?"""
    first: dict[tuple[str, str, int, int], int] = {}
    found = []
    for row in rows:
        line = first.setdefault((row.path, row.person, row.label, row.frame), row.line)
        if line != row.line:
            who = f"the person {row.person!r} of {row.path}" if row.person else row.path
            mend = "each person has a name of its own" if row.person else "two people need the column person"
            found.append(
                f"{path}: lines {line} and {row.line} give {who} two boxes of one class at frame {row.frame}; {mend}"
            )
    return found


def _problem(cells: Sequence[str], at: dict[str, int], scored: bool) -> str:
    """What is wrong with a row, as the rest of a sentence, or nothing."""
    if len(cells) != len(at):
        return f"has {len(cells)} columns, the header has {len(at)}"
    if empty := [name for name in ("path", "label") if not cells[at[name]]]:
        return f"has no {empty[0]}"
    try:
        frame, box = int(cells[at["frame"]]), [float(cells[at[side]]) for side in SIDES]
        score = float(cells[at["score"]]) if scored else 1.0
    except ValueError:
        return f"needs a whole frame{', four numbers and a score' if scored else ' and four numbers for the box'}"
    if not 0 <= frame < FRAMES:
        return f"has frame {_short(cells[at['frame']])}; needed: frame >= 0 and below {FRAMES}"
    if not all(abs(side) <= FAR for side in box):  # nor is one no number
        return f"has the box {box}; needed: pixels, at most {FAR:.0f}"
    if not scored and not (box[0] < box[2] and box[1] < box[3]):
        return f"has frame {frame}, box {box}; needed: x1 < x2, y1 < y2"
    return "" if math.isfinite(score) else f"has the score {score}; needed: a finite number"


def _check_numbers(path: str | Path, rows: Sequence[tuple[int, list[str]]], names: Sequence[str]) -> None:
    """Raises TubeletError for classes that are all numbers, one of them so large that it is no class."""
    if not all(name.isdecimal() for name in names):
        return
    for (line, _), name in zip(rows, names, strict=True):
        if len(name.lstrip("0")) > len(str(CLASSES)) or int(name) >= CLASSES:
            raise TubeletError(
                f"{path}: line {line} has the class {_short(name)}; needed: names, or numbers from 0 below {CLASSES}"
            )


def _short(text: str) -> str:
    return text if len(text) <= 30 else f"{text[:24]}..."
