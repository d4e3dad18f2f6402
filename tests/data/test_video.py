"""Frames of rendered videos: exact after seeks, in every container, with only what is needed decoded."""

import random
import sys

import av
import pytest
import torch

from tests.data.videos import number_of, rotate_mp4
from tubelet.data import open_video
from tubelet.data.torchcodec import import_error
from tubelet.errors import TubeletError, VideoError

X264 = {"x264-params": "keyint=12:min-keyint=12:scenecut=0:bframes=3"}
OPEN_GOP = {"x264-params": "keyint=12:min-keyint=12:scenecut=0:bframes=3:open-gop=1"}

# name, codec, options: B-frames and key frames every 12 frames wherever the codec has them
KINDS = [
    ("a.mp4", "libx264", X264),
    ("open-gop.mp4", "libx264", OPEN_GOP),
    ("a.mkv", "libx264", X264),
    ("a.ts", "libx264", X264),
    ("a.flv", "libx264", X264),
    ("a.avi", "libx264", X264),
    ("a.h264", "libx264", X264),
    ("a.webm", "libvpx", {"g": "12", "auto-alt-ref": "1", "lag-in-frames": "10"}),
    ("b.mpg", "mpeg2video", {"g": "12", "bf": "2"}),
    ("b.avi", "mpeg4", {"g": "12", "bf": "2"}),
    ("c.avi", "mpeg4", {"g": "12"}),
]


@pytest.fixture(params=["pyav", "torchcodec"])
def backend(request):
    if request.param == "torchcodec" and (reason := import_error()):
        pytest.skip(f"torchcodec does not load: {reason}")
    return request.param


@pytest.mark.parametrize(("name", "codec", "options"), KINDS, ids=[kind[0] for kind in KINDS])
def test_every_frame_is_the_one_asked_for(render, backend, name, codec, options):
    path = render(name, 60, codec=codec, options=options)
    with open_video(path, backend=backend) as reader:
        assert (reader.info.frames, reader.info.fps, reader.info.duration) == (60, 25, pytest.approx(2.4))
        assert [(index, number_of(frame)) for index, frame in reader.frames()] == [(i, i) for i in range(60)]
        chosen = [random.Random(0).randrange(60) for _ in range(12)]
        assert [number_of(reader.read([index])[0]) for index in chosen] == chosen
        assert [number_of(frame) for frame in reader.read(sorted(chosen * 2))] == sorted(chosen * 2)
        assert [index for index, _ in reader.frames(50)] == list(range(50, 60))
        assert reader.readable() == list(range(60))
        assert not reader.lost


def test_a_clip_of_a_ten_minute_video_decodes_a_few_groups_of_pictures(render):
    path = render("long.mp4", 3000, rate=5, size=(16, 64), options={"preset": "ultrafast", "g": "50", "bf": "2"})
    with open_video(path, backend="pyav") as reader:
        assert reader.info.duration == 600
        opened = reader.decoded
        clip = list(range(1800, 1864, 4))
        assert [number_of(frame) for frame in reader.read(clip)] == clip
        assert opened <= 4
        assert reader.decoded - opened <= 50 + 64 + 8


def test_frames_of_a_variable_rate_have_their_times(render, backend):
    stamps = [0, 1, 2, 12, 13, 30, 31, 32, 33, 34, 60, 61]
    path = render("variable.mp4", len(stamps), stamps=stamps, options=X264)
    with open_video(path, backend=backend) as reader:
        assert reader.info.variable
        assert reader.timeline.seconds().tolist() == pytest.approx([stamp / 25 for stamp in stamps])
        slots = reader.timeline.frames_of(range(len(stamps)))
        nearest = [min(range(12), key=lambda i, at=61 / 11 * slot: abs(stamps[i] - at)) for slot in range(12)]
        assert slots == nearest
        assert [number_of(frame) for frame in reader.read(slots)] == slots


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_flags_are_applied(render, backend, degrees):
    path = render("turned.mp4", 3)
    with open_video(path, backend="pyav") as reader:
        upright = reader.read([0, 1, 2])
    rotate_mp4(path, degrees)
    with open_video(path, backend=backend) as reader:
        turned = reader.read([0, 1, 2])
        assert turned.shape[1:3] == (reader.info.height, reader.info.width)
    assert torch.equal(turned, torch.rot90(upright, -degrees // 90, dims=(1, 2)))


def test_a_transform_is_applied_to_each_frame_as_it_is_decoded(render, backend):
    path = render("a.mp4", 20)
    shapes = []

    def shrink(frame):
        shapes.append(tuple(frame.shape))
        return frame[:, ::4, ::4].float()

    with open_video(path, backend=backend) as reader:
        clip = reader.read([1, 5, 5, 9], transform=shrink)
        assert torch.equal(clip, reader.read([1, 5, 5, 9])[:, ::4, ::4].float())
    assert set(shapes) == {(1, 48, 96, 3)}


@pytest.mark.parametrize(
    ("tags", "red"),
    [
        ({}, (200, 30, 30)),
        ({"colorspace": 1, "color_range": 1}, (200, 30, 30)),
        ({"colorspace": 1, "color_range": 2}, (200, 30, 30)),
        ({"colorspace": 9, "color_range": 1}, (200, 30, 30)),
    ],
)
@pytest.mark.parametrize(
    ("codec", "pixel_format"),
    [("libx264", "yuv420p"), ("libx264", "yuv420p10le"), ("libvpx-vp9", "yuv420p"), ("libvpx-vp9", "yuv444p")],
)
def test_matrix_and_range_are_those_of_the_tags(render, backend, tags, red, codec, pixel_format):
    name = "tagged.mp4" if codec == "libx264" else "tagged.webm"
    path = render(name, 2, codec=codec, pixel_format=pixel_format, tags=tags)
    with open_video(path, backend=backend) as reader:
        corner = reader.read([0])[0, 2:10, 2:16].float().mean(dim=(0, 1))
    assert corner.tolist() == pytest.approx(red, abs=5)


def test_a_file_cut_short_gives_the_frames_it_has(render):
    path = render("cut.mp4", 60, options=X264, faststart=True)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    with open_video(path, backend="pyav") as reader:
        assert reader.info.declared == 60
        readable = reader.readable()
        assert 0 < len(readable) < 60
        assert [number_of(frame) for frame in reader.read(readable)] == readable


def test_frames_up_to_the_next_key_frame_are_lost_on_an_error(render, backend):
    path = render("damaged.mp4", 60, options=X264)
    with av.open(str(path)) as container:
        positions = [packet.pos for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    data[positions[14] : positions[14] + 8] = b"\xff" * 8  # in the second of five groups of 12
    path.write_bytes(bytes(data))
    with open_video(path, backend=backend) as reader:
        readable = reader.readable()
        assert {*range(9), *range(24, 60)} <= set(readable)
        assert not {13, 14, 15, 22, 23} & set(readable)
        clip = reader.read(list(range(60)))
        assert reader.lost == set(range(60)) - set(readable)
        assert [number_of(clip[index]) for index in readable] == readable
        assert number_of(clip[14]) in readable  # a neighbour stands in


@pytest.mark.parametrize("indices", [[], [-1], [60], [3, 2]])
def test_indices_that_cannot_be_are_refused(render, backend, indices):
    with open_video(render("a.mp4", 60), backend=backend) as reader, pytest.raises(TubeletError):
        reader.read(indices)


def test_unknown_backend():
    with pytest.raises(TubeletError, match="'cv2'; allowed: auto, pyav, torchcodec"):
        open_video("a.mp4", backend="cv2")


def test_without_torchcodec_pyav_is_taken(render, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    import_error.cache_clear()
    path = render("a.mp4", 3)
    with open_video(path) as reader:
        assert reader.info.backend == "pyav"
    with pytest.raises(TubeletError, match="'torchcodec' does not load .*; allowed here: auto, pyav"):
        open_video(path, backend="torchcodec")
    import_error.cache_clear()


def test_files_without_a_frame_give_one_sentence(tmp_path, render):
    text, empty, headless = tmp_path / "text.mp4", tmp_path / "empty.mp4", tmp_path / "headless.mp4"
    text.write_text("not a video\n" * 100)
    empty.write_bytes(b"")
    headless.write_bytes(render("whole.mp4", 5).read_bytes()[:900])
    for path in (text, empty, headless, tmp_path / "none.mp4", tmp_path):
        with pytest.raises(VideoError) as caught:
            open_video(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["list.m3u8", "list.txt", "list.ffconcat", "page.ans"])
def test_playlists_and_text_are_not_followed(tmp_path, render, name):
    video = render("a.mp4", 5)
    path = tmp_path / name
    path.write_text(f"ffconcat version 1.0\nfile {video}\n" if "concat" in name else f"#EXTM3U\n#EXTINF:1,\n{video}\n")
    with pytest.raises(VideoError, match="not a video file"):
        open_video(path)
