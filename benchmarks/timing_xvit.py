"""X-ViT's time beside the image ViT on each frame, and beside joint attention over all frames: runs in turn.

Prints JSON: a row a pair, "ratio" the median over rounds of X-ViT's time / the other's in the same round. All are the
project's own ViT-B/16 with the same fused attention, random weights, float32, one clip of 8 frames of 224 x 224.

    python -m benchmarks.timing_xvit --rounds 9
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from functools import partial
from typing import Any

import torch

from benchmarks.flops_xvit import IMAGE
from tubelet.models.registry import create_model
from tubelet.profiling.flops import clip_shape
from tubelet.profiling.latency import interleaved, using_threads

LEAST_ROUNDS = 7
MIXING_DIVS = (8, 4)  # heads that join frames, as for Kinetics; whole heads, as for Something-Something


def measure(rounds: int, threads: int, **arguments: Any) -> list[dict[str, Any]]:
    """`arguments` are those of create_model."""
    ours = {f"xvit_base, div {div}": create_model("xvit_base", mixing_div=div, **arguments) for div in MIXING_DIVS}
    image = create_model("videomae_base", **{**arguments, "frames": 1, **IMAGE})
    first = next(iter(ours.values()))
    joint = create_model("videomae_base", **{**arguments, "frames": first.frames, "tubelet_size": 1})
    clip = torch.randn(clip_shape(first))
    pictures = clip.transpose(1, 2).reshape(-1, 3, 1, *clip.shape[3:])  # a batch of the frames
    others = {"image ViT on each frame": partial(image, pictures), "joint attention": partial(joint, clip)}
    passes = [*(partial(model, clip) for model in ours.values()), *others.values()]

    def progress(done: int, rounds: int) -> None:
        print(f"timing_xvit: {done} of {rounds} rounds", file=sys.stderr, flush=True)

    with using_threads(threads), torch.inference_mode():
        seconds = interleaved(passes, max(rounds, LEAST_ROUNDS), warmup=1, progress=progress)
    times = dict(zip([*ours, *others], seconds, strict=True))
    return [
        {
            "model": name,
            "other": other,
            "ratio": statistics.median(a / b for a, b in zip(times[name], times[other], strict=True)),
            "seconds": statistics.median(times[name]),
            "other_seconds": statistics.median(times[other]),
            "rounds": len(times[name]),
            "threads": threads,
        }
        for name in ours
        for other in others
    ]


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.timing_xvit", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=LEAST_ROUNDS, help=f"at least {LEAST_ROUNDS}, the default")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    args = parser().parse_args()
    torch.manual_seed(args.seed)
    print(json.dumps(measure(args.rounds, args.threads)))
