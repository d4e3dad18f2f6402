"""Writing pictures that were made: mp4, gif, or png for a single one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tubelet.errors import TubeletError

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

TICKS = 90_000  # a second, where each frame has its own time
LONGEST = 20_000.0  # seconds between two frames that the container can hold
SUFFIXES = (".mp4", ".gif", ".png")


def write_video(
    path: str | Path,
    frames: Tensor | Iterable[Tensor],
    *,
    fps: float = 25.0,
    times: Sequence[float] | None = None,
) -> None:
    """Writes uint8 (T, H, W, 3) RGB frames, or an iterable of (H, W, 3), which need not fit in memory.

    .mp4: H.264, yuv420p, tagged BT.709; an odd side is extended by one row or column that repeats the last.
           `times`, where the rate varies: the second at which each frame is shown, increasing.
    .gif: a palette of 256 colours for all frames (read twice: an iterable is held in memory).  .png: exactly one frame.
    The file appears under its name only when it is complete. Raises TubeletError for another suffix, no frame, a frame
    of another shape or type, a folder that cannot be written to, times for another suffix than .mp4, or times that are
    too few or do not increase.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise TubeletError(f"{path}: cannot write {suffix or 'a file without suffix'}; allowed: {', '.join(SUFFIXES)}")
    if not fps > 0:
        raise TubeletError(f"fps must be above 0, got {fps}")
    if times is not None and suffix != ".mp4":
        raise TubeletError(f"{path}: cannot write times into {suffix}; allowed: .mp4")
    if not path.parent.is_dir():
        raise TubeletError(f"{path}: the folder {path.parent} does not exist")
    checked = _checked(frames)
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".writing-", suffix=suffix)
    except OSError as error:
        raise TubeletError(f"{path}: cannot be written ({error.strerror})") from None
    os.close(handle)
    try:
        if suffix == ".mp4":
            _write_mp4(temporary, checked, fps, times)
        else:
            {".gif": _write_gif, ".png": _write_png}[suffix](temporary, checked, fps)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _checked(frames: Iterable[Tensor]) -> Iterator[Tensor]:
    shape = None
    for frame in frames:
        if frame.dtype != torch.uint8 or frame.dim() != 3 or frame.shape[-1] != 3 or 0 in frame.shape:
            raise TubeletError(f"a frame must be uint8 (H, W, 3), got {frame.dtype} {tuple(frame.shape)}")
        if shape not in (None, frame.shape):
            raise TubeletError(f"frames must be of one size, got {tuple(frame.shape)} after {tuple(shape)}")
        shape = frame.shape
        yield frame.cpu()
    if shape is None:
        raise TubeletError("no frame to write; at least one is needed")


def _write_mp4(path: str, frames: Iterator[Tensor], fps: float, times: Sequence[float] | None) -> None:
    import av
    from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

    with av.open(path, "w", format="mp4") as container:
        rate = Fraction(fps).limit_denominator(1001)
        # Frames in the order they are shown, where steps may be long: those of several that wait for each other add up.
        options = {"crf": "18"} if times is None else {"crf": "18", "bf": "0"}
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.pix_fmt = "yuv420p"
        codec = stream.codec_context
        codec.colorspace, codec.color_range = Colorspace.ITU709, ColorRange.MPEG
        codec.color_primaries, codec.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        codec.time_base = base = 1 / rate if times is None else Fraction(1, TICKS)
        shown = -1
        for index, frame in enumerate(frames):
            even = _to_even(frame)
            if index == 0:
                stream.height, stream.width = even.shape[:2]
            picture = _av_frame(even).reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
            )
            shown = index if times is None else _tick(times, index, shown)
            picture.pts, picture.time_base = shown, base
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def _tick(times: Sequence[float], index: int, before: int) -> int:
    """When a frame is shown, in TICKS; times so close that they are one tick lie a tick apart."""
    if index >= len(times):
        raise TubeletError(f"times has {len(times)} seconds, and there are more frames")
    time, last = float(times[index]), float(times[max(index - 1, 0)])
    if not 0 <= time - last < LONGEST:
        steps = f"steps of seconds below {LONGEST:.0f} that increase"
        raise TubeletError(f"times must be {steps} the time; after {last} comes {time}")
    return max(round(time * TICKS), before + 1)


def _write_gif(path: str, frames: Iterator[Tensor], fps: float) -> None:
    import av
    import av.filter

    pictures = [_av_frame(frame) for frame in frames]
    for index, picture in enumerate(pictures):
        picture.pts, picture.time_base = round(index * 100 / fps), Fraction(1, 100)  # GIF counts hundredths of a second
    first = pictures[0]
    graph = av.filter.Graph()
    source = graph.add_buffer(width=first.width, height=first.height, format=first.format, time_base=Fraction(1, 100))
    split, palette, use = graph.add("split"), graph.add("palettegen"), graph.add("paletteuse")
    sink = graph.add("buffersink")
    source.link_to(split)
    split.link_to(palette, 0, 0)
    split.link_to(use, 1, 0)
    palette.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    for picture in pictures:
        graph.push(picture)
    graph.push(None)
    with av.open(path, "w", format="gif") as container:
        stream = container.add_stream("gif", rate=Fraction(fps).limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt = first.width, first.height, "pal8"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 100)
        for _ in pictures:
            coloured = graph.pull()
            assert isinstance(coloured, av.VideoFrame)
            container.mux(stream.encode(coloured))
        container.mux(stream.encode(None))


def _write_png(path: str, frames: Iterator[Tensor], fps: float) -> None:
    import av

    frame, more = next(frames), next(frames, None)
    if more is not None:
        raise TubeletError("a .png holds one frame, more were given; allowed for several: .mp4, .gif")
    encoder = av.CodecContext.create("png", "w")
    encoder.height, encoder.width = frame.shape[:2]
    encoder.pix_fmt, encoder.time_base = "rgb24", Fraction(1, 25)
    with open(path, "wb") as file:
        for packet in [*encoder.encode(_av_frame(frame)), *encoder.encode(None)]:
            file.write(bytes(packet))


def _av_frame(frame: Tensor) -> VideoFrame:
    """uint8 (H, W, 3) -> an rgb24 frame of PyAV, whose rows are padded."""
    from av.video.frame import VideoFrame

    height, width = frame.shape[:2]
    picture = VideoFrame(width, height, "rgb24")
    plane = picture.planes[0]
    rows = torch.zeros(height, plane.line_size, dtype=torch.uint8)
    rows[:, : width * 3] = frame.reshape(height, width * 3)
    torch.frombuffer(plane, dtype=torch.uint8).copy_(rows.flatten())
    return picture


def _to_even(frame: Tensor) -> Tensor:
    """(H, W, 3) -> both sides even, the last row or column repeated where it is odd."""
    frame = torch.cat([frame, frame[-1:]]) if frame.shape[0] % 2 else frame
    return torch.cat([frame, frame[:, -1:]], dim=1) if frame.shape[1] % 2 else frame


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
