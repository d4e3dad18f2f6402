"""Trainings of a second: real code, a handful of parameters."""

import json

import torch
from safetensors.torch import load_file

from tubelet.training import train
from tubelet.training.config import make_config

MODEL = {"name": "videomae_small", "size": 64, "patch_size": 16, "dim": 16, "depth": 2, "heads": 2, "drop_path": 0.2}


def config(out, **changed):
    """12 steps of 4 scenes, with everything random switched on."""
    content = {
        "out": str(out),
        "model": MODEL,
        "data": {"name": "scenes_easy", "length": 24, "curriculum": False},
        "val": {"length": 6},
        "steps": 12,
        "batch": 4,
        "augment": {"mixup": 0.8, "cutmix": 1.0, "label_smoothing": 0.1},
        "schedule": {"warmup_steps": 2},
        "ema": 0.9,
        "clip": 1.0,
        "save_every": 1,
        "log_every": 2,
        "tensorboard": False,
        "threads": 1,
    }
    return make_config({**content, **changed})


def weights(folder):
    return load_file(folder / "model.safetensors")


def equal(one, other):
    """Bit for bit."""
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def log(folder):
    """The figures that do not depend on the clock."""
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    timed = ("clips_per_s", "loading", "seconds")
    return [{k: v for k, v in row.items() if k not in timed} for row in rows]


__all__ = ["MODEL", "config", "equal", "log", "train", "weights"]
