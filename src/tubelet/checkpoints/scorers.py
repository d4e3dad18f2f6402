"""Scorers in the files of STTS, of MViT and VideoSwin alike: numbered by the order in which they act.

The file does not say which steps they belong to: before which block, and how much each keeps. The selection does.
"""

from __future__ import annotations

from tubelet.checkpoints.layout import Rename, Weights
from tubelet.errors import CheckpointError
from tubelet.models.base import VideoModel
from tubelet.selection.stts import STTS

UNPLACED = "scorers.{any}"  # until a selection says where they belong
PREDICTORS = {"T": "time_score_predictor", "S": "space_score_predictor"}
WORDS = {"T": "frames", "S": "regions"}


def renames(prefix: str = "") -> tuple[Rename, ...]:
    """For the table of a layout."""
    return tuple(
        Rename(f"{prefix}{name}.{{i}}.{{any}}", f"scorers.{kind}.{{i}}.{{any}}") for kind, name in PREDICTORS.items()
    )


def place(weights: Weights, model: VideoModel, select: str | None, source: str) -> None:
    """Give the scorers of a file the names of the selectors in the model's plan, first to first, and mark them trained.

    Raises CheckpointError, one sentence, if no selection was given, or one with other steps than the file has scorers.
    """
    held = {kind: _numbers(weights, kind) for kind in WORDS}
    if not any(held.values()):
        return
    found = " and ".join(f"{len(numbers)} of {WORDS[kind]}" for kind, numbers in held.items() if numbers)
    if select is None:
        raise CheckpointError(
            f"{source} holds STTS's scorers ({found}), but not what they keep and where: give the selection they were "
            'trained with, such as select="stts:T5@0-S13@4" (--select), or "none" for the dense model'
        )
    steps = [(key, selector) for key, selector in model.plan.selectors.items() if isinstance(selector, STTS)]
    if not steps:
        weights.drop(UNPLACED, f"a scorer of STTS; select={select!r} was asked for")
        return
    for kind, numbers in held.items():
        wanted = [(key, selector) for key, selector in steps if selector.budget.kind == kind]
        if numbers != list(range(len(wanted))):
            names = ", ".join(f"{PREDICTORS[kind]}.{n}" for n in numbers) or f"no {PREDICTORS[kind]}"
            raise CheckpointError(
                f"{source} holds {names}, and select={select!r} has {len(wanted)} steps for {WORDS[kind]}: they are "
                "numbered from 0 in the order of the blocks, and each needs its step"
            )
        for j, (key, selector) in enumerate(wanted):
            begin = f"scorers.{kind}.{j}."
            if lost := [weights.key_of(begin + name) for name in selector.state_dict() if begin + name not in weights]:
                raise CheckpointError(f"the weights of {source} lack {', '.join(lost)}")
            for name in [name for name in weights.pieces if name.startswith(begin)]:
                weights.pieces[f"plan.selectors.{key}.{name.removeprefix(begin)}"] = weights.pieces.pop(name)
    model.config.trained_selectors = [key for key, _ in steps]


def _numbers(weights: Weights, kind: str) -> list[int]:
    begin = f"scorers.{kind}."
    return sorted({int(name.removeprefix(begin).split(".")[0]) for name in weights.pieces if name.startswith(begin)})
