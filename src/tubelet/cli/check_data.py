"""Find what is wrong with a data set before training on it: broken and short videos, classes, leaks between splits.

DATA is a folder a class, a csv (path,label[,start,end]), a csv of boxes, or the name of a data set such as jhmdb or
jhmdb:split1_train; several are splits of one data set. The exit status is 1 if there are problems, 0 if there are none.
"""

from __future__ import annotations

import argparse
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

from tubelet.cli import options
from tubelet.cli.output import Steps, print_json, print_table
from tubelet.errors import TubeletError

if TYPE_CHECKING:
    from tubelet.data.check import Report

EXAMPLE = "tubelet check-data train.csv val.csv --classes 21"
SHOWN = 10  # problems of a kind


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", nargs="+", metavar="DATA", help="a folder, a csv, or a name such as jhmdb")
    root = "where the videos of a name or csv lie (default: the folder of that name in $TUBELET_DATA; that of the csv)"
    parser.add_argument("--root", metavar="FOLDER", help=root)
    parser.add_argument("--classes", type=options.whole(), metavar="N", help="how many classes there should be")
    parser.add_argument(
        "--frames", type=options.whole(), default=16, metavar="T", help="shorter videos are a problem (default: 16)"
    )
    parser.add_argument("--quick", action="store_true", help="open each video but decode only its first frame")
    usual = os.cpu_count() or 1
    parser.add_argument(
        "--workers", type=options.whole(most=1024), default=usual, metavar="N", help=f"processes (default: {usual})"
    )
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from tubelet.data.check import check_ava, check_boxes, check_data, is_ava, is_boxes

    with ExitStack() as stack:
        given = {
            "root": args.root,
            "quick": args.quick,
            "workers": args.workers,
            "begin": lambda videos: stack.enter_context(Steps(videos, "videos")).advance,
        }
        boxes = [one for one in args.data if is_boxes(one) or is_ava(one)]
        if boxes and len(args.data) > 1:
            raise TubeletError(f"{boxes[0]}: a csv of boxes is checked alone, {len(args.data)} were given")
        if boxes:
            from pathlib import Path

            check = check_ava if is_ava(boxes[0]) else check_boxes
            report = check(Path(boxes[0]), **given)
        else:
            report = check_data(args.data, classes=args.classes, frames=args.frames, **given)
    if args.json:
        print_json(report.to_json())
    else:
        print_report(report)
    return 1 if report.problems else 0


def print_report(report: Report) -> None:
    """Counts first, then the problems, the worst first."""
    from tubelet.data.check import KINDS

    title = f"{report.data}: {report.videos} videos, {report.classes} classes"
    header = ["split", "clips", "classes", "a class has", "frames", "median"]
    rows = [
        [
            split.split,
            str(split.clips),
            str(split.classes),
            f"{split.smallest} to {split.largest}",
            f"{split.frames[0]} to {split.frames[2]}" if split.frames else "-",
            str(split.frames[1]) if split.frames else "-",
        ]
        for split in report.splits
    ]
    print_table("lrrrrr", header, rows, title)
    if not report.problems:
        print("No problem found.")
        _print_some("notes", report.notes)
        return
    print()
    print_table("lr", ["problem", "count"], [[KINDS[kind], str(count)] for kind, count in report.counts.items()])
    for kind in report.counts:
        _print_some(KINDS[kind], [problem.message for problem in report.problems if problem.kind == kind])
    _print_some("notes", report.notes)


def _print_some(title: str, sentences: list[str]) -> None:
    if not sentences:
        return
    print(f"\n{title}: {len(sentences)}")
    for sentence in sentences[:SHOWN]:
        print(f"  {sentence}")
    if len(sentences) > SHOWN:
        print(f"  ... and {len(sentences) - SHOWN} more; --json lists all")
