"""The grids of an account keep together within its limits, and each within its own part."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import pytest
from sqlalchemy import Engine

from gridmm.accounts import Account, Accounts, Grant
from gridmm.config import load
from gridmm.errors import Refused
from gridmm.grids import load_grids
from gridmm.layout import Hole, Par, Var
from gridmm.run import Run, Signals, assemble
from gridmm.several import serve, unpaced
from gridmm.slots import exposure
from gridmm.tables import sqlite_engine
from gridmm.v1.decision_pb2 import DecisionRecord
from gridmm.v1.vocabulary_pb2 import Action, LegName
from gridmm.vocabulary import Reason

CONFIG = Path(__file__).parent / "configs" / "demo_fast.toml"


def grant(grid: str, exposure: int, actions: int = 1, asset: str = "USDT") -> Grant:
    return Grant("main", grid, asset, Decimal(exposure), Decimal(actions))


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = sqlite_engine(tmp_path / "accounts.sqlite", synchronous="OFF")
    yield made
    made.dispose()


def limited(engine: Engine, exposure: int = 100, actions: int = 10) -> Accounts:
    accounts = Accounts(engine, "accounts.sqlite")
    accounts.limit(Account("main", "USDT", Decimal(exposure), Decimal(actions)))
    return accounts


def test_what_is_not_there_is_refused_and_what_was_is_kept(engine: Engine) -> None:
    accounts = limited(engine)
    assert accounts.grant(grant("a", 60))
    with pytest.raises(Refused, match=r"exposure 50 for b: account main has 40 of 100 left"):
        accounts.grant(grant("b", 50))
    assert accounts.grant(grant("b", 40))
    assert accounts.grant(grant("a", 55)), "in place of what it had, not beside it"
    assert [(one.grid, one.exposure) for one in accounts.grants()] == [("a", Decimal(55)), ("b", Decimal(40))]


def test_actions_are_shared_as_well(engine: Engine) -> None:
    accounts = limited(engine)
    accounts.grant(grant("a", 1, actions=8))
    with pytest.raises(Refused, match=r"actions_per_second 3 for b: account main has 2 of 10 left"):
        accounts.grant(grant("b", 1, actions=3))
    with pytest.raises(Refused, match="unlimited actions_per_second of b"):
        accounts.grant(grant("b", 1, actions=0))


def test_a_grid_that_ends_keeps_what_it_holds(engine: Engine) -> None:
    accounts = limited(engine)
    accounts.grant(grant("a", 60))
    accounts.release("main", "a", Decimal(25))
    with pytest.raises(Refused, match="has 75 of 100 left"):
        accounts.grant(grant("b", 80))
    accounts.release("main", "a", Decimal(0))
    assert accounts.grants() == []


def test_limits_are_not_set_below_what_was_given(engine: Engine) -> None:
    accounts = limited(engine)
    accounts.grant(grant("a", 60))
    with pytest.raises(Refused, match="its grids hold 60"):
        accounts.limit(Account("main", "USDT", Decimal(50), None))
    accounts.limit(Account("main", "USDT", Decimal(60), None))
    assert accounts.limits() == [Account("main", "USDT", Decimal(60), None)]


def test_two_currencies_are_not_added_up(engine: Engine) -> None:
    accounts = limited(engine)
    with pytest.raises(Refused, match="account main is counted in USDT"):
        accounts.grant(grant("a", 1, asset="USDC"))


def test_an_account_without_limits_gives_everything(engine: Engine) -> None:
    accounts = Accounts(engine)
    assert not accounts.grant(grant("a", 10**9, actions=0))
    assert accounts.limits() == []


class Seen(NamedTuple):
    """What a session did with its allowance."""

    most_atoms: int  # largest worth of its exposure when it opened something
    withheld: int  # cells that the allowance kept empty
    run: Run


def play(db: Path, limit: int | None, **options: object) -> Seen:
    """Play the demo market for some hours on an account with this limit, and look at every plan."""
    given = {key.replace("__", "."): (value, "test") for key, value in options.items()}
    most = withheld = 0

    def decided(record: DecisionRecord) -> None:
        nonlocal most, withheld
        core, par = run.engine.session.core, run.engine.session.par
        if any(row.action == Action.ACTION_PLACE and row.leg == LegName.LEG_NAME_OPEN for row in record.rows):
            worth = int(exposure(core)[3]) * int(core.v[Var.MARK2]) * int(par[Par.HALF_ATOMS])
            most = max(most, worth)
        shown = core.holes[Hole.WHY, : run.engine.session.holes]
        withheld += int((shown == Reason.ALLOWANCE).sum())

    with ExitStack() as stack:
        config = load(CONFIG, environ={}, options={**given, "feed.duration": ("3 h", "test")})
        run = assemble(config, db, stack, durable=True, synchronous="OFF", on_decision=decided)
        if limit is not None:
            Accounts(run.store.engine).limit(Account("paper", "USDT", Decimal(limit), None))
        asyncio.run(serve([(run, Signals())], unpaced, lambda line: None))
        return Seen(most, withheld, run)


@pytest.mark.timeout(200)
def test_a_grid_never_commits_more_than_it_was_granted(tmp_path: Path, note: Callable[[str], None]) -> None:
    free = play(tmp_path / "free.sqlite", None)
    assert free.withheld == 0
    instrument = free.run.engine.session.meta.instrument
    part = instrument.money(free.most_atoms) / 2
    bound = play(tmp_path / "bound.sqlite", 10**6, account__exposure=f"{part:.0f}")
    allowance = int(bound.run.engine.session.par[Par.ALLOWANCE])
    assert 0 < allowance < free.most_atoms, "without it, the grid would have committed more"
    assert 0 < bound.most_atoms <= allowance and bound.withheld > 0
    assert bound.run.engine.session.core.v[Var.DEFECTS] == 0, "strategy and admit disagreed"
    note(f"allowance: {bound.most_atoms / allowance:.0%} of it used, {bound.withheld} cells withheld")


def test_grids_of_one_file_share_their_account(tmp_path: Path) -> None:
    file, db = tmp_path / "two.toml", tmp_path / "grids.sqlite"
    file.write_text(
        '[account]\nname = "main"\nexposure = "600"\n[feed]\nduration = "5 min"\n'
        '[[grid]]\nname = "a"\nmax_position = "5 %"\n[[grid]]\nname = "b"\nmax_position = "5 %"\n'
    )

    def go() -> list[int]:
        with ExitStack() as stack:
            runs = [
                assemble(config, db, stack, grid=name, durable=True, synchronous="OFF")
                for name, config in load_grids(file, environ={}).items()
            ]
            ends = serve(
                [(run, Signals()) for run in runs],
                unpaced,
                lambda line: None,
            )
            return [receipt.decisions for receipt in asyncio.run(ends)]

    engine = sqlite_engine(db, synchronous="OFF")
    Accounts(engine).limit(Account("main", "USDT", Decimal(1_000), None))
    with pytest.raises(Refused, match=r"exposure 600 for [ab]: account main has 400 of 1000 left"):
        go()
    Accounts(engine).limit(Account("main", "USDT", Decimal(1_200), None))
    assert all(decisions > 0 for decisions in go())
    engine.dispose()
