"""Decoding by PyAV, which brings its own FFmpeg: seeks to the frames asked for, holding a few pictures at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import torch
from av.video.frame import VideoFrame
from torch import Tensor

from tubelet.data.colour import FULL_RANGE, RGBConverter
from tubelet.data.container import DECODE_ERRORS, first_video_stream, list_frames, missing_at_the_end, open_container
from tubelet.data.video import FrameTransform, VideoInfo
from tubelet.errors import TubeletError, VideoError

Picture = tuple[int, VideoFrame]
"""A frame's index and what the decoder put out for it."""


class PyAVReader:
    """A `VideoReader` on PyAV.

    On a decode error the frames up to the next key frame are lost, those that the decoder had not put out yet included:
    they refer to what is missing, and the pictures that a decoder makes up for them depend on its threads.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = os.fspath(path)
        self.lost: set[int] = set()
        self.decoded = 0
        self._position: Iterator[Picture] = iter(())
        self._at: Picture | None = None
        self._converter = RGBConverter()
        self._open()
        try:
            self.timeline = list_frames(self._container, self._stream, self.path)
            first = next(self._decode_from(0), None)
            if first is None:
                raise VideoError(f"{self.path}: no frame can be decoded from its {len(self.timeline)} packets of video")
            self.info = self._describe(first[1])
        except BaseException:
            self.close()
            raise

    def read(self, indices: Sequence[int], transform: FrameTransform | None = None) -> Tensor:
        """See `VideoReader.read`."""
        check_indices(indices, self.info)
        clip, done = torch.empty(0), -1
        for at, index in enumerate(indices):
            if index == done:
                clip[at] = clip[at - 1]
                continue
            frame = self._to_rgb(self._nearest(index))[None]  # (1, H, W, 3)
            result = frame if transform is None else transform(frame)
            if at == 0:
                clip = result.new_empty((len(indices), *result.shape[1:]))
            clip[at] = result[0]
            done = index
        return clip

    def frames(self, start: int = 0) -> Iterator[tuple[int, Tensor]]:
        """See `VideoReader.frames`."""
        for index, picture in self._pictures(start):
            yield index, self._to_rgb(picture)

    def readable(self) -> list[int]:
        """See `VideoReader.readable`."""
        return [index for index, _ in self._pictures(0)]

    def close(self) -> None:
        self._position, self._at = iter(()), None
        self._container.close()

    def __enter__(self) -> PyAVReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def stream_index(self) -> int:
        """The number of the video stream in the container."""
        return self._stream.index

    def _open(self) -> None:
        container = open_container(self.path)
        try:
            self._stream = first_video_stream(container, self.path)
        except BaseException:
            container.close()
            raise
        self._container = container

    def _describe(self, frame: VideoFrame) -> VideoInfo:
        stream, timeline = self._stream, self.timeline
        turned = round(frame.rotation / 90) % 2 == 1
        # An AVI header also counts the frames that were dropped on recording, which are no loss.
        declared = 0 if self._container.format.name == "avi" else stream.frames
        late = 0 if declared else missing_at_the_end(self._container, stream, timeline)
        return VideoInfo(
            path=self.path,
            frames=len(timeline),
            declared=max(declared, len(timeline) + late),
            fps=timeline.fps,
            duration=timeline.duration,
            width=frame.height if turned else frame.width,
            height=frame.width if turned else frame.height,
            rotation=round(frame.rotation),
            codec=stream.codec_context.name,
            pixel_format=frame.format.name,
            variable=timeline.variable,
            full_range=int(frame.color_range) == FULL_RANGE,
            backend="pyav",
            about=late > 0,
        )

    def _decode_from(self, key: int) -> Iterator[Picture]:
        """(index, picture), indices increasing, from the key frame `key` on."""
        timeline = self.timeline
        self._seek(key)
        last, counted = -1, 0
        for before, frames in self._decode_packets():
            for frame in frames:
                self.decoded += 1
                if not timeline.seekable:
                    index = counted = max(counted, before)
                    counted += 1
                elif frame.pts is not None:
                    index = timeline.index_of(frame.pts)
                else:
                    continue
                if last < index < len(timeline):
                    last = index
                    yield index, frame

    def _seek(self, key: int) -> None:
        try:
            if key > 0:
                self._container.seek(int(self.timeline.stamps[key]), stream=self._stream)
                self._stream.codec_context.flush_buffers()
                return
        except DECODE_ERRORS:
            pass
        # Opening anew is the one way to the beginning that holds for every container.
        self._container.close()
        self._open()

    def _decode_packets(self) -> Iterator[tuple[int, list[VideoFrame]]]:
        """What each packet makes the decoder put out, after the number of packets before the last new start."""
        codec = self._stream.codec_context
        packets, resumed, broken = 0, 0, False
        try:
            for packet in self._container.demux(self._stream):
                if not packet.size:
                    continue  # an empty packet would end the decoder; the end of the file has one too
                packets += not packet.is_discard
                if broken and not packet.is_keyframe:
                    continue
                if broken:
                    broken, resumed = False, packets - 1
                try:
                    frames = codec.decode(packet)
                except DECODE_ERRORS:
                    codec.flush_buffers()
                    broken = True
                    continue
                yield resumed, frames
            if not broken:
                yield resumed, codec.decode(None)
        except DECODE_ERRORS:
            return

    def _go_to(self, index: int) -> Picture | None:
        """Moves on to `index` or, if it is lost, to the next frame; -> the one before, if it was decoded on the way."""
        key = self.timeline.key_before(index)
        if self._at is None or index < self._at[0] or key > self._at[0] + 1:
            self._start_at(key)
            # Some containers seek to a later key frame than asked for.
            if key > 0 and (self._at is None or self._at[0] > index):
                self._start_at(self.timeline.key_before(key - 1))
        before = None
        while self._at is not None and self._at[0] < index:
            before, self._at = self._at, next(self._position, None)
        return before

    def _start_at(self, key: int) -> None:
        self._position = self._decode_from(key)
        self._at = next(self._position, None)

    def _nearest(self, index: int) -> VideoFrame:
        before = self._go_to(index)
        if self._at is not None and self._at[0] == index:
            return self._at[1]
        self.lost.add(index)
        found = before or self._at
        if found is None:
            readable = self.readable()
            if not readable:
                raise VideoError(f"{self.path}: none of its {len(self.timeline)} frames can be decoded")
            return self._nearest(min(readable, key=lambda other: abs(other - index)))
        return found[1]

    def _pictures(self, start: int) -> Iterator[Picture]:
        index = start
        while index < len(self.timeline):
            self._go_to(index)
            if self._at is None:
                self.lost.update(range(index, len(self.timeline)))
                return
            self.lost.update(range(index, self._at[0]))
            index = self._at[0] + 1
            yield self._at

    def _to_rgb(self, picture: VideoFrame) -> Tensor:
        try:
            return self._converter.convert(picture, self.info.height, self.info.width)
        except DECODE_ERRORS as error:
            raise VideoError(f"{self.path}: its {picture.format.name} pictures cannot be made RGB ({error})") from None


def check_indices(indices: Sequence[int], info: VideoInfo) -> None:
    """Raises TubeletError unless the indices are at least one, not decreasing, and all of the video."""
    if not len(indices):
        raise TubeletError("no frame index given; at least one is needed")
    if any(a > b for a, b in zip(indices, indices[1:], strict=False)):
        raise TubeletError(f"frame indices must not decrease, got {list(indices)}")
    if indices[0] < 0 or indices[-1] >= info.frames:
        asked = f"frames {indices[0]} to {indices[-1]}"
        raise TubeletError(f"{info.path}: {asked} asked for, allowed: 0 to {info.frames - 1}")
