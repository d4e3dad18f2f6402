"""Scenes: clips made on the fly whose truth is known, to judge where a selector looks.

One shape, the target, crosses a textured, slowly panning background for a few frames. The class is its direction and
its colour, so nothing but the target tells the class, and the truth is where its pixels are:

    frame       0  1  2  3  4  5  6  7  8  9 10 11 12 13 14 15
    distractor  .  .  #  #  #  #  #  #  #  #  .  .  .  .  .  .      stays where it is, but for a jitter
    target      .  .  .  .  .  .  .  o--o--o--o--o--o  .  .  .      2.0 to 2.8 pixels a frame, along one axis

Shapes (disc, square, diamond) are a nuisance. The target's mid-point has the same distribution for every class.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tubelet.errors import TubeletError

FRAMES, SIZE, CANVAS = 16, 64, 96
TUBELET = (2, 8, 8)
MEAN, STD = (0.45, 0.45, 0.45), (0.25, 0.25, 0.25)

DIRECTIONS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}  # (row, column) a frame
COLOURS = {"red": (0.90, 0.20, 0.20), "green": (0.20, 0.80, 0.20), "blue": (0.20, 0.30, 0.95)}
LABELS = [f"{colour} {direction}" for direction in DIRECTIONS for colour in COLOURS]
GREY = 0.45

Range = tuple[float, float]


@dataclass(frozen=True)
class SceneSettings:
    """What makes scenes easy or hard. Ranges are (least, greatest), lengths in pixels, times in frames.

    distractors:  how many;  moving: the share of them that drift along a diagonal, which is no class
    jitter:       standard deviation of a distractor's place, each frame
    radius, visible, speed, contrast:  of the target;  noise: standard deviation, each pixel
    pan:          the background's greatest speed along each axis
    """

    distractors: Range = (2, 2)
    moving: float = 0.0
    jitter: float = 0.3
    radius: Range = (5.0, 6.5)
    visible: Range = (6, 7)
    speed: Range = (2.0, 2.8)
    contrast: float = 1.0
    noise: float = 0.06
    pan: float = 0.4


LEVELS = {
    "easy": SceneSettings(distractors=(0, 0), radius=(8.0, 10.0), visible=(12, 14), speed=(2.0, 2.4), noise=0.03),
    "standard": SceneSettings(),
    "hard": SceneSettings(distractors=(3, 4), jitter=0.7, radius=(4.0, 5.0), visible=(5, 6), contrast=0.8, noise=0.08),
    # For tables that compare selectors: motion alone does not give the target away.
    "table": SceneSettings(distractors=(3, 4), moving=0.5, pan=1.2),
}


@dataclass(frozen=True)
class Scene:
    """frames: uint8 (T, 64, 64, 3);  target: bool (T, 64, 64), its pixels with alpha >= 0.5;  label: of `LABELS`."""

    frames: Tensor
    target: Tensor
    label: int

    def truth(self, tubelet: tuple[int, int, int] = TUBELET) -> Tensor:
        """bool (time, row, column): the tokens that hold a pixel of the target.

        Raises TubeletError if the tubelet does not divide T x 64 x 64; T is 16 as scenes are made.
        """
        if any(side < 1 or whole % side for whole, side in zip(self.target.shape, tubelet, strict=True)):
            raise TubeletError(f"tubelet {tubelet} does not divide a scene of {tuple(self.target.shape)}")
        t, h, w = tubelet
        return self.target.reshape(-1, t, SIZE // h, h, SIZE // w, w).amax(dim=(1, 3, 5))


def scene_settings(level: str = "standard", stage: float = 1.0) -> SceneSettings:
    """The settings of a level, or on the way there: stage 0 is "easy", 1 the level, between them linear.

    Raises TubeletError for an unknown level or a stage outside of 0 to 1.
    """
    if level not in LEVELS:
        raise TubeletError(f"unknown level of scenes {level!r}; allowed: {', '.join(LEVELS)}")
    if not 0 <= stage <= 1:
        raise TubeletError(f"the stage of scenes must be from 0 to 1, got {stage}")
    start, end = LEVELS["easy"], LEVELS[level]
    mixed: dict[str, Any] = {
        field.name: _mix(getattr(start, field.name), getattr(end, field.name), stage) for field in fields(end)
    }
    return SceneSettings(**mixed)


def curriculum_stage(progress: float) -> float:
    """The stage at a share of the training steps: 0 for the first 12 %, from 45 % on 1, between them linear."""
    return min(max((progress - 0.12) / (0.45 - 0.12), 0.0), 1.0)


def make_scene(seed: int, index: int, settings: SceneSettings = LEVELS["standard"], *, stream: int = 0) -> Scene:
    """The scene number `index`; the same for the same arguments, on every machine. Classes take turns.

    stream:  another sequence of scenes of the same seed (the splits of the data set)
    """
    rng = np.random.default_rng(np.random.SeedSequence((seed, stream, index)))
    label = index % len(LABELS)
    picture = _background(rng, settings.pan)  # (3, T, H, W)
    for _ in range(_whole(rng, *settings.distractors)):
        first, last, centres = _distractor(rng, settings)
        alpha = _shape(rng, centres, rng.uniform(4.0, 6.5))
        _paint(picture[:, first:last], alpha, list(COLOURS.values())[rng.integers(3)], 1.0)
    first, last, centres, radius = _target(rng, settings, list(DIRECTIONS.values())[label // len(COLOURS)])
    alpha = _shape(rng, centres, radius)
    _paint(picture[:, first:last], alpha, list(COLOURS.values())[label % len(COLOURS)], settings.contrast)
    picture += rng.standard_normal(picture.shape, dtype=np.float32) * np.float32(settings.noise)
    target = np.zeros(picture.shape[1:], dtype=bool)
    target[first:last] = alpha >= 0.5
    levels = np.clip(picture * np.float32(255) + np.float32(0.5), 0, 255).astype(np.uint8)
    return Scene(torch.from_numpy(levels.transpose(1, 2, 3, 0)).contiguous(), torch.from_numpy(target), label)


def _background(rng: np.random.Generator, pan: float) -> np.ndarray:
    """float32 (3, T, H, W): coarse colour and finer grey texture, interpolated bilinearly at the panned pixels."""
    speed, spare = rng.uniform(-pan, pan, 2), CANVAS - SIZE
    travel = speed * (FRAMES - 1)
    start = rng.uniform(np.maximum(0, -travel), spare - np.maximum(0, travel))  # so that it stays on the canvas
    places = start[:, None, None] + speed[:, None, None] * np.arange(FRAMES)[:, None] + np.arange(SIZE)  # (2, T, 64)
    picture = np.full((3, FRAMES, SIZE, SIZE), GREY, dtype=np.float32)
    for channels, points, strength in ((3, 7, 0.08), (1, 25, 0.056)):
        grid = rng.standard_normal((channels, 1, points, points), dtype=np.float32) * np.float32(strength)
        at = places * ((points - 1) / (CANVAS - 1))
        rows, columns = np.maximum(0, 1 - np.abs(at[..., None] - np.arange(points))).astype(np.float32)  # (T, 64, n)
        picture += rows @ grid @ columns.transpose(0, 2, 1)
    return picture


def _target(
    rng: np.random.Generator, settings: SceneSettings, direction: tuple[int, int]
) -> tuple[int, int, np.ndarray, float]:
    """First frame, end, centres (frames, 2) and radius. All but the direction is drawn without knowing it."""
    radius, speed = rng.uniform(*settings.radius), rng.uniform(*settings.speed)
    frames = int(rng.integers(round(settings.visible[0]), round(settings.visible[1]) + 1))
    first = int(rng.integers(0, FRAMES - frames + 1))
    margin = speed * (frames - 1) / 2 + 0.75 * radius
    middle = rng.uniform(margin, SIZE - 1 - margin, 2)
    steps = np.arange(frames) - (frames - 1) / 2
    return first, first + frames, middle + speed * steps[:, None] * np.array(direction), radius


def _distractor(rng: np.random.Generator, settings: SceneSettings) -> tuple[int, int, np.ndarray]:
    """First frame, end and centres (frames, 2)."""
    first, last = 0, FRAMES
    if rng.random() < 0.5:
        frames = int(rng.integers(5, 13))
        first = int(rng.integers(0, FRAMES - frames + 1))
        last = first + frames
    centres = rng.uniform(6, SIZE - 7, 2) + settings.jitter * rng.standard_normal((last - first, 2))
    if rng.random() < settings.moving:
        diagonal = rng.choice([-1, 1], 2) * rng.uniform(1.0, 1.8)
        centres += diagonal * (np.arange(last - first) - (last - first - 1) / 2)[:, None]
    return first, last, centres


def _shape(rng: np.random.Generator, centres: np.ndarray, radius: float) -> np.ndarray:
    """Centres (frames, 2) -> alpha, float32 (frames, 64, 64), of a disc, square or diamond of about the same area."""
    pixels = np.arange(SIZE, dtype=np.float32)
    offsets = np.abs(pixels - centres[:, :, None].astype(np.float32))  # (frames, 2, 64)
    rows, columns = offsets[:, 0, :, None], offsets[:, 1, None, :]
    kind = rng.integers(3)
    if kind == 0:
        inside = np.float32(radius) - np.sqrt(rows**2 + columns**2)
    elif kind == 1:
        inside = np.float32(0.89 * radius) - np.maximum(rows, columns)
    else:
        inside = (np.float32(1.25 * radius) - (rows + columns)) * np.float32(2**-0.5)
    return np.clip(inside + np.float32(0.5), 0, 1)


def _paint(picture: np.ndarray, alpha: np.ndarray, colour: tuple[float, float, float], contrast: float) -> None:
    """Draws over (3, frames, 64, 64) in place."""
    for plane, value in zip(picture, colour, strict=True):
        plane += alpha * (np.float32(GREY + contrast * (value - GREY)) - plane)


def _whole(rng: np.random.Generator, least: float, greatest: float) -> int:
    """A whole number from a range whose ends may be fractions: on average their middle."""
    low, high = (int(np.floor(end + rng.random())) for end in (least, greatest))
    return int(rng.integers(min(low, high), max(low, high) + 1))


def _mix(start: float | Range, end: float | Range, stage: float) -> float | Range:
    if isinstance(start, tuple) and isinstance(end, tuple):
        return (start[0] + (end[0] - start[0]) * stage, start[1] + (end[1] - start[1]) * stage)
    assert isinstance(start, (int, float)) and isinstance(end, (int, float))
    return start + (end - start) * stage
