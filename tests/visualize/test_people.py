"""The video with people drawn: when its frames are shown, how long a box stays, and where the captions lie."""

from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.data.videos import render_video
from tubelet.data import open_video
from tubelet.detection import Action, Answer, Detection
from tubelet.visualize import font
from tubelet.visualize.people import COLOURS, NOWHERE, annotated, draw_people, lines_of, placed, tracks_of


def seen(frame, box=(10.0, 20.0, 30.0, 60.0), person=1, score=0.9):
    return Detection(frame, frame / 10, box, person, score, (Action("walk", 0.8), Action("run", 0.7)))


def answer(*detections, keys):
    return Answer("v.mp4", 10.0, (100, 80), "m", "none", detections, keys, 0.5, 1.0)


@pytest.mark.parametrize("stamps", [[*range(10), *range(100, 110)], list(range(20))])
def test_each_frame_is_shown_when_that_of_the_video_is(tmp_path, stamps):
    path = render_video(tmp_path / "v.mp4", 20, rate=10, stamps=stamps)
    draw_people(path, tmp_path / "drawn.mp4", answer(seen(2), keys=(2, 12)))
    with open_video(path) as source, open_video(tmp_path / "drawn.mp4") as drawn:
        assert drawn.info.variable == source.info.variable
        assert torch.allclose(drawn.timeline.seconds(), source.timeline.seconds(), atol=1e-4)


def test_who_is_on_the_first_and_the_last_key_frame_is_there_to_the_ends():
    (always,) = tracks_of(answer(seen(7), seen(22), keys=(7, 22)))
    assert all(always.at(frame) for frame in range(37))  # a whole space follows the last key frame
    (early,) = tracks_of(answer(seen(7), keys=(7, 22)))
    assert [frame for frame in range(37) if early.at(frame)] == list(range(15))
    (late,) = tracks_of(answer(seen(22), keys=(7, 22)))
    assert [frame for frame in range(37) if late.at(frame)] == list(range(15, 37))


@st.composite
def crowds(draw):
    width, height = draw(st.integers(8, 48)), draw(st.integers(8, 48))
    count = draw(st.integers(1, 7))
    size = st.tuples(st.integers(3, 30), st.integers(3, 16))
    side = st.integers(-10, 60)  # also outside of the picture
    edges = [sorted(draw(st.lists(side, min_size=2, max_size=2, unique=True))) for _ in range(2 * count)]
    boxes = [(x[0], y[0], x[1], y[1]) for x, y in zip(edges[::2], edges[1::2], strict=True)]
    before = [draw(st.sampled_from([NOWHERE, (0, 0), (5, 9)])) for _ in range(count)]
    return draw(st.lists(size, min_size=count, max_size=count)), boxes, before, width, height


def overlap(a, b):
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@given(crowds())
def test_captions_are_in_the_picture_and_over_no_other_while_there_is_room(crowd):
    sizes, boxes, before, width, height = crowd
    places = placed(sizes, torch.tensor(boxes).float(), torch.tensor(before).float(), width, height).tolist()
    for at, ((wide, high), (left, top, right, bottom)) in enumerate(zip(sizes, places, strict=True)):
        assert 0 <= left and 0 <= top and right <= width and bottom <= height
        assert (right - left, bottom - top) == (min(wide, width), min(high, height))
        if any(overlap(places[at], other) for other in places[:at]):
            for x, y in product(range(width - min(wide, width) + 1), range(height - min(high, height) + 1)):
                assert any(overlap((x, y, x + wide, y + high), other) for other in places[:at])


def test_a_caption_is_beside_its_box_and_over_nobody():
    boxes = torch.tensor([[100.0, 60, 140, 180], [150, 60, 190, 180], [120, 70, 170, 180]])
    sizes, nowhere = [(60, 20)] * 3, torch.tensor([NOWHERE] * 3)
    assert placed(sizes[:1], boxes[:1], nowhere[:1], 320, 240).tolist() == [[100, 40, 160, 60]]  # above it
    one_above = torch.tensor([[100.0, 60, 140, 180], [100, 0, 140, 58], [100, 185, 140, 240]])
    for crowd in (boxes, one_above):
        for place, box in zip(placed(sizes, crowd, nowhere, 320, 240).tolist(), crowd.tolist(), strict=True):
            left, top, right, bottom = place
            assert not any(overlap(place, other) for other in crowd.tolist())
            assert overlap((left - 1, top - 1, right + 1, bottom + 1), box)  # touches it


@pytest.mark.parametrize("box", [(0, 0, 10, 10), (20, 10, 30, 20), (-5, -5, 60, 60)])
def test_captions_may_fill_the_picture(box):
    places = placed([(10, 10)] * 6, torch.tensor([box] * 6).float(), torch.tensor([NOWHERE] * 6), 30, 20)
    assert sorted(places[:, :2].tolist()) == [[x, y] for x in (0, 10, 20) for y in (0, 10)]


def test_a_caption_stays_where_it_was_on_the_frame_before():
    boxes = torch.tensor([[100.0, 60, 140, 180]])
    for corner in ([100.0, 180.0], [140.0, 160.0]):
        (place,) = placed([(60, 20)], boxes, torch.tensor([corner]), 320, 240)
        assert place[:2].tolist() == corner


def test_a_crowd_has_a_line_each_and_the_surest_is_on_top():
    colours = [torch.tensor(colour, dtype=torch.uint8) for colour in COLOURS]

    def ground(drawn, who):
        return int((drawn == colours[who - 1]).all(-1).sum())

    crowd = [seen(5, (20.0 * who, 60.0, 20.0 * who + 18, 100.0), who, who / 10) for who in range(1, 8)]
    lines = [lines_of(one) for one in crowd]
    assert lines[0] == ["1 walk 0.80", "run 0.70"]
    alone, among = annotated(picture(120, 160), crowd[:1]), annotated(picture(120, 160), crowd)
    assert ground(among, 1) < 0.75 * ground(alone, 1)
    full = [seen(5, (0.0, 0.0, 12.0, 12.0), who, score) for who, score in ((1, 0.5), (2, 0.9), (3, 0.7))]
    drawn = annotated(picture(11, 12), full)  # no room but for one
    assert ground(drawn, 2) and not ground(drawn, 1) and not ground(drawn, 3)


@pytest.mark.parametrize(("short", "dots"), [(144, 8), (256, 8), (480, 16), (720, 24), (1080, 32)])
def test_letters_are_a_thirtieth_of_the_picture(monkeypatch, short, dots):
    heights = []
    monkeypatch.setattr(
        font, "text", lambda line, scale: heights.append(8 * scale) or torch.zeros(8 * scale, 5 * scale) > 0
    )
    annotated(picture(short, short), [seen(5)])
    assert set(heights) == {dots}


def picture(height, width):
    return torch.full((height, width, 3), 90, dtype=torch.uint8)
