"""Batches of clips: repeatable whatever the number of workers, and never stopped by a file that cannot be read.

A clip that cannot be read (`VideoError`, `OSError`, or more than `LIMIT_SECONDS` in a worker)
- in training: the next clip of the same class takes its place, in the order of the data set, the first after the last;
  so a batch keeps its size and the classes their shares (if none of its class can be read, the next of any class);
- elsewhere: it is left out, and `Loader.bad` says which are missing from the answer.
Each such file is named once. With `strict` it ends the run instead.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from torch.utils.data import DataLoader, get_worker_info

from tubelet.data.batches import Batch, Steps
from tubelet.data.datasets.base import ClipDataset, Key, Sample
from tubelet.data.datasets.keyframes import KeyframeSample, collate_keyframes
from tubelet.errors import TubeletError, VideoError

LIMIT_SECONDS = 120
"""A worker gives up on a file after this long."""

MAX_REPLACEMENTS = 100


class Loader:
    """An iterable of `Batch`es. Make it by `train_loader` or `eval_loader`.

    bad:       name -> sentence of each file that could not be read so far, those of other passes included
    clips:     how many were given out;  waited: seconds that whoever uses it waited for them
    """

    def __init__(self, loader: DataLoader[Batch], *, strict: bool, note: Callable[[str], None]) -> None:
        self._loader, self._strict, self._note = loader, strict, note
        self.bad: dict[str, str] = {}
        self.clips, self.waited = 0, 0.0
        self._warned: set[str] = set()

    def __len__(self) -> int:
        """Batches of a pass, those without a readable clip included."""
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        began = time.perf_counter()
        for batch in self._loader:
            self.waited += time.perf_counter() - began
            self._tell(batch)
            self.clips += len(batch)
            if len(batch):
                yield batch
            began = time.perf_counter()

    def _tell(self, batch: Batch) -> None:
        for name, sentence in batch.bad.items():
            if self._strict:
                raise VideoError(sentence)
            if name not in self.bad:
                self.bad[name] = sentence
                self._note(sentence)
        for name, sentence in batch.warnings.items():
            if name not in self._warned:
                self._warned.add(name)
                self._note(sentence)


def train_loader(
    dataset: ClipDataset,
    steps: Steps,
    *,
    workers: int = 0,
    strict: bool = False,
    note: Callable[[str], None] = lambda sentence: None,
    pin_memory: bool = False,
) -> Loader:
    """The batches of `steps`, for all epochs: workers stay, and load ahead over the end of one.

    note:  is called with a sentence for each bad file
    """
    loader = _torch_loader(dataset, steps, replace=True, workers=workers, seed=steps.seed, pin_memory=pin_memory)
    return Loader(loader, strict=strict, note=note)


def eval_loader(
    dataset: ClipDataset,
    batch: int,
    *,
    workers: int = 0,
    strict: bool = False,
    note: Callable[[str], None] = lambda sentence: None,
    rank: int = 0,
    world: int = 1,
    pin_memory: bool = False,
) -> Loader:
    """Each clip once, in order; of several processes each takes every `world`-th. The last batch may be smaller."""
    if batch < 1:
        raise TubeletError(f"a batch must have at least 1 clip, got {batch}")
    keys = [Key(index) for index in range(rank, len(dataset), world)]
    batches = [keys[start : start + batch] for start in range(0, len(keys), batch)]
    loader = _torch_loader(dataset, batches, replace=False, workers=workers, seed=0, pin_memory=pin_memory)
    return Loader(loader, strict=strict, note=note)


def clips_per_second(loader: Loader, batches: int, *, warm_up: int = 2) -> float:
    """The speed of the loader alone, with no model beside it; the first `warm_up` batches are not counted.

    Raises TubeletError if the loader has not more batches than those.
    """
    clips, began = 0, 0.0
    for number, batch in enumerate(loader, start=1):
        if number == warm_up:
            began = time.perf_counter()
        elif number > warm_up:
            began, clips = began or time.perf_counter(), clips + len(batch)
        if number == warm_up + batches:
            break
    if not clips:
        raise TubeletError(f"the speed of a loader needs more than {warm_up} batches, there are {len(loader)}")
    return clips / (time.perf_counter() - began)


class _Careful(torch.utils.data.Dataset[Sample | dict[str, str]]):
    """What workers run: keys -> samples, bad files on the side, never an exception for one."""

    def __init__(self, dataset: ClipDataset, replace: bool) -> None:
        self.dataset, self.replace = dataset, replace
        self.bad: dict[int, str] = {}  # found so far in this process: not tried again
        self._of_class: dict[int, list[int]] | None = None

    def __getitems__(self, keys: list[Key]) -> list[Sample | dict[str, str]]:
        """The samples, and between them {name: sentence} of what could not be read."""
        found: list[Sample | dict[str, str]] = []
        for key in keys:
            sample = self._try(key, found)
            tries = iter(self._others(key) if sample is None and self.replace else ())
            while sample is None and (other := next(tries, None)) is not None:
                sample = self._try(other, found)
            if sample is not None:
                found.append(sample)
        return found

    def _try(self, key: Key, found: list[Sample | dict[str, str]]) -> Sample | None:
        if key.index not in self.bad:
            try:
                with _time_limit(LIMIT_SECONDS):
                    return self.dataset[key]
            except (VideoError, OSError) as error:
                name = self.dataset.name(key.index)
                reason = str(error.strerror or error) if isinstance(error, OSError) else str(error)
                self.bad[key.index] = " ".join((reason if name in reason else f"{name}: {reason}").split())
        found.append({self.dataset.name(key.index): self.bad[key.index]})
        return None

    def _others(self, key: Key) -> list[Key]:
        """The clips that may take its place, the next of its class first."""
        if self._of_class is None:
            self._of_class = {}
            for index, label in enumerate(self.dataset.targets):
                self._of_class.setdefault(label, []).append(index)
        same = self._of_class[self.dataset.targets[key.index]]
        at, count = same.index(key.index), len(self.dataset)
        of_class = [*same[at + 1 :], *same[:at]][:MAX_REPLACEMENTS]
        of_any = [(key.index + step) % count for step in range(1, min(count, MAX_REPLACEMENTS))]
        return [Key(index, key.epoch, key.progress) for index in (*of_class, *of_any)]


def _collate(found: list[Sample | dict[str, str]], replace: bool) -> Batch:
    samples = [one for one in found if isinstance(one, Sample)]
    bad = {name: sentence for one in found if isinstance(one, dict) for name, sentence in one.items()}
    if not samples:
        if replace:
            raise TubeletError(f"no clip of a whole batch can be read; the first: {next(iter(bad.values()))}")
        return Batch(torch.empty(0), torch.empty(0, dtype=torch.long), [], [], bad=bad)
    if isinstance(samples[0], KeyframeSample):
        return collate_keyframes([one for one in samples if isinstance(one, KeyframeSample)], bad)
    truths = [sample.truth for sample in samples if sample.truth is not None]
    return Batch(
        clips=torch.stack([sample.clips for sample in samples]),
        labels=torch.tensor([sample.label for sample in samples]),
        names=[sample.name for sample in samples],
        indices=[sample.index for sample in samples],
        truth=torch.stack(truths) if len(truths) == len(samples) else None,
        bad=bad,
        warnings={sample.name: sample.warning for sample in samples if sample.warning},
    )


def _torch_loader(
    dataset: ClipDataset,
    batches: Steps | list[list[Key]],
    *,
    replace: bool,
    workers: int,
    seed: int,
    pin_memory: bool,
) -> DataLoader[Batch]:
    return DataLoader(
        _Careful(dataset, replace),  # type: ignore[arg-type]
        batch_sampler=batches,  # type: ignore[arg-type]
        collate_fn=partial(_collate, replace=replace),  # type: ignore[arg-type]
        num_workers=workers,
        worker_init_fn=partial(_start_worker, seed=seed),
        generator=torch.Generator().manual_seed(seed),  # so that making an iterator draws nothing from the global one
        pin_memory=pin_memory,
    )


def _start_worker(worker: int, seed: int) -> None:
    """Random numbers that an augmentation draws from global generators differ among workers, but not among runs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Control-C is for the process that reads the batches
    torch.set_num_threads(1)
    own = int(np.random.SeedSequence((seed, worker)).generate_state(1)[0])
    torch.manual_seed(own)
    np.random.seed(own)
    random.seed(own)


@contextmanager
def _time_limit(seconds: int) -> Iterator[None]:
    """VideoError after so many seconds, in a worker process on a system that has alarms; elsewhere no limit."""
    alarms = hasattr(signal, "SIGALRM") and threading.current_thread() is threading.main_thread()
    if get_worker_info() is None or not alarms:
        yield
        return

    def give_up(number: int, frame: object) -> None:
        raise VideoError(f"took more than {seconds} s to read")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
