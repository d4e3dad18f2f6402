"""Evaluate a model on labelled videos, dense and with each selection given, on the same clips.

Intervals are 95 %; the difference is to the first row, with McNemar's exact p. Every video is kept as a row in --out,
and what is there is not run again. CONFIG.yaml is that of a training (its out, data and val), instead of --model and
--data. DATA is what check-data takes, or scenes, scenes_table, ... A --model may be repeated, to compare models.
Detectors are judged by frame-mAP and video-mAP on key frames of annotated videos, and on AVA's csv files by the rules
of AVA (docs/detection.md).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tubelet.cli import options
from tubelet.cli.output import Steps, in_runs, note, print_json, print_table
from tubelet.errors import TubeletError

if TYPE_CHECKING:
    from tubelet.evaluation import Candidate
    from tubelet.models.base import VideoModel

EXAMPLE = "tubelet evaluate --model runs/mine --data data:val --select sta:keep=0.5 --select random:r=8 --out judged"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from tubelet.cli import evaluate_people

    parser.add_argument("config", nargs="?", metavar="CONFIG.yaml", help="of a training whose model is evaluated")
    parser.add_argument("--model", action="append", metavar="PATH", help=f"{options.MODEL_HELP}; may be repeated")
    parser.add_argument("--data", metavar="DATA", help="a folder, a csv, or a name such as jhmdb:split1_test")
    root = "where the videos of a name or csv lie (default: the folder of that name in $TUBELET_DATA; that of the csv)"
    parser.add_argument("--root", metavar="FOLDER", help=root)
    select = "a selection such as sta:r=64; may be repeated (default: the one saved with the model)"
    parser.add_argument("--select", action="append", default=[], metavar="SPEC", help=select)
    options.add_views(parser)
    out = "folder for rows, report.json, report.csv, curve.png (default: in that of CONFIG.yaml; else nothing is kept)"
    parser.add_argument("--out", metavar="DIR", help=out)
    parser.add_argument("--limit", type=options.whole(), metavar="N", help="so many videos, the same ones each time")
    parser.add_argument(
        "--truth",
        choices=("box", "silhouette"),
        help="of JHMDB: judge where a selection looks (scenes always are)",
    )
    every = "of detectors: a key frame each so many annotated frames (default: 4; of AVA 1, each annotated second)"
    parser.add_argument("--every", type=options.whole(), metavar="N", help=every)
    every_frame = (
        "of detectors: --every counts all frames of a video, not the annotated ones alone, so that false alarms where "
        "nobody is count, as in figures published on UCF101-24"
    )
    parser.add_argument("--all-frames", action="store_true", help=every_frame)
    rule = (
        "of detectors: joint scores a person's action by person times action (default); published by the action alone, "
        "of people from 0.7 on or all where none is (AVA: always)"
    )
    parser.add_argument("--rule", choices=evaluate_people.RULES, help=rule)
    excluded = (
        "of AVA: seconds that are not judged (default: the excluded_timestamps file beside DATA, if there is one)"
    )
    parser.add_argument("--excluded", metavar="CSV", help=excluded)
    start = "of AVA: the second of the film at which the files begin (default: 900)"
    parser.add_argument("--start", type=options.number(), metavar="S", help=start)
    rate = "of AVA: frames a second of the files (default: 30)"
    parser.add_argument("--rate", type=options.above_0(), metavar="FPS", help=rate)
    by = "what intervals take as independent: source videos, told by file names (default), or every clip"
    parser.add_argument("--by", choices=("source", "video"), default="source", help=by)
    parser.add_argument("--no-timing", action="store_true", help="leave the measuring of milliseconds out")
    parser.add_argument("--renew", action="store_true", help="replace rows in --out that belong to something else")
    parser.add_argument("--strict", action="store_true", help="end at the first video that cannot be read")
    parser.add_argument("--batch", type=options.whole(), default=8, metavar="B", help="views at once (default: 8)")
    parser.add_argument(
        "--workers", type=options.whole(0, 1024), default=0, metavar="N", help="processes that decode (default: 0)"
    )
    options.add_device(parser, more="; milliseconds are measured with one")
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from tubelet.cli import evaluate_people
    from tubelet.evaluation import table, write
    from tubelet.inference import open_model
    from tubelet.models.evad import EVAD

    models, data, given, notes = what(args)
    for sentence in notes:
        note(f"tubelet: {sentence}")
    options.set_threads(args.threads)
    out = Path(args.out) if args.out else None
    if out is not None and out.exists() and not out.is_dir():
        raise TubeletError(f"{out} is a file; a folder for the rows is needed")
    opened = {name: open_model(name, device=args.device) for name in models}
    if any(isinstance(model, EVAD) for model in opened.values()):
        return evaluate_people.run(args, opened, data, given, notes, out)
    for option in ("every", "rule", *evaluate_people.OF_AVA):
        if getattr(args, option) is not None:
            raise TubeletError(f"--{option} is of detectors; {models[0]} is a classifier")
    if args.all_frames:
        raise TubeletError(f"--all-frames is of detectors; {models[0]} is a classifier")
    candidates = [judged(args, name, opened[name], data, given, out, several=len(models) > 1) for name in models]
    shown, rounds = shown_name(args, data, given), 8 * len(models)
    with Steps(0 if args.no_timing else rounds, "rounds of timing") as steps:
        rows = table(
            candidates,
            shown,
            by=args.by,
            timing=not args.no_timing,
            device=args.device,
            threads=args.threads or 1,
            progress=lambda done, total: steps.reach(done),
        )
    rows = [{**row, "notes": notes} for row in rows]
    if out is not None:
        write(rows, out, note)
    if args.json:
        print_json(rows)
    else:
        show(rows)
        if out is not None:
            print(f"Kept in {out}: rows/, report.json, report.csv, curve.png")
    return 0


def what(args: argparse.Namespace) -> tuple[list[str], str, dict[str, Any], list[str]]:
    """Models, data set, options of it and what is to be known of it, from a config or the command line."""
    if args.config is None:
        if not args.model or not args.data:
            raise TubeletError("say what is evaluated: CONFIG.yaml of a training, or --model PATH and --data DATA")
        return args.model, args.data, {}, []
    from tubelet.cli import evaluate_people
    from tubelet.data.datasets.registry import full_name
    from tubelet.training import read_config
    from tubelet.training.config import ONLY_TRAINING

    config = read_config(args.config)
    folder = config.out
    if folder is None or not (folder / "model.safetensors").exists():
        where = f"{folder}: no model.safetensors there yet" if folder else f"{args.config} says no out"
        raise TubeletError(f"{where}; a finished training has its own config.yaml in its folder, which says it")
    args.out = args.out or str(folder / "evaluation")
    section = config.val or config.data
    data, given = section.name, {k: v for k, v in section.options.items() if config.val or k not in ONLY_TRAINING}
    if args.data:  # another data set than that of the training
        data, given = args.data, evaluate_people.same_films(args.data, given)
    notes, own = [], config.data.options
    judged = shown_name(args, data, given)
    if judged == full_name(config.data.name, split=own.get("split"), train=True, root=own.get("root")):
        why = "" if config.val or args.data else f", {args.config} says no val"
        notes.append(f"{judged}: these are the clips of the training itself{why}; the figures say nothing of others")
    return args.model or [str(folder)], data, given, notes


def shown_name(args: argparse.Namespace, data: str, given: dict[str, Any]) -> str:
    """The data set with its split, as tables call it."""
    from tubelet.data.datasets.registry import full_name

    return full_name(data, split=given.get("split"), root=given.get("root", args.root))


def judged(
    args: argparse.Namespace,
    name: str,
    model: VideoModel,
    data: str,
    given: dict[str, Any],
    out: Path | None,
    *,
    several: bool,
) -> Candidate:
    from tubelet.evaluation import Candidate, judge, open_for, protocol_of, views_of

    dataset = open_for(model, data, **{"root": args.root, "views": args.views, "truth": args.truth, **given})
    with running(args, name, out, several=several) as options:
        found = judge(
            model,
            dataset,
            selects(args, model),
            data=data,
            protocol=protocol_of(model, dataset),
            average=args.average,
            workers=args.workers,
            **options,
        )
    return Candidate(name, model, found, views_of(dataset))


def selects(args: argparse.Namespace, model: VideoModel) -> list[str]:
    """Dense, and what is asked for or, where nothing is, what was saved with the model."""
    return ["none", *(args.select or [model.config.select])]


@contextmanager
def running(
    args: argparse.Namespace, name: str, out: Path | None, *, several: bool, what: str = "videos"
) -> Iterator[dict[str, Any]]:
    """What runs over videos are given alike, of classifiers (judge) and of detectors (look); its bar ends with it."""
    with ExitStack() as stack:

        def begin(total: int) -> Callable[[int], None]:
            return stack.enter_context(Steps(total, f"{what}, {name}")).advance

        yield {
            "out": None if out is None else out / "rows",
            "title": name if several else "",
            "limit": args.limit,
            "batch": args.batch,
            "renew": args.renew,
            "strict": args.strict,
            "note": lambda sentence: note(f"tubelet: {sentence}"),
            "begin": begin,
        }


def show(rows: list[dict[str, Any]]) -> None:
    """The table of accuracy and cost, and where the truth is known that of what was kept."""
    first, several = rows[0], len({row["model"] for row in rows}) > 1
    names = [f"{row['model']} {row['select']}" if several else row["select"] for row in rows]
    timed = "ms_median" in first
    header = ["selection", "top-1 %", "95 %", "top-5 %", "class %", "to the first", "95 %", "p", "GMACs", "a video"]
    cells = []
    for name, row in zip(names, rows, strict=True):
        cells.append(
            [
                name,
                f"{100 * row['top1']:.1f}",
                _interval(row["top1_95"]),
                f"{100 * row['top5']:.1f}",
                f"{100 * row['mean_class']:.1f}",
                "" if row["difference"] is None else f"{100 * row['difference']:+.1f}",
                "" if row["difference"] is None else _interval(row["difference_95"], "+.1f"),
                "" if row["p"] is None else f"{row['p']:.2g}",
                f"{row['gmacs']:.3g}",
                f"{row['gmacs_video']:.3g}",
                *([f"{row['ms_median']:.1f}"] if timed else []),
                in_runs(row["tokens"]),
            ]
        )
    model = "" if several else f"{first['model']} on "
    title = f"{model}{first['data']}: {first['videos']} videos, {first['views']} views"
    if unreadable := max(row["unreadable"] for row in rows):
        title += f"; {unreadable} more could not be read"
    print_table("lrrrrrrrrr" + "r" * timed + "l", [*header, *(["ms"] if timed else []), "tokens"], cells, title)
    known = [(name, row) for name, row in zip(names, rows, strict=True) if row["recall"] is not None]
    if known:
        print()
        quality = [
            [name, *(f"{100 * row[key]:.1f}" for key in ("kept", "recall", "precision", "random_precision"))]
            for name, row in known
        ]
        title = "tokens left after the last step, of a view; at random the recall is the share that is kept"
        print_table("lrrrr", ["selection", "kept %", "recall %", "precision %", "at random %"], quality, title)


def _interval(pair: tuple[float, float], form: str = ".1f") -> str:
    low, high = (format(100 * side, form) for side in pair)
    return f"{low} to {high}"
