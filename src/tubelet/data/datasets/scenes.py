"""Scenes as a data set: as many clips as asked for, with their truth, and the same written to mp4."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import Tensor

from tubelet.data.datasets.base import Key, Sample, as_key
from tubelet.data.scenes import (
    FRAMES,
    LABELS,
    LEVELS,
    MEAN,
    STD,
    TUBELET,
    Scene,
    curriculum_stage,
    make_scene,
    scene_settings,
)
from tubelet.data.write import write_video
from tubelet.errors import TubeletError

SPLITS = {"train": 0, "val": 1, "test": 2}
LENGTHS = {"train": 12_000, "val": 1_200, "test": 2_400}
FPS = 8.0


class SceneClips:
    """A `ClipDataset` of scenes.

    level:       "easy", "standard", "hard" or "table" (see `data.scenes.LEVELS`)
    length:      number of clips; by default 12000 of train, 1200 of val, 2400 of test
    fresh:       every epoch has clips of its own; the default in training. Otherwise all epochs are alike.
    frames:      of a clip: 16, or every second of them (8), every fourth (4) ...
    tubelet:     frames, rows and columns of the tokens that the truth counts in
    curriculum:  the level is reached by way of easy scenes, by the `progress` of the key; the default in training
    finish:      what is done to each clip: (uint8 (T, 64, 64, 3), rng) -> the same shape; the truth stays the scene's

    Splits share no clip. Raises TubeletError for an unknown split or level.
    """

    mean, std = MEAN, STD

    def __init__(
        self,
        split: str = "train",
        *,
        level: str = "standard",
        length: int | None = None,
        seed: int = 0,
        fresh: bool | None = None,
        curriculum: bool | None = None,
        frames: int = FRAMES,
        tubelet: tuple[int, int, int] = TUBELET,
        finish: Callable[[Tensor, np.random.Generator], Tensor] | None = None,
    ) -> None:
        if split not in SPLITS:
            raise TubeletError(f"scenes have no split {split!r}; allowed: {', '.join(SPLITS)}")
        scene_settings(level)
        if length is not None and length < 1:
            raise TubeletError(f"a data set of scenes needs a length of at least 1, got {length}")
        if frames < 1 or FRAMES % frames:
            raise TubeletError(f"scenes have {FRAMES} frames, or every second, fourth ... of them, not {frames}")
        self.split, self.level, self.seed, self.every = split, level, seed, FRAMES // frames
        self.length = length or LENGTHS[split]
        self.fresh = split == "train" if fresh is None else fresh
        self.curriculum = split == "train" if curriculum is None else curriculum
        self.labels, self.tubelet = list(LABELS), tubelet
        self._finish = finish

    @property
    def targets(self) -> list[int]:
        return [index % len(LABELS) for index in range(self.length)]

    def __len__(self) -> int:
        return self.length

    def name(self, index: int) -> str:
        return f"scene {self.split} {index}"

    def scene(self, key: int | Key) -> Scene:
        """The scene of a key, its pixels of the target included. Raises IndexError beyond the last."""
        key = as_key(key)
        if not 0 <= key.index < self.length:
            raise IndexError(f"scene {key.index} of {self.length}")
        stage = curriculum_stage(key.progress) if self.curriculum else 1.0
        # An epoch begins at a multiple of 12, so that the classes go on taking turns.
        length = -(-self.length // len(LABELS)) * len(LABELS)
        number = key.index + key.epoch * length if self.fresh else key.index
        return make_scene(self.seed, number, scene_settings(self.level, stage), stream=SPLITS[self.split])

    def __getitem__(self, key: int | Key) -> Sample:
        key, scene = as_key(key), self.scene(key)
        if self.every > 1:
            scene = Scene(scene.frames[:: self.every].contiguous(), scene.target[:: self.every], scene.label)
        frames = scene.frames
        if self._finish is not None:
            # Not the numbers of `random_of`, which in the first epoch are those that the scene was drawn with.
            seed = np.random.SeedSequence((self.seed, key.epoch, key.index), spawn_key=(SPLITS[self.split],))
            frames = self._finish(frames, np.random.default_rng(seed))
        return Sample(frames[None], scene.label, self.name(key.index), key.index, scene.truth(self.tubelet))


def write_scenes(folder: str | Path, dataset: SceneClips) -> Path:
    """Writes every clip as FOLDER/SPLIT/NUMBER.mp4, FOLDER/SPLIT.csv (path,label), and FOLDER/SPLIT_truth.npz.

    The last holds `truth`, bool (clips, 8, 8, 8), in the order of the csv, which it returns. H.264 changes pixels by a
    few grey levels. Raises TubeletError if the folder does not exist.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise TubeletError(f"{folder}: no such folder; one to write scenes to is needed")
    (folder / dataset.split).mkdir(exist_ok=True)
    rows, truths = [], []
    for index in range(len(dataset)):
        scene = dataset.scene(index)
        path = f"{dataset.split}/{index:06d}.mp4"
        write_video(folder / path, scene.frames, fps=FPS)
        rows.append((path, LABELS[scene.label]))
        truths.append(scene.truth().numpy())
    np.savez_compressed(folder / f"{dataset.split}_truth.npz", truth=np.stack(truths))
    (folder / "classes.txt").write_text("".join(f"{label}\n" for label in LABELS))
    with open(folder / f"{dataset.split}.csv", "w", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *rows])
    return folder / f"{dataset.split}.csv"


__all__ = ["LEVELS", "SceneClips", "write_scenes"]
