"""JHMDB-21 (Jhuang et al., ICCV 2013): 928 clips of 15 to 40 frames, three splits, one actor tube a clip.

Layouts of the root, told by what is there:
    split1_train.csv ... and classes.txt      csv with the columns video and label; further splits (`split1_fit`) too
    splits/clap_test_split1.txt ...           as published: lines "name.avi 1" (1 train, 2 test); videos in
                                              videos/clap, ReCompress_Videos/clap or clap, avi or another container
Tubes are in tubes.json (`read_jhmdb_tubes`).
"""

from __future__ import annotations

import re
from pathlib import Path

from tubelet.data.clips import VIDEO_SUFFIXES
from tubelet.data.datasets.formats import folder_splits
from tubelet.data.datasets.listing import Listing, Record, Views
from tubelet.errors import TubeletError

VIEWS = Views(sampling="dense", stride=2)
"""Clips are trimmed to the action and have 40 frames mostly: one view, the middle."""

PARTS = {"1": "train", "2": "test"}


def splits(root: Path) -> dict[str, Listing]:
    """All splits by name. Raises TubeletError for a folder of no known layout."""
    published = sorted(root.glob("splits/*_test_split[123].txt")) or sorted(root.glob("*_test_split[123].txt"))
    if published:
        return _published(root, published)
    found = folder_splits(root, views=VIEWS)
    if not any(re.fullmatch(r"split[123]_(train|test)", name) for name in found):
        raise TubeletError(f"{root}: not a folder of JHMDB; needed: split1_train.csv or splits/*_test_split1.txt")
    return found


def _published(root: Path, files: list[Path]) -> dict[str, Listing]:
    parts = [(file, *re.fullmatch(r"(.+)_test_split([123])", file.stem).groups()) for file in files]  # type: ignore[union-attr]
    labels = sorted({label for _, label, _ in parts})
    videos: dict[str, dict[str, Path]] = {}
    for label in labels:
        folder = next((f for f in (root / "videos", root / "ReCompress_Videos", root) if (f / label).is_dir()), root)
        inside = (folder / label).iterdir() if (folder / label).is_dir() else ()
        videos[label] = {path.stem: path for path in inside if path.suffix.lower() in VIDEO_SUFFIXES}
    records: dict[str, list[Record]] = {}
    problems: dict[str, list[str]] = {}
    for file, label, split in parts:
        for line in filter(None, map(str.strip, file.read_text().splitlines())):
            name, _, part = line.rpartition(" ")
            key = f"split{split}_{PARTS.get(part, 'train')}"
            if part not in PARTS:
                problems.setdefault(key, []).append(f"{file}: {line!r} does not end in 1 (train) or 2 (test)")
                continue
            path = videos[label].get(Path(name).stem, root / "videos" / label / name)
            records.setdefault(key, []).append(Record(path, labels.index(label), f"{label}/{name}"))
    return {
        key: Listing(key, labels, records[key], VIEWS, tuple(problems.get(key, ())), fixed=True)
        for key in sorted(records)
    }
