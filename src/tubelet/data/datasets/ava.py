"""AVA: people and their actions in one frame a second. Its csv files, the label map, and what goes wrong with them.

Rows are video,second,x1,y1,x2,y2,label[,person] of ground truth and video,second,x1,y1,x2,y2,label,score of detections,
without a header. Boxes are shares of the picture, seconds those of the whole film (902 to 1798), labels count from 1.
A row of only video,second is a frame without people.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tubelet.data.datasets.text import csv_rows, read_text
from tubelet.errors import TubeletError

SHARE = 1.5  # a side above it is no share of the picture, however far the box reaches out of it

WHOLE = 2**31  # seconds and labels are below it


@dataclass(frozen=True, eq=False)
class AvaBoxes:
    """Rows in the order of their file.

    videos: the names;  video: int64 (n,), number of the name of each row;  second: int64 (n,);  label: int64 (n,)
    boxes:  float64 (n, 4), shares of the picture;  scores: float64 (n,), 1 where the file has none
    source: what to call them in messages
    """

    videos: tuple[str, ...]
    video: NDArray[np.int64]
    second: NDArray[np.int64]
    boxes: NDArray[np.float64]
    label: NDArray[np.int64]
    scores: NDArray[np.float64]
    source: str = "the boxes"

    def __len__(self) -> int:
        return len(self.video)

    def rows(self, which: NDArray) -> AvaBoxes:
        """Those that a mask or a list of numbers takes, in its order."""
        boxes, label, scores = self.boxes[which], self.label[which], self.scores[which]
        return AvaBoxes(self.videos, self.video[which], self.second[which], boxes, label, scores, self.source)

    def frames(self) -> set[tuple[str, int]]:
        """The (video, second) that have a row."""
        order = np.lexsort((self.second, self.video))
        video, second = self.video[order], self.second[order]
        new = (np.diff(video, prepend=-1) != 0) | (np.diff(second, prepend=-1) != 0)
        return {
            (self.videos[number], time) for number, time in zip(video[new].tolist(), second[new].tolist(), strict=True)
        }


def ava_boxes(
    video: Sequence[str],
    second: Sequence[int] | NDArray,
    boxes: Sequence[Sequence[float]] | NDArray,
    label: Sequence[int] | NDArray,
    scores: Sequence[float] | NDArray | None = None,
    source: str = "the boxes",
) -> AvaBoxes:
    """Rows from columns of equal length. Raises TubeletError where they are not."""
    names, number = np.unique(np.asarray(video, str), return_inverse=True)
    found = AvaBoxes(
        tuple(names.tolist()),
        number.reshape(-1).astype(np.int64),
        np.asarray(second, np.int64).reshape(-1),
        np.asarray(boxes, np.float64).reshape(-1, 4),
        np.asarray(label, np.int64).reshape(-1),
        np.ones(len(number)) if scores is None else np.asarray(scores, np.float64).reshape(-1),
        source,
    )
    lengths = [len(column) for column in (found.video, found.second, found.boxes, found.label, found.scores)]
    if len(set(lengths)) > 1:
        raise TubeletError(f"{source}: columns of different length: video, second, boxes, label, scores have {lengths}")
    return found


def read_ava_csv(path: str | Path, *, scored: bool = False) -> AvaBoxes:
    """Ground truth, or if `scored` detections, whose eighth column is the score (1 where no row has one).

    Raises TubeletError that names the line of what is no such row.
    """
    path = Path(path)
    rows = _rows(path)
    people = [row for row in rows if len(row) != 2]  # a row of two: a frame without people
    try:
        if any(len(row) not in (7, 8) for row in people) or (scored and len({len(row) for row in people}) > 1):
            raise ValueError
        numbers = np.array([row[1:7] for row in people], np.float64).reshape(-1, 6)
        scores = np.array([row[7] if scored and len(row) == 8 else 1 for row in people], np.float64)
        whole = [numbers[:, 0], numbers[:, 5], np.array([row[1] for row in rows if len(row) == 2], np.float64)]
        if not (np.isfinite(numbers).all() and np.isfinite(scores).all() and all(_whole(one).all() for one in whole)):
            raise ValueError
    except ValueError:
        raise TubeletError(_bad_row(path, scored)) from None
    return ava_boxes([row[0] for row in people], numbers[:, 0], numbers[:, 1:5], numbers[:, 5], scores, str(path))


def write_ava_csv(path: str | Path, boxes: AvaBoxes, *, scored: bool = False) -> None:
    """Boxes of 3 decimals and, if `scored`, scores of 4, as published files have them: rounding can move a match."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        columns = (boxes.video.tolist(), boxes.second.tolist(), boxes.boxes.tolist(), boxes.label, boxes.scores)
        for video, second, sides, label, score in zip(*columns, strict=True):
            row = [boxes.videos[video], f"{second:04d}", *(f"{side:.3f}" for side in sides), label]
            writer.writerow([*row, f"{score:.4f}"] if scored else row)


def read_ava_excluded(path: str | Path) -> set[tuple[str, int]]:
    """The (video, second) that are not judged: rows of video,second."""
    rows = _rows(Path(path))
    try:
        return excluded_frames((video, second) for video, second in rows)
    except ValueError:
        raise TubeletError(f"{path}: needs rows of video,second") from None


def excluded_frames(frames: Iterable[tuple[str, int | str]]) -> set[tuple[str, int]]:
    """(video, second) with seconds as numbers; "0902" is one. Raises TubeletError for what is no such pair."""
    if not isinstance(frames, Iterable):
        raise TubeletError(f"excluded are (video, second), such as ('a', 902); got {frames!r}")
    found = set()
    for frame in frames:
        try:
            video, second = frame
            if not _whole(np.array([second], np.float64)).all():
                raise ValueError
        except (TypeError, ValueError):
            raise TubeletError(f"excluded are (video, second), such as ('a', 902); got {frame!r}") from None
        found.add((str(video), int(float(second))))
    return found


def read_label_map(path: str | Path) -> dict[int, str]:
    """id -> name, in order, of a pbtxt with entries `item {name: "" id: 1}` or `label {name: "" label_id: 1 ...}`."""
    path = Path(path)
    # Comments end with their line; a # between quotes begins none.
    text = re.sub(r"""("[^"\n]*"|'[^'\n]*')|#[^\n]*""", lambda found: found[1] or "", read_text(path))
    found: dict[int, str] = {}
    for entry in re.findall(r"\b(?:item|label)\s*:?\s*\{(.*?)\}", text, re.DOTALL):
        name = re.search(r"""\bname\s*:\s*(["'])(.*?)\1""", entry)
        number = re.search(r"\b(?:label_)?id\s*:\s*(\d+)", entry)
        if name is None or number is None:
            raise TubeletError(f"{path}: the entry {' '.join(entry.split())!r} needs a name and an id")
        if len(number[1].lstrip("0")) > len(str(WHOLE)) or (key := int(number[1])) >= WHOLE:
            raise TubeletError(f"{path}: the id of {name[2]!r} is not below {WHOLE}")
        if key in found:
            raise TubeletError(f"{path}: the id {key} stands for {found[key]!r} and for {name[2]!r}")
        found[key] = name[2]
    if not found:
        raise TubeletError(f'{path}: needs entries such as item {{ name: "stand" id: 12 }}')
    return found


def is_ava_csv(path: Path) -> bool:
    """Whether the first row with a box is one of AVA: no header, a name, a second, four numbers, a label."""
    if not path.is_file():
        return False
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        rows = (line.strip().split(",") for line in file)
        cells = next((row for row in rows if len(row) != 2), [])
    try:
        return len(cells) in (7, 8) and bool(np.isfinite(np.array(cells[1:], np.float64)).all())
    except ValueError:
        return False


def row_problems(boxes: AvaBoxes, labels: Collection[int] | None = None) -> tuple[list[str], list[str]]:
    """What is wrong with the rows of one file: (sentences on what makes them useless, sentences on what is odd).

    labels:  the ids that there are
    """
    wrong, odd = [], []
    if not len(boxes):
        return [f"{boxes.source}: no box in it"], []
    reach = np.abs(boxes.boxes).max(1)
    if np.median(reach) > SHARE:
        row = boxes.boxes[int(np.argmax(reach))].tolist()
        wrong.append(
            f"{boxes.source}: boxes seem to be pixels, such as {row}; shares of the picture are needed (0 to 1)"
        )
    elif (far := reach > SHARE).any():
        row = boxes.boxes[int(np.argmax(reach))].tolist()
        odd.append(
            f"{boxes.source}: {_count(far)} far outside of the picture, such as {row}; sides are shares (0 to 1)"
        )
    empty = _empty(boxes)
    if empty.any():
        told = wrong if empty.all() else odd
        row, corners = boxes.boxes[empty][0].tolist(), "x1 < x2 and y1 < y2"
        size = boxes.boxes[empty][:, 2:] + boxes.boxes[empty][:, :2]
        hint = "; x, y, width, height instead of corners?" if empty.mean() > 0.2 and (size <= SHARE).all() else ""
        told.append(f"{boxes.source}: {_count(empty)} empty, such as {row}; {corners} are needed{hint}")
    if ((boxes.scores < 0) | (boxes.scores > 1)).any():
        bounds = f"{boxes.scores.min():g} to {boxes.scores.max():g}"
        odd.append(f"{boxes.source}: scores are from {bounds}, not 0 to 1; is the last column the number of a person?")
    if labels is not None:
        known = np.isin(boxes.label, list(labels))
        have = f"labels {boxes.label.min()} to {boxes.label.max()}"
        if not known.any():
            wrong.append(f"{boxes.source}: has {have}, none of the {len(labels)} of the map ({_some(sorted(labels))})")
        elif not known.all():
            others = _some(np.unique(boxes.label[~known]))
            hint = "; does it count from 0, where the map does not?" if boxes.label.min() == 0 < min(labels) else ""
            odd.append(f"{boxes.source}: {_count(~known)} have labels outside of the map ({others}): not judged{hint}")
    return wrong, odd


def pair_problems(truth: AvaBoxes, detections: AvaBoxes) -> tuple[list[str], list[str]]:
    """What does not match between two files; as `row_problems`."""
    wrong: list[str] = []
    odd: list[str] = []
    true_videos, videos = set(_used(truth)), set(_used(detections))
    if not true_videos or not videos:
        return [], []
    common = true_videos & videos
    names = f"{detections.source} and {truth.source}"
    if not common:
        example = f"{min(videos)!r} here, {min(true_videos)!r} there"
        stems = {_stem(name) for name in videos} & {_stem(name) for name in true_videos}
        hint = "; without folders and suffixes they do" if stems else ""
        wrong.append(f"{names}: no video id is in both ({example}){hint}")
        return wrong, odd
    if missing := sorted(true_videos - videos):
        odd.append(f"{detections.source}: nothing in {len(missing)} of {len(true_videos)} videos ({_some(missing)})")
    if more := sorted(videos - true_videos):
        odd.append(f"{detections.source}: {len(more)} videos without ground truth ({_some(more)}): all there is false")
    true_frames, frames = truth.frames(), detections.frames()
    if not true_frames & frames:
        a, b = min(frame for frame in frames if frame[0] in common), min(f for f in true_frames if f[0] in common)
        hint = _time_hint(sorted({second for _, second in frames}), sorted({second for _, second in true_frames}))
        wrong.append(f"{names}: no second is in both ({a[0]} has {a[1]} here, {b[0]} has {b[1]} there){hint}")
    elif (shared := len(true_frames & frames)) < len(true_frames) / 2:
        odd.append(f"{detections.source}: something in {shared} of {len(true_frames)} frames that have ground truth")
    if detections.label.min(initial=1) == 0 and truth.label.min(initial=1) > 0:
        odd.append(f"{detections.source}: labels count from 0, those of {truth.source} from {truth.label.min()}")
    return wrong, odd


def _time_hint(here: list[int], there: list[int]) -> str:
    """What the same times may be called in the two."""
    ways = {
        "they count from the 900th second": [second + 900 for second in here],
        "they are frames, 30 a second, from the 900th second": [frame // 30 + 900 for frame in here if frame % 30 == 0],
        "they are frames, 30 a second": [frame // 30 for frame in here if frame % 30 == 0],
        "they are milliseconds": [time // 1000 for time in here if time % 1000 == 0],
    }
    for way, seconds in ways.items():
        if len(set(seconds) & set(there)) >= max(len(here) / 2, 1):
            return f"; {way}, it seems"
    return ""


def _whole(numbers: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which are whole numbers that a second or label can be; nan and infinity are none."""
    return (np.abs(numbers) < WHOLE) & (numbers % 1 == 0)


def _empty(boxes: AvaBoxes) -> NDArray[np.bool_]:
    return (boxes.boxes[:, 2] <= boxes.boxes[:, 0]) | (boxes.boxes[:, 3] <= boxes.boxes[:, 1])


def _used(boxes: AvaBoxes) -> list[str]:
    return [boxes.videos[number] for number in np.unique(boxes.video)]


def _stem(name: str) -> str:
    return Path(name).name.partition(".")[0]


def _count(which: NDArray) -> str:
    return f"{int(which.sum())} of {len(which)} boxes"


def _some(names: Sequence[object] | NDArray) -> str:
    return ", ".join(map(str, names[:3])) + (", ..." if len(names) > 3 else "")


def _rows(path: Path) -> list[list[str]]:
    return [row for _, row in csv_rows(path)]


def _bad_row(path: Path, scored: bool) -> str:
    """The first line that is none, told slowly."""
    needed = f"video,second,x1,y1,x2,y2,label{',score' if scored else '[,person]'}"
    columns = 0
    for line, row in csv_rows(path):
        if len(row) not in (2, 7, 8):
            return f"{path}: line {line} has {len(row)} columns; needed: {needed}"
        cells = chain(row[1:7], row[7:8] if scored else ())
        for column, cell in enumerate(cells, start=2):
            try:
                value = float(cell)
            except ValueError:
                value = np.nan
            whole = column in (2, 7)
            if not np.isfinite(value) or (whole and not _whole(np.array([value]))[0]):
                kind = "a whole number" if whole else "a number"
                most = f" below {WHOLE}" if abs(value) >= WHOLE else ""
                return f"{path}: line {line}, column {column} has {cell!r}, {kind}{most} is needed; {needed}"
        if scored and len(row) > 2:
            if columns and len(row) != columns:
                return f"{path}: line {line} has {len(row)} columns, others have {columns}; needed: {needed}"
            columns = len(row)
    return f"{path}: needs rows of {needed}"
