"""From a decoded picture to RGB, by the matrix and range that it is tagged with."""

from __future__ import annotations

from fractions import Fraction

import av.filter
import torch
from av.video.frame import VideoFrame
from torch import Tensor

FULL_RANGE = 2  # AVCOL_RANGE_JPEG


class RGBConverter:
    """Any pixel format to RGB by FFmpeg's scale filter, bicubic for subsampled colour, which torchcodec uses too.

    (`VideoFrame.reformat` differs from it by up to 3 grey levels in the mean on 10-bit and odd-sized video.)
    """

    def __init__(self) -> None:
        self._key: tuple[object, ...] = ()
        self._graph: av.filter.Graph | None = None

    def convert(self, picture: VideoFrame, height: int, width: int) -> Tensor:
        """-> uint8 (height, width, 3), rotated as the file says, and resized if it is of another size.

        Raises what PyAV raises.
        """
        turns = round(picture.rotation / 90)
        stored = (height, width) if turns % 2 == 0 else (width, height)
        key = (picture.width, picture.height, picture.format.name, picture.colorspace, picture.color_range, stored)
        if key != self._key or self._graph is None:
            self._key, self._graph = key, _scale_graph(picture, *stored)
        self._graph.push(picture)
        rgb = self._graph.pull()
        assert isinstance(rgb, VideoFrame)
        plane = rgb.planes[0]
        rows = torch.frombuffer(plane, dtype=torch.uint8).view(stored[0], plane.line_size)  # rows are padded
        frame = rows[:, : stored[1] * 3].reshape(*stored, 3)
        return torch.rot90(frame, turns).clone()


def _scale_graph(picture: VideoFrame, height: int, width: int) -> av.filter.Graph:
    graph = av.filter.Graph()
    graph.threads = 1
    source = graph.add_buffer(
        width=picture.width,
        height=picture.height,
        format=picture.format,
        time_base=picture.time_base or Fraction(1, 1000),
    )
    scale = graph.add("scale", f"{width}:{height}:flags=bicubic")
    rgb, sink = graph.add("format", "rgb24"), graph.add("buffersink")
    source.link_to(scale)
    scale.link_to(rgb)
    rgb.link_to(sink)
    graph.configure()
    return graph
