"""Turn a checkpoint of others into a folder of this library, and say what became of each of its keys."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, cast

from tubelet.cli import options
from tubelet.cli.output import print_json
from tubelet.errors import TubeletError

if TYPE_CHECKING:
    from tubelet.checkpoints.report import Report

EXAMPLE = "tubelet convert checkpoint.pth my_model --labels classes.txt"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", help=options.MODEL_HELP)
    parser.add_argument("target", metavar="TARGET", help="the folder to make")
    parser.add_argument("--layout", default="auto", metavar="NAME", help="whose keys they are (default: auto)")
    given = "an argument of the model that the file does not say, such as heads=3 or window_size=[8,7,7]; repeatable"
    parser.add_argument("--set", type=options.argument, action="append", default=[], metavar="KEY=VALUE", help=given)
    parser.add_argument("--select", metavar="SPEC", help="a selection to save with the model")
    parser.add_argument("--labels", metavar="FILE", help="names of the classes to save with it, one a line")
    parser.add_argument("--force", action="store_true", help="write over a folder that is not empty")
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from tubelet.checkpoints import load_model, save_model

    target = Path(args.target)
    if target.exists() and not target.is_dir():
        raise TubeletError(f"{target} is a file; a folder is needed")
    if target.is_dir() and any(target.iterdir()) and not args.force:
        raise TubeletError(f"{target} is not empty; --force writes over it")
    if own := [key for key, _ in args.set if key in ("select", "labels", "layout", "source")]:
        raise TubeletError(f"--set {own[0]}: that is no argument of a model; give --{own[0]}, or SOURCE")
    model = load_model(args.source, select=args.select, labels=args.labels, layout=args.layout, **dict(args.set))
    save_model(model, target)
    report = cast("Report", model.report)
    if args.json:
        print_json(
            {
                "source": args.source,
                "target": str(target),
                "layout": report.layout,
                "matched": report.matched,
                "renamed": report.renamed,
                "unused": report.unused,
                "new": report.new,
                "notes": report.notes,
            }
        )
    else:
        print(report)
        print(f"saved to {target}")
    return 0
