"""The loader: the same batches whatever the workers, from any step on, and no file that stops it."""

import time

import pytest
import torch

from tubelet.data import Steps, eval_loader, train_loader
from tubelet.data.datasets import Key, Sample, SceneClips
from tubelet.data.loader import clips_per_second
from tubelet.errors import TubeletError, VideoError


class Numbers:
    """Clips that show their index and epoch; those in `broken` cannot be read, `slow` takes long."""

    labels, mean, std = ["even", "odd"], (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)

    def __init__(self, count=12, broken=(), slow=(), wrong=()):
        self.count, self.broken, self.slow, self.wrong = count, broken, slow, wrong

    @property
    def targets(self):
        return [index % 2 for index in range(self.count)]

    def __len__(self):
        return self.count

    def name(self, index):
        return f"{index}.mp4"

    def __getitem__(self, key):
        if key.index in self.broken:
            raise VideoError(f"{key.index}.mp4: the file is empty") if key.index % 2 else FileNotFoundError("gone")
        if key.index in self.wrong:
            raise TubeletError("a wrong option")
        if key.index in self.slow:
            time.sleep(60)
        clips = torch.full((1, 2, 4, 4, 3), key.index + 100 * key.epoch, dtype=torch.uint8)
        warning = "5.mp4: 1 of 9 frames are missing" if key.index == 5 else ""
        return Sample(clips, key.index % 2, self.name(key.index), key.index, warning=warning)


def shown(loader):
    return [batch.clips[:, 0, 0, 0, 0, 0].tolist() for batch in loader]


def test_each_epoch_is_a_new_order_of_all_clips():
    steps = Steps(12, 4, 6, seed=1)
    batches = list(steps)
    assert steps.per_epoch == 3 and len(steps) == 6
    epochs = [[key.index for batch in batches[first : first + 3] for key in batch] for first in (0, 3)]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs) and epochs[0] != epochs[1]
    assert [batch[0].epoch for batch in batches] == [0, 0, 0, 1, 1, 1]
    assert [batch[0].progress for batch in batches] == pytest.approx([step / 6 for step in range(6)])
    assert [key.index for batch in Steps(12, 4, 6, seed=2) for key in batch][:12] != epochs[0]


def test_a_resumed_run_goes_on_with_the_same_batches():
    whole = list(Steps(13, 4, 10, seed=3))
    for done in (0, 2, 3, 7, 10):
        assert list(Steps(13, 4, 10, seed=3, start=done)) == whole[done:]


def test_processes_share_every_batch():
    whole = list(Steps(12, 4, 5))
    parts = [list(Steps(12, 4, 5, rank=rank, world=2)) for rank in range(2)]
    for batch, *halves in zip(whole, *parts, strict=True):
        assert sorted(key.index for half in halves for key in half) == sorted(key.index for key in batch)
    with pytest.raises(TubeletError, match="batch of 5 clips does not divide among 2"):
        Steps(12, 5, 5, world=2)
    with pytest.raises(TubeletError, match="must have 1 to 12 clips.*got 13"):
        Steps(12, 13, 5)


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_the_workers(workers):
    dataset = Numbers(broken=(3, 4))
    steps = Steps(12, 4, 7, seed=5)
    alone = shown(train_loader(dataset, steps))
    assert shown(train_loader(dataset, steps, workers=workers)) == alone
    assert shown(train_loader(dataset, Steps(12, 4, 7, seed=5, start=4), workers=workers)) == alone[4:]


def test_making_a_loader_draws_nothing_from_the_global_generator():
    before = torch.random.get_rng_state()
    shown(train_loader(Numbers(), Steps(12, 4, 3)))
    shown(eval_loader(Numbers(), 4))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_in_training_the_next_clip_of_the_class_takes_the_place_of_a_bad_one():
    told = []
    loader = train_loader(Numbers(broken=(3, 5, 10)), Steps(12, 12, 2), note=told.append)
    for number, batch in enumerate(loader):
        assert len(batch) == 12 and batch.labels.sum() == 6
        got = sorted(batch.indices)
        assert got == sorted([0, 0, 1, 2, 4, 6, 7, 7, 7, 8, 9, 11]) and {f"{i}.mp4" for i in got} == set(batch.names)
        assert (batch.clips[:, 0, 0, 0, 0, 0] == torch.tensor(batch.indices) + 100 * number).all()
    assert sorted(told) == [
        "10.mp4: gone",
        "3.mp4: the file is empty",
        "5.mp4: the file is empty",
    ]  # once, over 2 epochs
    assert loader.bad["10.mp4"] == "10.mp4: gone" and loader.clips == 24 and loader.waited > 0


@pytest.mark.parametrize("workers", [0, 2])
def test_elsewhere_bad_clips_are_left_out_and_named(workers):
    told = []
    loader = eval_loader(Numbers(broken=(3, 4, 5, 6, 7, 11)), 4, workers=workers, note=told.append)
    assert len(loader) == 3
    for _ in range(2):
        assert shown(loader) == [[0, 1, 2], [8, 9, 10]]
    assert len(told) == 6 and sorted(loader.bad) == sorted(f"{i}.mp4" for i in (3, 4, 5, 6, 7, 11))


def test_processes_share_what_is_evaluated():
    parts = [shown(eval_loader(Numbers(11), 4, rank=rank, world=2)) for rank in range(2)]
    assert parts == [[[0, 2, 4, 6], [8, 10]], [[1, 3, 5, 7], [9]]]


@pytest.mark.parametrize("workers", [0, 2])
def test_strict_ends_at_the_first_bad_file_in_one_sentence(workers):
    for loader in (
        train_loader(Numbers(broken=(3,)), Steps(12, 4, 3), workers=workers, strict=True),
        eval_loader(Numbers(broken=(3,)), 4, workers=workers, strict=True),
    ):
        with pytest.raises(VideoError) as caught:
            shown(loader)
        assert str(caught.value) == "3.mp4: the file is empty"


def test_what_is_no_bad_file_is_not_passed_over():
    with pytest.raises(TubeletError, match="a wrong option"):
        shown(train_loader(Numbers(wrong=(3,)), Steps(12, 4, 3)))


def test_if_none_of_its_class_can_be_read_another_class_takes_its_place():
    (batch,) = train_loader(Numbers(4, broken=(1, 3)), Steps(4, 4, 1))
    assert sorted(batch.indices) == [0, 0, 2, 2]


def test_no_clip_at_all():
    with pytest.raises(TubeletError, match="no clip of a whole batch can be read; the first"):
        shown(train_loader(Numbers(broken=range(12)), Steps(12, 4, 3)))
    assert shown(eval_loader(Numbers(broken=range(12)), 4)) == []


def test_a_file_that_takes_too_long_is_a_bad_file(monkeypatch):
    monkeypatch.setattr("tubelet.data.loader.LIMIT_SECONDS", 1)
    loader = eval_loader(Numbers(6, slow=(4,)), 3, workers=1)
    began = time.monotonic()
    assert shown(loader) == [[0, 1, 2], [3, 5]]
    assert time.monotonic() - began < 30 and loader.bad == {"4.mp4": "4.mp4: took more than 1 s to read"}


def test_warnings_are_given_once():
    told = []
    shown(train_loader(Numbers(), Steps(12, 4, 9), note=told.append))
    assert told == ["5.mp4: 1 of 9 frames are missing"]


def test_input_is_normalised_with_views_side_by_side():
    (batch,) = eval_loader(Numbers(3), 3)
    batch.clips = torch.cat([batch.clips, batch.clips + 10], dim=1)
    x = batch.input((0.5, 0.4, 0.3), (0.25, 0.2, 0.1))
    assert x.shape == (6, 3, 2, 4, 4) and x.dtype == torch.float32
    assert x[:, 1, 0, 0, 0].tolist() == pytest.approx([(v / 255 - 0.4) / 0.2 for v in (0, 10, 1, 11, 2, 12)], abs=1e-6)


def test_scenes_bring_their_truth_and_the_speed_is_measured_alone():
    dataset = SceneClips("train", length=24)
    batch = next(iter(train_loader(dataset, Steps(24, 12, 4))))
    assert batch.truth is not None and batch.truth.shape == (12, 8, 8, 8)
    for row, index in enumerate(batch.indices):
        assert torch.equal(batch.clips[row], dataset[Key(index, 0, 0.0)].clips)
    speed = clips_per_second(train_loader(dataset, Steps(24, 12, 6)), 3)
    print(f"scenes: {speed:.0f} clips/s")
    assert speed > 0
    with pytest.raises(TubeletError, match="more than 2 batches"):
        clips_per_second(eval_loader(dataset, 12), 3)
