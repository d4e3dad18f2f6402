"""Names of classes: from a text file, JSON or CSV, or as they are given."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tubelet.errors import CheckpointError

Labels = str | Path | Sequence[str] | Mapping[int, str]


def read_labels(labels: Labels) -> dict[int, str]:
    """Class number -> name.

    Args:
        labels: a list of names, a dictionary, or a file: .json (a list, {"0": name} or {name: 0}), .csv (number and
            name in each row, in either order, or the name alone; a header before numbers is passed over), or any other
            with one name a line.

    Raises CheckpointError if the file cannot be read, or the numbers are not 0, 1, 2, ... without a gap.
    """
    if isinstance(labels, (str, Path)):
        path = Path(labels)
        try:
            text = path.read_text(encoding="utf-8-sig")
            found = _READERS.get(path.suffix.lower(), _read_lines)(text)
        except OSError as error:
            raise CheckpointError(f"labels {path} cannot be read: {error.strerror or error}") from error
        except (ValueError, TypeError, RecursionError, csv.Error) as error:
            raise CheckpointError(f"labels {path} cannot be read as {path.suffix or 'text'}: {error}") from error
        where = f"labels {path}"
    else:
        where = "labels"
        try:
            found = _number(labels)
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"{where} cannot be read: {error}") from error
    if not found:
        raise CheckpointError(f"{where} names no class")
    return in_order(found, where)


def in_order(labels: Mapping[int, str], where: str) -> dict[int, str]:
    """Raises CheckpointError unless the numbers are 0, 1, 2, ... without a gap."""
    if gap := [index for index in range(len(labels)) if index not in labels]:
        raise CheckpointError(
            f"{where} numbers {len(labels)} classes but has no class {gap[0]}: 0, 1, 2, ... is expected"
        )
    return {index: labels[index] for index in range(len(labels))}


def check_count(labels: Mapping[int, str], classes: int, where: str) -> None:
    """Raises CheckpointError unless there is one name a class."""
    if len(labels) != classes:
        raise CheckpointError(f"{where} names {len(labels)} classes, the model has {classes}")


def numbered(classes: int) -> dict[int, str]:
    """What classes are called that nobody named."""
    return {index: f"class {index}" for index in range(classes)}


def _number(content: Any) -> dict[int, str]:
    """A list, {0: name} or {name: 0} as {0: name}; keys and values may be numbers in quotes."""
    if isinstance(content, list | tuple):
        return _pairs(enumerate(content))
    if not isinstance(content, Mapping):
        raise TypeError(f"a list or a dictionary is expected, this is a {type(content).__name__}")
    if all(_is_number(key) for key in content):
        return _pairs(content.items())
    return _pairs((index, name) for name, index in content.items())


def _pairs(pairs: Iterable[tuple[Any, Any]]) -> dict[int, str]:
    found: dict[int, str] = {}
    for index, name in pairs:
        if int(index) in found:
            raise ValueError(f"class {index} is named twice")
        if not isinstance(name, (str, int)):
            raise TypeError(f"the name of class {index} is {name!r}, a text is expected")
        found[int(index)] = str(name)
    return found


def _read_json(text: str) -> dict[int, str]:
    return _number(json.loads(text))


def _read_csv(text: str) -> dict[int, str]:
    table = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines())]
    rows = [row for row in table if any(row)]
    for number, name in ((0, 1), (1, 0)):
        if all(len(row) == 2 and _is_number(row[number]) for row in rows[1:]):
            return _pairs((row[number], row[name]) for row in rows[0 if _is_number(rows[0][number]) else 1 :])
    if all(len(row) == 1 for row in rows):
        return dict(enumerate(row[0] for row in rows))
    raise ValueError("rows of a number and a name, or of a name alone, are expected")


def _read_lines(text: str) -> dict[int, str]:
    return dict(enumerate(line.strip() for line in text.splitlines() if line.strip()))


def _is_number(value: Any) -> bool:
    return str(value).isdecimal()


_READERS = {".json": _read_json, ".csv": _read_csv}
