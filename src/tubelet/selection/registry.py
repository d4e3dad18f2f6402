"""The selectors by name, and the way from a spec to a plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module

from tubelet.errors import SpecError, suggestion
from tubelet.selection.plan import Host, Placed, Plan
from tubelet.selection.spec import Spec, Term, parse

FORMS = {
    "T": "T5 or T0.6 (frames)",
    "S": "S13, S0.9 or S12x14 (region of each frame)",
    "keep": "keep=0.5 (share of tokens)",
    "r": "r=48 (tokens removed)",
}
MODULES = ("sta", "stts", "gumbel", "keyframe", "merge", "rlt", "tldr", "baselines")  # each holds METHOD or METHODS


@dataclass(frozen=True)
class Method:
    """What the registry knows of a selector."""

    name: str
    summary: str
    budgets: tuple[str, ...]
    places: str  # where its steps stand, in words
    build: Callable[[Term, Host], list[Placed]]
    options: Mapping[str, str] = field(default_factory=dict)  # name: default or allowed values, for people
    learned: bool = False


@cache
def methods() -> dict[str, Method]:
    """Every selector, by name."""
    found: list[Method] = []
    for module in MODULES:
        loaded = import_module(f"tubelet.selection.{module}")
        found += getattr(loaded, "METHODS", None) or [loaded.METHOD]
    return {m.name: m for m in found}


def list_selectors() -> list[str]:
    """Names that a selection spec may use, "none" first."""
    return ["none", *methods()]


def build_plan(spec: str | Spec, host: Host) -> Plan:
    """A plan for a model. Raises SpecError or SelectionError with a sentence that says what would be right."""
    spec = parse(spec) if isinstance(spec, str) else spec
    placed: list[Placed] = []
    for number, term in enumerate(spec.terms):
        placed += [replace(p, schedule=(number, p.schedule)) for p in _checked(term).build(term, host)]
    return Plan(placed, host, str(spec))


def _checked(term: Term) -> Method:
    known = methods()
    if term.name not in known:
        hint = suggestion(term.name, known)
        raise SpecError(f"no selector {term.name!r}; there are {', '.join(list_selectors())}{hint}")
    method = known[term.name]
    forms = "; ".join(FORMS[b] for b in method.budgets)
    if not term.steps:
        raise SpecError(f"{term.name} needs a budget: {forms}")
    for step in term.steps:
        if step.budget.kind not in method.budgets:
            raise SpecError(f"{term.name} does not take {step.budget} (in {term}); it takes {forms}")
    for key, _ in term.options:
        if key not in method.options:
            allowed = ", ".join(f"{k} ({v})" for k, v in method.options.items()) or "none"
            raise SpecError(f"{term.name} has no option {key!r} (in {term}); its options: {allowed}")
    return method
