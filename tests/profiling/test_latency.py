"""What a measurement holds and how it is done; never how long something takes."""

import json

import pytest
import torch
from torch import nn

from tests.tiny import moving, tiny
from tubelet.errors import TubeletError
from tubelet.profiling import bench, choosing_share, flops_table, latency, remarks
from tubelet.profiling.latency import interleaved, peak_memory, percentile, using_threads, with_selection

FIELDS = {"model", "select", "gmacs", "ratio", "params_m", "tokens"}
FIELDS |= {"ms_median", "ms_p95", "speedup", "efficiency", "peak_mb", "device", "threads", "batch", "dtype"}


def test_rows():
    model = tiny(select="sta:r=2")
    done = []
    rows = bench(model, ["sta:r=3", "merge:r=9"], batch=2, runs=3, progress=lambda *steps: done.append(steps))
    assert [row["select"] for row in rows] == ["none", "sta:r=3", "merge:r=9"]
    for row, counted in zip(rows, flops_table(model, ["sta:r=3", "merge:r=9"]), strict=True):
        assert set(row) >= FIELDS and counted.items() <= row.items()
        assert row["efficiency"] == pytest.approx(row["speedup"] / row["ratio"])
        assert 0 < row["ms_median"] <= row["ms_p95"] and row["peak_mb"] > row["params_m"] * 4
        assert (row["device"], row["threads"], row["batch"], row["dtype"]) == ("cpu", 1, 2, "float32")
    assert rows[0]["speedup"] == rows[0]["efficiency"] == 1.0
    assert rows[0]["choosing"] == 0 < rows[1]["choosing"] < 1
    assert done == [(i, 4) for i in range(5)]
    assert model.plan.spec == "sta:r=2"  # left as it is
    json.dumps(rows)


def test_speedup_is_the_median_of_paired_ratios(monkeypatch):
    """A machine that is slow in one round is slow for all: the ratio within a round tells."""
    measured = iter([9.0, 9.0, 2.0, 1.0, 30.0, 10.0, 3.0, 2.0])  # warm-up, then three rounds of two
    monkeypatch.setattr(latency, "timed", lambda one, device: next(measured))
    dense, pruned = bench(tiny(), ["sta:r=3"], runs=3)
    assert (dense["ms_median"], pruned["ms_median"]) == (3000, 2000)
    assert (dense["ms_p95"], pruned["ms_p95"]) == (30000, 10000)
    assert pruned["speedup"] == 2.0


def test_runs_are_interleaved():
    order = []
    seconds = interleaved([lambda: order.append("a"), lambda: order.append("b")], runs=3, warmup=2)
    assert order == ["a", "b"] * 5
    assert [len(times) for times in seconds] == [3, 3]


def test_other_types_and_sizes():
    model = tiny()
    rows = bench(model, ["random:keep=0.5@2"], dtype="bfloat16", frames=8, size=(16, 24), runs=1)
    assert rows[0]["dtype"] == "bfloat16" and rows[0]["tokens"] == [24] * 6
    assert next(model.parameters()).dtype == torch.float32
    assert bench("videomae_small", frames=2, size=16, classes=3, runs=1)[0]["tokens"] == [1] * 12


@pytest.mark.slow
def test_compiled():
    rows = bench(tiny(depth=3), ["sta:r=3"], frames=16, size=24, runs=1, compile=True)
    assert rows[1]["compile"] and rows[1]["choosing"] is None
    assert isinstance(remarks(rows), list)


def test_refusals():
    with pytest.raises(TubeletError, match=r"dtype='int8'.*float32"):
        bench(tiny(), dtype="int8")
    with pytest.raises(TubeletError, match="device='abacus'"):
        bench(tiny(), device="abacus")
    if not torch.cuda.is_available():
        with pytest.raises(TubeletError, match="no GPU"):
            bench(tiny(), device="cuda")


def test_threads_are_set_and_given_back():
    before = torch.get_num_threads()
    with pytest.raises(KeyError), using_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise KeyError
    assert torch.get_num_threads() == before


def test_percentile():
    values = [3.0, 1.0, 2.0]
    assert percentile(values, 0.95) == 3.0 and percentile(values, 0.5) == 2.0
    assert percentile(range(1, 101), 0.95) == 95


def test_peak_memory_is_that_of_the_tensors():
    class Steps(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(10))

        def forward(self, x):
            y = x + 1  # two of three at a time, and the clip
            z = y * 2
            del y
            return z - 1

    with torch.inference_mode():
        peak = peak_memory(Steps(), torch.zeros(500, 500))
    assert 40 <= peak - 3 * 500 * 500 * 4 <= 100  # the numbers 1 and 2 are tensors for a moment


def test_pruning_holds_less_memory():
    model = tiny(frames=64)
    dense, pruned = bench(model, ["uniform:keep=0.1@0"], runs=1)
    assert pruned["peak_mb"] < dense["peak_mb"]


def test_a_copy_with_a_selection_shares_the_weights():
    model = tiny()
    other = with_selection(model, "sta:r=3")
    assert model.plan.spec == "none" and other.plan.spec == "sta:r=3"
    assert all(a is b for a, b in zip(model.parameters(), other.parameters(), strict=True))
    assert other.pos_embed is model.pos_embed


def test_choosing_share():
    model = tiny(select="sta:r=3")
    share = choosing_share(model, moving(1, model), runs=1)
    assert 0 < share["choose"] < 1 and 0 < share["apply"] < 1 and share["seconds"] > 0
    dense = choosing_share(tiny(), moving(1, model), runs=1)
    assert dense["choose"] == dense["apply"] == 0


def row(select="sta:r=3", *, speedup, ratio=1.5, tokens=(8, 4), choosing=0.01, device="cpu"):
    found = {
        "select": select,
        "speedup": speedup,
        "ratio": ratio,
        "efficiency": speedup / ratio,
        "tokens": list(tokens),
    }
    return {**found, "choosing": choosing, "device": device, "batch": 1}


@pytest.mark.parametrize(
    ("measured", "words"),
    [
        (row(speedup=1.6), None),
        (row(speedup=1.44), None),
        (row(speedup=1.3), "sta:r=3 pays less than it saves: 1.30 x faster, with 1.50 x fewer multiply-adds. What is"),
        (row(speedup=1.01), "does not pay here: it takes as long as the dense model"),
        (row(speedup=0.8), "does not pay here: it takes 1.25 x the dense model's time"),
        (row(speedup=0.8, choosing=0.2), "Choosing tokens takes 20 % of its time: too much for the 8 tokens"),
        (row(speedup=0.9, ratio=1.05), "It drops so few tokens"),
        (row(speedup=1.0, device="cuda"), "A GPU is not filled by 1 clip"),
        (row(speedup=0.7, choosing=None), "does not shrink with the tokens"),
        (row("sta:r=0", speedup=1.0, ratio=1.0, tokens=(8, 8)), "drops no token here: it is the dense model"),
        (row("none", speedup=1.0, ratio=1.0, tokens=(8, 8)), None),
    ],
)
def test_remarks(measured, words):
    said = remarks([row("none", speedup=1.0, ratio=1.0, tokens=(8, 8)), measured])
    if words is None:
        assert said == []
    else:
        assert len(said) == 1 and words in said[0]
