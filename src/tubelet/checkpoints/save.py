"""save_model: the project's own folder, which loads anywhere."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_bytes
from torch import Tensor

from tubelet.checkpoints import own
from tubelet.checkpoints.report import name_some
from tubelet.errors import CheckpointError
from tubelet.models.base import VideoModel

TYPES = (torch.float32, torch.float16, torch.bfloat16)


def save_model(
    model: VideoModel,
    folder: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    state: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write model.safetensors and config.json, through temporary files: a reader never meets half a file.

    Args:
        dtype: of the weights in the file. Half the size with torch.float16, at the cost of rounding; load_model gives
            float32 in any case.
        state: the weights, where they are not the model's own state dict (whole ones of a model in shards).

    The configuration also stands in the header of model.safetensors, so that the file alone is enough; a config.json
    of another save beside it is refused. Of config.json, `select`, `preprocessing`, `views`, `id2label` and `model` may
    be edited afterwards.

    Returns the folder. Raises CheckpointError if it is a file, or a weight is too large for the type.
    """
    folder = Path(folder)
    if dtype not in TYPES:
        raise CheckpointError(f"dtype={dtype}: one of {', '.join(map(str, TYPES))} is expected")
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder} is a file; a folder for model.safetensors and config.json is expected")
    tensors = {name: tensor.detach().cpu() for name, tensor in (state or model.state_dict()).items()}
    stored = {n: t.to(dtype).contiguous() if t.is_floating_point() else t.contiguous() for n, t in tensors.items()}
    if large := [name for name, tensor in stored.items() if (tensor.isinf() & ~tensors[name].isinf()).any()]:
        raise CheckpointError(f"weights are too large for {dtype}: {name_some(large)}")
    config = {**model.config.to_json(), "arguments": own.all_arguments(model.config)}
    config[own.ID] = _id_of(stored, config)
    # One entry only: safetensors writes several in an order that differs from run to run.
    header = {"tubelet": json.dumps(config, ensure_ascii=False, separators=(",", ":"))}
    folder.mkdir(parents=True, exist_ok=True)
    _write(
        folder,
        {
            "model.safetensors": to_bytes(stored, metadata=header),
            "config.json": (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode(),
        },
    )
    return folder


def _id_of(tensors: dict[str, Tensor], config: dict[str, Any]) -> str:
    """The same for the same content."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _write(folder: Path, files: dict[str, bytes]) -> None:
    """None of the files is replaced before all of them are written."""
    temporary = {name: folder / f".{name}.{os.getpid()}.tmp" for name in files}
    try:
        for name, content in files.items():
            with temporary[name].open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for name, path in temporary.items():
            os.replace(path, folder / name)
    finally:
        for path in temporary.values():
            path.unlink(missing_ok=True)
