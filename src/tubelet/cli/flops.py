"""Count the multiply-adds of a model, dense and with each selection given.

MAC = 1, one view, batch 1; matrix products, convolutions, fused attention, the products of selectors, and layer norm.
"""

from __future__ import annotations

import argparse

from tubelet.cli import options
from tubelet.cli.output import in_runs, print_json, print_table

EXAMPLE = "tubelet flops --model videomae_base --select sta:r=64 --select random:keep=0.5@4"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_selects(parser)
    options.add_clip(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from tubelet.profiling import flops_table

    model = options.named_model(args.model)
    rows = flops_table(model, args.select, frames=args.frames, size=args.size, classes=args.classes)
    rows = [{**row, "model": args.model} for row in rows]  # as given, where that is a folder
    if args.json:
        print_json(rows)
        return 0
    cells = [[row["select"], f"{row['gmacs']:.2f}", f"{row['ratio']:.2f}x", in_runs(row["tokens"])] for row in rows]
    title = f"{args.model}, {rows[0]['params_m']:.1f} M parameters, one view"
    print_table("lrrl", ["selection", "GMACs", "less by", "tokens entering the blocks"], cells, title)
    return 0
