"""For torch's compiler, without loading it: that takes more than a second, which `import tubelet` need not cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

F = TypeVar("F", bound=Callable)


def constant_result(function: F) -> F:
    """What torch.compiler.assume_constant_result does: a graph takes what the function returns as a constant."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function
