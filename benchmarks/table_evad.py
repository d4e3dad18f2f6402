"""Detectors trained alike, each with the selection it was trained for, on the same key frames, paired with the first.

    python -m benchmarks.table_evad --model runs/evad_jhmdb_dense --model runs/evad_jhmdb_keep7 \
        --data jhmdb:split1_test --every 4 --out runs/table_evad_jhmdb

A model is the folder of a training, whose best weights are taken, or a saved model. What was looked at is kept in
--out and not run again. Prints JSON: a list of rows, with the fields of `tubelet.evaluation.people_report`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tubelet.detection import open_detector
from tubelet.errors import TubeletError
from tubelet.evaluation.people import EVERY, RULES, look, open_people
from tubelet.evaluation.people_report import DRAWS, Detector, people_table


def best_of(folder: str) -> Path:
    """The best weights of a training; otherwise the folder itself."""
    best = Path(folder) / "best"
    return best if best.is_dir() else Path(folder)


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    detectors = []
    for name in args.model:
        model = open_detector(best_of(name), device=args.device)
        dataset = open_people(model, args.data)
        looked = look(
            model,
            dataset,
            [model.config.select],
            every=args.every,
            data=args.data,
            out=args.out,
            title=name,
            limit=args.limit,
            note=note,
            begin=telling(name),
        )
        detectors.append(Detector(name, model, dataset, looked))
    timing = {"timing": args.runs > 0, "runs": max(args.runs, 1), "device": args.device}
    options = {"rule": args.rule, "draws": args.draws, "seed": args.seed}
    return people_table(detectors, args.data, **options, **timing)


def telling(name: str) -> Callable[[int], Callable[[int], None]]:
    """A line now and then."""

    def begin(total: int) -> Callable[[int], None]:
        count, told = 0, time.monotonic()

        def advance(videos: int) -> None:
            nonlocal count, told
            count += videos
            if time.monotonic() - told > 30:
                told = time.monotonic()
                note(f"{name}: {count} of {total} videos")

        return advance

    return begin


def note(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.table_evad", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", action="append", required=True, help="may be repeated; the others are beside it")
    parser.add_argument("--data", required=True, help="jhmdb:split1_test, or a csv of boxes")
    parser.add_argument("--every", type=int, default=EVERY, help=f"annotated frames a key frame (default: {EVERY})")
    parser.add_argument("--rule", choices=RULES, default=RULES[0], help=f"of scores (default: {RULES[0]})")
    parser.add_argument("--limit", type=int, help="so many videos, the same ones each time (default: all)")
    parser.add_argument("--out", type=Path, help="folder for the rows of videos, to go on from")
    parser.add_argument("--draws", type=int, default=DRAWS, help=f"of the bootstrap (default: {DRAWS})")
    parser.add_argument("--runs", type=int, default=0, help="rounds of timing (default: 0, none)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    args = parser.parse_args(words)
    torch.set_num_threads(1)
    try:
        print(json.dumps(measure(args)))
    except TubeletError as error:
        note(str(error))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
