import re

import pytest
import torch

from tests.data.videos import number_of
from tubelet.data import list_videos, load_clips, open_video
from tubelet.data.transforms import normalize, short_side
from tubelet.errors import TubeletError, VideoError


def test_views_are_clips_by_crops(render):
    path = render("a.mp4", 40)
    clips = load_clips(path, frames=4, stride=3, size=32, views=(2, 3))
    assert clips.tensor.shape == (6, 3, 4, 32, 32)
    assert clips.indices == ((0, 3, 6, 9), (30, 33, 36, 39))
    assert clips.times[1] == pytest.approx([30 / 25, 33 / 25, 36 / 25, 39 / 25])
    assert clips.crops == 3
    assert clips.warnings == ()
    assert clips.seconds > 0
    with open_video(path) as reader:
        pictures = normalize(short_side(reader.read([30, 33, 36, 39]), 32))
    middle = (pictures.shape[-1] - 32) // 2
    for view, left in zip(clips.tensor[3:], (0, middle, pictures.shape[-1] - 32), strict=True):
        assert torch.equal(view, pictures[..., left : left + 32])


@pytest.mark.parametrize(
    ("sampling", "views"), [("k400", (5, 3)), ("ssv2", (2, 3)), ("uniform", (1, 1)), ("dense", (3, 1))]
)
def test_protocols(render, sampling, views):
    clips = load_clips(render("a.mp4", 70), frames=4, stride=4, size=(24, 32), sampling=sampling, views=views)
    assert clips.tensor.shape == (views[0] * views[1], 3, 4, 24, 32)
    assert clips.tensor.dtype == torch.float32


def test_a_short_video_repeats_its_last_frame(render):
    clips = load_clips(render("a.mp4", 3), frames=5, stride=1, size=16)
    assert clips.indices == ((0, 1, 2, 2, 2),)
    assert torch.equal(clips.tensor[0, :, 3], clips.tensor[0, :, 4])


def test_a_variable_rate_is_sampled_by_time(render):
    stamps = [0, 1, 2, 3, 4, 5, 50, 100]
    clips = load_clips(render("a.mp4", 8, stamps=stamps), frames=4, size=16, sampling="uniform")
    assert clips.times[0] == pytest.approx([stamps[index] / 25 for index in clips.indices[0]])
    assert clips.indices[0] == (
        5,
        6,
        6,
        7,
    )  # by number it would be 1, 3, 5, 7: nearly all from the first fifth of a second


def test_a_file_cut_short_is_sampled_from_what_it_has(render):
    path = render("cut.mp4", 60, faststart=True)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 3 // 4])
    clips = load_clips(path, frames=4, size=16, sampling="uniform")
    with open_video(path) as reader:
        readable = reader.readable()
        assert [number_of(frame) for frame in reader.read(clips.indices[0])] == list(clips.indices[0])
    assert set(clips.indices[0]) <= set(readable)
    assert clips.warnings == (
        f"{path}: {60 - len(readable)} of 60 frames are missing; the {len(readable)} that can be read are used",
    )


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mkv", "libx264", {"bf": "3"}),
        ("a.flv", "libx264", {"bf": "0"}),
        ("a.avi", "mpeg4", {}),
        ("b.avi", "libx264", {"bf": "3"}),
        ("a.webm", "libvpx", {}),
    ],
)
def test_a_duration_in_the_header_tells_about_how_many_frames_are_missing(render, name, codec, options):
    path = render(name, 200, codec=codec, options={"g": "12", **options}, size=(96, 192))
    assert load_clips(path, frames=4, size=16).warnings == ()
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    clips = load_clips(path, frames=4, size=16)
    found = re.fullmatch(rf"{path}: about (\d+) of (\d+) frames are missing; the (\d+) that .*", clips.warnings[0])
    assert found and abs(int(found[2]) - 200) <= 4 and int(found[1]) + int(found[3]) == int(found[2])


def test_the_last_frame_of_a_variable_rate_may_be_shown_for_long(render):
    path = render("a.mkv", 8, stamps=[0, 1, 2, 3, 50, 51, 90, 100])
    assert load_clips(path, frames=4, size=16).warnings == ()


def test_seconds_are_without_the_import_of_a_backend(render, monkeypatch):
    clock = [0.0]

    def slow_import():
        clock[0] += 1
        return "not here"

    monkeypatch.setattr("tubelet.data.torchcodec.import_error", slow_import)
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    assert load_clips(render("a.mp4", 3), frames=2, size=16).seconds == 0
    assert clock == [1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"views": (1, 2)}, "crops must be 1 or 3, got 2"),
        ({"views": (0, 1)}, "clips must be at least 1, got 0"),
        ({"sampling": "all"}, "'all'; allowed"),
        ({"size": 0}, "size must be positive"),
        ({"backend": "gif"}, "'gif'; allowed"),
    ],
)
def test_refusals_name_the_value_and_what_is_allowed(render, options, words):
    with pytest.raises(TubeletError, match=words):
        load_clips(render("a.mp4", 3), **options)


def test_list_videos(tmp_path, render):
    with pytest.raises(TubeletError, match="no video in this folder"):
        list_videos(tmp_path)
    with pytest.raises(TubeletError, match="no such file or folder"):
        list_videos(tmp_path / "none.mp4")
    second, first = render("b.mp4", 1), render("a.MKV", 1)
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / ".hidden.mp4").touch()
    assert list_videos(tmp_path) == [first, second]
    assert list_videos(str(second)) == [second]
    assert list_videos(tmp_path / "notes.txt") == [tmp_path / "notes.txt"]  # a file that is named is tried


def test_a_missing_file_is_a_sentence(tmp_path):
    with pytest.raises(VideoError, match="none.mp4: no such file"):
        load_clips(tmp_path / "none.mp4")
