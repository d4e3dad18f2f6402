"""A layout: how the keys of some published files become the names of the project's models.

A new layout is a table of names, a table of keys that are known to be unused, and one function that reads the
model's arguments off the keys, the shapes and, where there is one, the config.json. In patterns `{i}` is a number,
`{p}` weight or bias, `{any}` anything, and `[...]` a prefix that some files have and others do not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

from torch import Tensor

from tubelet.errors import CheckpointError
from tubelet.models.config import ModelConfig

PLACEHOLDERS = {"i": r"(\d+)", "p": r"(weight|bias)", "any": r"(.+)"}


class Rename(NamedTuple):
    """A key of the file -> a name of the model; `part` (k, n): it is the k-th of n equal pieces of its rows."""

    key: str
    name: str
    part: tuple[int, int] = (0, 1)


class Piece(NamedTuple):
    key: str  # as the file spells it
    tensor: Tensor
    part: tuple[int, int]


@dataclass(frozen=True)
class Layout:
    name: str
    title: str
    renames: tuple[Rename, ...]
    unused: tuple[tuple[str, str], ...]  # pattern, reason
    describe: Callable[[Weights, dict[str, Any] | None, Mapping[str, Any]], Description]
    #        (the weights, config.json if there is one, the user's arguments) -> what model they need
    model_types: tuple[str, ...] = ()  # of config.json
    fields: tuple[str, ...] = ()  # any of which tells that a config.json without model_type is of this layout

    def described_by(self, config: Mapping[str, Any]) -> bool:
        if "model_type" in config:
            return config["model_type"] in self.model_types
        return any(name in config for name in self.fields)

    def rename(self, tensors: Mapping[str, Tensor]) -> Weights:
        """Every key is renamed, known to be unused, or listed as unknown."""
        weights = Weights(self, tuple(tensors))
        for key, tensor in tensors.items():
            if hit := next((hit for rule in self.renames if (hit := _translate(rule, key))), None):
                weights.add(Piece(key, tensor, hit[1]), hit[0])
            elif reason := next((reason for pattern, reason in self.unused if matches(pattern, key)), None):
                weights.unused[key] = reason
            else:
                weights.unknown.append(key)
        return weights


@dataclass
class Weights:
    """The tensors of a file under the names of the model."""

    layout: Layout
    keys: tuple[str, ...]
    pieces: dict[str, list[Piece]] = field(default_factory=dict)
    unused: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)  # keys for what another key gave already

    def add(self, piece: Piece, name: str) -> None:
        given = self.pieces.setdefault(name, [])
        if any(other.part == piece.part or other.part[1] != piece.part[1] for other in given):
            self.twice.append(piece.key)
        else:
            given.append(piece)

    def drop(self, pattern: str, reason: str, keep: Collection[str] = ()) -> None:
        """Leave weights out that the model does not need."""
        for name in [name for name in self.pieces if matches(pattern, name) and name not in keep]:
            self.unused.update((piece.key, reason) for piece in self.pieces.pop(name))

    def __contains__(self, name: str) -> bool:
        return name in self.pieces

    def any(self, pattern: str) -> bool:
        """Whether any weight has such a name."""
        return any(matches(pattern, name) for name in self.pieces)

    def tensors(self, pattern: str) -> list[Tensor]:
        """All weights of such a name that come whole."""
        return [pieces[0].tensor for name, pieces in self.pieces.items() if matches(pattern, name)]

    def need(self, name: str) -> Tensor:
        """A weight that arguments are read from. Raises CheckpointError with the file's name for it if it is absent."""
        if name not in self.pieces:
            lost = f"; not known: {', '.join(self.unknown[:5])}" if self.unknown else ""
            raise CheckpointError(f"the weights lack {self.key_of(name)}{lost}")
        return self.pieces[name][0].tensor

    def key_of(self, name: str, part: tuple[int, int] = (0, 1)) -> str:
        """What the file would call a weight of the model, or that piece of it; "a or b" if there are two spellings."""
        keys = [self._spell(key) for rule in self.layout.renames if rule.part == part if (key := _back(rule, name))]
        return " or ".join(dict.fromkeys(keys)) or name

    def parts_of(self, name: str) -> list[tuple[int, int]]:
        """The pieces that make a weight of the model: as many as the file has it in, where there are two spellings."""
        parts = sorted({rule.part for rule in self.layout.renames if _back(rule, name)}) or [(0, 1)]
        given = [piece.part for piece in self.pieces.get(name, [])] or parts
        return [part for part in parts if part[1] == given[0][1]]

    def _spell(self, key: str) -> str:
        """With or without the optional prefix, as the keys of the file are."""
        prefix = re.match(r"\[(.+?)\]", key)
        if not prefix:
            return key
        used = any(other.startswith(prefix[1]) for other in self.keys)
        return (prefix[1] if used else "") + key[prefix.end() :]


@dataclass
class Description:
    """The model that the weights need."""

    config: ModelConfig
    begin: dict[str, str] = field(default_factory=dict)  # pattern of names the file has nothing for -> what they hold
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)  # of what was guessed and may well be wrong


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    text = ""
    for literal, optional, placeholder in re.findall(r"([^\[{]+)|\[(.+?)\]|\{(\w+)\}", pattern):
        if optional:
            text += f"(?:{re.escape(optional)})?"
        else:
            text += re.escape(literal) if literal else PLACEHOLDERS[placeholder]
    return re.compile(text)


def matches(pattern: str, name: str) -> bool:
    return _compiled(pattern).fullmatch(name) is not None


def first_match(patterns: Mapping[str, str], name: str) -> str | None:
    """What stands at the first pattern that a name matches."""
    return next((text for pattern, text in patterns.items() if matches(pattern, name)), None)


def _translate(rule: Rename, key: str) -> tuple[str, tuple[int, int]] | None:
    found = _compiled(rule.key).fullmatch(key)
    return (_fill(rule.name, found.groups()), rule.part) if found else None


def _back(rule: Rename, name: str) -> str | None:
    """The key that a rule makes this name from, its optional prefix still in brackets."""
    found = _compiled(rule.name).fullmatch(name)
    return _fill(rule.key, found.groups()) if found else None


def _fill(pattern: str, values: Iterable[str]) -> str:
    rest = iter(values)
    return re.sub(r"\{\w+\}", lambda _: next(rest), pattern)
