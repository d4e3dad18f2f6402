import pytest

from tubelet import CheckpointError
from tubelet.checkpoints import read_labels

NAMES = {0: "abseiling", 1: "air drumming", 2: "hugging (not baby)"}
FILES = {
    "labels.txt": "abseiling\nair drumming\nhugging (not baby)\n\n",
    "windows.txt": "\ufeffabseiling\r\nair drumming\r\nhugging (not baby)",
    "list.json": '["abseiling", "air drumming", "hugging (not baby)"]',
    "by number.json": '{"1": "air drumming", "0": "abseiling", "2": "hugging (not baby)"}',
    "by name.json": '{"air drumming": "1", "abseiling": "0", "hugging (not baby)": 2}',
    "kinetics.csv": 'id,name\n0,abseiling\n1,air drumming\n2,"hugging (not baby)"\n',
    "no header.csv": "0,abseiling\n1,air drumming\n2,hugging (not baby)\n",
    "names first.csv": "name,id\nabseiling,0\nair drumming,1\nhugging (not baby),2\n",
    "names.csv": "abseiling\nair drumming\nhugging (not baby)\n",
}


@pytest.mark.parametrize("name", FILES)
def test_files(tmp_path, name):
    (tmp_path / name).write_text(FILES[name], encoding="utf-8")
    assert read_labels(tmp_path / name) == NAMES


def test_values():
    assert read_labels(list(NAMES.values())) == read_labels(tuple(NAMES.values())) == read_labels(NAMES) == NAMES


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("empty.txt", "\n", "names no class"),
        ("gap.json", '{"0": "a", "2": "c"}', "numbers 2 classes but has no class 1"),
        ("twice.json", '{"a": 0, "b": 0}', "class 0 is named twice"),
        ("twice.csv", "0,a\n0,b\n", "class 0 is named twice"),
        ("broken.json", "[", "cannot be read as .json"),
        ("number.json", "3", "a list or a dictionary is expected"),
        ("nested.json", '{"a": ["b"]}', "cannot be read as .json"),
        ("null.json", '["a", null]', "the name of class 1 is None"),
        ("deep.json", "[" * 100000, "cannot be read as .json"),
        ("wide.csv", "a,b,c\n1,2,3\n", "a number and a name"),
    ],
)
def test_bad_files(tmp_path, name, content, sentence):
    (tmp_path / name).write_text(content)
    with pytest.raises(CheckpointError, match=sentence) as error:
        read_labels(tmp_path / name)
    assert str(tmp_path / name) in str(error.value)


@pytest.mark.parametrize("labels", [["a", None], {0: "a", 1: None}, 5, {"a": "b"}])
def test_bad_values(labels):
    with pytest.raises(CheckpointError, match="labels cannot be read"):
        read_labels(labels)


def test_no_file(tmp_path):
    with pytest.raises(CheckpointError, match="labels .* cannot be read: No such file"):
        read_labels(tmp_path / "labels.txt")
