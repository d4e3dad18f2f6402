"""The detector's time, dense and with selections, fused attention in all, and where it goes.

Prints JSON: {"rows": those of `tubelet bench --json`, "parts": for each selection the median seconds of each part and
their shares; "fixed" are those that no selection makes less, "ceiling" is how much faster these let it be at most}.
One clip of the declared size, random weights; dense and selections in turn.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tubelet.models import context, proposals
from tubelet.models.evad import EVAD
from tubelet.models.registry import create_model, set_selection
from tubelet.profiling.flops import clip_shape
from tubelet.profiling.latency import bench, timed, using_threads

SELECTS = ("keyframe:keep=0.7@3,6,9", "keyframe:keep=0.6@3,6,9,weight=4", "random:keep=0.7@3,6,9")
PRUNABLE = ("backbone blocks", "decoder")


class Stopwatch:
    """Seconds of named calls within a pass."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def wrap(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed_call(*args: Any, **kwargs: Any) -> Any:
            found: list[Any] = []
            elapsed = timed(lambda: found.append(call(*args, **kwargs)))
            self.seconds[name] = self.seconds.get(name, 0.0) + elapsed
            return found[0]

        return timed_call


@contextmanager
def watched(model: EVAD, watch: Stopwatch):
    """Each part of the detector tells the watch how long it took; pooling is taken out of the heads it serves."""
    blocks: list[nn.Module] = [*model.backbone.blocks, *model.context.blocks, *model.context.classifiers]
    names = {id(one): "decoder" for one in blocks} | {id(one): "backbone blocks" for one in model.backbone.blocks}
    named = [(one, names[id(one)]) for one in blocks]
    named += [(model.backbone.patch_embed, "patch embedding"), (model.pyramid, "pyramid"), (model.proposals, "heads")]
    for module, name in named:
        module.forward = watch.wrap(name, module.forward)  # type: ignore[method-assign]
    pools = (proposals, "roi_align", "pooling for the heads"), (context, "pool_actors", "pooling for the actors")
    before = [getattr(where, name) for where, name, _ in pools]
    for where, name, called in pools:
        setattr(where, name, watch.wrap(called, getattr(where, name)))
    try:
        yield
    finally:
        for (where, name, _), original in zip(pools, before, strict=True):
            setattr(where, name, original)
        for module, _ in named:
            del module.forward


def parts_of(model: EVAD, clip: Tensor, selects: Sequence[str], runs: int) -> list[dict[str, Any]]:
    seconds: dict[str, list[dict[str, float]]] = {select: [] for select in selects}
    for _ in range(runs):
        for select in selects:
            set_selection(model, select)
            watch = Stopwatch()
            with watched(model, watch):
                total = timed(lambda: model(clip))
            found = watch.seconds
            found["heads"] -= found["pooling for the heads"]
            seconds[select].append({**found, "rest": total - sum(found.values()), "total": total})
    rows = []
    for select, passes in seconds.items():
        parts = {name: statistics.median(one[name] for one in passes) for name in passes[0]}
        total = parts.pop("total")
        fixed = total - sum(parts[name] for name in PRUNABLE)
        shares = {name: value / total for name, value in parts.items()}
        rows.append({"select": select, "total": total, "seconds": parts, "shares": shares, "fixed": fixed})
    for row in rows:
        row["ceiling"] = rows[0]["total"] / rows[0]["fixed"]
    return rows


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.timing_evad", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", default="evad_base")
    parser.add_argument("--select", action="append", metavar="SPEC", help=f"may be repeated ({', '.join(SELECTS)})")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=7, help="rounds, for the totals and for the parts")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(words)
    torch.manual_seed(args.seed)
    selects = args.select or list(SELECTS)

    def progress(done: int, total: int) -> None:
        print(f"{done} of {total} rounds", file=sys.stderr, flush=True)

    model = create_model(args.model)
    assert isinstance(model, EVAD)
    rows = bench(model, selects, threads=args.threads, device=args.device, runs=args.runs, progress=progress)
    model = model.to(args.device)
    clip = torch.randn(clip_shape(model)).to(args.device)
    with using_threads(args.threads), torch.inference_mode():
        parts = parts_of(model, clip, ["none", *selects], args.runs)
    print(json.dumps({"rows": rows, "parts": parts}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
