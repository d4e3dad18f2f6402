"""Files of rows: what they belong to, and what is left of a torn one."""

import json

import pytest

from tubelet.errors import TubeletError
from tubelet.evaluation.rows import Belonging, Row, RowFile, columns, file_name, read_row, read_rows

MINE = Belonging("abc", "none", "scenes (12)", {"size": (64, 64)})


def row(index, rank=0):
    return Row(index, f"v{index}", f"s{index // 2}", index % 3, rank, -0.5, [(1, 0.6), (0, 0.4)], 0.5, 0.1, 0.3, 0.04)


@pytest.fixture
def path(tmp_path):
    file = RowFile(tmp_path / "rows" / "none.jsonl", MINE, read_row)
    file.add([row(3, 1), row(0)])
    file.add([row(1)])
    file.close()
    return file.path


def test_rows_come_back_as_they_were(path):
    file = RowFile(path, MINE, read_row)
    assert file.rows == {3: row(3, 1), 0: row(0), 1: row(1)}
    assert sorted(read_rows(path), key=lambda r: r.index) == [row(0), row(1), row(3, 1)]
    found = columns(file.rows.values())
    assert found.index.tolist() == [0, 1, 3] and found.rank.tolist() == [0, 0, 1] and found.source == ["s0", "s0", "s1"]


@pytest.mark.parametrize("cut", [1, 5, 40, 150])
def test_a_torn_row_is_lost_alone_and_written_again_on_resume(path, cut):
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    file = RowFile(path, MINE, read_row)
    assert 0 in file.rows and 1 not in file.rows
    file.add([row(1)])
    file.close()
    assert path.read_bytes() == whole


def test_what_a_power_cut_left_is_begun_anew_from_there_on_resume(path):
    first, *rest = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + rest[0] + bytes(50) + b"\n" + rest[2])
    file = RowFile(path, MINE, read_row)
    file.close()
    assert list(file.rows) == [3]


def test_a_file_without_a_whole_header_is_begun_anew_on_resume(path):
    path.write_bytes(b'{"format": 1, "mod')
    file = RowFile(path, MINE, read_row)
    file.close()
    assert file.rows == {} and json.loads(path.read_text())["model"] == "abc"


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (Belonging("xyz", "none", "scenes (12)", {"size": (64, 64)}), "model was 'abc' and is 'xyz'"),
        (Belonging("abc", "none", "scenes (13)", {"size": (64, 64)}), "data was"),
        (Belonging("abc", "none", "scenes (12)", {"size": (32, 64)}), r"protocol was .*\[64, 64\].* is .*\[32, 64\]"),
    ],
)
def test_rows_of_something_else_are_refused_or_renewed(path, other, words):
    before = path.read_bytes()
    with pytest.raises(TubeletError, match=words):
        RowFile(path, other, read_row)
    assert path.read_bytes() == before
    file = RowFile(path, other, read_row, renew=True)
    file.close()
    assert file.rows == {} and len(path.read_text().splitlines()) == 1


def test_a_file_of_something_else_is_not_overwritten(path):
    path.write_text("my notes\n")
    with pytest.raises(TubeletError, match="not the rows of an evaluation"):
        RowFile(path, MINE, read_row)
    assert path.read_text() == "my notes\n"
    with pytest.raises(TubeletError, match="not the rows"):
        read_rows(path)


def test_names_of_files_are_plain_and_differ():
    assert file_name("none") == "none.jsonl"
    names = [file_name(select) for select in ("sta:r=8", "sta r=8", "sta:r=8,groups=4/4/2", "a/../b", "x" * 300)]
    assert len(set(names)) == len(names)
    assert all("/" not in name and ":" not in name and len(name) < 110 for name in names)
