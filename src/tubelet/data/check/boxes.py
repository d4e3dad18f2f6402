"""Boxes that cannot be: outside of their picture, after the last frame of their video, or none at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tubelet.data.check.probe import Probe
from tubelet.data.check.problems import Problem
from tubelet.data.datasets.keyframes import NAMED, read_named_tubes, tubes_of
from tubelet.data.datasets.listing import Listing
from tubelet.data.datasets.registry import data_root
from tubelet.data.datasets.tubes import Tube, Tubes


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
    for record in listing.records:
        one, found = probes[record.path], tubes_of(record, tubes)
        if found is None:
            problems.append(Problem("box", listing.name, record.name, f"{record.name}: no tube for this video"))
        if not found or one.error:
            continue
        problems += of_pictures(listing.name, record.name, found, tubes.size or (one.width, one.height))
        for tube in found:
            late = int((tube.frames >= one.frames).sum())
            if late == len(tube.frames):
                problems += of_end(listing.name, record.name, [tube], one)
            elif late:
                notes.append(f"{record.name}: {late} of {len(tube.frames)} boxes are after the last frame, not used")
    return problems, notes


def of_end(split: str, name: str, tubes: Sequence[Tube], one: Probe) -> list[Problem]:
    late = [tube.frames[tube.frames >= one.frames].tolist() for tube in tubes]
    sentences = [f"{name}: a box at frame {frames[0]}, the last is {one.frames - 1}" for frames in late if frames]
    return [Problem("box", split, name, sentence) for sentence in sentences]


def of_pictures(split: str, name: str, tubes: Sequence[Tube], size: tuple[int, int]) -> list[Problem]:
    """size: (width, height) of the pictures that boxes are pixels of"""
    problems = []
    width, height = size
    for tube in tubes:
        left, top, right, bottom = tube.boxes.unbind(1)
        outside = (right <= 0) | (bottom <= 0) | (left >= width) | (top >= height)
        if outside.any():
            frame, box = int(tube.frames[outside][0]), tube.boxes[outside][0].tolist()
            sentence = f"{name}: the box {box} at frame {frame} is outside of the {width} x {height} picture"
            problems.append(Problem("box", split, name, sentence))
        if bool((tube.boxes <= 1).all()):
            sentence = f"{name}: its boxes are shares of the picture, it seems; pixels are needed"
            problems.append(Problem("box", split, name, sentence))
    return problems
