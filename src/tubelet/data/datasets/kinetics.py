"""Kinetics-400 (Kay et al., 2017) in the layouts people have it in, told by what is in the root.

    annotations   kinetics_400_train.csv or train.csv (label,youtube_id,time_start,time_end,split), or train.json
                  ({id: {"annotations": {"label", "segment"}, "subset"}}), in the root or in annotations/
    lists         train.csv or train_list.txt of mmaction2, SlowFast and VideoMAE: "path,number" or "path number"
    folders       train/abseiling/*.mp4
Videos of annotations: (train|val|test)/ or videos/ or the root, then LABEL/ or label_with_underscores/ or nothing, then
ID_000010_000020.mp4 or ID.mp4 (mkv and webm too). Class list: any of `class_lists.NAMES` or kinetics_400_labels.csv.
"""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from tubelet.data.datasets.class_lists import find_class_list, read_class_list
from tubelet.data.datasets.formats import folder_splits, read_csv
from tubelet.data.datasets.listing import Listing, Record, Views, found_labels, numbers_of
from tubelet.errors import TubeletError

VIEWS = Views(sampling="k400", stride=4, clips=5, crops=3)
"""The test of VideoMAE: 5 clips of every 4th frame, 3 crops."""

SPLITS = {"train": ("train", "training"), "val": ("val", "validate", "validation"), "test": ("test", "testing")}
CLASS_LISTS = (
    "kinetics_400_labels.csv",
    "kinetics400_labels.csv",
    "k400_labels.txt",
    "label_map.txt",
    "label_map_k400.txt",
)
SUFFIXES = (".mp4", ".mkv", ".webm", ".avi")


class _Clip(NamedTuple):
    id: str
    label: str
    start: float
    end: float


def splits(root: Path) -> dict[str, Listing]:
    """The splits that are there, of train, val and test (left out where it comes without classes).

    Raises TubeletError for a folder of no known layout.
    """
    listed = find_class_list(root, *CLASS_LISTS) or find_class_list(root / "annotations", *CLASS_LISTS)
    labels = read_class_list(listed) if listed else None
    files = {split: file for split in SPLITS if (file := _annotation(root, split))}
    if not files:
        return folder_splits(root, labels, VIEWS)
    found: dict[str, Listing] = {}
    annotated: dict[str, list[_Clip]] = {}
    for split, file in files.items():
        clips = _read_json(file, split) if file.suffix == ".json" else _read_annotation_csv(file, split)
        if clips is None:
            found[split] = read_csv(file, labels, root=root, views=VIEWS)
        elif any(clip.label for clip in clips):
            annotated[split] = clips
    known = labels or found_labels([clip.label for clips in annotated.values() for clip in clips if clip.label])
    for split, clips in annotated.items():
        found[split] = _listing(root, split, clips, known, labels is not None, files[split])
    return found


def _annotation(root: Path, split: str) -> Path | None:
    names = [
        f"{prefix}{word}{suffix}"
        for word in SPLITS[split]
        for prefix in ("kinetics_400_", "kinetics400_", "kinetics_", "k400_", "")
        for suffix in (".csv", ".json", "_list_videos.txt", "_list.txt", ".txt")
    ]
    names += [f"kinetics400_{word}_list_videos.txt" for word in SPLITS[split]]
    return next((folder / n for folder in (root, root / "annotations") for n in names if (folder / n).is_file()), None)


def _read_annotation_csv(file: Path, split: str) -> list[_Clip] | None:
    """The official csv; None if it is a list of paths."""
    with open(file, newline="", encoding="utf-8-sig") as lines:
        reader = csv.DictReader(lines)
        heads = {head.strip().lower(): head for head in reader.fieldnames or ()}
        if "youtube_id" not in heads:
            return None
        try:
            return [
                _Clip(
                    row[heads["youtube_id"]],
                    row[heads["label"]] if "label" in heads else "",  # the test split was published without
                    float(row[heads["time_start"]]),
                    float(row[heads["time_end"]]),
                )
                for row in reader
                if "split" not in heads or row[heads["split"]] in SPLITS[split]
            ]
        except (KeyError, ValueError, TypeError) as error:
            raise TubeletError(f"{file}: not an annotation of Kinetics ({type(error).__name__}: {error})") from None


def _read_json(file: Path, split: str) -> list[_Clip]:
    try:
        entries: dict[str, Any] = json.loads(file.read_text())
        return [
            _Clip(name[:11], clip["annotations"].get("label", ""), *map(float, clip["annotations"]["segment"]))
            for name, clip in entries.items()
            if clip.get("subset", split) in SPLITS[split]
        ]
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise TubeletError(f"{file}: not an annotation of Kinetics ({type(error).__name__}: {error})") from None


def _listing(root: Path, split: str, clips: list[_Clip], labels: list[str], fixed: bool, file: Path) -> Listing:
    videos = _find_videos(root, split)
    records, problems = [], []
    for clip, number in zip(clips, numbers_of([clip.label for clip in clips], labels), strict=True):
        trimmed = f"{clip.id}_{round(clip.start):06d}_{round(clip.end):06d}"
        if number is None:
            problems.append(f"{file}: {trimmed} has the class {clip.label!r}, which is none of the {len(labels)}")
            continue
        path = videos.get(trimmed) or videos.get(clip.id) or root / split / clip.label / f"{trimmed}.mp4"
        records.append(Record(path, number, trimmed))
    return Listing(split, labels, records, VIEWS, tuple(problems), fixed)


def _find_videos(root: Path, split: str) -> dict[str, Path]:
    """Stem -> path, in the first folder that there is; one walk, whether a folder a class or all in one."""
    names = [
        f"{prefix}{word}{suffix}" for word in SPLITS[split] for prefix in ("", "videos_") for suffix in ("", "_256")
    ]
    folder = next((root / name for name in [*names, "videos"] if (root / name).is_dir()), root)
    found = {}
    for place, _, files in os.walk(folder):
        for name in files:
            stem, suffix = os.path.splitext(name)
            if suffix.lower() in SUFFIXES:
                found[stem] = Path(place, name)
    return found
