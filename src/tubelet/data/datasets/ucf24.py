"""UCF101-24: 3194 videos of 24 actions with tubes (the corrected annotation of Singh et al., ICCV 2017).

The root holds ucf24_tubes.json(.gz), testlist01.txt (split 1; train is the rest) and videos in videos/, clips/,
UCF-101/ or itself, a folder a class or all in one. Tubes: `read_ucf24_tubes`.
"""

from __future__ import annotations

from pathlib import Path

from tubelet.data.clips import VIDEO_SUFFIXES
from tubelet.data.datasets.listing import Listing, Record, Views
from tubelet.data.datasets.tubes import Tubes, read_ucf24_tubes
from tubelet.errors import TubeletError

VIEWS = Views(sampling="dense", stride=4)


def tubes_file(root: Path) -> Path:
    """Raises TubeletError if the root holds no annotation."""
    files = [root / f"ucf24_tubes.json{suffix}" for suffix in ("", ".gz")]
    for file in files:
        if file.is_file():
            return file
    raise TubeletError(f"{root}: not a folder of UCF101-24; needed: ucf24_tubes.json or ucf24_tubes.json.gz")


def splits(root: Path, tubes: Tubes | None = None) -> dict[str, Listing]:
    """Train and test of split 1, by the list of the test. Raises TubeletError if a file is missing."""
    tubes = tubes or read_ucf24_tubes(tubes_file(root))
    listed = root / "testlist01.txt"
    if not listed.is_file():
        raise TubeletError(f"{listed}: no such file; it names the videos of the test split")
    test = {line.split()[0].removesuffix(".avi") for line in listed.read_text().splitlines() if line.strip()}
    folder = next((root / name for name in ("videos", "clips", "UCF-101") if (root / name).is_dir()), root)
    files = {path.stem: path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES}
    records: dict[str, list[Record]] = {"train": [], "test": []}
    for name, found in tubes.videos.items():
        label = found[0].label if found else tubes.labels.index(name.split("/")[0])
        path = files.get(Path(name).name, folder / f"{name}.avi")
        records["test" if name in test else "train"].append(Record(path, label, name))
    unknown = sorted(test - set(tubes.videos))
    problems = tuple(f"{listed}: {name} is not in the annotation" for name in unknown)
    return {
        split: Listing(split, tubes.labels, clips, VIEWS, problems if split == "test" else (), fixed=True)
        for split, clips in records.items()
    }
