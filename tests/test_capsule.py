"""A capsule plays again to the same bytes, says what is missing, and forks exactly where an event was changed."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from zlib import crc32

import pytest

import gridmm
from gridmm.capsule import read_capsule, write_capsule
from gridmm.config import load
from gridmm.errors import BadChecksum, GridmmError, StateError, Truncated, UnknownVersion, UsageError
from gridmm.event_log import _FRAME, MAGIC, read_head, read_segment, segments
from gridmm.feed import Pace
from gridmm.layout import Ev, Kind, Par
from gridmm.model import seal, unseal
from gridmm.parameters import UNWRITTEN
from gridmm.replay import Player, changed, fork, play, replay
from gridmm.run import Signals, assemble, files_of
from gridmm.run import play as trade
from gridmm.tables import open_database
from gridmm.v1.capsule_pb2 import Capsule
from gridmm.v1.event_log_pb2 import SegmentHeader

CHILD = Path(__file__).with_name("incident_child.py")
MARK = "no-reader-may-see-this"
OPTIONS = {"feed.duration": "90 min", "grid.price_interval": "10 bps", "instrument.maker_fee": "1 bps"}


def session(db: Path, url: str = "", **options: str) -> None:
    """Trade an hour and a half of the demo market with the Durable engine; on a server where `url` names one."""
    said = {**OPTIONS, **{name.replace("__", "."): value for name, value in options.items()}}
    environ = {"GRIDMM_API_KEY": MARK, "GRIDMM_API_SECRET": MARK}
    config = load(options={name: (value, "test") for name, value in said.items()}, environ=environ)
    with ExitStack() as stack:
        server = open_database(url) if url else None
        if server is not None:
            stack.callback(server.dispose)
        run = assemble(config, db, stack, server=server, durable=True, synchronous="OFF")
        run.begin()
        asyncio.run(trade(run, Signals(), Pace("max", lambda: 0, asyncio.sleep)))


def taken(
    db: Path | str, around: str, before: str = "20 min", after: str = "20 min", **more: Path
) -> Capsule:
    with gridmm.connect(db, **more) as looked:  # type: ignore[operator]
        return looked.capsule(around, before, after)


@pytest.fixture(scope="module")
def traded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sessions, the second of which goes on with the first."""
    db = tmp_path_factory.mktemp("capsule") / "grid.sqlite"
    session(db)
    session(db)
    return db


def test_two_sessions_play_again_from_the_first_event_to_the_saved_state(traded: Path) -> None:
    capsule = taken(traded, "1 s", before="9 h", after="1 h")
    done = replay(capsule)
    assert done.agrees and not done.notes and not capsule.missing
    assert (len(capsule.parts), done.states) == (2, 1)
    assert done.decisions == len(capsule.decisions) > 50 and done.orders > done.decisions
    with gridmm.connect(traded) as looked:  # type: ignore[operator]
        assert [one.SerializeToString() for one in looked.records()] == [
            one.SerializeToString() for one in capsule.decisions
        ]
        assert capsule.saved_state and unseal(capsule.saved_state) == looked.state()


@pytest.mark.parametrize("around", ["20 min", "1 h", "95 min", "2 h", "160 min"])
def test_a_stretch_begins_with_a_state_that_was_saved(traded: Path, around: str, tmp_path: Path) -> None:
    """The State before is the one after the last decision before the stretch, reached by playing."""
    capsule = taken(traded, around)
    file = tmp_path / "x.capsule"
    write_capsule(file, capsule)
    assert read_capsule(file) == capsule
    assert file.stat().st_mode & 0o777 == 0o600
    done = replay(read_capsule(file))
    assert done.agrees and done.decisions == len(capsule.decisions) > 0
    with gridmm.connect(traded) as looked:  # type: ignore[operator]
        hashes = {one.event_sequence: one.hash_after for one in looked.records()}
    for part in capsule.parts:
        if part.events_before:
            assert hashes[part.head.first_sequence - 1] == part.head.state_hash
            assert part.decisions_before > 0
        else:
            assert (
                part.head.state
                == read_segment(segments(files_of(traded)[1])[part.head.segment - 1]).header.state
            )
    times = [one.time_ms for one in play(capsule)]
    assert times[0] <= capsule.from_ms + 60_000 and times[-1] <= capsule.to_ms


def test_it_is_the_same_on_postgresql(tmp_path: Path, database: str, traded: Path) -> None:
    """State, decisions and ledger on a server, the event log beside the process; and the same bytes as on SQLite."""
    session(tmp_path / "fleet", database)
    session(tmp_path / "fleet", database)
    events = files_of(tmp_path / "fleet")[1]
    capsule = taken(database, "1 s", before="9 h", after="1 h", events=events)
    assert replay(capsule).agrees
    other = taken(traded, "1 s", before="9 h", after="1 h")
    assert [one.SerializeToString() for one in capsule.decisions] == [
        one.SerializeToString() for one in other.decisions
    ]
    with pytest.raises(UsageError, match="beside the process"):
        taken(database, "1 h")


def test_a_recorded_decision_that_is_not_made_again_is_named(traded: Path) -> None:
    capsule = taken(traded, "1 h")
    for plant, said in (
        (
            lambda record: setattr(record.rows[0], "price_ticks", record.rows[0].price_ticks + 1),
            "row 1: price_ticks was",
        ),
        (lambda record: setattr(record, "hash_after", "0" * 32), "hash_after was 00000000"),
        (lambda record: setattr(record, "hash_before", "0" * 32), "hash_before was 00000000"),
        (lambda record: setattr(record, "event_sequence", record.event_sequence - 1), "it is not made again"),
        (lambda record: record.rows.add(), "rows were recorded and there are now"),
    ):
        other = Capsule()
        other.CopyFrom(capsule)
        plant(other.decisions[2])
        done = replay(other)
        assert not done.agrees and said in done.difference, done
        assert f"decision {capsule.decisions[2].sequence}, after event" in done.difference
        assert done.decisions == 3
    del capsule.decisions[2]
    assert "a decision that was not recorded" in replay(capsule).difference


def test_another_state_or_parameter_does_not_pass(traded: Path) -> None:
    capsule = taken(traded, "1 s", before="9 h", after="1 h")
    for part in capsule.parts:
        part.head.parameters[Par.CELL_ATOMS] *= 3
    assert "quantity_lots" in replay(capsule).difference
    capsule = taken(traded, "1 s", before="9 h", after="1 h")
    state = unseal(capsule.saved_state)
    state.market.now_ms += 1  # no hash covers the time; the bytes do
    capsule.saved_state = seal(state)
    assert "the State is not the one that was saved" in replay(capsule).difference
    del capsule.decisions[:]
    capsule.saved_state = b""
    done = replay(capsule)
    assert not done.agrees and done.unproven > 50 and "nothing was there to compare with" in str(done)


def test_every_flipped_byte_and_every_cut_is_refused(traded: Path, tmp_path: Path) -> None:
    file, other = tmp_path / "whole.capsule", tmp_path / "hurt.capsule"
    write_capsule(file, taken(traded, "1 h", before="1 min", after="1 min"))
    data = file.read_bytes()
    for place in [*range(40), *range(40, len(data), 97), *range(len(data) - 12, len(data))]:
        other.write_bytes(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        with pytest.raises((BadChecksum, Truncated, UsageError)):
            read_capsule(other)
    for size in [0, 1, 9, *range(17, len(data), 101), len(data) - 1]:
        other.write_bytes(data[:size])
        with pytest.raises((Truncated, UsageError)):
            read_capsule(other)
    other.write_bytes(data[: len(data) // 2])
    with pytest.raises(Truncated, match=r"ends too early.*Copy it again"):
        read_capsule(other)
    with pytest.raises(UsageError, match="File exists"):
        write_capsule(file, Capsule())
    assert file.read_bytes() == data


def test_a_newer_format_says_so(traded: Path, tmp_path: Path) -> None:
    capsule = taken(traded, "1 h")
    capsule.format_version, capsule.code_version = 2, "9.9"
    write_capsule(tmp_path / "new.capsule", capsule)
    with pytest.raises(UnknownVersion, match=r"gridmm 9\.9 wrote format 2"):
        read_capsule(tmp_path / "new.capsule")
    del capsule.parts[0].head.parameters[:]
    with pytest.raises(UnknownVersion, match="parameters were not kept then"):
        replay(capsule)
    capsule.parts[0].head.state = b""
    with pytest.raises(GridmmError, match="begins without a State"):
        Player(capsule.parts[0].head)


def test_no_secret_is_in_log_or_capsule(tmp_path: Path) -> None:
    db = tmp_path / "grid.sqlite"
    session(db, account__name="account-4711", feed__duration="20 min")
    capsule = taken(db, "10 min")
    write_capsule(tmp_path / "x.capsule", capsule)
    for path in [*files_of(db)[1].iterdir(), tmp_path / "x.capsule"]:
        assert MARK.encode() not in path.read_bytes() and b"4711" not in path.read_bytes(), path
    said = capsule.parts[0].head.config
    assert 'price_interval = "10 bps"' in said and not any(name in said for name in UNWRITTEN)


def test_the_log_of_another_grid_is_refused(traded: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.sqlite"
    session(other, instrument__symbol="ETH/USDT:USDT", feed__duration="20 min")
    with pytest.raises(UsageError, match="the log of a grid on ETH/USDT:USDT, and not that of BTC"):
        taken(traded, "10 min", "9 h", "9 h", events=files_of(other)[1])
    with pytest.raises(UsageError, match="holds no event log"):
        taken(traded, "10 min", events=tmp_path)
    (tmp_path / "00000001.events").write_bytes(b"something else")
    with pytest.raises(StateError, match="is not a segment of an event log"):
        taken(traded, "10 min", events=tmp_path)


# ---- changed events


def test_a_changed_price_forks_exactly_there(traded: Path) -> None:
    capsule = taken(traded, "1 h")
    plain = list(play(capsule))
    assert fork(plain, play(capsule)).state is None
    prices = [one for one in plain if one.kind == "PRICE" and one.number > plain[0].number + 100]
    at_once = 0
    for one in prices[:: len(prices) // 7]:
        high = int(one.ev[Ev.BID]) + 3_000
        story = changed(capsule, one.number, BID=high, ASK=high + 1, LAST=high)
        found = fork(plain, play(story))
        assert found.state is not None and found.state.number == one.number
        assert found.decision is not None and found.decision.number >= one.number
        at_once += found.decision.number == one.number and found.one is None and found.other is not None
        assert story.changed == [one.number] and not capsule.changed
        assert "was changed by hand" in replay(story).notes[0]
    assert at_once >= 5, "a price that runs away moves the window, and the window its orders"


def test_a_fill_that_never_came_forks_exactly_there(traded: Path) -> None:
    capsule = taken(traded, "20 min")
    plain = list(play(capsule))
    fill = next(one for one in plain if one.kind == "FILL")
    found = fork(plain, play(changed(capsule, fill.number, KIND=Kind.TIMER)))
    assert found.state is not None and found.state.number == fill.number
    assert found.decision is not None
    with pytest.raises(UsageError, match="not in the capsule"):
        changed(capsule, 10**9)


# ---- crashes


@contextmanager
def child(db: Path, *options: str) -> Iterator[subprocess.Popen]:
    """Run a Durable session in a process of its own; it is gone afterwards."""
    command = [sys.executable, str(CHILD), str(db), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def killed(db: Path, *options: str) -> None:
    with child(db, *options) as process:
        process.communicate(timeout=120)
        assert process.returncode == -9, process.returncode


def test_across_a_kill_and_a_restart(tmp_path: Path) -> None:
    """The events of the last second are gone with the process, the decisions on them are not; the capsule says so."""
    db = tmp_path / "grid.sqlite"
    killed(db, "--die-after-commit", "15")
    session(db)
    capsule = taken(db, "1 s", before="9 h", after="1 h")
    assert [part.head.incarnation for part in capsule.parts] == [1, 2]
    lost = "\n".join(capsule.missing)
    assert "the events of decision" in lost and "segment 1 ends before" in lost
    assert f"to {capsule.parts[1].head.first_sequence - 1}: segment 1 ends before them" in lost
    done = replay(capsule)
    assert done.agrees and done.decisions == len(capsule.decisions) > 15
    with gridmm.connect(db) as looked:  # type: ignore[operator]
        gone = len(list(looked.records())) - done.decisions
    assert gone >= 1, "nothing was lost: the test kills at the wrong moment"


def test_killed_and_not_started_again(tmp_path: Path) -> None:
    db = tmp_path / "grid.sqlite"
    killed(db, "--die-after-commit", "15")
    files = sorted(path.name for path in tmp_path.iterdir())
    capsule = taken(db, "1 s", before="9 h", after="1 h")
    assert any(
        "which the saved State knows: not written yet, or lost in a crash" in one for one in capsule.missing
    )
    assert replay(capsule).agrees
    assert sorted(path.name for path in tmp_path.iterdir()) == files


def test_a_plan_that_was_never_saved_is_no_difference(tmp_path: Path) -> None:
    """Killed between the event, which is in the log, and the commit: the plan was not saved, and so nothing was sent."""
    db = tmp_path / "grid.sqlite"
    killed(db, "--die-before-commit", "15")
    session(db)
    capsule = taken(db, "1 s", before="9 h", after="1 h")
    done = replay(capsule)
    assert done.agrees and done.unproven == 1
    assert "died before it saved it, and nothing was sent" in "\n".join(done.notes)
    part = capsule.parts[0]
    part.ends = False  # as if the log went on: then a record is missing
    assert "a decision that was not recorded" in replay(capsule).difference


def test_a_torn_log_is_cut_where_it_is_torn(tmp_path: Path, traded: Path) -> None:
    db = tmp_path / "grid.sqlite"
    session(db)
    whole = taken(db, "1 s", before="9 h", after="1 h")
    path = segments(files_of(db)[1])[0]
    data = path.read_bytes()
    path.write_bytes(data[:-1_000])
    capsule = taken(db, "1 s", before="9 h", after="1 h")
    assert any("torn at byte" in one for one in capsule.missing)
    assert any("which the saved State knows" in one for one in capsule.missing)
    done = replay(capsule)
    assert done.agrees and 0 < done.decisions < len(whole.decisions)
    path.write_bytes(data[: len(data) // 2] + b"\x00\x00\x00\x00" + data[len(data) // 2 + 4 :])
    assert replay(taken(db, "1 s", before="9 h", after="1 h")).agrees


def test_a_log_that_does_not_fit_its_records_is_taken_from_its_head(tmp_path: Path) -> None:
    """Where the way to the stretch already differs, that way is the evidence."""
    db = tmp_path / "grid.sqlite"
    session(db)
    path = segments(files_of(db)[1])[0]
    head = read_head(path)
    assert head is not None
    body = SegmentHeader()
    body.CopyFrom(head)
    body.parameters[Par.CELL_ATOMS] *= 3
    old, new = head.SerializeToString(), body.SerializeToString()
    rest = path.read_bytes()[len(MAGIC) + _FRAME.size + len(old) :]
    path.write_bytes(MAGIC + _FRAME.pack(len(new), crc32(new)) + new + rest)
    capsule = taken(db, "10 min")
    assert (
        capsule.parts[0].head.first_sequence == 1
        and "so segment 1 is here from its head" in capsule.missing[0]
    )
    assert not replay(capsule).agrees


# ---- the commands


def typed(*words: str, folder: Path) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "gridmm", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    return done.returncode, done.stdout, done.stderr


def test_the_commands_take_and_play(traded: Path, tmp_path: Path) -> None:
    code, out, err = typed("capsule", "--db", str(traded), "--around", "20 min", "--json", folder=tmp_path)
    assert code == 0, err
    said = json.loads(out)
    assert said["decisions"] > 1 and (tmp_path / said["file"]).stat().st_size == said["bytes"]
    code, out, err = typed("replay", said["file"], folder=tmp_path)
    assert code == 0 and f"{said['decisions']} decisions with" in out and "all agree byte for byte" in out, (
        out,
        err,
    )
    code, out, _ = typed("replay", said["file"], "--json", "--decisions", folder=tmp_path)
    assert code == 0 and len(json.loads(out)["decisions_made"]) == said["decisions"]
    capsule = read_capsule(tmp_path / said["file"])
    capsule.decisions[1].rows[0].quantity_lots += 1
    write_capsule(tmp_path / "other.capsule", capsule)
    code, out, _ = typed("replay", "other.capsule", folder=tmp_path)
    assert (
        code == 3
        and f"decision {capsule.decisions[1].sequence}, after event" in out
        and "quantity_lots" in out
    )
    (tmp_path / "half.capsule").write_bytes((tmp_path / said["file"]).read_bytes()[:-5])
    code, _, err = typed("replay", "half.capsule", folder=tmp_path)
    assert code == 3 and "ends too early" in err
    code, _, err = typed("capsule", "--db", str(traded), "--around", "noon", folder=tmp_path)
    assert code == 2 and "it is not a time" in err
    code, _, err = typed("capsule", "--db", str(traded), "--around", "2031-01-01", folder=tmp_path)
    assert code == 2 and "nothing happened" in err
