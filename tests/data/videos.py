"""Videos that the tests render: every frame shows its own number in a bar code that survives lossy coding."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import torch
from torch import Tensor

BITS = 16


def frame_with_number(number: int, height: int, width: int) -> Tensor:
    """uint8 (H, W, 3): 16 vertical bars, white where the bit of `number` is set, and a red corner at the top left."""
    bars = torch.tensor([255 if number >> bit & 1 else 0 for bit in range(BITS)], dtype=torch.uint8)
    row = bars.repeat_interleave(-(-width // BITS))[:width]
    frame = row.view(1, width, 1).expand(height, width, 3).clone()
    frame[: height // 4, : width // 4] = torch.tensor([200, 30, 30], dtype=torch.uint8)
    return frame


def number_of(frame: Tensor) -> int:
    """The number that a frame (H, W, 3) shows."""
    step = -(-frame.shape[1] // BITS)
    row = frame[-frame.shape[0] // 4 :].float().mean(dim=(0, 2))
    return sum(int(row[bit * step : (bit + 1) * step].mean() > 127) << bit for bit in range(BITS))


def render_video(
    path: Path,
    count: int,
    *,
    codec: str = "libx264",
    size: tuple[int, int] = (48, 96),
    rate: int = 25,
    stamps: Sequence[int] | None = None,
    pixel_format: str = "yuv420p",
    options: dict[str, str] | None = None,
    tags: dict[str, int] | None = None,
    faststart: bool = False,
) -> Path:
    """Writes `count` numbered frames.

    stamps:     their times in 1/`rate` seconds where the rate varies
    tags:       colorspace and color_range of the stream; the pixels are made to match
    faststart:  the index of an mp4 stands at its beginning
    """
    tags = tags or {}
    conversion = {"dst_colorspace": tags.get("colorspace", 5), "dst_color_range": tags.get("color_range", 1)}
    with av.open(str(path), "w", options={"movflags": "faststart"} if faststart else {}) as container:
        stream: Any = container.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width = size
        stream.pix_fmt = pixel_format
        stream.codec_context.time_base = Fraction(1, rate)
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(frame_with_number(number, *size).numpy(), format="rgb24")
            frame = frame.reformat(format=pixel_format, **conversion)
            frame.pts = number if stamps is None else stamps[number]
            frame.time_base = Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def rotate_mp4(path: Path, degrees: int) -> None:
    """Sets the display matrix of the (only) track of an mp4 to a clockwise rotation."""
    a, b, c, d = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[degrees]
    one = 1 << 16
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    data[at : at + 36] = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    path.write_bytes(bytes(data))
