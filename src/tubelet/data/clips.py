"""From a file to the views of it that a model averages over: the one call that the command line makes."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from tubelet.data import transforms
from tubelet.data.sampling import sample
from tubelet.data.video import VideoInfo, VideoReader, reader_of
from tubelet.errors import TubeletError, VideoError

VIDEO_SUFFIXES = (
    ".3g2", ".3gp", ".asf", ".avi", ".flv", ".gif", ".ivf", ".m2ts", ".m4v", ".mjpeg", ".mkv", ".mov", ".mp4", ".mpeg",
    ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv",
)  # fmt: skip


@dataclass(frozen=True)
class Clips:
    """The views of one video.

    tensor:    float32 (clips * crops, 3, T, H, W), the crops of the first clip first
    indices:   frame indices that each clip took, one tuple a clip;  times: their seconds from the first frame
    crops:     views of each clip
    info:      what the file says of itself;  warnings: sentences on what is missing from it, for the user to read
    seconds:   time spent on opening, decoding and transforming
    """

    tensor: Tensor
    indices: tuple[tuple[int, ...], ...]
    times: tuple[tuple[float, ...], ...]
    crops: int
    info: VideoInfo
    warnings: tuple[str, ...]
    seconds: float


def load_clips(
    path: str | Path,
    *,
    frames: int = 16,
    stride: int = 4,
    size: transforms.Size = 224,
    mean: Sequence[float] = transforms.IMAGENET_MEAN,
    std: Sequence[float] = transforms.IMAGENET_STD,
    sampling: str = "dense",
    views: tuple[int, int] = (1, 1),
    backend: str = "auto",
) -> Clips:
    """Reads the views of a video that a model takes.

    frames, stride, sampling:  frames a clip, and which: "dense", "uniform", "k400", "ssv2" (see `data.sampling`)
    size:     side of the square crop, or (height, width); the picture is resized to cover it, then cropped
    views:    (clips, crops), crops 1 or 3
    backend:  see `open_video`

    Memory holds the frames of the clips at the resized size, and no more than a few decoded pictures. If the file is
    cut short or a frame asked for cannot be decoded, the clips are sampled from the frames that can be, and a warning
    says how many are missing. (That decodes the file once; damage between the frames asked for is not looked for.)

    Raises VideoError, one sentence, if the file yields no frame; TubeletError for options that are not allowed.
    """
    open_reader = reader_of(backend)  # before the clock starts: importing a back-end takes a second or two
    began = time.perf_counter()
    clips, crops = views
    if crops not in (1, 3):
        raise TubeletError(f"crops must be 1 or 3, got {crops}")
    height, width = transforms.height_width(size)
    with open_reader(path) as reader:
        choose = partial(sample, sampling, frames=frames, stride=stride, clips=clips)
        readable: list[int] | None = None
        chosen = _frames_of(reader, choose(len(reader.timeline)), None)
        pictures = _read(reader, chosen, (height, width))
        if reader.lost or reader.info.frames < reader.info.declared:
            readable = reader.readable()
            if not readable:
                raise VideoError(f"{path}: none of its {reader.info.frames} frames can be decoded")
            chosen = _frames_of(reader, choose(len(readable)), readable)
            pictures = _read(reader, chosen, (height, width))
        info, seconds = reader.info, reader.timeline.seconds()
    tensor = torch.empty(clips * crops, 3, frames, height, width)
    for number, clip in enumerate(chosen):
        taken = torch.stack([pictures[index] for index in clip])  # (T, h, w, 3)
        for offset, crop in enumerate(transforms.crops(taken, (height, width), crops)):
            tensor[number * crops + offset] = transforms.normalize(crop, mean, std)
    return Clips(
        tensor=tensor,
        indices=tuple(tuple(clip) for clip in chosen),
        times=tuple(tuple(seconds[clip].tolist()) for clip in chosen),
        crops=crops,
        info=info,
        warnings=missing_warning(info, info.frames if readable is None else len(readable)),
        seconds=time.perf_counter() - began,
    )


def missing_warning(info: VideoInfo, readable: int) -> tuple[str, ...]:
    """One sentence if fewer frames can be read than the file declares, else nothing."""
    if readable == info.declared:
        return ()
    missing = ("about " if info.about else "") + str(info.declared - readable)
    return (f"{info.path}: {missing} of {info.declared} frames are missing; the {readable} that can be read are used",)


def list_videos(path: str | Path) -> list[Path]:
    """A file -> itself; a folder -> its videos (by suffix, no hidden ones, not those of its folders), sorted.

    Raises TubeletError if nothing is there, it cannot be read, or no video is in the folder.
    """
    if not os.fspath(path):  # which would be the current folder
        raise TubeletError("the path is empty; a video or a folder of videos is needed")
    path = Path(path)
    try:
        if path.is_dir():
            videos = sorted(file for file in path.iterdir() if _is_video(file))
            if not videos:
                raise TubeletError(f"{path}: no video in this folder; looked for {' '.join(VIDEO_SUFFIXES)}")
            return videos
        if not path.exists():
            raise TubeletError(f"{path}: no such file or folder; a video or a folder of videos is needed")
    except OSError as error:
        raise TubeletError(f"{path}: cannot be read ({error.strerror})") from None
    return [path]


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".") and path.is_file()


def _frames_of(reader: VideoReader, clips: list[list[int]], readable: list[int] | None) -> list[list[int]]:
    """Slots -> frame indices."""
    return [reader.timeline.frames_of(clip, readable) for clip in clips]


def _read(reader: VideoReader, chosen: list[list[int]], size: tuple[int, int]) -> dict[int, Tensor]:
    """Each frame that some clip takes, once: index -> uint8 (h, w, 3), resized to cover `size`."""
    indices = sorted({index for clip in chosen for index in clip})
    pictures = reader.read(indices, partial(transforms.short_side, size=size))
    return dict(zip(indices, pictures, strict=True))


def videos_by_id(folder: Path, names: list[str]) -> dict[str, Path]:
    """The file of each id that has one in a folder or below it."""
    wanted = set(names)
    if not folder.is_dir():
        return {}
    files = (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in VIDEO_SUFFIXES)
    return {path.stem: path for path in files if path.stem in wanted}
