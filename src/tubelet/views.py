"""From the answers for the views of a clip to one answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from tubelet.errors import TubeletError

if TYPE_CHECKING:
    from tubelet.models.config import ModelConfig

AVERAGES = ("probabilities", "logits")


def average_views(logits: Tensor, average: str = "probabilities") -> Tensor:
    """Logits of views (B, V, classes) -> probabilities (B, classes), float32 on the CPU.

    average: of the "probabilities" of the views; or of their "logits", whose order of classes is that of the sums of
    logits that the released X-ViT is tested with. A view that is surer then counts for more.

    Raises TubeletError for another name.
    """
    if average not in AVERAGES:
        raise TubeletError(f"average={average!r}: {' or '.join(map(repr, AVERAGES))}")
    logits = logits.float().cpu()
    if average == "logits":
        return logits.mean(dim=1).softmax(dim=-1)
    return logits.softmax(dim=-1).mean(dim=1)


def average_of(config: ModelConfig) -> str:
    """What a model's views are averaged by: that of the code its weights were released with, or probabilities."""
    return str(config.released_options.get("average", AVERAGES[0]))
