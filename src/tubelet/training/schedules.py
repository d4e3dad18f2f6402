"""The factor of the learning rate at each step. Pure functions; the position is in steps."""

from __future__ import annotations

import math

from tubelet.training.config import ScheduleSection


def factor(schedule: ScheduleSection, step: int, steps: int, per_epoch: int) -> float:
    """What the learning rate is multiplied by at `step` of `steps`, 0 for the first.

    warm-up   from `start` linearly to 1
    cosine    end + (1 - end) (1 + cos(pi t)) / 2, t from 0 after the warm-up to 1 at the end
    steps     gamma to the power of the milestones passed
    """
    warmup = schedule.warmup_steps if schedule.warmup_steps is not None else round(schedule.warmup * per_epoch)
    at = step if schedule.per == "step" else step // per_epoch * per_epoch
    if at < warmup:
        return schedule.start + (1 - schedule.start) * at / warmup
    if schedule.name == "constant":
        return 1.0
    if schedule.name == "steps":
        return schedule.gamma ** sum(at >= round(epoch * per_epoch) for epoch in schedule.milestones)
    share = (at - warmup) / max(steps - warmup, 1)
    return schedule.end + (1 - schedule.end) * (1 + math.cos(math.pi * share)) / 2
