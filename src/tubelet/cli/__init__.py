"""The command `tubelet`: a sub-command a file, each with `add_arguments(parser)` and `run(args) -> exit status`."""

from tubelet.cli.app import COMMANDS, main

__all__ = ["COMMANDS", "main"]
