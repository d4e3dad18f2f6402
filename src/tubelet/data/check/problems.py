"""The kinds of problems, the worst first, and the report that holds them."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

KINDS = {  # kind: what it is called in the report
    "leak-file": "leaks: the same file in two splits",
    "leak-content": "leaks: the same content in two splits",
    "leak-source": "leaks: the same source video in two splits",
    "two-classes": "clips that stand in two classes",
    "row": "rows that are no clip",
    "class-count": "wrong number of classes",
    "class-empty": "classes without a clip",
    "missing": "files that are not there",
    "broken": "files that yield no frame",
    "damaged": "files of which frames are missing",
    "short": "clips that are too short",
    "duplicate": "clips that stand twice in a split",
    "box": "boxes that cannot be",
}


@dataclass(frozen=True)
class Problem:
    """kind: of `KINDS`;  split: its name, or two;  clip: as the list names it, or nothing;  message: one sentence."""

    kind: str
    split: str
    clip: str
    message: str


@dataclass(frozen=True)
class SplitCounts:
    """clips, and classes that have one;  clips of the smallest and largest class;  frames: least, median, most."""

    split: str
    clips: int
    classes: int
    smallest: int
    largest: int
    frames: tuple[int, int, int] | None


@dataclass(frozen=True)
class Report:
    """data: as it was asked for;  classes: in its list;  videos: files looked at;  problems: the worst first
    notes:  sentences on what is odd about the published data and no problem
    """

    data: str
    classes: int
    videos: int
    splits: list[SplitCounts]
    problems: list[Problem]
    notes: list[str] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """Kind -> how many, the worst first, those that occur."""
        counted = Counter(problem.kind for problem in self.problems)
        return {kind: counted[kind] for kind in KINDS if counted[kind]}

    def to_json(self) -> dict[str, Any]:
        return {
            "data": self.data,
            "ok": not self.problems,
            "classes": self.classes,
            "videos": self.videos,
            "counts": self.counts,
            "splits": [asdict(split) for split in self.splits],
            "problems": [asdict(problem) for problem in self.problems],
            "notes": self.notes,
        }
