"""Parts of one video are clips of their own, also by name: rows and pairs are kept by it."""

from tubelet.data import open_dataset
from tubelet.data.datasets.base import clips_id


def test_parts_of_one_video_have_names_of_their_own(tmp_path):
    listed = "path,label,start,end\na.mp4,run,,\na.mp4,walk,0,1.5\na.mp4,run,1.5,\n"
    (tmp_path / "val.csv").write_text(listed)
    data = open_dataset(tmp_path / "val.csv")
    assert [data.name(index) for index in range(3)] == ["a.mp4", "a.mp4 0-1.5 s", "a.mp4 1.5-end s"]
    before = clips_id(data)
    (tmp_path / "val.csv").write_text(listed.replace("1.5", "1.25"))
    assert clips_id(open_dataset(tmp_path / "val.csv")) != before
