"""From a video to people and what they do: key frames, a clip around each, the detector, boxes linked to persons.

>>> model = open_detector()  # the detector that comes with the package
>>> for found in detect(model, "clip.mp4").detections:
...     print(found.time, found.person, found.box, found.actions)
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tubelet.checkpoints import default_detector, load_model
from tubelet.data import keyframe, transforms
from tubelet.data.clips import missing_warning
from tubelet.data.sampling import around
from tubelet.data.video import VideoReader, reader_of
from tubelet.devices import device_of
from tubelet.errors import TubeletError, VideoError
from tubelet.inference import refuse_untrained
from tubelet.models.boxes import clipped, pair_iou, whwh
from tubelet.models.evad import EVAD, Predictions

RATE = 2.0  # key frames a second
THRESHOLD = 0.5
SAME_BOX = 0.7  # IoU from which two boxes of a key frame are one person: the surer one stays
SAME_PERSON = 0.3  # IoU from which boxes of two key frames that follow each other are one person
PATIENCE = 2  # key frames that a person may be unseen and still be the same one

Box = tuple[float, float, float, float]
Progress = Callable[[int, int], None]  # called with key frames done, key frames in all


@dataclass(frozen=True)
class Action:
    label: str
    score: float


@dataclass(frozen=True)
class Detection:
    """A person on a key frame.

    frame:   its number in the video, from 0;  time: seconds from the first
    box:     x1, y1, x2, y2 in pixels of the video
    person:  who, from 1: the same number on other key frames is the same person
    score:   how sure it is a person;  actions: what they do, surest first, which do not exclude each other
    """

    frame: int
    time: float
    box: Box
    person: int
    score: float
    actions: tuple[Action, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "frame": self.frame,
            "time": self.time,
            "box": list(self.box),
            "person": self.person,
            "score": self.score,
            "actions": [{"label": action.label, "score": action.score} for action in self.actions],
        }


@dataclass(frozen=True)
class Answer:
    """What a detector says about one video.

    size:      (width, height), after rotation;  key_frames: the frames that were looked at
    warnings:  sentences on what is missing from the file
    """

    video: str
    fps: float
    size: tuple[int, int]
    model: str
    select: str
    detections: tuple[Detection, ...]
    key_frames: tuple[int, ...]
    threshold: float
    seconds: float
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "video": self.video,
            "fps": self.fps,
            "size": list(self.size),
            "model": self.model,
            "select": self.select,
            "threshold": self.threshold,
            "key_frames": list(self.key_frames),
            "seconds": self.seconds,
            "detections": [one.to_json() for one in self.detections],
        }


def open_detector(source: str | Path | None = None, *, select: str | None = None, device: str = "cpu") -> EVAD:
    """A detector with weights, ready to answer.

    Args:
        source: what tubelet.load_model takes; None is the detector that comes with the package.
        select: a selection spec instead of the one saved with the weights; "none" is the dense model.
        device: "cpu", "cuda" or "cuda:1".

    Raises TubeletError for a name without weights, and for a model that is no detector.
    """
    where = device_of(device)
    model = load_model(default_detector() if source is None else source, select=select)
    if not isinstance(model, EVAD):
        raise TubeletError(f"{source} is a classifier, which says nothing of where: tubelet classify takes it")
    refuse_untrained(model)
    return model.to(where)


def detect(
    model: EVAD,
    path: str | Path,
    *,
    threshold: float = THRESHOLD,
    action_threshold: float | None = None,
    topk: int = 3,
    rate: float = RATE,
    stride: int | None = None,
    backend: str = "auto",
    name: str | None = None,
    progress: Progress = lambda done, total: None,
) -> Answer:
    """Say who does what on the key frames of a video, in bounded memory however long it is.

    Args:
        model: of open_detector or tubelet.load_model.
        threshold: what is less sure is not reported, neither people nor their actions.
        action_threshold: for the actions, instead of it.
        topk: how many actions of each person are reported at most.
        rate: key frames a second; a video has at least one, and at most all of its frames.
        stride: frames of the video from one frame of a clip to the next, instead of that saved with the model.
        backend: that decodes, see tubelet.data.open_video.
        name: of the model, for the answer.
        progress: called with key frames done and in all.

    Raises VideoError if the file yields no frame, TubeletError for options that are not allowed.
    """
    actions_from = threshold if action_threshold is None else action_threshold
    for option, value in (("threshold", threshold), ("action_threshold", actions_from)):
        if not 0 <= value <= 1:
            raise TubeletError(f"{option} must be from 0 to 1, got {value}")
    if topk < 1:
        raise TubeletError(f"topk must be at least 1, got {topk}")
    p = model.config.preprocessing
    short = p.size if isinstance(p.size, int) else min(p.size)
    open_reader = reader_of(backend)
    began = time.perf_counter()
    with open_reader(path) as reader:
        slots = key_slots(len(reader.timeline), reader.info.fps, rate)
        clips = KeyClips(reader, slots, p.frames, stride or p.stride, partial(keyframe.resized, short=short))
        info, times = reader.info, reader.timeline.seconds()
        links = Links()
        detections: list[Detection] = []
        looked_at = []
        for done, (frame, clip) in enumerate(clips, start=1):
            prepared = transforms.normalize(clip, p.mean, p.std)
            found = people(model, prepared, (info.height, info.width), threshold)
            numbers = links.next([box for box, _, _ in found])
            for (box, score, scores), number in zip(found, numbers, strict=True):
                best = scores.topk(min(topk, len(scores)))
                actions = tuple(
                    Action(model.config.id2label.get(index, str(index)), value)
                    for value, index in zip(best.values.tolist(), best.indices.tolist(), strict=True)
                    if value >= actions_from
                )
                detections.append(Detection(frame, float(times[frame]), box, number, score, actions))
            looked_at.append(frame)
            progress(done, len(clips.key_frames))
    return Answer(
        video=str(path),
        fps=info.fps,
        size=(info.width, info.height),
        model=name or model.config.model,
        select=model.config.select,
        detections=tuple(detections),
        key_frames=tuple(looked_at),
        threshold=threshold,
        seconds=time.perf_counter() - began,
        warnings=missing_warning(info, clips.readable),
    )


def key_slots(total: int, fps: float, rate: float) -> list[int]:
    """The key frames, evenly spaced, the first half a space after the beginning; at least one."""
    if not rate > 0:
        raise TubeletError(f"rate must be above 0 key frames a second, got {rate}")
    every = max(round(fps / rate), 1)
    return list(range(min(every // 2, (total - 1) // 2), total, every))


class KeyClips:
    """The clip around each key slot of a video, which is decoded once from beginning to end.

    Iterating gives (frame, uint8 (T, h, w, 3)). Held are the frames that this clip and later ones still need, and these
    reach no further than a clip does. A frame that cannot be decoded is replaced by the nearest one held.
    by_time:  slots are moments of a regular time line (see `data.timeline`), and a frame that is shown at several of
              them is a key frame once, by the first; otherwise slots are numbers of frames, as annotations count them
    key_frames:  the frames of the slots;  readable: how many frames could be decoded
    """

    def __init__(
        self,
        reader: VideoReader,
        slots: Sequence[int],
        frames: int,
        stride: int,
        transform: Callable[[Tensor], Tensor],
        *,
        by_time: bool = True,
    ) -> None:
        if stride < 1:
            raise TubeletError(f"stride must be at least 1, got {stride}")
        self.reader, self.transform, self.readable = reader, transform, 0
        total = len(reader.timeline)
        flat = [slot for key in slots for slot in (key, *around(total, key, frames, stride))]
        taken = reader.timeline.frames_of(flat) if by_time else flat
        rows = [taken[at : at + frames + 1] for at in range(0, len(taken), frames + 1)]
        if by_time:
            rows = [next(same) for _, same in groupby(rows, key=itemgetter(0))]
        self.key_frames, self.clips = [row[0] for row in rows], [row[1:] for row in rows]

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        needed = Counter(frame for clip in self.clips for frame in set(clip))
        held: dict[int, Tensor] = {}
        last: tuple[int, Tensor] | None = None  # the last one decoded, as it came
        at = 0
        for frame, picture in self.reader.frames():
            self.readable += 1
            last = frame, picture
            if needed[frame]:
                held[frame] = self.transform(picture[None])[0]
            while at < len(self.clips) and max(self.clips[at]) <= frame:
                yield self.key_frames[at], self._assemble(self.clips[at], held, last)
                at += 1
                first = min(self.clips[at]) if at < len(self.clips) else frame
                held = {index: one for index, one in held.items() if index >= first}
        if last is None:
            raise VideoError(f"{self.reader.info.path}: none of its {self.reader.info.frames} frames can be decoded")
        for key, clip in zip(self.key_frames[at:], self.clips[at:], strict=True):
            if key <= last[0] or not at:  # what is cut off has no key frames; but one at least is answered
                yield min(key, last[0]), self._assemble(clip, held, last)
                at += 1

    def _assemble(self, clip: Sequence[int], held: dict[int, Tensor], last: tuple[int, Tensor]) -> Tensor:
        nearby = held or {last[0]: self.transform(last[1][None])[0]}
        return torch.stack([nearby[min(nearby, key=lambda other: abs(other - frame))] for frame in clip])


@torch.inference_mode()
def people(model: EVAD, clip: Tensor, original: tuple[int, int], threshold: float) -> list[tuple[Box, float, Tensor]]:
    """Who is on the key frame of a clip (3, T, H, W): boxes in a picture of `original` (height, width), person scores
    and action scores (classes), surest first; without those that cover a surer one."""
    found = model([clip.to(next(model.parameters()).device)])
    boxes, scores = scaled_boxes(found, [original])[0].cpu(), found.person_scores[0].cpu()
    actions = found.action_scores[0].cpu()
    kept: list[int] = []
    for index in scores.argsort(descending=True, stable=True).tolist():
        if scores[index] < threshold:
            break
        if not kept or float(pair_iou(boxes[index], boxes[kept])[0].max()) < SAME_BOX:
            kept.append(index)
    return [((*boxes[index].tolist(),), float(scores[index]), actions[index]) for index in kept]


def scaled_boxes(found: Predictions, originals: Sequence[tuple[int, int]]) -> Tensor:
    """(B, Q, 4): the last head's boxes within the picture, in pixels of pictures of these (height, width)."""
    boxes = clipped(found.boxes[-1].float(), found.sizes)
    return boxes * (whwh(torch.tensor(originals, dtype=torch.float32, device=boxes.device)) / whwh(found.sizes))


def kept_proposals(scores: Tensor, threshold: float, *, all_if_none: bool = False) -> Tensor:
    """Which proposals (B, Q) are people: bool.

    all_if_none: the rule of the published evaluation, which keeps every proposal of a frame where none passes.
    """
    kept = scores >= threshold
    return kept | ~kept.any(dim=1, keepdim=True) if all_if_none else kept


class Links:
    """Numbers for people: the same for boxes of key frames that follow each other and overlap most."""

    def __init__(self) -> None:
        self.count = 0
        self.seen: dict[int, tuple[Sequence[float], int]] = {}  # person: last box, key frames since

    def next(self, boxes: Sequence[Sequence[float]]) -> list[int]:
        """The number of each box of the next key frame."""
        persons = list(self.seen)
        numbers: dict[int, int] = {}
        if boxes and persons:
            now = torch.tensor(boxes, dtype=torch.float32)
            before = torch.tensor([self.seen[person][0] for person in persons], dtype=torch.float32)
            overlap = pair_iou(now[:, None], before)[0]  # (boxes, persons)
            for flat in overlap.flatten().argsort(descending=True, stable=True).tolist():
                box, person = divmod(flat, len(persons))
                if overlap[box, person] < SAME_PERSON:
                    break
                if box not in numbers and persons[person] not in numbers.values():
                    numbers[box] = persons[person]
        for box in range(len(boxes)):
            if box not in numbers:
                self.count += 1
                numbers[box] = self.count
        here = {numbers[i]: (box, 0) for i, box in enumerate(boxes)}
        waiting = {who: (box, since + 1) for who, (box, since) in self.seen.items() if since < PATIENCE}
        self.seen = {**waiting, **here}
        return [numbers[i] for i in range(len(boxes))]
