"""From the words of a command line to an exit status: 0, 2 for bad input, 1 for what fails on the way, 130 interrupted.

Plain argparse: `tubelet --help` and a misspelt word answer at once, before torch is imported. Only the module of the
sub-command that was asked for is loaded.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import NoReturn

from tubelet._version import __version__
from tubelet.errors import TubeletError, WriteError, suggestion

COMMANDS = {  # name, which with "_" for "-" is also the module's: what it does, for `tubelet --help`
    "classify": "say what happens in a video",
    "detect": "say who does what, and where, in a video",
    "visualize": "draw which tokens a selection keeps (mp4, gif or png)",
    "flops": "count the multiply-adds of a model, dense and with selections",
    "bench": "measure the time of a model, dense and with selections",
    "train": "train a model as a config says, and go on where it stopped",
    "evaluate": "judge a model on labelled videos, dense and with selections",
    "convert": "turn a checkpoint of others into a folder of this library",
    "check-data": "find broken videos, wrong classes and leaks before training",
    "models": "list the models",
    "selectors": "list the ways to select tokens",
}
BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130


class UsageError(Exception):
    """A command line that cannot be read."""


class Parser(argparse.ArgumentParser):
    """argparse, but an error is one sentence instead of a usage text, and no option is guessed from its beginning."""

    def __init__(self, **arguments: object) -> None:
        form = argparse.RawDescriptionHelpFormatter
        super().__init__(formatter_class=form, allow_abbrev=False, **arguments)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def main(words: Sequence[str] | None = None) -> int:
    """Run one command line, `sys.argv` if none is given, and return its exit status."""
    words = list(sys.argv[1:] if words is None else words)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name of a file may hold what the stream cannot encode
            stream.reconfigure(errors="backslashreplace")
    return guarded(lambda: _dispatch(words))


def guarded(command: Callable[[], int]) -> int:
    """Run a command; whatever goes wrong is one line on standard error and a status."""
    try:
        status = command()
        sys.stdout.flush()  # here, so that a closed pipe is noticed here
        return status
    except SystemExit as exit:  # argparse after --help or --version
        return exit.code if isinstance(exit.code, int) else 0
    except UsageError as error:
        return _fail(error, BAD_INPUT)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:  # `tubelet models | head -1`: whoever read this has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing more to flush when Python ends
        return FAILED
    except Exception as error:
        if isinstance(error, TubeletError):
            return _fail(error, BAD_INPUT)
        if isinstance(error, WriteError):
            return _fail(error, FAILED)
        if os.environ.get("TUBELET_DEBUG"):
            raise
        kind = type(error).__name__
        return _fail(f"failed: {kind}: {error} (TUBELET_DEBUG=1 shows where)", FAILED)


def parser_of(command: str) -> Parser:
    """The parser of one sub-command."""
    module = _module_of(command)
    parser = Parser(prog=f"tubelet {command}", description=module.__doc__, epilog=f"example:\n  {module.EXAMPLE}")
    module.add_arguments(parser)
    return parser


def _module_of(command: str) -> ModuleType:
    return import_module(f"tubelet.cli.{command.replace('-', '_')}")


def _dispatch(words: list[str]) -> int:
    if not words or words[0].startswith("-"):
        return _top(words)
    command, *rest = words
    if command not in COMMANDS:
        raise UsageError(f"no command {command!r}; there are {', '.join(COMMANDS)}{suggestion(command, COMMANDS)}")
    arguments = _read(command, rest)
    with _ended_by_control_c():
        import_module("torch")  # all commands need it
    with warnings.catch_warnings():  # which puts back what shows a warning
        warnings.showwarning = _warn
        return _module_of(command).run(arguments)


def _read(command: str, words: list[str]) -> argparse.Namespace:
    """Arguments; those that a command reads itself, the keys of a config, stand in `more`."""
    if not getattr(_module_of(command), "TAKES_MORE", False):
        return parser_of(command).parse_args(words)
    arguments, more = parser_of(command).parse_known_args(words)
    arguments.more = more
    return arguments


def _warn(message: Warning | str, *where: object, **more: object) -> None:
    """A warning of the library is a sentence for the user, too."""
    print("tubelet: warning:", " ".join(str(message).split()), file=sys.stderr)


@contextmanager
def _ended_by_control_c() -> Iterator[None]:
    """Control-C ends the process at once: within `import torch` a KeyboardInterrupt is lost, C code there drops it."""

    def end(*_: object) -> None:
        os._exit(_fail("interrupted", INTERRUPTED))

    usual = signal.getsignal(signal.SIGINT)
    if usual is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)


def _top(words: list[str]) -> int:
    """`tubelet` without a command."""
    width = max(map(len, COMMANDS))
    parser = Parser(
        prog="tubelet",
        usage="tubelet COMMAND ...",
        description="Video transformers that look only at the tokens that matter.\n\ncommands:\n"
        + "\n".join(f"  {name:{width}}  {summary}" for name, summary in COMMANDS.items()),
        epilog="example:\n  tubelet classify clip.mp4 --select sta:keep=0.5\n\ntubelet COMMAND --help tells more.",
    )
    parser.add_argument("--version", action="version", version=f"tubelet {__version__}")
    parser.parse_args(words)
    parser.print_help()
    return 0


def _fail(message: object, status: int) -> int:
    """One line, whatever the message holds."""
    print("tubelet:", " ".join(str(message).split()), file=sys.stderr)
    return status
