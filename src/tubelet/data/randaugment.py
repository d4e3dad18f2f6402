"""What changes the look of a training view after its random part is taken: RandAugment, colour jitter, erasing.

All frames of a view are treated alike. Frames are uint8 (T, H, W, 3).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tubelet.errors import TubeletError

GREY = 127.5  # what comes in from outside of the picture
LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Augment:
    """operations of strength `magnitude` +- `deviation` of 10, of which each is left out half of the time; jitter of
    colours; chance of an erased box.
    """

    operations: int = 0
    magnitude: float = 0.0
    deviation: float = 0.0
    colour: float = 0.0
    erasing: float = 0.0

    @classmethod
    def of(cls, randaugment: str, colour: float, erasing: float) -> Augment | None:
        """From "n/m/std" and the rest; None if nothing is asked for. Raises TubeletError for another form."""
        if not (randaugment or colour or erasing):
            return None
        match = re.fullmatch(r"(\d+)/(\d+(?:\.\d+)?)(?:/(\d+(?:\.\d+)?))?", randaugment or "0/0")
        if not match or float(match[2]) > 10:
            raise TubeletError(
                f"randaugment={randaugment!r}: operations/strength/deviation is expected, strength from 0 to 10, "
                f"such as 4/7/0.5"
            )
        return cls(int(match[1]), float(match[2]), float(match[3] or 0), colour, erasing)

    def __call__(self, frames: Tensor, rng: np.random.Generator) -> Tensor:
        x = frames.permute(0, 3, 1, 2)  # (T, 3, H, W)
        if self.colour:
            x = jitter(x, rng, self.colour)
        for name in rng.choice(list(OPERATIONS), self.operations):
            if rng.random() < 0.5:  # as in the implementation that the recipes were made with
                continue
            strength = min(max(rng.normal(self.magnitude, self.deviation) / 10, 0), 1)
            x = OPERATIONS[name](x, strength if rng.random() < 0.5 else -strength)
        if self.erasing and rng.random() < self.erasing:
            x = erase(x, rng)
        return x.permute(0, 2, 3, 1).contiguous()


def jitter(x: Tensor, rng: np.random.Generator, strength: float) -> Tensor:
    """Brightness, contrast and saturation, each by a factor from 1 - strength to 1 + strength, in random order."""
    for change in rng.permutation(np.array([brightness, contrast, saturation], dtype=object)):
        x = change(x, rng.uniform(max(0.0, 1 - strength), 1 + strength))
    return x


def erase(x: Tensor, rng: np.random.Generator, area: tuple[float, float] = (0.02, 1 / 3), ratio: float = 0.3) -> Tensor:
    """A box of 2 % to a third of the picture becomes noise (Zhong et al., 2020)."""
    height, width = x.shape[2:]
    pixels = rng.uniform(*area) * height * width
    shape = math.exp(rng.uniform(math.log(ratio), -math.log(ratio)))
    h, w = min(max(round(math.sqrt(pixels * shape)), 1), height), min(max(round(math.sqrt(pixels / shape)), 1), width)
    top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    x = x.clone()
    noise = torch.from_numpy(rng.integers(0, 256, (3, h, w), dtype=np.uint8))
    x[:, :, top : top + h, left : left + w] = noise
    return x


def brightness(x: Tensor, factor: float) -> Tensor:
    return _uint8(x.float() * factor)


def contrast(x: Tensor, factor: float) -> Tensor:
    mean = _grey(x).mean()
    return _uint8(mean + (x - mean) * factor)


def saturation(x: Tensor, factor: float) -> Tensor:
    grey = _grey(x)
    return _uint8(grey + (x - grey) * factor)


def sharpness(x: Tensor, factor: float) -> Tensor:
    """Between the picture and a smoothed one; the edge stays."""
    kernel = torch.tensor([[1.0, 1, 1], [1, 5, 1], [1, 1, 1]]).div_(13).expand(3, 1, 3, 3)
    smooth = x.float()
    smooth[..., 1:-1, 1:-1] = F.conv2d(x.float(), kernel, groups=3)
    return _uint8(smooth + (x - smooth) * factor)


def posterise(x: Tensor, bits: int) -> Tensor:
    return x & (256 - 2 ** (8 - bits))


def solarise(x: Tensor, threshold: float) -> Tensor:
    return torch.where(x.float() >= threshold, 255 - x, x)


def autocontrast(x: Tensor) -> Tensor:
    low, high = x.amin(dim=(0, 2, 3), keepdim=True).float(), x.amax(dim=(0, 2, 3), keepdim=True).float()
    return _uint8((x - low) * 255 / (high - low).clamp(min=1))


def equalise(x: Tensor) -> Tensor:
    """Each colour's histogram over all frames made flat."""
    planes = []
    for plane in x.unbind(1):
        counts = torch.bincount(plane.flatten(), minlength=256)
        total = counts.cumsum(0)
        first = counts[counts.nonzero()[0]]
        table = ((total - first) * 255 / (total[-1] - first).clamp(min=1)).round().clamp(0, 255).to(torch.uint8)
        planes.append(table[plane.long()])
    return torch.stack(planes, dim=1)


def moved(x: Tensor, matrix: tuple[tuple[float, float, float], tuple[float, float, float]]) -> Tensor:
    """Through an affine map of the picture, in shares of its half sides; grey comes in from outside."""
    theta = torch.tensor(matrix)[None].expand(len(x), -1, -1)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return _uint8(F.grid_sample(x.float() - GREY, grid, align_corners=False) + GREY)


def rotated(x: Tensor, degrees: float) -> Tensor:
    height, width = x.shape[2:]
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return moved(x, ((c, -s * height / width, 0), (s * width / height, c, 0)))


# Each takes the picture and a strength from -1 to 1; those without a direction use its size.
OPERATIONS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "autocontrast": lambda x, s: autocontrast(x),
    "equalise": lambda x, s: equalise(x),
    "rotate": lambda x, s: rotated(x, 30 * s),
    "posterise": lambda x, s: posterise(x, 8 - round(4 * abs(s))),
    "solarise": lambda x, s: solarise(x, 256 * (1 - abs(s))),
    "saturation": lambda x, s: saturation(x, 1 + 0.9 * s),
    "contrast": lambda x, s: contrast(x, 1 + 0.9 * s),
    "brightness": lambda x, s: brightness(x, 1 + 0.9 * s),
    "sharpness": lambda x, s: sharpness(x, 1 + 0.9 * s),
    "shear_x": lambda x, s: moved(x, ((1, 0.3 * s, 0), (0, 1, 0))),
    "shear_y": lambda x, s: moved(x, ((1, 0, 0), (0.3 * s, 1, 0))),
    "shift_x": lambda x, s: moved(x, ((1, 0, 0.9 * s), (0, 1, 0))),
    "shift_y": lambda x, s: moved(x, ((1, 0, 0), (0, 1, 0.9 * s))),
}


def _grey(x: Tensor) -> Tensor:
    return (x * torch.tensor(LUMA).view(3, 1, 1)).sum(dim=1, keepdim=True)


def _uint8(x: Tensor) -> Tensor:
    return x.round().clamp(0, 255).to(torch.uint8)
