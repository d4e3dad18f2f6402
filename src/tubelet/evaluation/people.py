"""Runs a detector, as it is and with selections, over annotated videos, and judges it by frame-mAP and video-mAP.

    dataset = open_people(model, "jhmdb:split1_test")
    looked = look(model, dataset, ["none", "keyframe:keep=0.7"])      # spec -> rows, one a video
    result = measured(dataset, looked.rows["none"].values())          # a TubeResult: result.frame.at(0.5)

Of the annotated frames of a video every `every`-th is a key frame, and these alone are judged: they are numbered 0, 1,
2, ... in detections and truth, so that a tube runs from one key frame to the next; where no true tube does, a number is
left out (`numbered`). With every=1 these are the published numbers of trimmed videos such as
JHMDB's. Otherwise they are estimates from a part of the frames, in which
- boxes of key frames that follow each other are linked if they overlap by 0.5 / every, since people move further from
  one to the next: with 0.5 the ground truth itself would lose tubes;
- a tube has at least 15 / every key frames (rounded down), in the place of 15 frames;
- the overlap of tubes is that on the key frames.
Frames without any true box are not looked at, as some evaluators do (`TubeRules.frames`): on untrimmed videos such as
UCF101-24's, false alarms there are not counted. With `all_frames` they are: key frames are every `every`-th of all
frames of a video, and none of their numbers is left out. Frames that the file lacks are left out of the truth.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from tubelet.data import keyframe, transforms
from tubelet.data.check.leaks import source_of
from tubelet.data.datasets.ava import is_ava_csv
from tubelet.data.datasets.base import clips_id
from tubelet.data.datasets.keyframes import KeyframeClips, annotated_frames, open_keyframes
from tubelet.data.datasets.listing import Record
from tubelet.data.datasets.registry import READERS, split_name
from tubelet.data.datasets.tubes import Tube, Tubes
from tubelet.data.video import VideoInfo, open_video
from tubelet.detection import KeyClips, kept_proposals, scaled_boxes
from tubelet.errors import TubeletError, VideoError
from tubelet.evaluation.data import check_labels, class_names
from tubelet.evaluation.detections import Detections
from tubelet.evaluation.rows import Belonging, Memory, OfVideo, RowFile, file_name
from tubelet.evaluation.run import BATCH, chosen_videos, variant, weights_id
from tubelet.evaluation.tubes import EDGES, TubeResult, TubeRules, evaluate_tubes
from tubelet.models.base import VideoModel
from tubelet.models.evad import EVAD, Predictions

T = TypeVar("T")
R = TypeVar("R", bound=OfVideo)
Begin = Callable[[int], Callable[[int], None]]  # called with how many are left, gives what is called as they are done

EVERY = 4
RULES = ("joint", "published")
PERSON = 0.7  # the published rule takes proposals from here
LEAST = 1e-3  # what scores less is not judged: it would stand behind everything else, and there is much of it


@dataclass(frozen=True)
class Seen(OfVideo):
    """All that a detector says on the F key frames of a video, of its Q proposals.

    size:    (height, width) of the clips it was given;  frames: (F), numbers of the key frames
    boxes:   (F, Q, 4), in pixels of the annotation;  people: (F, Q), scores;  actions: (F, Q, classes), scores
    """

    size: tuple[int, int]
    frames: list[int]
    boxes: list[list[list[float]]]
    people: list[list[float]]
    actions: list[list[list[float]]]


@dataclass(frozen=True)
class Looked(Generic[R]):
    """selects -> rows by index;  bad: name -> sentence of each video that could not be read;  every: see `look`.

    all_frames: see `look`;  notes: sentences on what was looked at
    """

    rows: dict[str, dict[int, R]]
    every: int = EVERY
    bad: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    all_frames: bool = False


def open_people(
    model: EVAD, data: str | Path, *, split: str | None = None, root: str | Path | None = None, **options: Any
) -> KeyframeClips:
    """Annotated videos as `open_keyframes` finds them, in the clips that a detector takes.

    `per_video`, of the validation of a training, is not taken over: `look` chooses key frames by `every`.
    Raises TubeletError for AVA, where there are no boxes, and where the classes are not those of the model.
    """
    options.pop("per_video", None)
    name, named = split_name(data)
    given, names = clip_options(model), class_names(model)
    if is_ava_csv(Path(name)):
        raise TubeletError(f"{name}: AVA is judged by its own rules: tubelet.evaluation.ava_people (docs/detection.md)")
    if names is not None and name not in READERS:
        given["labels"] = names
    dataset = open_keyframes(name, split=split or named, root=root, **{**given, **options})
    check_labels(names, model.num_classes, dataset.labels, str(data))
    return dataset


def clip_options(model: EVAD) -> dict[str, Any]:
    """Options of `KeyframeClips`: the clips that a detector takes."""
    p = model.config.preprocessing
    short = p.size if isinstance(p.size, int) else min(p.size)
    return {"frames": p.frames, "stride": p.stride, "short": short, "mean": p.mean, "std": p.std}


def look(
    model: EVAD,
    dataset: KeyframeClips,
    selects: Sequence[str],
    *,
    every: int = EVERY,
    all_frames: bool = False,
    data: str = "",
    out: Path | None = None,
    title: str = "",
    limit: int | None = None,
    batch: int = BATCH,
    renew: bool = False,
    strict: bool = False,
    note: Callable[[str], None] = lambda sentence: None,
    begin: Begin = lambda total: lambda videos: None,
) -> Looked[Seen]:
    """What the detector says with each selection, on the same key frames; each video is decoded once for all of them.

    Args:
        every: a key frame each so many annotated frames, the first half a space after the beginning.
        all_frames: each so many frames, annotated or not.
        batch: key frames a forward pass; those of one video.
        data, out, title, limit, renew, strict, begin: see `judge`. Rows are written as videos are done.

    Memory holds the resized frames that a batch of clips reaches, not the video.
    """
    if every < 1:
        raise TubeletError(f"every must be at least 1, got {every}")
    copies = {select: variant(model, select) for select in dict.fromkeys(selects)}
    belonging = {
        "model": weights_id(model),
        "data": f"{data} ({clips_id(dataset)})",
        "protocol": {**protocol(dataset), "every": every, "annotated": annotation_id(dataset)}
        | ({"all_frames": True} if all_frames else {}),
    }
    bad: dict[str, str] = {}
    with row_files(copies, belonging, read_seen, out, title, renew) as files:
        chosen = chosen_videos(len(dataset.videos), limit)
        left = [index for index in chosen if any(index not in file.rows for file in files.values())]
        done = begin(len(left))
        for index in left:
            missing = {select: copies[select] for select, file in files.items() if index not in file.rows}
            try:
                rows = _seen(missing, dataset, index, every, batch, all_frames)
            except (VideoError, OSError) as error:
                if strict:
                    raise
                bad[dataset.videos[index][0].name] = str(error)
                note(str(error))
            else:
                for select, row in rows.items():
                    files[select].add([row])
            done(1)
        wanted = set(chosen)
        rows_of = {s: {i: row for i, row in file.rows.items() if i in wanted} for s, file in files.items()}
        return Looked(rows_of, every, bad, all_frames=all_frames)


@contextmanager
def row_files(
    selects: Iterable[str],
    belonging: Mapping[str, Any],
    read: Callable[[dict[str, Any]], R],
    out: Path | None,
    title: str,
    renew: bool,
) -> Iterator[dict[str, RowFile[R] | Memory[R]]]:
    """What is kept of each selection, in memory alone where `out` is None; closed at the end."""
    files: dict[str, RowFile[R] | Memory[R]] = {}
    try:
        for select in selects:
            path = None if out is None else out / file_name(*([title] if title else []), select)
            own = Belonging(select=select, **belonging)
            files[select] = Memory() if path is None else RowFile(path, own, read, renew=renew)
        yield files
    finally:
        for file in files.values():
            file.close()


def protocol(dataset: KeyframeClips) -> dict[str, Any]:
    """How clips are made, for rows to say what they belong to."""
    return {key: getattr(dataset, key) for key in ("frames", "stride", "short", "longest", "mean", "std")}


def annotation_id(dataset: KeyframeClips) -> str:
    """The same for the same annotated frames of the same videos: other ones would be other key frames."""
    frames = [(record.name, annotated_frames(tubes).tolist()) for record, tubes in dataset.videos]
    return sha256(repr(frames).encode()).hexdigest()[:8]


def read_seen(values: dict[str, Any]) -> Seen:
    """From its JSON. Raises KeyError, TypeError or ValueError if it is none."""
    height, width = values["size"]
    return Seen(**{**values, "size": (height, width)})


def key_frames(annotated: Sequence[int], every: int) -> list[int]:
    """Every `every`-th of some frames, the first half a space after the beginning; at least one."""
    return list(annotated[min(every, len(annotated)) // 2 :: every])


def clips_of(
    dataset: KeyframeClips, index: int, every: int, all_frames: bool = False
) -> Iterator[tuple[int, Tensor, tuple[int, int]]]:
    """(key frame, uint8 (T, h, w, 3), (height, width) of the video) of each key frame that the file has.

    Raises VideoError or OSError if it cannot be read.
    """
    record, tubes = dataset.videos[index]
    annotated = annotated_frames(tubes).tolist()

    def wanted(total: int) -> list[int]:
        there = [frame for frame in annotated if frame < total]
        if not there:
            raise VideoError(f"the file has {total} frames, and the first with a box is {annotated[0]}")
        return key_frames(range(total) if all_frames else there, every)

    for frame, clip, info in clips_at(dataset, record, wanted):
        yield frame, clip, (info.height, info.width)


def clips_at(
    dataset: KeyframeClips, record: Record, wanted: Callable[[int], Sequence[int]]
) -> Iterator[tuple[int, Tensor, VideoInfo]]:
    """(key frame, uint8 (T, h, w, 3), what the file says) of those that are wanted of as many frames as there are.

    Raises VideoError or OSError if the file cannot be read.
    """
    resize = partial(keyframe.resized, short=dataset.short, longest=dataset.longest)
    try:
        with open_video(record.path, backend=dataset.backend) as reader:
            frames = wanted(len(reader.timeline))
            clips = KeyClips(reader, frames, dataset.frames, dataset.stride, resize, by_time=False)
            for number, (frame, clip) in zip(frames, clips, strict=False):
                if frame == number:  # otherwise it lies behind the last one that can be decoded
                    yield frame, clip, reader.info
    except (TubeletError, RuntimeError, MemoryError) as error:
        reason = " ".join(str(error).split())
        raise VideoError(reason if str(record.path) in reason else f"{record.path}: {reason}") from error


def numbered(frames: Sequence[int], tubes: Sequence[Tube]) -> list[int]:
    """Numbers of the key frames of a video: 0, 1, 2, ..., and one left out where no true tube goes on over the gap.

    Untrimmed video is annotated in stretches: without it one's end would be linked to the beginning of the next.
    """
    there = torch.stack([torch.isin(torch.tensor(frames), tube.frames) for tube in tubes])  # (tubes, key frames)
    goes_on = (there[:, :-1].cummax(dim=1).values & there[:, 1:].flip(1).cummax(dim=1).values.flip(1)).any(dim=0)
    return [0, *accumulate(1 if on else 2 for on in goes_on.tolist())]


def truth_of(dataset: KeyframeClips, rows: Iterable[Seen], all_frames: bool = False) -> Tubes:
    """The true tubes on the key frames of each row, which are `numbered` or, of all frames, 0, 1, 2, ..."""
    videos = {}
    for row in rows:
        tubes = dataset.videos[row.index][1]
        count = range(len(row.frames)) if all_frames else numbered(row.frames, tubes)
        of_row, numbers = torch.tensor(row.frames), torch.tensor(count)
        videos[row.name] = [
            Tube(tube.label, numbers[at], tube.boxes[place], tube.person)
            for tube in tubes
            for at, place in [(of_row[:, None] == tube.frames).nonzero().unbind(1)]
            if len(at)
        ]
    return Tubes(dataset.labels, dataset.tubes.size, videos)


def detections_of(rows: Iterable[Seen], rule: str = RULES[0], dataset: KeyframeClips | None = None) -> Detections:
    """What is judged: each proposal of each key frame with each action.

    dataset: what was looked at, for the numbers of key frames; without it they are 0, 1, 2, ...
    rule:  "joint": the score is that of the person times that of the action, at least LEAST.
           "published": that of the action alone, of proposals that are people by at least 0.7, or of all where none of
           a frame is
    """
    if rule not in RULES:
        raise TubeletError(f"rule {rule!r}; there are {', '.join(RULES)}")
    rows, columns = list(rows), []
    for number, row in enumerate(rows):
        people, actions = np.array(row.people, np.float32), np.array(row.actions, np.float32)  # (F, Q), (F, Q, classes)
        if rule == "joint":
            scores = people[..., None] * actions
            judged = scores >= LEAST
        else:
            scores = actions
            kept = kept_proposals(torch.from_numpy(people), PERSON, all_if_none=True).numpy()
            judged = np.broadcast_to(kept[..., None], scores.shape)
        frame, proposal, label = np.nonzero(judged)
        boxes = np.array(row.boxes, np.float32)[frame, proposal, None]  # (n, 1, 4)
        tubes = [] if dataset is None else dataset.videos[row.index][1]
        numbers = np.array(numbered(row.frames, tubes) if tubes else range(len(row.frames)))
        columns.append((np.full_like(frame, number), numbers[frame], label, boxes, scores[frame, proposal, label]))
    if not columns:
        raise TubeletError("no video to judge")
    video, frame, label, boxes, scores = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    return Detections(tuple(row.name for row in rows), video, frame, label, boxes, scores)


def rules_for(every: int) -> TubeRules:
    """The published rules, of boxes from edge to edge; of key frames that are `every` frames apart, see above."""
    return replace(EDGES, shortest=max(EDGES.shortest // every, 1), link=EDGES.link / every)


def measured(
    dataset: KeyframeClips,
    rows: Iterable[Seen],
    *,
    every: int = EVERY,
    rule: str = RULES[0],
    all_frames: bool = False,
) -> TubeResult:
    """Frame-mAP and video-mAP at all thresholds. `every` and `all_frames` as they were in `look`."""
    rows = sorted(rows, key=lambda row: row.index)
    found = detections_of(rows, rule, None if all_frames else dataset)
    return evaluate_tubes(truth_of(dataset, rows, all_frames), found, rules=rules_for(every))


def clip_size(sizes: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """(height, width) of most clips."""
    return Counter(sizes).most_common(1)[0][0]


def _seen(
    models: Mapping[str, VideoModel], dataset: KeyframeClips, index: int, every: int, batch: int, all_frames: bool
) -> dict[str, Seen]:
    """A row of each model, of one pass through the video."""
    record, annotated_size = dataset.videos[index][0], dataset.tubes.size
    frames: list[int] = []
    said: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {select: [] for select in models}
    size = (0, 0)
    for part in in_parts(clips_of(dataset, index, every, all_frames), batch):
        numbers, clips, originals = zip(*part, strict=True)
        frames += numbers
        size = (clips[0].shape[1], clips[0].shape[2])
        whole = originals[0] if annotated_size is None else (annotated_size[1], annotated_size[0])
        x = torch.stack([transforms.normalize(clip, dataset.mean, dataset.std) for clip in clips])
        for select, model in models.items():
            said[select].append(answers(model, x, whole))
    if not frames:
        raise VideoError(f"{record.path}: none of its frames with boxes can be decoded")
    rows = {}
    for select, parts in said.items():
        boxes, people, actions = (torch.cat(column).numpy().astype(np.float64) for column in zip(*parts, strict=True))
        rows[select] = Seen(
            index=index,
            name=record.name,
            source=source_of(record.path) or record.name,
            size=size,
            frames=frames,
            boxes=boxes.round(2).tolist(),
            people=people.round(6).tolist(),
            actions=actions.round(6).tolist(),
        )
    return rows


def in_parts(items: Iterable[T], size: int) -> Iterator[list[T]]:
    some = iter(items)
    while part := list(islice(some, size)):
        yield part


@torch.inference_mode()
def answers(model: VideoModel, clips: Tensor, original: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Clips (B, 3, T, H, W) -> boxes (B, Q, 4) in a picture of `original` (height, width), scores (B, Q) of people
    and (B, Q, classes) of actions."""
    found: Predictions = model(clips.to(next(model.parameters()).device))
    boxes = scaled_boxes(found, [original] * len(clips))
    return boxes.cpu(), found.person_scores.cpu(), found.action_scores.cpu()
