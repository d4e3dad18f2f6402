import pytest
import torch

from tubelet.data.timeline import PacketTable, build_timeline


def timeline(stamps, *, dts=None, rate=25.0, time_base=0.04, keys=(0,), duration=1, stored_order=False):
    packets = PacketTable()
    for index, stamp in enumerate(stamps):
        packets.add(stamp, index if dts is None else dts[index], duration, index in keys)
    return build_timeline(packets, time_base=time_base, rate=rate, stored_order=stored_order)


def test_packets_are_put_in_display_order():
    line = timeline([0, 4, 2, 1, 3, 8, 6, 5, 7], keys=(0, 5))
    assert line.stamps.tolist() == list(range(9))
    assert list(line.keys) == [0, 8]
    assert not line.variable
    assert line.seekable
    assert [line.key_before(index) for index in (0, 7, 8)] == [0, 0, 8]
    assert line.frames_of([0, 3, 8]) == [0, 3, 8]
    assert line.fps == 25
    assert line.duration == pytest.approx(9 / 25)


def test_rounded_time_stamps_are_a_constant_rate():
    line = timeline([0, 33, 67, 100, 133, 167, 200], rate=30.0, time_base=0.001, duration=33)
    assert not line.variable
    assert line.fps == 30


def test_a_variable_rate_is_sampled_by_time():
    # The picture in the docstring: 7 frames from 0 to 30, slots 5 apart.
    line = timeline([0, 2, 4, 10, 25, 27, 30], time_base=0.1, rate=None)
    assert line.variable
    assert line.frames_of(range(7)) == [0, 2, 3, 3, 4, 4, 6]
    assert line.frames_of([0, 2], readable=[0, 1, 6]) == [0, 6]
    assert line.seconds().tolist() == pytest.approx([0, 0.2, 0.4, 1.0, 2.5, 2.7, 3.0])


@pytest.mark.parametrize("stamps", [[None, 1, 2], [0, 0, 1], [None, None, None]])
def test_unusable_time_stamps_mean_no_seeking(stamps):
    line = timeline(stamps)
    assert not line.seekable
    assert len(line) == 3
    assert line.key_before(2) == 0


def test_guessed_presentation_times_are_not_used():
    line = timeline([1, 3, 2, 4], stored_order=True)
    assert line.stamps.tolist() == [0, 1, 2, 3]
    assert not line.seekable


def test_one_frame_and_no_time_at_all():
    line = timeline([None], dts=[None], rate=None, duration=0)
    assert (len(line), line.fps, line.duration) == (1, 25.0, pytest.approx(0.04))
    assert torch.equal(line.seconds(), torch.zeros(1, dtype=torch.float64))
