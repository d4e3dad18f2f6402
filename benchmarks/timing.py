"""A model's time, dense and with selections, over threads, batches, types and compilation; beside its peer if asked.

Prints JSON: {"rows": those of `tubelet bench --json`, "choosing": shares of a profiled pass spent on choosing and on
gathering tokens, "same_tokens": whether other types keep the tokens that float32 keeps, "peers": rows of peers.py}.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor

from benchmarks import peers
from tubelet.errors import TubeletError
from tubelet.models.base import VideoModel
from tubelet.models.registry import create_model, trace
from tubelet.profiling.flops import clip_shape
from tubelet.profiling.latency import DTYPES, bench, choosing_share, with_selection
from tubelet.profiling.report import remarks


def measure(args: argparse.Namespace, **arguments: Any) -> dict[str, Any]:
    """`arguments` are those of create_model."""
    torch.manual_seed(args.seed)
    model = create_model(args.model, **arguments)
    clip = torch.randn(clip_shape(model))
    found: dict[str, Any] = {"rows": [], "choosing": [], "same_tokens": [], "peers": []}
    for threads, batch, dtype, compile in product(args.threads, args.batch, args.dtype, args.compile):
        note(f"{args.model} {args.device} threads={threads} batch={batch} {dtype} compile={compile}")
        rows = bench(
            model, args.select, batch=batch, threads=threads, device=args.device, dtype=dtype, runs=args.runs,
            warmup=2, compile=compile == "yes",
        )  # fmt: skip
        for sentence in remarks(rows):
            note(sentence)
        found["rows"] += rows
    there = copy.deepcopy(model).to(args.device)
    for select, threads in product(args.select, args.threads):
        share = choosing_share(with_selection(there, select), clip.to(args.device), threads, runs=5)
        found["choosing"].append({"select": select, "threads": threads, **share})
    for select, dtype in product(args.select, [d for d in args.dtype if d != "float32"]):
        found["same_tokens"].append(same_tokens(there, clip.to(args.device), select, dtype))
    if args.peers:
        found["peers"] = [peers.compare(args.model, pairs=args.runs, threads=t, **arguments) for t in args.threads]
    return found


def same_tokens(model: VideoModel, clip: Tensor, select: str, dtype: str) -> dict[str, Any]:
    """Whether a type keeps the tokens that float32 keeps, after each step: as a share of them, and exactly."""
    wide = trace(with_selection(model, select), clip)
    narrow = trace(with_selection(copy.deepcopy(model).to(DTYPES[dtype]), select), clip.to(DTYPES[dtype]))
    shares = [(a.mask & b.mask).sum().item() / a.mask.sum().item() for a, b in zip(wide, narrow, strict=True)]
    return {"select": select, "dtype": dtype, "shares": shares, "same": all(share == 1.0 for share in shares)}


def note(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def several(text: str) -> list[str]:
    return text.split(",")


def numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.timing", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--select", action="append", default=[], metavar="SPEC", help="may be repeated")
    parser.add_argument("--threads", type=numbers, default=[1], metavar="N,N", help="1")
    parser.add_argument("--batch", type=numbers, default=[1], metavar="B,B", help="1")
    parser.add_argument("--dtype", type=several, default=["float32"], metavar="D,D", help=", ".join(DTYPES))
    parser.add_argument("--compile", type=several, default=["no"], metavar="no,yes")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--runs", type=int, default=7, help="rounds of each combination, and pairs with the peer")
    parser.add_argument("--peers", action="store_true", help="beside the model that users would pick instead, too")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def main(words: Sequence[str] | None = None) -> int:
    try:
        print(json.dumps(measure(parser().parse_args(words))))
    except TubeletError as error:
        note(f"timing: {error}")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
