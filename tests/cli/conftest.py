"""A saved tiny model, a rendered clip, and the command line run in this process."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

import tubelet
from tests.tiny import tiny
from tubelet.cli import main
from tubelet.data import write_video

LABELS = ["stand", "walk", "run", "jump", "wave", "sit", "fall"]


class Result(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]):
    """run("classify", "clip.mp4") -> status, standard output, standard error."""

    def call(*words: object) -> Result:
        status = main([str(word) for word in words])
        return Result(status, *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model of 7 classes."""
    made = tiny()
    made.config.id2label = dict(enumerate(LABELS))
    return tubelet.save_model(made, tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    write_video(path, torch.randint(256, (70, 6, 8, 3)).repeat_interleave(8, 1).repeat_interleave(8, 2).byte(), fps=25)
    return path


@pytest.fixture
def packaged(model: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The tiny model takes the place of the weights that come with the package."""
    monkeypatch.setattr("tubelet.checkpoints.source.PACKAGED", model.parent)
    return model.name
