"""Arguments that several commands take, each with its type: bad values become a sentence."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tubelet.models.base import VideoModel

MODEL_HELP = "a folder saved by tubelet, a checkpoint, a Hugging Face name, or a packaged model"
MOST_THREADS = 1024  # far more, and the threads' own library ends the process
MOST_CLIPS = 1000


def whole(least: int = 1, most: int | None = None):
    """The type of a whole number that is at least `least` and at most `most`."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"\d{1,18}", text) or int(text) < least or (most is not None and int(text) > most):
            allowed = f"of at least {least}" if most is None else f"from {least} to {most}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {allowed}")
        return int(text)

    return parse


def share():
    """The type of a number from 0 to 1."""

    def parse(text: str) -> float:
        if not re.fullmatch(r"\d*\.?\d*", text, re.ASCII) or text in ("", ".") or float(text) > 1:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
        return float(text)

    return parse


def above_0(most: float = 1000.0):
    """The type of a number above 0."""

    def parse(text: str) -> float:
        if not re.fullmatch(r"\d*\.?\d*", text, re.ASCII) or text in ("", ".") or not 0 < float(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0 and at most {most:g}")
        return float(text)

    return parse


def add_views(parser: argparse.ArgumentParser) -> None:
    help_views = "views to average: clips along time x crops, 1 or 3 (default: the model's)"
    parser.add_argument("--views", type=views, metavar="CLIPSxCROPS", help=help_views)
    average = "what is averaged over the views (default: as the weights were released, else probabilities)"
    parser.add_argument("--average", choices=("probabilities", "logits"), help=average)


def views(text: str) -> tuple[int, int]:
    """ "5x3" -> (5, 3)."""
    if not re.fullmatch(r"[1-9]\d{0,8}x[1-9]\d{0,8}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not CLIPSxCROPS, such as 1x1 or 5x3")
    clips, crops = map(int, text.split("x"))
    if crops not in (1, 3):
        raise argparse.ArgumentTypeError(f"crops must be 1 or 3, got {text!r}")
    if clips > MOST_CLIPS:
        raise argparse.ArgumentTypeError(f"clips must be at most {MOST_CLIPS}, got {text!r}")
    return clips, crops


def size(text: str) -> int | tuple[int, int]:
    """ "224" -> 224, "224x320" -> (224, 320): height and width."""
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size, such as 224 or 224x320 (height x width)")
    sides = [int(side) for side in text.split("x")]
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def argument(text: str) -> tuple[str, object]:
    """The type of KEY=VALUE, an argument of a model; the value in YAML, a list as a tuple."""
    import yaml

    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE, such as heads=3")
    try:
        found = yaml.safe_load(value)
    except yaml.YAMLError:
        raise argparse.ArgumentTypeError(f"{value!r} in {text!r} is no number, text or list") from None
    return key, tuple(found) if isinstance(found, list) else found


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON alone; notes and progress go to standard error")


def add_device(parser: argparse.ArgumentParser, threads: int | None = None) -> None:
    parser.add_argument("--device", default="cpu", metavar="D", help="cpu (default), cuda or cuda:1")
    usual = threads or "all"
    count = whole(most=MOST_THREADS)
    parser.add_argument("--threads", type=count, default=threads, metavar="N", help=f"of the CPU (default: {usual})")


def add_model(parser: argparse.ArgumentParser) -> None:
    """Of the commands that answer about a video, which therefore need weights."""
    parser.add_argument("--model", metavar="NAME|PATH|HUB_ID", help=f"{MODEL_HELP} (default: the packaged one)")
    parser.add_argument("--select", metavar="SPEC", help="a selection such as sta:keep=0.5 (see tubelet selectors)")


def add_selects(parser: argparse.ArgumentParser) -> None:
    """Of the commands that compare selections with the dense model."""
    parser.add_argument("--model", required=True, metavar="NAME", help="a name of tubelet models, or a saved model")
    parser.add_argument(
        "--select", action="append", default=[], metavar="SPEC", help="a selection such as sta:r=64; may be repeated"
    )


def set_threads(threads: int | None) -> None:
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def add_clip(parser: argparse.ArgumentParser) -> None:
    """What may differ from the size that a model has by its name."""
    parser.add_argument("--frames", type=whole(), metavar="T", help="frames of a clip (default: the model's)")
    parser.add_argument("--size", type=size, metavar="S", help="side, or HEIGHTxWIDTH (default: the model's)")
    parser.add_argument("--classes", type=whole(), metavar="N", help="number of classes (default: the model's)")


def named_model(name: str) -> str | VideoModel:
    """A name to build a model by, where weights do not matter, or the model saved under that path or name."""
    from tubelet.checkpoints import load_model, packaged_models

    if name in packaged_models() or "/" in name or Path(name).exists():
        return load_model(name)
    return name
