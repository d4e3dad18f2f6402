"""Boxes that cannot be: outside of the picture, over its edges, after the last frame of their video, or none at all."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path

import torch
from torch import Tensor

from tubelet.data.check.probe import Probe
from tubelet.data.check.problems import Problem
from tubelet.data.datasets.keyframes import NAMED, read_named_tubes, tubes_of
from tubelet.data.datasets.listing import Listing
from tubelet.data.datasets.registry import data_root
from tubelet.data.datasets.tubes import Tube, Tubes

Pictures = tuple[str, Sequence[Tube], tuple[int, int]]  # name, tubes, and (width, height) that the boxes are pixels of

SLACK = 2  # pixels that annotators' boxes reach over an edge without harm


def named_tubes(name: str, root: str | Path | None) -> Tubes | None:
    """The tubes of a data set by name, None if it has none. Raises TubeletError for a file that is not what it has."""
    if name not in NAMED:
        return None
    folder = Path(root) if root is not None else data_root() / name
    if name == "jhmdb" and not (folder / "tubes.json").is_file():
        return None  # its videos are a data set without them, too
    return read_named_tubes(name, folder)


def of_annotation(listing: Listing, tubes: Tubes, probes: dict[Path, Probe]) -> tuple[list[Problem], list[str]]:
    """Of a data set by name, as published: (problems, notes). Some of JHMDB's tubes go on after their video."""
    problems, notes = [], []
    pictures: list[Pictures] = []
    for record in listing.records:
        one, found = probes[record.path], tubes_of(record, tubes)
        if found is None:
            problems.append(Problem("box", listing.name, record.name, f"{record.name}: no tube for this video"))
        if not found or one.error:
            continue
        pictures.append((record.name, found, tubes.size or (one.width, one.height)))
        for tube in found:
            late = int((tube.frames >= one.frames).sum())
            if late == len(tube.frames):
                problems += of_end(listing.name, record.name, [tube], one)
            elif late:
                notes.append(f"{record.name}: {late} of {len(tube.frames)} boxes are after the last frame, not used")
    return of_pictures(listing.name, pictures) + problems, notes


def of_end(split: str, name: str, tubes: Sequence[Tube], one: Probe) -> list[Problem]:
    late = [tube.frames[tube.frames >= one.frames].tolist() for tube in tubes]
    sentences = [f"{name}: a box at frame {frames[0]}, the last is {one.frames - 1}" for frames in late if frames]
    return [Problem("box", split, name, sentence) for sentence in sentences]


def of_pictures(split: str, pictures: Sequence[Pictures]) -> list[Problem]:
    problems = []
    for name, tubes, (width, height) in pictures:
        for tube in tubes:
            outside = _outside(tube.boxes, width, height)
            if outside.any():
                frame, box = int(tube.frames[outside][0]), tube.boxes[outside][0].tolist()
                sentence = f"{name}: the box {box} at frame {frame} is outside of the {width} x {height} picture"
                problems.append(Problem("box", split, name, sentence))
            if bool((tube.boxes <= 1).all()):
                sentence = f"{name}: its boxes are shares of the picture, it seems; pixels are needed"
                problems.append(Problem("box", split, name, sentence))
    return problems + _over_edges(split, pictures)


def _over_edges(split: str, pictures: Sequence[Pictures]) -> list[Problem]:
    """One sentence on all boxes that a picture holds a part of only, which training cuts at its edges."""
    count = most = 0
    first, ends = "", torch.zeros(2)
    for name, tubes, (width, height) in pictures:
        for tube in tubes:
            left_top, right_bottom = tube.boxes[:, :2], tube.boxes[:, 2:]
            over = torch.maximum(-left_top, right_bottom - torch.tensor([width, height])).amax(1) > SLACK
            count, most = count + int(over.sum()), most + len(over)
            ends = torch.maximum(ends, right_bottom.amax(0))
            part = over & ~_outside(tube.boxes, width, height)  # the others are told each
            if part.any() and not first:
                frame, box = int(tube.frames[part][0]), tube.boxes[part][0].tolist()
                first = f"{box} at frame {frame} of {name} ({width} x {height})"
    if not first:
        return []
    told = f"{count} of {most} boxes ({100 * count / most:.3g} %) reach more than {SLACK} pixels over the edges"
    width, height = (ceil(end) for end in ends.tolist())
    other = f"; they would fit pictures of {width} x {height}: are they pixels of another resolution than the videos?"
    return [Problem("box", split, "", f"{split}: {told}, such as {first}{other if 2 * count > most else ''}")]


def _outside(boxes: Tensor, width: int, height: int) -> Tensor:
    """Which of (n, 4) have no part in the picture: bool (n,)."""
    left, top, right, bottom = boxes.unbind(1)
    return (right <= 0) | (bottom <= 0) | (left >= width) | (top >= height)
