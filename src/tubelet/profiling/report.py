"""What measured rows mean, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

WELL_SPENT = 0.95  # of the saving on paper arrives in time
SAME = 0.02  # differences of time below this share are noise


def remarks(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A sentence for each row of `bench` whose selection does not pay, or pays less than it saves on paper."""
    return [sentence for row in rows[1:] if (sentence := _remark(row, rows[0]))]


def _remark(row: dict[str, Any], dense: dict[str, Any]) -> str | None:
    speedup, ratio, select = row["speedup"], row["ratio"], row["select"]
    if row["tokens"] == dense["tokens"]:
        return f"{select} drops no token here: it is the dense model." if select != "none" else None
    if speedup >= 1 + SAME and row["efficiency"] >= WELL_SPENT:
        return None
    if speedup < 1 - SAME:
        verdict = f"{select} does not pay here: it takes {1 / speedup:.2f} x the dense model's time"
    elif speedup < 1 + SAME:
        verdict = f"{select} does not pay here: it takes as long as the dense model"
    else:
        verdict = f"{select} pays less than it saves: {speedup:.2f} x faster"
    return f"{verdict}, with {ratio:.2f} x fewer multiply-adds. {_reason(row, dense)}"


def _reason(row: dict[str, Any], dense: dict[str, Any]) -> str:
    choosing = row["choosing"] or 0.0
    if choosing > 0.05:
        return (
            f"Choosing tokens takes {100 * choosing:.0f} % of its time: too much for the {dense['tokens'][0]} tokens "
            f"there are to choose from; larger clips, or fewer steps, pay better."
        )
    if row["ratio"] < 1.1:
        return "It drops so few tokens that there is little to gain; dropping more pays better."
    if row["device"].startswith("cuda") and row["batch"] < 8:
        return f"A GPU is not filled by {row['batch']} clip(s) at a time; a larger batch pays better."
    return "What is left does not shrink with the tokens (reading weights, small operations), or the machine was busy."
