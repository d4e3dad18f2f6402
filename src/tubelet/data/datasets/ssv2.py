"""Something-Something v2 (Goyal et al., ICCV 2017) in the layouts people have it in, told by what is in the root.

annotations   something-something-v2-train.json or train.json ([{"id", "label", "template"}]) and
              something-something-v2-labels.json or labels.json ({"template": "number"}), in the root, labels/ or
              annotations/; videos ID.webm (or mp4) in 20bn-something-something-v2/, videos/ or the root
lists         train.csv or ssv2_train_list_videos.txt of mmaction2 and VideoMAE: "path,number" or "path number"
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tubelet.data.datasets.class_lists import find_class_list, read_class_list
from tubelet.data.datasets.formats import read_csv
from tubelet.data.datasets.listing import Listing, Record, Views, found_labels, numbers_of
from tubelet.errors import TubeletError

VIEWS = Views(sampling="ssv2", stride=1, clips=2, crops=3, flip=False)
"""The test of VideoMAE: starts and middles of 16 segments, 3 crops. Left and right are part of many classes."""

SPLITS = {"train": ("train",), "val": ("validation", "val"), "test": ("test",)}
PREFIXES = ("something-something-v2-", "ssv2_", "sthv2_", "")
CLASS_LISTS = ("something-something-v2-labels.json",)


def splits(root: Path) -> dict[str, Listing]:
    """The splits that are there, of train, val and test (which has no classes: it is left out where it is json).

    Raises TubeletError for a folder of no known layout.
    """
    folders = [folder for folder in (root, root / "labels", root / "annotations") if folder.is_dir()]
    listed = next((file for folder in folders if (file := find_class_list(folder, *CLASS_LISTS))), None)
    labels = read_class_list(listed) if listed else None
    annotated: dict[str, tuple[Path, list[tuple[str, str]]]] = {}
    found: dict[str, Listing] = {}
    for split in SPLITS:
        file = _annotation(folders, split)
        if file is not None and file.suffix == ".json":
            clips = _read_json(file)
            if any(label for _, label in clips):
                annotated[split] = (file, clips)
        elif file is not None:
            found[split] = read_csv(file, labels, root=root, views=VIEWS)
    known = labels or found_labels([label for _, clips in annotated.values() for _, label in clips])
    for split, (file, clips) in annotated.items():
        found[split] = _listing(root, split, file, clips, known, labels is not None)
    if not found:
        raise TubeletError(
            f"{root}: not a folder of Something-Something v2; needed: train.json and labels.json, or train.csv"
        )
    return found


def _annotation(folders: list[Path], split: str) -> Path | None:
    names = [
        f"{prefix}{word}{suffix}"
        for suffix in (".json", ".csv", "_list_videos.txt", "_list.txt", ".txt")
        for prefix in PREFIXES
        for word in SPLITS[split]
    ]
    return next((folder / name for folder in folders for name in names if (folder / name).is_file()), None)


def _read_json(file: Path) -> list[tuple[str, str]]:
    """(id, class): the template without the brackets around what it leaves open, as the class list writes it."""
    try:
        entries: list[dict[str, Any]] = json.loads(file.read_text())
        return [(str(entry["id"]), entry.get("template", "").replace("[", "").replace("]", "")) for entry in entries]
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise TubeletError(
            f"{file}: not an annotation of Something-Something ({type(error).__name__}: {error})"
        ) from None


def _listing(
    root: Path, split: str, file: Path, clips: list[tuple[str, str]], labels: list[str], fixed: bool
) -> Listing:
    places = [root / "20bn-something-something-v2", root / "videos", root]
    folder = next(place for place in places if place.is_dir())
    suffix = next((s for s in (".webm", ".mp4", ".mkv") if clips and (folder / f"{clips[0][0]}{s}").is_file()), ".webm")
    records, problems = [], []
    for (name, label), number in zip(clips, numbers_of([label for _, label in clips], labels), strict=True):
        if number is None:
            problems.append(f"{file}: {name} has the class {label!r}, which is none of the {len(labels)}")
        else:
            records.append(Record(folder / f"{name}{suffix}", number, name))
    return Listing(split, labels, records, VIEWS, tuple(problems), fixed)
