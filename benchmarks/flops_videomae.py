"""Multiply-adds of VideoMAE with STA and merging, beside those counted on the published implementations.

Prints JSON: rows of `tubelet flops --json` with "reference" (GMACs, None where there is none) and "difference" (share
of it). The references are rounded to 0.1, and hold matrix products and convolutions alone, except where said.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from tubelet.profiling import flops_table

R = (16, 32, 48, 64, 80, 96)
# STA's released implementation, 16 x 224 x 224, 400 classes: dense, then r = 16 ... 96.
# Two decimals: with layer norm, as fvcore counts it.
REFERENCE: dict[str, tuple[float, ...]] = {
    "videomae_small": (56.9, 49.1, 41.7, 35.0, 28.8, 23.1, 18.0),
    "videomae_base": (180.49, 157.8, 136.2, 115.86, 96.53, 78.2, 61.2),
    "videomae_large": (597.22, 520.1, 446.4, 376.10, 308.74, 244.4, 183.4),
    "videomae_huge": (1191.0, 1037.9, 890.2, 747.9, 611.1, 479.9, 354.1),
}
MERGED = {"videomae_large": 280.8}  # ToMe's matching spliced into each block, r = 65


def rows() -> list[dict[str, Any]]:
    found = []
    for model, dense_and_pruned in REFERENCE.items():
        selects = [f"sta:r={r}" for r in R]
        references = list(dense_and_pruned)
        if model in MERGED:
            selects.append("merge:r=65")
            references.append(MERGED[model])
        for row, reference in zip(flops_table(model, selects), references, strict=True):
            found.append({**row, "reference": reference, "difference": row["gmacs"] / reference - 1})
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flops_videomae", description=__doc__)
    parser.add_argument("--seed", type=int, help="of no effect: nothing is drawn")
    parser.parse_args()
    print(json.dumps(rows()))
