"""What a training tells: a line now and then, the same as jsonl, and curves for TensorBoard where it is installed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tubelet.training.distributed import Processes
from tubelet.training.saved import write_text, writing

LOG = "log.jsonl"


class Window:
    """Means of the loss and of the speed since the last line; the loss is taken from the device once a line."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.restart(0.0)

    def restart(self, waited: float) -> None:
        self.losses: list[Tensor] = []
        self.clips, self.began, self.waited = 0, time.monotonic(), waited

    def add(self, loss: Tensor, clips: int) -> None:
        self.losses.append(loss)
        self.clips += clips

    def row(self, step: int, epoch: float, rates: dict[str, float], where: Processes, waited: float) -> dict[str, Any]:
        """`waited`: seconds that the loader kept the loop waiting so far; the row has its share of the time."""
        loss = where.mean(torch.stack(self.losses).mean()).item()
        seconds = max(time.monotonic() - self.began, 1e-9)
        row = {
            "step": step,
            "epoch": round(epoch, 3),
            "loss": loss,
            **rates,
            "clips_per_s": round(self.clips / seconds, 2),
            "loading": round(min((waited - self.waited) / seconds, 1.0), 3),
        }
        self.restart(waited)
        return row


class Log:
    """`DIR/log.jsonl`, a JSON object a line with the step it belongs to; beside it `DIR/tensorboard`.

    A run that goes on at a step forgets the lines after it, which are made again. Raises WriteError on a full disk.
    """

    def __init__(self, folder: Path, step: int, *, tensorboard: bool, note: Callable[[str], None]) -> None:
        self.path, self.curves, self.note = folder / LOG, folder / "tensorboard", note
        if self.path.exists():
            write_text(self.path, "".join(f"{line}\n" for line in _whole_lines(self.path) if _step(line) <= step))
        self.writer: Any = None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter  # type: ignore[attr-defined]
            except ImportError:
                note("no curves for TensorBoard: pip install 'tubelet[train]' for them")
            else:
                with writing(self.curves):
                    self.writer = SummaryWriter(str(self.curves), purge_step=step + 1)

    def write(self, row: dict[str, Any]) -> None:
        with writing(self.path), self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        if self.writer is not None:
            kind = "val" if "weights" in row else "train"
            suffix = f"_{row['weights']}" if "weights" in row else ""
            with writing(self.curves):
                for name, value in row.items():
                    if isinstance(value, (int, float)) and name not in ("step", "epoch"):
                        self.writer.add_scalar(f"{kind}/{name}{suffix}", value, row["step"])

    def close(self) -> None:
        if self.writer is not None:
            with writing(self.curves):
                self.writer.close()


def read_log(folder: Path) -> list[dict[str, Any]]:
    """All whole lines."""
    path = folder / LOG
    return [json.loads(line) for line in _whole_lines(path)] if path.exists() else []


def _whole_lines(path: Path) -> list[str]:
    """Those that end: a killed run may have left half of one."""
    return [line.rstrip("\n") for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def _step(line: str) -> int:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return 2**62  # no line of ours: forgotten
