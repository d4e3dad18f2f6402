"""What `tubelet evaluate` does with detectors: frame-mAP and video-mAP on key frames of annotated videos, and AVA."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tubelet.cli.evaluate import running, selects, shown_name
from tubelet.cli.output import Steps, in_runs, note, print_json, print_table
from tubelet.errors import TubeletError

if TYPE_CHECKING:
    from tubelet.evaluation.people_report import AvaDetector, Detector
    from tubelet.models.evad import EVAD

ONE_VIEW = "a detector sees one clip a key frame"
CLASSIFIERS_ONLY = {"views": ONE_VIEW, "average": ONE_VIEW, "truth": "a detector is judged by its boxes"}
RULE = {"joint": "score = person x action", "published": "score = action, of people from 0.7 or of all"}
RULES = tuple(RULE)  # those of evaluation.people, which imports torch
OF_AVA = ("excluded", "start", "rate")


def run(
    args: argparse.Namespace,
    models: dict[str, Any],
    data: str,
    given: dict[str, Any],
    notes: list[str],
    out: Path | None,
) -> int:
    from tubelet.evaluation.ava_people import write_detections
    from tubelet.evaluation.people import EVERY
    from tubelet.evaluation.people_report import people_table
    from tubelet.evaluation.report import write
    from tubelet.models.evad import EVAD

    for name, model in models.items():
        if not isinstance(model, EVAD):
            raise TubeletError(f"{name} is a classifier, and the others are detectors: they answer different questions")
    for option, reason in CLASSIFIERS_ONLY.items():
        if getattr(args, option) is not None:
            raise TubeletError(f"--{option}: {reason}; leave it out")
    if args.workers:
        raise TubeletError("--workers: the videos of a detector are decoded as they are looked at; leave it out")
    ava = of_ava(data)
    for option in OF_AVA:
        if getattr(args, option) is not None and not ava:
            raise TubeletError(f"--{option} is of AVA's csv files, and {data} is none; leave it out")
    if ava and args.rule == "joint":
        raise TubeletError("--rule joint: AVA is judged by the published rule; leave it out")
    if ava and args.all_frames:
        raise TubeletError("--all-frames: AVA is judged at the seconds that have a box; leave it out")
    args.every = args.every or (1 if ava else EVERY)
    detectors: Any = [
        looked(args, name, model, data, given, out, several=len(models) > 1) for name, model in models.items()
    ]
    with Steps(0 if args.no_timing else 8 * len(models), "rounds of timing") as steps:
        rows = people_table(
            detectors,
            shown_name(args, data, given),
            rule="published" if ava else args.rule or RULES[0],
            by=args.by,
            timing=not args.no_timing,
            device=args.device,
            threads=args.threads or 1,
            progress=lambda done, total: steps.reach(done),
        )
    own_notes = dict.fromkeys(sentence for row in rows for sentence in row["notes"])
    rows = [{**row, "notes": [*notes, *row["notes"]]} for row in rows]
    if out is not None:
        write(rows, out, note, "frame_map@0.5")
        for one in detectors if ava else ():
            write_detections(out / "detections", one.looked, one.name if len(models) > 1 else "")
    for sentence in own_notes:
        note(f"tubelet: {sentence}")
    if args.json:
        print_json(rows)
    else:
        show(rows)
        if out is not None:
            print(f"Kept in {out}: rows/, {'detections/, ' if ava else ''}report.json, report.csv, curve.png")
    return 0


def of_ava(data: str) -> bool:
    """Whether this is a csv in AVA's format."""
    from tubelet.data.datasets.ava import is_ava_csv

    return is_ava_csv(Path(data))


def same_films(data: str, given: dict[str, Any]) -> dict[str, Any]:
    """Of the options of a training's data those that hold for another csv of AVA, whose films were cut alike."""
    return {key: given[key] for key in ("start", "rate") if key in given and of_ava(data)}


def looked(
    args: argparse.Namespace,
    name: str,
    model: EVAD,
    data: str,
    given: dict[str, Any],
    out: Path | None,
    *,
    several: bool,
) -> Detector | AvaDetector:
    """What a detector says, on AVA or on other data."""
    from tubelet.evaluation.ava_people import look_ava, open_ava
    from tubelet.evaluation.people import look, open_people
    from tubelet.evaluation.people_report import AvaDetector, Detector

    if of_ava(data):
        said = {key: getattr(args, key) for key in ("root", *OF_AVA) if getattr(args, key) is not None}
        films = open_ava(model, data, **{**given, **said})
        with running(args, name, out, several=several, what="key frames") as options:
            seconds = look_ava(model, films, selects(args, model), every=args.every, name=data, **options)
        return AvaDetector(name, model, films, seconds)
    dataset = open_people(model, data, **{"root": args.root, **given})
    with running(args, name, out, several=several) as options:
        options |= {"every": args.every, "all_frames": args.all_frames}
        found = look(model, dataset, selects(args, model), data=data, **options)
    return Detector(name, model, dataset, found)


def show(rows: list[dict[str, Any]]) -> None:
    first, several = rows[0], len({row["model"] for row in rows}) > 1
    timed = "ms_median" in first
    linked = "video_map@0.2" in first  # of AVA nobody is followed
    names = ["video-mAP@.2", "@.5"] if linked else ["@.75", "@.5:.95"]
    fields = ["video_map@0.2", "video_map@0.5"] if linked else ["frame_map@0.75", "frame_map@0.5:0.95"]
    header = ["selection", "frame-mAP@.5 %", "95 %", *names, "to the first", "95 %", "GMACs a clip"]
    cells = [
        [
            f"{row['model']} {row['select']}" if several else row["select"],
            _percent(row["frame_map@0.5"]),
            _interval(row["frame_map@0.5_95"]),
            *(_percent(row[field]) for field in fields),
            _percent(row["frame_difference@0.5"], "+.1f"),
            _interval(row["frame_difference@0.5_95"], "+.1f"),
            f"{row['gmacs']:.3g}",
            *([f"{row['ms_median']:.1f}"] if timed else []),
            in_runs(row["tokens"]),
        ]
        for row in rows
    ]
    model = "" if several else f"{first['model']} on "
    of = "frames" if first["all_frames"] else "annotated"
    every = f" (1 of {first['every']} {of})" if first["every"] > 1 or first["all_frames"] else ""
    title = (
        f"{model}{first['data']}: {first['videos']} videos, {first['key_frames']} key frames{every}, "
        f"{first['size']} pixels, rule {first['rule']}: {RULE[first['rule']]}"
    )
    if unreadable := max(row["unreadable"] for row in rows):
        title += f"; {unreadable} more videos could not be read"
    print_table("lrrrrrrr" + "r" * timed + "l", [*header, *(["ms"] if timed else []), "tokens"], cells, title)


def _percent(value: float | None, form: str = ".1f") -> str:
    return "" if value is None else format(100 * value, form)


def _interval(pair: tuple[float, float] | None, form: str = ".1f") -> str:
    return "" if pair is None else " to ".join(format(100 * side, form) for side in pair)
