"""Table A: budgets of equal cost, and rows that hold what a table needs."""

import json

import pytest

import tubelet
from benchmarks import results, table_a
from tests.tiny import tiny
from tubelet.data.scenes import LABELS, MEAN, STD
from tubelet.errors import SelectionError
from tubelet.models.config import Preprocessing


@pytest.fixture(scope="module")
def model():
    model = tiny(size=64, patch_size=8, num_classes=12, depth=3, dim=24)
    model.config.preprocessing = Preprocessing(16, 1, 64, MEAN, STD, "dense")
    model.config.id2label = dict(enumerate(LABELS))
    return model


def test_a_level_costs_the_same_whatever_selects(model):
    specs, left_out = table_a.level(model, 0.5, [0, 7])
    assert not left_out
    assert [spec.partition(":")[0] for spec in specs] == [
        "sta", "random", "random", "uniform", "attention", "merge", "rlt", "random", "tldr",
    ]  # fmt: skip
    target = table_a.gmacs_of(model, next(iter(specs)))
    for spec, equal in specs.items():
        assert table_a.gmacs_of(model, spec) == pytest.approx(target, rel=0.05)
        if equal == "tokens":
            entering = [tiny_tokens(model, one) for one in (spec, next(iter(specs)))]
            assert entering[0] == entering[1]


def tiny_tokens(model, spec):
    from tubelet.profiling.latency import with_selection

    return with_selection(model, spec).tokens_entering()


def test_nearest_is_the_nearest(model):
    target = table_a.gmacs_of(model, "merge:r=31")
    assert table_a.nearest(model, target * 1.0001, lambda n: f"merge:r={n}", 1, 256) == "merge:r=31"
    with pytest.raises(SelectionError, match="no budget is as cheap"):
        table_a.nearest(model, target / 10, lambda n: f"merge:r={n}", 1, 256)


@pytest.mark.slow
def test_prints_json_with_pairs_and_goes_on_on_resume(model, tmp_path, capsys):
    folder = tubelet.save_model(model, tmp_path / "model")
    words = ["--model", str(folder), "--data", "scenes_table:test", "--clips", "4", "--keep", "0.5", "--seeds", "0"]
    words += ["--runs", "0", "--out", str(tmp_path / "rows")]
    assert table_a.main([*words, "--part", "2,2"]) == 0
    assert len(list((tmp_path / "rows").iterdir())) == 4
    capsys.readouterr()
    assert table_a.main(words) == 0
    found = json.loads(capsys.readouterr().out)
    dense, *others = found["rows"]
    assert dense["select"] == "none" and len(others) == 8
    assert all(row["difference_95"] and row["level"] == 0.5 and abs(row["off"]) < 0.05 for row in others)
    assert all(row["videos"] == 4 and 0 <= row["recall"] <= 1 for row in others)
    assert found["rlt_threshold"]["tau"] == 0.1 and 0 < found["rlt_threshold"]["kept"] <= 1


def test_the_queue_says_which_data_are_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    monkeypatch.delenv("TUBELET_DATA", raising=False)
    assert results.state("table_a_jhmdb") == (
        "NOT RUN: it needs the data set jhmdb: set TUBELET_DATA to the folder that holds it"
    )
    (tmp_path / "jhmdb").mkdir()
    monkeypatch.setenv("TUBELET_DATA", str(tmp_path))
    assert results.state("table_a_jhmdb") == "missing"
