"""The losses of detectors: matching, every term by hand, and batches without people or with too many."""

import json
import math

import pytest
import torch

from tests.evaluation.people import people_model, videos
from tests.tiny import moving, tiny_detector
from tubelet.data import eval_loader
from tubelet.data.datasets.keyframes import open_keyframes
from tubelet.errors import TubeletError
from tubelet.evaluation.people import look, measured, open_people
from tubelet.models.evad import Predictions
from tubelet.training.config import make_config
from tubelet.training.detection import DetectionLoss, Target, Weights, losses, match, total
from tubelet.training.make import open_clips
from tubelet.training.tasks import DetectPeople

SIZES = torch.tensor([[40.0, 80.0], [60.0, 60.0]])  # height, width


def predictions(queries=5, heads=2, blocks=2, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    corner = torch.rand(heads, 2, queries, 2, generator=generator) * 20
    boxes = torch.cat([corner, corner + 5 + torch.rand(heads, 2, queries, 2, generator=generator) * 20], dim=-1)
    found = Predictions(draw(heads, 2, queries, 2), boxes, draw(blocks, 2, queries, classes), SIZES)
    for one in found[:3]:
        one.requires_grad_()
    return found


def target(*boxes, classes=3):
    actions = torch.zeros(len(boxes), classes)
    for row in range(len(boxes)):
        actions[row, row % classes] = 1
    return Target(torch.tensor(boxes, dtype=torch.float32).view(-1, 4), actions)


def test_the_best_pairs_are_matched_over_all():
    """The first person is nearest to proposal 1, but so is the second, which has no other."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [50, 0, 60, 10], [56, 0, 66, 10]])
    found = Predictions(torch.zeros(1, 1, 3, 2), boxes[None, None], torch.zeros(1, 1, 3, 3), SIZES[:1])
    people = target((52.0, 0, 62, 10), (49.0, 0, 59, 10))
    (((one,),)) = match(found, [people], Weights())
    assert one.found.tolist() == [1, 2] and one.target.tolist() == [1, 0]


def test_each_term_by_hand():
    found = predictions(queries=2, heads=1, blocks=1)
    people = [target((3.0, 4, 20, 22)), target((1.0, 2, 9, 30), (20, 20, 40, 44))]
    weights = Weights(person=3.0, l1=2.0, giou=0.5, action=7.0, nobody=0.3)
    matches = match(found, people, weights)
    terms = losses(found, people, matches, weights)
    nll = -found.person_logits[0].log_softmax(-1)
    pairs = [(i, q, t) for i, one in enumerate(matches[0]) for q, t in zip(one.found, one.target, strict=True)]
    matched = {(i, int(q)) for i, q, _ in pairs}
    share = sum(1.0 if (i, q) in matched else 0.3 for i in range(2) for q in range(2))
    ce = sum(nll[i, q, 0] if (i, q) in matched else 0.3 * nll[i, q, 1] for i in range(2) for q in range(2)) / share
    bbox = giou = bce = 0.0
    for i, q, t in pairs:
        a, b = found.boxes[0, i, q], people[i].boxes[t]
        height, width = SIZES[i]
        bbox += ((a - b).abs() / torch.stack([width, height, width, height])).sum() / 3
        inter = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
        union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
        hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
        giou += (1 - inter / union + (hull - union) / hull) / 3
        p, y = found.action_logits[0, i, q].sigmoid(), people[i].actions[t]
        bce += -(y * p.log() + (1 - y) * (1 - p).log()).sum() / 9
    for name, expected in {"ce": ce, "bbox": bbox, "giou": giou, "bce": bce}.items():
        torch.testing.assert_close(terms[name], expected, rtol=1e-5, atol=1e-6)
    expected = (3 * ce + 2 * bbox + 0.5 * giou + 7 * bce) / 4
    torch.testing.assert_close(total(terms, weights), expected, rtol=1e-5, atol=1e-6)


def finite(found, people):
    loss, terms = DetectionLoss()(found, people)
    loss.backward()
    assert math.isfinite(loss.item()) and all(torch.isfinite(term) for term in terms.values())
    for one in found[:3]:
        assert one.grad is not None and torch.isfinite(one.grad).all()
    return terms


def test_a_batch_without_people_teaches_only_that_nobody_is_there():
    found = predictions()
    terms = finite(found, [target(), target()])
    assert terms["bbox"] == terms["giou"] == terms["bce"] == 0
    assert found.boxes.grad.abs().sum() == 0 and found.person_logits.grad.abs().sum() > 0


def test_an_image_without_people_beside_one_with():
    found = predictions()
    terms = finite(found, [target(), target((1.0, 2, 9, 30))])
    assert terms["bce"] > 0 and found.boxes.grad[:, 0].abs().sum() == 0 < found.boxes.grad[:, 1].abs().sum()


def test_more_people_than_proposals():
    found = predictions(queries=2)
    people = [target(*[(float(i), 1.0, i + 9.0, 20.0) for i in range(6)]), target((1.0, 2, 9, 30))]
    matches = match(found, people, Weights())
    assert [len(one.found) for one in matches[-1]] == [2, 1]
    finite(found, people)


def test_each_head_is_matched_by_itself_and_actions_by_the_last():
    found = predictions(heads=2)
    moved = found._replace(boxes=torch.stack([found.boxes[0] + 30, found.boxes[1]]).detach().requires_grad_())
    people = [target((3.0, 4, 20, 22)), target((1.0, 2, 9, 30))]
    ours, theirs = (losses(f, people, match(f, people, Weights()), Weights()) for f in (found, moved))
    assert ours["bce"] == theirs["bce"] and ours["bbox_0"] != theirs["bbox_0"] and ours["bbox"] == theirs["bbox"]


def test_numbers_that_ran_away_are_left_to_the_loop():
    found = predictions()
    broken = found._replace(boxes=found.boxes.detach() * float("nan"))
    loss, _ = DetectionLoss()(broken, [target((1.0, 2, 9, 30)), target()])
    assert not math.isfinite(loss.item())


@pytest.mark.slow
def test_a_tiny_detector_learns_where_and_what():
    torch.manual_seed(0)
    model = tiny_detector(seed=1).train()
    clip = moving(2, model)
    people = [target((10.0, 8, 50, 60), classes=7), target((40.0, 20, 90, 50), (2.0, 2, 30, 40), classes=7)]
    optimizer, criterion = torch.optim.AdamW(model.parameters(), 3e-3), DetectionLoss()
    first = None
    for _ in range(40):
        loss, _ = criterion(model(clip), people)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        first = first or loss.item()
    assert loss.item() < 0.5 * first


@pytest.fixture
def judged(tmp_path):
    """A task with its model, and a data set of one key frame a video."""
    boxes = videos(tmp_path, count=3)
    model = people_model()
    data = open_keyframes(boxes, frames=8, stride=1, short=32)
    config = make_config({"task": "detect", "model": "evad_tiny", "data": str(boxes), "steps": 1, "batch": 2})
    return DetectPeople(model, config, (data.mean, data.std)), model, boxes, data


def right(data, moved=0.0):
    """What a detector says that finds the person of each key frame, or a box beside; its other proposal is sure of a
    wrong action but not of a person."""

    def predict(batch):
        people = torch.stack([one[0] for one in batch.boxes]) + moved
        actions = torch.stack([one[0] for one in batch.actions])
        boxes = torch.stack([people, people], dim=1)[None]
        sure = torch.tensor([[9.0, -9.0], [-9.0, 9.0]]).expand(1, len(people), 2, 2)
        said = torch.stack([actions, 1 - actions], dim=1)[None] * 18 - 9
        return Predictions(sure, boxes, said, batch.sizes.float())

    return predict


def test_the_judge_chooses_by_frame_map(judged, monkeypatch):
    task, model, _, data = judged
    for moved, expected in ((0.0, 1.0), (20.0, 0.0)):
        monkeypatch.setattr(task.criterion, "found", lambda module, batch, moved=moved: right(data, moved)(batch))
        figures = task.judge(model, eval_loader(data, 2))
        assert figures["score"] == figures["frame_map"] == pytest.approx(expected) and figures["clips"] == 3
        assert math.isfinite(figures["loss"])
    assert task.judge(model, []) == {}


def test_the_judge_says_what_the_evaluation_says(judged):
    """On the one key frame in the middle of each video."""
    task, model, boxes, data = judged
    with torch.no_grad():  # some proposals are where people are on frame 10, and stay there
        wide = torch.linspace(0.1, 0.5, 9)
        model.proposals.boxes.copy_(torch.stack([torch.full((9,), 20 / 64), torch.full((9,), 1 / 3), wide, wide], 1))
        for head in model.proposals.heads:
            head.deltas.weight.zero_()
            head.deltas.bias.zero_()
    figures = task.judge(model, eval_loader(data, 2))
    dataset = open_people(model, boxes)
    rows = look(model, dataset, ["none"], every=18).rows["none"].values()
    assert [row.frames for row in rows] == [[data[i].frame] for i in range(3)]
    assert 0 < figures["score"] < 1
    assert figures["score"] == pytest.approx(measured(dataset, rows, every=18).frame.at(0.5), abs=0.02)


def test_val_has_the_classes_of_data(tmp_path):
    head = "path,frame,x1,y1,x2,y2,label\n"
    rows = [f"{number}.mp4,0,0,0,9,9,{label}\n" for number, label in enumerate(("clap", "run", "walk"))]
    (tmp_path / "train.csv").write_text(head + "".join(rows))
    (tmp_path / "val.csv").write_text(head + "".join(rows[1:]))
    (tmp_path / "other.csv").write_text(head + rows[0].replace("clap", "fly"))
    folder = tmp_path / "jhmdb"
    folder.mkdir()
    tubes = {
        "clap/a": {"label": "clap", "tube": [[1, 1, 1, 9, 9]]},
        "run/b": {"label": "run", "tube": [[1, 1, 1, 9, 9]]},
    }
    listed = {"labels": ["clap", "run"], "resolution_hw": [240, 320], "videos": tubes}
    (folder / "tubes.json").write_text(json.dumps(listed))
    (folder / "classes.txt").write_text("clap\nrun\n")
    for split in ("train", "test"):
        (folder / f"split1_{split}.csv").write_text("video,label\nclap/a.mp4,clap\nrun/b.mp4,run\n")

    def opened(val, data=str(tmp_path / "train.csv")):
        config = make_config({"task": "detect", "model": "evad_tiny", "data": data, "val": val, "steps": 1, "batch": 2})
        labels = open_clips(config, train=True).labels
        return open_clips(config, train=False, labels=labels)

    val = opened(str(tmp_path / "val.csv"))
    assert val.labels == ["clap", "run", "walk"] and val.targets == [1, 2]
    with pytest.raises(TubeletError, match="line 2 has the class 'fly', which is none of the 3"):
        opened(str(tmp_path / "other.csv"))
    named = {"name": "jhmdb:split1_test", "root": str(folder)}
    with pytest.raises(TubeletError, match="jhmdb:split1_test: has 2 classes, which are not the 3 of .*train.csv"):
        opened(named)
    assert opened(named, {**named, "name": "jhmdb:split1_train"}).labels == ["clap", "run"]
