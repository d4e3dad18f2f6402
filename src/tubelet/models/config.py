"""All that is needed, beside the weights, to give the same answer elsewhere: the content of config.json."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from tubelet.errors import CheckpointError

FORMAT = 1


@dataclass
class Preprocessing:
    """From a video to what the model takes: which frames, how large, how normalised."""

    frames: int = 16
    stride: int = 4  # frames of the video from one frame of the clip to the next; for sampling="uniform" unused
    size: int | tuple[int, int] = 224  # side, or (height, width)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    sampling: str = "dense"  # a name of tubelet.data.sampling


@dataclass
class ModelConfig:
    """config.json of a saved model."""

    model: str  # the name it was made by, e.g. videomae_base
    architecture: str  # which builder: a key of tubelet.models.registry.ARCHITECTURES
    arguments: dict[str, Any] = field(default_factory=dict)
    select: str = "none"
    position_grid: tuple[int, int, int] | None = None  # grid of tokens that the weights' positions were made for
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    views: tuple[int, int] = (1, 1)  # clips x crops that are averaged
    id2label: dict[int, str] = field(default_factory=dict)
    released_options: dict[str, Any] = field(default_factory=dict)  # behaviour of released code that the weights need

    def to_json(self) -> dict[str, Any]:
        content = asdict(self)
        content["id2label"] = {str(k): v for k, v in self.id2label.items()}
        return {"format": FORMAT, **content}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> ModelConfig:
        """Raises CheckpointError on a format or a field that this version does not know."""
        content = dict(content)
        if content.pop("format", None) != FORMAT:
            raise CheckpointError(f"config.json is not of format {FORMAT}: it was not written by this version")
        known = set(cls.__dataclass_fields__)
        if unknown := set(content) - known:
            raise CheckpointError(f"config.json has unknown fields {sorted(unknown)}; known are {sorted(known)}")
        content["preprocessing"] = Preprocessing(**{k: _tuple(v) for k, v in content.get("preprocessing", {}).items()})
        content["arguments"] = {k: _tuple(v) for k, v in content.get("arguments", {}).items()}
        content["id2label"] = {int(k): v for k, v in content.get("id2label", {}).items()}
        for key in ("views", "position_grid"):
            if content.get(key) is not None:
                content[key] = tuple(content[key])
        return cls(**content)


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
