"""List the models that can be made by name, and those whose weights come with the package."""

from __future__ import annotations

import argparse
from fnmatch import fnmatch
from typing import Any

from tubelet.cli.options import add_json
from tubelet.cli.output import print_json, print_table
from tubelet.errors import TubeletError

EXAMPLE = "tubelet models 'videomae*'"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pattern", nargs="?", default="*", metavar="PATTERN", help="names to list, with * and ?")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from tubelet.checkpoints import packaged_models
    from tubelet.models.registry import list_models

    packaged = [name for name in packaged_models() if fnmatch(name, args.pattern)]
    rows = [_row(name, packaged=True) for name in packaged]
    rows += [_row(name, packaged=False) for name in list_models(args.pattern) if name not in packaged]
    if not rows:
        raise TubeletError(f"no model matches {args.pattern!r}; tubelet models lists all")
    if args.json:
        print_json(rows)
        return 0
    header = ["model", "weights", "frames", "size", "classes", "parameters"]
    cells = [
        [
            row["model"],
            "in the package" if row["weights"] else "-",
            str(row["frames"]),
            "x".join(map(str, row["size"])),
            str(row["classes"]),
            f"{row['params_m']:.1f} M",
        ]
        for row in rows
    ]
    print_table("llrrrr", header, cells)
    print("A model without weights is one to count, measure or train: tubelet flops --model NAME")
    return 0


def _row(name: str, packaged: bool) -> dict[str, Any]:
    import torch

    from tubelet.checkpoints import load_model
    from tubelet.models.registry import create_model

    if packaged:
        model = load_model(name)
    else:
        with torch.device("meta"):  # the shapes alone: the largest has a few gigabytes
            model = create_model(name)
    return {
        "model": name,
        "weights": packaged,
        "frames": model.frames,
        "size": list(model.size),
        "classes": model.num_classes,
        "params_m": sum(p.numel() for p in model.parameters()) / 1e6,
    }
