"""Table A: selections that need no training, at equal cost, on the same clips, paired with the dense model.

    python -m benchmarks.table_a --model PATH --data scenes_table:test --clips 10000 --out runs/table_a_scenes
    python -m benchmarks.table_a --model videomae_tiny_jhmdb --data jhmdb:split1_test --truth box --out runs/table_a

A level is a budget of STA (its share of tokens at the end). At each level the others have
- random (several seeds), uniform, attention: the same numbers of tokens at the same places as STA;
- merge, rlt, tldr, which act at other places: the budget whose multiply-adds of a view are nearest to STA's; `random`
  before block 0 has rlt's numbers of tokens.
Rows of videos are kept in --out, and what is there is not run again. Prints JSON: {"rows": [fields of `tubelet
evaluate --json` with "level", "equal" ("tokens" or "multiply-adds") and "off" (multiply-adds beside STA's)],
"rlt_threshold": what the published threshold would have kept, "left_out": {selector: why}}.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tubelet.data.datasets.base import ClipDataset
from tubelet.data.datasets.registry import SCENES, split_name
from tubelet.errors import SelectionError, TubeletError
from tubelet.evaluation import Candidate, judge, open_for, protocol_of, table, views_of
from tubelet.evaluation.run import chosen_videos
from tubelet.inference import open_model
from tubelet.models.base import VideoModel
from tubelet.profiling import count_flops
from tubelet.profiling.flops import clip_shape, selected
from tubelet.selection.budgets import fitting_groups, r_for_share
from tubelet.selection.rlt import TAU, kept_by_threshold

SHARES_OF_TLDR = (6, 2, 1)  # r of its first three blocks, as published: 600, 200, 100
THRESHOLD_CLIPS = 500


def gmacs_of(model: VideoModel, select: str) -> float:
    p = model.config.preprocessing
    with selected(model, select):
        return count_flops(model, clip_shape(model, frames=p.frames, size=p.size)).gmacs


def nearest(model: VideoModel, target: float, spec_of: Callable[[int], str], least: int, most: int) -> str:
    """The spec, of numbers from `least` to `most` of which greater ones cost less, that costs nearest to `target`.

    Raises SelectionError if none of the numbers can be right, or even the nearest is over 5 % from the target.
    """
    low, high = least, most
    while low < high:  # the least number that costs no more than the target
        middle = (low + high) // 2
        low, high = (low, middle) if gmacs_of(model, spec_of(middle)) <= target else (middle + 1, high)
    costs = {spec_of(n): gmacs_of(model, spec_of(n)) for n in {max(low - 1, least), low}}
    best = min(costs, key=lambda spec: abs(costs[spec] - target))
    if abs(costs[best] / target - 1) > 0.05:
        raise SelectionError(f"{best} costs {costs[best]:.3g} GMACs, and STA {target:.3g}: no budget is as cheap")
    return best


def level(model: VideoModel, keep: float, seeds: list[int]) -> tuple[dict[str, str], dict[str, str]]:
    """The selections of one level, spec -> what is equal to STA's; and selectors left out, with the reason."""
    tokens, per_frame = model.grid.tokens, model.grid.per_frame
    groups = fitting_groups(model.grid.t)
    r = r_for_share(keep, tokens, tuple(map(int, groups.split("/"))))
    ending = "" if groups == "8/4/2" else f",groups={groups}"
    sta = f"sta:r={r}{ending}"
    target = gmacs_of(model, sta)
    specs = {sta: "tokens"}
    specs |= {f"random:r={r}{ending},seed={seed}": "tokens" for seed in seeds}
    specs |= {f"{name}:r={r}{ending}": "tokens" for name in ("uniform", "attention")}

    def share(n: int) -> str:  # n tokens dropped
        return f"{(tokens - n) / tokens:.4f}".rstrip("0") if n else "1.0"

    def of_tldr(n: int) -> str:
        return "tldr:" + "-".join(f"r={part * n // 6}" for part in SHARES_OF_TLDR)

    searches: dict[str, tuple[Callable[[int], str], int]] = {
        "merge": (lambda n: f"merge:r={n}", tokens // 2),
        "rlt": (lambda n: f"rlt:keep={share(n)}", tokens - per_frame),
        "tldr": (of_tldr, tokens),
    }
    left_out = {}
    for name, (spec_of, most) in searches.items():
        try:
            found = nearest(model, target, spec_of, 1, most)
        except SelectionError as error:
            left_out[f"{name} at level {keep}"] = str(error)
            continue
        specs[found] = "multiply-adds"
        if name == "rlt":
            specs[found.replace("rlt", "random") + "@0"] = "multiply-adds"
    return specs, left_out


def threshold(model: VideoModel, dataset: ClipDataset, clips: int = THRESHOLD_CLIPS) -> dict[str, Any]:
    """What share of the tokens RLT's published threshold keeps, which differs from clip to clip."""
    p, shares = model.config.preprocessing, []
    mean, std = torch.tensor(p.mean), torch.tensor(p.std)
    for index in chosen_videos(len(dataset), clips):
        pixels = (dataset[index].clips / 255 - mean) / std  # (V, T, H, W, 3)
        shares += kept_by_threshold(pixels.permute(0, 4, 1, 2, 3), model.grid).tolist()
    low, high = np.percentile(shares, [10, 90])
    return {"tau": TAU, "views": len(shares), "kept": float(np.mean(shares)), "kept_10_90": [float(low), float(high)]}


def measure(args: argparse.Namespace) -> dict[str, Any]:
    began = time.perf_counter()
    model = open_model(args.model, device=args.device)
    options: dict[str, Any] = {"seed": args.seed, "length": args.clips} if split_name(args.data)[0] in SCENES else {}
    dataset = open_for(model, args.data, truth=args.truth, **options)
    of: dict[str, tuple[float, str]] = {}
    left_out: dict[str, str] = {}
    for keep in args.keep:
        specs, without = level(model, keep, args.seeds)
        of |= {spec: (keep, equal) for spec, equal in specs.items()}
        left_out |= without
    note(f"{1 + len(of)} selections: {', '.join(of)}")
    told = [time.monotonic()]

    def begin(total: int) -> Callable[[int], None]:
        count = [0]

        def advance(videos: int) -> None:
            count[0] += videos
            if time.monotonic() - told[0] > 30:
                told[0] = time.monotonic()
                note(f"{count[0]} of {total} videos")

        return advance

    judged = judge(
        model,
        dataset,
        ["none", *of][args.part[0] - 1 :: args.part[1]] if args.part else ["none", *of],
        data=args.data,
        protocol=protocol_of(model, dataset),
        out=args.out,
        limit=args.clips,
        workers=args.workers,
        note=note,
        begin=begin,
    )
    if args.part is not None:
        return {"part": args.part, "selections": list(judged.rows)}
    candidate = Candidate(args.model, model, judged, views_of(dataset))
    timing = {"timing": args.runs > 0, "runs": max(args.runs, 1), "device": args.device}
    rows = table([candidate], args.data, seed=args.seed, **timing)
    costs = {row["select"]: row["gmacs"] for row in rows}
    sta = {keep: costs[spec] for spec, (keep, _) in of.items() if spec.startswith("sta:")}
    for row in rows[1:]:
        keep, equal = of[row["select"]]
        row |= {"level": keep, "equal": equal, "off": row["gmacs"] / sta[keep] - 1}
    return {
        "rows": rows,
        "rlt_threshold": threshold(model, dataset),
        "left_out": left_out,
        "seconds": round(time.perf_counter() - began, 1),  # of this call: rows that were there took none
    }


def note(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.table_a", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", required=True, help="a saved model, or the name of a packaged one")
    parser.add_argument("--data", required=True, help="scenes_table:test, jhmdb:split1_test, ...")
    parser.add_argument("--clips", type=int, help="so many; of scenes any number (default: all)")
    parser.add_argument("--keep", type=_numbers(float), default=[0.5, 0.25, 0.1], help="levels (default: 0.5,0.25,0.1)")
    parser.add_argument("--seeds", type=_numbers(int), default=[0, 1], help="of random (default: 0,1)")
    parser.add_argument("--truth", choices=("box", "silhouette"), help="of JHMDB")
    parser.add_argument("--out", type=Path, help="folder for the rows of videos, to go on from")
    part = "every Nth selection alone, for N processes on one --out (1,2 and 2,2); one without it then makes the table"
    parser.add_argument("--part", type=_numbers(int), metavar="I,N", help=part)
    parser.add_argument("--runs", type=int, default=7, help="rounds of timing; 0 leaves it out (default: 7)")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0, help="of the scenes and of the bootstrap")
    args = parser.parse_args(words)
    torch.set_num_threads(1)
    try:
        print(json.dumps(measure(args)))
    except TubeletError as error:
        note(str(error))
        return 2
    return 0


def _numbers(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    return lambda text: [kind(part) for part in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
