"""A training on disk: written aside and renamed, so that whatever happens one whole state is there.

DIR/checkpoint.pt       the whole state of the training at a step
DIR/config.yaml         what it was made of
DIR/log.jsonl           a line a few steps and a judgement
DIR/model.safetensors   the last weights, with config.json: a model that loads anywhere
DIR/best, DIR/ema       the weights that judged best; the average of the last ones
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from tubelet.errors import TubeletError, WriteError

CHECKPOINT, PART = "checkpoint.pt", ".part"


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Raises WriteError if the disk is full; the state before is then still there."""
    part = folder / f"{CHECKPOINT}{PART}"
    with writing(folder / CHECKPOINT):
        try:
            with part.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, folder / CHECKPOINT)
            _sync(folder)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def load_state(folder: Path) -> dict[str, Any] | None:
    """The last state, or None. Raises TubeletError if the file is not whole: it was not written by `save_state`."""
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the bytes lead to
        raise TubeletError(f"{path} cannot be read ({type(error).__name__}): remove it to begin anew") from None


def remove_halves(folder: Path) -> None:
    """What a run that was killed while it wrote has left, of its state and of models."""
    (folder / f"{CHECKPOINT}{PART}").unlink(missing_ok=True)
    for model in (folder, folder / "best", folder / "ema"):
        for path in model.glob(".*.tmp"):
            path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Raises WriteError."""
    part = path.with_name(path.name + PART)
    with writing(path):
        try:
            part.write_text(text)
            os.replace(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What goes wrong inside is a WriteError that names the file and the reason."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        failed: BaseException | None = error
        while failed is not None and not isinstance(failed, OSError):
            failed = failed.__context__  # torch.save says where its file should have been, after the disk has said no
        if failed is None:
            raise
        raise WriteError(f"{path} cannot be written ({failed.strerror or failed})") from error


def _sync(folder: Path) -> None:
    """So that the rename survives a power cut too, where folders can be synced."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
