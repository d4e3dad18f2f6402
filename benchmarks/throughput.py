"""Clips a second of a training, of its loader alone and of its steps alone; and which of the two bounds it.

    python -m benchmarks.throughput configs/scenes_vit.yaml configs/jhmdb_classifier.yaml

Prints JSON, a row a config: "loader", "steps" and "together" in clips a second, "loading" the share of the time that
the training waited for clips, "bound" the slower one. Nothing is saved.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from tubelet.data import Steps, train_loader
from tubelet.data.loader import clips_per_second
from tubelet.errors import TubeletError
from tubelet.training.config import read_config
from tubelet.training.distributed import Processes
from tubelet.training.run import Run


def measure(path: str, steps: int, overrides: dict[str, str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        given = {"steps": str(steps + 2), "out": folder, "val": "null", "tensorboard": "false", **overrides}
        config = read_config(path, given)
        if config.threads:
            torch.set_num_threads(config.threads)
        run = Run(config, Processes(), lambda sentence: None)

        def loader() -> Any:
            keys = Steps(len(run.data), config.batch, steps + 2, repeated=config.augment.repeated)
            return train_loader(run.data, keys, workers=config.workers)

        first = next(iter(loader()))  # fills the cache of decoded clips, if there is one, with its clips alone
        alone = clips_per_second(loader(), steps)
        for step in range(2):  # warm
            run.step(step, first)
        began = time.perf_counter()
        for step in range(2, steps + 2):
            run.step(step, first).item()
        by_steps = steps * config.batch / (time.perf_counter() - began)
        timed = loader()
        began, clips = time.perf_counter(), 0
        for step, batch in enumerate(timed):
            if step == 2:
                began, timed.waited = time.perf_counter(), 0.0
            run.step(step, batch).item()
            clips += len(batch) if step >= 2 else 0
        seconds = time.perf_counter() - began
    return {
        "config": Path(path).name,
        "batch": config.batch,
        "workers": config.workers,
        "threads": torch.get_num_threads(),
        "precision": config.precision,
        "loader": round(alone, 1),
        "steps": round(by_steps, 1),
        "together": round(clips / seconds, 1),
        "loading": round(timed.waited / seconds, 3),
        "bound": "loader" if alone < by_steps else "steps",
    }


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=__doc__.split("\n", 1)[0])
    parser.add_argument("configs", nargs="+", metavar="CONFIG.yaml")
    parser.add_argument("--steps", type=int, default=20, help="that are timed, after 2 to warm up")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a key of all configs")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(words)
    overrides = dict(pair.split("=", 1) for pair in args.set) | {"seed": str(args.seed)}
    try:
        print(json.dumps([measure(path, args.steps, overrides) for path in args.configs]))
    except TubeletError as error:
        print(f"throughput: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
