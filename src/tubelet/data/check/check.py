"""Checking a data set before training: every video, every class, and what splits must not share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median_low

from tubelet.data.check.boxes import named_tubes, of_annotation, of_end, of_pictures
from tubelet.data.check.leaks import find_duplicates, find_leaks
from tubelet.data.check.probe import Probe, probe_all
from tubelet.data.check.problems import KINDS, Problem, Report, SplitCounts
from tubelet.data.datasets.box_rows import read_box_rows, second_boxes
from tubelet.data.datasets.listing import Listing, Record
from tubelet.data.datasets.registry import SCENES, disjoint_pairs, find_splits, split_name
from tubelet.data.datasets.tubes import Tubes, tubes_of_rows
from tubelet.errors import TubeletError


def check_data(
    data: Sequence[str],
    *,
    root: str | Path | None = None,
    classes: int | None = None,
    frames: int = 16,
    quick: bool = False,
    workers: int = 1,
    begin: Callable[[int], Callable[[], None]] = lambda videos: lambda: None,
) -> Report:
    """Looks for broken, damaged and too short videos, wrong class counts, leaks between splits, and the tubes of data
    sets by name: videos without one, and boxes outside of the picture or over its edges.

    data:     a name with or without split, a folder or a csv; several are splits of one data set
    root:     see `open_dataset`
    classes:  how many there should be;  frames: that a clip should have at least
    quick:    does not decode videos beyond their first frame
    begin:    is called with the number of videos and gives what is called after each

    Raises TubeletError for what is no data set.
    """
    splits, tubes = _splits(data, root)
    paths = list(dict.fromkeys(record.path for listing in splits.values() for record in listing.records))
    probes = probe_all(paths, quick=quick, workers=workers, advance=begin(len(paths)))
    problems = [problem for listing in splits.values() for problem in _of_split(listing, probes, frames)]
    problems += _of_classes(splits, classes)
    notes: list[str] = []
    for split, annotation in tubes.items():
        wrong, odd = of_annotation(splits[split], annotation, probes)
        problems, notes = problems + wrong, notes + odd
    for a, b in disjoint_pairs(list(splits)):
        problems += find_leaks(splits[a], splits[b], probes)
    return Report(
        data=" ".join(data),
        classes=max(len(listing.labels) for listing in splits.values()),
        videos=len(paths),
        splits=[_counts(listing, probes) for listing in splits.values()],
        problems=_worst_first(problems),
        notes=list(dict.fromkeys(notes)),
    )


def check_boxes(
    path: Path,
    *,
    root: str | Path | None = None,
    quick: bool = False,
    workers: int = 1,
    begin: Callable[[int], Callable[[], None]] = lambda videos: lambda: None,
) -> Report:
    """The same for a csv of boxes: its videos, and boxes outside of their picture or over its edges, after their last
    frame, or where one person has two. Raises TubeletError that names the line of what is no row."""
    labels, rows = read_box_rows(path)
    tubes = tubes_of_rows(labels, rows)
    names = {name: Path(root or path.parent) / name for name in tubes.videos}
    probes = probe_all(list(names.values()), quick=quick, workers=workers, advance=begin(len(names)))
    problems = [Problem("box", path.stem, "", sentence) for sentence in second_boxes(path, rows)]
    problems += [problem for name, file in names.items() for problem in _of_file(path.stem, name, probes[file])]
    for name, file in names.items():
        if not probes[file].error:
            problems += of_end(path.stem, name, tubes.videos[name], probes[file])
    there = {name: probes[file] for name, file in names.items() if not probes[file].error}
    problems += of_pictures(
        path.stem, [(name, tubes.videos[name], (one.width, one.height)) for name, one in there.items()]
    )
    records = [Record(file, tube.label, name) for name, file in names.items() for tube in tubes.videos[name][:1]]
    listing = Listing(path.stem, tubes.labels, records)
    return Report(str(path), len(tubes.labels), len(names), [_counts(listing, probes)], _worst_first(problems))


def is_boxes(data: str) -> bool:
    """Whether this is a csv of boxes."""
    path = Path(data)
    if path.suffix != ".csv" or not path.is_file():
        return False
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        header = next((line for line in file if line.strip()), "")
    return {"x1", "frame"} <= {cell.strip() for cell in header.split(",")}


def _splits(data: Sequence[str], root: str | Path | None) -> tuple[dict[str, Listing], dict[str, Tubes]]:
    """The splits by name, and the tubes of those that have some."""
    if twice := next((one for one in data if list(data).count(one) > 1), None):
        raise TubeletError(f"{twice}: given twice; each split is needed once")
    found: dict[str, Listing] = {}
    annotated: dict[str, Tubes] = {}
    for one in data:
        name, split = split_name(one)
        if name in SCENES:
            raise TubeletError(f"{one}: scenes are made on the fly; there is no file to check")
        listings = find_splits(name, root=root)
        if split is not None and split not in listings:
            raise TubeletError(f"{name}: no split {split!r}; there are {', '.join(listings)}")
        tubes = named_tubes(name, root)
        for key, listing in listings.items():
            if split in (None, key):
                unique = listing.name if listing.name not in found else f"{name}:{listing.name}"
                found[unique] = replace(listing, name=unique)
                annotated |= {unique: tubes} if tubes is not None else {}
    return found, annotated


def _of_split(listing: Listing, probes: dict[Path, Probe], frames: int) -> list[Problem]:
    problems = [Problem("row", listing.name, "", sentence) for sentence in listing.problems]
    for record in listing.records:
        one = probes[record.path]
        problems += _of_file(listing.name, record.name, one)
        if not one.error:
            problems += _of_length(listing.name, record, one, frames)
    return problems + find_duplicates(listing, probes)


def _of_file(split: str, name: str, one: Probe) -> list[Problem]:
    if one.error:
        return [Problem("missing" if one.missing else "broken", split, name, one.error)]
    if one.frames < one.declared:
        sentence = f"{name}: {one.declared - one.frames} of {one.declared} frames are missing"
        return [Problem("damaged", split, name, sentence)]
    return []


def _of_length(split: str, record: Record, one: Probe, frames: int) -> list[Problem]:
    length = one.frames
    if record.start is not None or record.end is not None:
        start, end = record.start or 0.0, min(record.end or one.seconds, one.seconds)
        length = max(round((end - start) / one.seconds * one.frames), 0) if one.seconds else 0
        if not length:
            sentence = f"{record.name}: its part begins at {start:g} s, the video has {one.seconds:.2f} s"
            return [Problem("broken", split, record.name, sentence)]
    if length < frames:
        return [Problem("short", split, record.name, f"{record.name}: {length} frames, {frames} are needed")]
    return []


def _of_classes(splits: dict[str, Listing], classes: int | None) -> list[Problem]:
    problems = []
    for split, listing in splits.items():
        if classes is not None and len(listing.labels) != classes:
            sentence = f"{split}: {len(listing.labels)} classes, {classes} expected"
            problems.append(Problem("class-count", split, "", sentence))
        used = {record.label for record in listing.records}
        empty = [label for number, label in enumerate(listing.labels) if number not in used]
        problems += [Problem("class-empty", split, "", f"{split}: no clip of the class {label!r}") for label in empty]
    first, *others = splits.items()
    for split, listing in others:
        if listing.labels != first[1].labels:
            only = sorted(set(listing.labels) ^ set(first[1].labels))
            what = (
                f"only in one: {', '.join(only[:5])}{' ...' if len(only) > 5 else ''}" if only else "in another order"
            )
            sentence = f"{first[0]} and {split} number their classes differently ({what}); write a classes.txt"
            problems.append(Problem("class-count", f"{first[0]}, {split}", "", sentence))
    return problems


def _worst_first(problems: Sequence[Problem]) -> list[Problem]:
    """By kind; what is the same in several splits is told once, with all of them."""
    splits: dict[tuple[str, str, str], list[str]] = {}
    for problem in problems:
        named = splits.setdefault((problem.kind, problem.clip, problem.message), [])
        named += [problem.split] if problem.split not in named else []
    told = [Problem(kind, ", ".join(named), clip, message) for (kind, clip, message), named in splits.items()]
    return sorted(told, key=lambda problem: list(KINDS).index(problem.kind))


def _counts(listing: Listing, probes: dict[Path, Probe]) -> SplitCounts:
    counted = Counter(record.label for record in listing.records)
    lengths = sorted(one.frames for record in listing.records if not (one := probes[record.path]).error)
    return SplitCounts(
        split=listing.name,
        clips=len(listing.records),
        classes=len(counted),
        smallest=min(counted.values(), default=0),
        largest=max(counted.values(), default=0),
        frames=(lengths[0], median_low(lengths), lengths[-1]) if lengths else None,
    )
