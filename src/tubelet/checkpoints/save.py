"""save_model: the project's own folder, which loads anywhere."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from safetensors.torch import save as to_bytes

from tubelet.checkpoints.report import name_some
from tubelet.errors import CheckpointError
from tubelet.models.base import VideoModel

TYPES = (torch.float32, torch.float16, torch.bfloat16)


def save_model(model: VideoModel, folder: str | Path, *, dtype: torch.dtype = torch.float32) -> Path:
    """Write model.safetensors and config.json, through temporary files: a reader never meets half a file.

    Args:
        dtype: of the weights in the file. Half the size with torch.float16, at the cost of rounding; load_model gives
            float32 in any case.

    The configuration also stands in the header of model.safetensors, so that the file alone is enough.
    Returns the folder. Raises CheckpointError if it is a file, or a weight is too large for the type.
    """
    folder = Path(folder)
    if dtype not in TYPES:
        raise CheckpointError(f"dtype={dtype}: one of {', '.join(map(str, TYPES))} is expected")
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder} is a file; a folder for model.safetensors and config.json is expected")
    tensors = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    stored = {n: t.to(dtype).contiguous() if t.is_floating_point() else t.contiguous() for n, t in tensors.items()}
    if large := [name for name, tensor in stored.items() if (tensor.isinf() & ~tensors[name].isinf()).any()]:
        raise CheckpointError(f"weights are too large for {dtype}: {name_some(large)}")
    config = model.config.to_json()
    # One entry only: safetensors writes several in an order that differs from run to run.
    header = {"tubelet": json.dumps(config, ensure_ascii=False, separators=(",", ":"))}
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "model.safetensors", to_bytes(stored, metadata=header))
    _write(folder / "config.json", (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode())
    return folder


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
