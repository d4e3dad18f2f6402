"""What the perturbed top-k of STTS holds for the backward pass, beside the one-hot choices of the released code.

Prints JSON, a row a step: "held" and "held_full" in bytes (diagonal and full gradient), measured on the tensors that
autograd saves; "one_hot" those of samples x kept x candidates in float32; "factor" one_hot / held.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import torch
from torch import Tensor

from tubelet.selection.topk import SAMPLES, perturbed_top_k

# Of one batch of 16 clips on MViT-B (8 frames): rows, candidates, kept.
STEPS = {
    "T5@0": (16, 8, 5),
    "S13@4 in 5 frames": (16 * 5, 4, 1),
    "S40@0": (16 * 8, 9, 1),
    "S7@4, tokens without anchors": (16 * 8, 196, 49),
}


def held(rows: int, candidates: int, kept: int, *, full: bool) -> int:
    """Bytes that one call saves."""
    tensors: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        tensors.append(tensor)
        return tensor

    scores = torch.rand(rows, candidates, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        perturbed_top_k(scores, kept, 0.1, full=full)
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def measure() -> list[dict[str, Any]]:
    found = []
    for step, (rows, candidates, kept) in STEPS.items():
        one_hot = 4 * rows * SAMPLES * kept * candidates
        diagonal, full = (held(rows, candidates, kept, full=full) for full in (False, True))
        found.append(
            {"step": step, "rows": rows, "candidates": candidates, "kept": kept, "samples": SAMPLES}
            | {"held": diagonal, "held_full": full, "one_hot": one_hot, "factor": one_hot / diagonal}
        )
    return found


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.topk_memory", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seed", type=int, default=0)
    torch.manual_seed(parser.parse_args(words).seed)
    print(json.dumps(measure()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
