"""One's own clips: a folder a class, or csv; what is wrong is said with its line."""

import pytest

from tubelet.data.datasets import find_splits, open_dataset
from tubelet.data.datasets.class_lists import read_class_list
from tubelet.data.datasets.formats import folder_splits, read_csv
from tubelet.errors import TubeletError


def listed(listing):
    return [(record.name, listing.labels[record.label]) for record in listing.records]


def test_a_folder_a_class(folders):
    (listing,) = folder_splits(folders).values()
    assert listing.labels == ["jump", "run", "walk"] and not listing.fixed
    assert listed(listing)[:4] == [
        ("jump/0.mp4", "jump"),
        ("jump/1.mp4", "jump"),
        ("jump/2.mp4", "jump"),
        ("run/3.mp4", "run"),
    ]
    assert all(record.path.is_file() for record in listing.records)


def test_the_class_list_decides_the_numbers(folders):
    (folders / "classes.txt").write_text("walk\nsit\njump\n")
    (listing,) = folder_splits(folders).values()
    assert listing.labels == ["walk", "sit", "jump"]
    assert {label for _, label in listed(listing)} == {"walk", "jump"}
    assert listing.problems == (f"{folders / 'run'}: 'run' is none of the 3 classes",)
    with pytest.raises(TubeletError, match="'run' is none of the 3 classes"):
        open_dataset(folders)


def test_folders_with_splits_share_one_class_list(folders, tmp_path):
    root = tmp_path / "split"
    (root / "val" / "walk").mkdir(parents=True)
    folders.rename(root / "train")
    (root / "train" / "walk" / "7.mp4").rename(root / "val" / "walk" / "7.mp4")
    found = find_splits(str(root))
    assert {split: len(listing.records) for split, listing in found.items()} == {"train": 7, "val": 1}
    assert found["val"].labels == ["jump", "run", "walk"] and found["val"].records[0].label == 2
    assert len(open_dataset(root, train=True)) == 7 and len(open_dataset(root)) == 1
    assert len(open_dataset(f"{root}:train")) == 7
    with pytest.raises(TubeletError, match="no split 'test'; there are train, val"):
        open_dataset(f"{root}:test")


@pytest.mark.parametrize(
    "text",
    [
        "path,label\njump/0.mp4,jump\nrun/3.mp4,run\n",
        "jump/0.mp4,jump\nrun/3.mp4,run\n",
        "label,nframes,video\njump,20,jump/0.mp4\n\nrun,23,run/3.mp4\n",
        "jump/0.mp4 jump\nrun/3.mp4 run\n",
        "\ufeffpath,label,start,end\njump/0.mp4,jump,,\nrun/3.mp4,run,,\n",
    ],
    ids=["header", "plain", "other columns", "spaces", "byte order mark"],
)
def test_csv_forms(folders, text):
    (folders / "train.csv").write_text(text, encoding="utf-8")
    listing = read_csv(folders / "train.csv")
    assert listed(listing) == [("jump/0.mp4", "jump"), ("run/3.mp4", "run")] and not listing.problems
    assert all(record.path.is_file() for record in listing.records)


def test_numbers_as_labels(folders):
    (folders / "a.csv").write_text("jump/0.mp4,0\nrun/3.mp4,3\n")
    assert read_csv(folders / "a.csv").labels == ["0", "1", "2", "3"]
    assert [r.label for r in read_csv(folders / "a.csv", ["w", "x", "y", "z"]).records] == [0, 3]


def test_start_and_end_in_seconds(folders):
    (folders / "a.csv").write_text("path,label,start,end\nwalk/7.mp4,walk,0.2,0.6\nwalk/7.mp4,walk,,0.2\n")
    first, second = read_csv(folders / "a.csv").records
    assert (first.start, first.end, second.start, second.end) == (0.2, 0.6, None, 0.2)


def test_rows_that_are_no_clip_are_problems_with_their_line(folders):
    rows = [
        "path,label,start,end",
        "a.mp4,jump,2,1",
        ",jump",
        "b.mp4,fly",
        "c.mp4,jump,x,",
        "d.mp4,jump,-1,",
        "e.mp4,run",
    ]
    (folders / "a.csv").write_text("\n".join(rows))
    listing = read_csv(folders / "a.csv", ["jump", "run"])
    assert [record.name for record in listing.records] == ["e.mp4"]
    lines = [2, 3, 4, 5, 6]
    assert all(f"line {line} has" in problem for line, problem in zip(lines, listing.problems, strict=True))
    with pytest.raises(TubeletError, match=r"line 2 has start '2' and end '1'.*and 4 more: tubelet check-data"):
        open_dataset(folders / "a.csv", labels=["jump", "run"])


def test_a_folder_of_csv_files(folders):
    (folders / "train.csv").write_text("path,label\njump/0.mp4,jump\nwalk/7.mp4,walk\n")
    (folders / "val.csv").write_text("path,label\nwalk/6.mp4,walk\n")
    (folders / "boxes.csv").write_text("path,frame,x1,y1,x2,y2,label\nwalk/6.mp4,0,0,0,1,1,walk\n")
    (folders / "notes.csv").write_text("who,what\n")
    for _ in range(2):
        found = folder_splits(folders)
        assert list(found) == ["train", "val"] and found["val"].labels == ["jump", "walk"]
        assert read_csv(folders / "val.csv").labels == ["jump", "walk"]  # as in training
        (folders / "train.csv").write_text("jump/0.mp4,jump\nwalk/7.mp4,walk\n")  # the name says it, too
    assert read_csv(folders / "val.csv", ["walk"]).labels == ["walk"]


def test_what_is_no_data_set_is_refused(tmp_path, folders):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.csv").touch()
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\xd8")
    (tmp_path / "head.csv").write_text("path,kind\na.mp4,b\n")
    (tmp_path / "only_head.csv").write_text("path,label\n")
    for name, words in {
        "empty": "neither a csv",
        "empty.csv": "the file is empty",
        "binary.csv": "text in UTF-8",
        "head.csv": "no column label",
        "only_head.csv": "lists no clip",
        "missing": "no data set",
    }.items():
        with pytest.raises(TubeletError, match=words):
            open_dataset(tmp_path / name)
    with pytest.raises(TubeletError, match="no data set 'jhmd'; there are scenes, .*; did you mean 'jhmdb'?"):
        open_dataset("jhmd:split1_fit")


def test_an_option_that_a_data_set_does_not_have_is_refused_with_the_nearest(folders, tmp_path):
    """Also one that would do nothing there."""
    csv = tmp_path / "a.csv"
    csv.write_text(f"path,label\n{folders / 'jump' / '0.mp4'},jump\n")
    for data, option, near in (
        (folders, "splt", "split"),
        (folders, "chache", "cache"),
        (folders, "croops", "crops"),
        (folders, "root", ""),
        (csv, "rot", "root"),
        ("scenes", "lenght", "length"),
        ("scenes", "curiculum", "curriculum"),
        ("scenes", "cache", ""),
        ("scenes", "crops", ""),
    ):
        with pytest.raises(TubeletError) as caught:
            open_dataset(data, **{option: 3})
        sentence = str(caught.value)
        assert sentence.startswith(f"{data} has no option {option!r}; its options are split, ")
        assert sentence.endswith(f"; did you mean {near!r}?") if near else "did you mean" not in sentence
    assert len(open_dataset(csv, root=tmp_path)) == 1
    assert len(open_dataset(folders, root=None, cache=None)) == len(open_dataset(folders))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "stand\nwalk slowly\n"),
        ("a.txt", "0 stand\n1 walk slowly\n"),
        ("a.txt", "1 stand\n2 walk slowly\n"),
        ("a.txt", "walk slowly 1\nstand 0\n"),
        ("a.csv", "id,name\n1,walk slowly\n0,stand\n"),
        ("a.csv", "0,stand\n1,walk slowly\n"),
        ("a.csv", "name\nstand\nwalk slowly\n"),
        ("a.json", '{"stand": "0", "walk slowly": "1"}'),
        ("a.json", '{"0": "stand", "1": "walk slowly"}'),
        ("a.json", '["stand", "walk slowly"]'),
    ],
)
def test_class_lists(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert read_class_list(tmp_path / name) == ["stand", "walk slowly"]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.txt", "\n", "names no class"),
        ("a.txt", "walk\nwalk\n", "'walk' twice"),
        ("a.csv", "id,name\n0,a\n2,b\n", "must be 0 to 1, each once"),
        ("a.csv", "id,name\nx,a\n", "a number and a name"),
        ("a.json", "3", "class list in JSON"),
    ],
)
def test_class_lists_that_are_wrong(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(TubeletError, match=words):
        read_class_list(tmp_path / name)
