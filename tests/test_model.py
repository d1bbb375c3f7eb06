"""A State comes back as it was saved, or it is refused with the reason and what to do."""

import time
from collections.abc import Generator
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridmm.errors import BadChecksum, GridmmError, StateError, Truncated, UnknownVersion, WrongSymbol
from gridmm.grid import MILLION, open_epoch
from gridmm.layout import (
    CLOSE,
    EVENT_SIZE,
    HASHED_VARS,
    OPEN,
    PAR_SIZE,
    Account,
    Col,
    Core,
    Ev,
    Kind,
    Leg,
    Par,
    Ret,
    Var,
    empty_core,
)
from gridmm.model import core_hash, from_state, seal, to_state, unseal
from gridmm.names import Ids, Meta
from gridmm.slot_words import PositionStatus, SlotStatus
from gridmm.step import advance, step
from gridmm.units import Instrument
from gridmm.v1 import vocabulary_pb2 as words
from gridmm.v1.state_pb2 import State
from gridmm.vocabulary import Action as PlanAction
from gridmm.vocabulary import Mode, Order, Reason, Report, Risk, Stop, Trigger, Trip

FIXTURE = Path(__file__).parent / "fixtures" / "state_v1.bin"
BTC = Instrument("BTC/USDT", "spot", Decimal("0.1"), Decimal("0.00001"), min_notional=Decimal(5))
INT64 = np.iinfo(np.int64)
EXTREMES = (0, 1, -1, INT64.max, INT64.min, 2**53 + 1, -(2**31) - 1)


def same(one: Core, other: Core) -> None:
    """Compare everything but the scratch arrays, and name the array that differs."""
    for name in Core._fields:
        if name not in ("plan", "holes"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


def back(core: Core, meta: Meta) -> tuple[Core, Meta]:
    """Return what a restart would read."""
    return from_state(unseal(seal(to_state(core, meta)), meta.instrument.symbol))


def wild_core(seed: int, slots: int, loose: int, wild: float, geometric: bool) -> Core:
    """Return a core whose used cells hold anything that fits them, a share `wild` of them at the extremes."""
    rng, core = np.random.default_rng(seed), empty_core()

    def fill(array: np.ndarray) -> None:
        extreme = rng.choice(np.array(EXTREMES), array.shape)
        array[...] = np.where(
            rng.random(array.shape) < wild, extreme, rng.integers(-(10**12), 10**12, array.shape)
        )

    def words_in(array: np.ndarray, rows: dict[int, list[int]]) -> None:
        for row, values in rows.items():
            array[row] = rng.choice(values, array.shape[1])

    fill(core.v)
    v, reasons = core.v, [int(reason) for reason in Reason]
    v[[Var.SLOTS, Var.RETIRED, Var.STRAYS, Var.BOOK]] = slots, loose, min(loose, 3), loose
    v[Var.RISK], v[Var.STOP] = rng.choice(list(Risk)), rng.choice(list(Stop))
    v[Var.EPOCH], par = 0, np.zeros(PAR_SIZE, dtype=np.int64)
    par[Par.GEOMETRIC] = geometric
    open_epoch(core, par, int(rng.integers(10**4, 10**9)), 5_000 if geometric else 11, 0)
    sequences = rng.permutation(2**20)[: 2 * slots + loose + 3] + 1
    for array in (
        core.slots[:, :slots],
        core.retired[:, :loose],
        core.strays[:, : min(loose, 3)],
        core.book[:, :loose],
    ):
        fill(array)
    used = core.slots[:, :slots]
    words_in(used, {Col.EPOCH: [1, 2**20 - 1], Col.CELL: [-(2**17), -1, 0, 5], Col.DIR: [-1, 1]})
    words_in(used, dict.fromkeys((Col.WHY, Col.WHY_CLOSE, OPEN + Leg.WHY, CLOSE + Leg.WHY), reasons))
    statuses = [int(status) for status in Order]
    for base, numbers in ((OPEN, sequences[:slots]), (CLOSE, sequences[slots : 2 * slots])):
        words_in(used, {base + Leg.SIDE: [-1, 0, 1], base + Leg.STATUS: statuses})
        used[base + Leg.SEQ] = np.where(rng.random(slots) < 0.8, numbers, 0)
    for array in (core.retired[:, :loose], core.strays[:, : min(loose, 3)]):
        words_in(array, {Ret.DIR: [-1, 1], Ret.LEG: [0, 1], Ret.SIDE: [-1, 1], Ret.STATUS: statuses})
        array[Ret.SEQ] = sequences[2 * slots : 2 * slots + array.shape[1]]
    rings = (core.ranges, core.refs, core.moves, core.trades, core.fundings, core.risk, core.watch)
    for ring in rings[:-2]:
        fill(ring[: rng.integers(0, len(ring) + 1)])
    fill(core.risk)
    fill(core.watch[:, : rng.integers(0, core.watch.shape[1] + 1)])
    return core


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    slots=st.integers(0, 12),
    loose=st.integers(0, 12),
    wild=st.sampled_from((0.0, 0.3, 1.0)),
    geometric=st.booleans(),
)
def test_a_core_comes_back_as_it_was(seed, slots, loose, wild, geometric):
    core = wild_core(seed, slots, loose, wild, geometric)
    meta = Meta(
        BTC,
        instance=7,
        incarnation=5,
        geometric=geometric,
        version=2**63,
        event_sequence=9,
        config_hash="c",
        code_version="v",
    )
    loose_orders = {int(sequence): Ids(f"old-{sequence}", "x") for sequence in core.retired[Ret.SEQ, :loose]}
    meta.ids.update(loose_orders)
    meta.stray_ids.update({int(s): Ids(f"stray-{s}") for s in core.strays[Ret.SEQ, : core.v[Var.STRAYS]]})
    read, names = back(core, meta)
    same(core, read)
    assert names == meta
    assert core_hash(read) == core_hash(core)
    same(back(read, names)[0], core)


def test_full_arrays_come_back():
    core = wild_core(3, slots=512, loose=256, wild=0.1, geometric=False)
    core.v[Var.BOOK] = core.book.shape[1]
    core.book[:] = np.arange(core.book.size).reshape(core.book.shape)
    for ring in (core.ranges, core.refs, core.moves, core.trades, core.fundings):
        ring[:] = -1
    core.watch[:] = INT64.min
    same(core, back(core, Meta(BTC, 7, 5))[0])


def test_an_empty_core_comes_back():
    same(empty_core(), back(empty_core(), Meta(BTC))[0])


def grid_par() -> np.ndarray:
    """Return the parameters of a small long grid."""
    par = np.zeros(PAR_SIZE, dtype=np.int64)
    par[[Par.MODE, Par.BUYS, Par.SELLS, Par.BASE]] = Mode.LONG, 3, 3, 50
    par[[Par.SCALE_PPM, Par.CAP_PPM, Par.CHANGE_PCT]] = MILLION, 4 * MILLION, 20
    par[[Par.HALF_ATOMS, Par.CELL_ATOMS, Par.MAX_LOTS, Par.GROSS_LOTS]] = 1, 2 * 60_000 * 10, 100, 100
    par[[Par.MAX_ORDERS, Par.MAX_EPOCHS, Par.QUERY_AFTER_MS, Par.ATR_LENGTH, Par.REF_LENGTH]] = (
        100,
        3,
        5_000,
        5,
        9,
    )
    return par


def market(seed: int, count: int) -> Generator[np.ndarray, np.ndarray, None]:
    """Yield events of a random walk, and answers to the plan that was sent back."""
    rng, price = np.random.default_rng(seed), 60_000
    plan = np.zeros((0, 0))
    for i in range(count):
        price += int(rng.integers(-30, 31))
        event = np.zeros(EVENT_SIZE, dtype=np.int64)
        event[Ev.TIME_MS] = 1_000 * (i + 1)
        if i % 10 == 9:
            event[[Ev.KIND, Ev.HIGH, Ev.LOW, Ev.CLOSE]] = Kind.CANDLE, price + 40, price - 40, price
        elif i % 50 == 7:
            event[[Ev.KIND, Ev.CODE, Ev.ARG, Ev.ARG2]] = Kind.ACCOUNT, Account.FUNDING, i, -3
        else:
            event[[Ev.KIND, Ev.BID, Ev.ASK, Ev.LAST]] = Kind.PRICE, price - 1, price + 1, price
        plan = yield event
        for action, seq, epoch, cell, leg, side, limit, lots, *_, direction in plan.T.tolist():
            answer = np.zeros(EVENT_SIZE, dtype=np.int64)
            answer[[Ev.KIND, Ev.TIME_MS, Ev.SEQ, Ev.EPOCH, Ev.CELL]] = (
                Kind.ORDER,
                event[Ev.TIME_MS],
                seq,
                epoch,
                cell,
            )
            answer[[Ev.LEG, Ev.SIDE, Ev.PRICE, Ev.LOTS, Ev.DIRECTION]] = leg, side, limit, lots, direction
            reports = [Report.CANCELED] if action == PlanAction.CANCEL else [Report.ACCEPTED, Report.FILLED]
            cum = -1 if action == PlanAction.CANCEL else 0
            for report in reports[: 1 + int(rng.random() < 0.3)]:
                answer[[Ev.REPORT, Ev.CUM]] = report, lots if report == Report.FILLED else cum
                yield answer.copy()


@pytest.mark.parametrize("seed", range(5))
def test_a_restart_decides_as_if_it_had_not_happened(seed):
    par, core = grid_par(), empty_core()
    meta, walk = Meta(BTC, instance=7, incarnation=1), market(seed, 200)
    event, steps = next(walk), 0
    while True:
        if steps % 37 == 0:
            restarted, names = back(core, meta)
            names.incarnation += 1
        core, plan = step(core, par, event)
        again = advance(restarted, par, event)
        np.testing.assert_array_equal(plan.actions, again.actions)
        np.testing.assert_array_equal(plan.holes, again.holes)
        assert core_hash(core) == core_hash(restarted)
        steps += 1
        try:
            event = walk.send(plan.actions.copy())
        except StopIteration:
            break
    assert core.v[Var.FILLS] > 0 and steps > 200


def example() -> tuple[Core, Meta]:
    """Return the core and names that the fixture was written from: a little of everything."""
    core, par = empty_core(), np.zeros(PAR_SIZE, dtype=np.int64)
    par[Par.MAKER_PPM] = 10_000  # ends the table early, whatever its room
    open_epoch(core, par, anchor_ticks=600_000, interval=20_000, now_ms=1_700_000_000_000)
    v = core.v
    names = [
        var for var in Var if var not in (Var.EPOCH, Var.ANCHOR, Var.INTERVAL, Var.FIRST_CELL, Var.CELLS)
    ]
    for i, var in enumerate(name for name in names if name.name in FIRST_VARS):
        v[var] = 1_000 + i
    v[[Var.SLOTS, Var.RETIRED, Var.STRAYS, Var.BOOK, Var.RISK, Var.STOP]] = (
        2,
        1,
        1,
        2,
        Risk.REDUCE_ONLY,
        Stop.DRAIN,
    )
    for i, (cell, sign) in enumerate(((-2, Mode.LONG), (3, Mode.SHORT))):
        lo = 600_000 + 500 * cell
        core.slots[[Col.EPOCH, Col.CELL, Col.DIR, Col.LO, Col.HI], i] = 1, cell, sign, lo, lo + 500
        core.slots[[Col.LOTS, Col.OPENED, Col.WHY], i] = 10, 10, Reason.OCCUPIED
    for i, row in enumerate(
        (Leg.SEQ, Leg.SIDE, Leg.PRICE, Leg.LOTS, Leg.CUM, Leg.TRADED, Leg.STATUS, Leg.CANCEL)
    ):
        core.slots[CLOSE + row, 0] = (4, -1, 599_500, 10, 3, 2, Order.WORKING, 1)[i]
        core.slots[OPEN + row, 1] = (5, -1, 601_500, 10, 0, 0, Order.PENDING, 0)[i]
    for array, sequence in ((core.retired, 2), (core.strays, 3)):
        array[[Ret.SEQ, Ret.EPOCH, Ret.CELL, Ret.DIR, Ret.SIDE, Ret.STATUS], 0] = (
            sequence,
            1,
            -2,
            1,
            1,
            Order.TERMINAL,
        )
    core.book[:, :2] = np.arange(10).reshape(2, 5).T
    core.ranges[:3], core.refs[:2], core.moves[:4] = (50, 60, 70), (55, 56), (1, -1, 0, 1)
    core.trades[:2], core.fundings[:1] = (2**62, -5), (9,)
    core.risk[Trip.ACTIVE, Trigger.DRAWDOWN], core.risk[Trip.LIMIT, Trigger.RESIDUAL] = 1, 77
    core.watch[:5, 1] = 4, 1, 1_700_000_060_000, 8, 9
    meta = Meta(BTC, instance=7, incarnation=5, version=12, code_version="0.1.0", config_hash="c0ffee")
    for sequence, epoch, cell, direction, leg in ((4, 1, -2, 1, 1), (5, 1, 3, -1, 0), (2, 1, -2, 1, 0)):
        meta.name(sequence, epoch, cell, direction, leg)
    meta.acknowledge(4, meta.ids[4].client_id, "987654321")
    meta.stray_ids[3] = Ids("GM-somebody", "123")
    return core, meta


# The scalars that the first schema knew. Later ones are 0 in the fixture.
FIRST_VARS = frozenset(
    """
    PIVOT BUY_BASE SELL_BASE WITHDRAWING NEXT_INTERVAL REF BID ASK LAST MARK2 TOUCHES BID_LOTS ASK_LOTS NEXT_SEQ CANDLES
    PREV_CLOSE ATR ATR_REF REFS MOVES TREND_ON TREND SIGN TOKENS HARVEST EXECUTION EXIT FEES FUNDING FEE_BASE_ATOMS
    CASH LEDGER_LOTS LEDGER_FEES LEDGER_FUNDING LEDGER_BASE_ATOMS TRANSFERS SEED_LOTS SEED_MARK2 PEAK FILLS TRADES
    REJECTS PLANS DEFECTS LATE CROSSINGS LOSING_EXITS FUNDINGS ROUND_TRIPS UNSOLICITED STREAK EXITING NOW_MS PRICE_MS
    EPOCH_MS CANDLE_MS SIGN_MS TOKENS_MS DRAWDOWN_MS STREAK_MS
    """.split()
)


def test_a_state_of_the_first_schema_still_reads():
    """The file was written by the first version and never changes. To add one for a later schema, see `write_fixture`."""
    core, meta = from_state(unseal(FIXTURE.read_bytes(), "BTC/USDT"))
    expected, names = example()
    same(expected, core)
    assert meta == names


def write_fixture(path: Path) -> None:
    """Write `example` as the running code saves it; for the fixture of a *new* schema version, under a new name."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(seal(to_state(*example())))


@pytest.fixture(scope="module")
def sealed() -> bytes:
    return seal(to_state(*example()))


def test_every_flipped_byte_is_noticed(sealed):
    for place in range(len(sealed)):
        for flip in (0x01, 0x80, 0xFF):
            data = bytearray(sealed)
            data[place] ^= flip
            with pytest.raises((BadChecksum, Truncated)):
                unseal(bytes(data), "BTC/USDT")


def test_every_truncation_is_noticed(sealed):
    for length in range(len(sealed)):
        with pytest.raises((Truncated, BadChecksum)):
            unseal(sealed[:length], "BTC/USDT")


@pytest.mark.parametrize("tail", [b"\0", b"\0" * 10, b"\xf9\x7f" + b"\0" * 8])
def test_what_was_added_at_the_end_is_noticed(sealed, tail):
    with pytest.raises((Truncated, BadChecksum)):
        unseal(sealed + tail, "BTC/USDT")


def test_the_checksum_is_the_last_bytes_and_the_highest_number(sealed):
    numbers = [field.number for field in State.DESCRIPTOR.fields]
    assert State.DESCRIPTOR.fields_by_name["checksum"].number == max(numbers)
    assert int.from_bytes(sealed[-8:], "little") == unseal(sealed).checksum
    assert seal(unseal(sealed)) == sealed


def refusal(data: bytes, symbol: str = "BTC/USDT") -> GridmmError:
    with pytest.raises(StateError) as caught:
        unseal(data, symbol)
    return caught.value


def test_each_refusal_says_which_and_what_to_do(sealed):
    future = State.FromString(sealed)
    future.schema_version, future.code_version = 2, "9.0.0"
    none = State.FromString(sealed)
    none.schema_version = 0
    damaged = sealed[:60] + bytes([sealed[60] ^ 4]) + sealed[61:]
    cases = [
        (refusal(damaged), BadChecksum, ("checksum", "--fresh")),
        (refusal(sealed[:-1]), Truncated, (f"{len(sealed) - 1} bytes", "--fresh")),
        (refusal(b""), Truncated, ("0 bytes", "--fresh")),
        (refusal(seal(future)), UnknownVersion, ("version 2", "9.0.0", "Run it with")),
        (refusal(seal(none)), UnknownVersion, ("version 0", "Run it with")),
        (refusal(sealed, "ETH/USDT"), WrongSymbol, ("BTC/USDT", "ETH/USDT", "another database")),
    ]
    for error, kind, says in cases:
        assert type(error) is kind
        assert "\n" not in str(error)
        assert error.exit_code == 3
        assert all(part in str(error) for part in says), str(error)


@pytest.mark.parametrize("grow", ["slots", "retired"])
def test_a_state_that_does_not_fit_is_refused(sealed, grow):
    """A later program with larger arrays may have written it."""
    state = unseal(sealed)
    for _ in range(600):
        getattr(state, grow).add(cell=1)
    with pytest.raises(UnknownVersion, match=r"60\d entries"):
        from_state(state)
    state = unseal(sealed)
    state.volatility.ranges_ticks.extend(range(5_000))
    with pytest.raises(UnknownVersion, match="room for"):
        from_state(state)
    state = unseal(sealed)
    state.lattice.cells = too_many = empty_core().levels.shape[1] + 1
    with pytest.raises(UnknownVersion, match=f"{too_many} entries"):
        from_state(state)


def test_a_field_that_a_later_program_added_is_no_reason_to_refuse(sealed):
    state = State.FromString(sealed)
    newer = State.FromString(state.SerializeToString() + b"\xf2\x3f\x03abc")  # field 1022, a string
    core, _ = from_state(unseal(seal(newer), "BTC/USDT"))
    same(example()[0], core)


def test_the_vocabularies_agree():
    """Every word of the core has its name in the schema, under the same number (or one higher where 0 means something)."""
    pairs = [
        (Reason, words.Reason, "REASON_", 0, {"NONE"}),
        (Order, words.OrderStatus, "ORDER_STATUS_", 0, {"NONE"}),
        (PlanAction, words.Action, "ACTION_", 0, set()),
        (Risk, words.RiskMode, "RISK_MODE_", 1, set()),
        (Stop, words.StopMode, "STOP_MODE_", 1, set()),
        (Trigger, words.Trigger, "TRIGGER_", 1, set()),
        (SlotStatus, words.SlotStatus, "SLOT_STATUS_", 0, set()),
        (PositionStatus, words.PositionStatus, "POSITION_STATUS_", 0, set()),
    ]
    for ours, theirs, prefix, shift, unsaid in pairs:
        for member in ours:
            if member.name not in unsaid:
                assert theirs.Value(prefix + member.name) == member + shift
        assert theirs.Name(0) == prefix + "UNSPECIFIED"
        assert len(theirs.keys()) == len(ours) + 1 - len(unsaid)


def test_the_words_of_a_slot_follow_from_its_orders(sealed):
    held, wanted = unseal(sealed).slots
    assert (held.slot_status, held.position_status, held.position_qty) == (
        words.SLOT_STATUS_LOCKED,
        words.POSITION_STATUS_DUST,
        7,
    )
    assert (wanted.slot_status, wanted.position_qty) == (words.SLOT_STATUS_PENDING, -10)
    assert held.close.exchange_id == "987654321"
    assert not held.HasField("open")


def test_an_order_keeps_its_name_after_a_restart(sealed):
    core, meta = from_state(unseal(sealed))
    meta.incarnation += 1
    before, after = unseal(sealed), to_state(core, meta)
    assert before.slots[0].close.client_id == after.slots[0].close.client_id != ""
    assert after.incarnation == before.incarnation + 1


def test_names_of_forgotten_orders_are_forgotten():
    core, meta = example()
    meta.name(77, 1, 0, 1, 0)
    meta.stray_ids[78] = Ids("gone")
    meta.prune(core)
    assert (sorted(meta.ids), sorted(meta.stray_ids)) == ([2, 4, 5], [3])


def test_saving_again_writes_what_changed_and_the_new_names():
    core, meta = example()
    first = to_state(core, meta)
    core.slots[CLOSE + Leg.CUM, 0] += 1
    meta.acknowledge(5, meta.ids[5].client_id, "new")
    meta.acknowledge(4, "another order of this number", "not ours")
    second, fresh = to_state(core, meta), to_state(core, Meta(**{**vars(meta), "kept": {}}))
    assert second == fresh != first
    assert second.slots[1].open.exchange_id == "new"


def test_the_hash_ignores_times_and_nothing_else():
    core, _ = example()
    before = core_hash(core)
    core.v[HASHED_VARS:] += 1
    core.slots[[Col.CLOSE_TOUCH_MS, OPEN + Leg.QUERY_MS, CLOSE + Leg.RETRY_MS]] += 1
    core.risk[Trip.SINCE_MS] += 1
    core.slots[:, 5] = 9  # beyond the slots in use
    assert core_hash(core) == before
    for name in (
        "v",
        "slots",
        "retired",
        "strays",
        "book",
        "ranges",
        "refs",
        "moves",
        "trades",
        "fundings",
        "risk",
    ):
        changed = Core(*(array.copy() for array in core))
        getattr(changed, name).flat[0] += 1
        assert core_hash(changed) != before, name


def test_saving_a_large_grid_is_fast(note):
    """The hot path saves one State a plan: 200 slots must stay well below the commit's own milliseconds."""
    core = wild_core(1, slots=200, loose=100, wild=0.0, geometric=False)
    core.watch[:] = 0
    meta, best = Meta(BTC, 7, 5), 1.0
    to_state(core, meta)
    for _ in range(30):
        core.slots[OPEN + Leg.CUM, :3] += 1
        started = time.perf_counter()
        seal(to_state(core, meta))
        best = min(best, time.perf_counter() - started)
    note(f"to_state and seal of 200 slots, 3 of them changed: {best * 1e6:.0f} us")
    assert best < 0.02  # an order of magnitude above a quiet machine's figure
