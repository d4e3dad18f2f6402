"""Measure the time and memory of a model, dense and with each selection given, and say whether it pays.

Dense and selections run in turn, on a random clip; the speed-up is the median over the rounds.
"""

from __future__ import annotations

import argparse
from typing import Any

from tubelet.cli import options
from tubelet.cli.output import Steps, print_json, print_table

EXAMPLE = "tubelet bench --model videomae_small --frames 8 --size 112 --select sta:keep=0.5,groups=4/4/2"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_selects(parser)
    options.add_clip(parser)
    parser.add_argument("--batch", type=options.whole(), default=1, metavar="B", help="clips at once (default: 1)")
    parser.add_argument("--runs", type=options.whole(), default=7, metavar="R", help="rounds measured (default: 7)")
    dtypes = ("float32", "bfloat16", "float16")
    parser.add_argument("--dtype", choices=dtypes, default="float32", help="of weights and clip (default: float32)")
    parser.add_argument("--compile", action="store_true", help="run through torch.compile")
    options.add_device(parser, threads=1)
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from tubelet.devices import device_of
    from tubelet.profiling import bench, remarks

    device_of(args.device)
    model = options.named_model(args.model)
    with Steps(1 + args.runs, "rounds") as steps:
        rows = bench(
            model,
            args.select,
            batch=args.batch,
            threads=args.threads,
            device=args.device,
            dtype=args.dtype,
            runs=args.runs,
            compile=args.compile,
            frames=args.frames,
            size=args.size,
            classes=args.classes,
            progress=lambda done, total: steps.reach(done),
        )
    rows = [{**row, "model": args.model} for row in rows]  # as given, where that is a folder
    if args.json:
        print_json(rows)
    else:
        show(rows)
        print("\n".join(remarks(rows)) or _pays(rows))
    return 0


def show(rows: list[dict[str, Any]]) -> None:
    title = "{model}, batch {batch}, {device}, {threads} thread(s), {dtype}".format(**rows[0])
    header = ["selection", "GMACs", "less by", "ms (median)", "ms (p95)", "faster by", "efficiency", "peak MB"]
    cells = [
        [
            row["select"],
            f"{row['gmacs']:.2f}",
            f"{row['ratio']:.2f}x",
            f"{row['ms_median']:.1f}",
            f"{row['ms_p95']:.1f}",
            f"{row['speedup']:.2f}x",
            f"{row['efficiency']:.2f}",
            f"{row['peak_mb']:.0f}",
        ]
        for row in rows
    ]
    print_table("lrrrrrrr", header, cells, title)


def _pays(rows: list[dict[str, Any]]) -> str:
    if len(rows) == 1:
        return "Give --select SPEC to compare a selection with the dense model."
    return "Every selection pays: what it saves in multiply-adds arrives in time."
