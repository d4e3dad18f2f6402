"""Key frames with boxes and actions, for training detectors: JHMDB, UCF101-24, AVA, or one's own csv of boxes.

In training clips of each video around key frames drawn anew each epoch from those with people, mirrored or not;
otherwise the key frames are evenly spaced over the frames with people, the same each time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from tubelet.data import keyframe
from tubelet.data.batches import Batch
from tubelet.data.cache import FrameCache
from tubelet.data.clips import videos_by_id
from tubelet.data.datasets import jhmdb, ucf24
from tubelet.data.datasets.ava import is_ava_csv
from tubelet.data.datasets.ava_tubes import RATE, START, read_ava_tubes
from tubelet.data.datasets.base import Key, Sample, as_key, random_of
from tubelet.data.datasets.listing import Listing, Record, Views
from tubelet.data.datasets.registry import check_options, choose_split, data_root, keywords, split_name
from tubelet.data.datasets.tubes import Tube, Tubes, read_boxes_csv, read_jhmdb_tubes, read_ucf24_tubes
from tubelet.data.sampling import around
from tubelet.data.video import open_video
from tubelet.errors import TubeletError, VideoError

NAMED = ("jhmdb", "ucf24")  # data sets with tubes
GIVEN_BY_MODELS = ("train", "frames", "short")
MEAN, STD = (0.45, 0.45, 0.45), (0.225, 0.225, 0.225)


@dataclass(frozen=True)
class KeyframeSample(Sample):
    """A clip around a key frame: `clips` (1, T, h, w, 3), whole pictures in their own proportions.

    boxes:    float32 (n, 4), the people of the key frame in pixels of the clip;  actions: float32 (n, classes), 1 or 0
    frame:    number of the key frame in the video
    """

    boxes: Tensor = field(default_factory=lambda: torch.zeros(0, 4))
    actions: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    frame: int = 0


@dataclass
class KeyframeBatch(Batch):
    """Clips (B, 1, T, H, W, 3) of the largest height and width, the others filled up below and on the right.

    boxes, actions: see KeyframeSample, one of each a clip;  sizes: int64 (B, 2), height and width without the filling
    """

    boxes: list[Tensor] = field(default_factory=list)
    actions: list[Tensor] = field(default_factory=list)
    sizes: Tensor = field(default_factory=lambda: torch.zeros(0, 2, dtype=torch.long))
    frames: list[int] = field(default_factory=list)

    def pin_memory(self) -> KeyframeBatch:
        return replace(self, clips=self.clips.pin_memory())

    def input(self, mean: Sequence[float], std: Sequence[float], device: torch.device | str = "cpu") -> Tensor:
        """float32 (B, 3, T, H, W): normalised, the filling 0."""
        clips = super().input(mean, std, device)
        for clip, (height, width) in zip(clips, self.sizes.tolist(), strict=True):
            clip[:, :, height:] = 0
            clip[:, :, :, width:] = 0
        return clips


def collate_keyframes(samples: Sequence[KeyframeSample], bad: Mapping[str, str] | None = None) -> KeyframeBatch:
    """Samples of one number of frames and of any sizes -> a batch."""
    sizes = torch.tensor([sample.clips.shape[2:4] for sample in samples])
    height, width = sizes.amax(dim=0).tolist()
    clips = samples[0].clips.new_zeros(len(samples), *samples[0].clips.shape[:2], height, width, 3)
    for clip, sample in zip(clips, samples, strict=True):
        clip[:, :, : sample.clips.shape[2], : sample.clips.shape[3]] = sample.clips
    return KeyframeBatch(
        clips=clips,
        labels=torch.tensor([sample.label for sample in samples]),
        names=[sample.name for sample in samples],
        indices=[sample.index for sample in samples],
        bad=dict(bad or {}),
        warnings={sample.name: sample.warning for sample in samples if sample.warning},
        boxes=[sample.boxes for sample in samples],
        actions=[sample.actions for sample in samples],
        sizes=sizes,
        frames=[sample.frame for sample in samples],
    )


class KeyframeClips:
    """A `ClipDataset` of key frames.

    train:      key frames are drawn by (seed, epoch, index); otherwise they are evenly spaced
    per_video:  key frames of each video, an epoch; "all" takes each frame with people once, in training too
    frames, stride:  of a clip;  short: pixels of the short side, the long one has at most `longest`
    flip:       whether training may mirror clips
    zoom:       training shrinks or enlarges pictures by a factor from and to these, about a place drawn at random
    cache:      keeps decoded and resized videos; the samples are the same with it as without
    """

    def __init__(
        self,
        listing: Listing,
        tubes: Tubes,
        *,
        train: bool = False,
        frames: int = 16,
        stride: int | None = None,
        short: int = 288,
        longest: int = keyframe.LONGEST,
        per_video: int | Literal["all"] = 1,
        flip: bool | None = None,
        zoom: tuple[float, float] | None = None,
        seed: int = 0,
        cache: FrameCache | str | Path | None = None,
        mean: tuple[float, float, float] = MEAN,
        std: tuple[float, float, float] = STD,
        backend: str = "auto",
    ) -> None:
        self.listing, self.tubes = listing.without_problems(), tubes
        self.train, self.frames, self.stride = train, frames, listing.views.stride if stride is None else stride
        self.short, self.longest, self.seed, self.backend = short, longest, seed, backend
        self.flip = listing.views.flip if flip is None else flip
        match zoom:
            case None:
                pass
            case [int() | float() as least, int() | float() as most] if 0.1 <= least <= most <= 10:
                pass
            case _:
                raise TubeletError(f"zoom must be two factors from 0.1 to 10, the smaller one first, got {zoom}")
        self.zoom = zoom
        self.cache = FrameCache(cache) if isinstance(cache, (str, Path)) else cache
        self.mean, self.std = mean, std
        around(1000, 0, frames, self.stride)  # so that wrong options are noticed here
        if per_video != "all" and not (isinstance(per_video, int) and per_video >= 1):
            raise TubeletError(f"per_video must be at least 1, or all, got {per_video}")
        found = [(record, tubes_of(record, tubes)) for record in self.listing.records]
        if lost := [record.name for record, of_video in found if of_video is None]:
            raise TubeletError(
                f"{self.listing.name}: {len(lost)} of {len(found)} videos have no tubes in the annotation, the first "
                f"{lost[0]}"
            )
        # A video without people is none that can be drawn from.
        self.videos = [(record, of_video) for record, of_video in found if of_video]
        if not self.videos:
            raise TubeletError(f"{self.listing.name}: no video has a box")
        there = [len(annotated_frames(tubes)) for _, tubes in self.videos]
        counts = [most if per_video == "all" else per_video if train else min(per_video, most) for most in there]
        self.items = [(video, number) for video, count in enumerate(counts) for number in range(count)]
        self.per_video = per_video
        self._sizes: dict[Path, tuple[int, int]] = {}  # (height, width) of the videos read so far

    @property
    def labels(self) -> list[str]:
        return self.tubes.labels

    @property
    def targets(self) -> list[int]:
        return [self.videos[video][1][0].label for video, _ in self.items]

    def __len__(self) -> int:
        return len(self.items)

    def name(self, index: int) -> str:
        return self.videos[self.items[index][0]][0].name

    def __getitem__(self, key: int | Key) -> KeyframeSample:
        """Raises VideoError or OSError if the file cannot be read."""
        key = as_key(key)
        video, number = self.items[key.index]
        record, tubes = self.videos[video]
        rng = random_of(self.seed, key)
        annotated = annotated_frames(tubes)
        try:
            pixels, frame, (height, width) = self._clip(record, annotated, number, rng)
        except (TubeletError, RuntimeError, MemoryError) as error:  # options were tried before: it is the file
            reason = " ".join(str(error).split())
            raise VideoError(reason if str(record.path) in reason else f"{record.path}: {reason}") from error
        boxes, actions = people(tubes, frame, len(self.labels))
        if self.tubes.size is not None:  # pixels of the annotated pictures, which may have been of another size
            boxes = boxes * boxes.new_tensor([width, height, width, height]) / boxes.new_tensor(self.tubes.size * 2)
        boxes = keyframe.resized_boxes(boxes, height, width, self.short, self.longest)
        inside = keyframe.areas(boxes) > 0  # nobody can be found where a box lies outside of the picture
        boxes, actions = boxes[inside], actions[inside]
        if self.train and self.flip and rng.random() < 0.5:
            pixels, boxes = pixels.flip(2), keyframe.flipped_boxes(boxes, pixels.shape[2])
        if self.train and self.zoom is not None:
            pixels, boxes, actions = self._zoomed(pixels, boxes, actions, rng)
        return KeyframeSample(
            clips=pixels[None].contiguous(),
            label=tubes[0].label,
            name=record.name,
            index=key.index,
            boxes=boxes,
            actions=actions,
            frame=frame,
        )

    def _zoomed(
        self, pixels: Tensor, boxes: Tensor, actions: Tensor, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Whom less than half is left of is no longer a target; where nobody is left, the pictures stay as they are."""
        assert self.zoom is not None
        low, high = np.log(self.zoom)
        scale, place = float(np.exp(rng.uniform(low, high))), (float(rng.random()), float(rng.random()))
        fill = (pixels.new_tensor(self.mean, dtype=torch.float32) * 255).round().to(torch.uint8)
        found, cut = keyframe.zoomed(pixels, boxes, scale, place, fill)
        left = keyframe.areas(cut) >= 0.5 * scale**2 * keyframe.areas(boxes)
        return (found, cut[left], actions[left]) if left.any() else (pixels, boxes, actions)

    def _clip(
        self, record: Record, annotated: Tensor, number: int, rng: np.random.Generator
    ) -> tuple[Tensor, int, tuple[int, int]]:
        """Resized frames of the clip uint8 (T, h, w, 3), the key frame, and (height, width) of the video."""
        entry = None
        if self.cache is not None:
            entry = self.cache.entry(record.path, "keyframe", self.short, self.longest)
            pixels = self.cache.get(entry)
            if pixels is not None and record.path in self._sizes:
                frame = self._choose(annotated, len(pixels), number, rng)
                clip = pixels[around(len(pixels), frame, self.frames, self.stride)]
                return clip, frame, self._sizes[record.path]
        resize = partial(keyframe.resized, short=self.short, longest=self.longest)
        with open_video(record.path, backend=self.backend) as reader:
            self._sizes[record.path] = size = (reader.info.height, reader.info.width)
            total = len(reader.timeline)
            frame = self._choose(annotated, total, number, rng)
            slots = around(total, frame, self.frames, self.stride)
            if self.cache is None or entry is None:
                return reader.read(slots, resize), frame, size
            pixels = reader.read(range(total), resize)
        self.cache.put(entry, pixels)
        return pixels[slots], frame, size

    def _choose(self, annotated: Tensor, total: int, number: int, rng: np.random.Generator) -> int:
        """The key frame, of the annotated ones that the file has."""
        there = annotated[annotated < total]
        if not len(there):
            raise VideoError(f"the file has {total} frames, and the first with a box is {int(annotated[0])}")
        if self.per_video == "all":
            if number >= len(there):
                raise VideoError(f"the file has {total} frames, and a box is on frame {int(annotated[number])}")
            return int(there[number])
        if self.train:
            return int(there[int(rng.integers(len(there)))])
        wanted = min(self.per_video, len(annotated))
        return int(there[(2 * number + 1) * len(there) // (2 * wanted)])


def people(tubes: Sequence[Tube], frame: int, classes: int) -> tuple[Tensor, Tensor]:
    """Who is on a frame: boxes (n, 4), and 0 or 1 for each action (n, classes); one row a person, whatever they do."""
    found: dict[object, tuple[Tensor, Tensor]] = {}
    for tube in tubes:
        at = (tube.frames == frame).nonzero()
        if not len(at):
            continue
        box = tube.boxes[int(at[0])]
        who = tube.person or tuple(box.tolist())
        _, actions = found.setdefault(who, (box, torch.zeros(classes)))
        actions[tube.label] = 1.0
    if not found:
        return torch.zeros(0, 4), torch.zeros(0, classes)
    rows = list(found.values())
    return torch.stack([box for box, _ in rows]), torch.stack([actions for _, actions in rows])


def annotated_frames(tubes: Sequence[Tube]) -> Tensor:
    """The frames on which anybody is, in order."""
    return torch.cat([tube.frames for tube in tubes]).unique()


def tubes_of(record: Record, tubes: Tubes) -> list[Tube] | None:
    """The tubes of a video, which annotations name with or without folders and suffix. None: it is not in them."""
    name = PurePosixPath(record.name)
    bare = name.with_suffix("")
    spellings = (str(name), str(bare), "/".join(bare.parts[-2:]), name.name, bare.name)
    return next((tubes.videos[spelling] for spelling in spellings if spelling in tubes.videos), None)


def read_named_tubes(name: str, folder: Path) -> Tubes:
    """The annotation of one of NAMED, in its folder. Raises TubeletError where it is not there or is none."""
    return read_jhmdb_tubes(folder / "tubes.json") if name == "jhmdb" else read_ucf24_tubes(ucf24.tubes_file(folder))


def open_keyframes(
    data: str | Path, *, split: str | None = None, root: str | Path | None = None, **options: Any
) -> KeyframeClips:
    """Key frames of "jhmdb:split1_fit", "ucf24:train", or a csv (one's own, or AVA's); options are KeyframeClips'.

    root:  where the videos lie; by default the folder of that name in $TUBELET_DATA, or the folder of the csv.
    start, rate:  of AVA, see `read_ava_tubes`; its videos are the files below the root that the csv names.
    Raises TubeletError for what is unknown or missing. Opens no video.
    """
    name, named = split_name(data)
    split, path = split or named, Path(name)
    if name not in NAMED and not path.is_file():
        raise TubeletError(f"no boxes {name!r}: jhmdb:SPLIT, ucf24:SPLIT or a csv of boxes is expected")
    check_options(name, [*(["split"] if split else []), *options], options_of_keyframes(path), GIVEN_BY_MODELS)
    if name in NAMED:
        folder = Path(root) if root is not None else data_root() / name
        tubes = read_named_tubes(name, folder)
        listings = jhmdb.splits(folder) if name == "jhmdb" else ucf24.splits(folder, tubes)
        split = choose_split(name, split, listings, train=bool(options.get("train")))
        return KeyframeClips(listings[split], tubes, **options)  # type: ignore[arg-type]
    if is_ava_csv(path):
        return _open_ava(path, root, **options)
    labels = options.pop("labels", None)
    tubes = read_boxes_csv(path, labels)  # type: ignore[arg-type]
    folder = Path(root) if root is not None else path.parent
    records = [Record(folder / name, found[0].label, name) for name, found in tubes.videos.items()]
    return KeyframeClips(Listing(path.stem, tubes.labels, records, Views()), tubes, **options)  # type: ignore[arg-type]


def options_of_keyframes(data: Path) -> list[str]:
    """The options that one of NAMED or a csv has, but for GIVEN_BY_MODELS."""
    own = ["split"] if str(data) in NAMED else ["labels", "start", "rate"] if is_ava_csv(data) else ["labels"]
    return [*own, "root", *keywords(KeyframeClips, but=GIVEN_BY_MODELS)]


def _open_ava(
    path: Path,
    root: str | Path | None,
    *,
    labels: Sequence[str] | None = None,
    start: float = START,
    rate: float = RATE,
    **options: Any,
) -> KeyframeClips:
    tubes = read_ava_tubes(path, start=start, rate=rate)
    if labels is not None and list(labels) != tubes.labels:
        first = next((pair for pair in zip(tubes.labels, labels, strict=False) if pair[0] != pair[1]), None)
        where = f": {first[0]!r} stands for {first[1]!r}" if first else ""
        raise TubeletError(
            f"{path}: its {len(tubes.labels)} classes are not the {len(labels)} that are needed{where}; names are "
            "those of the one pbtxt beside it"
        )
    folder = Path(root) if root is not None else path.parent
    files = videos_by_id(folder, list(tubes.videos))
    if not files:
        raise TubeletError(
            f"{folder} has no video by any of the {len(tubes.videos)} ids of {path}; root: FOLDER is needed"
        )
    records = [Record(file, tubes.videos[name][0].label, name) for name, file in files.items()]
    return KeyframeClips(Listing(path.stem, tubes.labels, records, Views()), tubes, **options)  # type: ignore[arg-type]
