"""Multiply-adds of STTS on MViT and VideoSwin: as the paper prints them, as its released code has them, and ours.

Prints JSON, a row a configuration: "label" (the paper's or the README's name), "select" (the counts that the released
configuration comes to), "paper" (GFLOPs as printed, None where there are none), "released" (counted by fvcore on the
released code), "gmacs" (ours), "padded" (ours with all that the released VideoSwin computes of padding; on MViT
there is none), "difference" (padded / released - 1). For a figure of the paper that the released computation cannot
have with this budget (more than 3 % off), "nearest" is the budget whose "padded" is nearest to it, with that and
"off", what is still between them as a share of the figure.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import torch

from tubelet.models.base import VideoModel
from tubelet.models.registry import create_model
from tubelet.models.video_swin import VideoSwin
from tubelet.profiling import count_flops
from tubelet.profiling.flops import selected

OFF = 0.03
# label, selection, printed, counted on the released code
Row = tuple[str, str, float | None, float | None]
MVIT: list[Row] = [
    ("dense", "none", 70.5, 70.80),
    ("T0_.9-S4_.9", "stts:T7@0-S13@4", 56.4, 56.39),
    ("T0_.8-S4_.9", "stts:T6@0-S13@4", 47.2, 47.21),
    ("T0_.6-S4_.9", "stts:T5@0-S13@4", 38.1, 38.46),
    ("T0_.5-S4_.7", "stts:T4@0-S12@4", 23.3, 26.95),
    ("T0_.4-S4_.6", "stts:T3@0-S11@4", 12.1, 18.46),
    ("T0_.6", "stts:T5@0", 41.3, 41.29),
    ("T4_.3", "stts:T2@4", 37.5, 37.49),
    ("S0_.5", "stts:S40@0", None, 33.45),
    ("S0_.6", "stts:S43@0", 31.2, 42.13),
    ("S4_.3", "stts:S7@4", 35.2, 38.36),
    ("T0_.8-S0_.7", "stts:T6@0-S46@0", 36.0, 35.35),
    ("T(0,4)_.9,.7-S(0,4)_.9,.7", "stts:T7@0-T4@4-S53@0-S10@4", 35.8, 32.35),
    ("T(4,8)_.6,.4-S(4,8)_.7,.7", "stts:T4@4-T1@8-S11@4-S9@8", 36.0, 33.15),
    ("T(0,4,8)_.9,.9,.7-S(0,4,8)_.9,.9,.8", "stts:T7@0-T6@4-T4@8-S53@0-S12@4-S11@8", 36.6, 38.22),
]
SWIN: list[Row] = [
    ("dense", "none", 281.6, 281.9),
    ("T0_.9", "stts:T14@0", 252.5, 261.5),
    ("T0_.8", "stts:T12@0", 223.4, 241.1),
    ("T0_.6", "stts:T10@0", 181.4, 220.7),
    ("T0_.5", "stts:T9@0", 121.6, 210.5),
    ("8 frames", "stts:T8@0", None, 141.3),
    ("T0_.4", "stts:T6@0", 91.4, 102.5),
]
SWIN_SSV2: list[Row] = [
    ("dense", "none", 320.0, 320.9),
    ("T0_.7", "stts:T12@0", 237.0, 226.2),
    ("T0_.6", "stts:T10@0", 190.0, 182.5),
]
# Budgets among which a nearer one is looked for.
NEAR = {
    "T0_.5-S4_.7": [f"stts:T{t}@0-S{s}@4" for t in (3, 4) for s in (9, 10, 11, 12, 13)] + ["stts:T3@0"],
    "T0_.4-S4_.6": [f"stts:T{t}@0-S{s}@4" for t in (2, 3) for s in (10, 11, 12)],
    "S0_.6": [f"stts:S{s}@0" for s in (36, 37, 38, 39, 40)],
    "S4_.3": [f"stts:S{s}@4" for s in (5, 6, 7)],
    "T(0,4)_.9,.7-S(0,4)_.9,.7": [f"stts:T7@0-T{t}@4-S53@0-S{s}@4" for t in (4, 5) for s in (10, 11)],
    "T(4,8)_.6,.4-S(4,8)_.7,.7": [f"stts:T{t}@4-T{u}@8-S11@4-S9@8" for t, u in ((5, 1), (5, 2), (4, 2))],
    "T(0,4,8)_.9,.9,.7-S(0,4,8)_.9,.9,.8": [f"stts:T7@0-T6@4-T4@8-S53@0-S12@4-S{s}@8" for s in (9, 10, 11)],
}
MODELS: dict[str, list[Row]] = {"mvit_base_16x4": MVIT, "videoswin_base": SWIN, "videoswin_base_ssv2": SWIN_SSV2}
SWIN_FRAMES = range(4, 17)


def rows() -> list[dict[str, Any]]:
    return [row for name, configurations in MODELS.items() for row in rows_of(Costs(name), configurations)]


def rows_of(costs: Costs, configurations: list[Row]) -> list[dict[str, Any]]:
    found = []
    for label, select, paper, released in configurations:
        gmacs, padded = costs.of(select)
        row: dict[str, Any] = {"model": costs.name, "label": label, "select": select, "paper": paper}
        row |= {"released": released, "gmacs": gmacs, "padded": padded}
        row["difference"] = None if released is None else padded / released - 1
        if paper is not None and abs(padded / paper - 1) > OFF:
            row["nearest"] = nearest(costs, label, paper)
        found.append(row)
    return found


class Costs:
    """(ours, with padding) GMACs of one model by selection, each counted once."""

    def __init__(self, name: str) -> None:
        self.name = name
        with torch.device("meta"):
            self.model: VideoModel = create_model(name)
        self.known: dict[str, tuple[float, float]] = {}
        self.attention: dict[str, float] = {}  # GMACs in attention, its linear layers included

    def of(self, select: str) -> tuple[float, float]:
        if select not in self.known:
            with selected(self.model, select):
                cost = count_flops(self.model)
            self.known[select] = cost.gmacs, cost.gmacs + self.padding(select, attention(cost.by_module))
            self.attention[select] = attention(cost.by_module)
        return self.known[select]

    def padding(self, select: str, ours: float) -> float:
        """What the released VideoSwin computes of padding: its windows attend as if the frames filled them."""
        if not isinstance(self.model, VideoSwin) or select == "none":
            return 0.0
        frames, window = self.model.grid.t, self.model.window_size[0]
        kept = int(select.removeprefix("stts:T").removesuffix("@0"))
        filled = -(-kept // window) * window
        if kept <= window or filled == kept:
            return 0.0
        whole = "none" if filled == frames else f"stts:T{filled}@0"
        self.of(whole)
        return self.attention[whole] - ours


def attention(by_module: dict[str, float]) -> float:
    return sum(gmacs for name, gmacs in by_module.items() if name.endswith(".attn"))


def nearest(costs: Costs, label: str, paper: float) -> dict[str, Any] | None:
    """The budget that costs what the paper says, as far as one does."""
    budgets = NEAR.get(label, [])
    if isinstance(costs.model, VideoSwin):
        budgets = [f"stts:T{t}@0" for t in SWIN_FRAMES if t < costs.model.grid.t]
    if not budgets:
        return None
    best = min(budgets, key=lambda select: abs(costs.of(select)[1] - paper))
    padded = costs.of(best)[1]
    return {"select": best, "padded": padded, "off": padded / paper - 1}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flops_stts", description=__doc__)
    parser.add_argument("--seed", type=int, help="of no effect: nothing is drawn")
    parser.parse_args()
    print(json.dumps(rows()))
