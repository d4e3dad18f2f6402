"""Lists of classes in the forms people have them in: text, csv, json."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from tubelet.errors import TubeletError

NAMES = ("classes.txt", "labels.txt", "classes.csv", "labels.csv", "labels.json", "classes.json")


def find_class_list(folder: Path, *others: str) -> Path | None:
    """The class list that lies in a folder, if one does; names in `others` are looked for first."""
    return next((folder / name for name in (*others, *NAMES) if (folder / name).is_file()), None)


def read_class_list(path: Path) -> list[str]:
    """The names of the classes, by number.

    .txt:   one a line, in order; "3 name" and "name 3" in every line number them
    .csv:   columns id (or index) and name (or label), in any order
    .json:  {"name": number}, {"number": name} or [names]

    Raises TubeletError if a name or number is missing or stands twice.
    """
    if not path.is_file():
        raise TubeletError(f"{path}: no such class list")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise TubeletError(f"{path}: not a class list, which is text in UTF-8") from None
    read = {".json": _from_json, ".csv": _from_csv}.get(path.suffix.lower(), _from_lines)
    numbered = read(text, path)
    names = [name for _, name in sorted(numbered)]
    if not names:
        raise TubeletError(f"{path}: names no class")
    if sorted(number for number, _ in numbered) != list(range(len(names))):
        raise TubeletError(f"{path}: the numbers of its classes must be 0 to {len(names) - 1}, each once")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise TubeletError(f"{path}: names the class {twice!r} twice")
    return names


def _from_lines(text: str, path: Path) -> list[tuple[int, str]]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for number, name in ((0, 1), (-1, 0)):  # "3 name", "name 3"
        words = [line.split(maxsplit=1) if number == 0 else line.rsplit(maxsplit=1) for line in lines]
        if len(lines) > 1 and all(len(pair) == 2 and pair[number].isdecimal() for pair in words):
            pairs = [(int(pair[number]), pair[name]) for pair in words]
            first = min(index for index, _ in pairs)  # UCF101 counts from 1
            return [(index - first, label) for index, label in pairs] if first in (0, 1) else pairs
    return list(enumerate(lines))


def _from_csv(text: str, path: Path) -> list[tuple[int, str]]:
    rows = [row for row in csv.reader(text.splitlines()) if row]
    if rows and any(cell.strip().lower() in ("name", "label", "class") for cell in rows[0]):
        heads = [cell.strip().lower() for cell in rows.pop(0)]
        name = next(index for index, head in enumerate(heads) if head in ("name", "label", "class"))
        number = next((index for index, head in enumerate(heads) if head in ("id", "index", "number")), None)
    else:
        number, name = (0, 1) if rows and len(rows[0]) > 1 else (None, 0)
    try:
        return [(at if number is None else int(row[number]), row[name].strip()) for at, row in enumerate(rows)]
    except (ValueError, IndexError):
        raise TubeletError(f"{path}: each line needs a number and a name, such as 0,walk") from None


def _from_json(text: str, path: Path) -> list[tuple[int, str]]:
    try:
        value: Any = json.loads(text)
        if isinstance(value, list):
            return list(enumerate(map(str, value)))
        if all(str(key).isdecimal() and isinstance(name, str) for key, name in value.items()) and not all(
            str(name).isdecimal() for name in value.values()
        ):
            return [(int(key), name) for key, name in value.items()]
        return [(int(number), str(name).replace('"', "")) for name, number in value.items()]
    except (ValueError, AttributeError, TypeError):
        raise TubeletError(f'{path}: a class list in JSON is {{"name": number}} or ["name", ...]') from None
