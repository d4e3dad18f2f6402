"""What a new user gets wrong: one sentence that says what is right, status 2, no traceback."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tubelet


@pytest.fixture
def folder(tmp_path: Path, model: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files of every kind that is no video, and one that is; the commands run here."""
    shutil.copy(clip, tmp_path / "clip.mp4")
    (tmp_path / "model").symlink_to(model)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video\n")
    (tmp_path / "cut.mp4").write_bytes(clip.read_bytes()[:100])
    (tmp_path / "novideos").mkdir()
    (tmp_path / "novideos" / "notes.txt").write_text("hello\n")
    (tmp_path / "two.txt").write_text("a\nb\n")
    (tmp_path / "notes.pth").write_text("not weights\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


CASES = {  # the words of the command line: what the sentence must name
    "frobnicate": "no command 'frobnicate'; there are classify",
    "clasify clip.mp4": "did you mean 'classify'",
    "--frobnicate": "--frobnicate",
    "classify": "VIDEO",
    "classify clip.mp4 --model model --frobnicate": "--frobnicate",
    "classify missing.mp4 --model model": "missing.mp4",
    "classify novideos --model model": "novideos",
    "classify empty.mp4 --model model": "empty.mp4",
    "classify text.mp4 --model model": "text.mp4",
    "classify cut.mp4 --model model": "cut.mp4",
    "classify two.txt --model model": "two.txt",
    "classify empty.mp4 text.mp4 missing.mp4 --model model": "empty.mp4",
    "classify clip.mp4 --model nothing": "'nothing'",
    "classify clip.mp4 --model nobody/nothing": "nobody/nothing",
    "classify clip.mp4 --model notes.pth": "notes.pth",
    "classify clip.mp4 --model novideos": "novideos",
    "classify clip.mp4 --model videomae_base": "videomae_base is an architecture",
    "classify clip.mp4 --model model --select": "--select",
    "classify clip.mp4 --model model --select nonsense": "no selector 'nonsense'; there are none, sta",
    "classify clip.mp4 --model model --select sta": "sta needs a budget",
    "classify clip.mp4 --model model --select sta:q=3": "'q=3'",
    "classify clip.mp4 --model model --select sta:T5": "sta does not take T5",
    "classify clip.mp4 --model model --select sta:r=500": "r=500 is too large",
    "classify clip.mp4 --model model --select sta:r=1,groups=16/4/2": "groups=16/4/2 would cut across frames",
    "classify clip.mp4 --model model --select random:keep=0.5@40": "block 40 does not exist",
    "classify clip.mp4 --model model --select attention:keep=0.5@0": "before block 0",
    "classify clip.mp4 --model model --labels two.txt": "names 2 classes, the model has 7",
    "classify clip.mp4 --model model --labels missing.txt": "missing.txt",
    "classify clip.mp4 --model model --labels empty.mp4": "names no class",
    "classify clip.mp4 --model model --labels clip.mp4": "clip.mp4",
    "classify clip.mp4 --model model --views 5": "'5' is not CLIPSxCROPS",
    "classify clip.mp4 --model model --views 0x1": "'0x1' is not CLIPSxCROPS",
    "classify clip.mp4 --model model --views 1x2": "crops must be 1 or 3",
    "classify clip.mp4 --model model --views 5x2": "crops must be 1 or 3, got '5x2'",
    "classify clip.mp4 --model model --views 1001x1": "clips must be at most 1000, got '1001x1'",
    "classify clip.mp4 text.mp4 --model model --views 1x2": "argument --views: crops",  # once, not for each video
    "classify clip.mp4 --model model --topk 0": "'0' is not a whole number",
    "classify clip.mp4 --model model --device tpu": "'tpu'",
    "classify clip.mp4 --model model --device cuda:77": "use cpu",
    "classify clip.mp4 --model model --threads -1": "--threads",
    "classify clip.mp4 --model model --threads 100000": "'100000' is not a whole number from 1 to 1024",
    "bench --model model --threads 100000": "from 1 to 1024",
    "visualize missing.mp4 --model model --select sta:r=1 --out kept.png": "missing.mp4",
    "visualize text.mp4 --model model --select sta:r=1 --out kept.png": "text.mp4",
    "visualize clip.mp4 --model model --select none --out kept.png": "drops no token",
    "visualize clip.mp4 --model model --select sta:r=0 --out kept.png": "drops no token",
    "visualize clip.mp4 --model model --out kept.png": "drops no token",
    "visualize clip.mp4 --model model --select sta:r=500 --out kept.png": "r=500 is too large",
    "visualize clip.mp4 --model model --select sta:r=1 --out kept.jpg": "kept.jpg",
    "visualize clip.mp4 --model model --select sta:r=1 --out nowhere/kept.png": "no folder nowhere",
    "visualize clip.mp4 --model model --select sta:r=1": "--out",
    "visualize clip.mp4 --model model --select sta:r=1 --out ./clip.mp4": "the video itself",
    "visualize . --model model --select sta:r=1 --out kept.png": "4 videos",
    "flops": "--model",
    "flops --model videomae_bas": "did you mean 'videomae_base'",
    "flops --model videomae_small --select sta:r=500": "r=500 is too large",
    "flops --model videomae_small --size 100": "in multiples of 16",
    "flops --model videomae_small --frames 3": "frames in multiples of 2",
    "flops --model videomae_small --size big": "'big' is not a size",
    "flops --model model --classes 3": "classes",
    "bench --model nothing": "'nothing'",
    "bench --model model --select nonsense": "'nonsense'",
    "bench --model model --device cuda:77": "cuda:77",
    "bench --model model --batch 0": "'0' is not a whole number",
    "convert nothing target": "'nothing'",
    "convert notes.pth target": "notes.pth",
    "convert model novideos": "novideos is not empty",
    "convert model two.txt": "two.txt is a file",
    "convert model target --layout strange": "no layout 'strange'",
    "convert model target --labels two.txt": "names 2 classes",
    "models z*": "no model matches 'z*'",
    "selectors sta": "sta",
}


@pytest.mark.parametrize("words", CASES)
def test_one_sentence_and_status_2(words: str, folder: Path, run):
    done = run(*words.split())
    assert done.status == 2
    assert done.out == ""
    assert CASES[words] in done.err
    lines = done.err.splitlines()
    assert len(lines) == words.count("empty.mp4 text.mp4 missing.mp4") * 2 + 1  # each of several files gets its own
    assert all(line.startswith("tubelet: ") for line in lines)
    assert not (folder / "kept.png").exists() and not (folder / "target").exists()


def test_an_empty_path_is_not_the_current_folder(folder: Path, run):
    for words in (["classify", ""], ["visualize", "", "--select", "sta:r=1", "--out", "kept.png"]):
        done = run(*words, "--model", "model")
        assert done.status == 2 and done.out == "" and done.err.startswith("tubelet: the path is empty")


def test_the_video_is_not_drawn_over_under_another_name(folder: Path, run):
    (folder / "other.mp4").hardlink_to(folder / "clip.mp4")
    content = (folder / "clip.mp4").read_bytes()
    done = run("visualize", "clip.mp4", "--model", "model", "--select", "sta:r=4", "--out", "other.mp4")
    assert done.status == 2 and "other.mp4: it is the video itself" in done.err
    assert (folder / "clip.mp4").read_bytes() == content


def test_a_folder_that_cannot_be_written_to_is_said_before_the_work(folder: Path, run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    monkeypatch.setattr("tubelet.inference.open_model", lambda *_, **__: pytest.fail("the work began"))
    done = run("visualize", "clip.mp4", "--model", "model", "--select", "sta:r=1", "--out", "novideos/kept.png")
    assert done.status == 2 and "cannot draw to novideos/kept.png: no permission" in done.err


def test_a_path_without_permission_stops_no_other_video(folder: Path, run, monkeypatch: pytest.MonkeyPatch):
    def refused(path: Path) -> bool:
        if path.name == "secret":
            raise PermissionError(13, "Permission denied", str(path))
        return False

    monkeypatch.setattr(Path, "is_dir", refused)
    from tubelet.cli.classify import find_videos

    (bad, problem), (good, none) = find_videos(["secret", "clip.mp4"])
    assert (bad, good, none) == ("secret", "clip.mp4", None)
    assert str(problem) == "secret: cannot be read (Permission denied)"


def test_no_traceback_from_the_real_command(folder: Path):
    command = [sys.executable, "-m", "tubelet", "classify", "text.mp4", "--model", "model"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and "Traceback" not in done.stderr


def test_without_packaged_weights_the_model_is_asked_for(folder: Path, run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tubelet.checkpoints.source.PACKAGED", folder / "nothing")
    done = run("classify", "clip.mp4")
    assert done.status == 2 and "name a folder" in done.err


def test_a_model_without_classifier_gives_no_answer(folder: Path, run):
    tubelet.save_model(tubelet.load_model(folder / "model", num_classes=0), folder / "features")
    done = run("classify", "clip.mp4", "--model", "features")
    assert done.status == 2 and "classifier" in done.err


def test_what_fails_on_the_way_is_status_1_and_one_line(folder: Path, run, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("out of\nmemory")

    monkeypatch.setattr("tubelet.inference.view_logits", broken)
    done = run("classify", "clip.mp4", "--model", "model")
    assert done.status == 1 and done.err == "tubelet: out of memory\n"
    monkeypatch.setattr("tubelet.profiling.flops_table", broken)
    done = run("flops", "--model", "videomae_small")
    assert done.status == 1 and done.err.splitlines()[0].startswith("tubelet: failed: RuntimeError: out of memory")


@pytest.mark.filterwarnings("ignore:.*random until trained")  # said before it is refused
def test_a_learned_selector_needs_trained_weights(folder: Path, run):
    done = run("classify", "clip.mp4", "--model", "model", "--select", "stts:T0.5@0")
    assert done.status == 2 and "no trained scorer" in done.err
