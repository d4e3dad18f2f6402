"""What results/ says of STTS: the counts against the released code's, the memory, and the figures that docs quote."""

import json
import re
import shlex

import pytest
import torch

from benchmarks import flops_stts, topk_memory
from tests.project import ROOT
from tubelet.cli.app import COMMANDS, parser_of
from tubelet.models.registry import create_model, set_selection

DOCS = (ROOT / "docs" / "stts.md").read_text()


def result(name):
    return json.loads((ROOT / "results" / f"{name}.json").read_text())["result"]


def test_padding_is_counted_as_the_released_code_computes_it(monkeypatch):
    """Two slots too few for their windows; a figure that fits has no other budget named, one that does not has."""
    monkeypatch.setattr(flops_stts, "SWIN_FRAMES", range(13, 17))
    costs = flops_stts.Costs("videoswin_base")
    table = [row for row in flops_stts.SWIN if row[1] in ("none", "stts:T14@0", "stts:T8@0")]
    dense, fewer, half = flops_stts.rows_of(costs, table)
    assert dense["gmacs"] == dense["padded"] and half["gmacs"] == half["padded"]
    assert fewer["gmacs"] < fewer["padded"] == pytest.approx(261.5, rel=5e-4)
    assert "nearest" not in dense and "nearest" not in half
    assert fewer["nearest"]["select"] == "stts:T13@0"


def test_counts_are_those_of_the_released_code():
    rows = result("flops_stts")
    labels = [(name, *row[:2]) for name, table in flops_stts.MODELS.items() for row in table]
    assert [(row["model"], row["label"], row["select"]) for row in rows] == labels
    assert all(abs(row["difference"]) < 5e-4 and row["gmacs"] <= row["padded"] for row in rows)


def test_memory_is_that_recorded():
    found = topk_memory.measure()
    assert found == result("topk_memory") and min(row["factor"] for row in found) > 1


def test_docs_quote_the_table():
    """One line a row: paper, released, with padding, ours."""
    for row in result("flops_stts"):
        paper = "-" if row["paper"] is None else f"{row['paper']:.1f}"
        released = "-" if row["released"] is None else row["released"]
        costs = f"{paper} | {released} | {row['padded']:.2f} | {row['gmacs']:.2f} |"
        line = f"| {row['label']} | `{row['select']}` | {costs}"
        assert line in DOCS, line
        if "nearest" in row:
            near = row["nearest"]
            off = f", {abs(near['off']):.0%} off".replace("%", " %") if abs(near["off"]) > flops_stts.OFF else ""
            assert f"{line} `{near['select']}`: {near['padded']:.2f}{off} |" in DOCS, row["label"]
    for row in result("topk_memory"):
        sizes = " | ".join(f"{row[key] / 2**10:.1f}" for key in ("held", "held_full", "one_hot"))
        assert f"| {row['step']} | {sizes} |" in DOCS


def test_specs_and_commands_shown_are_read():
    lines = re.findall(r"^tubelet (.+)$", DOCS, flags=re.MULTILINE)
    assert {line.split()[0] for line in lines} >= {"selectors", "flops", "visualize", "train", "convert"}
    for line in lines:
        command, *words = shlex.split(line)
        assert command in COMMANDS
        parser = parser_of(command)
        parser.parse_known_args(words) if command == "train" else parser.parse_args(words)  # keys of the config
        for file in (word for word in words if word.startswith("configs/")):
            assert (ROOT / file).exists()
    with torch.device("meta"):
        models = {name: create_model(name) for name in ("mvit_base_16x4", "videoswin_base")}
    specs = re.findall(r"^\| `([a-z]+:[^`]+)` \| (MViT|VideoSwin) \|", DOCS, flags=re.MULTILINE)
    assert len(specs) > 8
    for spec, model in specs:
        set_selection(models["mvit_base_16x4" if model == "MViT" else "videoswin_base"], spec)


def test_docs_quote_what_was_learnt_and_timed():
    rows = dense, learned, by_chance, evenly = result("scenes_stts")
    for row in rows:
        low, high = row["difference_95"] or (None, None)
        difference = "" if low is None else f"{row['difference'] * 100:+.1f} ({low * 100:+.1f} to {high * 100:+.1f})"
        recall = "" if row["recall"] is None else f"{row['recall'] * 100:.1f}"
        line = f"| `{row['select']}` | {row['top1'] * 100:.1f} | {difference} | {recall} | {row['gmacs']:.3f} |"
        assert line in DOCS, line
    assert learned["difference"] > by_chance["difference"] / 2  # at most half of what random loses
    assert learned["difference_95"][0] > by_chance["difference_95"][1]  # their intervals are apart
    assert learned["recall"] > 1.5 * by_chance["recall"]  # of that draw; the mean of several is told apart
    draws = result("scenes_stts_draws")
    for key in ("top1", "recall"):
        shares = [100 * row[key] for row in draws]
        assert f"{min(shares):.1f} to {max(shares):.1f} %, {sum(shares) / len(shares):.1f}" in DOCS
    assert evenly["difference_95"][0] > learned["difference_95"][1] and "and not `uniform`" in DOCS
    for name in ("timing_mvit_base", "timing_videoswin_base"):
        times = result(name)
        for row in (row for row in times["rows"] if row["threads"] == 1):
            figures = f"{row['ms_median']:.0f} | {row['speedup']:.2f} | {row['efficiency']:.2f}"
            assert f"| {row['model']} | `{row['select']}` | {figures} |" in DOCS
        peer = next(row for row in times["peers"] if row["threads"] == 1)
        assert f"{peer['ratio']:.2f} of torchvision's" in DOCS
