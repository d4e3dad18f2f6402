"""Opening a video: what is known of it, and the protocol that every back-end follows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

from torch import Tensor

from tubelet.data.timeline import Timeline
from tubelet.errors import TubeletError

BACKENDS = ("auto", "pyav", "torchcodec")

FrameTransform = Callable[[Tensor], Tensor]
"""uint8 (1, H, W, 3) -> (1, ...): what is done to a frame as soon as it is decoded, such as resizing it."""


@dataclass(frozen=True)
class VideoInfo:
    """What a file says of its first video stream.

    frames:    frames that the container lists, not decoded for that; a damaged file may yield fewer
    declared:  frames that the header promises, where more than there are (a file cut short); else equal to frames
    about:     the header promises a duration only, from which `declared` was worked out
    fps:       average frames per second;  duration: seconds
    width, height: pixels, after rotation;  rotation: degrees counterclockwise that were applied
    variable:  the frames are not spaced evenly in time;  full_range: luma runs from 0 to 255, not from 16 to 235
    backend:   the library that decodes: "pyav" or "torchcodec"
    """

    path: str
    frames: int
    declared: int
    fps: float
    duration: float
    width: int
    height: int
    rotation: int
    codec: str
    pixel_format: str
    variable: bool
    full_range: bool
    backend: str
    about: bool = False


class VideoReader(Protocol):
    """A video that is open. A context manager; not to be shared between threads.

    info:      VideoInfo
    timeline:  when each frame is shown
    lost:      the frames asked for so far that could not be decoded
    decoded:   how many pictures were decoded so far, those that PyAV passed over on the way included
    """

    @property
    def info(self) -> VideoInfo: ...

    @property
    def timeline(self) -> Timeline: ...

    @property
    def lost(self) -> set[int]: ...

    @property
    def decoded(self) -> int: ...

    def read(self, indices: Sequence[int], transform: FrameTransform | None = None) -> Tensor:
        """The frames at `indices` (not decreasing, repeats allowed) -> uint8 (T, H, W, 3), RGB, in display order.

        With a transform, what it makes of each, stacked; only those results are held. A frame that cannot be decoded is
        replaced by the nearest one that can (the one before if it is at hand) and noted in `lost`.
        Raises TubeletError for an index that the video has not, VideoError if none of the frames can be decoded.
        """
        ...

    def frames(self, start: int = 0) -> Iterator[tuple[int, Tensor]]:
        """(index, uint8 (H, W, 3)) of every frame from `start` on that can be decoded, one at a time."""
        ...

    def readable(self) -> list[int]:
        """The indices of all frames that can be decoded. Decodes the whole video, holding one frame at a time."""
        ...

    def close(self) -> None: ...

    def __enter__(self) -> VideoReader: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_video(path: str | Path, *, backend: str = "auto") -> VideoReader:
    """Opens the first video stream of a file.

    backend: "pyav" (always there), "torchcodec" (an extra), or "auto": torchcodec where it imports, else PyAV. Both
    give the same frames; the pixels are equal for 8-bit 4:2:0 video of limited range, and within a mean of one grey
    level elsewhere. What torchcodec cannot number (AVI with B-frames), colour (some full-range video) or decode (a
    damaged file) is read by PyAV whatever was asked for: `info.backend` says which.

    Raises VideoError, one sentence, if the file yields no frame; TubeletError for an unknown or missing back-end.
    """
    return reader_of(backend)(path)


def reader_of(backend: str) -> Callable[[str | Path], VideoReader]:
    """What opens a file by a back-end, which is imported here. Raises TubeletError for an unknown or missing one."""
    if backend not in BACKENDS:
        raise TubeletError(f"unknown video back-end {backend!r}; allowed: {', '.join(BACKENDS)}")
    from tubelet.data.pyav import PyAVReader

    if backend == "pyav":
        return PyAVReader
    from tubelet.data.torchcodec import TorchcodecReader, import_error

    reason = import_error()
    if reason is None:
        return TorchcodecReader
    if backend == "auto":
        return PyAVReader
    raise TubeletError(f"video back-end 'torchcodec' does not load ({reason}); allowed here: auto, pyav")
