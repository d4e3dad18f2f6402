"""Who may import whom, read from the source without running it."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.project import ROOT, pyproject

SRC = ROOT / "src"
FILES = sorted((SRC / "tubelet").rglob("*.py"))

# The surface, which nothing below it knows; then what each part must not know besides.
# "A selector never touches a model, a model never knows a method."
SURFACE = {"cli", "demo", "__main__"}
APPLICATIONS = {"training", "evaluation", "visualize"}
MUST_NOT_KNOW = {
    "selection": APPLICATIONS | {"models", "checkpoints", "data", "profiling"},
    "models": APPLICATIONS | {"checkpoints", "data", "profiling"},
    "data": APPLICATIONS | {"models", "checkpoints", "selection", "profiling"},
    "checkpoints": APPLICATIONS,
    "profiling": APPLICATIONS,
}
# All that a model may know of selection; every other file there is a method or a method's tool.
SELECTION_INFRASTRUCTURE = {"core", "plan", "registry", "spec"}
# Broken beside a torchvision that is broken, or slow to import: never at the top of a module.
NEVER_AT_TOP = {"matplotlib", "scipy", "timm", "torchcodec", "torchmetrics", "torchvision", "transformers"}
IMPORT_NAMES = {"pyyaml": "yaml", "scikit-video": "skvideo"}  # where they differ from the distribution's


class Import(NamedTuple):
    module: str  # dotted, absolute
    line: int
    at_top: bool  # runs when the module is imported


def imports(source: str, module: str, is_package: bool = False) -> list[Import]:
    """What a module imports, in functions too; what stands under TYPE_CHECKING is left out."""

    def walk(node: ast.AST, at_top: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from (Import(alias.name, child.lineno, at_top) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = child.module or ""
                if child.level:
                    package = module.split(".")[: None if is_package and child.level == 1 else is_package - child.level]
                    base = ".".join([*package, *([base] if base else [])])
                # `from a.b import c`: c may be a module or a name in a.b; the longer name serves both
                yield from (Import(f"{base}.{alias.name}", child.lineno, at_top) for alias in child.names)
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                for other in child.orelse:
                    yield from walk(ast.Module([other], []), at_top)
            else:
                in_function = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
                yield from walk(child, at_top and not in_function)

    return list(walk(ast.parse(source), True))


def imports_of(path: Path) -> list[Import]:
    parts = list(path.relative_to(SRC).with_suffix("").parts)
    is_package = parts[-1] == "__init__"
    return imports(path.read_text(), ".".join(parts[:-1] if is_package else parts), is_package)


def names(path: Path) -> str:
    return str(path.relative_to(SRC / "tubelet"))


def test_the_reader_of_imports_sees_every_form():
    source = """
import a.b, c as d
from e import f
from .g import h
from . import i
from ..j import k
try:
    import m
except ImportError:
    pass
if TYPE_CHECKING:
    import unseen
else:
    import n
def function():
    from o import p
"""
    found = imports(source, "tubelet.models.vit")
    top = ["a.b", "c", "e.f", "tubelet.models.g.h", "tubelet.models.i", "tubelet.j.k", "m", "n"]
    assert [i.module for i in found if i.at_top] == top
    assert [i.module for i in found if not i.at_top] == ["o.p"]
    package = imports("from .g import h\nfrom ..j import k", "tubelet.models", is_package=True)
    assert [i.module for i in package] == ["tubelet.models.g.h", "tubelet.j.k"]


@pytest.mark.parametrize("path", FILES, ids=names)
def test_direction(path: Path):
    own = Path(path.relative_to(SRC / "tubelet").parts[0]).stem
    forbidden = set() if own in SURFACE else SURFACE | MUST_NOT_KNOW.get(own, set())
    for module, line, _ in imports_of(path):
        package, part, inner, *_ = [*module.split("."), "", ""]
        if package != "tubelet":
            continue
        assert part not in forbidden, f"{path}:{line}: {own} must not import {module}"
        if own == "models" and part == "selection":
            assert inner in SELECTION_INFRASTRUCTURE, f"{path}:{line}: a model knows no method: {module}"


@pytest.mark.parametrize("path", FILES, ids=names)
def test_nothing_heavy_at_the_top_and_nothing_undeclared(path: Path):
    def import_names(requirements: list[str]) -> set[str]:
        found = {re.match(r"[\w.-]+", r).group().lower() for r in requirements}  # type: ignore[union-attr]
        return {IMPORT_NAMES.get(name, name.replace("-", "_")) for name in found}

    project = pyproject()["project"]
    core = import_names(project["dependencies"])
    declared = core.union(*(import_names(extra) for extra in project["optional-dependencies"].values()))
    for module, line, at_top in imports_of(path):
        top = module.partition(".")[0]
        if top == "tubelet" or top in sys.stdlib_module_names:
            continue
        assert not (at_top and top in NEVER_AT_TOP), f"{path}:{line}: import {top} where it is used, not at the top"
        assert top in (core if at_top else declared), f"{path}:{line}: {top} is not declared in pyproject.toml"
