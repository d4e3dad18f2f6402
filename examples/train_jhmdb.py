"""Trains the small VideoMAE-shaped classifier of the package on JHMDB-21 (about an hour on two CPU cores).

    python examples/train_jhmdb.py --data DATA/jhmdb --out runs/jhmdb

Decodes the 660 clips of split 1's training part once, then trains on split1_fit, from a start without other data (see
jhmdb_start.py). Most tokens are dropped at random until the last part: a step costs as much less, and the model learns
to do without them. The weights (raw or averaged) with the best top-1 on split1_val are kept. The test split is never
opened here; examples/evaluate_jhmdb.py packs and evaluates what this leaves.

Resumable: the same command goes on where it stopped. Training ends after minutes, not epochs: a busy machine gives a
weaker model, not a later one, and no two runs are equal.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import shlex
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jhmdb_clips import (
    FRAMES,
    SIZE,
    Cache,
    Rows,
    batches,
    centre_clip,
    erase,
    mix,
    random_clip,
    read_split,
    to_input,
)
from jhmdb_start import start
from safetensors.torch import save_file
from torch import Tensor, nn

from tubelet.models.vit import ViT
from tubelet.selection.core import Layout, Selection

CLASSES, PART = 21, 4
LossOf = Callable[[Rows, np.random.Generator], Tensor]
ARCHITECTURE = {
    "frames": FRAMES,
    "size": SIZE,
    "num_classes": CLASSES,
    "dim": 192,
    "depth": 6,
    "heads": 3,
    "positions": "learned",
}


class Run:
    """The training's clock, its log and its checkpoint. Progress goes from 0 to 1 in `minutes` of training."""

    def __init__(self, folder: Path, minutes: float, parts: dict[str, Any]) -> None:
        self.path, self.log_path = folder / "train.pt", folder / "train.jsonl"
        self.budget, self.parts, self.epoch, self.clips, self.spent = minutes * 60, parts, 0, 0, 0.0
        if self.path.exists():
            saved = torch.load(self.path, weights_only=True)
            self.epoch, self.clips, self.spent = saved["epoch"], saved["clips"], saved["spent"]
            for name, part in parts.items():
                part.load_state_dict(saved[name])
        self.began = time.monotonic() - self.spent

    @property
    def progress(self) -> float:
        return min((time.monotonic() - self.began) / self.budget, 1.0)

    def rate(self, warm: float = 0.05) -> float:
        """Linear warm-up, then a cosine to nothing."""
        at = self.progress
        return at / warm if at < warm else 0.5 * (1 + math.cos(math.pi * (at - warm) / (1 - warm)))

    def end_epoch(self, **values: float) -> None:
        self.epoch += 1
        self.spent = time.monotonic() - self.began
        line = {"epoch": self.epoch, "clips": self.clips, "seconds": round(self.spent), **values}
        with open(self.log_path, "a") as file:
            file.write(json.dumps(line) + "\n")
        print(line, flush=True)
        saved = {name: part.state_dict() for name, part in self.parts.items()}
        temporary = self.path.with_suffix(".tmp")
        torch.save({"epoch": self.epoch, "clips": self.clips, "spent": self.spent, **saved}, temporary)
        os.replace(temporary, self.path)


class Stepper:
    """One optimizer step over the parts of a batch.

    A free thread takes the next part, each on one core: operators that share out their own work would all wait for a
    core that other programs use.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, threads: int) -> None:
        self.model, self.optimizer = model, optimizer
        self.parameters = list(model.parameters())
        self.pool, self.lock = ThreadPoolExecutor(threads), Lock()

    def step(self, loss_of: LossOf, batch: Rows, seed: list[int], rate: float) -> float:
        """`loss_of` draws its augmentations from the generator given. Returns the mean loss."""
        parts = [batch[i : i + PART] for i in range(0, len(batch), PART)]
        self.optimizer.zero_grad()

        def work(i: int) -> float:
            loss = loss_of(parts[i], np.random.default_rng([*seed, i])) * (len(parts[i]) / len(batch))
            gradients = torch.autograd.grad(loss, self.parameters, allow_unused=True)
            with self.lock:
                for parameter, gradient in zip(self.parameters, gradients, strict=True):
                    if gradient is not None:
                        parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
            return loss.item()

        total = sum(self.pool.map(work, range(len(parts))))
        for group in self.optimizer.param_groups:
            group["lr"] = group["base"] * rate
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        return total


def train(cache: Cache, fit: Rows, val: Rows, out: Path, args: argparse.Namespace) -> None:
    model = ViT(**ARCHITECTURE, drop_path=args.drop_path)
    start(model, cache, fit)
    average = copy.deepcopy(model).eval()
    optimizer = torch.optim.AdamW(parameter_groups(model, args.lr))
    stepper = Stepper(model, optimizer, args.threads)
    best = Best()
    parts = {"model": model, "average": average, "optimizer": optimizer, "best": best}
    run = Run(out, args.minutes, parts)

    def loss_of(part: Rows, rng: np.random.Generator) -> Tensor:
        clip = to_input([random_clip(cache, video, rng, args.least_area) for video, _ in part], rng)
        erase(clip, rng)
        clip, target = mix(clip, F.one_hot(torch.tensor([label for _, label in part]), CLASSES).float(), rng)
        with torch.autocast("cpu", torch.bfloat16):
            logits = classify(model, clip, share_kept(run.progress))
        return F.cross_entropy(logits.float(), target, label_smoothing=0.1)

    while run.progress < 1:
        model.train()
        losses = []
        for i, batch in enumerate(batches(fit, args.batch, np.random.default_rng([args.seed, 3, run.epoch]))):
            losses.append(stepper.step(loss_of, batch, [args.seed, 4, run.epoch, i], run.rate()))
            run.clips += len(batch)
            follow(average, model, 1 - min(0.99, run.clips / (run.clips + 10 * args.batch)))
        values: dict[str, float] = {"loss": round(sum(losses) / len(losses), 4)}
        if run.epoch % args.evaluate_every == 0 or run.progress >= 1:
            for name, candidate in (("raw", model), ("average", average)):
                top1, loss = accuracy(candidate.eval(), cache, val)
                values |= {f"val_top1_{name}": round(top1, 4), f"val_loss_{name}": round(loss, 4)}
                if best.offer(top1, loss, f"{name} weights of epoch {run.epoch + 1}"):
                    halves = {k: v.half().contiguous() for k, v in candidate.state_dict().items()}
                    save_file(halves, out / "best.safetensors")
                    write_json(out / "best.json", best.state_dict())
        run.end_epoch(**values)


def classify(model: ViT, clip: Tensor, keep: float) -> Tensor:
    """Logits of clips (B, 3, T, H, W) from a random share of their tokens."""
    state = model.embed(clip)
    if keep < 1:
        count = round(keep * state.layout.tokens)
        kept = torch.rand(len(clip), state.layout.tokens).argsort(dim=1)[:, :count]
        state = Selection(kept, Layout(count, 1)).apply(state)
    for block in model.blocks:
        state = block(state)
    return model.head(model.fc_norm(state.mean()))


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module, step: float) -> None:
    for a, b in zip(average.parameters(), model.parameters(), strict=True):
        a.lerp_(b, step)


@torch.no_grad()
def accuracy(model: ViT, cache: Cache, rows: Rows) -> tuple[float, float]:
    """Top-1 and cross-entropy, one view a video."""
    labels = torch.tensor([label for _, label in rows])
    with torch.autocast("cpu", torch.bfloat16):
        parts = [
            model(to_input([centre_clip(cache, video) for video, _ in rows[i : i + 32]]))
            for i in range(0, len(rows), 32)
        ]
    logits = torch.cat(parts).float()
    return (logits.argmax(1) == labels).float().mean().item(), F.cross_entropy(logits, labels).item()


class Best:
    """The best weights offered so far: by top-1, and by the loss where that is equal."""

    def __init__(self) -> None:
        self.top1, self.loss, self.what = -1.0, math.inf, ""

    def offer(self, top1: float, loss: float, what: str) -> bool:
        if (top1, -loss) <= (self.top1, -self.loss):
            return False
        self.top1, self.loss, self.what = top1, loss, what
        return True

    def state_dict(self) -> dict:
        return vars(self).copy()

    def load_state_dict(self, state: dict) -> None:
        vars(self).update(state)


def share_kept(progress: float) -> float:
    """Of the tokens, while training goes on: a step of a quarter of them costs a quarter."""
    return 0.25 if progress < 0.5 else 0.5 if progress < 0.85 else 1.0


def parameter_groups(model: nn.Module, lr: float) -> list[dict]:
    """No weight decay for vectors and positions."""
    matrices = [p for name, p in model.named_parameters() if p.dim() > 1 and name != "pos_embed"]
    others = [p for name, p in model.named_parameters() if p.dim() <= 1 or name == "pos_embed"]
    return [
        {"params": matrices, "lr": lr, "base": lr, "weight_decay": 0.05},
        {"params": others, "lr": lr, "base": lr, "weight_decay": 0.0},
    ]


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = Path(os.environ.get("TUBELET_DATA", "data")) / "jhmdb"
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--out", type=Path, default=Path("runs/jhmdb"))
    parser.add_argument("--minutes", type=float, default=55)
    parser.add_argument("--lr", type=float, default=7e-4)
    parser.add_argument("--evaluate-every", type=int, default=10, help="epochs")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--drop-path", type=float, default=0.1)
    parser.add_argument("--least-area", type=float, default=0.35, help="of a random crop")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.set_num_threads(1)  # see Stepper
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    fit, val = read_split(args.data, "split1_fit"), read_split(args.data, "split1_val")
    cache = Cache(args.data, args.out, [video for video, _ in fit + val])
    settings = {k: v for k, v in vars(args).items() if not isinstance(v, Path)}
    command = "python examples/train_jhmdb.py " + shlex.join(sys.argv[1:]).replace(str(args.data), "DATA/jhmdb")
    write_json(args.out / "settings.json", {"command": command, **settings})
    train(cache, fit, val, args.out, args)


if __name__ == "__main__":
    main()
