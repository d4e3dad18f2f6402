"""Two processes on the CPU train what one does."""

import multiprocessing
import os
import socket

import pytest
import torch
from torch import nn

from tests.training.tiny import MODEL, config, train, weights
from tubelet.checkpoints import save_model
from tubelet.models.registry import create_model
from tubelet.training import make, run, saved

FORK = multiprocessing.get_context("fork")
# Nothing random but the start and the order of the clips: processes draw numbers of their own.
PLAIN = {
    "model": {**MODEL, "drop_path": 0.0},
    "augment": {"label_smoothing": 0.1},
    "optimizer": {"name": "sgd", "lr": 0.5, "momentum": 0.9},
    "steps": 3,
    "batch": 4,
    "ema": 0.0,
    "save_every": 2,
}


def together(work, world=2, seconds=150):
    """Run `work(rank)` in processes as torchrun would start them; their exit statuses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def child(rank):
        os.environ.update(
            RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
        )
        work(rank)

    children = [FORK.Process(target=child, args=(rank,)) for rank in range(world)]
    for process in children:
        process.start()
    for process in children:
        process.join(seconds)
    hung = [process for process in children if process.exitcode is None]
    for process in hung:
        process.kill()
    assert not hung, "a process hangs"
    return [process.exitcode for process in children]


def close(folder, other, tolerance=1e-5):
    one, two = weights(folder), weights(other)
    assert list(one) == list(two)
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=0, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize("changed", [{"steps": 1}, {"accumulate": 2, "clip": 0.5}], ids=["one step", "parts, clipped"])
def test_two_processes_train_as_one(tmp_path, parallel, changed):
    train(config(tmp_path / "one", **{**PLAIN, **changed}))
    assert together(lambda rank: train(config(tmp_path / "two", parallel=parallel, **{**PLAIN, **changed}))) == [0, 0]
    close(tmp_path / "two", tmp_path / "one")
    start = create_model(**{**MODEL, "drop_path": 0.0}, num_classes=12)
    moved = [not torch.allclose(w, start.state_dict()[n], atol=1e-4) for n, w in weights(tmp_path / "two").items()]
    assert any(moved)  # a step was made at all


@pytest.mark.slow
def test_gradients_of_two_processes_are_those_of_one(tmp_path):
    def gradients(folder):
        usual, found = torch.optim.SGD.step, {}

        def step(self, *args, **kwargs):
            for number, p in enumerate(p for g in self.param_groups for p in g["params"]):
                found[str(number)] = p.grad.clone()
            return usual(self, *args, **kwargs)

        torch.optim.SGD.step = step
        train(config(folder, **{**PLAIN, "steps": 1}))
        torch.optim.SGD.step = usual
        return found

    alone = gradients(tmp_path / "one")

    def work(rank):
        torch.save(gradients(tmp_path / "two"), tmp_path / f"{rank}.pt")

    assert together(work) == [0, 0]
    for rank in range(2):
        theirs = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert len(theirs) == len(alone) > 10
        for name, gradient in alone.items():
            torch.testing.assert_close(theirs[name], gradient, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_a_scorer_without_gradient_hangs_nobody(tmp_path):
    def with_idle_scorer(*args, **kwargs):
        model = create_model(*args, **kwargs)
        model.plan.idle = nn.Linear(3, 3)
        return model

    def work(rank):
        make.create_model = with_idle_scorer
        run.save_model = lambda model, folder, state: save_model(
            model, folder, state={k: v for k, v in state.items() if "idle" not in k}
        )
        train(config(tmp_path / "two", **PLAIN))

    assert together(work) == [0, 0]
    train(config(tmp_path / "one", **PLAIN))
    close(tmp_path / "two", tmp_path / "one")


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_resume(tmp_path, parallel):
    adamw = {**PLAIN, "optimizer": {"name": "adamw", "lr": 1e-2}, "ema": 0.9}
    assert together(lambda rank: train(config(tmp_path / "whole", parallel=parallel, **adamw))) == [0, 0]

    def killed(rank):
        save = run.Run._save
        run.Run._save = lambda self, step: (save(self, step), os._exit(9))  # after the second step
        train(config(tmp_path / "run", parallel=parallel, **adamw))

    assert together(killed) == [9, 9]
    assert saved.load_state(tmp_path / "run")["step"] == 2
    assert together(lambda rank: train(config(tmp_path / "run", parallel=parallel, **adamw), resume=True)) == [0, 0]
    close(tmp_path / "run", tmp_path / "whole", tolerance=0.0)
    close(tmp_path / "run" / "ema", tmp_path / "whole" / "ema", tolerance=0.0)
