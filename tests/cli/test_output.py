"""Standard output and standard error: who prints what where."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tubelet.cli import output


def test_the_json_list_is_whole_however_it_ends(capsys: pytest.CaptureFixture[str]):
    with output.JsonList(True) as results:
        results.add({"a": "é\n"})
        results.add({"b": [1, 2]})
    assert json.loads(capsys.readouterr().out) == [{"a": "é\n"}, {"b": [1, 2]}]
    with pytest.raises(RuntimeError), output.JsonList(True) as results:
        results.add(1)
        raise RuntimeError
    assert json.loads(capsys.readouterr().out) == [1]
    with output.JsonList(False) as results:
        results.add(1)
    assert capsys.readouterr().out == ""


def test_progress_without_a_terminal_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    clock = [0.0]
    monkeypatch.setattr(output.time, "monotonic", lambda: clock[0])
    with output.Steps(100, "views") as steps:
        for _ in range(100):
            clock[0] += 1
            steps.advance()
            with steps.paused():
                pass
    out, err = capsys.readouterr()
    assert out == "" and err.splitlines()[0] == "11 of 100 views" and len(err.splitlines()) == 9


def test_tables_print_what_they_are_given(capsys: pytest.CaptureFixture[str]):
    output.print_table("lr", ["name", "n"], [["[red]a[/red]", "1"], ["b" * 100, "22"]], "title [x]")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "title [x]" and lines[1].split() == ["name", "n"]
    assert lines[3].split() == ["[red]a[/red]", "1"] and lines[4].split() == ["b" * 100, "22"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_gets_a_bar_and_the_json_stays_alone(model: Path, clip: Path):
    """Standard error is a terminal, standard output a pipe, as in `tubelet classify ... --json > answers.json`."""
    import pty

    terminal, other = pty.openpty()
    command = [sys.executable, "-m", "tubelet", "classify", clip, clip, "nothing.mp4", "--model", model, "--json"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=other, env=environment)
    os.close(other)
    drawn = b""
    while True:
        try:
            part = os.read(terminal, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        drawn += part
    out = running.communicate(timeout=60)[0]
    os.close(terminal)
    assert running.returncode == 1
    assert [set(answer) >= {"labels"} for answer in json.loads(out)] == [True, True, False]
    assert b"views" in drawn and b"2/3" in drawn and b"nothing.mp4: no such file" in drawn
