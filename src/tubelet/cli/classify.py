"""Say what happens in a video, or in each video of a folder.

The score of a class is its probability, averaged over the views. Multiply-adds (MAC = 1) are those of one view.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tubelet.cli import options
from tubelet.cli.output import JsonList, Steps, note, print_table
from tubelet.errors import TubeletError

if TYPE_CHECKING:
    from tubelet.inference import Answer

EXAMPLE = "tubelet classify clip.mp4 --select sta:keep=0.5 --views 2x3 --topk 3"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("videos", nargs="+", metavar="VIDEO", help="a file, or a folder of videos")
    options.add_model(parser)
    options.add_views(parser)
    parser.add_argument("--topk", type=options.whole(), default=5, metavar="K", help="classes to print (default: 5)")
    parser.add_argument("--labels", metavar="FILE", help="names of the classes, one a line, instead of the model's")
    options.add_device(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from tubelet.checkpoints import default_model
    from tubelet.inference import classify, open_model, refuse_detector

    options.set_threads(args.threads)
    videos = find_videos(args.videos)
    model = open_model(args.model, select=args.select, labels=args.labels, device=args.device)
    refuse_detector(model)
    name = args.model or default_model()
    clips, crops = args.views or model.config.views
    failures: list[Exception] = []
    with JsonList(args.json) as results, Steps(len(videos) * clips * crops, "views") as steps:
        for number, (video, problem) in enumerate(videos, start=1):
            try:
                if problem:
                    raise problem
                answer = classify(
                    model,
                    video,
                    views=args.views,
                    topk=args.topk,
                    average=args.average,
                    name=name,
                    advance=steps.advance,
                )
            except (TubeletError, OSError, RuntimeError, MemoryError) as error:  # the next video may be better
                failures.append(error)
                with steps.paused():
                    note(f"tubelet: {error}")
                results.add({"video": video, "error": str(error)})
            else:
                with steps.paused():
                    for warning in answer.warnings:
                        note(f"tubelet: {warning}")
                    if not args.json:
                        print_answer(answer)
                results.add(answer.to_json())
            steps.reach(number * clips * crops)
    if not failures:
        return 0
    unreadable = len(failures) == len(videos) and all(isinstance(error, TubeletError) for error in failures)
    return 2 if unreadable else 1


def find_videos(paths: Sequence[str]) -> list[tuple[str, TubeletError | None]]:
    """Each file, those of folders among them, or what is wrong with the path: with several, the others are answered."""
    from tubelet.data import list_videos

    found: list[tuple[str, TubeletError | None]] = []
    for path in paths:
        try:
            found += [(str(video), None) for video in list_videos(path)]
        except TubeletError as error:
            found.append((path, error))
    return found


def print_answer(answer: Answer) -> None:
    rows = [[label.label, f"{label.score:.3f}"] for label in answer.labels]
    print_table("lr", ["label", "score"], rows, answer.video)
    clips, crops = answer.views
    cost = f"{answer.gmacs:.2f} GMACs a view"
    if clips * crops > 1:
        cost += f", {answer.gmacs * clips * crops:.2f} for {clips}x{crops} views"
    print(f"{answer.model}, selection {answer.select}: {cost}; ", end="")
    print(f"{answer.seconds.decode:.2f} s to decode, {answer.seconds.model:.2f} s in the model")
    if answer.unlikely:
        print("The best score is low: perhaps none of the model's classes fits this video (a heuristic).")
    print()
