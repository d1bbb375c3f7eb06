"""What was logged is read in its order; what a crash cut off is noticed, wherever it cut."""

import os
import stat
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gridmm.event_log import (
    MAGIC,
    MAX_PENDING,
    EventLog,
    gaps,
    next_sequence,
    pack,
    read_log,
    read_segment,
    segments,
    unpack,
)
from gridmm.layout import EVENT_SIZE, Ev, Kind
from gridmm.v1.event_log_pb2 import SegmentHeader

HEAD = SegmentHeader(symbol="BTC/USDT", state_version=12, state=b"sealed")
INT64 = st.integers(-(2**63), 2**63 - 1)


def events(count: int, seed: int = 1, step_ms: int = 100) -> np.ndarray:
    """Return events of mixed kinds, one every `step_ms`."""
    rng = np.random.default_rng(seed)
    table = rng.integers(-1_000, 1_000, (count, EVENT_SIZE))
    table[:, Ev.KIND] = rng.choice([Kind.PRICE, Kind.ORDER, Kind.FILL, Kind.TIMER], count)
    table[:, Ev.TIME_MS] = 1_700_000_000_000 + step_ms * np.arange(count)
    table[table[:, Ev.KIND] == Kind.FILL, Ev.TRADE] = 2**62 - 5
    return table


def few(count: int = 12) -> np.ndarray:
    """Return small events, three to a frame, for the tests that try every byte."""
    table = events(count, step_ms=400)
    table[:, Ev.KIND], table[:, 6:] = Kind.PRICE, 0
    return table


def written(folder: Path, table: np.ndarray) -> EventLog:
    log = EventLog(folder)
    log.begin(HEAD)
    for event in table:
        log.append(event)
    return log


@settings(deadline=None)
@given(arrays(np.int64, st.tuples(st.integers(1, 12), st.just(EVENT_SIZE)), elements=INT64))
def test_a_frame_holds_any_integers(table):
    np.testing.assert_array_equal(unpack(pack(table)[8:], EVENT_SIZE), table)


def test_what_was_appended_is_read_in_order(tmp_path):
    table = events(2_500)
    log = written(tmp_path, table)
    assert log.sequence == 2_500
    log.close()
    segment = read_segment(*segments(tmp_path))
    np.testing.assert_array_equal(segment.events, table)
    assert (segment.first, segment.next, segment.torn) == (1, 2_501, None)
    assert (segment.header.symbol, segment.header.state_version, segment.header.state) == (
        "BTC/USDT",
        12,
        b"sealed",
    )
    assert gaps(tmp_path) == []


def test_the_caller_may_reuse_its_array(tmp_path):
    table, log = events(5), EventLog(tmp_path)
    log.begin(HEAD)
    one = np.zeros(EVENT_SIZE, dtype=np.int64)
    for event in table:
        one[:] = event
        log.append(one)
    log.close()
    np.testing.assert_array_equal(read_segment(*segments(tmp_path)).events, table)


def on_disk(folder: Path) -> int:
    return sum(len(segment.events) for segment in read_log(folder))


def test_an_event_is_written_within_a_second(tmp_path):
    """At every moment, whatever is older than a second of the caller's time is on disk."""
    table, log = events(300, step_ms=70), EventLog(tmp_path)
    log.begin(HEAD)
    for i, event in enumerate(table):
        log.append(event)
        times = table[: i + 1, Ev.TIME_MS]
        assert on_disk(tmp_path) >= (times <= times[-1] - 1_000).sum()


def test_memory_is_bounded_while_the_clock_stands_still(tmp_path):
    written(tmp_path, events(MAX_PENDING + 5, step_ms=0))
    assert on_disk(tmp_path) == MAX_PENDING


def test_a_torn_tail_is_noticed_at_every_byte(tmp_path):
    table = few()
    written(tmp_path, table).close()
    (path,) = segments(tmp_path)
    data, cut = path.read_bytes(), tmp_path / "cut.events"
    ends, counts = [], []
    for length in range(len(data) + 1):
        cut.write_bytes(data[:length])
        segment = read_segment(cut)
        np.testing.assert_array_equal(segment.events, table[: len(segment.events)])
        counts.append(len(segment.events))
        if segment.torn is None:
            ends.append(length)
        else:
            assert segment.torn.offset + segment.torn.lost_bytes == length
            assert segment.torn.offset in (0, *ends)
            assert "torn at byte" in str(segment.torn)
    assert counts == sorted(counts) and counts[-1] == len(table)
    assert ends[-1] == len(data) and len(ends) == 4  # the head's end and each frame's


def test_a_damaged_byte_is_noticed_and_what_was_before_it_is_read(tmp_path):
    table = few()
    written(tmp_path, table).close()
    (path,) = segments(tmp_path)
    data = path.read_bytes()
    for place in range(len(MAGIC), len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
        segment = read_segment(path)
        assert segment.torn is not None and segment.torn.offset <= place
        np.testing.assert_array_equal(segment.events, table[: len(segment.events)])


def test_a_crash_leaves_a_gap_that_the_next_session_shows(tmp_path):
    table = events(25)
    written(tmp_path, table)  # never closed
    (path,) = segments(tmp_path)
    os.truncate(path, path.stat().st_size - 1)
    left = next_sequence(tmp_path)
    log = EventLog(tmp_path)
    log.begin(SegmentHeader(symbol="BTC/USDT", first_sequence=26))
    assert log.append(table[0]) == 26
    log.close()
    torn, jump = gaps(tmp_path)
    assert "00000001.events is torn at byte" in torn
    assert jump == f"00000002.events begins with event 26: {left} and later are missing"


def test_a_session_without_a_gap_goes_on_counting(tmp_path):
    written(tmp_path, events(25)).close()
    log = written(tmp_path, events(5))
    assert log.sequence == 30
    log.close()
    assert [(s.header.segment, s.first, s.next) for s in read_log(tmp_path)] == [(1, 1, 26), (2, 26, 31)]
    assert gaps(tmp_path) == []


def test_a_session_that_died_at_its_head_does_not_stop_the_next_one(tmp_path):
    written(tmp_path, events(25)).close()
    EventLog(tmp_path).begin(HEAD)
    os.truncate(segments(tmp_path)[-1], 5)
    assert next_sequence(tmp_path) == 26
    written(tmp_path, events(5)).close()
    assert [s.first for s in read_log(tmp_path)] == [1, 0, 26]
    assert gaps(tmp_path) == [
        "00000002.events is torn at byte 0: its head is missing, 5 bytes cannot be read"
    ]


def test_a_full_segment_asks_for_the_next_one(tmp_path):
    log = EventLog(tmp_path, segment_bytes=20_000)
    log.begin(HEAD)
    for i, event in enumerate(events(2_000)):
        log.append(event)
        if log.full:
            log.begin(SegmentHeader(symbol="BTC/USDT", state_version=i))
    log.close()
    sizes = [path.stat().st_size for path in segments(tmp_path)]
    assert len(sizes) > 3 and max(sizes) < 25_000
    assert on_disk(tmp_path) == 2_000 and gaps(tmp_path) == []


def test_old_segments_are_removed(tmp_path):
    log = EventLog(tmp_path, keep_bytes=60_000)
    for seed in range(12):
        log.begin(HEAD)
        for event in events(500, seed):
            log.append(event)
    log.close()
    kept = [int(path.stem) for path in segments(tmp_path)]
    assert kept == list(range(kept[0], 13)) and 1 < len(kept) < 12
    assert sum(path.stat().st_size for path in segments(tmp_path)[:-1]) <= 60_000
    assert [segment.first for segment in read_log(tmp_path)] == [500 * (number - 1) + 1 for number in kept]


def test_a_log_of_a_program_with_smaller_events_is_read(tmp_path):
    table = events(9)[:, :17]
    path = tmp_path / "00000001.events"
    head = SegmentHeader(format_version=1, event_size=17, first_sequence=1).SerializeToString()
    path.write_bytes(MAGIC + struct.pack("<II", len(head), zlib.crc32(head)) + head + pack(table))
    segment = read_segment(path)
    np.testing.assert_array_equal(segment.events[:, :17], table)
    assert not segment.events[:, 17:].any()


def test_the_log_is_private(tmp_path):
    folder = tmp_path / "log"
    written(folder, events(1)).close()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [stat.S_IMODE(path.stat().st_mode) for path in segments(folder)] == [0o600]


def test_a_file_of_another_kind_or_format_is_refused(tmp_path):
    (tmp_path / "1.events").write_bytes(b"dear diary")
    with pytest.raises(ValueError, match="does not begin with GRIDLOG1"):
        read_segment(tmp_path / "1.events")
    written(tmp_path / "log", events(1)).close()
    (path,) = segments(tmp_path / "log")
    head = SegmentHeader(format_version=2).SerializeToString()
    path.write_bytes(MAGIC + struct.pack("<II", len(head), zlib.crc32(head)) + head)
    with pytest.raises(ValueError, match="has format 2"):
        read_segment(path)


def test_nothing_is_taken_before_a_segment_is_open(tmp_path):
    log = EventLog(tmp_path)
    with pytest.raises(ValueError, match="begin"):
        for event in events(50):
            log.append(event)
    assert list(read_log(tmp_path)) == []
    assert next_sequence(tmp_path) == 1


def test_the_size_of_an_event(tmp_path, note):
    """Quotes as they come, twenty a second."""
    rng = np.random.default_rng(3)
    table = np.zeros((2_000, EVENT_SIZE), dtype=np.int64)
    table[:, Ev.KIND], table[:, Ev.TIME_MS] = (
        Kind.PRICE,
        1_700_000_000_000 + np.cumsum(rng.integers(20, 80, 2_000)),
    )
    table[:, Ev.BID] = 6_000_000 + np.cumsum(rng.choice([0, 0, 0, -3, 2, 1], 2_000))
    table[:, Ev.ASK], table[:, Ev.LAST] = table[:, Ev.BID] + 1, table[:, Ev.BID]
    table[:, Ev.BID_LOTS] = rng.choice([120_000, 80_000, 43_210], 2_000)
    table[:, Ev.ASK_LOTS] = rng.integers(1, 90_000, 2_000)
    written(tmp_path, table).close()
    size = segments(tmp_path)[0].stat().st_size / len(table)
    note(f"event log: {size:.1f} bytes a quote at 20 quotes a second")
    assert size < 20
