"""Checking a csv in AVA's format before training: its rows, and whether its ids and seconds are those of the videos."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median_low

import numpy as np

from tubelet.data.check.probe import Probe, probe_all
from tubelet.data.check.problems import KINDS, Problem, Report, SplitCounts
from tubelet.data.clips import videos_by_id
from tubelet.data.datasets.ava import AvaBoxes, is_ava_csv, read_ava_csv, row_problems
from tubelet.data.datasets.ava_tubes import RATE, START, ava_labels


def check_ava(
    path: Path,
    *,
    root: str | Path | None = None,
    quick: bool = False,
    workers: int = 1,
    begin: Callable[[int], Callable[[], None]] = lambda videos: lambda: None,
) -> Report:
    """Rows that cannot be; videos that are not there, by id; seconds after their end. See `check_data` for the options.

    Labels are held against those that training would take (`ava_labels`).
    """
    boxes, split = read_ava_csv(path), path.stem
    wrong, odd = row_problems(boxes, range(1, len(ava_labels(path)) + 1))
    problems = [Problem("row", split, "", sentence) for sentence in wrong]
    problems += [Problem("box", split, "", sentence) for sentence in odd]
    if twice := _twice(boxes):
        problems.append(Problem("duplicate", split, "", f"{path}: {twice}"))

    folder = Path(root or path.parent)
    used = [boxes.videos[number] for number in np.unique(boxes.video)]
    files = videos_by_id(folder, used)
    probes = probe_all(list(files.values()), quick=quick, workers=workers, advance=begin(len(files)))
    if used and not files:
        sentence = f"{folder} has no video by any of the {len(used)} ids, such as {used[0]}; --root names their folder"
        problems.append(Problem("missing", split, "", sentence))
    else:
        problems += [
            Problem("missing", split, name, f"{folder} has no video {name}") for name in used if name not in files
        ]
    notes: list[str] = []
    for number, name in enumerate(boxes.videos):
        if name in files:
            wrong_here, odd_here = _of_video(boxes.second[boxes.video == number], split, name, probes[files[name]])
            problems, notes = problems + wrong_here, notes + odd_here
    problems.sort(key=lambda problem: list(KINDS).index(problem.kind))
    return Report(str(path), len(np.unique(boxes.label)), len(files), [_counts(split, boxes, probes)], problems, notes)


def is_ava(data: str) -> bool:
    """Whether this is a csv in AVA's format."""
    path = Path(data)
    return path.suffix == ".csv" and is_ava_csv(path)


def _of_video(seconds: np.ndarray, split: str, name: str, one: Probe) -> tuple[list[Problem], list[str]]:
    """(problems, notes). Seconds may be those of the whole film and the video cut at START, as training takes them."""
    if one.error:
        return [Problem("broken", split, name, one.error)], []
    if one.frames < one.declared:
        sentence = f"{name}: {one.declared - one.frames} of {one.declared} frames are missing"
        return [Problem("damaged", split, name, sentence)], []
    start = START if seconds.min() >= START and seconds.max() >= one.seconds else 0
    notes = [] if start else [f"{name}: its seconds are those of the file; training needs `start: 0` of data"]
    if one.seconds and abs(one.frames / one.seconds - RATE) > 0.5:
        notes.append(f"{name}: {one.frames / one.seconds:.2f} frames a second; training needs that as `rate` of data")
    if (late := seconds[(seconds < start) | (seconds >= one.seconds + start)]).size:
        since = f", from second {start:g} of the film on" if start else ""
        sentence = f"{name}: a box at second {late.max()}, the video has {one.seconds:.1f} s{since}"
        return [Problem("box", split, name, sentence)], notes
    return [], notes


def _twice(boxes: AvaBoxes) -> str:
    rows = np.column_stack([boxes.video, boxes.second, boxes.label, boxes.boxes])
    found, count = np.unique(rows, axis=0, return_counts=True)
    if not (count > 1).any():
        return ""
    video, second, label = found[count > 1][0, :3].astype(int)
    return f"{int((count > 1).sum())} rows stand twice, such as {boxes.videos[video]},{second} with label {label}"


def _counts(split: str, boxes: AvaBoxes, probes: dict[Path, Probe]) -> SplitCounts:
    """A clip is a frame that has people."""
    by_label = Counter(boxes.label.tolist())
    lengths = sorted(one.frames for one in probes.values() if not one.error)
    return SplitCounts(
        split=split,
        clips=len(boxes.frames()),
        classes=len(by_label),
        smallest=min(by_label.values(), default=0),
        largest=max(by_label.values(), default=0),
        frames=(lengths[0], median_low(lengths), lengths[-1]) if lengths else None,
    )
