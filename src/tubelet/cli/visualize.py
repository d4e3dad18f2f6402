"""Draw which tokens of a video a selection keeps, step by step: kept ones bright, dropped ones dim.

.mp4 and .gif: the clip moves, a panel a step. .png: a row a step, a column a slot of time.
"""

from __future__ import annotations

import argparse

from tubelet.cli import options
from tubelet.cli.output import note, print_json
from tubelet.errors import TubeletError

EXAMPLE = "tubelet visualize clip.mp4 --select sta:keep=0.5 --out kept.gif"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("video", metavar="VIDEO", help="a file")
    options.add_model(parser)
    parser.add_argument("--out", required=True, metavar="FILE", help="what to write: .mp4, .gif or .png")
    options.add_device(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from tubelet.checkpoints import default_model
    from tubelet.data import list_videos
    from tubelet.inference import open_model
    from tubelet.visualize import check_out, visualize

    options.set_threads(args.threads)
    check_out(args.out)
    videos = list_videos(args.video)
    if len(videos) > 1:
        raise TubeletError(f"{args.video} holds {len(videos)} videos; give one file to draw")
    model = open_model(args.model, select=args.select, device=args.device)
    drawing = visualize(model, videos[0], args.out, name=args.model or default_model())
    for warning in drawing.warnings:
        note(f"tubelet: {warning}")
    if args.json:
        print_json(drawing.to_json())
        return 0
    for step in drawing.steps:
        print(f"{step.name} {step.where}: {step.left} tokens left")
    print(f"drawn to {drawing.out}")
    return 0
