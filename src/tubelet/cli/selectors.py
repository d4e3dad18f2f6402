"""List the ways to select tokens, the budgets and options each takes, and the models that can take it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from tubelet.cli.options import add_json
from tubelet.cli.output import print_json, print_table

if TYPE_CHECKING:
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
    cells = [[row["selector"], *("yes" if row["models"][name] else "no" for name in architectures)] for row in rows]
    print_table("l" * len(cells[0]), ["selector on", *architectures], cells)
    return 0


def _row(method: Method) -> dict[str, Any]:
    return {
        "selector": method.name,
        "summary": method.summary,
        "budgets": list(method.budgets),
        "places": method.places,
        "options": dict(method.options),
        "learned": method.learned,
        "models": _models_that_take(method),
    }


def _models_that_take(method: Method) -> dict[str, bool]:
    """Each architecture, and whether some budget of the method can be right on it: found by trying."""
    import torch

    from tubelet.models.registry import ARCHITECTURES, MODELS, create_model

    found = {}
    for architecture in ARCHITECTURES:
        name = next(name for name, (kind, _) in MODELS.items() if kind == architecture)
        with torch.device("meta"):  # the shapes alone
            model = create_model(name)
        specs = [f"{method.name}:{BUDGETS[budget]}{place}" for budget in method.budgets for place in PLACES]
        found[architecture] = any(_takes(model, spec) for spec in specs)
    return found


def _takes(model: Any, select: str) -> bool:
    from tubelet.errors import SelectionError, SpecError
    from tubelet.models.registry import set_selection

    try:
        set_selection(model, select)
    except (SelectionError, SpecError):
        return False
    return True
