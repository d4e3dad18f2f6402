import pytest
import torch

from tests.data.videos import frame_with_number, number_of
from tubelet.data import open_video, write_video
from tubelet.errors import TubeletError


def numbered(count, height, width):
    return torch.stack([frame_with_number(number, height, width) for number in range(count)])


@pytest.mark.parametrize(("height", "width"), [(48, 96), (49, 97), (31, 160)])
@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_what_is_written_is_read_again(tmp_path, suffix, height, width):
    path = tmp_path / f"a{suffix}"
    frames = numbered(12, height, width)
    write_video(path, frames, fps=12.5)
    with open_video(path) as reader:
        again = reader.read(range(reader.info.frames))
        assert reader.info.fps == pytest.approx(12.5)
    extra = (height % 2, width % 2) if suffix == ".mp4" else (0, 0)
    assert again.shape == (12, height + extra[0], width + extra[1], 3)
    again = again[:, :height, :width]
    assert [number_of(frame) for frame in again] == list(range(12))
    assert (again.float() - frames).abs().mean() < 4
    assert list(tmp_path.iterdir()) == [path]


def test_png_is_exact(tmp_path):
    frame = torch.randint(0, 256, (1, 13, 17, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    write_video(tmp_path / "a.png", frame)
    with open_video(tmp_path / "a.png") as reader:
        assert torch.equal(reader.read([0]), frame)


def test_frames_may_come_one_by_one(tmp_path):
    write_video(tmp_path / "a.mp4", (frame_with_number(number, 32, 64) for number in range(5)))
    with open_video(tmp_path / "a.mp4") as reader:
        assert [number_of(frame) for _, frame in reader.frames()] == list(range(5))


def test_each_frame_may_have_its_time(tmp_path):
    times = [0.0, 0.04, 0.08, 1.5, 1.501, 4.0]
    write_video(tmp_path / "a.mp4", numbered(6, 32, 64), times=times)
    with open_video(tmp_path / "a.mp4") as reader:
        assert reader.info.variable and reader.timeline.seconds().tolist() == pytest.approx(times, abs=1e-4)
        assert [number_of(frame) for frame in reader.read(range(6))] == list(range(6))
    for wrong, words in (
        (times[:4], "times has 4 seconds, and there are more frames"),
        ([0, 1, 0.5, 2, 3, 4], "after 1.0 comes 0.5"),
        ([0, 1, float("nan"), 2, 3, 4], "after 1.0 comes nan"),
        ([0, 1e9, 2e9, 3e9, 4e9, 5e9], "seconds below 20000 that increase"),
    ):
        with pytest.raises(TubeletError, match=words):
            write_video(tmp_path / "b.mp4", numbered(6, 32, 64), times=wrong)
        assert not (tmp_path / "b.mp4").exists()
    write_video(tmp_path / "hours.mp4", numbered(3, 32, 64), times=[0.0, 15_000.0, 30_000.0])  # a long one is no error
    with open_video(tmp_path / "hours.mp4") as reader:
        assert reader.timeline.seconds().tolist() == pytest.approx([0.0, 15_000.0, 30_000.0], abs=1e-3)
    write_video(tmp_path / "c.mp4", numbered(3, 32, 64), times=torch.tensor([0.0, 1.0, 1.0]))
    with pytest.raises(TubeletError, match=r"cannot write times into .gif; allowed: .mp4"):
        write_video(tmp_path / "a.gif", numbered(6, 32, 64), times=times)


def failing():
    yield frame_with_number(0, 32, 64)
    raise RuntimeError("the model failed")


@pytest.mark.parametrize(
    ("name", "frames", "words"),
    [
        ("a.webm", numbered(1, 16, 16), "cannot write .webm; allowed: .mp4, .gif, .png"),
        ("a.mp4", numbered(1, 16, 16)[:0], "no frame to write"),
        ("a.gif", numbered(1, 16, 16)[:0], "no frame to write"),
        ("a.png", numbered(2, 16, 16), "a .png holds one frame"),
        ("a.mp4", numbered(1, 16, 16).float(), "must be uint8"),
        ("a.mp4", [numbered(1, 16, 16)[0], numbered(1, 18, 16)[0]], "one size"),
        ("none/a.mp4", numbered(1, 16, 16), "does not exist"),
    ],
)
def test_refusals_leave_no_file(tmp_path, name, frames, words):
    with pytest.raises(TubeletError, match=words):
        write_video(tmp_path / name, frames)
    assert not list(tmp_path.iterdir())


def test_an_error_on_the_way_leaves_the_file_that_was_there(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"before")
    with pytest.raises(RuntimeError, match="the model failed"):
        write_video(path, failing())
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]
