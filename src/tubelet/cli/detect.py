"""Say who does what in a video, or in each video of a folder: people, their actions, and where they are.

Looks at key frames, a few a second, and at a clip around each; people are followed from one to the next. Nothing is
reported that is less sure than the threshold. --out writes the video with boxes.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from tubelet.cli import options
from tubelet.cli.classify import find_videos
from tubelet.cli.output import JsonList, Steps, note, print_table
from tubelet.errors import TubeletError

if TYPE_CHECKING:
    from tubelet.detection import Answer

EXAMPLE = "tubelet detect clip.mp4 --threshold 0.6 --out annotated.mp4"
SUFFIX = ".mp4"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("videos", nargs="+", metavar="VIDEO", help="a file, or a folder of videos")
    options.add_model(parser)
    share = options.share()
    threshold = "report nothing less sure than this, people and actions alike (default: 0.5)"
    parser.add_argument("--threshold", type=share, default=0.5, metavar="P", help=threshold)
    parser.add_argument("--action-threshold", type=share, metavar="P", help="for actions, instead of it")
    parser.add_argument("--topk", type=options.whole(), default=3, metavar="K", help="actions a person (default: 3)")
    parser.add_argument("--rate", type=options.above_0(), default=2.0, metavar="R", help="key frames a second (2)")
    stride = "frames of the video from one frame of a clip to the next (default: the model's)"
    parser.add_argument("--stride", type=options.whole(), metavar="N", help=stride)
    out = "the video with boxes, an .mp4; of several videos a folder for them"
    parser.add_argument("--out", metavar="FILE", help=out)
    options.add_device(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from tubelet.checkpoints import default_detector
    from tubelet.detection import detect, open_detector
    from tubelet.visualize.people import draw_people

    options.set_threads(args.threads)
    videos = find_videos(args.videos)
    outs = outs_of([video for video, _ in videos], args.out)
    name = args.model or default_detector()
    model = open_detector(args.model, select=args.select, device=args.device)
    failures: list[Exception] = []
    with JsonList(args.json) as results:
        for (video, problem), out in zip(videos, outs, strict=True):
            try:
                if problem:
                    raise problem
                with Stages() as stages:
                    answer = detect(
                        model,
                        video,
                        threshold=args.threshold,
                        action_threshold=args.action_threshold,
                        topk=args.topk,
                        rate=args.rate,
                        stride=args.stride,
                        name=name,
                        progress=stages.of("key frames"),
                    )
                    if out is not None:
                        draw_people(video, out, answer, progress=stages.of("frames drawn"))
            except (TubeletError, OSError, RuntimeError, MemoryError) as error:  # the next video may be better
                failures.append(error)
                note(f"tubelet: {error}")
                results.add({"video": video, "error": str(error)})
            else:
                for warning in answer.warnings:
                    note(f"tubelet: {warning}")
                if not args.json:
                    print_answer(answer)
                    if out is not None:
                        print(f"drawn to {out}\n")
                results.add(answer.to_json())
    if not failures:
        return 0
    unreadable = len(failures) == len(videos) and all(isinstance(error, TubeletError) for error in failures)
    return 2 if unreadable else 1


class Stages:
    """One bar after the other, each made when its length is known."""

    def __init__(self) -> None:
        self.stack = ExitStack()
        self.steps: Steps | None = None

    def of(self, what: str) -> Callable[[int, int], None]:
        def progress(done: int, total: int) -> None:
            if self.steps is None or self.steps.what != what:
                self.stack.close()
                self.steps = self.stack.enter_context(Steps(total, what))
            self.steps.reach(done)

        return progress

    def __enter__(self) -> Stages:
        return self

    def __exit__(self, *error: object) -> None:
        self.stack.close()


def outs_of(videos: list[str], out: str | None) -> list[Path | None]:
    """Where each video is drawn to. Raises TubeletError if nothing can be written there; asked before the work."""
    if out is None:
        return [None] * len(videos)
    target = Path(out)
    if len(videos) > 1 or target.is_dir():
        if not target.is_dir():
            raise TubeletError(f"cannot draw {len(videos)} videos to {out}: give a folder that is there")
        found = [target / f"{Path(video).stem}-people{SUFFIX}" for video in videos]
        if len(set(found)) < len(found):
            raise TubeletError(f"cannot draw to {out}: two of the videos have one name")
    else:
        found = [target]
        if target.suffix.lower() != SUFFIX:
            raise TubeletError(f"cannot draw to {out}: its name must end in {SUFFIX}")
        if not target.parent.is_dir():
            raise TubeletError(f"cannot draw to {out}: no folder {target.parent}")
    for video, file in zip(videos, found, strict=True):
        if not os.access(file.parent, os.W_OK | os.X_OK):
            raise TubeletError(f"cannot draw to {file}: no permission to write in the folder {file.parent}")
        if file.exists() and os.path.exists(video) and os.path.samefile(file, video):
            raise TubeletError(f"cannot draw to {file}: it is the video itself")
    return list(found)


def print_answer(answer: Answer) -> None:
    rows = []
    for one in answer.detections:
        box = " ".join(f"{side:.0f}" for side in one.box)
        actions = ", ".join(f"{action.label} {action.score:.2f}" for action in one.actions)
        rows.append([f"{one.time:.2f}", str(one.person), f"{one.score:.2f}", box, actions or "-"])
    count, people = len(answer.key_frames), len({one.person for one in answer.detections})
    if rows:
        print_table("rrrll", ["s", "person", "score", "box (x1 y1 x2 y2)", "actions"], rows, answer.video)
    else:
        print(f"{answer.video}: nothing is as sure as {answer.threshold:g}")
    print(f"{answer.model}, selection {answer.select}: {count} key frames, {people} people, {answer.seconds:.1f} s\n")
