"""Detecting in a video: which frames, in bounded memory, who is who, and nothing below the threshold."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.data.videos import render_video
from tests.tiny import tiny_detector
from tubelet.data import open_video, write_video
from tubelet.data.sampling import around
from tubelet.detection import KeyClips, Links, detect, kept_proposals, key_slots, people
from tubelet.errors import TubeletError


def numbered(path, frames, height=16, width=32, fps=10):
    """Each frame tells its number by its brightness."""
    video = torch.stack([torch.full((height, width, 3), 2 * t % 250, dtype=torch.uint8) for t in range(frames)])
    write_video(path, video, fps=fps)
    return path


@given(st.integers(1, 500), st.sampled_from([10.0, 29.97, 60.0]), st.sampled_from([0.1, 1.0, 2.0, 30.0, 1000.0]))
def test_key_frames_are_evenly_spaced(total, fps, rate):
    slots = key_slots(total, fps, rate)
    every = max(round(fps / rate), 1)
    assert slots and 0 <= slots[0] and slots[-1] < total
    assert {b - a for a, b in zip(slots, slots[1:], strict=False)} <= {every}
    assert slots[0] <= every / 2 and total - slots[-1] <= every


def test_clips_are_those_that_reading_each_alone_would_give(tmp_path):
    path = numbered(tmp_path / "v.mp4", 60)

    def transform(frames):
        return frames[:, ::2, ::2]

    with open_video(path) as reader, open_video(path) as other:
        slots = key_slots(60, 10.0, 2.0)
        clips = KeyClips(reader, slots, 8, 3, transform)
        found = list(clips)
        assert [frame for frame, _ in found] == slots and clips.readable == 60
        for frame, clip in found:
            assert torch.equal(clip, other.read(around(60, frame, 8, 3), transform))


def test_a_frame_that_is_shown_for_long_is_a_key_frame_once(model, tmp_path):
    stamps = [*range(40), *range(190, 230)]  # a still of six seconds, as in the recording of a screen
    path = render_video(tmp_path / "v.mp4", 80, stamps=stamps)
    calls = []
    found = detect(model, path, threshold=0.0, progress=lambda *at: calls.append(at))
    keys = found.key_frames
    assert 39 in keys and list(keys) == sorted(set(keys))
    assert calls == [(done, len(keys)) for done in range(1, len(keys) + 1)]
    reported = [(one.frame, one.person) for one in found.detections]
    assert reported and len(set(reported)) == len(reported)
    assert len(detect(model, path, threshold=1.0, rate=1000).key_frames) <= 80
    with open_video(path) as reader:  # annotations count frames: each slot is one
        clips = KeyClips(reader, [4, 39, 39, 60], 4, 2, lambda frames: frames, by_time=False)
        assert [frame for frame, _ in clips] == [4, 39, 39, 60]


def test_memory_holds_no_more_than_a_clip_reaches(tmp_path):
    path = numbered(tmp_path / "v.mp4", 200)
    alive = []

    class Counted:
        """Stands for a resized picture and counts those that are there."""

    def transform(frames):
        made = frames[:, :1, :1].clone()
        alive.append(torch.utils.weak.WeakTensorKeyDictionary())
        alive[-1][made] = 1
        return made

    with open_video(path) as reader:
        for _ in KeyClips(reader, key_slots(200, 10.0, 1.0), 8, 2, transform):
            assert sum(len(one) for one in alive) <= 8 * 2 + 8 + 2


def test_a_file_that_is_cut_short_gives_the_key_frames_that_are_there(tmp_path):
    path = numbered(tmp_path / "v.mp4", 60)
    with open_video(path) as reader:
        frames = reader.frames

        class Short:
            info, timeline = reader.info, reader.timeline

            def frames(self):
                return ((index, picture) for index, picture in frames() if index < 23 and index not in (11, 12))

        clips = KeyClips(Short(), [2, 12, 22, 32, 42], 4, 2, lambda frames: frames)
        found = dict(clips)
    assert list(found) == [2, 12, 22] and clips.readable == 21
    assert [int(one.float().mean().round()) // 2 for one in found[12]][0] == 8
    assert abs(float(found[12][2].float().mean()) / 2 - 12) < 3  # the nearest one that there is


@pytest.fixture(scope="module")
def model():
    """People everywhere: half of the proposals are sure."""
    made = tiny_detector(select="keyframe:keep=0.7@2")
    made.config.id2label = dict(enumerate(("stand", "walk", "run", "jump", "wave", "sit", "fall")))
    return made


def test_nothing_below_the_threshold(model, tmp_path):
    path = numbered(tmp_path / "v.mp4", 40, 48, 80)
    everything = detect(model, path, threshold=0.0, topk=7)
    assert everything.key_frames == (2, 7, 12, 17, 22, 27, 32, 37) and everything.detections
    assert all(len(one.actions) == 7 for one in everything.detections)
    scores = sorted(one.score for one in everything.detections)
    threshold = scores[len(scores) // 2]
    some = detect(model, path, threshold=threshold, topk=2)
    assert 0 < len(some.detections) < len(everything.detections)
    for one in some.detections:
        assert one.score >= threshold and len(one.actions) <= 2
        assert all(action.score >= threshold for action in one.actions)
        assert [a.score for a in one.actions] == sorted((a.score for a in one.actions), reverse=True)
        x1, y1, x2, y2 = one.box
        assert 0 <= x1 <= x2 <= 80 and 0 <= y1 <= y2 <= 48
        assert one.time == pytest.approx(one.frame / 10)
    own = detect(model, path, threshold=threshold, action_threshold=0.0, topk=7)
    assert [len(one.actions) for one in own.detections] == [7] * len(some.detections)
    assert detect(model, path, threshold=1.0).detections == ()


@pytest.mark.parametrize(("frames", "size"), [(1, (48, 80)), (4, (48, 80)), (30, (90, 40)), (5, (2, 40))])
def test_short_portrait_and_thin_videos(model, tmp_path, frames, size):
    found = detect(model, numbered(tmp_path / "v.mp4", frames, *size), threshold=0.0, rate=1)
    assert found.size == size[::-1] and len(found.key_frames) >= 1
    assert all(0 <= one.box[2] <= size[1] and 0 <= one.box[3] <= size[0] for one in found.detections)


def test_people_that_cover_a_surer_one_are_left_out(model):
    clip = torch.randn(3, 8, 64, 96)
    with torch.no_grad():
        found = model([clip])
    assert len(people(model, clip, (64, 96), 0.0)) <= found.boxes.shape[2]
    boxes = [box for box, _, _ in people(model, clip, (64, 96), 0.0)]
    from tubelet.models.boxes import pair_iou

    iou = pair_iou(torch.tensor(boxes)[:, None], torch.tensor(boxes))[0]
    assert (iou.fill_diagonal_(0) < 0.7).all()


def test_options_that_cannot_be(model, tmp_path):
    path = numbered(tmp_path / "v.mp4", 4)
    for options, says in (
        ({"threshold": 1.5}, "threshold must be from 0 to 1, got 1.5"),
        ({"action_threshold": -1}, "action_threshold must be from 0 to 1"),
        ({"topk": 0}, "topk must be at least 1"),
        ({"rate": 0}, "rate must be above 0"),
        ({"stride": -1}, "stride must be at least 1"),
    ):
        with pytest.raises(TubeletError, match=says):
            detect(model, path, **options)


def test_links_follow_the_box_that_overlaps_most():
    links = Links()
    assert links.next([(0, 0, 10, 10), (20, 0, 30, 10)]) == [1, 2]
    assert links.next([(21, 0, 31, 10), (1, 0, 11, 10)]) == [2, 1]
    assert links.next([(60, 0, 70, 10)]) == [3]  # a new one; the others are not seen
    assert links.next([]) == []
    assert links.next([(22, 0, 32, 10)]) == [2]  # two key frames later the same
    for _ in range(3):
        links.next([])
    assert links.next([(22, 0, 32, 10)]) == [4]  # too long away
    assert links.next([(22, 0, 32, 10), (22, 0, 32, 10)]) == [4, 5]  # one person is at one place


@given(st.lists(st.lists(st.integers(0, 40), max_size=4), max_size=6))
def test_a_person_is_at_one_place_at_a_time(frames):
    links = Links()
    for lefts in frames:
        numbers = links.next([(left, 0.0, left + 10.0, 10.0) for left in lefts])
        assert len(set(numbers)) == len(numbers) == len(lefts)


def test_the_published_evaluation_keeps_all_where_none_passes():
    scores = torch.tensor([[0.9, 0.2], [0.1, 0.3]])
    assert kept_proposals(scores, 0.7).tolist() == [[True, False], [False, False]]
    assert kept_proposals(scores, 0.7, all_if_none=True).tolist() == [[True, False], [True, True]]
