"""The video with people drawn: when its frames are shown, how long a box stays, and where the captions lie."""

import pytest
import torch

from tests.data.videos import render_video
from tubelet.data import open_video
from tubelet.detection import Action, Answer, Detection
from tubelet.visualize.people import draw_people, tracks_of


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
