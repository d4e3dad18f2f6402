"""Damaged files: real and rendered ones, bytes of which are changed, cut out, repeated or cut off.

Every file is read in one process apart, so that a crash or a hang of the decoder fails the test and not the test run;
the process reports the time taken and the most memory it ever held.
"""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.data.videos import render_video

SECONDS = 20
GIGABYTES = 1.5

READER = """
import json, os, resource, sys, time, traceback
import torch
from tubelet.data import load_clips
from tubelet.errors import TubeletError
torch.set_num_threads(1)
for line in sys.stdin:
    path, backend = json.loads(line)
    began, answer = time.perf_counter(), ""
    try:
        load_clips(path, frames=8, size=32, sampling="uniform", backend=backend)
    except TubeletError as error:
        answer = str(error)
    except BaseException:
        answer = traceback.format_exc()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps([answer, time.perf_counter() - began, peak]), flush=True)
"""


class ReaderProcess:
    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-c", READER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def read(self, path, backend):
        """(sentence or "", seconds, most gigabytes so far); fails if the process died or was killed for its time."""
        guard = threading.Timer(SECONDS, self.process.kill)
        guard.start()
        self.process.stdin.write(json.dumps([str(path), backend]) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        guard.cancel()
        assert answer, f"the reader ended with {self.process.wait()} (-9: after {SECONDS} s)"
        return json.loads(answer)

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture(scope="module")
def reader():
    process = ReaderProcess()
    yield process
    process.close()


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Small rendered videos, and the real ones up to 150 kB where they are at hand."""
    folder = tmp_path_factory.mktemp("originals")
    x264 = {"x264-params": "keyint=12:bframes=2"}
    files = [
        render_video(folder / "a.mp4", 30, options=x264),
        render_video(folder / "a.mkv", 30, options=x264),
        render_video(folder / "a.ts", 30, options=x264),
        render_video(folder / "a.avi", 30, codec="mpeg4", options={"bf": "2"}),
        render_video(folder / "a.gif", 10, codec="gif", pixel_format="rgb8"),
        render_video(folder / "a.webm", 30, codec="libvpx"),
    ]
    real = Path(os.environ.get("TUBELET_DATA", "")) / "clips-robustness" / "files"
    if "TUBELET_DATA" in os.environ and real.is_dir():
        files += sorted(file for file in real.iterdir() if file.stat().st_size < 150_000)
    return [(file.suffix, file.read_bytes()) for file in files]


numbers = st.sampled_from(
    [b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\0\1\x86\xa0", b"\xff", b"\x80", b"\0"]
)
# Where: anywhere, in the first 2 kB or in the last 4 kB, where most containers keep their tables.
places = st.tuples(st.sampled_from(["any", "head", "tail"]), st.integers(0, 2**20))
edits = st.lists(
    st.tuples(st.sampled_from(["set", "set", "cut", "repeat", "end"]), places, numbers), min_size=1, max_size=8
)


def mutate(data, changes):
    data = bytearray(data)
    for what, (where, offset), value in changes:
        size = max(len(data), 1)
        at = {"any": offset % size, "head": offset % min(size, 2000), "tail": size - 1 - offset % min(size, 4000)}[
            where
        ]
        if what == "set":
            data[at : at + len(value)] = value
        elif what == "cut":
            del data[at : at + 1 + offset % 64]
        elif what == "repeat":
            data[at:at] = data[at : at + 1 + offset % 500]
        else:
            del data[at:]
    return bytes(data)


@pytest.mark.parametrize("backend", ["pyav", "auto"])
@settings(
    derandomize=True,
    max_examples=100,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(which=st.integers(0, 10**6), changes=edits)
def test_a_damaged_file_gives_a_clip_or_one_sentence(reader, originals, tmp_path, backend, which, changes):
    suffix, data = originals[which % len(originals)]
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(mutate(data, changes))
    sentence, seconds, gigabytes = reader.read(path, backend)
    assert "\n" not in sentence, sentence
    assert seconds < SECONDS
    assert gigabytes < GIGABYTES


@pytest.mark.parametrize("side", [100_000, 16_000])
def test_a_small_file_that_declares_a_huge_picture(reader, tmp_path, side):
    path = render_video(tmp_path / "huge.avi", 3, codec="ffv1", pixel_format="bgr0", size=(64, 64))
    wide = (64).to_bytes(4, "little") * 2
    data = path.read_bytes().replace(wide, side.to_bytes(4, "little") * 2)
    assert data != path.read_bytes()
    path.write_bytes(data)
    sentence, _, gigabytes = reader.read(path, "auto")
    assert sentence.startswith(str(path))
    assert gigabytes < GIGABYTES
