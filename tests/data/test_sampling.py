import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tubelet.data.sampling import SAMPLINGS, dense, k400, sample, ssv2, uniform
from tubelet.errors import TubeletError


def test_the_picture_in_the_docstring():
    assert uniform(16, 4) == [[2, 6, 10, 14]]
    assert dense(16, 4, 2) == [[4, 6, 8, 10]]
    assert dense(16, 4, 2, clips=2) == [[0, 2, 4, 6], [9, 11, 13, 15]]
    assert k400(16, 4, 2, clips=2) == [[0, 2, 4, 6], [8, 10, 12, 14]]
    assert ssv2(16, 4) == [[0, 4, 8, 12], [2, 6, 10, 14]]


@pytest.mark.parametrize("total", [1, 3, 16, 61, 64, 65, 250, 300, 301])
def test_k400_is_the_published_rule(total):
    listed = list(range(0, total, 4))
    while len(listed) < 16:
        listed.append(listed[-1])
    step = max((len(listed) - 16) / 4, 0)
    assert k400(total, 16, 4) == [listed[int(clip * step) :][:16] for clip in range(5)]


@pytest.mark.parametrize("total", [1, 7, 16, 31, 32, 33, 49, 100, 300])
def test_ssv2_is_the_published_rule(total):
    tick = total / 16
    merged = sorted([int(tick * i) for i in range(16)] + [int(tick / 2 + tick * i) for i in range(16)])
    assert ssv2(total, 16) == [merged[0::2], merged[1::2]]


def test_a_short_video_repeats_its_last_frame():
    assert dense(5, 4, 2) == [[0, 2, 4, 4]]
    assert k400(3, 4, 2, clips=1) == [[0, 2, 2, 2]]
    assert uniform(2, 4) == [[0, 0, 1, 1]]
    assert ssv2(1, 4) == [[0] * 4] * 2


@settings(derandomize=True, max_examples=300)
@given(
    st.sampled_from(SAMPLINGS),
    st.integers(1, 2000),
    st.integers(1, 64),
    st.integers(1, 8),
    st.integers(1, 10),
)
def test_every_clip_is_full_in_order_and_inside(sampling, total, frames, stride, clips):
    clips = 1 if sampling == "uniform" else clips
    chosen = sample(sampling, total, frames=frames, stride=stride, clips=clips)
    assert len(chosen) == clips
    for clip in chosen:
        assert len(clip) == frames
        assert clip == sorted(clip)
        assert clip[0] >= 0 and clip[-1] < total


@settings(derandomize=True, max_examples=100)
@given(st.integers(1, 400), st.integers(1, 32), st.integers(1, 4), st.integers(2, 6))
def test_dense_clips_reach_from_the_first_frame_to_the_last(total, frames, stride, clips):
    chosen = dense(total, frames, stride, clips)
    assert chosen[0][0] == 0
    if total >= (frames - 1) * stride + 1:
        assert chosen[-1][-1] == total - 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sampling": "densely"}, "'densely'; allowed: uniform, dense, k400, ssv2"),
        ({"frames": 0}, "frames must be at least 1, got 0"),
        ({"stride": -1}, "stride must be at least 1, got -1"),
        ({"sampling": "uniform", "clips": 2}, "2 asked for"),
    ],
)
def test_refusals_name_the_value_and_what_is_allowed(options, words):
    with pytest.raises(TubeletError, match=words):
        sample(**{"sampling": "dense", "total": 10, "frames": 4, "stride": 1, "clips": 1} | options)
