"""The text that names a selection, such as "stts:T5@0-S13@4" or "uniform:T0.5@0+sta:r=16,groups=4/4/2".

    spec     = "none" | selector { "+" selector }             several act together
    selector = name [ ":" step { "-" step } { "," option } ]
    step     = budget [ "@" place { "," place } ]
    budget   = ("T" | "S") amount | "keep=" share | "r=" count
    amount   = count | share | count "x" count                (S: side, area share, or rows x columns)
    option   = key "=" value
    share    = a number with a point, 0 < share <= 1.0         count = a whole number

`parse` and `str` are inverse to each other. What a share comes to is decided by the grid: see budgets.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

from tubelet.errors import SpecError

GRAMMAR = "name[:budget[@places][-budget...][,option=value...]], e.g. sta:r=64, uniform:T0.5@0, attention:keep=0.5@4"
Amount = int | float | tuple[int, int]


@dataclass(frozen=True)
class Budget:
    """How much goes on. A float is a share, an int a count, a pair rows x columns."""

    kind: str  # "T" frames, "S" region of each frame, "keep" tokens, "r" tokens removed a group or a block
    amount: Amount

    def __str__(self) -> str:
        if isinstance(self.amount, tuple):
            amount = "x".join(map(str, self.amount))
        elif isinstance(self.amount, float):
            amount = format(Decimal(repr(self.amount)), "f")  # never 1e-05, which is no share of the grammar
        else:
            amount = str(self.amount)
        return f"{self.kind}{amount}" if self.kind in "TS" else f"{self.kind}={amount}"


@dataclass(frozen=True)
class Step:
    budget: Budget
    places: tuple[int, ...] = ()  # blocks; empty: the selector's default

    def __str__(self) -> str:
        return f"{self.budget}@{','.join(map(str, self.places))}" if self.places else str(self.budget)


@dataclass(frozen=True)
class Term:
    """One selector of a spec."""

    name: str
    steps: tuple[Step, ...] = ()
    options: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        if not self.steps:
            return self.name
        return f"{self.name}:{'-'.join(map(str, self.steps))}" + "".join(f",{k}={v}" for k, v in self.options)

    def option(self, key: str) -> str | None:
        return dict(self.options).get(key)


@dataclass(frozen=True)
class Spec:
    """A parsed spec; without terms it is "none"."""

    terms: tuple[Term, ...] = ()

    def __str__(self) -> str:
        return "+".join(map(str, self.terms)) or "none"


def parse(text: str) -> Spec:
    """Read a spec. Raises SpecError with what was given and what is allowed."""
    text = text.strip()
    if text == "none":
        return Spec()
    if not text:
        raise SpecError(f"an empty selection spec; give 'none' or {GRAMMAR}")
    return Spec(tuple(_term(part, text) for part in text.split("+")))


def _term(part: str, text: str) -> Term:
    name, colon, rest = part.partition(":")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise SpecError(f"{name!r} in the selection spec {text!r} is not a selector's name; the form is {GRAMMAR}")
    if name == "none":
        raise SpecError(f"'none' stands alone; it cannot be a part of {text!r}")
    if not colon:
        return Term(name)
    # A comma before a digit goes on with a list of places, a comma before a letter begins an option.
    body, *options = re.split(r",(?=[A-Za-z_])", rest)
    pairs = tuple(_option(o, text) for o in options)
    for i, (key, _) in enumerate(pairs):
        if key in dict(pairs[:i]):
            raise SpecError(f"option {key!r} is given twice in {text!r}")
    return Term(name, tuple(_step(s, text) for s in body.split("-")), pairs)


def _option(part: str, text: str) -> tuple[str, str]:
    match = re.fullmatch(r"([a-z_]+)=([A-Za-z0-9._/]+)", part)
    if not match:
        raise SpecError(
            f"{part!r} in {text!r} is not an option; the form is key=value, the value of letters, digits . _ /"
        )
    return match[1], match[2]


def _step(part: str, text: str) -> Step:
    budget, at, places = part.partition("@")
    if at and not re.fullmatch(r"[0-9]+(,[0-9]+)*", places):
        raise SpecError(f"places {places!r} in {text!r} are not block numbers; the form is @4 or @3,6,9")
    blocks = tuple(int(p) for p in places.split(",")) if at else ()
    if len(set(blocks)) != len(blocks):
        raise SpecError(f"places {places!r} in {text!r} name a block twice")
    return Step(_budget(budget, text), blocks)


def _budget(part: str, text: str) -> Budget:
    match = re.fullmatch(r"(T|S|keep=|r=)(\d+x\d+|\d+\.\d*|\.\d+|\d+)", part, re.ASCII)
    if not match:
        raise SpecError(
            f"{part!r} in {text!r} is not a budget; the forms are T5 or T0.6 (frames), S13, S0.9 or S12x14 (region), "
            f"keep=0.5 (share of tokens), r=48 (tokens removed)"
        )
    kind, number = match[1].rstrip("="), match[2]
    if "x" in number:
        if kind != "S":
            raise SpecError(f"{part!r} in {text!r}: rows x columns is a form of S (a region), such as S12x14")
        rows, columns = (int(n) for n in number.split("x"))
        if min(rows, columns) < 1:
            raise SpecError(f"{part!r} in {text!r}: a region has at least one row and one column")
        return Budget(kind, (rows, columns))
    if "." in number:
        share = float(number)
        if kind == "r":
            raise SpecError(f"{part!r} in {text!r}: r is a whole number of tokens; a share is written keep=0.5")
        if not 0 < share <= 1:
            raise SpecError(f"{part!r} in {text!r}: a share is more than 0 and at most 1.0")
        return Budget(kind, share)
    if kind == "keep":
        raise SpecError(f"{part!r} in {text!r}: keep takes a share with a point, such as keep=0.5")
    if kind != "r" and int(number) < 1:
        raise SpecError(f"{part!r} in {text!r}: at least 1 must be kept")
    return Budget(kind, int(number))
