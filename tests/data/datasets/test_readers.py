"""JHMDB, Kinetics, Something-Something and UCF101-24 in the layouts people have them in."""

import json

import pytest
import torch

from tubelet.data.datasets import Tube, Tubes, find_splits, open_dataset, read_boxes_csv, write_boxes_csv
from tubelet.data.datasets.keyframes import people
from tubelet.data.datasets.registry import disjoint_pairs
from tubelet.data.datasets.tubes import read_jhmdb_tubes, read_ucf24_tubes
from tubelet.errors import TubeletError


def place(path, video):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(video.read_bytes())


def records(listing):
    return [(record.path.name, listing.labels[record.label], record.path.is_file()) for record in listing.records]


def test_jhmdb_as_published(tmp_path, rendered):
    for label, names in {
        "clap": ["a_clap_u_nm_np1_fr_med_0", "b_clap_u_nm_np1_fr_med_1"],
        "jump": ["c_jump_u_nm_np1_fr_med_0"],
    }.items():
        for name in names:
            place(tmp_path / "ReCompress_Videos" / label / f"{name}.avi", rendered[0])
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "clap_test_split1.txt").write_text(
        "a_clap_u_nm_np1_fr_med_0.avi 1\nb_clap_u_nm_np1_fr_med_1.avi 2 \n\n"
    )
    (tmp_path / "splits" / "jump_test_split1.txt").write_text("c_jump_u_nm_np1_fr_med_0.avi 2\nd.avi 1\n")
    found = find_splits("jhmdb", root=tmp_path)
    assert list(found) == ["split1_test", "split1_train"] and found["split1_test"].labels == ["clap", "jump"]
    assert records(found["split1_test"]) == [
        ("b_clap_u_nm_np1_fr_med_1.avi", "clap", True),
        ("c_jump_u_nm_np1_fr_med_0.avi", "jump", True),
    ]
    assert records(found["split1_train"])[1] == ("d.avi", "jump", False)
    (tmp_path / "splits" / "jump_test_split1.txt").write_text("c.avi 3\nd.avi 1\n")
    assert "'c.avi 3' does not end in 1 (train)" in find_splits("jhmdb", root=tmp_path)["split1_train"].problems[0]


KINETICS_CSV = """label,youtube_id,time_start,time_end,split
riding a bike,AAAAAAAAAAA,10,20,train
"tap, dance",BBBBBBBBBBB,3,13,train
"""


@pytest.mark.parametrize("layout", ["csv", "json", "list"])
@pytest.mark.parametrize("videos", ["train/{label}/{trimmed}.mp4", "train/{trimmed}.mkv", "videos/{under}/{id}.mp4"])
def test_kinetics(tmp_path, rendered, layout, videos):
    rows = [("riding a bike", "AAAAAAAAAAA", 10, 20), ("tap, dance", "BBBBBBBBBBB", 3, 13)]
    paths = []
    for label, name, start, end in rows:
        trimmed = f"{name}_{start:06d}_{end:06d}"
        path = videos.format(label=label, trimmed=trimmed, under=label.replace(" ", "_"), id=name)
        place(tmp_path / path, rendered[0])
        paths.append(path)
    if layout == "csv":
        (tmp_path / "kinetics_400_train.csv").write_text(KINETICS_CSV)
        (tmp_path / "test.csv").write_text("youtube_id,time_start,time_end,split\nCCCCCCCCCCC,1,11,test\n")
    elif layout == "json":
        (tmp_path / "annotations").mkdir()
        entries = {
            name: {"annotations": {"label": label, "segment": [float(start), float(end)]}, "subset": "train", "url": ""}
            for label, name, start, end in rows
        }
        (tmp_path / "annotations" / "train.json").write_text(json.dumps(entries))
    else:
        (tmp_path / "train_list.txt").write_text("".join(f"{path} {number}\n" for number, path in enumerate(paths)))
        (tmp_path / "label_map.txt").write_text("riding a bike\ntap, dance\n")
    found = find_splits("kinetics400", root=tmp_path)
    assert list(found) == ["train"]
    assert [(label, there) for _, label, there in records(found["train"])] == [
        ("riding a bike", True),
        ("tap, dance", True),
    ]
    assert (found["train"].views.sampling, found["train"].views.clips, found["train"].views.crops) == ("k400", 5, 3)
    dataset = open_dataset("kinetics400:train", root=tmp_path, frames=4, size=16)
    assert dataset[0].clips.shape == (15, 4, 16, 16, 3)


def test_kinetics_in_folders_and_what_is_wrong(tmp_path, folders):
    (tmp_path / "k").mkdir()
    folders.rename(tmp_path / "k" / "val")
    assert records(find_splits("kinetics400", root=tmp_path / "k")["val"])[0] == ("0.mp4", "jump", True)
    (tmp_path / "k" / "labels.csv").write_text("id,name\n0,riding a bike\n")
    (tmp_path / "k" / "train.csv").write_text(KINETICS_CSV)
    listing = find_splits("kinetics400", root=tmp_path / "k")["train"]
    assert len(listing.records) == 1 and "'tap, dance', which is none of the 1" in listing.problems[0]
    (tmp_path / "k" / "train.csv").write_text(KINETICS_CSV.replace(",3,", ",soon,"))
    with pytest.raises(TubeletError, match="not an annotation of Kinetics"):
        find_splits("kinetics400", root=tmp_path / "k")
    with pytest.raises(TubeletError, match="no folder"):
        find_splits("kinetics400", root=tmp_path / "nowhere")


@pytest.mark.parametrize("layout", ["json", "csv"])
def test_something_something(tmp_path, rendered, layout):
    for name in ("78", "79"):
        place(tmp_path / "20bn-something-something-v2" / f"{name}.webm", rendered[0])
    if layout == "json":
        (tmp_path / "labels").mkdir()
        labels = {"Holding something": "0", "Moving something from left to right": "1"}
        (tmp_path / "labels" / "labels.json").write_text(json.dumps(labels))
        clips = [
            {"id": "78", "label": "moving cup from left to right", "template": "Moving [something] from left to right"},
            {"id": "79", "label": "holding a pen", "template": "Holding [something]", "placeholders": ["a pen"]},
        ]
        (tmp_path / "labels" / "train.json").write_text(json.dumps(clips))
        (tmp_path / "labels" / "test.json").write_text(json.dumps([{"id": "80"}]))
    else:
        lines = [f"20bn-something-something-v2/{name}.webm,{label}\n" for name, label in (("78", 1), ("79", 0))]
        (tmp_path / "train.csv").write_text("".join(lines))
    found = find_splits("ssv2", root=tmp_path)
    assert list(found) == ["train"]
    assert [(name, there) for name, _, there in records(found["train"])] == [("78.webm", True), ("79.webm", True)]
    assert [record.label for record in found["train"].records] == [1, 0]
    assert not found["train"].views.flip
    assert open_dataset("ssv2", train=True, root=tmp_path, frames=4, size=16)[0].clips.shape == (1, 4, 16, 16, 3)
    assert open_dataset("ssv2:train", root=tmp_path, frames=4, size=16)[0].clips.shape == (6, 4, 16, 16, 3)


UCF = {
    "labels": ["Biking", "Diving"],
    "resolution_wh": [320, 240],
    "videos": {
        "Biking/v_Biking_g01_c01": {
            "numf": 20,
            "label": 0,
            "tubes": [{"sf": 3, "ef": 5, "boxes_xywh": [[10, 20, 30, 40], [11, 20, 30, 40]]}],
        },
        "Diving/v_Diving_g02_c01": {
            "numf": 20,
            "label": 1,
            "tubes": [{"sf": 0, "ef": 1, "boxes_xywh": [[0, 0, 320, 240]]}],
        },
    },
}


def test_ucf24(tmp_path, rendered):
    (tmp_path / "ucf24_tubes.json").write_text(json.dumps(UCF))
    (tmp_path / "testlist01.txt").write_text("Diving/v_Diving_g02_c01\n")
    place(tmp_path / "clips" / "v_Diving_g02_c01.mp4", rendered[0])
    found = find_splits("ucf24", root=tmp_path)
    assert records(found["test"]) == [("v_Diving_g02_c01.mp4", "Diving", True)]
    assert records(found["train"]) == [("v_Biking_g01_c01.avi", "Biking", False)]
    tubes = read_ucf24_tubes(tmp_path / "ucf24_tubes.json")
    (tube,) = tubes.videos["Biking/v_Biking_g01_c01"]
    assert tube.frames.tolist() == [3, 4] and tube.boxes.tolist() == [[10, 20, 40, 60], [11, 20, 41, 60]]
    (tmp_path / "testlist01.txt").write_text("Diving/v_Diving_g09_c01\n")
    assert "v_Diving_g09_c01 is not in the annotation" in find_splits("ucf24", root=tmp_path)["test"].problems[0]


def test_tubes_that_are_none(tmp_path):
    file = tmp_path / "tubes.json"
    for text, words in {
        "{": "not JSON",
        "{}": "not the tubes",
        '{"labels": ["a"], "videos": {"v": {}}}': "not the tubes",
    }.items():
        file.write_text(text)
        for read in (read_jhmdb_tubes, read_ucf24_tubes):
            with pytest.raises(TubeletError, match=words):
                read(file)
    with pytest.raises(TubeletError, match="pickles run code"):
        read_ucf24_tubes(tmp_path / "pyannot.pkl")


def test_boxes_come_back_from_csv(tmp_path):
    boxes = torch.tensor([[1.5, 2, 30, 40], [2.5, 2, 30, 40]])
    tubes = Tubes(
        ["run", "walk"],
        None,
        {"a.mp4": [Tube(1, torch.tensor([4, 5]), boxes), Tube(0, torch.tensor([9]), boxes[:1], "7")]},
    )
    write_boxes_csv(tmp_path / "boxes.csv", tubes)
    again = read_boxes_csv(tmp_path / "boxes.csv")
    assert again.labels == ["run", "walk"]
    first, second = again.videos["a.mp4"]
    assert (first.label, first.frames.tolist(), first.boxes.tolist()) == (1, [4, 5], boxes.tolist())
    assert (second.label, second.frames.tolist(), second.person) == (0, [9], "7")


def test_written_boxes_are_pixels_of_each_video(tmp_path):
    path, box = tmp_path / "boxes.csv", torch.tensor([[10.0, 20, 40, 60]])
    tubes = Tubes(["run"], (320, 240), {name: [Tube(0, torch.tensor([4]), box)] for name in ("run/a", "run/b")})
    for given, words in (
        ({}, "boxes are pixels of 320 x 240 pictures, .*: sizes has no 'run/a'"),
        ({"sizes": {"run/a": (640, 240)}}, "sizes has no 'run/b'"),
        ({"sizes": dict.fromkeys(tubes.videos, (320, 240)), "paths": {"run/a": "a.avi"}}, "paths has no 'run/b'"),
    ):
        with pytest.raises(TubeletError, match=words):
            write_boxes_csv(path, tubes, **given)
    assert not path.exists()
    sizes, paths = {"run/a": (640, 240), "run/b": (160, 480)}, {name: f"videos/{name}.avi" for name in tubes.videos}
    write_boxes_csv(path, tubes, sizes=sizes, paths=paths)
    again = read_boxes_csv(path).videos
    assert {name: found[0].boxes.tolist() for name, found in again.items()} == {
        "videos/run/a.avi": [[20, 20, 80, 60]],
        "videos/run/b.avi": [[5, 40, 20, 120]],
    }


def test_written_boxes_keep_people_apart_and_their_actions_together(tmp_path):
    one, two = torch.tensor([[1.0, 2, 30, 40]] * 3), torch.tensor([[50.0, 2, 80, 40]] * 3)
    frames = torch.arange(3)
    tubes = [
        Tube(0, frames, one),
        Tube(1, frames[1:], one[1:]),  # also of the first person
        Tube(0, frames, two),
        Tube(1, frames[:1], two[:1], "0"),  # said to be another
        Tube(0, frames[2:], one[2:]),  # twice the same: of no person that has it
    ]
    write_boxes_csv(tmp_path / "boxes.csv", Tubes(["run", "walk"], None, {"a.mp4": tubes}))
    again = read_boxes_csv(tmp_path / "boxes.csv").videos["a.mp4"]
    assert [tube.person for tube in again] == ["1", "1", "2", "0", "3"]
    boxes, actions = people(again[:3], 1, 2)
    assert torch.equal(boxes, people(tubes[:3], 1, 2)[0]) and actions.tolist() == [[1, 1], [1, 0]]


HEAD = "path,frame,x1,y1,x2,y2,label\n"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("a.mp4,0,5,0,5,9,run", "line 2 has frame 0, box"),
        ("a.mp4,-1,0,0,5,9,run", "frame >= 0"),
        ("a.mp4,0,0,0,x,9,run", "four numbers"),
        ("a.mp4,0,0,0,5,9,fly", "'fly', which is none of the 1"),
        ("a.mp4,0,0,0,5,9", "line 2 has 6 columns, the header has 7"),
        ("a.mp4,0,0,0,5,9,run,1", "line 2 has 8 columns, the header has 7"),
        (f"a.mp4,{'9' * 23},0,0,5,9,run", "line 2 has frame 99999999999999999999999; needed"),
        (f"a.mp4,{'9' * 5000},0,0,5,9,run", "a whole frame"),
        (",0,0,0,5,9,run", "line 2 has no path"),
        (".,0,0,0,5,9,run", "line 2 has the path '.', which names no file"),
        ("a\0.mp4,0,0,0,5,9,run", "line 2 (has the path|is no row of a csv)"),
        ("a.mp4,0,0,0,5,9,", "line 2 has no label"),
        ("a.mp4,0,0,0,inf,9,run", "line 2 has the box .*inf"),
        ("a.mp4,0,nan,0,5,9,run", "line 2 has the box .*nan"),
        ("a.mp4,0,0,0,1e39,9,run", "needed: pixels, at most 1000000"),
        (f"{'a' * 140000},0,0,0,5,9,run", "line 2 is no row of a csv"),
    ],
)
def test_boxes_that_are_wrong(tmp_path, row, words):
    (tmp_path / "boxes.csv").write_text(f"{HEAD}{row}\n")
    with pytest.raises(TubeletError, match=words):
        read_boxes_csv(tmp_path / "boxes.csv", ["run"])


def test_rows_are_checked_before_classes_are_found(tmp_path):
    path = tmp_path / "boxes.csv"
    for row, words in (
        ("a.mp4,0,0,0,5,9", "6 columns"),
        ("a.mp4,0,0,0,5,9,1000000", "line 2 has the class 1000000; needed: names, or numbers from 0 below 10000"),
        (f"a.mp4,0,0,0,5,9,{'9' * 5000}", "line 2 has the class 9{24}"),
    ):
        path.write_text(f"{HEAD}{row}\n")
        with pytest.raises(TubeletError, match=words):
            read_boxes_csv(path)
    path.write_text(f"{HEAD}a.mp4,0,0,0,5,9,1\n")
    assert read_boxes_csv(path).labels == ["0", "1"]


def test_two_people_doing_one_thing_need_the_column_person(tmp_path):
    path = tmp_path / "boxes.csv"
    path.write_text(f"{HEAD}a.mp4,3,0,0,5,9,run\na.mp4,3,0,0,5,9,walk\n\na.mp4,3,20,0,25,9,run\na.mp4,3,0,0,5,9,run\n")
    words = (
        r"lines 2 and 5 give a.mp4 two boxes of one class at frame 3; two people need the column person \(and 1 more"
    )
    with pytest.raises(TubeletError, match=words):
        read_boxes_csv(path)
    path.write_text(f"{HEAD}a.mp4,3,0,0,5,9,run\na.mp4,3,0,0,5,9,run\n")
    with pytest.raises(TubeletError, match="lines 2 and 3 are the same; one of them is enough"):
        read_boxes_csv(path)
    head = f"{HEAD.strip()},person\n"
    path.write_text(f"{head}a.mp4,3,0,0,5,9,run,1\na.mp4,3,20,0,25,9,run,1\n")
    with pytest.raises(TubeletError, match="lines 2 and 3 give the person '1' of a.mp4 two boxes"):
        read_boxes_csv(path)
    path.write_text(f"{head}a.mp4,3,0,0,5,9,run,1\na.mp4,3,20,0,25,9,run,2\n")
    assert [tube.boxes[0, 0] for tube in read_boxes_csv(path).videos["a.mp4"]] == [0, 20]


def test_empty_columns_at_the_end_are_nothing(tmp_path):
    """As spreadsheets write them; and a row may leave out what is optional."""
    path = tmp_path / "boxes.csv"
    for text in (
        f"{HEAD.strip()},,\na.mp4,3,0,0,5,9,run,,\n",
        f"{HEAD.strip()},\na.mp4,3,0,0,5,9,run\n",
        f"{HEAD}a.mp4,3,0,0,5,9,run,\n",
        f"{HEAD.strip()},person\na.mp4,3,0,0,5,9,run\n",
    ):
        path.write_text(text)
        (tube,) = read_boxes_csv(path).videos["a.mp4"]
        assert tube.person == "" and tube.frames.tolist() == [3]


def test_files_of_boxes_that_are_none(tmp_path):
    (tmp_path / "latin.csv").write_bytes(f"{HEAD}café.mp4,0,0,0,5,9,run\n".encode("latin-1"))
    (tmp_path / "twice.csv").write_text(f"{HEAD.strip()},frame\na.mp4,0,0,0,5,9,run,0\n")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "head.csv").write_text(HEAD)
    for name, words in (
        ("none.csv", "no such file"),
        ("latin.csv", "not a file of text in UTF-8"),
        ("", "a folder; a file is needed"),
        ("twice.csv", "a column stands twice"),
        ("empty.csv", "needs a header with the columns path,frame"),
        ("head.csv", "no row"),
    ):
        with pytest.raises(TubeletError, match=words):
            read_boxes_csv(tmp_path / name)


def test_splits_that_may_share_no_clip():
    assert disjoint_pairs(["train", "val", "test"]) == [("train", "val"), ("train", "test"), ("val", "test")]
    names = ["split1_fit", "split1_test", "split1_train", "split1_val", "split2_test", "split2_train"]
    pairs = disjoint_pairs(names)
    assert ("split1_fit", "split1_val") in pairs and ("split2_test", "split2_train") in pairs
    assert ("split1_fit", "split1_train") not in pairs and ("split1_test", "split2_train") not in pairs
    assert not any({"split1_train", "split1_val"} == set(pair) for pair in pairs)


def test_real_jhmdb(data_root, monkeypatch):
    monkeypatch.setenv("TUBELET_DATA", str(data_root))
    sizes = {"split1_train": 660, "split1_test": 268, "split1_fit": 553, "split1_val": 107}
    found = find_splits("jhmdb")
    assert {split: len(found[split].records) for split in sizes} == sizes
    assert all(listing.labels[2] == "clap" and len(listing.labels) == 21 for listing in found.values())
    assert all(record.path.is_file() for record in found["split1_test"].records)
    sample = open_dataset("jhmdb:split1_fit", train=True, size=112)[5]
    assert sample.clips.shape == (1, 16, 112, 112, 3)
    tubes = read_jhmdb_tubes(data_root / "jhmdb" / "tubes.json")
    first = tubes.videos["brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_0"][0]
    assert tubes.size == (320, 240) and len(tubes.videos) == 928
    assert first.frames[0] == 0 and first.boxes[0].tolist() == [70, 47, 246, 239]


def test_real_ucf24(data_root):
    found = find_splits("ucf24", root=data_root / "ucf24")
    assert len(found["train"].records) + len(found["test"].records) == 3194
    tubes = read_ucf24_tubes(data_root / "ucf24" / "ucf24_tubes.json.gz")
    assert sum(map(len, tubes.videos.values())) == 4458
