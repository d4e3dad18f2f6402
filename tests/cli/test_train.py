"""`tubelet train`: from the words of a command line to a folder, and what it says when it cannot."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.project import ROOT
from tests.training.tiny import equal, weights
from tubelet.cli import main

TINY = """
model: {name: videomae_small, size: 64, patch_size: 16, dim: 16, depth: 1, heads: 1}
data: {name: scenes_easy, length: 24, curriculum: false}
val: {length: 6}
steps: 6
batch: 4
save_every: 1
log_every: 2
tensorboard: false
threads: 1
"""


@pytest.fixture
def tiny(tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY)
    return tmp_path / "tiny.yaml"


def test_a_training_is_told_as_json_alone(tiny, tmp_path, capsys):
    assert main(["train", str(tiny), "--out", str(tmp_path / "run"), "--optimizer.lr", "1e-3", "--json"]) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert told["steps"] == 6 and set(told["last"]) >= {"top1", "loss"} and told["out"] == str(tmp_path / "run")
    assert "step 6/6" in err and "rate 6.7e-05" in err and "clips/s" in err
    assert main(["classify", "--model", str(tmp_path / "run"), str(tmp_path / "none.mp4")]) == 2  # it loads


def test_tensorboard_has_the_curves(tiny, tmp_path):
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="needs the extra train"
    )
    assert main(["train", str(tiny), "--out", str(tmp_path / "run"), "--tensorboard", "true"]) == 0
    events = event_accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [2, 4, 6]
    assert "val/top1_raw" in events.Tags()["scalars"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--bacth", "3"], "unknown key 'bacth'; there are "),
        (["--optimizer.lr"], "--optimizer.lr needs a value"),
        (["more"], "'more' is no option"),
        (["--model.name", "videomae_smal"], "no model 'videomae_smal'"),
        (["--model.depht", "3"], "did you mean 'depth'?"),
        (["--data", "jhmbd"], "no data set 'jhmbd'"),
        (["--data.splt", "val"], "scenes_easy has no option 'splt'; its options are split, "),
        (["--data.splt", "val"], "did you mean 'split'?"),
        (["--data.finish", "3"], "data.finish: augmentation is the section augment"),
        (["--data.train", "false"], "data.train: data is what is trained on"),
        (["--model.select", "sta:r=999@0,groups=8"], "r=999 is too large"),
        (["--model.size", "96"], "scenes are pictures of 64 x 64"),
        (["--batch", "64"], "a batch must have 1 to 24 clips"),
        (["--task", "pretrain", "--model.class_token", "true"], "hides tubes of a ViT without class token"),
        (["--device", "tpu"], "device='tpu' is unknown"),
        (["--key", "3"], "--key stands for a key"),
    ],
)
def test_bad_input_is_one_sentence(tiny, tmp_path, capsys, words, sentence):
    assert main(["train", str(tiny), "--out", str(tmp_path / "run"), *words]) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith("tubelet: ") and err.count("\n") == 1 and sentence in err
    assert not (tmp_path / "run").exists()  # nothing half-made


def test_no_folder_and_a_file_in_its_place(tiny, tmp_path, capsys):
    assert main(["train", str(tiny)]) == 2 and "Give out" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main(["train", str(tiny), "--out", str(tmp_path / "file")]) == 2
    assert "no folder can be made" in capsys.readouterr().err
    assert main(["train", str(tmp_path / "none.yaml"), "--out", str(tmp_path / "run")]) == 2


def test_a_loss_that_is_no_number_ends_it(tiny, tmp_path, capsys):
    words = ["--optimizer.name", "sgd", "--optimizer.lr", "1e30", "--out", str(tmp_path / "run")]
    assert main(["train", str(tiny), *words]) == 2
    assert "the loss is" in capsys.readouterr().err


@pytest.fixture
def no_large_files():
    """A function that lets no file grow beyond so many bytes: what is written beyond fails as on a full disk."""
    resource = pytest.importorskip("resource", reason="limits of POSIX")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(("size", "file"), [(0, "config.yaml"), (10_000, "checkpoint.pt"), (120_000, "checkpoint.pt")])
def test_a_full_disk_is_one_sentence(tiny, tmp_path, capsys, no_large_files, size, file):
    no_large_files(size)
    assert main(["train", str(tiny), "--out", str(tmp_path / "run")]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"tubelet: {tmp_path / 'run' / file} cannot be written (File too large)"


def test_resume_is_advised_where_a_full_disk_left_a_state(tiny, tmp_path, capsys, no_large_files):
    """A run that is done writes its weights anew."""
    words = ["train", str(tiny), "--out", str(tmp_path / "run"), "--steps", "2"]
    assert main(words) == 0
    no_large_files(10_000)
    capsys.readouterr()
    assert main([*words, "--resume"]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    file = tmp_path / "run" / "model.safetensors"
    assert last == f"tubelet: {file} cannot be written (File too large); --resume goes on from step 2"


@pytest.mark.slow
def test_resume_after_kills_of_the_command(tiny, tmp_path):
    """As a user sees it: the process is killed, the same command goes on."""
    words = [sys.executable, "-m", "tubelet", "train", str(tiny), "--steps", "60", "--resume", "--out"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    assert subprocess.run([*words, str(tmp_path / "whole")], env=environment, cwd=ROOT).returncode == 0
    killed = 0
    for number in (signal.SIGKILL, signal.SIGINT):
        process = subprocess.Popen([*words, str(tmp_path / "run")], env=environment, cwd=ROOT)
        seen = (tmp_path / "run" / "checkpoint.pt").stat().st_mtime_ns if killed else 0
        while process.poll() is None:
            path = tmp_path / "run" / "checkpoint.pt"
            if path.exists() and path.stat().st_mtime_ns > seen:
                process.send_signal(number)
                break
            time.sleep(0.002)
        assert process.wait() == (-signal.SIGKILL if number == signal.SIGKILL else 130)
        killed += 1
    assert subprocess.run([*words, str(tmp_path / "run")], env=environment, cwd=ROOT).returncode == 0
    assert equal(weights(tmp_path / "run"), weights(tmp_path / "whole"))


@pytest.mark.slow
def test_smoke_config_ends_bit_equal(tmp_path):
    """The shipped config, for a part of its steps."""
    for name in ("one", "two"):
        words = ["--steps", "12", "--val.length", "12", "--threads", "1", "--out", str(tmp_path / name)]
        assert main(["train", str(ROOT / "configs" / "smoke.yaml"), *words]) == 0
    assert equal(weights(tmp_path / "one"), weights(tmp_path / "two"))
