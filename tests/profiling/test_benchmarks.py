"""The scripts of benchmarks/: what they print, and that the queue of results goes on where it stopped."""

import argparse
import json
import subprocess
import sys

import pytest
import torch

from benchmarks import judged, peers, results, timing
from tests.project import ROOT
from tests.tiny import SIZES, tiny
from tubelet import save_model
from tubelet.data.scenes import LABELS, MEAN, STD
from tubelet.errors import TubeletError
from tubelet.models.config import Preprocessing
from tubelet.models.registry import set_selection


def test_peers():
    found = peers.compare("videomae_small", **SIZES)
    assert found["model"] == "videomae_small" and found["pairs"] == 7 and found["threads"] == 1
    assert found["peer"].startswith("transformers ") and found["peer"].endswith("VideoMAE, sdpa")
    assert found["ratio"] > 0 and found["seconds"] > 0 and found["peer_seconds"] > 0
    with pytest.raises(TubeletError, match="no peer for 'resnet'"):
        peers.compare("resnet")


def test_the_peer_is_of_the_same_size():
    model = peers.create_model("videomae_small", **SIZES)
    _, peer, layout = peers.transformers_videomae(model)
    ours = sum(p.numel() for p in model.parameters())
    assert sum(p.numel() for p in peer.parameters()) == ours
    assert peer.config._attn_implementation == "sdpa"
    assert peer(layout(torch.zeros(1, 3, 16, 32, 32))).logits.shape == (1, 7)


def test_peers_prints_json(monkeypatch, capsys):
    monkeypatch.setattr(peers, "compare", lambda name, **_: {"model": name, "peer": "other", "ratio": 1.0})
    assert peers.main(["--model", "videomae_base", "--model", "videomae_large", "--json"]) == 0
    assert [row["model"] for row in json.loads(capsys.readouterr().out)] == ["videomae_base", "videomae_large"]


def test_peers_is_a_script():
    done = subprocess.run(
        [sys.executable, "benchmarks/peers.py", "--model", "resnet"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2 and "no peer for 'resnet'" in done.stderr and not done.stdout


def test_timing():
    args = argparse.Namespace(
        model="videomae_small", select=["sta:r=3"], threads=[1], batch=[1, 2], dtype=["float32", "bfloat16"],
        compile=["no"], device="cpu", runs=1, peers=True, seed=0,
    )  # fmt: skip
    found = timing.measure(args, **SIZES)
    assert [(row["batch"], row["dtype"], row["select"]) for row in found["rows"]] == [
        (batch, dtype, select)
        for batch in (1, 2)
        for dtype in ("float32", "bfloat16")
        for select in ("none", "sta:r=3")
    ]
    assert found["choosing"][0]["select"] == "sta:r=3" and 0 < found["choosing"][0]["choose"] < 1
    (same,) = found["same_tokens"]
    assert same["dtype"] == "bfloat16" and len(same["shares"]) == 3 and all(0 < share <= 1 for share in same["shares"])
    assert found["peers"][0]["ratio"] > 0
    json.dumps(found)


def test_float32_keeps_the_tokens_of_float32():
    model = timing.create_model("videomae_small", **SIZES)
    same = timing.same_tokens(model, torch.randn(1, 3, 16, 32, 32), "sta:r=3", "float32")
    assert same["same"] and same["shares"] == [1.0, 1.0, 1.0]


def test_timing_says_when_there_is_no_gpu(capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    words = ["--model", "videomae_small", "--device", "cuda"]
    assert timing.main(words) == 2
    assert "no GPU" in capsys.readouterr().err


@pytest.fixture
def queue(tmp_path, monkeypatch):
    """A queue of two entries whose commands count how often they run."""
    (tmp_path / "ok.py").write_text(
        "import sys; open('runs', 'a').write('.'); print('{\"seed\": %s}' % sys.argv[sys.argv.index('--seed') + 1])"
    )
    (tmp_path / "bad.py").write_text("print('{}'); raise SystemExit(3)")
    (tmp_path / "mute.py").write_text("")
    monkeypatch.setattr(results, "ROOT", tmp_path)
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(results, "ENTRIES", {"first": results.Entry("ok", seed=5), "second": results.Entry("ok")})
    return tmp_path


def test_queue_writes_what_a_result_needs(queue):
    assert results.main([]) == 0
    record = json.loads((queue / "results" / "first.json").read_text())
    assert set(record) == {"command", "commit", "machine", "date", "seed", "result"}
    assert record["command"] == "python -m ok --seed 5" and record["seed"] == 5 and record["result"] == {"seed": 5}
    assert record["machine"]["torch"] == torch.__version__ and record["machine"]["cores"] > 0
    assert sorted(f.name for f in (queue / "results").iterdir()) == ["first.json", "second.json"]


def test_queue_resumes(queue, capsys):
    assert results.main(["first"]) == 0
    assert results.main([]) == 0
    assert (queue / "runs").read_text() == ".."  # each once
    assert "first: done" in capsys.readouterr().out
    assert results.main(["--list"]) == 0
    assert (queue / "runs").read_text() == ".."


@pytest.mark.parametrize("command", ["bad", "mute", "absent"])
def test_an_entry_that_fails_leaves_nothing_and_the_others_run(queue, monkeypatch, capsys, command):
    entries = {"broken": results.Entry(command), "second": results.Entry("ok")}
    monkeypatch.setattr(results, "ENTRIES", entries)
    assert results.main([]) == 1
    assert "broken: failed" in capsys.readouterr().out
    assert [f.name for f in (queue / "results").iterdir()] == ["second.json"]


def test_an_entry_for_a_gpu_is_named_where_there_is_none(queue, monkeypatch, capsys):
    monkeypatch.setattr(results, "ENTRIES", {"fast": results.Entry("ok", gpu=True)})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert results.main([]) == 0
    assert "fast: NOT RUN: it needs a GPU" in capsys.readouterr().out


def test_an_entry_names_the_training_of_a_model_that_is_not_there(queue, monkeypatch, capsys):
    monkeypatch.setattr(results, "ENTRIES", {"judged": results.Entry("ok", needs=("made/one",))})
    monkeypatch.setattr(results, "TRAININGS", {"made/one": "one.yaml --out made/one"})
    (queue / "runs_of_others").mkdir()
    assert results.main([]) == 0
    said = "judged: NOT RUN: it needs made/one, which `tubelet train one.yaml --out made/one` makes"
    assert said in capsys.readouterr().out
    (queue / "made" / "one").mkdir(parents=True)  # begun, not ended
    assert results.main([]) == 0 and said in capsys.readouterr().out
    (queue / "made" / "one" / "model.safetensors").touch()
    (queue / "made" / "one" / "log.jsonl").write_text("every line\n")
    assert results.main([]) == 0
    assert (queue / "results" / "logs" / "one.jsonl").read_text() == "every line\n"  # runs/ is not kept


def scenes_xvit(**arguments):
    """As configs/scenes_xvit.yaml has it, with fewer channels."""
    sizes = {"size": 64, "patch_size": 8, "dim": 16, "depth": 4, "heads": 4, "mixing_div": 4, "num_classes": 12}
    model = tiny("xvit", **sizes, **arguments)
    model.config.preprocessing = Preprocessing(8, 1, 64, MEAN, STD, "dense")
    model.config.id2label = dict(enumerate(LABELS))
    return model


def test_selections_of_the_entries_fit_the_model():
    model = scenes_xvit()
    for spec in results.XVIT_SELECTS:
        set_selection(model, spec)
        assert model.tokens_entering()[-1] < 8 * 65, spec


def test_judged_pairs_models_on_the_same_clips(tmp_path, capsys):
    names = [str(save_model(scenes_xvit(mixing=m), tmp_path / m)) for m in ("over_heads", "none")]
    words = [word for name in names for word in ("--model", name)]
    words += ["--data", "scenes:test", "--clips", "13", "--select", "uniform:T0.5@1", "--curve", str(tmp_path / "c")]
    assert judged.main(words) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["model"], row["select"]) for row in rows] == [(n, s) for n in names for s in ("none", words[-3])]
    assert all(row["videos"] == 13 for row in rows) and rows[0]["difference"] is None
    for row in rows[1:]:
        assert row["difference"] == pytest.approx(row["top1"] - rows[0]["top1"])
        assert row["only_this"] - row["only_first"] == round(13 * row["difference"])
    for dense, half in (rows[:2], rows[2:]):
        assert dense["recall"] is None and half["kept"] == half["random_recall"] == 0.5
        assert 0 < half["precision"] < 1 and half["gmacs"] < dense["gmacs"]
    assert (tmp_path / "c" / "scenes_test" / "report.csv").exists()
    assert judged.main(["--model", str(tmp_path / "absent"), "--data", "scenes:test"]) == 2


def test_entries_are_commands_that_exist(capsys):
    for name, entry in results.ENTRIES.items():
        module, *words = entry.command.split()
        assert (ROOT / (module.replace(".", "/") + ".py")).exists(), name
        if module == "benchmarks.timing":
            timing.parser().parse_args([*words, "--seed", "0"])
        if module == "benchmarks.judged":
            judged.parser().parse_args([*words, "--seed", "0"])
        assert set(entry.needs) <= set(results.TRAININGS), name
