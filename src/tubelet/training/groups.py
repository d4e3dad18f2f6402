"""Which parameters learn how fast, and which decay: by rule over their names and shapes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import nn

from tubelet.training.config import GroupsSection

# Where every model of the project has its scorers, and what is new where a backbone is fine-tuned.
SELECTOR, HEADS = "plan.", ("head.", "proposals.heads.", "context.")
NO_MATRICES = ("pos_embed", "cls_token", "temp_embed", "mask_token", "relative_position_bias_table")


@dataclass(frozen=True)
class Rule:
    """kind: selector, backbone or head;  scale: of the learning rate;  decays: by weight decay"""

    kind: str
    scale: float
    decays: bool


def rule_of(name: str, parameter: nn.Parameter, groups: GroupsSection, depth: int) -> Rule:
    kind = "selector" if name.startswith(SELECTOR) else "head" if name.startswith(HEADS) else "backbone"
    scale = getattr(groups, kind)
    if kind == "backbone":
        scale *= groups.layer_decay ** (depth + 1 - layer_of(name, depth))
    vector = parameter.ndim < 2 or any(part in name for part in NO_MATRICES)
    return Rule(kind, scale, groups.decay_norms in (True, kind) or not vector)


def layer_of(name: str, depth: int) -> int:
    """0 for the embedding, 1 to `depth` for the blocks, depth + 1 for what comes after (the norm before the head)."""
    if match := re.search(r"(?:^|\.)blocks\.(\d+)\.", name):
        return int(match[1]) + 1
    embedding = any(part in name for part in ("patch_embed", "pos_embed", "cls_token", "temp_embed", "mask_token"))
    return 0 if embedding else depth + 1


def parameter_groups(model: nn.Module, lr: float, weight_decay: float, groups: GroupsSection, depth: int) -> list[dict]:
    """Groups for an optimizer, one a rule. `base` is the learning rate that a schedule multiplies."""
    found: dict[Rule, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            found.setdefault(rule_of(name, parameter, groups, depth), []).append(parameter)
    return [
        {
            "params": parameters,
            "kind": rule.kind,
            "lr": lr * rule.scale,
            "base": lr * rule.scale,
            "weight_decay": weight_decay if rule.decays else 0.0,
        }
        for rule, parameters in found.items()
    ]
