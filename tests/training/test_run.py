"""What the loop tells of itself."""

import pytest

from tests.training.tiny import config, train
from tubelet.training.log import read_log

QUIET = {"val": None, "ema": 0.0, "steps": 4, "log_every": 1, "save_every": 4}


def test_the_log_and_the_progress_have_the_learning_rate(tmp_path):
    """The one that the optimizer uses: half of warm-up, all of it, then the cosine; a tenth of it for the head."""
    changed = {"optimizer": {"lr": 0.02}, "groups": {"head": 0.1}, "schedule": {"warmup_steps": 2, "start": 0.5}}
    said = []
    train(config(tmp_path / "run", **QUIET, **changed), progress=said.append)
    rows = read_log(tmp_path / "run")
    assert [row["lr"] for row in rows] == pytest.approx([0.01, 0.015, 0.02, 0.01])
    assert [row["lr_head"] for row in rows] == pytest.approx([0.001, 0.0015, 0.002, 0.001])
    assert "lr_backbone" not in rows[0]
    assert [at.lr for at in said] == [row["lr"] for row in rows]
