"""What a selection keeps of a video, step by step: an animation (mp4, gif) or a sheet (png).

>>> visualize(model, "clip.mp4", "kept.mp4")
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tubelet.data import Clips, write_video
from tubelet.errors import TubeletError
from tubelet.inference import clips_for
from tubelet.models.base import VideoModel
from tubelet.selection.plan import Kept
from tubelet.visualize import draw

SUFFIXES = (".mp4", ".gif", ".png")
PANEL = 224  # pixels that the side of a panel has at least
PANELS_A_ROW = 4
SLOTS_A_SHEET = 8  # of more, that many evenly spaced ones are shown
FASTEST = 8.0  # frames a second, so that the eye can follow
SHORTEST = 6.0  # seconds of an mp4, which does not begin anew by itself as a gif does


@dataclass(frozen=True)
class Step:
    """One selection step: what of the input's tokens still stands after it."""

    name: str
    place: str
    block: int
    kept: int
    total: int
    mask: Tensor  # (t, h, w) bool
    merged: bool  # tokens that do not stand went into others
    scores: Tensor | None = None  # (t, h, w) from 0 to 1, of a learned scorer; NaN where no token entered

    @classmethod
    def of(cls, step: Kept) -> Step:
        mask = step.mask[0].cpu()
        merged = bool((step.owner[0].cpu() >= 0).sum() > mask.sum())
        scores = None if step.score_map is None else step.score_map[0].cpu()
        return cls(step.name, step.place, step.block, int(mask.sum()), mask.numel(), mask, merged, scores)

    @property
    def where(self) -> str:
        return f"{self.place} block {self.block}"

    @property
    def left(self) -> str:
        return f"{self.kept} of {self.total} ({100 * self.kept / self.total:.0f}%)"


@dataclass(frozen=True)
class Drawing:
    """What was drawn, and where it is."""

    video: str
    out: str
    model: str
    select: str
    steps: tuple[Step, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        shown = ("name", "place", "block", "kept", "total")
        steps = [{key: getattr(step, key) for key in shown} for step in self.steps]
        return {"video": self.video, "out": self.out, "model": self.model, "select": self.select, "steps": steps}


def visualize(
    model: VideoModel, path: str | Path, out: str | Path, *, name: str | None = None, backend: str = "auto"
) -> Drawing:
    """Draw which tokens of a video the model's selection keeps: bright as they are, dropped ones dim and grey.

    Beside each step of a learned selector stand the scores it chose by.

    Args:
        model: with a selection.
        path: the video; its middle clip, cropped as the model sees it, is drawn.
        out: a file .mp4 or .gif (the clip moves, a panel a step) or .png (a row a step, a column a slot of time).
        name: of the model, for the title.

    Raises TubeletError where nothing is dropped, or for another kind of file.
    """
    check_out(out)
    if os.path.exists(out) and os.path.exists(path) and os.path.samefile(out, path):
        raise TubeletError(f"cannot draw to {out}: it is the video itself")
    select = model.config.select
    clips = clips_for(model, path, backend=backend)
    steps = _trace(model, clips.tensor[:1])
    if not steps:
        raise TubeletError(f"nothing to show: selection {select!r} drops no token; give one such as sta:keep=0.5")
    title = (name or model.config.model, select)
    pictures = _large_frames(model, path, backend)
    if Path(out).suffix.lower() == ".png":
        write_video(out, contact_sheet(pictures, steps, title, clips.times[0]))
    else:
        fps = _speed(clips)
        repeats = max(1, round(SHORTEST * fps / len(pictures))) if Path(out).suffix.lower() == ".mp4" else 1
        write_video(out, animation(pictures, steps, title).repeat(repeats, 1, 1, 1), fps=fps)
    return Drawing(str(path), str(out), name or model.config.model, select, tuple(steps), clips.warnings)


def check_out(out: str | Path) -> None:
    """Raises TubeletError if nothing can be drawn to such a file; asked before the work."""
    out = Path(out)
    if out.suffix.lower() not in SUFFIXES:
        raise TubeletError(f"cannot draw to {out}: its name must end in one of {', '.join(SUFFIXES)}")
    if os.path.isdir(out):
        raise TubeletError(f"cannot draw to {out}: it is a folder")
    if not os.path.isdir(out.parent):
        raise TubeletError(f"cannot draw to {out}: no folder {out.parent}")
    if not os.access(out.parent, os.W_OK | os.X_OK):
        raise TubeletError(f"cannot draw to {out}: no permission to write in the folder {out.parent}")


def animation(frames: Tensor, steps: Sequence[Step], title: Sequence[str]) -> Tensor:
    """The input and a panel a step, side by side: uint8 (T, H, W, 3) -> (T, H', W', 3)."""
    grid = " x ".join(map(str, steps[0].mask.shape))
    panels = [draw.captioned(frames, ["input", f"grid {grid}", f"{steps[0].total} tokens"])]
    for step in steps:
        panels.append(draw.captioned(draw.shade(frames, step.mask), [step.name, step.where, step.left]))
        if step.scores is not None:
            panels.append(draw.captioned(draw.tint(frames, step.scores), ["scores", step.where, "dark 0, light 1"]))
    return _titled(draw.tile(panels, min(len(panels), PANELS_A_ROW)), steps, title)


def contact_sheet(frames: Tensor, steps: Sequence[Step], title: Sequence[str], times: Sequence[float]) -> Tensor:
    """A row a step, a column a slot of time: uint8 (T, H, W, 3) -> (1, H', W', 3)."""
    slots = len(steps[0].mask)
    columns = min(slots, SLOTS_A_SHEET)
    shown = [i * slots // columns * len(frames) // slots for i in range(columns)]  # the first frame of each slot
    clock = [draw.captioned(frames[i : i + 1, :0], [f"{times[i]:.2f} s"], first=draw.FAINT) for i in shown]
    rows = [draw.tile(clock, columns), _row(frames[shown], f"input: {steps[0].total} tokens")]
    for step in steps:
        if step.scores is not None:
            tinted = draw.tint(frames, step.scores)[shown]
            rows.append(_row(tinted, f"scores {step.where}: dark 0, light 1"))
        rows.append(_row(draw.shade(frames, step.mask)[shown], f"{step.name} {step.where}: {step.left}"))
    return _titled(torch.cat(rows, dim=1), steps, title)


def _row(frames: Tensor, caption: str) -> Tensor:
    """Frames (T, H, W, 3) beside each other, with a line above."""
    return draw.captioned(draw.tile(frames[:, None].unbind(), len(frames)), [caption], left=draw.MARGIN)


def _titled(frames: Tensor, steps: Sequence[Step], title: Sequence[str]) -> Tensor:
    dim = "merged into bright ones" if any(step.merged for step in steps) else "dropped"
    lines = draw.wrapped([*title, f"bright: kept, dim: {dim}"], frames.shape[2] - 2 * draw.MARGIN)
    picture = draw.captioned(frames, lines, left=draw.MARGIN)
    return torch.cat([draw.blank(len(frames), draw.MARGIN, frames.shape[2]), picture], dim=1)


@torch.inference_mode()
def _trace(model: VideoModel, clip: Tensor) -> list[Step]:
    record: list[Kept] = []
    model(clip.to(next(model.parameters()).device), record)
    return [Step.of(kept) for kept in record]


def _large_frames(model: VideoModel, path: str | Path, backend: str) -> Tensor:
    """The clip that the model sees, read once more with enough pixels: uint8 (T, H, W, 3)."""
    enlarge = -(-PANEL // min(model.size))
    clip = clips_for(model, path, backend=backend, enlarge=enlarge).tensor[0]  # (3, T, H, W), normalised
    p = model.config.preprocessing
    pixels = clip.permute(1, 2, 3, 0) * torch.tensor(p.std) + torch.tensor(p.mean)
    return (pixels * 255).round().clamp(0, 255).to(torch.uint8)


def _speed(clips: Clips) -> float:
    """Frames a second: as in the video, or as fast as can be followed."""
    times = clips.times[0]
    seconds = times[-1] - times[0]
    return min(FASTEST, (len(times) - 1) / seconds) if seconds > 0 else FASTEST
