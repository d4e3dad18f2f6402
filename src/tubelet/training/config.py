"""What a training is, read from YAML: every key is known, typed and checked before anything is built.

    model: {name: videomae_small, dim: 128, depth: 4, heads: 2}   # other keys are arguments of the model
    data: {name: scenes, length: 36000}                           # other keys are options of the data set
    epochs: 1
    batch: 16
    optimizer: {name: adamw, lr: 1.5e-3}

A section that only needs its name may be that name alone: `data: scenes`. On the command line a key of a section is
written with a point: `--optimizer.lr 1e-4`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tubelet.errors import TubeletError, suggestion

ONLY_TRAINING = (
    "split",
    "length",
    "area",
    "zoom",
    "fresh",
    "curriculum",
    "seed",
)  # options of data that val does not take over

SELECTION = ("model.select", "select_until", "noise")
READ = {  # by each task, of the keys that not all of them read; a section alone is all of it
    "classify": ("augment", *SELECTION),
    "pretrain": ("pretrain", "augment.erasing", "augment.randaugment", "augment.colour", "augment.repeated"),
    "detect": ("detect", "augment.repeated", *SELECTION),
}
NOT_OF_DATA = {  # what data is opened with and where a config says it
    **dict.fromkeys(("frames", "size", "short"), "frames and size of a clip are arguments of the model"),
    **dict.fromkeys(("augment", "finish"), "augmentation is the section augment"),
    "train": "data is what is trained on, val what is judged on",
}


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_default=True)


class Named(Section):
    """A section with options that others know: the constructor of a model, the reader of a data set."""

    model_config = ConfigDict(extra="allow")
    name: str

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.__pydantic_extra__ or {})

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class ModelSection(Named):
    """The model that is trained; further keys are its arguments.

    name:    one of `tubelet models`; not needed with weights
    weights: a folder or file to start from (whatever load_model reads)
    head:    "new" begins the classifier anew, "stored" keeps it; by default new where the classes differ
    select:  a selection spec that training runs with
    """

    name: str = ""
    weights: Path | None = None
    head: Literal["new", "stored"] | None = None
    select: str | None = None

    @model_validator(mode="after")
    def _something_to_build(self) -> ModelSection:
        if not self.name and self.weights is None:
            raise ValueError("a name or weights must be given")
        return self


class DataSection(Named):
    """Clips; further keys are options of `tubelet.data.open_dataset` (split, root, stride, cache, length, ...).

    Frames and size of a clip are those of the model.
    """


class OptimizerSection(Section):
    """AdamW or SGD. `lr` is that of the whole batch; nothing is scaled behind your back."""

    name: Literal["adamw", "sgd"] = "adamw"
    lr: float = Field(default=1e-3, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = True
    weight_decay: float = Field(default=0.05, ge=0)


class GroupsSection(Section):
    """Rules over groups of parameters: selector (scorers of the plan), head (classifier; of a detector its proposal
    heads and its decoder), backbone (all else).

    selector, backbone, head: factors of the learning rate
    layer_decay: factor a block, from the last to the first (1: none)
    decay_norms: weight decay on norms, biases and other vectors too, and on positions and class tokens: of all groups
                 (true), of none (false), or of the one named, such as selector
    frozen:      epochs that a group does not learn at first, e.g. {backbone: 3}
    """

    selector: float = Field(default=1.0, ge=0)
    backbone: float = Field(default=1.0, ge=0)
    head: float = Field(default=1.0, ge=0)
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    decay_norms: bool | Literal["selector", "backbone", "head"] = False
    frozen: dict[Literal["selector", "backbone", "head"], float] = {}


class ScheduleSection(Section):
    """The learning rate over the training: linear warm-up, then cosine, constant, or steps down.

    warmup, milestones: in epochs (a fraction is allowed);  warmup_steps: instead of warmup, in steps
    start, end: the rate that warm-up begins with and that the cosine ends at, as shares of lr
    gamma:      factor at each milestone
    per:        "step", or "epoch": the rate changes between epochs only
    """

    name: Literal["cosine", "constant", "steps"] = "cosine"
    warmup: float = Field(default=0.0, ge=0)
    warmup_steps: int | None = Field(default=None, ge=0)
    start: float = Field(default=0.0, ge=0)
    end: float = Field(default=0.0, ge=0)
    milestones: tuple[float, ...] = ()
    gamma: float = Field(default=0.1, gt=0)
    per: Literal["step", "epoch"] = "step"


class AugmentSection(Section):
    """What happens to clips and targets. Random parts, mirroring and sampling are options of the data.

    mixup, cutmix: parameters of their beta distributions, 0 for none;  mix_share: of the batches that are mixed
    switch:    share of the mixed batches that are cut, where both are on
    erasing:   share of the clips with a box blotted out, the same in all frames
    randaugment: "n/m/std": n operations of strength m of 10 (its deviation std), e.g. "4/7/0.5"
    colour:    strength of brightness, contrast and saturation jitter
    repeated:  views of each clip in a batch
    """

    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    mixup: float = Field(default=0.0, ge=0)
    cutmix: float = Field(default=0.0, ge=0)
    mix_share: float = Field(default=1.0, ge=0, le=1)
    switch: float = Field(default=0.5, ge=0, le=1)
    erasing: float = Field(default=0.0, ge=0, le=1)
    randaugment: str = ""
    colour: float = Field(default=0.0, ge=0)
    repeated: int = Field(default=1, ge=1)


class PretrainSection(Section):
    """Masked auto-encoding (Tong et al., 2022): `mask` of the tubes hidden, a decoder of this size.

    norm_pixels: the target is each tubelet's pixels, normalised within the tubelet
    """

    mask: float = Field(default=0.9, gt=0, lt=1)
    decoder_dim: int = Field(default=192, ge=1)
    decoder_depth: int = Field(default=2, ge=1)
    decoder_heads: int = Field(default=3, ge=1)
    norm_pixels: bool = True


class DetectSection(Section):
    """Weights of a detector's losses, and of `nobody` among the proposals (Chen et al., 2023; ViT-L: action 6)."""

    person: float = Field(default=2.0, ge=0)
    l1: float = Field(default=5.0, ge=0)
    giou: float = Field(default=2.0, ge=0)
    action: float = Field(default=12.0, ge=0)
    nobody: float = Field(default=0.1, gt=0)


class TrainConfig(Section):
    """A whole training.

    task:      classify, pretrain (masked auto-encoding of a ViT; labels are not used), or detect (people and what they
               do on key frames; weights may be a detector's, or those of its backbone)
    val:       data to judge on while training; options that it does not name are those of `data`
    batch:     clips of an optimizer step, over all processes;  accumulate: parts it is computed in
    order:     of the clips of an epoch: random, or listed for data that is random already (of scenes every batch then
               has all classes, without which nothing is learnt)
    epochs or steps: how long;  clip: greatest norm of the gradient, 0 for no clipping
    ema:       decay of the moving average of the weights, 0 for none
    select_until: selections to train with up to a share of the steps, then model.select: {0.5: "random:keep=0.25@0"}
                drops three tokens of four in the first half, for a quarter of the cost
    noise:     of learned selectors: linear, to nothing at the end of the training, or constant
    precision: float32, or bf16 for autocast
    evaluate_every: epochs, 0 for the end alone;  save_every: steps;  log_every: steps
    parallel:  of several processes (torchrun): ddp, or fsdp for models larger than a device
    threads:   of torch, on a CPU; by default those of the machine
    """

    out: Path | None = None
    task: Literal["classify", "pretrain", "detect"] = "classify"
    model: ModelSection
    data: DataSection
    val: DataSection | None = None
    seed: int = Field(default=0, ge=0)
    epochs: float | None = Field(default=None, gt=0)
    steps: int | None = Field(default=None, ge=1)
    batch: int = Field(default=16, ge=1)
    order: Literal["random", "listed"] = "random"
    accumulate: int = Field(default=1, ge=1)
    optimizer: OptimizerSection = OptimizerSection()
    groups: GroupsSection = GroupsSection()
    schedule: ScheduleSection = ScheduleSection()
    augment: AugmentSection = AugmentSection()
    pretrain: PretrainSection = PretrainSection()
    detect: DetectSection = DetectSection()
    clip: float = Field(default=0.0, ge=0)
    ema: float = Field(default=0.0, ge=0, lt=1)
    select_until: dict[float, str] = {}
    noise: Literal["linear", "constant"] = "linear"
    precision: Literal["float32", "bf16"] = "float32"
    evaluate_every: float = Field(default=1.0, ge=0)
    save_every: int = Field(default=100, ge=1)
    log_every: int = Field(default=10, ge=1)
    workers: int = Field(default=0, ge=0)
    threads: int | None = Field(default=None, ge=1)
    device: str = "cpu"
    parallel: Literal["ddp", "fsdp"] = "ddp"
    tensorboard: bool = True
    strict: bool = False

    @model_validator(mode="before")
    @classmethod
    def _val_like_data(cls, value: Any) -> Any:
        """`val: {split: test}` has the name and the options of `data`, but for those of training alone."""
        if not isinstance(value, dict) or not isinstance(value.get("val"), dict) or "data" not in value:
            return value
        data = value["data"] if isinstance(value["data"], dict) else {"name": value["data"]}
        shared = {k: v for k, v in data.items() if k not in ONLY_TRAINING}
        own_name = value["val"].get("name", data.get("name")) != data.get("name")
        return {**value, "val": {**({} if own_name else shared), **value["val"]}}

    @model_validator(mode="after")
    def _one_length(self) -> TrainConfig:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("one of epochs and steps must be given, and not both")
        if unread := [key for key in self._given() if not {key, key.split(".")[0]} & set(READ[self.task])]:
            raise ValueError(
                f"{unread[0]}: task {self.task} does not read it; of the keys that not all tasks read it reads "
                f"{', '.join(READ[self.task])}"
            )
        if self.task == "detect" and self.accumulate > 1:
            raise ValueError(
                "accumulate: the losses of a detector are means over the people of a batch, not of its parts"
            )
        for section, name in ((self.data, "data"), (self.val, "val")):
            for option in section.options if section is not None else ():
                if option in NOT_OF_DATA:
                    raise ValueError(f"{name}.{option}: {NOT_OF_DATA[option]}")
        if any(not 0 < share < 1 for share in self.select_until):
            raise ValueError(
                f"select_until: shares of the steps from above 0 to below 1, got {list(self.select_until)}"
            )
        if self.batch % (self.accumulate * self.augment.repeated):
            raise ValueError(
                f"batch={self.batch} is not made of accumulate={self.accumulate} equal parts of whole groups of "
                f"augment.repeated={self.augment.repeated} views"
            )
        return self

    def _given(self) -> list[str]:
        """The keys of READ that were given another value than that by default."""
        given = [
            f"{name}.{key}"
            for name, section in (("augment", self.augment), ("pretrain", self.pretrain), ("detect", self.detect))
            for key, value in section
            if value != type(section).model_fields[key].default
        ]
        selects = self.model.select not in (None, "none"), bool(self.select_until), self.noise != "linear"
        return given + [key for key, is_given in zip(SELECTION, selects, strict=True) if is_given]


def read_config(path: str | Path, overrides: Mapping[str, str] | None = None) -> TrainConfig:
    """A config file with some keys set anew, `{"optimizer.lr": "1e-4"}`: values are read as YAML.

    Raises TubeletError with the key, the value and what is allowed.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise TubeletError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TubeletError(f"{path}: is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise TubeletError(f"{path}: holds a {type(content).__name__}; keys such as model, data and batch are expected")
    for key, value in (overrides or {}).items():
        _set(content, key, value)
    return make_config(content, str(path))


def make_config(content: Mapping[str, Any], where: str = "config") -> TrainConfig:
    """A config of what YAML holds. Raises TubeletError."""
    try:
        return TrainConfig.model_validate(dict(content))
    except ValidationError as error:
        raise TubeletError(f"{where}: {_sentence(error, content)}") from None


def as_yaml(config: TrainConfig) -> str:
    return yaml.safe_dump(config.model_dump(mode="json", exclude_none=True), sort_keys=False)


def _set(content: dict[str, Any], key: str, value: str) -> None:
    """`optimizer.lr` = "1e-4" in nested dictionaries; a section that is a name alone becomes one with a name."""
    *sections, last = key.split(".")
    at = content
    for section in sections:
        below = at.get(section)
        if not isinstance(below, dict):
            below = at[section] = {"name": below} if isinstance(below, str) else {}
        at = below
    try:
        read = yaml.safe_load(value)
    except yaml.YAMLError:
        read = value
    if isinstance(at.get(last), dict) and isinstance(read, str):
        at[last]["name"] = read
    else:
        at[last] = read
    if not sections:  # one length takes the place of the other
        for one, other in (("epochs", "steps"), ("steps", "epochs")):
            if key == one and at[key] is not None:
                content.pop(other, None)


def _sentence(error: ValidationError, content: Mapping[str, Any]) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = _known(first["loc"][:-1])
        return f"unknown key {key!r}; there are {', '.join(known)}{suggestion(str(first['loc'][-1]), known)}"
    if first["type"] == "missing":
        return f"key {key!r} is missing"
    message = first["msg"].removeprefix("Value error, ")
    if not key or first["type"] == "value_error":
        return f"{key}: {message}" if key else message
    return f"{key} is {first['input']!r}: {message[0].lower()}{message[1:]}"


def _known(sections: Sequence[int | str]) -> list[str]:
    model: type[BaseModel] = TrainConfig
    for section in sections:
        annotation = model.model_fields[str(section)].annotation
        model = next(t for t in (annotation, *getattr(annotation, "__args__", ())) if isinstance(t, type))
    return list(model.model_fields)
