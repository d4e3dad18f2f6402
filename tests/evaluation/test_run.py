"""Judging a model over a data set: what rows say, and that a run goes on where it stopped."""

import pytest
import torch

from tests.evaluation.judged import scenes_model
from tests.tiny import randomise, tiny
from tubelet.data.datasets.scenes import SceneClips
from tubelet.data.scenes import LABELS, MEAN, STD
from tubelet.errors import SelectionError, TubeletError
from tubelet.evaluation import Candidate, judge, open_for, pair_of, protocol_of, table, write
from tubelet.evaluation.quality import found
from tubelet.evaluation.rows import columns
from tubelet.evaluation.run import chosen_videos, variant, weights_id
from tubelet.models.config import Preprocessing
from tubelet.models.registry import set_selection, trace

SELECTS = ["none", "sta:keep=0.4,groups=8/4/2", "random:keep=0.5@1"]


@pytest.fixture(scope="module")
def model():
    return scenes_model()


@pytest.fixture(scope="module")
def dataset():
    return SceneClips("test", length=14, tubelet=(2, 16, 16))  # the tiny model's tokens


@pytest.fixture(scope="module")
def judged(model, dataset):
    return judge(model, dataset, SELECTS, data="scenes:test", batch=4)


def test_rows_are_what_the_model_says(model, dataset, judged):
    assert [len(rows) for rows in judged.rows.values()] == [14] * 3
    for select, rows in judged.rows.items():
        one = variant(model, select)
        for index in (0, 5, 13):
            sample, row = dataset[index], rows[index]
            clip = (sample.clips[0].permute(3, 0, 1, 2)[None] / 255 - 0.45) / 0.25
            with torch.no_grad():
                scores = one(clip)[0].softmax(-1)
            assert row.name == sample.name and row.label == sample.label
            assert row.rank == int((scores > scores[sample.label]).sum())
            assert row.log_prob == pytest.approx(float(scores[sample.label].log()), abs=1e-4)
            assert [number for number, _ in row.top] == scores.topk(5).indices.tolist()
            steps = trace(one, clip)
            if not steps:
                assert row.recall is None and row.kept is None
                continue
            kept, truth = steps[-1].mask[0], sample.truth
            assert row.recall == pytest.approx(float((kept & truth).sum() / truth.sum()))
            assert row.precision == pytest.approx(float((kept & truth).sum() / kept.sum()))
            assert row.kept == pytest.approx(float(kept.float().mean()))
            assert row.truth == pytest.approx(float(truth.float().mean()))


def test_a_run_that_was_stopped_goes_on_to_the_same_rows_on_resume(model, dataset, judged, tmp_path):
    class Stop(Exception):
        pass

    def stopping(total):
        def advance(videos):
            if left.pop() == 0:
                raise Stop

        left = [0, 1]
        return advance

    with pytest.raises(Stop):
        judge(model, dataset, SELECTS, data="scenes:test", batch=4, out=tmp_path, begin=stopping)
    (file,) = tmp_path.glob("none*")
    assert len(file.read_text().splitlines()) == 1 + 8
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])  # one selection is behind the others

    run = []

    def counting(total):
        run.append(total)
        return lambda videos: None

    for _ in range(2):
        again = judge(model, dataset, SELECTS, data="scenes:test", batch=4, out=tmp_path, begin=counting)
        assert again.rows == judged.rows
    assert run == [10, 0]  # the batch that was torn and the two that were left, then nothing


def test_rows_of_other_weights_are_refused(model, dataset, tmp_path):
    judge(model, dataset, ["none"], data="scenes:test", limit=2, out=tmp_path)
    other = scenes_model(seed=3)
    assert weights_id(other) != weights_id(model)
    with pytest.raises(TubeletError, match="rows of another evaluation: model was"):
        judge(other, dataset, ["none"], data="scenes:test", limit=2, out=tmp_path)
    judge(other, dataset, ["none"], data="scenes:test", limit=2, out=tmp_path, renew=True)


def test_an_identity_is_that_of_the_weights_not_of_the_selection():
    model = scenes_model()
    before = weights_id(model)
    set_selection(model, "sta:keep=0.5")
    assert weights_id(model) == before


def test_fewer_videos_are_part_of_more():
    few, more = chosen_videos(1000, 30), chosen_videos(1000, 200)
    assert set(few) < set(more) and few == sorted(few) and len(few) == 30
    assert len({i % 12 for i in more}) == 12
    assert chosen_videos(5, 9) == chosen_videos(5, None) == [0, 1, 2, 3, 4]


def test_the_table_holds_accuracy_cost_and_quality(model, judged):
    rows = table([Candidate("tiny", model, judged)], "scenes:test", timing=False, draws=200)
    assert [row["select"] for row in rows] == SELECTS
    dense, sta, random = rows
    own = columns(judged.rows["none"].values())
    assert dense["top1"] == (own.rank == 0).mean() and dense["videos"] == 14
    assert dense["difference"] is None and dense["recall"] is None and dense["ratio"] == 1
    assert sta["difference"] == pytest.approx(sta["top1"] - dense["top1"])
    assert sta["tokens"] == model_tokens(model, SELECTS[1]) and sta["ratio"] > 1
    assert random["random_recall"] == random["kept"] == 0.5
    assert 0 < random["random_precision"] < random["kept"]
    assert "ms_median" not in dense


def model_tokens(model, select):
    return variant(model, select).tokens_entering()


def test_the_report_is_written(model, judged, tmp_path):
    rows = table([Candidate("tiny", model, judged, (1, 1))], "scenes:test", timing=True, runs=1, draws=50)
    assert all(row["ms_median"] > 0 for row in rows)
    write(rows, tmp_path)
    assert (tmp_path / "curve.png").stat().st_size > 5000
    lines = (tmp_path / "report.csv").read_text().splitlines()
    assert len(lines) == 4 and lines[0].startswith("model,select,data,views,videos,unreadable,top1,top1_low,top1_high")
    assert not list(tmp_path.glob(".*"))


def test_a_pair_is_of_the_videos_that_both_have(judged):
    first = columns(judged.rows["none"].values())
    second = columns([row for row in judged.rows[SELECTS[1]].values() if row.index > 3])
    both = pair_of(first, second)
    expected = (second.rank == 0).mean() - (first.rank[4:] == 0).mean()
    assert both.difference == pytest.approx(expected)
    with pytest.raises(TubeletError, match="no video is in both"):
        pair_of(first, columns([]))


def test_recall_and_precision_by_hand():
    kept = torch.tensor([[[[True, True], [False, False]]], [[[True, False], [False, True]]]])
    truth = torch.tensor([[[[True, False], [True, True]]], [[[False, False], [False, False]]]])
    first, second = found(kept, truth)
    assert (first.recall, first.precision, first.kept, first.truth) == (1 / 3, 1 / 2, 1 / 2, 3 / 4)
    assert (second.recall, second.precision, second.truth) == (1.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="kept tokens of"):
        found(kept, truth[:1])


def test_a_scorer_that_was_not_trained_is_refused(model):
    with pytest.raises(SelectionError, match="block1_stts_T is learned, and these weights hold no trained scorer"):
        judge(model, SceneClips("test", length=2), ["none", "stts:T0.5@1"])


def test_a_trained_scorer_goes_where_it_was_trained():
    model = scenes_model()
    set_selection(model, "stts:T0.5@0-S0.5@1")
    randomise(model, seed=3)
    model.config.trained_selectors = model.plan.learned
    other = variant(model, "stts:T0.25@0")
    scorer, trained = (m.plan.selectors["block0_stts_T"].state_dict() for m in (other, model))
    assert all(torch.equal(tensor, trained[name]) for name, tensor in scorer.items())
    with pytest.raises(SelectionError, match="block0_stts_S is learned.*; there are block0_stts_T, block1_stts_S"):
        variant(model, "stts:S0.5@0")


def test_a_data_set_of_other_classes_is_refused(model, tmp_path):
    for name in ("walk", "run"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "a.mp4").write_bytes(b"")
    with pytest.raises(TubeletError):
        open_for(model, tmp_path / "data")
    with pytest.raises(TubeletError, match="one view"):
        open_for(model, "scenes", views=(2, 3))
    few = scenes_model()
    few.config.id2label = {0: "up", 1: "down"} | {i: str(i) for i in range(2, 12)}
    with pytest.raises(TubeletError, match="class 0 is 'red left' there and 'up' here"):
        open_for(few, "scenes:test")


@pytest.mark.parametrize("arguments", [{"patch_size": 8}, {"patch_size": 16}, {"patch_size": 8, "frames": 4}])
def test_the_truth_of_scenes_counts_in_the_tokens_of_the_model(arguments):
    """A token of one frame of 8 or 4, or of larger patches."""
    model = tiny("xvit", **{"size": 64, "num_classes": 12, **arguments})
    model.config.preprocessing = Preprocessing(model.frames, 1, 64, MEAN, STD, "dense")
    model.config.id2label = dict(enumerate(LABELS))
    dataset = open_for(model, "scenes:test", length=3)
    half = model.frames // 2
    (rows,) = list(judge(model, dataset, ["none", f"uniform:T{half}@1"]).rows.values())[1:]
    for index, row in rows.items():
        truth = dataset[index].truth
        assert truth.shape == model.grid
        assert row.kept == 0.5 and row.recall == pytest.approx(float(truth[1::2].sum() / truth.sum()))


def test_the_protocol_is_that_of_the_clips(model):
    dataset = open_for(model, "scenes_table:test", length=3)
    assert protocol_of(model, dataset)["size"] == 64 and len(dataset) == 3 and dataset.level == "table"
