"""What a data set lists: its clips with their classes, and how its protocol takes views of them. Opens no video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tubelet.errors import TubeletError


@dataclass(frozen=True)
class Record:
    """A clip: its file, the number of its class, the name in its list, and its part of the file in seconds."""

    path: Path
    label: int
    name: str
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class Views:
    """How clips are taken by default. Options given to `open_dataset` go before.

    sampling, stride:  see `data.sampling`;  clips, crops: views that the test averages over
    flip:  whether training may mirror clips (not where left and right are part of the class)
    """

    sampling: str = "dense"
    stride: int = 4
    clips: int = 1
    crops: int = 1
    flip: bool = True


DEFAULT_VIEWS = Views()


@dataclass(frozen=True)
class Listing:
    """The clips of one split.

    problems:  sentences on rows that are no record, such as one of an unknown class
    fixed:     the labels come from a class list; otherwise they are those that were found
    """

    name: str
    labels: list[str]
    records: list[Record]
    views: Views = DEFAULT_VIEWS
    problems: tuple[str, ...] = ()
    fixed: bool = False

    def without_problems(self) -> Listing:
        """Itself. Raises TubeletError that names the first problem, or if there is no record."""
        if self.problems:
            more = f" (and {len(self.problems) - 1} more: tubelet check-data)" if len(self.problems) > 1 else ""
            raise TubeletError(f"{self.problems[0]}{more}")
        if not self.records:
            raise TubeletError(f"{self.name}: lists no clip")
        return self


def numbers_of(names: Sequence[str], labels: Sequence[str]) -> list[int | None]:
    """The class number that each label stands for, by name or as a number; None where it is neither."""
    number = {label: index for index, label in enumerate(labels)}
    digits = {str(index): index for index in range(len(labels))}
    return [number.get(name, digits.get(name)) for name in names]


def found_labels(names: Sequence[str]) -> list[str]:
    """The class list where none is given: the names, sorted; or, if all are whole numbers, 0 to the greatest."""
    if names and all(name.isdecimal() for name in names):
        return [str(index) for index in range(max(map(int, names)) + 1)]
    return sorted(set(names))
