"""Accuracy of models on several data sets, with intervals, each beside the first on the same clips.

    python -m benchmarks.judged --model videomae_tiny_scenes --data scenes:test,scenes_hard:test --clips 1200
    python -m benchmarks.judged --model runs/mine --model runs/other --data scenes:test --select uniform:T0.5@1

Prints JSON: the rows of `tubelet evaluate --json`, one for each data set, model and selection: the one it was saved
with, and those given. The difference, its interval and p are to the first row of the same data set. Where data has
truth (scenes, or JHMDB with --truth), recall and precision say how much of it the kept tokens are.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

from tubelet.cli import options
from tubelet.data.datasets.registry import SCENES, split_name
from tubelet.errors import TubeletError
from tubelet.evaluation import Candidate, judge, open_for, protocol_of, table, views_of, write
from tubelet.inference import open_model


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    models = {name: open_model(name) for name in dict.fromkeys(args.model)}
    rows: list[dict[str, Any]] = []
    for data in args.data.split(","):
        candidates = []
        for name, model in models.items():
            length = {"length": args.clips} if args.clips and split_name(data)[0] in SCENES else {}
            dataset = open_for(model, data, truth=args.truth, views=args.views, **length)
            judged = judge(
                model, dataset, [model.config.select, *args.select], data=data, protocol=protocol_of(model, dataset),
                limit=args.clips,
            )  # fmt: skip
            candidates.append(Candidate(name, model, judged, views_of(dataset)))
        of_data = table(candidates, data, seed=args.seed, timing=False)
        for row in of_data:
            print(f"{data} {row['model']} {row['select']}: {row['top1']:.4f}", file=sys.stderr, flush=True)
        if args.curve is not None:
            write(of_data, args.curve / data.replace(":", "_"), lambda text: print(text, file=sys.stderr))
        rows += of_data
    return rows


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.judged", description=__doc__.split("\n", 1)[0])
    model = "a saved model, or the name of a packaged one; may be repeated, and the first is what others are beside"
    parser.add_argument("--model", action="append", required=True, help=model)
    parser.add_argument("--data", required=True, metavar="D,D", help="data sets with their splits")
    parser.add_argument("--select", action="append", default=[], metavar="SPEC", help="of all models; may be repeated")
    parser.add_argument("--clips", type=int, help="so many of each, the same ones each time; of scenes any number")
    parser.add_argument("--truth", choices=("box", "silhouette"), help="of JHMDB; scenes bring their own")
    views = "clips x crops of all models (default: those of each)"
    parser.add_argument("--views", type=options.views, metavar="CxC", help=views)
    curve = "folder for the table as csv and for accuracy against multiply-adds as a picture, one of each data set"
    parser.add_argument("--curve", type=Path, metavar="DIR", help=curve)
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    return parser


def main(words: list[str] | None = None) -> int:
    args = parser().parse_args(words)
    torch.set_num_threads(1)
    try:
        print(json.dumps(measure(args)))
    except TubeletError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
