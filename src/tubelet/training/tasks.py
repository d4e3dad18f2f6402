"""What is learned: a loss of a batch, a judgement over a data set, and the model that is kept.

The loop knows no more of a training than this, so that every recipe is a task and a config.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tubelet.data.batches import Batch
from tubelet.data.datasets.keyframes import KeyframeBatch
from tubelet.data.datasets.tubes import Tube, Tubes
from tubelet.detection import scaled_boxes
from tubelet.errors import TubeletError
from tubelet.evaluation.people import Seen, detections_of
from tubelet.evaluation.tubes import EDGES, evaluate_frames
from tubelet.models.base import VideoModel
from tubelet.models.evad import EVAD
from tubelet.models.vit import ViT
from tubelet.training.config import TrainConfig
from tubelet.training.detection import Detect, Weights
from tubelet.training.mixing import mix, soft_targets
from tubelet.training.pretrain import MaskedAutoencoder
from tubelet.views import average_of, average_views

Normalisation = tuple[tuple[float, float, float], tuple[float, float, float]]


class Task(Protocol):
    module: nn.Module  # whose parameters are trained
    prefix: str  # in front of the names of the kept model's weights

    def loss(self, module: nn.Module, batch: Batch, rng: np.random.Generator) -> Tensor:
        """The mean over a batch. `module` is `self.module`, perhaps wrapped; `rng` is the step's own."""
        ...

    def judge(self, module: nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
        """Figures over a data set; "score" is the one by which the best weights are chosen, the higher the better, and
        "loss" decides between equal ones. Without a batch there are none.
        """
        ...


class Classify:
    """Cross-entropy with soft targets; judged by top-1 over the average of a clip's views."""

    prefix = ""

    def __init__(self, model: VideoModel, config: TrainConfig, normalisation: Normalisation) -> None:
        if not model.num_classes:
            raise TubeletError("task classify needs a classifier: num_classes=0 leaves it out")
        self.module: nn.Module = model
        self.classes, self.augment = model.num_classes, config.augment
        self.average = average_of(model.config)
        self.mean, self.std = normalisation
        self.device, self.half = torch.device(config.device), config.precision == "bf16"

    def loss(self, module: nn.Module, batch: Batch, rng: np.random.Generator) -> Tensor:
        clips = batch.input(self.mean, self.std, self.device)
        targets = soft_targets(batch.labels.to(self.device), self.classes, self.augment.label_smoothing)
        clips, targets = mix(clips, targets, self.augment, rng)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            logits = module(clips)
        return F.cross_entropy(logits.float(), targets)

    @torch.no_grad()
    def judge(self, module: nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
        clips = right = 0
        loss = 0.0
        for batch in batches:
            x = batch.input(self.mean, self.std, self.device)  # (B V, 3, T, H, W)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
                logits = module(x)
            scores = average_views(logits.view(len(batch), -1, self.classes), self.average)
            truth = scores.gather(1, batch.labels[:, None])
            loss -= truth.clamp(min=1e-9).log().sum().item()
            right += int((scores.argmax(dim=1) == batch.labels).sum())
            clips += len(batch)
        if not clips:
            return {}
        return {"score": right / clips, "top1": right / clips, "loss": loss / clips, "clips": clips}


class Pretrain:
    """Masked auto-encoding; judged by its loss, with the same tubes hidden each time."""

    prefix = "encoder."

    def __init__(self, model: VideoModel, config: TrainConfig, normalisation: Normalisation) -> None:
        if not isinstance(model, ViT) or model.cls_token is not None:
            raise TubeletError(
                f"task pretrain hides tubes of a ViT without class token; {config.model.name or 'this model'} is none"
            )
        given = config.pretrain
        self.module: nn.Module = MaskedAutoencoder(
            model, mask=given.mask, dim=given.decoder_dim, depth=given.decoder_depth, heads=given.decoder_heads,
            normalise=given.norm_pixels,
        )  # fmt: skip
        self.mean, self.std = normalisation
        self.device, self.half = torch.device(config.device), config.precision == "bf16"

    def loss(self, module: nn.Module, batch: Batch, rng: np.random.Generator) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            return module(batch.input(self.mean, self.std, self.device))

    @torch.no_grad()
    def judge(self, module: nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
        clips, loss = 0, 0.0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for batch in batches:
                loss += self.loss(module, batch, np.random.default_rng(0)).item() * len(batch)
                clips += len(batch)
        if not clips:
            return {}
        return {"score": -loss / clips, "loss": loss / clips, "clips": clips}


class DetectPeople:
    """A detector's losses over key frames (see detection.py); judged by frame-mAP at 0.5 on those of `val`."""

    prefix = ""

    def __init__(self, model: VideoModel, config: TrainConfig, normalisation: Normalisation) -> None:
        if not isinstance(model, EVAD):
            raise TubeletError(f"task detect trains a detector, such as evad_base; {model.config.model} is none")
        self.module: nn.Module = model
        given = config.detect
        weights = Weights(given.person, given.l1, given.giou, given.action, given.nobody)
        self.criterion = Detect(*normalisation, weights=weights, device=config.device)
        self.labels = [str(number) for number in range(model.num_classes)]
        self.device, self.half = torch.device(config.device), config.precision == "bf16"

    def loss(self, module: nn.Module, batch: Batch, rng: np.random.Generator) -> Tensor:
        assert isinstance(batch, KeyframeBatch)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            return self.criterion.loss(module, batch)[0]

    @torch.no_grad()
    def judge(self, module: nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
        """Each key frame is a video of one frame for `evaluate_frames`, in pixels of its clip."""
        loss, truth, rows = 0.0, Tubes(self.labels, None, {}), list[Seen]()
        for batch in batches:
            assert isinstance(batch, KeyframeBatch)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
                found = self.criterion.found(module, batch)
                loss += self.criterion.of(found, batch)[0].item() * len(batch)
            boxes = scaled_boxes(found, batch.sizes.tolist())
            for i, (people, actions) in enumerate(zip(batch.boxes, batch.actions, strict=True)):
                name = str(len(rows))
                said = (part[i, None].float().tolist() for part in (boxes, found.person_scores, found.action_scores))
                rows.append(Seen(batch.indices[i], name, batch.names[i], (0, 0), [batch.frames[i]], *said))
                truth.videos[name] = [
                    Tube(label, torch.zeros(1, dtype=torch.long), people[person, None])
                    for person, label in actions.nonzero().tolist()
                ]
        if not rows:
            return {}
        frame_map = evaluate_frames(truth, detections_of(rows), rules=EDGES, thresholds=[0.5]).at(0.5)
        frame_map = 0.0 if math.isnan(frame_map) else frame_map  # nobody is on any key frame
        return {"score": frame_map, "frame_map": frame_map, "loss": loss / len(rows), "clips": len(rows)}


TASKS: dict[str, Callable[[VideoModel, TrainConfig, Normalisation], Task]] = {
    "classify": Classify,
    "pretrain": Pretrain,
    "detect": DetectPeople,
}
