"""Video files as a data set: random views in training, the views of the protocol otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tubelet.data import transforms
from tubelet.data.augment import AREA, random_slots, random_view
from tubelet.data.cache import FrameCache
from tubelet.data.clips import missing_warning
from tubelet.data.datasets.base import Key, Sample, as_key, random_of
from tubelet.data.datasets.listing import Listing, Record, Views
from tubelet.data.sampling import sample
from tubelet.data.video import VideoReader, open_video
from tubelet.errors import TubeletError, VideoError

CACHED_SHARE = 4
"""A clip may take a quarter of the cache at most, and is not decoded as a whole otherwise."""


@dataclass(frozen=True)
class Seen:
    """frames: of the file, those of each clip;  size: (height, width) of its pictures"""

    frames: list[list[int]]
    size: tuple[int, int]


class VideoClips:
    """A `ClipDataset` of the videos of a listing.

    train:   random views by (seed, epoch, index); otherwise the views of the protocol, as `load_clips` gives them
    frames, size:  of a clip
    views:   sampling, stride, clips, crops and flip; the listing's own by default
    area:    share of the picture that a random view takes, from and to
    side:    frames are resized to cover this before anything else; in training 8/7 of `size`, otherwise `size`
    cache:   keeps decoded clips; the samples are the same with it as without (but for damaged files, of which it knows
             all frames that are lost)
    augment: takes the place of the random part and flip: (frames uint8 (T, H, W, 3), rng) -> uint8 (T, h, w, 3)
    finish:  in training, what is done to each view after that: (uint8 (T, h, w, 3), rng) -> the same shape
    """

    def __init__(
        self,
        listing: Listing,
        *,
        train: bool = False,
        frames: int = 16,
        size: transforms.Size = 224,
        views: Views | None = None,
        area: tuple[float, float] = AREA,
        side: transforms.Size | None = None,
        seed: int = 0,
        cache: FrameCache | None = None,
        augment: Callable[[Tensor, np.random.Generator], Tensor] | None = None,
        finish: Callable[[Tensor, np.random.Generator], Tensor] | None = None,
        mean: tuple[float, float, float] = transforms.IMAGENET_MEAN,
        std: tuple[float, float, float] = transforms.IMAGENET_STD,
        backend: str = "auto",
    ) -> None:
        self.listing, self.views = listing.without_problems(), views or listing.views
        self.train, self.frames, self.seed, self.cache, self.backend = train, frames, seed, cache, backend
        self.size = transforms.height_width(size)
        if self.views.crops not in (1, 3):
            raise TubeletError(f"crops must be 1 or 3, got {self.views.crops}")
        if not 0 < area[0] <= area[1] <= 1:
            raise TubeletError(f"the area of a random view must be shares from above 0 to 1, got {area}")
        default = (-(-self.size[0] * 8 // 7), -(-self.size[1] * 8 // 7)) if train else self.size
        self.side = transforms.height_width(side or default)
        self.mean, self.std = mean, std
        self._augment = augment or partial(random_view, size=self.size, flip=self.views.flip, area=area)
        self._finish = finish
        self._resize = partial(transforms.short_side, size=self.side)
        self._readable: dict[Path, list[int]] = {}  # of damaged files, which are decoded once to know it
        self._choose(range(1000), np.random.default_rng(0))  # so that wrong options are noticed here

    @property
    def labels(self) -> list[str]:
        return self.listing.labels

    @property
    def targets(self) -> list[int]:
        return [record.label for record in self.listing.records]

    def __len__(self) -> int:
        return len(self.listing.records)

    def name(self, index: int) -> str:
        return self.listing.records[index].name

    def __getitem__(self, key: int | Key) -> Sample:
        """Raises VideoError or OSError if the file cannot be read."""
        key = as_key(key)
        record = self.listing.records[key.index]
        rng = random_of(self.seed, key)
        try:
            clips, warning = self._clips(record, rng)
        except (TubeletError, RuntimeError, MemoryError) as error:  # options were tried before: it is the file
            reason = " ".join(str(error).split())
            raise VideoError(reason if str(record.path) in reason else f"{record.path}: {reason}") from error
        if self.train:
            views = [self._augment(clip, rng) for clip in clips]
            if self._finish is not None:
                views = [self._finish(view, rng) for view in views]
        else:
            crops = [transforms.crops(clip, self.size, self.views.crops) for clip in clips]
            views = [crop for of_clip in crops for crop in of_clip]
        return Sample(torch.stack(views).contiguous(), record.label, record.name, key.index, warning=warning)

    def seen(self, index: int) -> Seen:
        """Where the test views of a clip come from, without decoding it. Of a damaged file: once it has been read."""
        record = self.listing.records[index]
        with open_video(record.path, backend=self.backend) as reader:
            slots = self._slots(reader, record)
            chosen = self._choose(slots, random_of(self.seed, Key(index)))
            size = (reader.info.height, reader.info.width)
        return Seen([[slots[slot] for slot in clip] for clip in chosen], size)

    def _choose(self, slots: Sequence[int], rng: np.random.Generator) -> list[list[int]]:
        """The slots of each clip."""
        views = self.views
        if self.train:
            return [random_slots(rng, views.sampling, len(slots), self.frames, views.stride)]
        return sample(views.sampling, len(slots), frames=self.frames, stride=views.stride, clips=views.clips)

    def _clips(self, record: Record, rng: np.random.Generator) -> tuple[list[Tensor], str]:
        """Clips, each uint8 (T, h, w, 3) of the resized side, and a warning."""
        entry = None
        if self.cache is not None:
            entry = self.cache.entry(record.path, self.side, record.start, record.end)
            pixels = self.cache.get(entry)
            if pixels is not None:
                return [pixels[clip] for clip in self._choose(range(len(pixels)), rng)], ""
        state = rng.bit_generator.state
        with open_video(record.path, backend=self.backend) as reader:
            slots = self._slots(reader, record)
            height, width = transforms.covering_size(reader.info.height, reader.info.width, self.side)
            size = len(slots) * height * width * 3
            if self.cache is not None and entry is not None and size * CACHED_SHARE <= self.cache.limit:
                if self.cache.has_room(size):
                    pixels, slots = self._read_all(reader, record, slots)
                    self.cache.put(entry, pixels)
                    return [pixels[clip] for clip in self._choose(slots, rng)], self._warning(reader, record)
            clips = self._read(reader, slots, rng)
            if self._damaged(reader) and record.path not in self._readable:
                slots = self._slots_of_readable(reader, record)
                rng.bit_generator.state = state
                clips = self._read(reader, slots, rng)
            return clips, self._warning(reader, record)

    def _slots(self, reader: VideoReader, record: Record) -> list[int]:
        """The frame that each slot of the record's part takes."""
        known = self._readable.get(record.path)
        total = len(reader.timeline) if known is None else len(known)
        frames = reader.timeline.frames_of(range(total), known)
        if record.start is None and record.end is None:
            return frames
        seconds = reader.timeline.seconds()
        start, end = record.start or 0.0, record.end if record.end is not None else float("inf")
        inside = [frame for frame in frames if start <= seconds[frame] < end]
        if not inside:
            raise VideoError(f"{record.path}: no frame from {start:g} to {end:g} s; it has {reader.info.duration:g} s")
        return inside

    def _slots_of_readable(self, reader: VideoReader, record: Record) -> list[int]:
        readable = reader.readable()
        if not readable:
            raise VideoError(f"{record.path}: none of its {reader.info.frames} frames can be decoded")
        self._readable[record.path] = readable
        return self._slots(reader, record)

    def _read(self, reader: VideoReader, slots: list[int], rng: np.random.Generator) -> list[Tensor]:
        chosen = [[slots[slot] for slot in clip] for clip in self._choose(slots, rng)]
        indices = sorted({frame for clip in chosen for frame in clip})
        at = {frame: number for number, frame in enumerate(indices)}
        pixels = reader.read(indices, self._resize)
        return [pixels[[at[frame] for frame in clip]] for clip in chosen]

    def _read_all(self, reader: VideoReader, record: Record, slots: list[int]) -> tuple[Tensor, list[int]]:
        pixels = reader.read(slots, self._resize)
        if self._damaged(reader) and record.path not in self._readable:
            slots = self._slots_of_readable(reader, record)
            pixels = reader.read(slots, self._resize)
        return pixels, slots

    def _damaged(self, reader: VideoReader) -> bool:
        return bool(reader.lost) or reader.info.frames < reader.info.declared

    def _warning(self, reader: VideoReader, record: Record) -> str:
        known = self._readable.get(record.path)
        return " ".join(missing_warning(reader.info, reader.info.frames if known is None else len(known)))


def with_views(listing: Listing, **changed: object) -> Views:
    """The views of a listing with those options changed that are not None.

    Raises TubeletError for an option that views do not have.
    """
    given = {name: value for name, value in changed.items() if value is not None}
    try:
        return replace(listing.views, **given)  # type: ignore[arg-type]
    except TypeError:
        raise TubeletError(f"views have no option among {', '.join(given)}") from None
