"""AVA's csv as tubes, to train on: a key frame a second, of films cut at their 900th second."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from pathlib import Path

import torch
from torch import Tensor

from tubelet.data.datasets import box_rows
from tubelet.data.datasets.ava import read_ava_csv, read_label_map, row_problems
from tubelet.data.datasets.tubes import Tube, Tubes
from tubelet.errors import TubeletError

CLASSES = 80
START, RATE = 900.0, 30.0  # as published: frame (s - 900) * 30 of the film from its 900th second on


def ava_map(path: Path) -> dict[int, str]:
    """id -> name of the one pbtxt beside a csv; empty where there is none, or more than one. Raises TubeletError for an
    id that is no class."""
    maps = sorted(path.parent.glob("*.pbtxt"))
    names = read_label_map(maps[0]) if len(maps) == 1 else {}
    if max([0, *names]) >= box_rows.CLASSES:
        raise TubeletError(f"{maps[0]}: the id {max(names)} is no class; ids are below {box_rows.CLASSES}")
    return names


def ava_labels(path: Path) -> list[str]:
    """The classes of a csv: the ids 1 to 80, or up to the last of its map, which names them (AVA's own names 60 of the
    80)."""
    names = ava_map(path)
    return [names.get(number, str(number)) for number in range(1, max([CLASSES, *names]) + 1)]


def excluded_beside(path: Path) -> Path | None:
    """The file of seconds that are not judged, as published beside ava_val_v2.2.csv: its name is
    ava_val_excluded_timestamps_v2.2.csv. None where there is none."""
    version = re.search(r"(_v\d+(\.\d+)*)?$", path.stem)
    at = version.start() if version else len(path.stem)
    found = path.with_name(f"{path.stem[:at]}_excluded_timestamps{path.stem[at:]}.csv")
    return found if found.is_file() else None


def frame_numbers(seconds: Tensor, start: float, rate: float) -> Tensor:
    """The frames of a film from second `start` on, `rate` frames a second, that show these seconds: int64."""
    return ((seconds - start) * rate).round().long()


def read_ava_tubes(path: Path, *, start: float = START, rate: float = RATE) -> Tubes:
    """Ground truth in AVA's format; frame (second - start) * rate, boxes in shares of the picture (size 1 x 1).

    A tube holds the first, second, ... person of each second that does an action, in the order of the file: on one
    frame that is one person, and nobody is followed. Raises TubeletError for rows that cannot be trained on.
    """
    for what, value, least in (("start", start, 0.0), ("rate", rate, 1e-3)):
        if not (isinstance(value, (int, float)) and least <= value < 1e6):
            raise TubeletError(f"{what} must be a number from {least:g} on, got {value!r}")
    boxes, labels = read_ava_csv(path), ava_labels(path)
    if wrong := row_problems(boxes, range(1, len(labels) + 1))[0]:
        raise TubeletError(wrong[0])
    frames = frame_numbers(torch.from_numpy(boxes.second), start, rate)
    if not len(frames) or frames.min() < 0 or boxes.label.min() < 1 or boxes.label.max() > len(labels):
        raise TubeletError(
            f"{path}: needs seconds from {start:g} on and labels from 1 to {len(labels)}; it has seconds from "
            f"{boxes.second.min()} on and labels from {boxes.label.min()} to {boxes.label.max()}"
        )
    seen: Counter[tuple[int, int, int]] = Counter()
    found: dict[str, dict[tuple[int, int], list[int]]] = defaultdict(lambda: defaultdict(list))
    for row, at in enumerate(zip(boxes.video.tolist(), frames.tolist(), boxes.label.tolist(), strict=True)):
        found[boxes.videos[at[0]]][at[2], seen[at]].append(row)
        seen[at] += 1
    sides = torch.from_numpy(boxes.boxes).float()
    videos = {
        name: [Tube(label - 1, frames[rows], sides[rows]) for (label, _), rows in tubes.items()]
        for name, tubes in found.items()
    }
    return Tubes(labels, (1, 1), videos)
