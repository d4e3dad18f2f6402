"""Pictures of the tokens kept, as pure functions of frames and masks. Frames are uint8 (T, H, W, 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tubelet.visualize import font

Colour = tuple[int, int, int]

BACKGROUND = (17, 20, 26)
TEXT = (235, 238, 242)
FAINT = (150, 158, 170)
DROPPED = 0.28  # brightness that a dropped token keeps; its colours go to grey
LINE = 0.85  # brightness of the lines between cells
EDGE = 0.3  # how far the lines around what is kept are on the way to white,
SMALL = 8  # and where cells have fewer pixels than this: no lines between cells then,
CLEAR_EDGE = 0.85  # and clear ones around what is kept
SCALE = ((40, 15, 80), (140, 40, 110), (225, 90, 75), (250, 170, 70), (252, 250, 190))  # of scores, from 0 to 1
TINT = 0.75  # how far a pixel is on the way to the colour of its score
MARGIN = 8
TEXT_SCALE = 2
LINE_HEIGHT = font.HEIGHT * TEXT_SCALE + 6


def shade(frames: Tensor, mask: Tensor) -> Tensor:
    """Kept tokens as they are, dropped ones dim and grey; thin lines between cells, light around what is kept.

    frames: (T, H, W, 3); mask: (t, h, w) of tokens, T, H and W being multiples of it.
    """
    kept = _enlarged(mask, frames.shape[:3])[..., None]  # (T, H, W, 1)
    colours = frames.float()
    grey = colours @ torch.tensor([0.299, 0.587, 0.114])
    dim = DROPPED * grey[..., None] + (1 - DROPPED) * 0.6 * torch.tensor(BACKGROUND)
    shaded = torch.where(kept, colours, dim)
    for axis, cells in ((1, mask.shape[1]), (2, mask.shape[2])):
        length = frames.shape[axis]
        lines = torch.arange(0, length, length // cells)[1:]
        pixels = shaded.index_select(axis, lines)
        ends = kept.index_select(axis, lines) != kept.index_select(axis, lines - 1)
        edge, line = (CLEAR_EDGE, 1.0) if length // cells < SMALL else (EDGE, LINE)
        shaded.index_copy_(axis, lines, torch.where(ends, pixels + edge * (255 - pixels), line * pixels))
    return shaded.round().to(torch.uint8)


def tint(frames: Tensor, scores: Tensor) -> Tensor:
    """Frames in grey, coloured by scores from 0 (dark) to 1 (light); where there is none (NaN), dim.

    frames: (T, H, W, 3); scores: (t, h, w), T, H and W being multiples of it.
    """
    values = _enlarged(scores.float(), frames.shape[:3])[..., None]  # (T, H, W, 1)
    scale = torch.tensor(SCALE, dtype=torch.float32)
    place = values.nan_to_num().clamp(0, 1) * (len(scale) - 1)
    low = place.floor().clamp(max=len(scale) - 2)
    colour = torch.lerp(scale[low.long()[..., 0]], scale[low.long()[..., 0] + 1], place - low)
    grey = (frames.float() @ torch.tensor([0.299, 0.587, 0.114]))[..., None]
    dim = DROPPED * grey + (1 - DROPPED) * 0.6 * torch.tensor(BACKGROUND)
    return torch.where(values.isnan(), dim, TINT * colour + (1 - TINT) * grey).round().to(torch.uint8)


def captioned(frames: Tensor, lines: Sequence[str], left: int = 0, first: Colour = TEXT) -> Tensor:
    """Frames with lines of text above, the first in its own colour: (T, H + lines, W, 3)."""
    above = blank(len(frames), len(lines) * LINE_HEIGHT, frames.shape[2])
    for i, line in enumerate(lines):
        write(above, line, left, i * LINE_HEIGHT + 2, FAINT if i else first)
    return torch.cat([above, frames], dim=1)


def wrapped(parts: Sequence[str], width: int) -> list[str]:
    """As many parts a line as fit into `width` pixels."""
    lines = [parts[0]]
    for part in parts[1:]:
        longer = f"{lines[-1]}   {part}"
        if font.text(longer, TEXT_SCALE).shape[1] <= width:
            lines[-1] = longer
        else:
            lines.append(part)
    return lines


def write(frames: Tensor, line: str, left: int, top: int, colour: Colour) -> None:
    """A line of text, in place, on all frames; what does not fit is cut."""
    dots = font.text(line, TEXT_SCALE)[: frames.shape[1] - top, : frames.shape[2] - left]
    frames[:, top : top + dots.shape[0], left : left + dots.shape[1]][:, dots] = torch.tensor(colour, dtype=torch.uint8)


def tile(pictures: Sequence[Tensor], columns: int) -> Tensor:
    """(T, H, W, 3) each -> all of them in rows of `columns`, on the background, with a margin around each."""
    count, height, width = pictures[0].shape[:3]
    rows = -(-len(pictures) // columns)
    canvas = blank(count, rows * (height + MARGIN) + MARGIN, columns * (width + MARGIN) + MARGIN)
    for i, picture in enumerate(pictures):
        top = MARGIN + i // columns * (height + MARGIN)
        left = MARGIN + i % columns * (width + MARGIN)
        canvas[:, top : top + height, left : left + width] = picture
    return canvas


def blank(count: int, height: int, width: int) -> Tensor:
    return torch.tensor(BACKGROUND, dtype=torch.uint8).expand(count, height, width, 3).clone()


def _enlarged(mask: Tensor, size: Sequence[int]) -> Tensor:
    """(t, h, w) -> (T, H, W) by repeating."""
    for axis, length in enumerate(size):
        assert length % mask.shape[axis] == 0, (tuple(mask.shape), tuple(size))
        mask = mask.repeat_interleave(length // mask.shape[axis], axis)
    return mask
