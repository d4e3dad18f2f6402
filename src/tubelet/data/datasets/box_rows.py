"""The rows of a csv of boxes, of ground truth or detections, each checked before anything is made of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

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


class BoxRow(NamedTuple):
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

    scored:  rows are detections: with a score, of boxes that may be empty, and there may be none

    Raises TubeletError that names the line of the first row that is none.
    """
    needed = (*COLUMNS, "score") if scored else COLUMNS
    (_, header), *rows = csv_rows(path) or [(0, [])]
    at = {name: column for column, name in enumerate(header) if name}  # tables of a spreadsheet end in empty columns
    if not set(needed) <= set(at):
        raise TubeletError(f"{path}: needs a header with the columns {','.join(needed)}{'' if scored else '[,person]'}")
    if len(at) < sum(map(bool, header)):
        raise TubeletError(f"{path}: a column stands twice in its header, {','.join(header)}")
    if not rows and not scored:
        raise TubeletError(f"{path}: has a header and no row")
    least, numbers = max(at[name] for name in needed) + 1, []
    for line, cells in rows:
        try:
            if len(cells) < least or any(cells[len(header) :]):
                raise TubeletError(f"has {len(cells)} columns, the header has {len(header)}")
            cells += [""] * (len(header) - len(cells))
            numbers.append(_numbers(cells, at, scored))
        except TubeletError as error:
            raise TubeletError(f"{path}: line {line} {error}") from None
    names = [cells[at["label"]] for _, cells in rows]
    if labels is None:
        _check_numbers(path, rows, names)
    known = list(labels) if labels is not None else found_labels(names)
    found = []
    for (line, cells), (frame, box, score), label in zip(rows, numbers, numbers_of(names, known), strict=True):
        if label is None:
            name = cells[at["label"]]
            raise TubeletError(f"{path}: line {line} has the class {name!r}, which is none of the {len(known)}")
        person = cells[at["person"]] if "person" in at else ""
        found.append(BoxRow(line, cells[at["path"]], frame, box, label, person, score))
    return known, found


def second_boxes(path: str | Path, rows: Sequence[BoxRow]) -> list[str]:
    """A sentence for each row that gives one person doing one action another box in a frame: which of them is it?"""
    first: dict[tuple[str, str, int, int], BoxRow] = {}
    found = []
    for row in rows:
        other = first.setdefault((row.path, row.person, row.label, row.frame), row)
        if other is row:
            continue
        lines = f"{path}: lines {other.line} and {row.line}"
        if other.box == row.box:
            found.append(f"{lines} are the same; one of them is enough")
        else:
            who = f"the person {row.person!r} of {row.path}" if row.person else row.path
            mend = "each person has a name of its own" if row.person else "two people need the column person"
            found.append(f"{lines} give {who} two boxes of one class at frame {row.frame}; {mend}")
    return found


def _numbers(
    cells: Sequence[str], at: dict[str, int], scored: bool
) -> tuple[int, tuple[float, float, float, float], float]:
    """Frame, box and score of a row. Raises TubeletError with the rest of a sentence on what is wrong with it."""
    if empty := [name for name in ("path", "label") if not cells[at[name]]]:
        raise TubeletError(f"has no {empty[0]}")
    if "\0" in cells[at["path"]] or not PurePath(cells[at["path"]]).name:
        raise TubeletError(f"has the path {cells[at['path']]!r}, which names no file")
    try:
        frame, score = int(cells[at["frame"]]), float(cells[at["score"]]) if scored else 1.0
        x1, y1, x2, y2 = (float(cells[at[side]]) for side in SIDES)
    except ValueError:
        more = ", four numbers and a score" if scored else " and four numbers for the box"
        raise TubeletError(f"needs a whole frame{more}") from None
    if not 0 <= frame < FRAMES:
        raise TubeletError(f"has frame {_short(cells[at['frame']])}; needed: frame >= 0 and below {FRAMES}")
    box = (x1, y1, x2, y2)
    if not (-FAR <= min(box) and max(box) <= FAR and math.isfinite(sum(box))):
        raise TubeletError(f"has the box {list(box)}; needed: pixels, at most {FAR:.0f}")
    if not scored and not (x1 < x2 and y1 < y2):
        raise TubeletError(f"has frame {frame}, box {list(box)}; needed: x1 < x2, y1 < y2")
    if not math.isfinite(score):
        raise TubeletError(f"has the score {score}; needed: a finite number")
    return frame, box, score


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
