"""Remake the numbers in results/: one queue. What is there is not run again; delete a file to have it remade.

    python -m benchmarks.results            # all that is missing (make results)
    python -m benchmarks.results --list     # what there is, and what is missing
    python -m benchmarks.results NAME...    # these alone

Each entry is a command that prints JSON. The queue writes it to results/NAME.json as "result", with the command, the
commit, the machine, the date and the seed. An entry that fails or is interrupted leaves nothing; the others still run.
An entry that needs a trained model says with which command to train it (hours of a core in all); the log of that
training is kept in results/logs. Timings are worth something on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"


@dataclass(frozen=True)
class Entry:
    command: str  # after `python -m`; gets --seed
    seed: int = 0
    gpu: bool = False  # cannot run without one
    data: str = ""  # a folder of $TUBELET_DATA that it needs
    needs: tuple[str, ...] = ()  # folders of trained models, each of the training that `TRAININGS` names


MVIT = "--model mvit_base_16x4 --select stts:T5@0-S13@4 --select stts:T3@0-S11@4"
VIDEOMAE = "--model videomae_base --select sta:r=48 --select sta:r=64"
VIDEOSWIN = "--model videoswin_base --threads 1"
SWIN_BOXES = "--select stts:T8@0 --select stts:T10@0 --select stts:T14@0"  # 10 and 14 with padded windows
# Sets of tokens with fill-up, in the third stage: STA's schedule, and one step before it. At which share does it pay?
SWIN_SETS = " ".join(f"--select sta:keep={k} --select random:keep={k}@4" for k in (0.9, 0.7, 0.5, 0.3))
# On 8 frames of 8 x 8 tokens, without training: fewer frames, a region of each, both; or as many tokens of each frame
# by STA's schedule. There is no attention to read before block 1.
BOXES = ("T0.5@1", "T0.25@1", "S0.5@1", "S0.25@1", "T0.5@1-S0.5@1")
XVIT_SELECTS = [f"{name}:{box}" for box in BOXES for name in ("uniform", "random", "attention")]
XVIT_SELECTS += [
    f"{name}:r={r},groups=8/8/8" for r in (7, 11, 15) for name in ("sta", "uniform", "random", "attention")
]
# Models that entries need: the folder -> the training that makes it.
XVITS = {
    "runs/scenes_xvit": "configs/scenes_xvit.yaml --out runs/scenes_xvit",
    "runs/scenes_xvit_none": "configs/scenes_xvit.yaml --out runs/scenes_xvit_none --model.mixing none",
    "runs/scenes_xvit_average": "configs/scenes_xvit.yaml --out runs/scenes_xvit_average --model.pool average",
}
STTS = {
    "runs/scenes_mvit": "configs/scenes_mvit.yaml --out runs/scenes_mvit",
    "runs/scenes_stts": "configs/scenes_stts.yaml --out runs/scenes_stts",
    "runs/scenes_stts_random": (
        "configs/scenes_stts.yaml --out runs/scenes_stts_random --model.select random:T0.5@0-S0.5@1"
    ),
    "runs/scenes_stts_uniform": (
        "configs/scenes_stts.yaml --out runs/scenes_stts_uniform --model.select uniform:T0.5@0-S0.5@1"
    ),
}
DRAWS = " ".join(f"--select random:T0.5@0-S0.5@1,seed={seed}" for seed in range(1, 6))  # one is one for all clips
EVAD_START = {  # the dense detector, and its second run from the end of the first
    "runs/evad_jhmdb": "configs/evad_jhmdb.yaml --out runs/evad_jhmdb --data.zoom null",
    "runs/evad_jhmdb_more": (
        "configs/evad_jhmdb.yaml --out runs/evad_jhmdb_more --model.weights runs/evad_jhmdb/ema --epochs 14 "
        "--evaluate_every 2"
    ),
}
EVADS = {  # all go on from the same weights
    folder: f"configs/evad_jhmdb.yaml --out {folder} --model.weights runs/evad_jhmdb_more/best --select_until {{}} "
    f"--model.select {select} --epochs 3 --optimizer.lr 5.0e-5 --evaluate_every 1"
    for folder, select in (
        ("runs/evad_jhmdb_dense", "none"),
        ("runs/evad_jhmdb_keep7", "keyframe:keep=0.7@2,3,4"),
        ("runs/evad_jhmdb_keep6", "keyframe:keep=0.6@2,3,4,weight=4"),
        ("runs/evad_jhmdb_random7", "random:keep=0.7@2,3,4"),
    )
}
JHMDB = {  # the packaged classifier trained on, and one that begins with nothing
    "runs/jhmdb_classifier": "configs/jhmdb_classifier.yaml --out runs/jhmdb_classifier",
    "runs/jhmdb_classifier_scratch": (
        "configs/jhmdb_classifier.yaml --out runs/jhmdb_classifier_scratch --model.name videomae_small "
        "--model.size 112 --model.dim 192 --model.depth 6 --model.heads 3 --model.weights null --epochs 60 "
        "--optimizer.lr 5e-4 --schedule.warmup 4 "
        """--select_until '{0.5: "random:keep=0.25@0", 0.8: "random:keep=0.5@0"}'"""
    ),
}
TRAININGS = XVITS | STTS | EVAD_START | EVADS | JHMDB


def models(trainings: dict[str, str]) -> str:
    return " ".join(f"--model {folder}" for folder in trainings)


ENTRIES = {
    "flops_videomae": Entry("benchmarks.flops_videomae"),
    "flops_stts": Entry("benchmarks.flops_stts"),
    "flops_evad": Entry("benchmarks.flops_evad"),
    "flops_xvit": Entry("benchmarks.flops_xvit"),
    "demo": Entry("benchmarks.demo"),
    "topk_memory": Entry("benchmarks.topk_memory"),
    "timing_videomae_base": Entry(f"benchmarks.timing {VIDEOMAE} --threads 1,2 --runs 9 --peers"),
    "timing_mvit_base": Entry(f"benchmarks.timing {MVIT} --threads 1,2 --runs 9 --peers"),
    "timing_evad": Entry("benchmarks.timing_evad --runs 7"),
    "timing_xvit": Entry("benchmarks.timing_xvit --rounds 9"),
    "timing_videoswin_base": Entry(f"benchmarks.timing {VIDEOSWIN} {SWIN_BOXES} --runs 7 --peers"),
    "timing_videoswin_sets": Entry(f"benchmarks.timing {VIDEOSWIN} {SWIN_SETS} --runs 5"),
    "timing_videomae_base_gpu": Entry(
        f"benchmarks.timing {VIDEOMAE} --device cuda --batch 1,32 --dtype float32,bfloat16 --compile no,yes --runs 30",
        gpu=True,
    ),
    "throughput": Entry("benchmarks.throughput configs/smoke.yaml configs/scenes_vit.yaml --set threads=1"),
    "scenes_vit": Entry(
        "benchmarks.judged --model videomae_tiny_scenes --clips 2400 "
        "--data scenes_easy:test,scenes:test,scenes_hard:test,scenes_table:test"
    ),
    "scenes_xvit": Entry(  # what mixing is worth, and the temporal transformer
        f"benchmarks.judged {models(XVITS)} --data scenes_easy:test --clips 4800",
        needs=tuple(XVITS),
    ),
    "scenes_xvit_selection": Entry(
        "benchmarks.judged --model runs/scenes_xvit --data scenes_easy:test --clips 2400 "
        "--curve runs/scenes_xvit_selection " + " ".join(f"--select {spec}" for spec in XVIT_SELECTS),
        needs=("runs/scenes_xvit",),
    ),
    "scenes_stts_draws": Entry(
        f"benchmarks.judged --model runs/scenes_stts_random {DRAWS} --data scenes:test --clips 2400",
        needs=("runs/scenes_stts_random",),
    ),
    "scenes_stts": Entry(  # what the dense model loses to a learned choice, to one at random, and to evenly spaced ones
        f"benchmarks.judged {models(STTS)} --data scenes:test --clips 4800",
        needs=tuple(STTS),
    ),
    "table_a_scenes": Entry(
        "benchmarks.table_a --model videomae_tiny_scenes --data scenes_table:test --clips 10000 --keep 0.5 "
        "--out runs/table_a_scenes"
    ),
    "table_a_scenes_low": Entry(  # down to the budgets where little is left to choose
        "benchmarks.table_a --model videomae_tiny_scenes --data scenes_table:test --clips 2400 --keep 0.25,0.1 "
        "--out runs/table_a_scenes_low"
    ),
    "jhmdb_classifier_val": Entry(  # whether the packaged classifier is to be replaced
        "benchmarks.judged --model videomae_tiny_jhmdb --model runs/jhmdb_classifier/best "
        "--model runs/jhmdb_classifier_scratch/best --data jhmdb:split1_val --views 1x3",
        data="jhmdb",
        needs=tuple(JHMDB),
    ),
    "table_a_jhmdb": Entry(
        "benchmarks.table_a --model videomae_tiny_jhmdb --data jhmdb:split1_test --truth box --keep 0.5 "
        "--out runs/table_a_jhmdb",
        data="jhmdb",
    ),
    "evad_tiny_jhmdb": Entry(  # the packaged detector, in the half precision it is packaged in
        "benchmarks.table_evad --model evad_tiny_jhmdb --data jhmdb:split1_test --every 4",
        data="jhmdb",
    ),
    "table_evad_jhmdb": Entry(
        f"benchmarks.table_evad {models(EVADS)} --data jhmdb:split1_test --every 4 --out runs/table_evad_jhmdb",
        data="jhmdb",
        needs=tuple(EVADS),
    ),
}


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.results", description=__doc__.split("\n", 1)[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ENTRIES)}; none: all")
    parser.add_argument("--list", action="store_true", help="only say what is done and what is missing")
    args = parser.parse_args(words)
    if unknown := [n for n in args.names if n not in ENTRIES]:
        parser.error(f"no entry {unknown[0]!r}; there are {', '.join(ENTRIES)}")
    states = {}
    for name in args.names or ENTRIES:
        states[name] = state(name)
        if states[name] == "missing" and not args.list:
            print(f"{name}: running", flush=True)
            states[name] = "made" if make(name) else "failed"
        print(f"{name}: {states[name]}", flush=True)
    return 1 if "failed" in states.values() else 0


def state(name: str) -> str:
    if (RESULTS / f"{name}.json").exists():
        return "done"
    if ENTRIES[name].gpu and not torch.cuda.is_available():
        return "NOT RUN: it needs a GPU, and torch finds none here"
    if (data := ENTRIES[name].data) and not (Path(os.environ.get("TUBELET_DATA", "")) / data).is_dir():
        return f"NOT RUN: it needs the data set {data}: set TUBELET_DATA to the folder that holds it"
    for folder in ENTRIES[name].needs:
        if not (ROOT / folder / "model.safetensors").is_file():  # a training writes it at its end
            return f"NOT RUN: it needs {folder}, which `tubelet train {TRAININGS[folder]}` makes"
    return "missing"


def make(name: str) -> bool:
    """Run one entry. Its progress goes to standard error; False if it ended badly or printed no JSON."""
    entry = ENTRIES[name]
    words = ["-m", *shlex.split(entry.command), "--seed", str(entry.seed)]
    started = datetime.now(timezone.utc)
    done = subprocess.run([sys.executable, *words], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        print(f"{name}: exit status {done.returncode}", file=sys.stderr)
        return False
    try:
        result = json.loads(done.stdout)
    except json.JSONDecodeError as error:
        print(f"{name}: no JSON: {error}", file=sys.stderr)
        return False
    record = {
        "command": shlex.join(["python", *words]),
        "commit": commit(),
        "machine": machine(),
        "date": started.isoformat(timespec="seconds"),
        "seed": entry.seed,
        "result": result,
    }
    RESULTS.mkdir(exist_ok=True)
    part = RESULTS / f".{name}.part"
    part.write_text(json.dumps(record, indent=1) + "\n")
    os.replace(part, RESULTS / f"{name}.json")  # whole or not at all
    for folder in entry.needs:
        keep_log(ROOT / folder)
    return True


def keep_log(folder: Path) -> None:
    """Every line of a training that a result stands on, since runs/ is not kept."""
    (RESULTS / "logs").mkdir(exist_ok=True)
    shutil.copy(folder / "log.jsonl", RESULTS / "logs" / f"{folder.name}.jsonl")


def commit() -> str | None:
    """The commit that is checked out, with "-dirty" if tracked files but results differ from it; None without git."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("diff", "--name-only", "HEAD", "--", ".", f":!{RESULTS.name}")
        return git("rev-parse", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def machine() -> dict[str, Any]:
    """What a timing depends on."""
    processor = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), processor)
    return {
        "cpu": processor,
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    sys.exit(main())
