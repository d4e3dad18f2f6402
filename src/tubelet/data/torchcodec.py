"""Decoding by torchcodec, where it is installed: fewer steps a frame than PyAV, the same frames and pixels.

Which frame is which is settled by the PyAV reader's timeline; every frame that torchcodec gives is checked to have its
time. So the two cannot disagree on numbering, and a file that torchcodec cannot serve exactly is handed to PyAV.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from tubelet.data.pyav import PyAVReader, check_indices
from tubelet.data.video import FrameTransform

CHUNK = 4
"""Frames decoded at a time: memory holds these and what the transform made of the others."""


@cache
def import_error() -> str | None:
    """None if torchcodec loads, else the first line of the reason why not."""
    try:
        import torchcodec.decoders  # noqa: F401
    except (ImportError, RuntimeError, OSError) as error:
        return (str(error).strip().splitlines() or [type(error).__name__])[0]
    return None


class TorchcodecReader:
    """A `VideoReader` on torchcodec. `info.backend` is "pyav" where the file is one for PyAV."""

    def __init__(self, path: str | Path) -> None:
        self._pyav = PyAVReader(path)
        self.timeline = self._pyav.timeline
        self.info = self._pyav.info
        # torchcodec 0.13 takes full-range video for limited where the pixel format does not say it (the yuvj ones do).
        mistaken = self.info.full_range and self.info.pixel_format.startswith(("yuv4", "gray"))
        self._decoder = self._open_decoder() if self.timeline.seekable and not mistaken else None
        if self._decoder is not None:
            self.info = replace(self.info, backend="torchcodec")
        self._own = 0

    @property
    def lost(self) -> set[int]:
        return self._pyav.lost

    @property
    def decoded(self) -> int:
        return self._pyav.decoded + self._own

    def read(self, indices: Sequence[int], transform: FrameTransform | None = None) -> Tensor:
        """See `VideoReader.read`."""
        if self._decoder is None:
            return self._pyav.read(indices, transform)
        check_indices(indices, self.info)
        clip = torch.empty(0)
        for at in range(0, len(indices), CHUNK):
            frames = self._decode(list(indices[at : at + CHUNK]))
            if frames is None:
                return self._pyav.read(indices, transform)
            for offset, frame in enumerate(frames.split(1)):
                result = frame if transform is None else transform(frame)
                if at + offset == 0:
                    clip = result.new_empty((len(indices), *result.shape[1:]))
                clip[at + offset] = result[0]
        return clip

    def frames(self, start: int = 0) -> Iterator[tuple[int, Tensor]]:
        """See `VideoReader.frames`."""
        index = start
        while self._decoder is not None and index < len(self.timeline):
            chunk = list(range(index, min(index + CHUNK, len(self.timeline))))
            frames = self._decode(chunk)
            if frames is not None:
                yield from zip(chunk, frames, strict=True)
                index += len(chunk)
        if index < len(self.timeline):
            yield from self._pyav.frames(index)

    def readable(self) -> list[int]:
        """See `VideoReader.readable`; by PyAV, which tells a frame that is damaged from one that is made up."""
        return self._pyav.readable()

    def close(self) -> None:
        self._decoder = None
        self._pyav.close()

    def __enter__(self) -> TorchcodecReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open_decoder(self) -> Any:
        from torchcodec.decoders import VideoDecoder

        try:
            decoder = VideoDecoder(self.info.path, stream_index=self._pyav.stream_index, dimension_order="NHWC")
        except (RuntimeError, ValueError):
            return None
        return decoder if len(decoder) == len(self.timeline) else None

    def _decode(self, indices: list[int]) -> Tensor | None:
        """uint8 (n, H, W, 3), or None for good if these are not exactly the frames asked for."""
        assert self._decoder is not None
        try:
            batch = self._decoder.get_frames_at(indices)
            wanted = self.timeline.stamps[indices].double() * self.timeline.time_base
            exact = torch.allclose(batch.pts_seconds, wanted, rtol=0, atol=0.5 * self.timeline.time_base)
            if exact and batch.data.shape[1:3] == (self.info.height, self.info.width):
                self._own += len(indices)
                return batch.data
        except (RuntimeError, ValueError, IndexError):
            pass
        self._decoder = None
        self.info = replace(self.info, backend="pyav")
        return None
