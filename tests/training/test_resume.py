"""Nothing is lost: however a training is stopped, going on leads to the same weights, bit for bit."""

import errno
import multiprocessing
import os
import signal

import pytest
import torch

from tests.training.tiny import config, equal, log, train, weights
from tubelet.errors import TubeletError, WriteError
from tubelet.training import saved

FORK = multiprocessing.get_context("fork")  # no second import of torch for each kill


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that was never stopped."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(config(folder))
    return folder


def in_child(work):
    """Start `work` in a process of its own, silenced."""

    def quiet():
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        work()

    child = FORK.Process(target=quiet)
    child.start()
    return child


def same(folder, whole):
    assert equal(weights(folder), weights(whole))
    assert equal(weights(folder / "ema"), weights(whole / "ema"))
    assert equal(weights(folder / "best"), weights(whole / "best"))
    assert not list(folder.rglob("*.part")) and not list(folder.rglob("*.tmp"))


def test_two_runs_are_equal(tmp_path, whole):
    train(config(tmp_path / "run"))
    same(tmp_path / "run", whole)
    assert log(tmp_path / "run") == log(whole)


def kills_until_the_end(folder, generator):
    """Train in a process that is killed after a random time and goes on, until it ends; how often it was killed."""
    kills = 0
    while True:
        child = in_child(lambda: train(config(folder), resume=True))
        child.join(0.05 + 0.6 * torch.rand(1, generator=generator).item() if kills < 12 else None)
        if child.exitcode is not None:
            assert child.exitcode == 0
            return kills
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        kills += 1


@pytest.mark.slow
def test_resume_after_kills_at_random_points(tmp_path, whole):
    """As many trainings as it takes until twelve kills have come: a fast machine ends one after two of them."""
    generator, kills, runs = torch.Generator().manual_seed(1), 0, 0
    while kills < 12:
        folder = tmp_path / f"run{runs}"
        kills += kills_until_the_end(folder, generator)
        same(folder, whole)
        runs += 1


@pytest.mark.parametrize("step", [1, 5, 12])
@pytest.mark.parametrize("moment", ["writing", "written", "renamed"])
def test_resume_after_a_kill_while_the_checkpoint_is_written(tmp_path, whole, step, moment):
    folder = tmp_path / "run"

    def killed():
        usual_save, usual_replace, calls = torch.save, os.replace, []

        def save(state, file):
            calls.append(None)
            if len(calls) == step and moment == "writing":
                file.write(b"half a checkpoint")
                file.flush()
                os._exit(9)
            usual_save(state, file)

        def replace(source, target):
            if len(calls) == step and str(target).endswith(saved.CHECKPOINT):
                if moment == "renamed":
                    usual_replace(source, target)
                os._exit(9)
            usual_replace(source, target)

        torch.save, os.replace = save, replace
        train(config(folder))

    child = in_child(killed)
    child.join()
    assert child.exitcode == 9
    train(config(folder), resume=True)
    same(folder, whole)


def test_resume_clears_what_a_kill_left_half_written(tmp_path, whole):
    """The files of models too; a training that is refused clears nothing, since another may be at work."""
    folder = tmp_path / "run"
    train(config(folder, save_every=12))
    halves = [folder / "checkpoint.pt.part", *(folder / f / ".model.safetensors.1.tmp" for f in (".", "best", "ema"))]
    for half in halves:
        half.write_bytes(b"half")
    with pytest.raises(TubeletError, match="holds a training"):
        train(config(folder))
    assert all(half.exists() for half in halves)
    train(config(folder), resume=True)
    same(folder, whole)


def test_resume_after_a_full_disk(tmp_path, whole, monkeypatch):
    folder, usual, calls = tmp_path / "run", torch.save, []

    def save(state, file):
        calls.append(None)
        if len(calls) == 4:
            file.write(b"as much as fits")
            raise OSError(errno.ENOSPC, "No space left on device")
        usual(state, file)

    monkeypatch.setattr(torch, "save", save)
    said = r"run/checkpoint.pt cannot be written \(No space left on device\); --resume goes on from step 3$"
    with pytest.raises(WriteError, match=said):
        train(config(folder))
    assert saved.load_state(folder)["step"] == 3 and not list(folder.glob("*.part"))
    train(config(folder), resume=True)
    same(folder, whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_resume_after_a_polite_end(tmp_path, whole, number, monkeypatch):
    """Control-C finishes the step and saves it."""
    folder, usual, calls = tmp_path / "run", saved.save_state, []

    def save(*state):
        usual(*state)
        calls.append(None)
        if len(calls) == 4:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(saved, "save_state", save)
    with pytest.raises(KeyboardInterrupt):
        train(config(folder, save_every=1))
    assert saved.load_state(folder)["step"] == 5
    train(config(folder), resume=True)
    same(folder, whole)


def test_resume_with_accumulation_workers_and_a_changing_selection(tmp_path):
    """Parts of a batch, clips from another process, tokens dropped at random for half of the steps; saved rarely."""
    changed = {"accumulate": 2, "workers": 1, "select_until": {0.5: "random:keep=0.5@0"}, "save_every": 5}
    train(config(tmp_path / "whole", **changed))

    def killed():
        save, calls = saved.save_state, []

        def saving(folder, state):
            save(folder, state)
            calls.append(None)
            if len(calls) == 2:  # after step 10
                os._exit(9)

        saved.save_state = saving
        train(config(tmp_path / "run", **changed))

    child = in_child(killed)
    child.join()
    assert child.exitcode == 9
    train(
        config(
            tmp_path / "run",
            **changed,
        ),
        resume=True,
    )
    same(tmp_path / "run", tmp_path / "whole")
    assert log(tmp_path / "run") == log(tmp_path / "whole")


def test_resume_begins_where_nothing_is_and_ends_where_all_is_done(tmp_path, whole):
    folder = tmp_path / "run"
    train(config(folder), resume=True)
    same(folder, whole)
    (folder / "model.safetensors").unlink()  # as if it was killed after the last step
    train(config(folder), resume=True)
    same(folder, whole)


def test_a_folder_with_a_training_is_not_written_over(tmp_path, whole):
    with pytest.raises(TubeletError, match="holds a training at step 12: --resume"):
        train(config(whole))


def test_resume_with_another_config_is_refused(tmp_path, whole):
    with pytest.raises(TubeletError, match="was begun with another steps, optimizer"):
        train(config(whole, steps=20, optimizer={"lr": 0.1}), resume=True)


def test_resume_of_a_broken_checkpoint_is_refused(tmp_path):
    (tmp_path / saved.CHECKPOINT).write_bytes(b"not one")
    with pytest.raises(TubeletError, match="cannot be read"):
        train(config(tmp_path), resume=True)


def test_weights_that_are_no_numbers_are_not_saved(tmp_path):
    """Also where the loss is looked at more rarely than the state is saved."""
    changed = {"optimizer": {"name": "sgd", "lr": 1e30}, "clip": 0.0, "log_every": 12, "schedule": {"warmup_steps": 6}}
    with pytest.raises(TubeletError, match="the weights are no numbers at step"):
        train(config(tmp_path, **changed))
    state = saved.load_state(tmp_path)
    assert state is None or all(torch.isfinite(weight).all() for weight in state["model"].values())


def test_resume_with_other_clips_is_refused(tmp_path):
    train(config(tmp_path, steps=1))
    state = saved.load_state(tmp_path)
    saved.save_state(tmp_path, {**state, "clips": "others"})
    with pytest.raises(TubeletError, match="was begun with other clips in scenes_easy"):
        train(config(tmp_path, steps=1), resume=True)


def test_resume_may_judge_on_other_clips(tmp_path, whole):
    train(config(tmp_path), resume=True)
    train(config(tmp_path, val={"length": 12}), resume=True)
    same(tmp_path, whole)


def test_mixing_needs_two_clips(tmp_path):
    with pytest.raises(TubeletError, match="leaves 1 each; at least 2"):
        train(config(tmp_path, accumulate=4))
    assert not (tmp_path / saved.CHECKPOINT).exists()


def test_a_name_and_weights_of_another_architecture(tmp_path, whole):
    model = {"name": "mvit_base_16x4", "weights": str(whole)}
    with pytest.raises(TubeletError, match="model.name is mvit_base_16x4, and its weights are those of a vit"):
        train(config(tmp_path, model=model))
