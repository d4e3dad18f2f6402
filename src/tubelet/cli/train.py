"""Train a model as a config says, or go on where a training stopped. Any key of the config is an option, such as
--optimizer.lr 1e-4. Several processes: torchrun --nproc-per-node 2 -m tubelet train CONFIG.yaml --out DIR

DIR then holds model.safetensors (the last weights), best/ (those that judged best on val), log.jsonl and checkpoint.pt.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from tubelet.cli import options
from tubelet.cli.output import note, print_json
from tubelet.errors import TubeletError

if TYPE_CHECKING:
    from tubelet.training.run import Progress

EXAMPLE = "tubelet train configs/smoke.yaml --out runs/smoke --resume"
TAKES_MORE = True  # --key value, read here


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG.yaml", help="what to train, on what, how (see configs/)")
    parser.add_argument("--out", metavar="DIR", help="the folder of the training")
    parser.add_argument("--resume", action="store_true", help="go on where DIR stopped; begin if nothing is there")
    parser.add_argument("--strict", action="store_true", help="a file that cannot be read ends the training")
    parser.add_argument("--key", metavar="value", help="any key of the config, such as --batch 8 or --model.depth 4")
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from tubelet.training import read_config, train

    given = overrides(args.more)
    if args.key is not None:
        raise TubeletError("--key stands for a key of the config, such as --batch 8")
    if args.out is not None:
        given["out"] = args.out
    if args.strict:
        given["strict"] = "true"
    config = read_config(args.config, given)
    line = Line()
    result = train(config, resume=args.resume, note=line.note, progress=line.show)
    line.end()
    if args.json:
        print_json(
            {"out": str(result.out), "steps": result.steps, "seconds": round(result.seconds, 1), "last": result.last,
             "best": result.best}
        )  # fmt: skip
    else:
        print(f"trained {result.steps} steps in {duration(result.seconds)}; the last weights: {result.out}")
        if result.best:
            figures = ", ".join(f"{k} {v:.4g}" for k, v in result.best.items() if isinstance(v, float) and k != "score")
            print(f"the best on val ({figures}, step {result.best['step']}): {result.out / 'best'}")
    return 0


def overrides(words: list[str]) -> dict[str, str]:
    """["--optimizer.lr", "1e-4", "--batch=8"] -> {"optimizer.lr": "1e-4", "batch": "8"}. Raises TubeletError."""
    found: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or len(word) == 2:
            raise TubeletError(f"{word!r} is no option; keys of the config are given as --key value")
        key, equals, value = word[2:].partition("=")
        if not equals:
            if not rest:
                raise TubeletError(f"--{key} needs a value")
            value = rest.pop(0)
        found[key] = value
    return found


def duration(seconds: float) -> str:
    """7322 -> "2 h 2 min"."""
    minutes, s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {s} s" if minutes else f"{s} s"


class Line:
    """Progress on standard error: in a terminal one line that changes, elsewhere a line now and then."""

    EVERY = 10.0  # seconds

    def __init__(self) -> None:
        self.terminal, self.last, self.open = sys.stderr.isatty(), 0.0, False

    def show(self, at: Progress) -> None:
        if not self.terminal and time.monotonic() - self.last < self.EVERY and at.step < at.steps:
            return
        self.last = time.monotonic()
        text = (
            f"step {at.step}/{at.steps}  epoch {at.epoch:.2f}  loss {at.loss:.4f}  rate {at.lr:.3g}  "
            f"{at.clips_per_s:.1f} clips/s  {duration(at.seconds_left)} left"
        )
        if self.terminal:
            print(f"\r{text:100}", end="", file=sys.stderr, flush=True)
            self.open = True
        else:
            note(text)

    def note(self, sentence: str) -> None:
        self.end()
        note(sentence)

    def end(self) -> None:
        if self.open:
            print(file=sys.stderr)
            self.open = False
