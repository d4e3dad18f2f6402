"""What all tests share: the same threads, seeds and surroundings on every machine."""

import os

# Before torch is imported. One thread: two workers share two cores, sums come out in the same order everywhere,
# and commands that tests start take it over.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # tests reach no network
os.environ.setdefault("MPLBACKEND", "Agg")  # nor a screen

from pathlib import Path

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

# No deadline: a busy machine is no bug. CI draws the same examples each time; at home each run draws new ones.
settings.register_profile("tubelet", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("tubelet")


@pytest.fixture(autouse=True)
def _seed() -> None:
    """A test gives the same numbers alone as among others."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder with jhmdb, ucf24 and clips-robustness."""
    root = os.environ.get("TUBELET_DATA")
    if not root:
        pytest.skip("needs data sets: set TUBELET_DATA to the folder with jhmdb, ucf24 and clips-robustness")
    return Path(root)
