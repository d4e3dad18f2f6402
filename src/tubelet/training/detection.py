"""What a detector learns from: its proposals are matched with the people of the key frame, then each is judged.

Matching (Carion et al., 2020; Sun et al., 2021), one proposal for each person, of least total cost, for each head:

    cost = person (-p) + l1 |box - truth| + giou (-GIoU)        boxes as shares of the image's width and height

Losses, each averaged as said, times its weight; their sum is divided by their number, as published:

    ce    person or nobody, over all proposals, nobody counting 0.1 as much         of each head    weight 2 (`person`)
    bbox  |box - truth| summed, a person                                            of each head    weight 5 (`l1`)
    giou  1 - GIoU, a person                                                        of each head    weight 2 (`giou`)
    bce   binary cross-entropy of each action, over the proposals that the last     of each block
          head matched                                                              of the decoder  weight 12 (`action`)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from tubelet.data.datasets.keyframes import KeyframeBatch
from tubelet.errors import TubeletError
from tubelet.models.boxes import generalised_iou, whwh
from tubelet.models.evad import Predictions

PERSON, NOBODY = 0, 1  # classes of the person logits


@dataclass(frozen=True)
class Weights:
    """Of the losses; those of person, l1 and giou also weigh the cost of a match. Published ViT-L takes action=6."""

    person: float = 2.0
    l1: float = 5.0
    giou: float = 2.0
    action: float = 12.0
    nobody: float = 0.1

    def __post_init__(self) -> None:
        if not self.nobody > 0:  # else a batch without people would have no loss
            raise TubeletError(f"the weight of nobody must be above 0, got {self.nobody}")


class Target(NamedTuple):
    """The people of a key frame: boxes (n, 4) in pixels of the clip, actions (n, classes), 1 where done, else 0."""

    boxes: Tensor
    actions: Tensor


class Match(NamedTuple):
    """Proposal `found[i]` is person `target[i]`; int64 (matched,)."""

    found: Tensor
    target: Tensor


@dataclass(frozen=True)
class DetectionLoss:
    """Losses of a batch of predictions.

    loss, terms = DetectionLoss()(model(clips), targets)
    """

    weights: Weights = field(default_factory=Weights)

    def __call__(self, found: Predictions, targets: Sequence[Target]) -> tuple[Tensor, dict[str, Tensor]]:
        """The total, and each term before its weight, detached, by its published name: ce_0, ..., ce of the last."""
        matches = match(found, targets, self.weights)
        terms = losses(found, targets, matches, self.weights)
        return total(terms, self.weights), {name: term.detach() for name, term in terms.items()}


@torch.no_grad()
def match(found: Predictions, targets: Sequence[Target], weights: Weights) -> list[list[Match]]:
    """For each head, for each image: which proposals are which people. At most one each, whichever are fewer."""
    from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

    by_image = []
    for i, target in enumerate(targets):
        size = whwh(found.sizes)[i]
        person = found.person_logits[:, i].float().softmax(dim=-1)[..., PERSON, None]  # (heads, Q, 1)
        boxes, truth = (
            found.boxes[:, i, :, None].float(),
            target.boxes.to(found.boxes).float(),
        )  # (heads, Q, 1, 4), (n, 4)
        distance = ((boxes - truth) / size).abs().sum(dim=-1)  # (heads, Q, n)
        cost = -weights.person * person + weights.l1 * distance - weights.giou * generalised_iou(boxes, truth)
        # A model that has run away is for the loop to notice, by its loss.
        assigned = [linear_sum_assignment(one) for one in cost.nan_to_num(1e9, 1e9, -1e9).cpu().numpy()]
        by_image.append([Match(*(torch.as_tensor(part, device=boxes.device) for part in pair)) for pair in assigned])
    return [list(head) for head in zip(*by_image, strict=True)]


def losses(
    found: Predictions, targets: Sequence[Target], matches: Sequence[Sequence[Match]], weights: Weights
) -> dict[str, Tensor]:
    """Every term, before its weight."""
    people = people_per_process(sum(len(target.boxes) for target in targets), found.boxes.device)
    terms: dict[str, Tensor] = {}
    heads, blocks = len(found.boxes), len(found.action_logits)
    for head, of_head in enumerate(matches):
        suffix = "" if head == heads - 1 else f"_{head}"
        terms[f"ce{suffix}"] = person_loss(found.person_logits[head], of_head, weights.nobody)
        boxes, truth = matched_boxes(found.boxes[head], targets, of_head)
        image = torch.cat([whwh(found.sizes)[i].expand(len(one.found), -1) for i, one in enumerate(of_head)])
        terms[f"bbox{suffix}"] = ((boxes - truth) / image).abs().sum() / people
        terms[f"giou{suffix}"] = (1 - generalised_iou(boxes, truth)).sum() / people
    for block, logits in enumerate(found.action_logits):
        terms["bce" if block == blocks - 1 else f"bce_{block}"] = action_loss(logits, targets, matches[-1])
    return terms


def total(terms: Mapping[str, Tensor], weights: Weights) -> Tensor:
    """Weighted sum of the terms / their number."""
    weight = {"ce": weights.person, "bbox": weights.l1, "giou": weights.giou, "bce": weights.action}
    return torch.stack([weight[name.split("_")[0]] * term for name, term in terms.items()]).mean()


def person_loss(logits: Tensor, matches: Sequence[Match], nobody: float) -> Tensor:
    """Cross-entropy of logits (B, Q, 2): matched proposals are people, the others nobody."""
    classes = torch.full(logits.shape[:2], NOBODY, device=logits.device)
    for of_image, one in zip(classes, matches, strict=True):
        of_image[one.found] = PERSON
    return F.cross_entropy(logits.float().flatten(0, 1), classes.flatten(), logits.new_tensor([1.0, nobody]).float())


def matched_boxes(boxes: Tensor, targets: Sequence[Target], matches: Sequence[Match]) -> tuple[Tensor, Tensor]:
    """Boxes (B, Q, 4) -> those matched, and the true ones: (matched, 4) each."""
    ours = torch.cat([boxes[i, one.found] for i, one in enumerate(matches)])
    truth = torch.cat([target.boxes.to(ours)[one.target] for target, one in zip(targets, matches, strict=True)])
    return ours, truth


def action_loss(logits: Tensor, targets: Sequence[Target], matches: Sequence[Match]) -> Tensor:
    """Mean binary cross-entropy over the matched proposals and classes of logits (B, Q, classes); 0 without any."""
    ours = torch.cat([logits[i, one.found] for i, one in enumerate(matches)]).float()
    truth = torch.cat([target.actions.to(ours)[one.target] for target, one in zip(targets, matches, strict=True)])
    if not len(ours):
        return logits.sum() * 0.0  # no image has people: nothing to learn, and a gradient for every process
    return F.binary_cross_entropy_with_logits(ours, truth)


def people_per_process(count: int, device: torch.device) -> Tensor:
    """How many people the box losses are divided by: the mean over the processes of a training, at least 1."""
    people = torch.tensor(float(count), device=device)
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(people)
        people = people / dist.get_world_size()
    return people.clamp(min=1.0)


class Detect:
    """The loss of a batch of key frames, for a training loop."""

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], *, weights: Weights | None = None, device: str = "cpu"
    ) -> None:
        self.mean, self.std, self.device = mean, std, device
        self.criterion = DetectionLoss(weights or Weights())

    def loss(self, model: nn.Module, batch: KeyframeBatch) -> tuple[Tensor, dict[str, float]]:
        """The total, and each term before its weight."""
        return self.of(self.found(model, batch), batch)

    def found(self, model: nn.Module, batch: KeyframeBatch) -> Predictions:
        clips = batch.input(self.mean, self.std, self.device)  # (B, 3, T, H, W), padding 0
        return model(clips, None, batch.sizes.to(clips.device))

    def of(self, found: Predictions, batch: KeyframeBatch) -> tuple[Tensor, dict[str, float]]:
        """What `loss` gives, of predictions that are there."""
        targets = [Target(*pair) for pair in zip(batch.boxes, batch.actions, strict=True)]
        loss, terms = self.criterion(found, targets)
        return loss, {name: float(term) for name, term in terms.items()}
