"""List the ways to select tokens, the budgets and options each takes, and the models that can take it."""

from __future__ import annotations

import argparse
from functools import cache
from typing import TYPE_CHECKING, Any

from tubelet.cli.options import add_json
from tubelet.cli.output import print_json, print_table

if TYPE_CHECKING:
    from tubelet.errors import TubeletError
    from tubelet.selection.registry import Method

EXAMPLE = "tubelet selectors"
# One budget of each form, to try whether a model takes it: at the method's own places, or at block 1 where it has none.
BUDGETS = {"T": "T0.5", "S": "S0.5", "keep": "keep=0.5", "r": "r=1"}
PLACES = ("", "@1")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from tubelet.selection.registry import FORMS, methods

    rows = [_row(method) for method in methods().values()]
    if args.json:
        print_json(rows)
        return 0
    for row in rows:
        print(f"{row['selector']}: {row['summary']}")
        print(f"    budgets {', '.join(row['budgets'])}; {row['places']}")
        if row["options"]:
            print("    options " + ", ".join(f"{key} ({value})" for key, value in row["options"].items()))
    print("\nBudgets: " + "; ".join(FORMS.values()) + ".")
    print("A spec is name:budget@blocks,option=value, such as sta:r=64 or attention:keep=0.5@4; '+' puts two together.")
    print()
    architectures = list(rows[0]["models"])
    cells = [[row["selector"], *(_cell(row, name) for name in architectures)] for row in rows]
    print_table("l" * len(cells[0]), ["selector on", *architectures], cells)
    print()
    for row in rows:
        for name, options in row["only_with"].items():
            for budget, option in options.items():
                print(f"{row['selector']} {budget} on {name}: with one group a frame, such as {option}")
    for row in rows:
        for name, why in row["refused"].items():
            for budget, reason in why.items():
                print(f"{row['selector']} {budget} on {name}: {reason}")
    return 0


def _cell(row: dict[str, Any], architecture: str) -> str:
    """The budgets that work, or "refused"."""
    if not row["models"][architecture]:
        return "refused"
    if not row["refused"][architecture]:
        return "yes"
    return ", ".join(budget for budget in row["budgets"] if budget not in row["refused"][architecture])


def _row(method: Method) -> dict[str, Any]:
    refused, only_with = _refusals(method)
    return {
        "selector": method.name,
        "summary": method.summary,
        "budgets": list(method.budgets),
        "places": method.places,
        "options": dict(method.options),
        "learned": method.learned,
        "models": {name: len(reasons) < len(method.budgets) for name, reasons in refused.items()},
        "refused": refused,
        "only_with": only_with,
    }


def _refusals(method: Method) -> tuple[dict[str, dict[str, str]], dict[str, dict[str, str]]]:
    """Each architecture -> the budgets of the method that cannot be right on it, and why; and those that are right with
    one group a frame alone, and how to say so. Found by trying.
    """
    from tubelet.errors import SelectionError

    found: dict[str, dict[str, str]] = {}
    only_with: dict[str, dict[str, str]] = {}
    for architecture, model in _a_model_each().items():
        found[architecture] = {}
        for budget in method.budgets:
            spec = f"{method.name}:{BUDGETS[budget]}"
            errors = [_refusal(model, f"{spec}{place}") for place in PLACES]
            option = "groups=" + "/".join([str(model.grid.t)] * 3)
            if isinstance(errors[0], SelectionError) and "groups" in method.options:
                if _refusal(model, f"{spec},{option}") is None:
                    only_with.setdefault(architecture, {})[budget] = option
                    continue
            if None not in errors:  # the model's own reason before one about how the budget was written
                found[architecture][budget] = str(min(errors, key=lambda error: not isinstance(error, SelectionError)))
    return found, only_with


@cache
def _a_model_each() -> dict[str, Any]:
    """The first of each architecture, its shapes alone."""
    import torch

    from tubelet.models.registry import MODELS, create_model

    models: dict[str, Any] = {}
    with torch.device("meta"):
        for name, (architecture, _) in MODELS.items():
            if architecture not in models:
                models[architecture] = create_model(name)
    return models


def _refusal(model: Any, select: str) -> TubeletError | None:
    """Why the model cannot take the selection; None if it can."""
    from tubelet.errors import SelectionError, SpecError
    from tubelet.models.registry import set_selection

    try:
        set_selection(model, select)
    except (SelectionError, SpecError) as error:
        return error
    return None
