"""What a training tells: a line now and then, the same as jsonl, and curves for TensorBoard where it is installed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tubelet.training.saved import write_text, writing

LOG = "log.jsonl"


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
