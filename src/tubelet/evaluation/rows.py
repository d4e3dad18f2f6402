"""One row a video, kept in a file as they come: what a killed evaluation goes on from.

    {"format": 1, "model": "5f3a...", "data": "scenes:test", ...}      what the rows belong to
    {"index": 0, "name": "scene test 0", "label": 0, "rank": 0, "log_prob": -0.03, "top": [[0, 0.97], ...], ...}

A file that ends in the middle of a row lost that row alone. Rows of another model, data or views are never mixed in.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from tubelet.errors import TubeletError

FORMAT = 1


@dataclass(frozen=True)
class OfVideo:
    """What every row has.

    index, name:  of the video in its data set;  source: the video it was cut from, or its name
    """

    index: int
    name: str
    source: str


R = TypeVar("R", bound=OfVideo)


@dataclass(frozen=True)
class Row(OfVideo):
    """What a model says about one video.

    label:     number of its class
    rank:      place of the true class among the scores, 0 for right;  log_prob: natural logarithm of its score
    top:       the best classes as (number, score), best first; probabilities, averaged over the views
    recall, precision, kept, truth:  of the last selection step, where the truth is known and tokens are dropped: share
               of the truth's tokens that are kept, share of the kept that are the truth's; of all tokens the shares
               that are kept and that are the truth's. Means over the views that show something of it
    """

    label: int
    rank: int
    log_prob: float
    top: list[tuple[int, float]]
    recall: float | None = None
    precision: float | None = None
    kept: float | None = None
    truth: float | None = None


@dataclass(frozen=True)
class Belonging:
    """What rows belong to. Rows with another one say nothing about each other.

    model:  digest of weights and architecture;  data: name and digest of the list of clips
    protocol:  how clips are made of videos
    """

    model: str
    select: str
    data: str
    protocol: dict[str, Any]

    def differences(self, other: dict[str, Any]) -> str:
        """In words, from `other` as it was read to this."""
        own = json.loads(json.dumps(asdict(self)))
        changed = [key for key in own if own[key] != other.get(key)]
        return ", ".join(f"{key} was {other.get(key)!r} and is {own[key]!r}" for key in changed)


def read_row(values: dict[str, Any]) -> Row:
    """From its JSON. Raises KeyError, TypeError or ValueError if it is none."""
    return Row(**{**values, "top": [(int(number), float(score)) for number, score in values["top"]]})


class RowFile(Generic[R]):
    """The rows of one model with one selection on one data set, by index."""

    def __init__(
        self, path: Path, belonging: Belonging, read: Callable[[dict[str, Any]], R], *, renew: bool = False
    ) -> None:
        """Opens or begins it; `read` makes a row of its JSON.

        Raises TubeletError if the file belongs to something else and `renew` is not set.
        """
        self.path, self.read, self.rows = path, read, dict[int, R]()
        header = {"format": FORMAT, **asdict(belonging)}
        whole = 0
        if path.exists() and not renew:
            whole = self._read(belonging)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "r+b" if whole else "wb")
        self._file.truncate(whole)  # without a torn last row
        self._file.seek(whole)
        if not whole:
            self._write([header])

    def _read(self, belonging: Belonging) -> int:
        """Takes over the rows; returns the bytes of whole lines."""
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        first, *lines = content[:whole].splitlines(keepends=True) or [b""]
        if not first:
            return 0
        try:
            header = json.loads(first)
            if header.pop("format") != FORMAT:
                raise ValueError
        except (ValueError, KeyError, TypeError, AttributeError):
            raise TubeletError(f"{self.path}: not the rows of an evaluation; remove it, or renew it") from None
        if changed := belonging.differences(header):
            raise TubeletError(f"{self.path}: rows of another evaluation: {changed}; renew them, or write elsewhere")
        whole = len(first)
        for line in lines:
            try:
                row = self.read(json.loads(line))
            except (ValueError, KeyError, TypeError):  # what a machine that lost its power left: from here on anew
                break
            self.rows[row.index] = row
            whole += len(line)
        return whole

    def add(self, rows: Iterable[R]) -> None:
        """Writes rows at once: after this they outlive the process."""
        rows = list(rows)
        self._write([asdict(row) for row in rows])
        self.rows.update((row.index, row) for row in rows)

    def _write(self, objects: Sequence[dict[str, Any]]) -> None:
        self._file.write("".join(json.dumps(one) + "\n" for one in objects).encode())
        self._file.flush()

    def close(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


class Memory(Generic[R]):
    """In the place of a `RowFile` where nothing is to be kept."""

    def __init__(self) -> None:
        self.rows: dict[int, R] = {}

    def add(self, rows: Iterable[R]) -> None:
        self.rows.update((row.index, row) for row in rows)

    def close(self) -> None:
        """Nothing to close."""


@dataclass(frozen=True)
class Columns:
    """Rows as arrays, in the order of the index."""

    index: np.ndarray
    label: np.ndarray
    rank: np.ndarray
    log_prob: np.ndarray
    source: list[str]
    name: list[str]


def columns(rows: Iterable[Row]) -> Columns:
    ordered = sorted(rows, key=lambda row: row.index)
    return Columns(
        index=np.array([row.index for row in ordered], dtype=np.int64),
        label=np.array([row.label for row in ordered], dtype=np.int64),
        rank=np.array([row.rank for row in ordered], dtype=np.int64),
        log_prob=np.array([row.log_prob for row in ordered]),
        source=[row.source for row in ordered],
        name=[row.name for row in ordered],
    )


def read_rows(path: Path) -> list[Row]:
    """The whole rows of a file, whatever they belong to. Raises TubeletError if it is none."""
    try:
        first, *lines = path.read_bytes().rpartition(b"\n")[0].splitlines()
        if json.loads(first)["format"] != FORMAT:
            raise ValueError
        return [read_row(json.loads(line)) for line in lines]
    except (OSError, ValueError, TypeError, KeyError):
        raise TubeletError(f"{path}: not the rows of an evaluation") from None


def file_name(*words: str) -> str:
    """A name of a file for a model and a selection, which may hold characters that files may not."""
    text = " ".join(words)
    plain = re.sub(r"[^A-Za-z0-9.=,@+-]+", "_", text).strip("_.")[:80]
    exact = plain == text
    return f"{plain or 'rows'}{'' if exact else '-' + sha256(text.encode()).hexdigest()[:8]}.jsonl"
