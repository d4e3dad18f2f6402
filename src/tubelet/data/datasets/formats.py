"""The formats of one's own clips: a folder a class, or a csv `path,label[,start,end]`. See docs/data.md.

data/walk/a.mp4                      a folder a class
data/train/walk/a.mp4  data/val/...  the same with splits
data/train.csv  data/val.csv         a csv a split, paths relative to it, beside an optional classes.txt
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from tubelet.data.clips import VIDEO_SUFFIXES
from tubelet.data.datasets.class_lists import find_class_list, read_class_list
from tubelet.data.datasets.listing import DEFAULT_VIEWS, Listing, Record, Views, found_labels, numbers_of
from tubelet.errors import TubeletError

SPLIT_NAMES = ("train", "training", "fit", "val", "valid", "validation", "test", "testing")
NO_TABLES = {".yaml": "a config", ".yml": "a config", ".json": "JSON"}  # whose lines would pass for rows
PATH_HEADS, LABEL_HEADS = ("path", "video", "file"), ("label", "class")

Row = tuple[int, str, str, str, str]
"""Line number, path, label, start, end, as they stand in the file."""


def folder_splits(
    folder: Path, labels: Sequence[str] | None = None, views: Views = DEFAULT_VIEWS
) -> dict[str, Listing]:
    """A folder -> its splits by name ("" where there are none), with one class list for all.

    Raises TubeletError if the folder is in none of the formats.
    """
    given = list(labels) if labels is not None else None
    if given is None and (listed := find_class_list(folder)):
        given = read_class_list(listed)
    inside = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    tables = [path for path in inside if path.suffix == ".csv" and _is_clip_table(path)]
    if tables:
        rows = {path: read_rows(path) for path in tables}
        known = given or found_labels([row[2] for path in tables for row in rows[path] if row[2]])
        return {path.stem: _from_rows(path, rows[path], known, given is not None, folder, views) for path in tables}
    folders = [path for path in inside if path.is_dir()]
    splits = [path for path in folders if path.name in SPLIT_NAMES and any(sub.is_dir() for sub in path.iterdir())]
    named = {path.name: path for path in splits} or {"": folder}
    classes = {split: [sub for sub in sorted(path.iterdir()) if sub.is_dir()] for split, path in named.items()}
    if not any(_videos(sub) for subs in classes.values() for sub in subs):
        raise TubeletError(
            f"{folder}: neither a csv with the columns path,label nor a folder a class with videos"
            f" ({' '.join(VIDEO_SUFFIXES)}) is here"
        )
    names = [sub.name for subs in classes.values() for sub in subs if _videos(sub) or splits]
    known = given or found_labels(names)
    return {
        split: _from_folders(folder, split, subs, known, given is not None, views) for split, subs in classes.items()
    }


def read_csv(
    path: Path, labels: Sequence[str] | None = None, *, root: Path | None = None, views: Views = DEFAULT_VIEWS
) -> Listing:
    """One csv of clips. The class list is `labels`, else that beside the file, else the labels found in it.

    Of a file that is called train, val or the like they are those of all such files beside it: numbers agree.
    """
    given = list(labels) if labels is not None else None
    if given is None and (listed := find_class_list(path.parent)):
        given = read_class_list(listed)
    rows = read_rows(path)
    siblings = [other for other in sorted(path.parent.glob("*.csv")) if other.stem in SPLIT_NAMES and other != path]
    more = [row for other in siblings for row in read_rows(other)] if given is None and path.stem in SPLIT_NAMES else []
    known = given or found_labels([row[2] for row in [*rows, *more] if row[2]])
    return _from_rows(path, rows, known, given is not None, root or path.parent, views)


def read_rows(path: Path) -> list[Row]:
    """The rows of a table of clips: comma separated, with or without a header; or "path label" a line.

    Raises TubeletError if the file is no such table.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise TubeletError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise TubeletError(f"{path}: not a table of clips, which is text in UTF-8") from None
    if kind := NO_TABLES.get(path.suffix.lower()):
        raise TubeletError(f"{path}: {kind}, not a table of clips; lines path,label[,start,end] are needed")
    first = next((line for line in lines if line.strip()), "")
    if "," in first:
        cells = [(number, [cell.strip() for cell in row]) for number, row in enumerate(csv.reader(lines), start=1)]
    else:  # the lists of VideoMAE and mmaction2; a path may hold spaces
        cells = [(number, line.rsplit(maxsplit=1)) for number, line in enumerate(lines, start=1)]
    cells = [(number, row) for number, row in cells if any(row)]
    if not cells:
        raise TubeletError(f"{path}: the file is empty; lines path,label[,start,end] are needed")
    heads = [cell.lower() for cell in cells[0][1]]
    at = {"path": 0, "label": 1, "start": 2, "end": 3}
    if any(head in PATH_HEADS for head in heads):
        cells.pop(0)
        at = {}
        for name, allowed in (("path", PATH_HEADS), ("label", LABEL_HEADS), ("start", ("start",)), ("end", ("end",))):
            found = [index for index, head in enumerate(heads) if head in allowed]
            at |= {name: found[0]} if found else {}
        if "label" not in at:
            raise TubeletError(f"{path}: its header has no column label; needed: path,label[,start,end]")

    def cell(row: list[str], name: str) -> str:
        return row[at[name]] if name in at and at[name] < len(row) else ""

    return [
        (number, cell(row, "path"), cell(row, "label"), cell(row, "start"), cell(row, "end")) for number, row in cells
    ]


def _from_rows(path: Path, rows: Sequence[Row], labels: list[str], fixed: bool, root: Path, views: Views) -> Listing:
    records, problems = [], []
    numbers = numbers_of([row[2] for row in rows], labels)
    for (line, name, label, start, end), number in zip(rows, numbers, strict=True):
        if not name:
            problems.append(f"{path}: line {line} has no path")
        elif number is None:
            problems.append(f"{path}: line {line} has the class {label!r}, which is none of the {len(labels)} classes")
        else:
            try:
                span = _seconds(start), _seconds(end)
                if (span[0] or 0) >= (math.inf if span[1] is None else span[1]):
                    raise ValueError
            except ValueError:
                problems.append(
                    f"{path}: line {line} has start {start!r} and end {end!r}; seconds, start below end, are needed"
                )
            else:
                records.append(Record(root / name, number, name + _written(span), *span))
    return Listing(path.stem, labels, records, views, tuple(problems), fixed)


def _from_folders(
    root: Path, split: str, folders: Sequence[Path], labels: list[str], fixed: bool, views: Views
) -> Listing:
    records, problems = [], []
    for folder, number in zip(folders, numbers_of([folder.name for folder in folders], labels), strict=True):
        videos = _videos(folder)
        if number is None and videos:
            problems.append(f"{folder}: {folder.name!r} is none of the {len(labels)} classes")
        elif number is not None:
            records += [Record(video, number, str(video.relative_to(root))) for video in videos]
    return Listing(split or root.name, labels, records, views, tuple(problems), fixed)


def _videos(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file())


def _is_clip_table(path: Path) -> bool:
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        heads = {cell.strip().lower() for cell in file.readline().split(",")}
    named = bool(heads & set(PATH_HEADS)) and bool(heads & set(LABEL_HEADS))
    return "x1" not in heads and (named or path.stem in SPLIT_NAMES)


def _seconds(text: str) -> float | None:
    value = float(text) if text else None
    if value is not None and not 0 <= value < math.inf:
        raise ValueError(text)
    return value


def _written(span: tuple[float | None, float | None]) -> str:
    """What tells the parts of one video apart in messages and rows: " 1.5-4 s", nothing for the whole."""
    start, end = span
    if start is None and end is None:
        return ""
    return f" {start or 0:g}-{'end' if end is None else f'{end:g}'} s"
