"""When each frame of a video is shown, learnt from the container's packets without decoding a picture.

Frames are numbered 0, 1, 2, ... in display order. A `Timeline` knows the time of each, the frames that decoding can
start at, and the *slots* that samplers count in: as many slots as frames, evenly spaced in time from the first frame to
the last. In a video of constant rate, slot i is frame i. In one of variable rate it is the frame nearest in time:

    frame          0 1 2     3              4 5  6         shown at irregular times
    slot           0    1    2    3    4    5    6
    takes frame    0    2    3    3    4    5    6
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

NO_STAMP = -(2**63)
DEFAULT_RATE = 25.0
"""Frames per second where a file says nothing of time at all."""


class PacketTable:
    """The packets of a video stream in the order of the file: 25 bytes each, so that hours of video fit."""

    def __init__(self) -> None:
        self._pts, self._dts, self._durations, self._keys = array("q"), array("q"), array("q"), bytearray()

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, pts: int | None, dts: int | None, duration: int | None, key: bool) -> None:
        """Times in units of the stream's time base; None where the container has none."""
        self._pts.append(NO_STAMP if pts is None else pts)
        self._dts.append(NO_STAMP if dts is None else dts)
        self._durations.append(duration or 0)
        self._keys.append(key)

    def columns(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """int64 pts, dts, durations and bool keys, each (packets,)."""
        numbers = (torch.tensor(column, dtype=torch.int64) for column in (self._pts, self._dts, self._durations))
        pts, dts, durations = numbers
        return pts, dts, durations, torch.tensor(self._keys, dtype=torch.bool)


@dataclass(frozen=True)
class Timeline:
    """The frames of a video in display order.

    stamps:    int64 (frames,), presentation time stamps in time base units, not decreasing
    keys:      indices of the frames that decoding can start at, increasing
    seekable:  False where the container stores no usable presentation times (AVI with B-frames, MPEG program streams,
               raw streams): a frame is then known only by how many came before it, and reading starts at the first
    fps:       average rate, frames per second
    duration:  seconds, the last frame's own included
    variable:  True where some frame is more than half a frame away from the regular rate
    """

    stamps: Tensor
    keys: Sequence[int]
    seekable: bool
    time_base: float
    fps: float
    duration: float
    variable: bool

    def __len__(self) -> int:
        return len(self.stamps)

    def seconds(self) -> Tensor:
        """float64 (frames,): when each frame is shown, counted from the first."""
        return (self.stamps - self.stamps[0]).double() * self.time_base

    def index_of(self, stamp: int) -> int:
        """The frame shown at `stamp`, or the last one before it."""
        at = int(torch.searchsorted(self.stamps, stamp))
        if at < len(self) and int(self.stamps[at]) == stamp:
            return at
        return max(at - 1, 0)

    def key_before(self, index: int) -> int:
        """The last frame at or before `index` that decoding can start at; 0 where nothing but the beginning will do."""
        if not self.seekable:
            return 0
        at = bisect_right(self.keys, index) - 1
        return self.keys[at] if at >= 0 else 0

    def frames_of(self, slots: Sequence[int], readable: Sequence[int] | None = None) -> list[int]:
        """The frame that each slot takes; with `readable` (indices, increasing) there are only those frames."""
        kept = torch.arange(len(self)) if readable is None else torch.tensor(readable)
        wanted = torch.tensor(slots)
        if not self.variable or len(kept) < 2:
            return kept[wanted].tolist()
        times = self.seconds()[kept]
        moments = times[0] + wanted * (times[-1] - times[0]) / (len(kept) - 1)
        after = torch.searchsorted(times, moments).clamp(1, len(kept) - 1)
        earlier = moments - times[after - 1] <= times[after] - moments
        return kept[torch.where(earlier, after - 1, after)].tolist()


def build_timeline(packets: PacketTable, *, time_base: float, rate: float | None, stored_order: bool) -> Timeline:
    """Orders the packets of a stream, at least one, into a `Timeline`.

    rate:          the container's own average rate, used where it agrees with the time stamps (and for a single frame)
    stored_order:  the container does not store when a frame is shown: take decode times, in the order of the file
    """
    pts, dts, durations, key = packets.columns()
    count, guess = len(packets), rate or DEFAULT_RATE
    order = torch.argsort(pts, stable=True)
    stamps, keys = pts[order], key[order].nonzero().flatten().tolist()
    seekable = not stored_order and bool(stamps[0] != NO_STAMP) and bool((stamps[1:] > stamps[:-1]).all())
    if not seekable:
        known = bool((dts != NO_STAMP).all() and (dts[1:] >= dts[:-1]).all())
        stamps = dts if known else (torch.arange(count) / (guess * time_base)).round().long()
        order, keys = torch.arange(count), [0]

    last = int(durations[order[-1]])
    if last <= 0 and count > 1:
        last = int((stamps[1:] - stamps[:-1]).median())
    duration = (int(stamps[-1]) - int(stamps[0]) + last) * time_base
    if duration <= 0:
        duration = count / guess
    fps = count / duration
    if rate and abs(count / rate - duration) * rate < 1:
        fps = rate
    drift = ((stamps - stamps[0]) * time_base - torch.arange(count).double() / fps).abs().max()
    return Timeline(stamps, keys, seekable, time_base, fps, duration, variable=bool(drift * fps > 0.5))
