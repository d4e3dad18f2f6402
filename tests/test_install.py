"""The promises about installing: quick, light, well beside a broken torchvision, nothing left out of the wheel."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import tubelet
from tests.project import ROOT, pyproject

TINY = (
    "tubelet.create_model('videomae_small', num_classes=3, frames=4, size=32, dim=16, depth=3, heads=2,"
    " select='sta:r=1,groups=2/2/1')"
)


def python(*arguments: str, **environment: str) -> str:
    """Standard output of another interpreter, which has imported nothing yet."""
    done = subprocess.run(
        [sys.executable, *arguments], env={**os.environ, **environment}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_takes_less_than_two_seconds_beyond_torch():
    code = "import time, torch; start = time.perf_counter(); import tubelet; {}; print(time.perf_counter() - start)"
    face = "[getattr(tubelet, name) for name in tubelet.__all__]"  # names are loaded when they are first used
    best = min(float(python("-c", code.format(face))) for _ in range(3))
    assert best < 2


def test_import_loads_nothing_heavy():
    def loaded(code: str) -> set[str]:
        return set(
            python("-c", f"import sys, tubelet; {code}; print(*(name.split('.')[0] for name in sys.modules))").split()
        )

    heavy = {"matplotlib", "transformers", "torchvision", "timm", "torchmetrics", "scipy", "torchcodec"}
    assert not heavy & loaded(TINY)
    # a bare import does not even load what the package depends on
    assert not (heavy | {"av", "pydantic", "rich", "huggingface_hub"}) & loaded("0")


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with packages that are installed and cannot be imported, as PyPI's torchvision beside a CPU torch."""
    folder = tmp_path_factory.mktemp("broken")
    for name in ("torchvision", "timm", "torchmetrics"):
        information = folder / f"{name}-0.1.dist-info"  # so that it counts as installed
        information.mkdir()
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text('raise RuntimeError("operator torchvision::nms does not exist")\n')
    return folder


def test_a_model_runs_beside_a_broken_torchvision(broken: Path):
    path = os.pathsep.join(filter(None, [str(broken), os.environ.get("PYTHONPATH")]))
    code = "try: import torchvision\nexcept RuntimeError: print('broken')"
    assert python("-c", code, PYTHONPATH=path).strip() == "broken"
    code = f"import torch, tubelet; model = {TINY}; print(*model(torch.zeros(2, 3, 4, 32, 32)).shape)"
    assert python("-c", code, PYTHONPATH=path).split() == ["2", "3"]


def test_the_command_runs_beside_a_broken_torchvision(broken: Path):
    path = os.pathsep.join(filter(None, [str(broken), os.environ.get("PYTHONPATH")]))
    assert "classify" in python("-m", "tubelet", "--help", PYTHONPATH=path)


@pytest.mark.parametrize("minor", [10, 11, 12, 13, 14])
def test_constraints_hold_one_exact_version_of_every_dependency(minor: int):
    project = pyproject()["project"]
    declared = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    here = {"python_version": f"3.{minor}", "python_full_version": f"3.{minor}.1"}

    pins: dict[str, list[str]] = {}
    for pin in map(Requirement, lines):
        if pin.marker is None or pin.marker.evaluate(here):
            exact = re.fullmatch(r"==([^*]+)", str(pin.specifier))
            assert exact, f"constraints.txt: {pin} is not one version"
            pins.setdefault(canonicalize_name(pin.name), []).append(exact[1])
    for wanted in map(Requirement, declared):
        if wanted.name == project["name"] or (wanted.marker and not wanted.marker.evaluate(here)):
            continue
        versions = pins.get(canonicalize_name(wanted.name), [])
        assert len(versions) == 1 and versions[0] in wanted.specifier, f"{wanted}: constraints.txt has {versions}"


def test_the_wheel_holds_every_module_and_weight(tmp_path: Path):
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    build = "import os, sys; os.chdir(sys.argv[1]); from setuptools.build_meta import build_wheel; build_wheel('.')"
    python("-c", build, str(tmp_path))

    wheel = zipfile.ZipFile(next(tmp_path.glob("*.whl")))
    packed = {name for name in wheel.namelist() if name.startswith("tubelet/")}
    files = (path for path in (tmp_path / "src" / "tubelet").rglob("*") if path.is_file())
    assert packed == {path.relative_to(tmp_path / "src").as_posix() for path in files}
    information = f"tubelet-{tubelet.__version__}.dist-info"
    assert wheel.read(f"{information}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert b"tubelet = tubelet.cli:main" in wheel.read(f"{information}/entry_points.txt")


def test_the_version_is_the_same_wherever_it_is_told():
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {tubelet.__version__}\n" in citation
    released = re.findall(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert not released or released[0] == tubelet.__version__


def test_make_tells_every_target():
    if not shutil.which("make"):
        pytest.skip("needs make")
    told = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = set(re.findall(r"^\.PHONY: ([a-z]+)$", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert targets and targets == set(re.findall(r"^  make (\w+) ", told, re.MULTILINE))


def test_a_constant_result_is_marked_as_torch_marks_it():
    import torch

    from tubelet.graphs import constant_result

    def ours() -> int:
        return 1

    def theirs() -> int:
        return 1

    assert vars(constant_result(ours)) == vars(torch.compiler.assume_constant_result(theirs)) != {}
