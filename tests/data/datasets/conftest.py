"""A small data set of rendered videos, each of which shows its own frame numbers."""

from pathlib import Path

import pytest

from tests.data.videos import render_video

CLASSES = {"jump": 3, "run": 2, "walk": 3}


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Eight videos of 20 to 27 frames, no two alike."""
    folder = tmp_path_factory.mktemp("rendered")
    return [render_video(folder / f"{number}.mp4", 20 + number, size=(32, 64)) for number in range(8)]


@pytest.fixture
def folders(tmp_path: Path, rendered: list[Path]) -> Path:
    """A folder a class: jump/0.mp4 ... walk/7.mp4. Links, so that tests may replace them."""
    videos = iter(rendered)
    for label, count in CLASSES.items():
        (tmp_path / "data" / label).mkdir(parents=True)
        for video in [next(videos) for _ in range(count)]:
            (tmp_path / "data" / label / video.name).write_bytes(video.read_bytes())
    return tmp_path / "data"
