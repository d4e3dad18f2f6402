"""Help, examples, and the commands that need no video."""

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import tubelet
from tests.tiny import tiny
from tubelet.cli import COMMANDS, main
from tubelet.cli.app import parser_of
from tubelet.selection.spec import parse

FLOPS = {"model", "select", "gmacs", "ratio", "params_m", "tokens"}
BENCH = FLOPS | {"ms_median", "ms_p95", "speedup", "efficiency", "peak_mb", "device", "threads", "batch", "dtype"}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_ends_with_an_example_that_parses(command: str, run):
    done = run(command, "--help")
    assert done.status == 0 and done.err == ""
    assert "example:" in done.out
    example = done.out.splitlines()[-1].strip()
    program, name, *words = shlex.split(example)
    assert (program, name) == ("tubelet", command)
    arguments = parser_of(command).parse_args(words)
    selects = getattr(arguments, "select", None) or []
    for select in [selects] if isinstance(selects, str) else selects:
        parse(select)
    assert arguments.json is False


@pytest.mark.parametrize("command", ["flops", "models", "selectors"])
def test_examples_that_need_no_file_run(command: str, run):
    words = shlex.split(parser_of(command).epilog or "")[1:]
    assert words[0] == "tubelet"
    done = run(*words[1:])
    assert done.status == 0 and done.out and done.err == ""


def test_the_list_of_commands(run):
    for words in ([], ["--help"], ["-h"]):
        done = run(*words)
        assert done.status == 0
        assert all(f"  {command} " in done.out for command in COMMANDS)
    assert run("--version").out == f"tubelet {tubelet.__version__}\n"


def test_help_does_not_wait_for_torch():
    code = (
        "import sys; from tubelet.cli import main; main(['--help']); main(['clasify']); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "False"


def test_flops_json(run):
    selects = ["sta:r=64", "random:keep=0.5@4", "none"]
    words = [word for select in selects for word in ("--select", select)]
    done = run("flops", "--model", "videomae_small", "--classes", 7, *words, "--json")
    assert done.status == 0 and done.err == ""
    assert [row["select"] for row in done.json] == ["none", *selects]
    assert all(set(row) == FLOPS for row in done.json)
    dense, sta, _, same = done.json
    assert dense["ratio"] == 1 and sta["ratio"] == pytest.approx(dense["gmacs"] / sta["gmacs"]) and sta["ratio"] > 1
    assert dense["tokens"] == [1568] * 12 and sta["tokens"][:2] == [1568, 1568 - 8 * 64]
    assert same == {**dense, "select": "none"}


def test_flops_of_a_saved_model_and_another_size(run, model: Path):
    done = run("flops", "--model", model, "--frames", 8, "--size", "32x48", "--select", "merge:r=2", "--json")
    assert done.status == 0
    assert [row["model"] for row in done.json] == [str(model)] * 2
    assert done.json[0]["tokens"][0] == 4 * 4 * 6
    assert "96 x6" in run("flops", "--model", model, "--frames", 8, "--size", "32x48").out


def test_bench_json_and_words(run, model: Path):
    words = ["bench", "--model", model, "--select", "sta:r=4", "--select", "sta:r=0", "--runs", 2]
    done = run(*words, "--json")
    assert done.status == 0 and done.err == ""
    assert [row["select"] for row in done.json] == ["none", "sta:r=4", "sta:r=0"]
    assert all(set(row) >= BENCH for row in done.json)
    assert all(row["batch"] == 1 and row["threads"] == 1 for row in done.json)
    done = run(*words)
    assert done.status == 0 and "efficiency" in done.out
    assert "sta:r=0 drops no token here" in done.out


def test_convert_says_what_became_of_the_keys(run, model: Path, tmp_path: Path):
    target = tmp_path / "copy"
    done = run("convert", model / "model.safetensors", target, "--select", "sta:r=4")
    assert done.status == 0 and "keys matched" in done.out and str(target) in done.out
    assert tubelet.load_model(target).config.select == "sta:r=4"
    done = run("convert", model, target, "--force", "--json")
    assert done.status == 0
    assert set(done.json) == {"source", "target", "layout", "matched", "renamed", "unused", "new", "notes"}
    assert len(done.json["matched"]) == len(tubelet.load_model(model).state_dict())
    assert tubelet.load_model(target).config.select == "none"


def test_models(run, packaged: str):
    rows = {row["model"]: row for row in run("models", "--json").json}
    assert set(rows) == {packaged, *tubelet.list_models()}
    assert rows[packaged]["weights"] and rows[packaged]["classes"] == 7
    base = rows["videomae_base"]
    assert base["params_m"] == pytest.approx(86.5, abs=0.1) and not base["weights"] and base["size"] == [224, 224]
    assert "videomae_huge" in run("models", "*huge").out and "videomae_base" not in run("models", "*huge").out


def test_selectors(run):
    rows = run("selectors", "--json").json
    assert ["none", *(row["selector"] for row in rows)] == tubelet.list_selectors()
    assert all(row["models"]["vit"] for row in rows)  # it takes any set of tokens
    for row in rows:  # a budget works, or the reason is said
        for name, works in row["models"].items():
            assert works == (set(row["refused"][name]) != set(row["budgets"])) and all(row["refused"][name].values())
    refused = {row["selector"]: row["refused"]["mvit"] for row in rows}
    assert not refused["stts"] and set(refused["random"]) == {"keep", "r"} and set(refused["merge"]) == {"r"}
    why = [reason for of_selector in refused.values() for reason in of_selector.values()]
    assert why and all("pools over a dense grid" in reason or "does not hand on the pixels" in reason for reason in why)
    assert [row["selector"] for row in rows if row["models"]["xvit"] and row["only_with"].get("xvit")] == [
        "sta", "random", "uniform", "attention"
    ]  # fmt: skip
    done = run("selectors")
    assert done.status == 0 and all(row["summary"] in done.out for row in rows)
    assert "sta keep on xvit: with one group a frame, such as groups=8/8/8" in done.out
    assert all(reason in done.out for row in rows for why in row["refused"].values() for reason in why.values())


def test_interrupted_is_130_in_one_line(run, monkeypatch: pytest.MonkeyPatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tubelet.cli.models.run", interrupted)
    done = run("models")
    assert done.status == 130 and done.out == "" and done.err == "tubelet: interrupted\n"


def test_the_signal_of_control_c(model: Path):
    words = ["bench", "--model", str(model), "--runs", "1000000", "--json"]
    code = f"import sys; from tubelet.cli import main, output; output.Steps.EVERY = 0; sys.exit(main({words}))"
    running = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None and "of 1000001 rounds" in running.stderr.readline()  # the work has begun
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=300)
    assert (running.returncode, out, err.splitlines()[-1]) == (130, "", "tubelet: interrupted")


def test_control_c_while_torch_is_imported():
    """torch's C code imports numpy and drops whatever is raised there."""
    code = """
import os, signal, sys
from tubelet.cli import main

class Press:
    def find_spec(self, name, path=None, target=None):
        if name in ("numpy.exceptions", "numpy.core.multiarray") and "torch" in sys.modules:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Press())
sys.exit(main(["flops", "--model", "videomae_small"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "tubelet: interrupted\n")


def test_control_c_is_as_before_once_torch_is_there(run):
    before = signal.getsignal(signal.SIGINT)
    run("models", "*base")
    assert signal.getsignal(signal.SIGINT) is before


def test_the_option_for_threads_sets_those_of_torch(run, clip: Path, model: Path):
    before = torch.get_num_threads()
    try:
        assert run("classify", clip, "--model", model, "--threads", before + 1).status == 0
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_a_reader_that_has_enough_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "tubelet", "selectors"], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60
    )
    os.close(writing)
    assert done.returncode == 1 and done.stderr == ""


def test_json_is_whole_when_interrupted(run, model: Path, clip: Path, monkeypatch: pytest.MonkeyPatch):
    import tubelet.inference as inference

    classify, calls = inference.classify, []

    def second_is_interrupted(*positional: object, **named: object):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return classify(*positional, **named)

    monkeypatch.setattr(inference, "classify", second_is_interrupted)
    done = run("classify", clip, clip, "--model", model, "--json")
    assert done.status == 130 and len(done.json) == 1


def test_debugging_shows_where(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tubelet.cli.models.run", lambda args: json.loads("{"))
    monkeypatch.setenv("TUBELET_DEBUG", "1")
    with pytest.raises(ValueError):
        main(["models"])


def test_what_a_file_does_not_say_is_given_to_convert(run, tmp_path):
    torch.save({"module": tiny(dim=24, heads=3, depth=3).state_dict()}, tmp_path / "weights.pth")
    words = ["convert", tmp_path / "weights.pth", tmp_path / "out", "--set", "frames=16", "--set", "size=[32,32]"]
    done = run(*words)
    assert done.status == 2 and "give heads= (tubelet convert --set)" in done.err
    assert run(*words, "--set", "heads=3").status == 0
    config = tubelet.load_model(tmp_path / "out").config
    assert config.arguments["heads"] == 3 and config.arguments["size"] == (32, 32)
    for given, says in (
        ("heads", "is not KEY=VALUE, such as heads=3"),
        ("heads=[", "is no number, text or list"),
        ("heads=three", "heads is 'three', and a whole number from 1 on"),
        ("feet=3", "has no argument 'feet'"),
        ("select=none", "give --select"),
    ):
        done = run(*words, "--set", "heads=3", "--set", given, "--force")
        assert done.status == 2 and says in done.err, (given, done.err)


@pytest.mark.filterwarnings("default")  # as outside of the tests, where it is no error
def test_a_warning_of_the_library_is_one_line(tmp_path, capsys):
    """A file of weights alone does not say how many heads: what is guessed is said, without a path of the source."""
    torch.save({"module": tiny(dim=384, heads=6, depth=3).state_dict()}, tmp_path / "weights.pth")
    assert main(["convert", str(tmp_path / "weights.pth"), str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert any(line.startswith("tubelet: warning:") and "heads" in line for line in lines)
    assert not any("UserWarning" in line for line in lines)
