"""The loop that all recipes share, and what it is made of: data, model, task, optimizer, state.

A step depends on the config and its number alone: which clips, how they are augmented, and every random number of
the model are seeded by (seed, step). So a run that goes on at a step is the run that was never stopped.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tubelet.checkpoints import save_model
from tubelet.data import eval_loader, train_loader
from tubelet.data.batches import Batch, Steps
from tubelet.data.datasets.base import clips_id
from tubelet.data.loader import Loader
from tubelet.devices import device_of
from tubelet.errors import TubeletError, WriteError
from tubelet.models.base import VideoModel
from tubelet.models.registry import set_selection
from tubelet.selection.registry import methods
from tubelet.selection.spec import parse
from tubelet.training import distributed, saved
from tubelet.training.average import Average
from tubelet.training.config import TrainConfig, as_yaml
from tubelet.training.distributed import Processes
from tubelet.training.log import Log, Window
from tubelet.training.make import Note, data_and_model, optimizer_of
from tubelet.training.schedules import factor
from tubelet.training.tasks import TASKS, Task

# Of a config, what a run that goes on may have otherwise: it changes no weight, but for the last digits of sums.
FREE = (
    "val", "out", "evaluate_every", "save_every", "log_every", "workers", "threads", "tensorboard", "strict", "device",
)  # fmt: skip


@dataclass(frozen=True)
class Progress:
    """What a training says after each step; the figures are means since the last line of the log."""

    step: int
    steps: int
    epoch: float
    loss: float
    lr: float
    clips_per_s: float
    seconds_left: float


@dataclass(frozen=True)
class Result:
    """What a training left: its folder, the last figures on `val`, and the best with their step and weights."""

    out: Path
    steps: int
    seconds: float
    last: dict[str, Any]
    best: dict[str, Any]


def train(
    config: TrainConfig,
    *,
    resume: bool = False,
    note: Note = lambda sentence: None,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> Result:
    """Train to the end, or go on where `config.out` stopped.

    Raises TubeletError for what cannot be, WriteError if a file cannot be written, KeyboardInterrupt after Control-C,
    with the step before it saved.
    """
    if config.out is None:
        raise TubeletError("where to? Give out, a folder for the training")
    if config.threads:
        torch.set_num_threads(config.threads)
    with distributed.processes(device_of(config.device)) as (where, device):
        config = config.model_copy(update={"device": str(device)})
        run = Run(config, where, note if where.main else lambda sentence: None)
        with stopped_by_signals() as stopped:
            return run.go(resume, progress, stopped)


class Run:
    """A training in one process of perhaps several."""

    def __init__(self, config: TrainConfig, where: Processes, note: Note) -> None:
        assert config.out is not None
        self.config, self.where, self.note, self.folder = config, where, note, config.out
        self.device = torch.device(config.device)
        torch.manual_seed(config.seed)  # the weights that begin are the same in every process
        self.data, self.val, model = data_and_model(config, self.note)
        self.select = model.config.select
        self.select_until = sorted(config.select_until.items())
        self._check_selections(model)
        self.task: Task = TASKS[config.task](model, config, (self.data.mean, self.data.std))
        self.task.module.to(self.device).train()
        self.model = model
        self.module = distributed.wrap(self.task.module, config.parallel, where, self.device)
        self.per_epoch = Steps(
            len(self.data), config.batch, 1, world=where.world, repeated=config.augment.repeated
        ).per_epoch
        views = config.batch // (where.world * config.accumulate)
        if (config.augment.mixup or config.augment.cutmix) and views < 2 * config.augment.repeated:
            raise TubeletError(
                f"augment.mixup and cutmix mix the clips of a part of a batch: batch={config.batch} over {where.world} "
                f"processes and {config.accumulate} parts leaves {views // config.augment.repeated} each; at least 2"
            )
        self.steps = config.steps or max(round((config.epochs or 0) * self.per_epoch), 1)
        self.optimizer = optimizer_of(self.task.module, config, model)
        self.average = Average(self.task.module, config.ema) if config.ema else None
        self.best: dict[str, Any] = {}
        self.saved: int | None = None  # the step that can be resumed at
        self.without_val = False  # none of its clips could be read, and that was said
        self.seconds = 0.0

    def go(self, resume: bool, progress: Callable[[Progress], None], stopped: Callable[[], bool]) -> Result:
        try:
            return self._go(resume, progress, stopped)
        except WriteError as error:
            if self.saved is None:
                raise
            raise WriteError(f"{error}; --resume goes on from step {self.saved}") from error

    def _go(self, resume: bool, progress: Callable[[Progress], None], stopped: Callable[[], bool]) -> Result:
        config, where = self.config, self.where
        start = self._begin(resume)
        if where.main:
            saved.remove_halves(self.folder)  # now that the folder is known to be of this training
        began = time.monotonic() - self.seconds
        steps = Steps(
            len(self.data), config.batch, self.steps, start=start, seed=config.seed, rank=where.rank, world=where.world,
            repeated=config.augment.repeated, shuffled=config.order == "random",
        )  # fmt: skip
        loader = train_loader(
            self.data, steps, workers=config.workers, strict=config.strict, note=self.note,
            pin_memory=self.device.type == "cuda",
        )  # fmt: skip
        log = Log(self.folder, start, tensorboard=config.tensorboard, note=self.note) if where.main else None
        window = Window(self.device)
        last: dict[str, Any] = {}
        step = start
        try:
            for step, batch in enumerate(loader, start=start + 1):
                loss = self.step(step - 1, batch)
                window.add(loss, len(batch) * where.world)
                if step % config.log_every == 0 or step == self.steps:
                    row = window.row(step, step / self.per_epoch, self._rates(step - 1), where, loader.waited)
                    if not np.isfinite(row["loss"]):
                        raise TubeletError(
                            f"the loss is {row['loss']} at step {step}: lower optimizer.lr, or set clip; the state of "
                            f"the last save is kept in {self.folder}"
                        )
                    self.seconds = time.monotonic() - began
                    if log is not None:
                        log.write({**row, "seconds": round(self.seconds, 1)})
                        left = (self.steps - step) * self.seconds / max(step, 1)
                        progress(
                            Progress(step, self.steps, row["epoch"], row["loss"], row["lr"], row["clips_per_s"], left)
                        )
                if self._judges_after(step):
                    rows = self.judge(step)
                    last = rows[-1] if rows else last
                    for row in rows:
                        if log is not None:
                            log.write(row)
                    window.restart(loader.waited)
                ends = where.any(stopped(), self.device) if step % 5 == 0 or where.world == 1 else False
                if step % config.save_every == 0 or step == self.steps or ends:
                    self.seconds = time.monotonic() - began
                    self._save(step)
                if ends and step < self.steps:
                    self.note(f"stopped at step {step} of {self.steps}; --resume goes on there")
                    raise KeyboardInterrupt
        finally:
            if log is not None:
                log.close()
        self._finish()
        return Result(self.folder, step, self.seconds, last, self.best)

    def step(self, step: int, batch: Batch) -> Tensor:
        """One optimizer step; the loss, not yet taken from the device."""
        config = self.config
        seed = np.random.SeedSequence((config.seed, step, self.where.rank))
        torch.manual_seed(int(seed.generate_state(1)[0]))
        rng = np.random.default_rng(seed.spawn(1)[0])
        self._set_progress(step / self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base"] * self._rate(step)
        self.optimizer.zero_grad(set_to_none=True)
        parts = batch.parts(config.accumulate)
        total = torch.zeros((), device=self.device)
        for number, part in enumerate(parts):
            with distributed.unsynchronised(self.module, last=number == len(parts) - 1):
                loss = self.task.loss(self.module, part, rng) * (len(part) / len(batch))
                loss.backward()
            total += loss.detach()
        epoch = step / self.per_epoch
        for group in self.optimizer.param_groups:
            if epoch < config.groups.frozen.get(group["kind"], 0):
                for parameter in group["params"]:
                    parameter.grad = None
        if config.clip:
            nn.utils.clip_grad_norm_([p for g in self.optimizer.param_groups for p in g["params"]], config.clip)
        self.optimizer.step()
        if self.average is not None:
            self.average.follow(self.task.module, step)
        return total

    def judge(self, step: int) -> list[dict[str, Any]]:
        """Figures on `val` of the raw and of the averaged weights; the best weights so far are saved.

        Where no clip can be read there are none, and nothing is chosen.
        """
        if self.val is None:
            return []
        self._use(self.select)
        rows = []
        for weights in ("raw", "ema") if self.average is not None else ("raw",):
            module = self.task.module.eval()
            loader = eval_loader(self.val, self.config.batch, workers=self.config.workers, note=self.note)
            averaged = self.average if weights == "ema" else None
            with averaged.in_place_of(module) if averaged else nullcontext():
                rows += self._judged(step, module, loader, weights)
            module.train()
        return rows

    def _judged(self, step: int, module: nn.Module, loader: Loader, weights: str) -> list[dict[str, Any]]:
        """Every process does all of it: under FSDP none has the weights alone."""
        figures = self.task.judge(module, loader)
        if not figures:
            if not self.without_val:
                first = next(iter(loader.bad.values()), "it is empty")
                self.note(f"no clip of val can be read, so that no weights are chosen; the first: {first}")
            self.without_val = True
            return []
        row = {"step": step, "epoch": round(step / self.per_epoch, 3), "weights": weights, **_rounded(figures)}
        if not self.best or (figures["score"], -figures["loss"]) > (self.best["score"], -self.best["loss"]):
            self.best = {"step": step, "weights": weights, **figures}
            self._write_model(self.folder / "best")
        if loader.bad:
            row["unreadable"] = len(loader.bad)
        self.note(f"step {step} {weights}: " + ", ".join(f"{k} {v:.4g}" for k, v in figures.items() if k != "score"))
        return [row]

    def _begin(self, resume: bool) -> int:
        """The step to start from, with everything as it was there. Raises TubeletError if the folder is of another."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TubeletError(f"out={self.folder}: no folder can be made there ({error.strerror})") from None
        state = saved.load_state(self.folder)
        if state is None:
            if self.where.main:
                saved.write_text(self.folder / "config.yaml", as_yaml(self.config))
            return 0
        if not resume:
            raise TubeletError(
                f"{self.folder} holds a training at step {state['step']}: --resume goes on with it; for a new one give "
                f"another out"
            )
        theirs, ours = state["config"], _meaning(self.config)
        if changed := [key for key in {**theirs, **ours} if theirs.get(key) != ours.get(key)]:
            raise TubeletError(
                f"{self.folder} was begun with another {', '.join(changed)}: go on with its own config.yaml, or give "
                f"another out"
            )
        if state["world"] != self.where.world:
            raise TubeletError(f"{self.folder} was begun by {state['world']} processes, there are {self.where.world}")
        if state["clips"] != clips_id(self.data):
            raise TubeletError(f"{self.folder} was begun with other clips in {self.config.data.name}: give another out")
        if state["threads"] != torch.get_num_threads():
            self.note(
                f"begun with {state['threads']} threads, {torch.get_num_threads()} now: sums may differ in a last digit"
            )
        distributed.restore(self.task.module, self.optimizer, state, self.config.parallel, self.where)
        if self.average is not None:
            self.average.load(state["average"])
        self.best, self.seconds = state["best"], state["seconds"]
        self.saved = state["step"]
        self.note(f"going on at step {state['step']} of {self.steps}")
        return state["step"]

    def _refuse_nan(self, step: int) -> None:
        """Weights that are no numbers are never saved over those that are."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        bad = not all(bool(torch.isfinite(p.detach()).all()) for p in parameters)
        if self.where.any(bad, self.device):
            raise TubeletError(
                f"the weights are no numbers at step {step}: lower optimizer.lr, or set clip; the last save is kept in "
                f"{self.folder}"
            )

    def _save(self, step: int) -> None:
        self._refuse_nan(step)
        self._use(self.select)
        state = distributed.state_of(self.task.module, self.optimizer, self.config.parallel, self.where)
        average = {} if self.average is None else self.average.whole()
        if self.where.main:
            content = {
                **state, "average": average, "step": step, "best": self.best, "seconds": self.seconds,
                "world": self.where.world, "config": _meaning(self.config), "clips": clips_id(self.data),
                "threads": torch.get_num_threads(),
            }  # fmt: skip
            saved.save_state(self.folder, content)
        self.where.barrier()
        self.saved = step

    def _finish(self) -> None:
        self._use(self.select)
        module = self.task.module.eval()
        self._write_model(self.folder)
        if self.average is not None:
            with self.average.in_place_of(module):
                self._write_model(self.folder / "ema")

    def _write_model(self, folder: Path) -> None:
        state = distributed.whole_state(self.task.module, self.config.parallel, self.where)
        if self.where.main:
            prefix = self.task.prefix
            own = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
            with saved.writing(folder / "model.safetensors"):
                save_model(self.model, folder, state=own)

    def _judges_after(self, step: int) -> bool:
        if step == self.steps:
            return True
        every = round(self.config.evaluate_every * self.per_epoch)
        return every > 0 and step % every == 0

    def _rate(self, step: int) -> float:
        return factor(self.config.schedule, step, self.steps, self.per_epoch)

    def _rates(self, step: int) -> dict[str, float]:
        """The learning rate at a step, and that of each kind of parameters which has another."""
        lr = self.config.optimizer.lr * self._rate(step)
        scales = {kind: getattr(self.config.groups, kind) for kind in ("selector", "backbone", "head")}
        return {"lr": lr, **{f"lr_{kind}": lr * scale for kind, scale in scales.items() if scale != 1}}

    def _set_progress(self, done: float) -> None:
        self._use(next((spec for until, spec in self.select_until if done < until), self.select))
        for selector in self.model.plan.selectors.values() if self.config.noise == "linear" else ():
            selector.set_progress(done)  # type: ignore[operator]

    def _use(self, select: str) -> None:
        if self.model.config.select != select:
            set_selection(self.model, select)

    def _check_selections(self, model: VideoModel) -> None:
        if not self.select_until:
            return
        specs = [self.select, *(spec for _, spec in self.select_until)]
        for spec in specs:
            if any(methods()[term.name].learned for term in parse(spec).terms if term.name in methods()):
                raise TubeletError(f"select_until changes the selection, and {spec} has weights that must stay")
        for spec in [*specs[1:], self.select]:
            set_selection(model, spec)  # refused here rather than in the middle


@contextmanager
def stopped_by_signals() -> Iterator[Callable[[], bool]]:
    """Whether Control-C or a polite end (SIGTERM) came: the step is finished and saved. A second one ends at once."""
    came: list[int] = []

    def hear(number: int, frame: FrameType | None) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _meaning(config: TrainConfig) -> dict[str, Any]:
    meaning = {k: v for k, v in config.model_dump(mode="json").items() if k not in FREE}
    return {**meaning, "data": {k: v for k, v in meaning["data"].items() if k not in ("root", "cache", "cache_limit")}}


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 5) for name, value in figures.items()}
