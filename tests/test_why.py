"""What led to an order is computed again, agrees with its record, and a log that was changed is found out."""

from __future__ import annotations

import json
import shutil
import time
import zlib
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from gridmm.cli import run_command
from gridmm.config import Secrets, load
from gridmm.config_plan import plan_of
from gridmm.errors import UsageError
from gridmm.event_log import _FRAME, MAGIC, pack, read_segment, segments
from gridmm.layout import Ev, Kind
from gridmm.order_names import Placed, all_placed, cell_named, orders_named
from gridmm.read_only import Reader
from gridmm.run import files_of
from gridmm.scene import Chain
from gridmm.v1.vocabulary_pb2 import LegName
from gridmm.vocabulary import Reason
from gridmm.why import why
from gridmm.why_not import why_not
from test_capsule import child, killed, session
from test_live import served, typed


@pytest.fixture(scope="module")
def traded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two Durable sessions, the second of which goes on with the first."""
    db = tmp_path_factory.mktemp("why") / "grid.sqlite"
    session(db)
    session(db)
    return db


def chain_of(reader: Reader, one: Placed) -> Chain:
    return why(reader, one, reader.decided_since("")[1])


def facts(chain: Chain, name: str) -> dict:
    return next(link.facts for link in chain.links if link.name == name)


def names(chain: Chain) -> list[str]:
    return [link.name for link in chain.links]


def rewrite(path: Path, change: object) -> None:
    """Write a segment again with other events, whole and with the right checksums: only a replay can tell."""
    found = read_segment(path)
    events = found.events.copy()
    change(events)  # type: ignore[operator]
    body = found.header.SerializeToString()
    head = MAGIC + _FRAME.pack(len(body), zlib.crc32(body)) + body
    path.write_bytes(head + b"".join(pack(events[n : n + 500]) for n in range(0, len(events), 500)))


def copied(db: Path, folder: Path) -> Path:
    """Return a copy of a grid's files."""
    for path in db.parent.iterdir():
        (shutil.copytree if path.is_dir() else shutil.copy)(path, folder / path.name)
    return folder / db.name


def test_every_twentieth_order_has_a_chain_that_agrees(traded: Path) -> None:
    with Reader(str(traded)) as reader:
        placed = all_placed(reader.decided_since("")[1])
        assert len(placed) > 60
        legs = set()
        for one in placed[::20]:
            chain, row = chain_of(reader, one), one.row
            assert chain.proof.agrees and not chain.proof.missing, str(chain)
            assert "hashes agree" in str(chain.proof)
            assert facts(chain, "order")["price"] == facts(chain, "price")["price"]
            assert facts(chain, "order")["quantity"] == facts(chain, "quantity")["quantity"]
            assert facts(chain, "event")["number"] == one.record.event_sequence
            assert facts(chain, "decision")["hash_after"] == one.record.hash_after
            assert facts(chain, "lattice")["epoch"] == row.epoch and "atr" in facts(chain, "lattice")
            assert ("centre" in names(chain)) == (row.leg == LegName.LEG_NAME_OPEN)
            if row.leg == LegName.LEG_NAME_OPEN:
                assert facts(chain, "centre")["first_cell"] <= row.cell <= facts(chain, "centre")["last_cell"]
            legs.add(row.leg)
            json.dumps(chain.json())
        assert legs == {LegName.LEG_NAME_OPEN, LegName.LEG_NAME_CLOSE}


def test_what_became_of_an_order_is_what_the_books_say(traded: Path) -> None:
    with Reader(str(traded)) as reader:
        placed = all_placed(reader.decided_since("")[1])
        fills = {one.client_id for one in reader.books.store.fills()}
        for one in placed[::15]:
            said = facts(chain_of(reader, one), "since")["events"]
            assert any(what["what"].startswith("FILL:") for what in said) == (one.row.client_id in fills)
        cancels = {
            row.client_id for record in reader.decided_since("")[1] for row in record.rows if row.action == 1
        }
        withdrawn = next(one for one in placed if one.row.client_id in cancels)
        assert any("withdrawn by decision" in line for line in str(chain_of(reader, withdrawn)).splitlines())


def test_a_log_with_a_changed_event_is_found_out(traded: Path, tmp_path: Path) -> None:
    """One price is another: the segment is whole, its checksums fit, and the hashes of the decisions do not."""
    db = copied(traded, tmp_path)
    path = segments(files_of(db)[1])[0]

    def raise_a_price(events: np.ndarray) -> None:
        n = int(np.flatnonzero(events[:, Ev.KIND] == Kind.PRICE)[3_000])
        events[n, [Ev.BID, Ev.ASK, Ev.LAST]] += 3_000

    rewrite(path, lambda events: None)
    with Reader(str(db)) as reader:
        last = [one for one in all_placed(reader.decided_since("")[1]) if one.record.event_sequence < 8_000][
            -1
        ]
        assert chain_of(reader, last).proof.agrees, "written again as it was, nothing differs"
    rewrite(path, raise_a_price)
    with Reader(str(db)) as reader:
        chain = chain_of(reader, last)
        assert not chain.proof.agrees and "the hashes DISAGREE: " in str(chain)
        assert "Do not trust the numbers above" in str(chain)
    assert run_command(["why", "--db", str(db), last.row.client_id]) == 3
    assert run_command(["why", "--db", str(traded), last.row.client_id]) == 0
    assert run_command(["why-not", "59000", "--db", str(db), "--at", "2 h"]) == 3
    assert run_command(["why-not", "59000", "--db", str(traded), "--at", "2 h"]) == 0


def test_without_the_log_the_record_says_what_it_knows(traded: Path, tmp_path: Path) -> None:
    shutil.copy(traded, tmp_path / "grid.sqlite")
    with Reader(str(tmp_path / "grid.sqlite")) as reader:
        one = next(o for o in all_placed(reader.decided_since("")[1]) if o.record.sequence > 20)
        chain = chain_of(reader, one)
    assert chain.proof.missing == ["there is no event log here"]
    assert names(chain) == ["order", "decision", "since"]
    assert "formulas need the event log" in str(chain) and "nothing was replayed" in str(chain)


def test_killed_the_tail_is_named(tmp_path: Path) -> None:
    """The last decision was saved and its event was not written: the record speaks, and the gap is named."""
    db = tmp_path / "grid.sqlite"
    killed(db, "--die-after-commit", "15")
    before = sorted((path.name, path.stat().st_size) for path in tmp_path.rglob("*"))
    with Reader(str(db)) as reader:
        placed = all_placed(reader.decided_since("")[1])
        chain = chain_of(reader, placed[-1])
        assert "is not in segment 1, which ends with event" in chain.proof.missing[0]
        assert chain_of(reader, placed[0]).proof.agrees
    assert sorted((path.name, path.stat().st_size) for path in tmp_path.rglob("*")) == before


def test_names(traded: Path) -> None:
    assert cell_named("-3") == (None, -3) and cell_named("2/-3") == (2, -3) and cell_named("12") == (None, 12)
    assert cell_named("1234") is None and cell_named("GM5Y") is None and cell_named("2/") is None
    with Reader(str(traded)) as reader:
        placed = all_placed(reader.decided_since("")[1])
        one = placed[40].row
        slot = orders_named(reader, f"{one.epoch}/{one.cell}", placed)
        assert slot[0].row.leg == LegName.LEG_NAME_OPEN
        assert {(o.row.epoch, o.row.cell) for o in slot} == {(one.epoch, one.cell)}
        with pytest.raises(UsageError, match="are called so"):
            orders_named(reader, "GM", placed)
        with pytest.raises(UsageError, match="on record is called so"):
            orders_named(reader, "NOBODY", placed)
        with pytest.raises(UsageError, match=r"no order of it is on record.*Slots: "):
            orders_named(reader, "77/5", placed)


def test_the_level_was_empty_for_a_reason_until_then(traded: Path) -> None:
    with Reader(str(traded)) as reader:
        placed = all_placed(reader.decided_since("")[1])
        found = [
            facts(chain_of(reader, one), "until then")
            for one in placed[25:60:6]
            if one.row.leg == 1 and "until then" in names(chain_of(reader, one))
        ]
    assert found and all(one["reason"] in Reason.__members__ for one in found)


def test_beside_the_process_that_trades(tmp_path: Path) -> None:
    """Asked again and again while the process goes on: answers agree, or say what is not written yet; it is not hurt."""
    db = tmp_path / "grid.sqlite"
    (tmp_path / "new.toml").write_text('[grid]\nmax_position = "8 %"\n[instrument]\nmaker_fee = "1 bps"\n')
    wanted, asked = load(tmp_path / "new.toml", environ={}), 0
    with child(db, "--pause", "0.4") as process:
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
        end = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < end:
            try:
                with Reader(str(db)) as reader:
                    records = reader.decided_since("")[1]
                    placed = all_placed(records)
                    if not placed:
                        continue
                    chain, answer = why(reader, placed[-1], records), why_not(reader, Decimal(58_000))
                    assert not chain.proof.difference and not answer.proof.difference
                    assert chain.proof.agrees or chain.proof.missing
                    assert answer.proof.agrees or answer.proof.events < 100 or answer.proof.missing
                    assert plan_of(reader, wanted, Secrets({})).answer == "done"
                    asked += 1
            except UsageError as error:
                assert "has saved nothing yet" in str(error) or "no grid" in str(error), error
        assert process.wait(60) == 0 and asked > 5, asked
    with Reader(str(db)) as reader:
        assert why_not(reader, Decimal(58_000)).proof.agrees


@pytest.mark.timeout(300)
def test_of_a_grid_on_an_exchange(tmp_path: Path) -> None:
    """The ccxt client has traded over the wire; what led to its orders is made again as that of a recording."""
    (tmp_path / "grid.toml").write_text(
        '[grid]\nmode = "long"\nmax_position = "10 %"\n[instrument]\nsymbol = "BTC/USDT:USDT"\n'
    )
    with served(tmp_path) as words:
        done = typed(
            tmp_path, *words, "--config", "grid.toml", "--duration", "8", "--json", "--db", "live.sqlite"
        )
        assert done.returncode == 0, done.stderr
    with Reader(str(tmp_path / "live.sqlite")) as reader:
        records = reader.decided_since("")[1]
        placed = all_placed(records)
        for one in (placed[0], placed[-1]):
            chain = why(reader, one, records)
            assert chain.proof.agrees and not chain.proof.missing, str(chain)
            assert any("ACCEPTED" in event["what"] for event in facts(chain, "since")["events"])
        answer = why_not(reader, Decimal(10))
        assert answer.proof.agrees and answer.reason in ("OUTSIDE", "PRICE_BOUNDS")
        plan = plan_of(reader, load(tmp_path / "grid.toml", environ={}), Secrets({}))
        assert plan.changes == [] and not plan.notes and plan.answer == "done"


def test_the_command(traded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Reader(str(traded)) as reader:
        one = all_placed(reader.decided_since("")[1])[40].row
    for words in ([f"{one.epoch}/{one.cell}"], [one.client_id], ["--id", one.client_id[-5:]]):
        assert run_command(["why", *words, "--db", str(traded), "--json"]) == 0
        said = json.loads(capsys.readouterr().out)
        assert said[0]["links"]["order"]["cell"] == one.cell and said[0]["proof"]["agrees"]
        assert (len(words) == 1 and "/" in words[0]) or [chain["client_id"] for chain in said] == [
            one.client_id
        ]
        assert {"event", "lattice", "price", "quantity", "decision", "since"} <= set(said[0]["links"])
    for words in (["NOBODY"], ["-200"], ["--id", "-3"], ["GM"]):
        assert run_command(["why", *words, "--db", str(traded)]) == 2, words
    assert run_command(["why", "-3", "--db", "nowhere.sqlite"]) == 2
    assert capsys.readouterr().err.count("\n") == 5
