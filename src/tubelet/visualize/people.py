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
from torch.nn.functional import pad

from tubelet.data.video import open_video
from tubelet.data.write import write_video
from tubelet.detection import Answer, Detection
from tubelet.models.boxes import area, shared_area
from tubelet.visualize import font
from tubelet.visualize.draw import BACKGROUND, Colour

# Bright enough to stand out, dark text is written on them; neighbours in the list differ most.
COLOURS: tuple[Colour, ...] = (
    (255, 176, 0), (64, 196, 255), (255, 105, 150), (120, 220, 90), (200, 150, 255), (255, 235, 90), (60, 220, 190),
    (255, 140, 90), (150, 175, 255), (225, 225, 225),
)  # fmt: skip
LETTERS, EDGES = 240, 150  # the short side is as many dots of letters high, and edges of boxes
COVERED = 0.25  # share of an actor that captions of several lines may cover
# What speaks against a place for a caption, where 1 is to cover an actor:
FAR = 2.0  # to be as far from its box as the short side is long
MOVED, NEAR = 0.2, 0.1  # to be elsewhere than on the frame before: this part of the short side away, less in proportion
TAKEN = 1e3  # to lie over another caption, whatever else there is
CROWD = 16  # beside so many earlier captions a place is looked for: all pairs of their sides are tried
NOWHERE = (float("inf"), float("inf"))


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
            corners: Corners = {}
            for index, picture in reader.frames():
                drawn = annotated(picture, [track.at(index) for track in tracks], corners)
                while done <= index:  # a frame that cannot be decoded is stood in for by the next one
                    yield drawn
                    done += 1
                progress(done, total)

        times = reader.timeline.seconds().tolist() if reader.info.variable else None
        write_video(out, frames(), fps=answer.fps, times=times)


Corners = dict[int, tuple[float, float]]  # person: left, top of the caption


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
        and half a space before the first and after the last, or to the ends of the video from the first and the last
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


def annotated(picture: Tensor, people: Sequence[Detection | None], corners: Corners | None = None) -> Tensor:
    """uint8 (H, W, 3) -> the same with a box and lines of text for each person, the surest on top.

    Each has one line, of the surest action, where more would lie over each other or over much of an actor.
    corners: where captions were on the frame before, which they stay near where they can; made those of this one
    """
    picture, corners = picture.clone(), {} if corners is None else corners
    height, width = picture.shape[:2]
    scale, thick = (max(round(min(height, width) / parts), 1) for parts in (LETTERS, EDGES))
    there = sorted((one for one in people if one is not None), key=lambda one: one.score, reverse=True)
    if not there:
        return picture
    boxes = torch.tensor([one.box for one in there]).round()
    before = torch.tensor([corners.get(one.person, NOWHERE) for one in there])
    for lines in (None, 1):
        texts = [written(lines_of(one)[:lines], scale) for one in there]
        places = placed([(text.shape[1], text.shape[0]) for text in texts], boxes, before, width, height)
        covered = shared_area(places[:, None], boxes).sum(dim=0) / area(boxes).clamp(min=1)
        if not shared_area(places[:, None], places).triu(diagonal=1).any() and covered.max() <= COVERED:
            break
    corners.clear()
    corners.update({one.person: (place[0], place[1]) for one, place in zip(there, places.tolist(), strict=True)})
    colours = [COLOURS[(one.person - 1) % len(COLOURS)] for one in there]
    for one, colour in zip(reversed(there), reversed(colours), strict=True):
        outline(picture, one.box, colour, thick)
    for text, place, colour in reversed(list(zip(texts, places.long().tolist(), colours, strict=True))):
        left, top, right, bottom = place
        ink, ground = torch.tensor([BACKGROUND, colour], dtype=torch.uint8)
        dots = text[: bottom - top, : right - left, None]
        picture[top:bottom, left:right] = torch.where(dots, ink, ground)
    return picture


def lines_of(one: Detection) -> list[str]:
    """Who it is and what they do, an action a line, surest first."""
    if not one.actions:
        return [f"{one.person} person {one.score:.2f}"]
    first, *others = (f"{action.label} {action.score:.2f}" for action in one.actions)
    return [f"{one.person} {first}", *others]


def written(lines: Sequence[str], scale: int) -> Tensor:
    """The dots of a caption with a margin around: bool (height, width)."""
    margin = 2 * scale
    dots = [font.text(line, scale) for line in lines]
    wide = max(one.shape[1] for one in dots)
    rows = [pad(one, (margin, margin + wide - one.shape[1], margin, 0)) for one in dots]
    return pad(torch.cat(rows), (0, 0, 0, margin // 2))  # a letter has an empty row below


def placed(sizes: Sequence[tuple[int, int]], boxes: Tensor, before: Tensor, width: int, height: int) -> Tensor:
    """Where captions of these (width, height) lie, one for each box (n, 4), first come first served: (n, 4).

    They are within the picture (cut to it where larger) and over no earlier one while there is room; beyond that over
    little of anyone, near their box, and near their corner (n, 2) of the frame before.
    """
    short = min(width, height)
    within = boxes.clamp(min=0).minimum(boxes.new_tensor([width, height, width, height]))
    taken = boxes.new_zeros(0, 4)
    for (wide, high), box, corner in zip(sizes, within, before, strict=True):
        wide, high = min(wide, width), min(high, height)
        size = boxes.new_tensor([wide, high])
        # Beside each side of the box and of earlier captions. A free place, if any, can be pushed to the left and up
        # until it touches one of these or the edge of the picture, so that none is missed.
        x1, y1, x2, y2 = torch.cat([box[None], taken[-CROWD:]]).T
        left = torch.cat([x1[:1], x2[:1] - wide, x2, x1 - wide, x1.new_zeros(1)]).clamp(0, width - wide)
        top = torch.cat([y1 - high, y2, y2[:1] - high, y1[:1], y1.new_zeros(1)]).clamp(0, height - high)
        corners = torch.cartesian_prod(top, left).flip(1)
        places = torch.cat([corners, corners + size], dim=1)
        away = torch.maximum(places[:, :2] - box[2:], box[:2] - places[:, 2:]).clamp(min=0).sum(dim=1) / short
        moved = ((corners - corner).abs().amax(dim=1) / short / NEAR).clamp(max=1)
        hidden = (shared_area(places[:, None], within) / area(within).clamp(min=1)).sum(dim=1)
        over = shared_area(places[:, None], taken).sum(dim=1)
        cost = hidden + FAR * away + MOVED * moved + torch.where(over > 0, TAKEN + over, 0)
        taken = torch.cat([taken, places[cost.argmin()][None]])
    return taken


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
