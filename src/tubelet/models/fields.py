"""Kinds of values in a config.json: all its fields are checked before any is used."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from tubelet.errors import CheckpointError


class Kind(NamedTuple):
    text: str  # "frames is 'x': {text} is expected"
    holds: Callable[[Any], bool]


def whole(least: int) -> Kind:
    return Kind(f"a whole number from {least} on", lambda v: _is_whole(v) and v >= least)


def row(kind: Kind, length: int) -> Kind:
    def holds(value: Any) -> bool:
        return isinstance(value, (list, tuple)) and len(value) == length and all(map(kind.holds, value))

    return Kind(f"a list of {length}, each {kind.text},", holds)


def any_of(kind: Kind) -> Kind:
    def holds(value: Any) -> bool:
        return isinstance(value, (list, tuple)) and all(map(kind.holds, value))

    return Kind(f"a list, each {kind.text},", holds)


def either(kind: Kind, other: Kind) -> Kind:
    return Kind(f"{kind.text} or {other.text}", lambda v: kind.holds(v) or other.holds(v))


def one_of(names: Collection[str]) -> Kind:
    return Kind(f"one of {', '.join(names)}", lambda v: isinstance(v, str) and v in names)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def _is_labels(value: Any) -> bool:
    return isinstance(value, Mapping) and all(str(k).isdecimal() and isinstance(v, str) for k, v in value.items())


COUNT, COUNT_OR_0 = whole(1), whole(0)
NUMBER = Kind("a number", _is_number)
NOT_NEGATIVE = Kind("a number from 0 on", lambda v: _is_number(v) and v >= 0)
POSITIVE = Kind("a number above 0", lambda v: _is_number(v) and v > 0)
SHARE = Kind("a number from 0 to below 1", lambda v: _is_number(v) and 0 <= v < 1)
SWITCH = Kind("true or false", lambda v: isinstance(v, bool))
TEXT = Kind("a text", lambda v: isinstance(v, str))
TABLE = Kind("an object", lambda v: isinstance(v, Mapping))
NULL = Kind("null", lambda v: v is None)
SIZE = either(COUNT, row(COUNT, 2))  # a side, or height and width
GRID = either(row(COUNT, 3), NULL)
LABELS = Kind('an object of class numbers and names, such as {"0": "run"},', _is_labels)


def check(content: Mapping[str, Any], kinds: Mapping[str, Kind], where: str) -> None:
    """Raises CheckpointError at a value that is not of its kind. Fields without a kind are passed over."""
    for name, kind in kinds.items():
        if name in content and not kind.holds(content[name]):
            raise CheckpointError(f"{where}: {name} is {_short(content[name])}, and {kind.text} is expected")


def check_names(content: Collection[str], known: Collection[str], where: str) -> None:
    """Raises CheckpointError unless exactly the known fields are there."""
    if lost := [name for name in known if name not in content]:
        raise CheckpointError(f"{where} lacks {', '.join(lost)}: it was not written by tubelet's save_model")
    if unknown := sorted(set(content) - set(known)):
        raise CheckpointError(f"{where} has unknown fields {unknown}; known are {', '.join(known)}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
