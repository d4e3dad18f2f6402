"""What became of every key of a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

SHOWN = 5


def name_some(names: Iterable[str], shown: int = SHOWN) -> str:
    """ "a, b, c and 7 more"."""
    names = list(names)
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


@dataclass
class Report:
    """What `load_model` did; it stands in `model.report`, and `print(model.report)` shows it.

    matched: keys whose name the model has.
    renamed: key -> the model's name for it; several keys may be the parts of one weight.
    unused:  key (or entry of the file around the weights) -> why it is not needed.
    new:     the model's names that the file has nothing for -> what they hold instead.
    notes:   what the file does not say and was therefore filled in.
    """

    source: str
    layout: str
    matched: list[str] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)
    unused: dict[str, str] = field(default_factory=dict)
    new: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """For people, a few lines however large the model is."""
        counts = f"{len(self.matched)} keys matched, {len(self.renamed)} renamed"
        out = [f"{self.source}: layout {self.layout}, {counts}, {len(self.unused)} unused, {len(self.new)} new"]
        out += [f"  unused: {name_some(names)} ({reason})" for reason, names in _by_reason(self.unused)]
        out += [f"  new: {name_some(names)} ({reason})" for reason, names in _by_reason(self.new)]
        return out + [f"  note: {note}" for note in self.notes]

    def __str__(self) -> str:
        return "\n".join(self.lines())


def _by_reason(reasons: dict[str, str]) -> Sequence[tuple[str, list[str]]]:
    groups: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        groups.setdefault(reason, []).append(name)
    return list(groups.items())
