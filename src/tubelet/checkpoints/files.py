"""Reading weights from files, without ever running code that a file brings along."""

from __future__ import annotations

import argparse
import json
import pickle
import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tubelet.checkpoints.report import name_some
from tubelet.errors import CheckpointError

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
# What else an unpickler may build: training code keeps its command line beside the weights.
ALLOWED_BY_NAME: list[Any] = [argparse.Namespace]


@dataclass
class Contents:
    """Tensors by the keys of the file; `unused` says of entries around them why they are not needed."""

    tensors: dict[str, Tensor]
    unused: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)  # of a .safetensors file


def read_file(path: Path) -> Contents:
    """The weights in a .safetensors file or a torch.save file; its kind is seen from its first bytes, not its name.

    Raises CheckpointError, one sentence: no weights, cut off, damaged, or in need of a pickle that may run code.
    """
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    start = head.lstrip()[:64].lower()
    if not head:
        raise CheckpointError(f"{path} is empty")
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path} is a git-lfs pointer, not the weights: fetch them with `git lfs pull`")
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise CheckpointError(f"{path} is a web page, not weights: the download went to a page that shows the file")
    if len(head) > 8 and head[8:9] == b"{":
        return _read_safetensors(path)
    if head.startswith((b"PK", b"\x80")):
        return unwrap(_read_torch(path, zipped=head.startswith(b"PK")), path)
    raise CheckpointError(f"{path} is neither a safetensors nor a torch.save file, or it is damaged")


def read_json(path: Path) -> dict[str, Any]:
    """Raises CheckpointError if the file does not hold a JSON object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, a JSON object is expected")
    return content


def _read_safetensors(path: Path) -> Contents:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}
            return Contents(tensors, metadata=file.metadata() or {})
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path} is a damaged or cut off safetensors file: {_first_line(error)}") from error


def _read_torch(path: Path, zipped: bool) -> Any:
    if zipped and not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path} is a damaged or cut off torch.save file: its end is missing")
    try:
        # the open file, since torch goes by the suffix of a name
        with path.open("rb") as file, torch.serialization.safe_globals(ALLOWED_BY_NAME):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if found := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise CheckpointError(
                f"{path} holds a pickled {found[1]}, and making one may run code of the file, which is refused: "
                "save the plain tensors, best as .safetensors"
            ) from error
        raise CheckpointError(f"{path} holds more than tensors, or is damaged: it is refused, not unpickled") from error
    except Exception as error:  # a damaged file ends the reader in many ways: RuntimeError, EOFError, KeyError, ...
        if "TorchScript" in str(error):
            raise CheckpointError(
                f"{path} is a TorchScript program, which is not run: save the state_dict() of the model it came from"
            ) from error
        raise CheckpointError(f"{path} is a damaged or cut off torch.save file: {_first_line(error)}") from error


# Where training code puts the weights, and what it puts beside them.
WRAPPERS = ("model", "module", "state_dict", "model_state", "model_state_dict")
BESIDE = {
    "the training's state": (
        "optimizer", "optimizer_state", "optimizer_states", "optimizer_state_dict", "lr_scaler", "scaler",
        "lr_scheduler", "lr_schedulers", "scheduler", "callbacks", "loops", "data_sampler", "random_ltd",
        "param_shapes", "frozen_param_shapes", "frozen_param_fragments", "shared_params",
    ),
    "averaged weights, of which the plain ones are taken": ("model_ema",),
}  # fmt: skip
REASONS = {name: reason for reason, names in BESIDE.items() for name in names}
# What wrapping classes put in front of every key: DistributedDataParallel, torch.compile, Lightning.
PREFIXES = ("module.", "_orig_mod.", "model.")


def unwrap(content: Any, path: Path | str) -> Contents:
    """The state dict in what a file holds, freed of the wrappers of training code.

    Raises CheckpointError if there is none, more than one, or anything with tensors whose use is not known.
    """
    unused: dict[str, str] = {}
    while isinstance(content, dict) and (found := [w for w in WRAPPERS if isinstance(content.get(w), dict)]):
        if len(found) > 1:
            raise CheckpointError(f"{path} holds weights under {' and '.join(found)}: keep one of them")
        unused.update((str(name), _why_unused(name, content[name], path)) for name in content if name != found[0])
        content = content[found[0]]
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a dictionary of weights")
    if not any(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"{path} holds no weights; its entries are {name_some(map(str, content)) or 'none'}")
    if others := [str(k) for k, value in content.items() if not (isinstance(k, str) and isinstance(value, Tensor))]:
        raise CheckpointError(f"{path} holds things that are no tensors among the weights: {name_some(others)}")
    if empty := [k for k, tensor in content.items() if tensor.layout is not torch.strided or tensor.is_meta]:
        raise CheckpointError(f"{path} holds sparse tensors, or such without values: {name_some(empty)}")
    while prefix := next((p for p in PREFIXES if all(key.startswith(p) for key in content)), None):
        content = {key.removeprefix(prefix): value for key, value in content.items()}
    return Contents(content, unused)


def _why_unused(name: Any, value: Any, path: Path | str) -> str:
    if name in REASONS:
        return REASONS[name]
    if not _holds_tensors(value):
        return "beside the weights, holds no more than settings and single numbers"
    raise CheckpointError(f"{path} holds tensors under {name!r} beside the weights, and their use is not known")


def _holds_tensors(value: Any) -> bool:
    if isinstance(value, argparse.Namespace):
        value = vars(value)
    if isinstance(value, dict):
        return any(_holds_tensors(item) for item in value.values())
    if isinstance(value, (list, tuple, set)):
        return any(_holds_tensors(item) for item in value)
    return isinstance(value, Tensor) and value.dim() > 0  # a tensor of one number is a loss or a counter


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
