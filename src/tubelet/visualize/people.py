"""A video with the people that a detector found: a box and what they do, a colour an actor.

>>> draw_people("clip.mp4", "annotated.mp4", detect(model, "clip.mp4"))
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from tubelet.data.video import open_video
from tubelet.data.write import write_video
from tubelet.detection import Answer, Detection
from tubelet.visualize import font
from tubelet.visualize.draw import BACKGROUND, Colour

# Bright enough to stand out, dark text is written on them; neighbours in the list differ most.
COLOURS: tuple[Colour, ...] = (
    (255, 176, 0), (64, 196, 255), (255, 105, 150), (120, 220, 90), (200, 150, 255), (255, 235, 90), (60, 220, 190),
    (255, 140, 90), (150, 175, 255), (225, 225, 225),
)  # fmt: skip
SMALL, LARGE = 200, 720  # pixels of the short side: below, letters are small; from here on, large


def draw_people(
    path: str | Path,
    out: str | Path,
    answer: Answer,
    *,
    backend: str = "auto",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write the video with boxes to an .mp4. Between key frames boxes move evenly; memory holds one picture.

    Each frame is shown when that of the video is, at a constant rate or not.
    progress: called with frames done and in all.
    """
    tracks = tracks_of(answer)
    with open_video(path, backend=backend) as reader:
        total = len(reader.timeline)

        def frames() -> Iterator[Tensor]:
            done = 0
            for index, picture in reader.frames():
                drawn = annotated(picture, [track.at(index) for track in tracks])
                while done <= index:  # a frame that cannot be decoded is stood in for by the next one
                    yield drawn
                    done += 1
                progress(done, total)

        times = reader.timeline.seconds().tolist() if reader.info.variable else None
        write_video(out, frames(), fps=answer.fps, times=times)


class Track:
    """One person through the video, of which `keys` are the key frames."""

    def __init__(self, seen: Sequence[Detection], keys: Sequence[int]) -> None:
        self.seen, self.frames = seen, [one.frame for one in seen]
        space = max((then - before for before, then in pairwise(keys)), default=0)
        self.reach, self.gap = space / 2, 3 * space
        # No key frame says that who is on the first one was not there before, or who is on the last one not after.
        self.begin = self.frames[0] - self.reach if self.frames[0] > keys[0] else float("-inf")
        self.end = self.frames[-1] + self.reach if self.frames[-1] < keys[-1] else float("inf")

    def at(self, frame: int) -> Detection | None:
        """Where the person is on a frame, None if not there: between two key frames on the way from one to the other,
        and half a space before the first and after the last, or to the end of the video where these are the first or last
        key frame of all. Actions are those of the nearest key frame."""
        if not self.begin <= frame <= self.end:
            return None
        after = bisect_right(self.frames, frame)
        before, then = self.seen[max(after - 1, 0)], self.seen[min(after, len(self.seen) - 1)]
        space = then.frame - before.frame
        if space == 0:
            return before
        part = (frame - before.frame) / space
        if space > self.gap:  # unseen for long: near the key frames alone
            if min(frame - before.frame, then.frame - frame) > self.reach:
                return None
            return before if part < 0.5 else then
        box = tuple(a + part * (b - a) for a, b in zip(before.box, then.box, strict=True))
        nearest = before if part < 0.5 else then
        return Detection(frame, nearest.time, box, nearest.person, nearest.score, nearest.actions)  # type: ignore[arg-type]


def tracks_of(answer: Answer) -> list[Track]:
    people: dict[int, list[Detection]] = {}
    for one in answer.detections:
        people.setdefault(one.person, []).append(one)
    return [Track(seen, answer.key_frames) for seen in people.values()]


def annotated(picture: Tensor, people: Sequence[Detection | None]) -> Tensor:
    """uint8 (H, W, 3) -> the same with a box and lines of text for each person."""
    picture = picture.clone()
    short = min(picture.shape[:2])
    scale = 1 if short < SMALL else 2 if short < LARGE else 3
    there = [one for one in people if one is not None]
    for one in there:
        outline(picture, one.box, COLOURS[(one.person - 1) % len(COLOURS)], 2 * scale - 1)
    taken: list[tuple[int, int, int, int]] = []  # by text, which lies over all boxes
    for one in there:
        lines = [f"{action.label} {action.score:.2f}" for action in one.actions]
        first = f"{one.person}" if lines else f"{one.person} person {one.score:.2f}"
        lines = [f"{first} {lines[0]}", *lines[1:]] if lines else [first]
        taken.append(caption(picture, one.box, lines, COLOURS[(one.person - 1) % len(COLOURS)], scale, taken))
    return picture


def outline(picture: Tensor, box: Sequence[float], colour: Colour, thick: int) -> None:
    """The edges of a box, in place; what lies outside the picture is cut."""
    height, width = picture.shape[:2]
    x1, y1, x2, y2 = (round(side) for side in box)
    x1, x2, y1, y2 = max(x1, 0), min(x2, width - 1), max(y1, 0), min(y2, height - 1)
    if x2 < x1 or y2 < y1:
        return
    fill = torch.tensor(colour, dtype=torch.uint8)
    picture[y1 : y1 + thick, x1 : x2 + 1] = fill
    picture[max(y2 + 1 - thick, 0) : y2 + 1, x1 : x2 + 1] = fill
    picture[y1 : y2 + 1, x1 : x1 + thick] = fill
    picture[y1 : y2 + 1, max(x2 + 1 - thick, 0) : x2 + 1] = fill


def caption(
    picture: Tensor,
    box: Sequence[float],
    lines: Sequence[str],
    colour: Colour,
    scale: int,
    taken: Sequence[tuple[int, int, int, int]] = (),
) -> tuple[int, int, int, int]:
    """Lines on a ground of the box's colour, in place: above the box, inside at its top or bottom, or below it, the
    first of these that is in the picture and not taken. Returns where: left, top, right, bottom."""
    height, width = picture.shape[:2]
    margin = 2 * scale
    dots = [font.text(line, scale) for line in lines]
    step = font.HEIGHT * scale + margin
    wide, high = max(one.shape[1] for one in dots) + 2 * margin, step * len(dots) + margin
    left = min(max(round(box[0]), 0), max(width - wide, 0))
    upper, lower = round(box[1]), round(box[3]) + 1
    places = [(left, top, left + wide, top + high) for top in (upper - high, upper, lower - high, lower)]
    inside = [place for place in places if place[1] >= 0 and place[3] <= height]
    free = [place for place in inside if not any(_overlap(place, other) for other in taken)]
    fallback = (left, max(height - high, 0), left + wide, height)
    _, top, _, _ = chosen = (free or inside or [fallback])[0]
    picture[top : top + high, left : left + wide] = torch.tensor(colour, dtype=torch.uint8)
    ink = torch.tensor(BACKGROUND, dtype=torch.uint8)
    for number, one in enumerate(dots):
        place = picture[top + margin + number * step :, left + margin :]
        shown = one[: place.shape[0], : place.shape[1]]
        place[: shown.shape[0], : shown.shape[1]][shown] = ink
    return chosen


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
