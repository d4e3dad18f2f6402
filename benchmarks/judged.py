"""A model's accuracy on several data sets, with intervals.

    python -m benchmarks.judged --model videomae_tiny_scenes --data scenes:test,scenes_hard:test --clips 1200

Prints JSON: the rows of `tubelet evaluate --json`, one for each data set and selection.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import torch

from tubelet.errors import TubeletError
from tubelet.evaluation import Candidate, judge, open_for, protocol_of, table, views_of
from tubelet.inference import open_model


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    model, rows = open_model(args.model), []
    for data in args.data.split(","):
        dataset = open_for(model, data)
        judged = judge(
            model, dataset, ["none", *args.select], data=data, protocol=protocol_of(model, dataset), limit=args.clips
        )
        rows += table([Candidate(args.model, model, judged, views_of(dataset))], data, seed=args.seed, timing=False)
        print(f"{data}: {rows[-1]['top1']:.4f}", file=sys.stderr, flush=True)
    return rows


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.judged", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", required=True, help="a saved model, or the name of a packaged one")
    parser.add_argument("--data", required=True, metavar="D,D", help="data sets with their splits")
    parser.add_argument("--select", action="append", default=[], metavar="SPEC", help="may be repeated")
    parser.add_argument("--clips", type=int, help="so many of each, the same ones each time (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    args = parser.parse_args(words)
    torch.set_num_threads(1)
    try:
        print(json.dumps(measure(args)))
    except TubeletError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
