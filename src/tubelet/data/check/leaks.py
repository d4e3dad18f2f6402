"""Clips that two splits share: the same file, the same content, or cut from the same source video."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path

from tubelet.data.check.probe import Probe
from tubelet.data.check.problems import Problem
from tubelet.data.datasets.listing import Listing, Record

SOURCES = (
    # HMDB51, JHMDB: April_09_brush_hair_u_nm_np1_ba_goo_0: body, camera, people, side, quality and number of the clip
    re.compile(r"(?P<source>.+)_[ufhl]_(cm|nm)_np\d+_(fr|ba|le|ri)_(goo|med|bad)_\d+"),
    # UCF101: v_Basketball_g01_c02: a group is one source
    re.compile(r"(?P<source>v_\w+_g\d+)_c\d+"),
    # Kinetics: AbCdEfGhIjK_000010_000020: eleven letters name the source, then seconds
    re.compile(r"(?P<source>[\w-]{11})_\d{6}_\d{6}"),
)


def source_of(path: Path) -> str | None:
    """The source video that a file name tells, None where it follows none of the `SOURCES`."""
    return next((match["source"] for rule in SOURCES if (match := rule.fullmatch(path.stem))), None)


def find_leaks(a: Listing, b: Listing, probes: dict[Path, Probe]) -> list[Problem]:
    """What two splits share, one problem a file, content or source; what is told by the first is not told again."""

    def content(record: Record) -> str | None:
        return probes[record.path].digest or None if record.path in probes else None

    def file(record: Record) -> Path:
        return record.path.resolve()

    def source(record: Record) -> str | None:
        return source_of(record.path)

    problems: list[Problem] = []
    told: set[Path] = set()
    rules: list[tuple[str, str, Callable[[Record], Hashable]]] = [
        ("leak-file", "the same file", file),
        ("leak-content", "the same content", content),
        ("leak-source", "the same source", source),
    ]
    for kind, what, key in rules:
        in_a, in_b = _by(key, a.records), _by(key, b.records)
        for shared in sorted(in_a.keys() & in_b.keys(), key=str):
            both = in_a[shared] + in_b[shared]
            if not all(record.path in told for record in both):
                named = f" {shared}" if kind == "leak-source" else ""
                sentence = f"{what}{named} in {a.name} ({_some(in_a[shared])}) and {b.name} ({_some(in_b[shared])})"
                problems.append(Problem(kind, f"{a.name}, {b.name}", in_b[shared][0].name, sentence))
            told.update(record.path for record in both)
    return problems


def find_duplicates(listing: Listing, probes: dict[Path, Probe]) -> list[Problem]:
    """Clips that stand twice in one split, as the same part of the same file or content; worse if as two classes."""
    problems = []
    groups: dict[Hashable, list[Record]] = defaultdict(list)
    for record in listing.records:
        digest = probes[record.path].digest if record.path in probes else ""
        groups[digest or record.path.resolve(), record.start, record.end].append(record)
    for records in groups.values():
        classes = sorted({listing.labels[record.label] for record in records})
        if len(classes) > 1:
            sentence = f"the same clip as {' and '.join(classes)}: {_some(records)}"
            problems.append(Problem("two-classes", listing.name, records[0].name, sentence))
        elif len(records) > 1:
            sentence = f"the same clip {len(records)} times: {_some(records)}"
            problems.append(Problem("duplicate", listing.name, records[0].name, sentence))
    return problems


def _by(key: Callable[[Record], Hashable], records: Iterable[Record]) -> dict[Hashable, list[Record]]:
    groups: dict[Hashable, list[Record]] = defaultdict(list)
    for record in records:
        if (value := key(record)) is not None:
            groups[value].append(record)
    return groups


def _some(records: list[Record]) -> str:
    more = f" and {len(records) - 2} more" if len(records) > 2 else ""
    return ", ".join(record.name for record in records[:2]) + more
