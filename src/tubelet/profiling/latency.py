"""How long a forward pass takes and how much memory it holds: dense and selections, measured in turn."""

from __future__ import annotations

import copy
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile, record_function

from tubelet.devices import device_of
from tubelet.errors import TubeletError
from tubelet.models.base import VideoModel
from tubelet.profiling.flops import Size, clip_shape, flops_table, named, tokens_entering
from tubelet.selection.registry import build_plan

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler would write to standard error at each use

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
RANGES = {"choose": "tubelet.choose", "apply": "tubelet.apply"}  # marked in every forward pass, see selection.plan

Progress = Callable[[int, int], None]  # called with rounds done, rounds in all


def bench(
    model: str | VideoModel,
    selects: Sequence[str] = (),
    *,
    batch: int = 1,
    threads: int = 1,
    device: str = "cpu",
    dtype: str = "float32",
    runs: int = 7,
    warmup: int = 1,
    compile: bool = False,
    frames: int | None = None,
    size: Size | None = None,
    classes: int | None = None,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """The dense model and each selection side by side: rows as `tubelet bench --json` prints them.

    A round is one forward pass of each in turn, so that what else the machine does meets all alike. `speedup` is the
    median over rounds of the dense model's time / this one's in the same round; `efficiency` is speedup / `ratio`
    of multiply-adds: 1 where all that is saved on paper is saved in time. The clip is random; the model is left as it
    is. bfloat16 means weights and clip in that type.

    Beside the interface: `runs`, `compile`, and `choosing`, the share of a profiled pass in which tokens are chosen
    (on the host: what the processor spends on it; None when compiled).

    Args:
        batch: clips a pass; threads: those that torch may use within an operation.
        runs, warmup: rounds measured, and before them.
        compile: torch.compile each with static shapes; a graph break is an error.
        frames, size, classes: as in flops_table.
        progress: called before the first round and after each with rounds done and rounds in all.
    """
    if dtype not in DTYPES:
        raise TubeletError(f"dtype={dtype!r}; there are {', '.join(DTYPES)}")
    where = device_of(device)
    rows = flops_table(model, selects, frames=frames, size=size, classes=classes)
    network = named(model, frames, size, classes)
    if not isinstance(model, str):  # moving a model changes it in place
        network = copy.deepcopy(network)
    network = network.to(where, DTYPES[dtype]).eval()
    clip = torch.randn(clip_shape(network, batch, frames, size)).to(where, DTYPES[dtype])
    copies: list[Any] = [with_selection(network, row["select"]) for row in rows]
    if compile:
        torch._dynamo.reset()  # the limit on recompilations is one a function, shared by all copies
        for i, one in enumerate(copies):
            tokens_entering(one, clip.shape)  # makes the plan for this grid, which no graph can hold
            copies[i] = torch.compile(one, fullgraph=True, dynamic=False)

    with using_threads(threads), torch.inference_mode():
        seconds = interleaved([partial(one, clip) for one in copies], runs, warmup, where, progress)
        for row, one, times in zip(rows, copies, seconds, strict=True):
            speedup = statistics.median(dense / this for dense, this in zip(seconds[0], times, strict=True))
            row |= {
                "ms_median": 1e3 * statistics.median(times),
                "ms_p95": 1e3 * percentile(times, 0.95),
                "speedup": speedup,
                "efficiency": speedup / row["ratio"],
                "peak_mb": peak_memory(one, clip) / 1e6,
                "device": device,
                "threads": threads,
                "batch": batch,
                "dtype": dtype,
                "runs": runs,
                "compile": compile,
                "choosing": None if compile else choosing_share(one, clip, threads, runs=1)["choose"],
            }
    return rows


def interleaved(
    passes: Sequence[Callable[[], Any]],
    runs: int,
    warmup: int = 1,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> list[list[float]]:
    """Seconds of each pass in each of `runs` rounds, one of each a round, in turn. Waits for the device each time."""
    seconds: list[list[float]] = [[] for _ in passes]
    for done in range(-warmup, runs):
        if progress is not None:
            progress(done + warmup, warmup + runs)
        for times, one in zip(seconds, passes, strict=True):
            elapsed = timed(one, device)
            if done >= 0:
                times.append(elapsed)
    if progress is not None:
        progress(warmup + runs, warmup + runs)
    return seconds


def timed(one: Callable[[], Any], device: torch.device | str = "cpu") -> float:
    """Wall-clock seconds of one call, until the device has finished it."""
    _wait(device)
    start = time.perf_counter()
    one()
    _wait(device)
    return time.perf_counter() - start


def peak_memory(model: nn.Module, clip: Tensor) -> int:
    """Bytes held at the worst moment of one pass: weights, clip, and the tensors in between, as torch allocates them.

    Not in it: the program itself, and what libraries set aside by themselves. So it means the same on every device.
    """
    own = {id(t): t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers(), clip]}
    fixed = sum(own.values())
    if clip.is_cuda:
        torch.cuda.synchronize(clip.device)
        before = torch.cuda.memory_allocated(clip.device)  # more than `fixed` if others are there too
        torch.cuda.reset_peak_memory_stats(clip.device)
        model(clip)
        torch.cuda.synchronize(clip.device)
        return fixed + torch.cuda.max_memory_allocated(clip.device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        model(clip)
    assert recorded.profiler is not None and recorded.profiler.kineto_results is not None
    changes = [e for e in recorded.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = accumulate(e.nbytes() for e in sorted(changes, key=lambda e: e.start_ns()))
    return fixed + max(held, default=0)


def choosing_share(model: nn.Module, clip: Tensor, threads: int = 1, *, runs: int = 3) -> dict[str, float]:
    """Shares of a forward pass, measured as marked ranges of a profile; the median of `runs` profiles.

    "choose": scores and ranking; "apply": gathering or merging the tokens. In time of the processor that runs Python:
    on a GPU that is the time to launch the work. `seconds` is that of the profiled pass.
    """
    results: dict[str, list[float]] = {name: [] for name in (*RANGES, "seconds")}
    with using_threads(threads), torch.inference_mode():
        for _ in range(1 + runs):  # the first profile of a process is slow: left out
            with profile(activities=[ProfilerActivity.CPU]) as recorded, record_function("tubelet.forward"):
                model(clip)
                _wait(clip.device)
            micro = {e.key: e.cpu_time_total for e in recorded.key_averages()}
            for name, marked in RANGES.items():
                results[name].append(micro.get(marked, 0.0) / micro["tubelet.forward"])
            results["seconds"].append(micro["tubelet.forward"] / 1e6)
    return {name: statistics.median(values[1:]) for name, values in results.items()}


def with_selection(model: VideoModel, select: str) -> VideoModel:
    """A copy with another selection that shares the weights of `model`: do not move it elsewhere, move `model`.

    Learned selectors that both have (`Plan.inherit`) begin with the same weights, others random.
    """
    tensors = [*model.parameters(), *model.buffers()]
    other = copy.deepcopy(model, {id(t): t for t in tensors})
    plan = build_plan(select, other.host()).eval().to(tensors[0].device, tensors[0].dtype)
    plan.inherit(model.plan)
    other.plan = plan
    return other


@contextmanager
def using_threads(threads: int) -> Iterator[None]:
    """That many threads within operations, for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed."""
    ordered = sorted(values)
    return next(v for i, v in enumerate(ordered, start=1) if i >= share * len(ordered) - 1e-9)


def _wait(device: torch.device | str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
