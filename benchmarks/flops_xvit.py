"""Multiply-adds of X-ViT over 4 to 64 frames, beside other ways to attend over a clip with the same ViT-B/16.

Prints JSON: {"rows": one a number of frames, GMACs of each way; "reference": the same rows without layer norm, counted
on the published implementations where they run, else by the formula; "cheaper_than_tubelets_from": frames from which
X-ViT costs less than joint attention with tubelets of 2 frames, which halve the tokens}.

    xvit        each frame by itself, keys and values mixed
    image_vit   the same ViT on each frame alone: nothing but its class token
    joint       all tokens of all frames attend to each other
    tubelets    the same with tubelets of 2 frames, as VideoMAE
    divided     attention over time, then over space, as TimeSformer (Bertasius et al., 2021); by formula
"""

from __future__ import annotations

import argparse
import json
from bisect import bisect_left
from functools import cache
from typing import Any

import torch

from tubelet.models.registry import create_model
from tubelet.profiling import count_flops

FRAMES = (4, 8, 16, 32, 64)
REFERENCE: dict[str, tuple[float, ...]] = {
    "xvit": (70.3, 140.6, 281.1, 562.3, 1124.5),
    "image_vit": (70.3, 140.5, 281.0, 562.0, 1124.1),
    "divided": (97.9, 195.8, 392.1, 785.9, 1579.2),
    "joint": (78.5, 179.6, 449.7, 1261.8, 3973.7),
    "tubelets": (36.6, 78.8, 180.3, 451.3, 1265.2),
}
IMAGE = {"tubelet_size": 1, "class_token": True, "pool": "first", "positions": "learned"}
SIDE, DIM, DEPTH, CLASSES = 14, 768, 12, 400


def row(frames: int) -> dict[str, Any]:
    return {
        "frames": frames,
        "xvit": gmacs("xvit_base", frames),
        "image_vit": frames * gmacs("videomae_base", 1, **IMAGE),
        "divided": divided(frames),
        "joint": gmacs("videomae_base", frames, tubelet_size=1),
        "tubelets": gmacs("videomae_base", frames),
    }


@cache
def gmacs(name: str, frames: int, **arguments: Any) -> float:
    with torch.device("meta"):
        return count_flops(create_model(name, frames=frames, **arguments)).gmacs


def divided(frames: int) -> float:
    """Time, then space, then MLP; the class token joins each frame in space. Layer norm 5 an element, as counted."""
    places = SIDE * SIDE
    patches, with_class = frames * places, frames * (places + 1)
    square = DIM * DIM
    time = patches * 5 * square + 2 * places * frames**2 * DIM  # qkv, proj and one more linear layer
    space = with_class * 4 * square + 2 * frames * (places + 1) ** 2 * DIM
    mlp = (patches + 1) * 8 * square
    norms = 5 * DIM * (patches + with_class + patches + 1)
    embed, last = patches * (3 * 16 * 16) * DIM, 5 * DIM * (patches + 1) + DIM * CLASSES
    return (embed + DEPTH * (time + space + mlp + norms) + last) / 1e9


def cheaper_from() -> int:
    """The least even number of frames at which X-ViT costs less than tubelets of 2 frames do."""
    evens = range(4, 66, 2)
    return evens[bisect_left(evens, True, key=lambda t: gmacs("xvit_base", t) < gmacs("videomae_base", t))]


def table() -> dict[str, Any]:
    reference = [
        {"frames": frames, **{name: counts[i] for name, counts in REFERENCE.items()}} for i, frames in enumerate(FRAMES)
    ]
    return {
        "rows": [row(frames) for frames in FRAMES],
        "reference": reference,
        "cheaper_than_tubelets_from": cheaper_from(),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flops_xvit", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seed", type=int, help="of no effect: nothing is drawn")
    parser.parse_args()
    print(json.dumps(table()))
