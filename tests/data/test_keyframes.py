"""Key frames with boxes: which frames, boxes in the pixels of the clip, mirrored clips, batches of several sizes."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tubelet.data import eval_loader, train_loader, write_video
from tubelet.data.batches import Steps
from tubelet.data.datasets.base import Key
from tubelet.data.datasets.keyframes import KeyframeClips, collate_keyframes, open_keyframes, people, tubes_of
from tubelet.data.datasets.listing import Record
from tubelet.data.datasets.tubes import Tube, Tubes
from tubelet.data.keyframe import flipped_boxes, resized, resized_boxes, resized_size, zoomed
from tubelet.data.sampling import around
from tubelet.errors import TubeletError, VideoError


def drawn(path, frames=20, height=48, width=64):
    """A white square of 12 pixels that moves one pixel a frame: its box at frame t is t + 4, 10, t + 16, 22."""
    video = torch.full((frames, height, width, 3), 30, dtype=torch.uint8)
    for t in range(frames):
        video[t, 10:22, t + 4 : t + 16] = 230
    path.parent.mkdir(exist_ok=True)
    write_video(path, video, fps=25)


@pytest.fixture
def boxes(tmp_path):
    drawn(tmp_path / "a.mp4")
    drawn(tmp_path / "b.mp4", height=64, width=48)
    rows = ["path,frame,x1,y1,x2,y2,label,person"]
    for name in ("a.mp4", "b.mp4"):
        for t in range(2, 18):
            rows.append(f"{name},{t},{t + 4},10,{t + 16},22,walk,anna")
            if t > 9:
                rows.append(f"{name},{t},{t + 4},10,{t + 16},22,wave,anna")
            if name == "b.mp4":
                rows.append(f"{name},{t},0,30,20,60,sit,ben")
    (tmp_path / "boxes.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "boxes.csv"


@given(st.integers(1, 60), st.integers(0, 59), st.sampled_from([4, 8, 16]), st.integers(1, 5))
def test_a_clip_around_a_key_frame(total, key, frames, stride):
    key = key % total
    clip = around(total, key, frames, stride)
    assert len(clip) == frames and clip == sorted(clip) and 0 <= clip[0] and clip[-1] < total
    assert clip[frames // 2] == key
    expected = range(key - frames // 2 * stride, key + frames // 2 * stride, stride)
    assert clip == [min(max(i, 0), total - 1) for i in expected]


def test_boxes_are_pixels_of_the_clip(boxes):
    data = open_keyframes(boxes, frames=8, stride=1, short=96, train=False, per_video=3)
    assert data.labels == ["sit", "walk", "wave"] and len(data) == 6
    frames = [data[i].frame for i in range(3)]
    assert frames == [4, 10, 15]  # evenly over frames 2 to 17
    sample = data[1]
    assert sample.clips.shape == (1, 8, 96, 128, 3) and sample.name == "a.mp4"
    assert sample.boxes.tolist() == [[28.0, 20.0, 52.0, 44.0]]  # twice as large
    assert sample.actions.tolist() == [[0, 1, 1]]  # one person does both
    x1, y1, x2, y2 = (int(side) for side in sample.boxes[0])
    key = sample.clips[0, 4]  # the key frame is in the middle
    assert key[y1 + 3 : y2 - 3, x1 + 3 : x2 - 3].float().mean() > 200 and key[:, : x1 - 4].float().mean() < 60
    both = data[4]
    assert both.clips.shape == (1, 8, 128, 96, 3) and len(both.boxes) == 2
    assert both.actions.sum(0).tolist() == [1, 1, 1]


def test_training_draws_key_frames_and_mirrors_boxes_with_the_picture(boxes):
    data = open_keyframes(boxes, frames=8, stride=1, short=48, train=True)
    assert len(data) == 2 and data.targets == [1, 1]
    drawn = [data[Key(0, epoch)] for epoch in range(12)]
    assert len({sample.frame for sample in drawn}) > 4 and all(2 <= sample.frame <= 17 for sample in drawn)
    mirrored = 0
    for sample in drawn:
        x1, y1, x2, y2 = (int(side) for side in sample.boxes[0])
        assert sample.clips[0, 4, y1 + 2 : y2 - 2, x1 + 2 : x2 - 2].float().mean() > 190
        mirrored += x1 != sample.frame + 4
    assert 0 < mirrored < 12
    again = data[Key(0, 5)]
    assert torch.equal(again.clips, drawn[5].clips) and torch.equal(again.boxes, drawn[5].boxes)
    never = open_keyframes(boxes, frames=8, stride=1, short=48, train=True, flip=False)
    assert all(int(never[Key(0, epoch)].boxes[0, 0]) == never[Key(0, epoch)].frame + 4 for epoch in range(6))


def test_how_many_key_frames_an_epoch(boxes):
    three = open_keyframes(boxes, frames=8, stride=1, short=48, train=True, per_video=3)
    assert len(three) == 6 and three.targets == [1] * 6
    assert len({three[Key(index, epoch)].frame for index in range(3) for epoch in range(4)}) > 4
    every = open_keyframes(boxes, frames=8, stride=1, short=48, train=True, per_video="all")
    assert [every[Key(index, epoch)].frame for epoch in (0, 1) for index in range(16)] == [*range(2, 18)] * 2


def test_ava_is_trained_on_as_it_comes(tmp_path):
    """A key frame a second of a film from its 900th second on; boxes in shares; of one person several actions."""
    drawn(tmp_path / "films" / "abc.mp4")
    rows = ["abc,0901,0.1,0.2,0.3,0.5,12,0", "abc,0901,0.1,0.2,0.3,0.5,80,0", "abc,0901,0.5,0.2,0.9,0.5,12,1"]
    rows += ["abc,0902", "abc,0902,0.25,0.5,0.75,1.0,3,0", "gone,0901,0.1,0.2,0.3,0.5,12,0"]
    (tmp_path / "ava.csv").write_text("\n".join(rows) + "\n")
    options = {"root": tmp_path / "films", "frames": 8, "stride": 1, "short": 48, "train": True, "flip": False}
    data = open_keyframes(tmp_path / "ava.csv", rate=5, per_video="all", **options)
    assert len(data.labels) == 80 and data.labels[11] == "12" and len(data) == 2  # a film that is not there is left out
    first, second = data[0], data[1]
    assert (first.frame, second.frame) == (5, 10)
    torch.testing.assert_close(
        first.boxes, torch.tensor([[0.1, 0.2, 0.3, 0.5], [0.5, 0.2, 0.9, 0.5]]) * 16 * torch.tensor([4, 3, 4, 3])
    )
    assert [row.nonzero().flatten().tolist() for row in first.actions] == [[11, 79], [11]]
    assert second.boxes.tolist() == [[16, 24, 48, 48]]
    short = open_keyframes(tmp_path / "ava.csv", rate=15, per_video="all", **options)
    with pytest.raises(VideoError, match="has 20 frames, and a box is on frame 30"):
        short[1]
    assert len(open_keyframes(tmp_path / "ava.csv", rate=5, per_video=9, **{**options, "train": False})) == 2
    (tmp_path / "map.pbtxt").write_text('item {\n  name: "huge"\n  id: 20000\n}\n')
    with pytest.raises(TubeletError, match="the id 20000 is no class; ids are below 10000"):
        open_keyframes(tmp_path / "ava.csv", **options)
    with pytest.raises(TubeletError, match="rate must be a number from 0.001 on, got '30'"):
        open_keyframes(tmp_path / "ava.csv", rate="30", **options)
    (tmp_path / "map.pbtxt").write_text('item {\n  name: "stand"\n  id: 12\n}\n')
    assert open_keyframes(tmp_path / "ava.csv", **options).labels[11] == "stand"
    with pytest.raises(
        TubeletError, match="needs seconds from 1000 on and labels from 1 to 80; it has seconds from 901"
    ):
        open_keyframes(tmp_path / "ava.csv", start=1000, **options)
    with pytest.raises(TubeletError, match="no video by any of the 2 ids"):
        open_keyframes(tmp_path / "ava.csv", **{**options, "root": tmp_path / "nowhere"})
    with pytest.raises(TubeletError, match="its 80 classes are not the 1 that are needed"):
        open_keyframes(tmp_path / "ava.csv", labels=["a"], **options)
    (tmp_path / "ava.csv").write_text("abc,0901,-0.4,0.1,-0.1,0.5,12,0\nabc,0901,0.1,0.2,0.3,0.5,12,1\n")
    assert len(open_keyframes(tmp_path / "ava.csv", rate=5, **options)[0].boxes) == 1  # the other is not in the picture
    (tmp_path / "ava.csv").write_text("abc,0901,0.1,0.2,0.3,0.5,99,0\n")
    with pytest.raises(TubeletError, match="none of the 80 of the map"):
        open_keyframes(tmp_path / "ava.csv", **options)


def test_zoom_takes_the_boxes_along(boxes):
    data = open_keyframes(boxes, frames=8, stride=1, short=48, train=True, flip=False, zoom=(0.5, 2.0))
    widths, people_left = set(), set()
    for epoch in range(24):
        sample = data[Key(0, epoch)]  # the white square
        assert sample.clips.shape == (1, 8, 48, 64, 3) and len(sample.boxes) == len(sample.actions) == 1
        x1, y1, x2, y2 = (int(side) for side in sample.boxes[0])
        widths.add(x2 - x1)
        key = sample.clips[0, 4].float().mean(-1)
        assert key[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1].mean() > 180
        key[max(y1 - 1, 0) : y2 + 2, max(x1 - 1, 0) : x2 + 2] = 0
        assert key.max() < 140  # 115 is the filling
        people_left.add(len(data[Key(1, epoch)].boxes))
    assert min(widths) < 9 and max(widths) > 17 and people_left == {1, 2}
    assert torch.equal(data[Key(0, 3)].clips, data[Key(0, 3)].clips)
    plain = open_keyframes(boxes, frames=8, stride=1, short=48, zoom=(0.5, 2.0))  # not in training
    assert plain[0].boxes.tolist() == open_keyframes(boxes, frames=8, stride=1, short=48)[0].boxes.tolist()


@given(st.floats(0.2, 4), st.floats(0, 1), st.floats(0, 1))
def test_zoomed_pictures_show_what_the_boxes_say(scale, down, right):
    frames = torch.zeros(1, 40, 60, 3, dtype=torch.uint8)
    frames[:, 10:30, 20:40] = 200
    found, box = zoomed(
        frames, torch.tensor([[20.0, 10, 40, 30]]), scale, (down, right), torch.tensor([5, 5, 5]).byte()
    )
    x1, y1, x2, y2 = box[0].tolist()
    white = (found[0, :, :, 0] > 100).nonzero()
    if not len(white):
        assert (x2 - x1) * (y2 - y1) < 30
        return
    (top, left), (bottom, last) = white.amin(0).tolist(), white.amax(0).tolist()
    assert max(abs(x1 - left), abs(y1 - top), abs(x2 - last - 1), abs(y2 - bottom - 1)) <= max(
        1.6, scale / 2 + 1
    )  # a grey edge is wide


def test_the_cache_changes_nothing(boxes, tmp_path):
    plain = open_keyframes(boxes, frames=8, stride=2, short=60, train=True)
    cached = open_keyframes(boxes, frames=8, stride=2, short=60, train=True, cache=tmp_path / "cache")
    for key in (Key(1, 0), Key(1, 1), Key(0, 2), Key(1, 3)):
        ours, theirs = cached[key], plain[key]
        assert torch.equal(ours.clips, theirs.clips) and torch.equal(ours.boxes, theirs.boxes)


def test_batches_of_several_sizes(boxes):
    data = open_keyframes(boxes, frames=8, stride=1, short=48)
    batch = collate_keyframes([data[0], data[1]])
    assert batch.clips.shape == (2, 1, 8, 64, 64, 3) and batch.sizes.tolist() == [[48, 64], [64, 48]]
    clips = batch.input(data.mean, data.std)
    assert clips.shape == (2, 3, 8, 64, 64)
    assert clips[0, :, :, 48:].abs().sum() == 0 and clips[1, :, :, :, 48:].abs().sum() == 0  # not black, but nothing
    assert clips[0, :, :, :48].abs().sum() > 0
    for loader in (eval_loader(data, 2), train_loader(data, Steps(2, 2, 1))):
        (loaded,) = list(loader)
        assert len(loaded.boxes) == 2 and loaded.sizes.shape == (2, 2)


def test_boxes_of_pictures_of_another_size(tmp_path):
    """UCF101-24's boxes are pixels of 320 x 240, whatever the file has."""
    drawn(tmp_path / "v_walk_g01.mp4")
    tube = Tube(0, torch.arange(20), torch.tensor([[20.0, 50.0, 80.0, 110.0]]).repeat(20, 1))
    tubes = Tubes(["walk"], (320, 240), {"walk/v_walk_g01": [tube]})
    listing_record = Record(tmp_path / "v_walk_g01.mp4", 0, "walk/v_walk_g01.avi")
    from tubelet.data.datasets.listing import Listing

    data = KeyframeClips(Listing("test", ["walk"], [listing_record]), tubes, frames=4, stride=1, short=48)
    torch.testing.assert_close(data[0].boxes, torch.tensor([[4.0, 10.0, 16.0, 22.0]]))


def test_who_is_on_a_frame():
    frames, box = torch.tensor([3]), torch.tensor([[1.0, 2, 3, 4]])
    tubes = [Tube(0, frames, box, "a"), Tube(2, frames, box, "a"), Tube(1, frames, box, ""), Tube(2, frames, box, "")]
    found, actions = people(tubes, 3, 3)
    assert found.shape == (2, 4) and actions.tolist() == [[1, 0, 1], [0, 1, 1]]
    found, actions = people(tubes, 4, 3)
    assert found.shape == (0, 4) and actions.shape == (0, 3)


@pytest.mark.parametrize("name", ["x/b/c.mp4", "b/c.avi", "b/c", "c"])
def test_annotations_name_videos_in_many_ways(name):
    tubes = Tubes(["a"], None, {"b/c": [], "c": []})
    assert tubes_of(Record("b/c.mp4", 0, name), tubes) == []
    assert tubes_of(Record("b/d.mp4", 0, "b/d"), tubes) is None


def test_the_published_resizing():
    assert resized_size(240, 320, 288) == (288, 384)
    assert resized_size(1080, 1920, 288) == (288, 512)
    assert resized_size(100, 1000, 288) == (133, 1333)  # the long side decides
    assert resized_size(48, 70, 36) == (36, 53)  # half rounds up
    assert resized(torch.zeros(2, 48, 70, 3, dtype=torch.uint8), 36).shape == (2, 36, 53, 3)
    outside = torch.tensor([[-5.0, 2, 99, 30]])
    assert resized_boxes(outside, 48, 70, 24, published=True).tolist() == [[0, 1, 34.5, 15]]
    assert resized_boxes(outside, 48, 70, 24).tolist() == [[0, 1, 35, 15]]
    boxes = torch.tensor([[3.0, 1, 10, 5]])
    assert flipped_boxes(boxes, 20, published=True).tolist() == [[9, 1, 16, 5]]


def test_a_mirrored_box_lies_on_the_mirrored_picture():
    picture = torch.zeros(40, 60)
    picture[10:20, 5:15] = 1
    x1, y1, x2, y2 = (int(side) for side in flipped_boxes(torch.tensor([[5.0, 10, 15, 20]]), 60)[0])
    mirrored = picture.flip(1)
    assert mirrored[y1:y2, x1:x2].all() and mirrored.sum() == (y2 - y1) * (x2 - x1)


def test_what_is_not_there_is_said_with_what_is(boxes, tmp_path):
    for option, near in (("strid", "stride"), ("lables", "labels"), ("split", ""), ("rate", "")):
        with pytest.raises(TubeletError) as caught:
            open_keyframes(boxes, **{option: 3})
        sentence = str(caught.value)
        assert sentence.startswith(f"{boxes} has no option {option!r}; its options are labels, root, stride, ")
        assert sentence.endswith(f"; did you mean {near!r}?") if near else "did you mean" not in sentence
    clip = {"label": "run", "tube": [[1, 1, 1, 9, 9]]}
    listed = {"labels": ["run"], "resolution_hw": [240, 320], "videos": {"run/a": clip}}
    (tmp_path / "tubes.json").write_text(json.dumps(listed))
    (tmp_path / "classes.txt").write_text("run\n")
    for split in ("split1_train", "split1_test"):
        (tmp_path / f"{split}.csv").write_text("video,label\nrun/a.mp4,run\n")
    there = "there are split1_test, split1_train"
    with pytest.raises(TubeletError, match=f"jhmdb: a split must be named; {there}$"):
        open_keyframes("jhmdb", root=tmp_path)
    with pytest.raises(TubeletError, match=f"jhmdb: no split 'split1_tst'; {there}; did you mean 'split1_test'?"):
        open_keyframes("jhmdb:split1_tst", root=tmp_path)
    with pytest.raises(TubeletError, match="jhmdb has no option 'lables'"):
        open_keyframes("jhmdb:split1_test", root=tmp_path, lables=["run"])


def test_what_cannot_be(boxes, tmp_path):
    with pytest.raises(TubeletError, match="jhmdb:SPLIT, ucf24:SPLIT or a csv"):
        open_keyframes("nothing.csv")
    with pytest.raises(TubeletError, match="per_video must be at least 1"):
        open_keyframes(boxes, per_video=0)
    with pytest.raises(TubeletError, match="stride must be at least 1"):
        open_keyframes(boxes, stride=0)
    with pytest.raises(TubeletError, match="zoom must be two factors from 0.1 to 10"):
        open_keyframes(boxes, zoom=(2.0, 0.5))
    with pytest.raises(TubeletError, match="the smaller one first, got 2"):
        open_keyframes(boxes, zoom=2)
    with pytest.raises(TubeletError, match="the smaller one first, got"):
        open_keyframes(boxes, zoom=["a", 1])
    with pytest.raises(TubeletError, match="per_video must be at least 1, or all, got some"):
        open_keyframes(boxes, per_video="some")
    (tmp_path / "b.mp4").unlink()
    data = open_keyframes(boxes, frames=8)
    with pytest.raises((VideoError, OSError)):
        data[1]
    late = Tubes(["a"], None, {"a.mp4": [Tube(0, torch.tensor([50]), torch.ones(1, 4))]})
    from tubelet.data.datasets.listing import Listing

    data = KeyframeClips(Listing("late", ["a"], [Record(tmp_path / "a.mp4", 0, "a.mp4")]), late, frames=4)
    with pytest.raises(VideoError, match="has 20 frames, and the first with a box is 50"):
        data[0]


def test_jhmdb(data_root):
    data = open_keyframes("jhmdb:split1_fit", root=data_root / "jhmdb", frames=16, short=128, train=True)
    assert len(data) == 553 and len(data.labels) == 21
    sample = data[Key(7, 1)]
    assert sample.clips.shape == (1, 16, 128, 171, 3) and sample.boxes.shape == (1, 4) and sample.actions.sum() == 1
    assert sample.actions[0, sample.label] == 1
