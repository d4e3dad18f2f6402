"""Packs what examples/train_jhmdb.py left, and evaluates the packed weights from the video files, as users run them.

    python examples/evaluate_jhmdb.py pack --data DATA/jhmdb --run runs/jhmdb --views 1x3
    python examples/evaluate_jhmdb.py val --data DATA/jhmdb --views 1x1 1x3 --select none sta:r=8
    python examples/evaluate_jhmdb.py test --data DATA/jhmdb --views 1x3

`val` may be run as often as wanted: choose on it. `test` runs once: it refuses if the results hold a test already.
Everything is written to results/jhmdb_classifier.json.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import math
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jhmdb_clips import FRAMES, MEAN, SIZE, STD, STRIDE
from train_jhmdb import ARCHITECTURE

import tubelet
from tubelet.checkpoints.own import all_arguments
from tubelet.inference import classify
from tubelet.models.config import ModelConfig, Preprocessing

NAME = "videomae_tiny_jhmdb"


def pack(run: Path, weights: Path, data: Path, views: str, results: dict[str, Any]) -> dict[str, Any]:
    """Writes the folder that tubelet.load_model reads. Returns the results with what the training was."""
    weights.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(run / "best.safetensors", weights / "model.safetensors")
    config = ModelConfig(
        model=NAME,
        architecture="vit",
        arguments=ARCHITECTURE,
        position_grid=(FRAMES // 2, SIZE // 16, SIZE // 16),
        preprocessing=Preprocessing(FRAMES, STRIDE, SIZE, MEAN, STD, "dense"),
        views=counts(views),
        id2label=dict(enumerate((data / "classes.txt").read_text().split())),
    )
    config.arguments = all_arguments(config)
    (weights / "config.json").write_text(json.dumps(config.to_json(), indent=2) + "\n")
    settings = json.loads((run / "settings.json").read_text())
    log = [json.loads(line) for line in (run / "train.jsonl").read_text().splitlines()]
    tried = [line for line in log if "val_loss_raw" in line]
    training = {
        "command": settings.pop("command"),
        **stamp(),  # of the packing
        "settings": settings,
        "seconds": log[-1]["seconds"],
        "epochs": log[-1]["epoch"],
        "clips_seen": log[-1]["clips"],
        "chosen": json.loads((run / "best.json").read_text()),
        "candidates": [{k: v for k, v in line.items() if k == "epoch" or k.startswith("val")} for line in tried],
    }
    packed = {
        "sha256": hashlib.sha256((weights / "model.safetensors").read_bytes()).hexdigest(),
        "bytes": (weights / "model.safetensors").stat().st_size,
        "parameters": sum(p.numel() for p in tubelet.load_model(weights).parameters()),
        "views": views,
    }
    same = results.get("weights", {}).get("sha256") == packed["sha256"]  # other weights: the numbers do not hold
    return {**(results if same else {}), "training": training, "weights": packed}


def evaluate(weights: Path, data: Path, split: str, views: str, select: str) -> dict[str, Any]:
    """Accuracies over a split, each with an interval of 95 %."""
    model = tubelet.load_model(weights, select=select)
    began, ranks, losses, labels, sources, gmacs, warned = time.perf_counter(), [], [], [], [], 0.0, 0
    with open(data / f"{split}.csv", newline="") as file:
        for row in csv.DictReader(file):
            answer = classify(model, data / row["video"], views=counts(views), topk=21)
            names = [label.label for label in answer.labels]
            ranks.append(names.index(row["label"]))
            losses.append(-math.log(max(answer.labels[ranks[-1]].score, 1e-9)))
            labels.append(int(row["class_index"]))
            # Clips of one source video are alike; their names share what stands before the action.
            sources.append(Path(row["video"]).name.split(f"_{row['label']}_")[0])
            gmacs, warned = answer.gmacs, warned + bool(answer.warnings)
    rank, label = np.array(ranks), np.array(labels)
    right = int((rank == 0).sum())
    scores = figures(rank, label)
    spread = bootstrap(rank, label, np.array(sources))
    return {
        "split": split,
        "views": views,
        "select": select,
        "clips": len(rank),
        "right": right,
        "top1": scores[0],
        "top1_wilson_95": wilson(right, len(rank)),
        **{f"{name}_bootstrap_95": spread[i] for i, name in enumerate(("top1", "top5", "mean_class_accuracy"))},
        "top5": scores[1],
        "mean_class_accuracy": scores[2],
        "loss": round(float(np.mean(losses)), 4),
        "gmacs_per_view": round(gmacs, 3),
        "clips_with_missing_frames": warned,
        "per_class": {
            model.config.id2label[c]: f"{int((rank[label == c] == 0).sum())}/{int((label == c).sum())}"
            for c in np.unique(label).tolist()
        },
        "seconds": round(time.perf_counter() - began, 1),
        "date": stamp()["date"],
    }


def counts(views: str) -> tuple[int, int]:
    """ "1x3" -> 1 clip, 3 crops."""
    clips, crops = map(int, views.split("x"))
    return clips, crops


def figures(rank: np.ndarray, label: np.ndarray) -> list[float]:
    """top-1, top-5, mean over the classes of top-1."""
    classes = [(rank[label == c] == 0).mean() for c in np.unique(label)]
    return [round(float(v), 4) for v in ((rank == 0).mean(), (rank < 5).mean(), np.mean(classes))]


def wilson(right: int, total: int, z: float = 1.96) -> list[float]:
    """Interval of a share, as if clips were independent."""
    p, n = right / total, total
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return [round((middle - half) / (1 + z * z / n), 4), round((middle + half) / (1 + z * z / n), 4)]


def bootstrap(rank: np.ndarray, label: np.ndarray, source: np.ndarray, draws: int = 2000) -> list[list[float]]:
    """Percentile intervals over source videos, which are what is independent."""
    rng = np.random.default_rng(0)
    groups = [np.flatnonzero(source == s) for s in np.unique(source)]
    values = []
    for _ in range(draws):
        drawn = np.concatenate([groups[i] for i in rng.integers(0, len(groups), len(groups))])
        values.append(figures(rank[drawn], label[drawn]))
    return [[round(float(v), 4) for v in np.percentile(column, [2.5, 97.5])] for column in zip(*values, strict=True)]


def stamp() -> dict[str, Any]:
    """Where and when."""
    found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    return {
        "commit": found.stdout.strip() if found.returncode == 0 else None,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": {"cpu": cpu, "cores": os.cpu_count(), "torch": torch.__version__},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("pack", "val", "test"))
    parser.add_argument("--run", type=Path, default=Path("runs/jhmdb"))
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("TUBELET_DATA", "data")) / "jhmdb")
    parser.add_argument("--weights", type=Path, default=Path("src/tubelet/weights") / NAME)
    parser.add_argument("--results", type=Path, default=Path("results/jhmdb_classifier.json"))
    parser.add_argument("--views", nargs="+", default=["1x1"], metavar="CLIPSxCROPS")
    parser.add_argument("--select", nargs="+", default=["none"], metavar="SPEC")
    args = parser.parse_args()

    results = json.loads(args.results.read_text()) if args.results.exists() else {}
    command = "python examples/evaluate_jhmdb.py " + shlex.join(sys.argv[1:]).replace(str(args.data), "DATA/jhmdb")
    if args.what == "pack":
        results = pack(args.run, args.weights, args.data, args.views[0], results)
    elif args.what == "test" and "test" in results:
        sys.exit(f"{args.results} holds the test result of these weights already: it is taken once")
    elif args.what == "test":
        if len(args.views) * len(args.select) > 1:
            sys.exit("the test split takes one choice of views and selection: choose on val")
        results["test"] = {"command": command} | evaluate(
            args.weights, args.data, "split1_test", args.views[0], args.select[0]
        )
    else:
        for views in args.views:
            for select in args.select:
                row = {"command": command} | evaluate(args.weights, args.data, "split1_val", views, select)
                print(views, select, row["top1"], row["loss"], row["gmacs_per_view"], flush=True)
                results["val"] = [r for r in results.get("val", []) if (r["views"], r["select"]) != (views, select)]
                results["val"].append(row)
    args.results.parent.mkdir(exist_ok=True)
    args.results.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
