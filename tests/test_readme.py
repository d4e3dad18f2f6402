"""What the README shows is what happens: its Python and its tables are run and compared, its figures are results."""

import json
import re
import shlex

import pytest

from tests.project import ROOT
from tubelet.cli import main

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.DOTALL)


def result(name):
    return json.loads((ROOT / "results" / f"{name}.json").read_text())["result"]


def followed_by_output(language, start):
    """Blocks of a language that begin so and that a block of text follows: (source, output). At least one."""
    pairs = zip(BLOCKS, BLOCKS[1:], strict=False)
    found = [(s, text) for (kind, s), (after, text) in pairs if kind == language and after == "text" and start in s]
    assert found
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("source", "output"), followed_by_output("python", "import"))
def test_python(source, output, capsys):
    exec(compile(source, "README.md", "exec"), {})
    assert capsys.readouterr().out == output


@pytest.mark.parametrize(("command", "output"), followed_by_output("", "tubelet flops"))
def test_commands_with_their_output(command, output, capsys):
    assert main(shlex.split(command)[1:]) == 0
    assert capsys.readouterr().out == output


def test_every_command_shown_exists(capsys):
    """Those that need a file of the reader's are parsed, not run."""
    from tubelet.cli.app import COMMANDS, parser_of

    shown = re.findall(r"^tubelet (.+)$", README, flags=re.MULTILINE)
    assert len(shown) > 5
    for line in shown:
        command, *words = shlex.split(line, comments=True)
        assert command in COMMANDS or command == "COMMAND"
        if command in COMMANDS:
            parser_of(command).parse_args(words)


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target
    for path in re.findall(r"\| (tests/\S+\.py) \|", README):
        assert (ROOT / path).exists(), path


def test_the_demo_is_as_it_ran():
    assert result("demo")["printed"] in README


def test_times_are_those_measured():
    rows = [row for row in result("timing_videomae_base")["rows"] if row["threads"] == 1]
    for row in rows:
        assert f"| {row['ms_median'] / 1e3:.2f} s | {row['speedup']:.2f} x | {row['ratio']:.2f} x |" in README


def test_other_figures_are_those_of_results():
    apart = max(abs(row["difference"]) for row in result("flops_videomae"))
    assert f"{100 * apart:.2f} % apart" in " ".join(README.split())
    (peer,) = [p for p in result("timing_videomae_base")["peers"] if p["threads"] == 1]
    assert f"{peer['ratio']:.2f} x the time of transformers" in README
    test = json.loads((ROOT / "results" / "jhmdb_classifier.json").read_text())["test"]
    assert f"{100 * test['top1']:.1f} % of the test clips right ({test['right']} of {test['clips']}" in README
