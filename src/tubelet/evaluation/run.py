"""Runs a model, dense and with selections, over a data set: each batch of clips is made once, and all run on it.

    rows = judge(model, dataset, ["none", "sta:r=8"])      # spec -> rows, one a video

What was run is written as it goes (`out`), and not run again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tubelet.data import eval_loader
from tubelet.data.check.leaks import source_of
from tubelet.data.datasets.base import ClipDataset, Key, Sample, as_key, clips_id
from tubelet.errors import TubeletError
from tubelet.evaluation.quality import Found, found
from tubelet.evaluation.rows import Belonging, Memory, Row, RowFile, file_name, read_row
from tubelet.inference import refuse_untrained
from tubelet.models.base import VideoModel
from tubelet.profiling.latency import with_selection
from tubelet.selection.plan import Kept
from tubelet.selection.spec import parse
from tubelet.views import AVERAGES, average_of, average_views

TOP = 5  # classes kept of each answer
BATCH = 8  # views at a time: small enough that activations stay in the processor's cache


@dataclass(frozen=True)
class Judged:
    """selects -> rows by index;  bad: name -> sentence of each video that could not be read."""

    rows: dict[str, dict[int, Row]]
    bad: dict[str, str] = field(default_factory=dict)


def judge(
    model: VideoModel,
    dataset: ClipDataset,
    selects: Sequence[str],
    *,
    data: str = "",
    protocol: dict[str, Any] | None = None,
    out: Path | None = None,
    title: str = "",
    limit: int | None = None,
    average: str | None = None,
    batch: int = BATCH,
    workers: int = 0,
    renew: bool = False,
    strict: bool = False,
    note: Callable[[str], None] = lambda sentence: None,
    begin: Callable[[int], Callable[[int], None]] = lambda total: lambda videos: None,
) -> Judged:
    """The rows of each selection, which run on the same clips.

    Args:
        model: with weights, where it shall run; it is left as it is.
        dataset: clips of the size that the model takes (`open_for`); its truth, where it has one, is judged too.
        data, protocol: name of the data set and how clips are made of it: what rows of a file belong to.
        out: folder for a file of rows a selection; those that are there are not run again. None keeps nothing.
        title: of the model in the names of those files.
        limit: so many videos, the same ones each time, of all classes.
        average: of the views' "probabilities" or "logits" (views.py); None: as the weights were released.
        batch: views a forward pass, and clips a step of the loader.
        renew: begin files of rows anew that belong to something else; otherwise they are refused.
        strict: a video that cannot be read ends the run; otherwise it is left out and named.
        begin: called with the number of videos that are left to run; returns what is called as they are done.

    Raises TubeletError for a selection that cannot be right, or a learned one without a trained scorer.
    """
    average = average or average_of(model.config)
    protocol = (protocol or {}) | ({"average": average} if average != AVERAGES[0] else {})
    copies = {select: variant(model, select) for select in dict.fromkeys(selects)}
    identity, listing = weights_id(model), f"{data} ({clips_id(dataset)})"
    files: dict[str, RowFile[Row] | Memory[Row]] = {}
    for select in copies:
        belonging = Belonging(identity, select, listing, protocol)
        path = None if out is None else out / file_name(*([title] if title else []), select)
        files[select] = Memory() if path is None else RowFile(path, belonging, read_row, renew=renew)
    try:
        chosen = chosen_videos(len(dataset), limit)
        batches = [chosen[start : start + batch] for start in range(0, len(chosen), batch)]
        left = [one for one in batches if any(i not in file.rows for file in files.values() for i in one)]
        done = begin(sum(map(len, left)))
        loader = eval_loader(
            Some(dataset, [i for one in left for i in one]), batch, workers=workers, strict=strict, note=note
        )
        device = next(model.parameters()).device
        p = model.config.preprocessing
        for clips in loader:
            x = clips.input(p.mean, p.std, device)  # (B V, 3, T, H, W)
            views = x.shape[0] // len(clips)
            truth = _truth_of_views(clips.truth, views)
            names = [_source(dataset, index) for index in clips.indices]
            for select, file in files.items():
                if all(index in file.rows for index in clips.indices):
                    continue
                logits, kept = _run(copies[select], x, batch, truth)  # (B V, classes)
                scores = average_views(logits.unflatten(0, (len(clips), views)), average)
                new = [
                    _row(scores[i], int(clips.labels[i]), index, clips.names[i], names[i], kept, i, views)
                    for i, index in enumerate(clips.indices)
                    if index not in file.rows
                ]
                file.add(new)
            done(len(clips))
        wanted = set(chosen)
        rows = {select: {i: row for i, row in file.rows.items() if i in wanted} for select, file in files.items()}
        return Judged(rows, dict(loader.bad))
    finally:
        for file in files.values():
            file.close()


def variant(model: VideoModel, select: str) -> VideoModel:
    """The model with another selection, on the same weights, trained scorers included.

    Raises SelectionError for a learned selector that the weights hold no trained scorer for.
    """
    if str(parse(select)) == str(parse(model.config.select)):
        refuse_untrained(model)
        return model
    other = with_selection(model, select)
    other.config.select = select
    refuse_untrained(other)
    return other


class Some:
    """Some clips of a data set, in this order; they keep their numbers in it."""

    def __init__(self, dataset: ClipDataset, indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, list(indices)
        self.labels, self.mean, self.std = dataset.labels, dataset.mean, dataset.std
        self.targets = [dataset.targets[index] for index in self.indices] if self.indices else []

    def __len__(self) -> int:
        return len(self.indices)

    def name(self, index: int) -> str:
        return self.dataset.name(self.indices[index])

    def __getitem__(self, key: int | Key) -> Sample:
        key = as_key(key)
        return self.dataset[Key(self.indices[key.index], key.epoch, key.progress)]


def chosen_videos(count: int, limit: int | None) -> list[int]:
    """All, or so many of them: the first of one random order, so that more videos hold the fewer."""
    if limit is None or limit >= count:
        return list(range(count))
    return sorted(np.random.default_rng(0).permutation(count)[:limit].tolist())


def weights_id(model: VideoModel) -> str:
    """The same for the same weights in the same architecture, whatever the selection."""
    digest = hashlib_of(model.config.architecture, model.config.arguments)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def hashlib_of(*values: object) -> Any:
    return sha256(repr(values).encode())


@torch.inference_mode()
def _run(model: VideoModel, x: Tensor, batch: int, truth: Tensor | None) -> tuple[Tensor, list[Found]]:
    """Logits of each view (views, classes), on the CPU, and how well the truth was found in each."""
    logits, kept = [], []
    for number, part in enumerate(x.split(batch)):
        record: list[Kept] | None = None if truth is None else []
        logits.append(model(part, record).float().cpu())
        if record and truth is not None:
            kept += found(record[-1].mask.cpu(), truth[number * batch : number * batch + len(part)])
    return torch.cat(logits), kept


def _truth_of_views(truth: Tensor | None, views: int) -> Tensor | None:
    """(B, t, h, w) or (B, V, t, h, w) -> (B V, t, h, w)."""
    if truth is None:
        return None
    if truth.dim() == 4:
        truth = truth[:, None]
    if truth.shape[1] != views:
        raise TubeletError(f"the truth of {truth.shape[1]} views, for clips of {views} views")
    return truth.flatten(0, 1)


def _row(
    scores: Tensor, label: int, index: int, name: str, source: str | None, kept: list[Found], at: int, views: int
) -> Row:
    order = scores.sort(descending=True, stable=True).indices
    of_views = kept[at * views : (at + 1) * views]
    known = [one for one in of_views if one.truth]  # views that show something of it

    def mean(values: list[float]) -> float | None:
        return sum(values) / len(values) if values else None

    return Row(
        index=index,
        name=name,
        source=source or name,
        label=label,
        rank=int((order == label).nonzero()[0, 0]),
        log_prob=float(scores[label].clamp(min=torch.finfo(torch.float32).tiny).log()),
        top=[(int(i), float(scores[i])) for i in order[:TOP]],
        recall=mean([one.recall for one in known]),
        precision=mean([one.precision for one in known]),
        kept=mean([one.kept for one in known]),
        truth=mean([one.truth for one in known]),
    )


def _source(dataset: ClipDataset, index: int) -> str | None:
    listing = getattr(dataset, "listing", None)
    return None if listing is None else source_of(listing.records[index].path)
