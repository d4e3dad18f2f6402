"""Scenes: the same for the same number, truth where the target is, and nothing but the target tells the class."""

import csv
import time

import numpy as np
import pytest
import torch

from tubelet.data import open_dataset, open_video
from tubelet.data.datasets.base import Key
from tubelet.data.datasets.scenes import SceneClips, write_scenes
from tubelet.data.scenes import (
    COLOURS,
    DIRECTIONS,
    LABELS,
    LEVELS,
    SceneSettings,
    curriculum_stage,
    make_scene,
    scene_settings,
)
from tubelet.errors import TubeletError

levels = pytest.mark.parametrize("level", LEVELS)


@levels
def test_the_same_number_gives_the_same_scene_and_another_another(level):
    settings = scene_settings(level)
    one, again = make_scene(3, 5, settings), make_scene(3, 5, settings)
    assert torch.equal(one.frames, again.frames) and torch.equal(one.target, again.target)
    others = [make_scene(3, 17, settings), make_scene(4, 5, settings), make_scene(3, 5, settings, stream=1)]
    assert all(other.label == one.label and not torch.equal(other.frames, one.frames) for other in others)


def test_a_scene_is_the_same_on_every_machine():
    scene = make_scene(0, 0)
    assert scene.frames.dtype == torch.uint8 and scene.frames.shape == (16, 64, 64, 3)
    # within one grey level: matrix products may round differently
    assert scene.frames[0, 0, 0].tolist() == pytest.approx([105, 100, 107], abs=1)
    assert scene.target.sum() == pytest.approx(770, abs=2)
    assert scene.frames.float().mean().item() == pytest.approx(111.67, abs=0.1)


@levels
def test_classes_take_turns_and_truth_is_some_of_every_clip(level):
    scenes = [make_scene(0, index, scene_settings(level)) for index in range(24)]
    assert [scene.label for scene in scenes] == [*range(12), *range(12)]
    settings = LEVELS[level]
    for scene in scenes:
        frames = scene.target.flatten(1).any(dim=1).nonzero().flatten().tolist()
        assert settings.visible[0] <= len(frames) <= settings.visible[1]
        assert frames == list(range(frames[0], frames[-1] + 1))


def bare(**changed) -> SceneSettings:
    """A target on plain grey, so that it can be found in the pixels."""
    return SceneSettings(distractors=(0, 0), noise=0.0, pan=0.0, **changed)


def test_truth_is_where_the_target_is_drawn(monkeypatch):
    monkeypatch.setattr(
        "tubelet.data.scenes._background",
        lambda rng, pan: np.full((3, 16, 64, 64), 0.45, dtype=np.float32),
    )
    for index in range(12):
        scene = make_scene(0, index, bare())
        colour = torch.tensor(list(COLOURS.values())[scene.label % 3])
        strongest = int((colour - 0.45).abs().argmax())
        alpha = (scene.frames[..., strongest] / 255 - 0.45) / (colour[strongest] - 0.45)
        clear = (alpha - 0.5).abs() > 0.02  # pixels are rounded
        assert torch.equal((alpha >= 0.5)[clear], scene.target[clear])
        assert (alpha > 0.9).sum() > 200


def test_a_token_counts_if_any_of_its_pixels_does():
    scene = make_scene(0, 7)
    truth = scene.truth()
    assert truth.shape == (8, 8, 8)
    for t, row, column in np.ndindex(8, 8, 8):
        pixels = scene.target[2 * t : 2 * t + 2, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        assert truth[t, row, column] == pixels.any()
    assert scene.truth((4, 16, 32)).shape == (4, 4, 2)
    with pytest.raises(TubeletError, match=r"tubelet \(2, 7, 8\) does not divide"):
        scene.truth((2, 7, 8))


def test_about_20_of_512_tokens_in_4_of_8_slots():
    truth = torch.stack([make_scene(0, index).truth() for index in range(240)]).float()
    assert truth.sum(dim=(1, 2, 3)).mean() == pytest.approx(20, abs=2)
    assert truth.amax(dim=(2, 3)).sum(dim=1).mean() == pytest.approx(3.75, abs=0.25)


def centre_path(scene):
    """(frames, 2): mean (row, column) of the target's pixels in each frame that shows it."""
    frames = [frame.nonzero().float().mean(dim=0) for frame in scene.target if frame.any()]
    return torch.stack(frames)


def test_the_class_is_direction_and_colour():
    for index in range(24):
        scene = make_scene(1, index, bare())
        colour, direction = LABELS[scene.label].split()
        path = centre_path(scene)
        step = (path[-1] - path[0]) / (len(path) - 1)
        assert (step * torch.tensor(DIRECTIONS[direction])).sum() == pytest.approx(2.4, abs=0.5)
        found = scene.frames[scene.target].float().mean(dim=0) - 0.45 * 255
        assert int(found.argmax()) == list(COLOURS).index(colour)


@pytest.mark.parametrize("level", ["easy", "standard", "table"])
def test_position_does_not_betray_direction(level):
    """The nearest neighbours by mean position, and by time, know the direction no better than chance, 1/4."""
    settings = scene_settings(level)
    scenes = [make_scene(2, index, settings) for index in range(400)]
    direction = torch.tensor([scene.label // 3 for scene in scenes])
    mean = torch.stack([scene.target.nonzero().float().mean(dim=0) for scene in scenes])  # (400, 3): time, row, column
    for features in (mean[:, 1:], mean):
        distance = torch.cdist(features[200:], features[:200])
        votes = direction[:200][distance.topk(15, largest=False).indices].mode(dim=1).values
        right = (votes == direction[200:]).float().mean().item()
        assert right < 0.25 + 3 * (0.25 * 0.75 / 200) ** 0.5


def test_the_curriculum_goes_from_easy_to_the_level():
    assert [curriculum_stage(progress) for progress in (0, 0.12, 0.285, 0.45, 1)] == pytest.approx([0, 0, 0.5, 1, 1])
    assert scene_settings("hard", 0) == LEVELS["easy"] and scene_settings("hard", 1) == LEVELS["hard"]
    half = scene_settings("standard", 0.5)
    assert half.distractors == (1, 1) and half.radius == (6.5, 8.25) and half.noise == pytest.approx(0.045)
    with pytest.raises(TubeletError, match="'harder'; allowed: easy, standard, hard, table"):
        scene_settings("harder")
    with pytest.raises(TubeletError, match="0 to 1, got 1.5"):
        scene_settings("hard", 1.5)


def test_the_data_set_is_fresh_each_epoch_in_training_only():
    train, val = SceneClips("train", length=30), SceneClips("val", length=30)
    assert len(train) == 30 and train.targets == [index % 12 for index in range(30)]
    for dataset in (train, val):
        assert [dataset[index].label for index in range(13)] == dataset.targets[:13]
        assert dataset[Key(3, epoch=1)].label == dataset.targets[3]
    assert not torch.equal(train[Key(3, 0)].clips, train[Key(3, 1)].clips)
    assert torch.equal(val[Key(3, 0)].clips, val[Key(3, 1)].clips)
    assert not torch.equal(train[Key(3)].clips, val[Key(3)].clips)
    assert train[Key(3, 0, 0.0)].truth.sum() > 2 * train[Key(3, 0, 1.0)].truth.sum()  # easy first
    with pytest.raises(IndexError):
        val[30]
    with pytest.raises(TubeletError, match="no split 'dev'; allowed: train, val, test"):
        SceneClips("dev")


def test_written_to_mp4(tmp_path):
    dataset = SceneClips("val", length=13)
    table = write_scenes(tmp_path, dataset)
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == [LABELS[index] for index in dataset.targets]
    assert (tmp_path / "classes.txt").read_text().splitlines() == LABELS
    truth = np.load(tmp_path / "val_truth.npz")["truth"]
    for index in (0, 12):
        with open_video(tmp_path / rows[index]["path"]) as reader:
            frames = reader.read(range(16))
        difference = (frames.float() - dataset[index].clips[0]).view(16, 16, 4, 16, 4, 3)
        assert difference.mean(dim=(2, 4)).abs().mean() < 4  # without the noise, which H.264 loses
        assert np.array_equal(truth[index], dataset[index].truth.numpy())
    with pytest.raises(TubeletError, match="no such folder"):
        write_scenes(tmp_path / "nowhere", dataset)


@levels
def test_time_of_a_clip(level):
    settings, count = scene_settings(level), 50
    began = time.process_time()
    for index in range(count):
        make_scene(0, index, settings)
    print(f"{level}: {(time.process_time() - began) / count * 1e3:.1f} ms a clip")


def test_every_second_frame_has_the_truth_of_its_own():
    whole, half = (open_dataset("scenes:test", length=3, frames=n, tubelet=(1, 8, 8)) for n in (16, 8))
    for index in range(3):
        assert torch.equal(half[index].clips, whole[index].clips[:, ::2])
        assert torch.equal(half[index].truth, whole[index].truth[::2])


def test_what_is_done_to_the_look_of_a_clip_changes_neither_the_scene_nor_its_truth():
    """Random numbers by the key alone: another epoch or clip has others, and they are not those that drew the scene."""
    drawn = []

    def darker(frames, rng):
        drawn.append(rng.random())
        return frames // 2

    options = {"frames": 8, "length": 24, "fresh": False, "curriculum": False}
    plain, finished = SceneClips(**options), SceneClips(**options, finish=darker)
    for key in (Key(5), Key(5), Key(5, epoch=1), Key(6)):
        one, other = plain[key], finished[key]
        assert torch.equal(other.clips, one.clips // 2) and torch.equal(other.truth, one.truth)
    assert drawn[0] == drawn[1] and len(set(drawn)) == 3
    assert drawn[0] != np.random.default_rng(np.random.SeedSequence((0, 0, 5))).random()  # what drew it
    assert torch.equal(SceneClips(**options, finish=None)[5].clips, plain[5].clips)
