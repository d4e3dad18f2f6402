"""What goes where: results to standard output (as JSON alone, or as tables), notes and progress to standard error."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

WIDE = 160  # columns where the output is no terminal: nothing is cut in a file


def note(message: object) -> None:
    """One line to standard error."""
    print(" ".join(str(message).split()), file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """A list has an item a line, anything else a field a line; all in ASCII, whatever standard output can encode."""
    if isinstance(value, list):
        print("[" + ",".join("\n" + json.dumps(item) for item in value) + "\n]")
    else:
        print(json.dumps(value, indent=2))


def print_table(columns: str, header: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """`columns` has a letter for each: "l" for text, on the left, "r" for numbers, on the right."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for side, name in zip(columns, header, strict=True):
        table.add_column(name, justify="left" if side == "l" else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    console = Console(width=None if sys.stdout.isatty() else WIDE, highlight=False)
    if title:
        print(title)
    with console.capture() as drawn:
        console.print(table)
    print("\n".join(line.rstrip() for line in drawn.get().splitlines() if line.strip()))


def in_runs(counts: Sequence[int]) -> str:
    """[8, 8, 8, 4, 4] -> "8 x3, 4 x2"."""
    runs: list[list[int]] = []
    for count in counts:
        if runs and runs[-1][0] == count:
            runs[-1][1] += 1
        else:
            runs.append([count, 1])
    return ", ".join(f"{count} x{times}" if times > 1 else str(count) for count, times in runs)


class JsonList:
    """A JSON list, an item a line, that is printed while it grows and is whole however the command ends."""

    def __init__(self, wanted: bool) -> None:
        self.wanted = wanted  # otherwise nothing is printed
        self.count = 0

    def add(self, value: Any) -> None:
        if self.wanted:
            start = ",\n" if self.count else "[\n"
            print(start, json.dumps(value), sep="", end="", flush=True)
            self.count += 1

    def __enter__(self) -> JsonList:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.wanted and self.count and kind is not BrokenPipeError:
            print("\n]")


class Steps:
    """Progress on standard error: a bar in a terminal, elsewhere a line now and then; nothing for work of one step."""

    EVERY = 10.0  # seconds between two lines

    def __init__(self, total: int, what: str) -> None:
        self.total, self.what, self.done = total, what, 0
        self.last = time.monotonic()
        self.bar: Progress | None = None
        if total > 1 and sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            console = Console(stderr=True)
            # what is printed meanwhile goes where it belongs, see paused()
            self.bar = Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False)
            self.bar.add_task(what, total=total)

    def advance(self, steps: int = 1) -> None:
        self.reach(self.done + steps)

    def reach(self, done: int) -> None:
        self.done = done
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], completed=done)
        elif done < self.total and time.monotonic() - self.last > self.EVERY:
            self.last = time.monotonic()
            note(f"{done} of {self.total} {self.what}")

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The bar out of the way of what is printed."""
        if self.bar is None:
            yield
            return
        self.bar.stop()
        yield
        self.bar.start()

    def __enter__(self) -> Steps:
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.bar is not None:
            self.bar.stop()
