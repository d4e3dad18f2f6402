"""What every video model has beside its layers: the clip it is made for, its plan of selection, its config."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from tubelet.models.config import ModelConfig, Preprocessing
from tubelet.selection.core import Grid
from tubelet.selection.plan import Host, Kept, Plan


class VideoModel(nn.Module):
    """A backbone with a classifier. `model(clip, record)` gives logits; `record`, a list, takes what each step kept.

    A detector gives `Predictions` instead.
    """

    frames: int
    size: tuple[int, int]  # height, width
    grid: Grid  # of the tokens of a clip of frames x size
    position_grid: Grid | None = None  # that the weights' positions were made for, if there are any
    num_classes: int  # 0: features instead of logits
    head: nn.Module | None
    plan: Plan
    config: ModelConfig
    normalisation: ClassVar[dict[str, Any]] = {}  # mean and std, where they are not those of ImageNet
    report: object = None  # of the checkpoint it was loaded from: tubelet.checkpoints.Report

    def forward(self, clip: Tensor, record: list[Kept] | None = None) -> Any:
        raise NotImplementedError

    def grid_of(self, frames: int, height: int, width: int) -> Grid:
        """The grid of tokens of a clip; raises TubeletError if the tubelet does not divide it."""
        raise NotImplementedError

    def host(self) -> Host:
        """What a plan must know of this model."""
        raise NotImplementedError

    def preprocessing(self) -> Preprocessing:
        """What is made of a video by default: that of the architecture, at its size."""
        size = self.size[0] if self.size[0] == self.size[1] else self.size
        return Preprocessing(frames=self.frames, size=size, **self.normalisation)

    def set_plan(self, plan: Plan) -> None:
        """Use these selectors from now on. Raises SelectionError if they cannot be right on the declared clip."""
        plan.schedule(self.grid)
        weight = next(self.parameters())
        self.plan = plan.train(self.training).to(weight.device, weight.dtype)
        if hasattr(self, "config"):
            self.config.select = plan.spec

    def tokens_entering(self, grid: Grid | None = None) -> list[int]:
        """Tokens entering each block, class tokens included, before a drop inside it."""
        prefix = int(self.host().class_token)
        return [n + prefix for n in self.plan.schedule(grid or self.grid).entering]
