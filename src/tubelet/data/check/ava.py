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
from tubelet.data.datasets.ava import AvaBoxes, is_ava_csv, read_ava_csv, read_label_map, row_problems

AVA_LABELS = range(1, 81)
FIRST_SECOND = 900  # what is annotated begins here; people cut their films there


def check_ava(
    path: Path,
    *,
    root: str | Path | None = None,
    quick: bool = False,
    workers: int = 1,
    begin: Callable[[int], Callable[[], None]] = lambda videos: lambda: None,
) -> Report:
    """Rows that cannot be; videos that are not there, by id; seconds after their end. See `check_data` for the options.

    Labels are held against the one pbtxt beside the csv, else against AVA's 1 to 80.
    """
    boxes, split = read_ava_csv(path), path.stem
    maps = sorted(path.parent.glob("*.pbtxt"))
    known = {*read_label_map(maps[0])} if len(maps) == 1 else set()
    if known <= set(AVA_LABELS):
        known |= set(AVA_LABELS)  # the published map names 60 of the 80
    wrong, odd = row_problems(boxes, known)
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
    for number, name in enumerate(boxes.videos):
        if name in files:
            problems += _of_video(boxes.second[boxes.video == number], split, name, probes[files[name]])
    problems.sort(key=lambda problem: list(KINDS).index(problem.kind))
    return Report(str(path), len(np.unique(boxes.label)), len(files), [_counts(split, boxes, probes)], problems)


def is_ava(data: str) -> bool:
    """Whether this is a csv in AVA's format."""
    path = Path(data)
    return path.suffix == ".csv" and path.is_file() and is_ava_csv(path)


def _of_video(seconds: np.ndarray, split: str, name: str, one: Probe) -> list[Problem]:
    if one.error:
        return [Problem("broken", split, name, one.error)]
    if one.frames < one.declared:
        sentence = f"{name}: {one.declared - one.frames} of {one.declared} frames are missing"
        return [Problem("damaged", split, name, sentence)]
    late = seconds[(seconds < 0) | (seconds >= one.seconds)]
    if not len(late):
        return []
    sentence = f"{name}: a box at second {late.max()}, the video has {one.seconds:.1f} s"
    if seconds.min() >= FIRST_SECOND and seconds.max() - FIRST_SECOND < one.seconds:
        sentence += f"; it was cut at second {FIRST_SECOND}, it seems: take {FIRST_SECOND} from its seconds"
    return [Problem("box", split, name, sentence)]


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
