"""Runs a detector over AVA by the published rule of testing, writes AVA's own csv, and judges it.

    data = open_ava(model, "ava_val_v2.2.csv", root="films")
    looked = look_ava(model, data, ["none", "keyframe:keep=0.7"])      # spec -> rows, one a second of a film
    result = measured_ava(data, looked.rows["none"].values())          # an AvaResult: result.frame.at(0.5)

The rule: one clip around each second that has a box in the csv and is not excluded. Of it come the proposals that are
people by at least 0.7, or all where none is, cut at the picture, in shares of it; each with the score of every action,
that of the action alone. Nothing is suppressed or sorted: the order is that of proposals.

Boxes have 3 decimals and scores 4, as published files have them, so that the csv of `write_detections` judged by
`evaluate_ava` gives the same number. Seconds that a file lacks are left out of the truth, and so are films without one.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tubelet.data import transforms
from tubelet.data.datasets.ava import AvaBoxes, read_ava_csv, read_ava_excluded, write_ava_csv
from tubelet.data.datasets.ava_tubes import RATE, START, ava_map, excluded_beside, frame_numbers
from tubelet.data.datasets.base import clips_id
from tubelet.data.datasets.keyframes import KeyframeClips, open_keyframes
from tubelet.detection import kept_proposals
from tubelet.errors import TubeletError, VideoError
from tubelet.evaluation.ava import AvaResult, evaluate_ava
from tubelet.evaluation.data import check_labels, class_names
from tubelet.evaluation.people import (
    PERSON,
    Begin,
    Looked,
    answers,
    clip_options,
    clips_at,
    in_parts,
    key_frames,
    protocol,
    row_files,
)
from tubelet.evaluation.rows import OfVideo, file_name
from tubelet.evaluation.run import BATCH, chosen_videos, hashlib_of, variant, weights_id
from tubelet.models.base import VideoModel
from tubelet.models.evad import EVAD

MAP = 60  # classes of the official label map


@dataclass(frozen=True)
class AvaVideos:
    """What is judged.

    clips:    how they are made, and the films that are there;  truth: the boxes of all seconds that are not excluded
    names:    id -> name of the actions that are judged;  seconds: of each film of `clips`, those to look at
    start, rate:  the second of the film at which files begin, and their frames a second
    absent:   a sentence on each film that is not there, by its name;  notes: sentences on what is judged
    """

    clips: KeyframeClips
    truth: AvaBoxes
    names: dict[int, str]
    seconds: list[list[int]]
    start: float
    rate: float
    absent: dict[str, str]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class SeenSecond(OfVideo):
    """What a detector says at a second of a film, of n people.

    size:   (height, width) of the clip it was given;  fps: of the file
    boxes:  (n, 4), shares of the picture;  people: (n), scores;  actions: (n, classes), scores
    """

    second: int
    size: tuple[int, int]
    fps: float
    boxes: list[list[float]]
    people: list[float]
    actions: list[list[float]]


def open_ava(
    model: EVAD,
    data: str | Path,
    *,
    root: str | Path | None = None,
    excluded: str | Path | None = None,
    start: float = START,
    rate: float = RATE,
    **options: Any,
) -> AvaVideos:
    """AVA's csv of ground truth and its films, in the clips that a detector takes.

    Args:
        root: where the films lie, by default the folder of the csv; start, rate: see `read_ava_tubes`.
        excluded: the csv of (video, second) that are not judged, by default the one beside it (`excluded_beside`).
        options: of `KeyframeClips`, before what the model's preprocessing says.

    The one pbtxt beside the csv says which actions are judged; without one all are.
    Raises TubeletError for rows that are none, where no film is there, and where the classes are not the model's.
    """
    path, names = Path(data), class_names(model)
    given = {**clip_options(model), **({} if names is None else {"labels": names}), **options, "per_video": 1}
    clips = open_keyframes(path, root=root, start=start, rate=rate, **given)
    check_labels(names, model.num_classes, clips.labels, str(data))
    without = excluded_beside(path) if excluded is None else Path(excluded)
    left_out = set() if without is None else read_ava_excluded(without)
    boxes, judged = read_ava_csv(path), ava_map(path)
    truth = boxes.rows(np.array([at not in left_out for at in _places(boxes)], bool))
    of_film: dict[str, list[int]] = defaultdict(list)
    for name, second in sorted(truth.frames()):
        of_film[name].append(second)
    films, folder = [record.name for record, _ in clips.videos], path.parent if root is None else root
    if not set(films) & set(of_film):
        raise TubeletError(f"{data}: no second of its films is left, {without} excludes them")
    notes = []
    if not judged:
        every = f"all {len(clips.labels)} actions are judged; published figures are of the {MAP} of AVA's label map"
        notes.append(f"{data}: no single pbtxt is beside it, so {every}")
    if without is None:
        notes.append(f"{data}: no second is excluded; published figures leave out AVA's excluded timestamps")
    return AvaVideos(
        clips=clips,
        truth=truth,
        names=judged or dict(enumerate(clips.labels, start=1)),
        seconds=[of_film[name] for name in films],
        start=start,
        rate=rate,
        absent={name: f"{folder} has no video {name}" for name in set(of_film) - set(films)},
        notes=tuple(notes),
    )


def look_ava(
    model: EVAD,
    data: AvaVideos,
    selects: Sequence[str],
    *,
    every: int = 1,
    name: str = "",
    out: Path | None = None,
    title: str = "",
    limit: int | None = None,
    batch: int = BATCH,
    renew: bool = False,
    strict: bool = False,
    note: Callable[[str], None] = lambda sentence: None,
    begin: Begin = lambda total: lambda seconds: None,
) -> Looked[SeenSecond]:
    """What the detector says with each selection, at the same seconds; each film is decoded once for all of them.

    Args:
        every: look at one of so many annotated seconds of a film alone, for an estimate.
        name: of the data, for rows to say what they belong to.
        batch: key frames a forward pass; those of one film.
        out, title, limit (films), renew, strict: see `judge`; begin: called with the seconds that are left.

    Rows are written batch by batch, so that a killed run goes on within a film.
    """
    if every < 1:
        raise TubeletError(f"every must be at least 1, got {every}")
    copies = {select: variant(model, select) for select in dict.fromkeys(selects)}
    annotated = hashlib_of(data.seconds).hexdigest()[:8]
    times = {"every": every, "start": data.start, "rate": data.rate, "annotated": annotated}
    belonging = {
        "model": weights_id(model),
        "data": f"{name} ({clips_id(data.clips)})",
        "protocol": {**protocol(data.clips), **times},
    }
    bad: dict[str, str] = {}

    def missed(film: str, sentence: str) -> None:
        if strict:
            raise VideoError(sentence)
        bad[film] = sentence
        note(sentence)

    for name_of_film, sentence in sorted(data.absent.items()):
        missed(name_of_film, sentence)
    with row_files(copies, belonging, read_second, out, title, renew) as files:
        numbers = _numbers(data, every)
        films = {film: numbers[film] for film in chosen_videos(len(numbers), limit)}
        left = {
            film: {at: second for at, second in of.items() if any(at not in file.rows for file in files.values())}
            for film, of in films.items()
        }
        done = begin(sum(map(len, left.values())))
        for film, of in left.items():
            missing = {s: copies[s] for s, file in files.items() if any(at not in file.rows for at in of)}
            try:
                for rows in _seen(missing, data, film, of, batch) if of else ():
                    for select, new in rows.items():
                        files[select].add([row for row in new if row.index not in files[select].rows])
                    done(len(new))
            except (VideoError, OSError) as error:
                if not any(at in file.rows for at in films[film] for file in files.values()):
                    missed(data.clips.videos[film][0].name, str(error))
        wanted = [at for of in films.values() for at in of]
        found = {select: {at: file.rows[at] for at in wanted if at in file.rows} for select, file in files.items()}
    return Looked(found, every, bad, (*data.notes, *_about(data, films, next(iter(found.values())), bad)))


def read_second(values: dict[str, Any]) -> SeenSecond:
    """From its JSON. Raises KeyError, TypeError or ValueError if it is none."""
    height, width = values["size"]
    return SeenSecond(**{**values, "size": (height, width)})


def detections_of_ava(rows: Iterable[SeenSecond]) -> AvaBoxes:
    """Every person with every action, second by second, in the order of proposals.

    Raises TubeletError without a row.
    """
    rows = sorted(rows, key=lambda row: row.index)
    if not rows:
        raise TubeletError("no second to judge")
    films = sorted({row.name for row in rows})
    number = {name: at for at, name in enumerate(films)}
    people = [len(row.people) for row in rows]
    actions = np.concatenate([np.array(row.actions) for row in rows])  # (all people, classes)
    classes = actions.shape[1]
    return AvaBoxes(
        videos=tuple(films),
        video=np.repeat([number[row.name] for row in rows], people).repeat(classes),
        second=np.repeat([row.second for row in rows], people).repeat(classes),
        boxes=np.concatenate([np.array(row.boxes) for row in rows]).repeat(classes, axis=0),
        label=np.tile(np.arange(1, classes + 1), len(actions)),
        scores=actions.reshape(-1),
        source="the detections",
    )


def measured_ava(data: AvaVideos, rows: Iterable[SeenSecond]) -> AvaResult:
    """Frame-mAP at all thresholds, of the seconds that have a row alone.

    Empty boxes and actions outside of the map, which the rules leave out, are ordinary of a detector: no note on them.
    """
    rows = list(rows)
    seen = {(row.name, row.second) for row in rows}
    truth = data.truth.rows(np.array([at in seen for at in _places(data.truth)], bool))
    found = detections_of_ava(rows)
    whole = (found.boxes[:, :2] < found.boxes[:, 2:]).all(1)
    return evaluate_ava(truth, found.rows(whole & np.isin(found.label, list(data.names))), data.names)


def write_detections(folder: Path, looked: Looked[SeenSecond], title: str = "") -> list[Path]:
    """A csv of detections in AVA's format of each selection, which other evaluators read too."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for select, rows in looked.rows.items():
        path = (folder / file_name(*([title] if title else []), select)).with_suffix(".csv")
        part = path.with_name(f".{path.name}.part")
        write_ava_csv(part, detections_of_ava(rows.values()), scored=True)
        os.replace(part, path)
        paths.append(path)
    return paths


def _places(boxes: AvaBoxes) -> Iterator[tuple[str, int]]:
    """(video, second) of each box."""
    return ((boxes.videos[v], second) for v, second in zip(boxes.video.tolist(), boxes.second.tolist(), strict=True))


def _numbers(data: AvaVideos, every: int) -> list[dict[int, int]]:
    """Of each film, number -> second of those that are looked at; numbers count all seconds of all films."""
    first = np.cumsum([0, *map(len, data.seconds)]).tolist()
    return [
        {first[film] + at: seconds[at] for at in (key_frames(range(len(seconds)), every) if seconds else ())}
        for film, seconds in enumerate(data.seconds)
    ]


def _seen(
    models: Mapping[str, VideoModel], data: AvaVideos, film: int, seconds: Mapping[int, int], batch: int
) -> Iterator[dict[str, list[SeenSecond]]]:
    """The rows of each model, a batch at a time, of one pass through the film. seconds: by their numbers"""
    record = data.clips.videos[film][0]
    frames = frame_numbers(torch.tensor(list(seconds.values())), data.start, data.rate).tolist()
    number_of = dict(zip(frames, seconds, strict=True))

    def wanted(total: int) -> list[int]:
        there = [frame for frame in frames if frame < total]
        if not there:
            times = f"start {data.start:g}, rate {data.rate:g}"
            raise VideoError(f"the file has {total} frames, and the first with a box is {frames[0]} by {times}")
        return there

    for part in in_parts(clips_at(data.clips, record, wanted), batch):
        key, clips, infos = zip(*part, strict=True)
        x = torch.stack([transforms.normalize(clip, data.clips.mean, data.clips.std) for clip in clips])
        said = {}
        for select, model in models.items():
            boxes, people, actions = answers(model, x, (1, 1))
            kept = kept_proposals(people, PERSON, all_if_none=True)  # (B, Q)
            said[select] = [
                SeenSecond(
                    index=number_of[frame],
                    name=record.name,
                    source=record.name,
                    second=seconds[number_of[frame]],
                    size=(x.shape[3], x.shape[4]),
                    fps=round(info.fps, 3),
                    boxes=_rounded(boxes[at, kept[at]], 3),
                    people=_rounded(people[at, kept[at]], 6),
                    actions=_rounded(actions[at, kept[at]], 4),
                )
                for at, (frame, info) in enumerate(zip(key, infos, strict=True))
            ]
        yield said


def _rounded(values: Tensor, decimals: int) -> Any:
    return values.numpy().astype(np.float64).round(decimals).tolist()


def _about(
    data: AvaVideos, films: Mapping[int, Mapping[int, int]], rows: Mapping[int, SeenSecond], bad: Mapping[str, str]
) -> list[str]:
    """What is odd about the films: sentences."""
    notes = []
    names = {film: data.clips.videos[film][0].name for film in films}
    wanted = [
        (at, names[film], second) for film, of in films.items() if names[film] not in bad for at, second in of.items()
    ]
    if lacking := [(name, second) for at, name, second in wanted if at not in rows]:
        name, second = lacking[0]
        notes.append(
            f"{len(lacking)} of {len(wanted)} seconds are not in their files, such as {second} of {name}: not judged"
        )
    rates = {row.name: row.fps for row in rows.values() if abs(row.fps - data.rate) > 0.5}
    if rates:
        name, fps = next(iter(rates.items()))
        notes.append(
            f"{len(rates)} films have other than {data.rate:g} frames a second, such as {name} with {fps:g}: boxes and "
            "pictures do not belong together unless rate says so"
        )
    return notes
