"""Actor tubes, from each annotation that people have, and the format of one's own boxes (docs/data.md).

Boxes are x1, y1, x2, y2 in pixels, from the left edge of the first pixel to the right edge of the last: a box over the
whole of a 320 x 240 picture is 0, 0, 320, 240. Frames count from 0.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tubelet.data.datasets.box_rows import COLUMNS, BoxRow, read_box_rows, second_boxes
from tubelet.errors import TubeletError


@dataclass(frozen=True)
class Tube:
    """One actor doing one action. label: number of the class;  frames: int64 (n,);  boxes: float32 (n, 4)."""

    label: int
    frames: Tensor
    boxes: Tensor
    person: str = ""


@dataclass(frozen=True)
class Tubes:
    """size: (width, height) of the pictures that boxes are pixels of, None where they are those of each video.

    videos: name -> its tubes
    """

    labels: list[str]
    size: tuple[int, int] | None
    videos: dict[str, list[Tube]]


def read_jhmdb_tubes(path: Path) -> Tubes:
    """The tubes of JHMDB in json: one a video, rows [frame, x1, y1, x2, y2], all counted from 1 as published."""
    listing = _json(path)
    with _saying(path):
        number = {label: index for index, label in enumerate(listing["labels"])}
        videos = {}
        for name, video in listing["videos"].items():
            rows = torch.tensor(video["tube"], dtype=torch.float32).view(-1, 5)
            edges = rows[:, 1:] - torch.tensor([1.0, 1.0, 0.0, 0.0])
            videos[name] = [Tube(number[video["label"]], rows[:, 0].long() - 1, edges)]
        height, width = listing["resolution_hw"]
    return Tubes(list(listing["labels"]), (width, height), videos)


def read_ucf24_tubes(path: Path) -> Tubes:
    """The corrected tubes of UCF101-24 in json: frames sf to ef (not included) from 0, boxes x, y, width, height."""
    listing = _json(path)
    with _saying(path):
        videos: dict[str, list[Tube]] = {}
        for name, video in listing["videos"].items():
            videos[name] = []
            for tube in video["tubes"]:
                boxes = torch.tensor(tube["boxes_xywh"], dtype=torch.float32).view(-1, 4)
                frames = torch.arange(tube["sf"], tube["ef"])
                if len(frames) != len(boxes):
                    raise TubeletError(f"{path}: {name} has {len(boxes)} boxes for {len(frames)} frames")
                edges = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1)
                label = tube.get("label", video["label"])
                videos[name].append(Tube(label, frames, edges))
        width, height = listing["resolution_wh"]
    return Tubes(list(listing["labels"]), (width, height), videos)


def read_boxes_csv(path: Path, labels: Sequence[str] | None = None) -> Tubes:
    """One's own boxes: a csv with the columns path,frame,x1,y1,x2,y2,label[,person]; a row a box and action.

    Rows of one path, person and label make a tube. The class list is `labels`, else the labels found, sorted.
    Raises TubeletError that names the line of a row that is none, or of an unknown class, or that gives one person
    doing one action a second box in a frame.
    """
    known, rows = read_box_rows(path, labels)
    if twice := second_boxes(path, rows):
        raise TubeletError(f"{twice[0]}{f' (and {len(twice) - 1} more: tubelet check-data)' if twice[1:] else ''}")
    return tubes_of_rows(known, rows)


def tubes_of_rows(labels: list[str], rows: Sequence[BoxRow]) -> Tubes:
    """The tubes of one's own boxes; of two boxes of one person and action in a frame (`second_boxes`) the last."""
    found: dict[str, dict[tuple[str, int], dict[int, tuple[float, ...]]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        found[row.path][row.person, row.label][row.frame] = row.box
    videos = {
        name: [
            Tube(label, torch.tensor(sorted(boxes)), torch.tensor([boxes[frame] for frame in sorted(boxes)]), person)
            for (person, label), boxes in tubes.items()
        ]
        for name, tubes in found.items()
    }
    return Tubes(labels, None, videos)


def write_boxes_csv(
    path: Path,
    tubes: Tubes,
    *,
    sizes: Mapping[str, tuple[int, int]] | None = None,
    paths: Mapping[str, str] | None = None,
) -> None:
    """Writes tubes in the format of one's own boxes, so that every data set of boxes can be read as one.

    sizes:  (width, height) of each video by its name, needed where boxes are pixels of pictures of `tubes.size`
    paths:  what to call each video instead of its name, such as "Biking/v_Biking_g01_c01.avi"

    Raises TubeletError where the size or the path of a video is missing.
    """
    sizes = sizes or {}
    if tubes.size is not None and (missing := [name for name in tubes.videos if name not in sizes]):
        raise TubeletError(
            f"boxes are pixels of {tubes.size[0]} x {tubes.size[1]} pictures, and the csv needs those of the videos: "
            f"sizes has no {missing[0]!r}"
        )
    if paths is not None and (missing := [name for name in tubes.videos if name not in paths]):
        raise TubeletError(f"paths has no {missing[0]!r}")
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*COLUMNS, "person"])
        for name, found in tubes.videos.items():
            scale = torch.ones(4)
            if tubes.size is not None:
                scale = torch.tensor(sizes[name] * 2) / torch.tensor(tubes.size * 2)
            for tube, person in zip(found, _persons(found), strict=True):
                for frame, box in zip(tube.frames.tolist(), (tube.boxes * scale).tolist(), strict=True):
                    sides = [f"{side:g}" for side in box]
                    writer.writerow([paths[name] if paths else name, frame, *sides, tubes.labels[tube.label], person])


def _persons(tubes: Sequence[Tube]) -> list[str]:
    """Whose each tube is: a nameless one is of the person who has the same boxes on all the frames they share."""
    given = {tube.person for tube in tubes}
    free = (name for name in map(str, count()) if name not in given)
    people: dict[str, list[Tube]] = {}
    persons = []
    for tube in tubes:
        same = (name for name, others in people.items() if name not in given and _is_one(tube, others))
        person = tube.person or next(same, None) or next(free)
        people.setdefault(person, []).append(tube)
        persons.append(person)
    return persons


def _is_one(tube: Tube, others: Sequence[Tube]) -> bool:
    """Whether one person can do all of it: where frames are shared so are the boxes, and there are some."""
    shared = False
    for other in others:
        here, there = torch.isin(tube.frames, other.frames), torch.isin(other.frames, tube.frames)
        if not here.any():
            continue
        if tube.label == other.label or not torch.equal(tube.boxes[here], other.boxes[there]):
            return False
        shared = True
    return shared


class _saying:
    """What is missing in an annotation becomes a sentence with the name of its file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (KeyError, TypeError, ValueError, AttributeError)) and not isinstance(error, TubeletError):
            raise TubeletError(f"{self.path}: not the tubes this data set has ({kind.__name__}: {error})") from None  # type: ignore[union-attr]


def _json(path: Path) -> Any:
    if path.suffix == ".pkl":
        raise TubeletError(f"{path}: pickles run code when read; needed: the same tubes as json")
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            return json.load(file)
    except FileNotFoundError:
        raise TubeletError(f"{path}: no such file") from None
    except (ValueError, OSError) as error:
        raise TubeletError(f"{path}: not JSON ({error})") from None
