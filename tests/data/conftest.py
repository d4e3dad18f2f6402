"""The folder of real files, and a function that renders videos."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.data.videos import render_video


@pytest.fixture
def render(tmp_path: Path) -> Callable[..., Path]:
    """render(name, count, **options) -> the path of a new video."""

    def call(name: str, count: int, **options: Any) -> Path:
        return render_video(tmp_path / name, count, **options)

    return call


@pytest.fixture(scope="session")
def robustness() -> Path:
    """The folder data/clips-robustness: index.csv and files/."""
    root = os.environ.get("TUBELET_DATA")
    if not root:
        pytest.skip("TUBELET_DATA is not set: the folder that contains clips-robustness, jhmdb, ucf24")
    folder = Path(root) / "clips-robustness"
    if not folder.is_dir():
        pytest.skip(f"TUBELET_DATA={root} has no folder clips-robustness")
    return folder
