"""A fleet's grids run on exactly one worker each, whatever becomes of the workers; and only where their account is."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import Engine

from failovers import WAYS, run_failovers
from gridmm.accounts import Account, Accounts, Grant
from gridmm.config import Config, load
from gridmm.desk import Receipt
from gridmm.errors import Refused, StoreUnreachable, UsageError
from gridmm.fleet import Fleet, packed, unpacked
from gridmm.run import wall_ms
from gridmm.tables import open_database, sqlite_engine
from gridmm.worker import Part, Worker, accounts_of

TAKEN_S = 5.0


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    made = open_database(database)
    yield made
    made.dispose()


def config_of(**options: object) -> Config:
    given = {key.replace("__", "."): (value, "test") for key, value in options.items()}
    return load(environ={}, options=given)


@pytest.mark.timeout(300)
def test_a_grid_goes_on_elsewhere_when_its_worker_is_gone(
    database: str, tmp_path: Path, note: Callable[[str], None]
) -> None:
    tally = run_failovers(database, 1, tmp_path)
    for way in WAYS:
        assert max(tally.taken_s[way]) < TAKEN_S, tally
    assert tally.opened_s["killed"], "no order went out after the grid was taken"
    assert tally.opened_s["killed"][0] - tally.taken_s["killed"][0] >= 2.0, (
        "the last owner's deadline was not waited for"
    )
    note(f"failover: {tally}")


def test_a_worker_that_stops_while_it_looks_for_dead_ones_keeps_nobody_from_looking(engine: Engine) -> None:
    here, there = Fleet(engine), Fleet(engine)
    seen: list[bool] = []
    with pytest.raises(StoreUnreachable), here.alone() as first:
        for _ in range(100):  # `here` says nothing to the database meanwhile
            with there.alone() as second:
                seen.append(second)
            if second:
                break
            time.sleep(0.05)
    assert first and not seen[0] and seen[-1], "its lock outlived it"
    here.close()
    there.close()


def test_a_configuration_travels_whole(tmp_path: Path) -> None:
    file = tmp_path / "grid.toml"
    file.write_text('[grid]\nmax_position = "0.05"\nvolatility_scale = 1.5\n[execution]\nburst = 7\n')
    here = load(file, environ={"GRIDMM_GRID__GRID_SIZE": "3"}, options={"feed.speed": ("2", "--speed")})
    there = unpacked(packed(here), "btc")
    assert there.settings.grid.grid_size == 10, "the environment of another machine came along"
    assert there.settings == here.settings.model_copy(
        update={"grid": here.settings.grid.model_copy(update={"grid_size": 10})}
    )


def test_a_file_is_no_place_for_a_fleet(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a file is for one machine"):
        Fleet(sqlite_engine(tmp_path / "grids.sqlite"))


def test_a_grid_is_added_once_and_removed_once(engine: Engine) -> None:
    fleet = Fleet(engine)
    fleet.add("btc", config_of(), "test", wall_ms())
    with pytest.raises(Refused, match="waits or runs already"):
        fleet.add("btc", config_of(), "test", wall_ms())
    (member,) = fleet.members()
    assert (member.grid, member.state, member.wanted, member.beat_age_ms) == ("btc", "waiting", True, -1)
    fleet.remove("btc")
    assert not fleet.wanted("btc")
    with pytest.raises(Refused, match="none of this name"):
        fleet.remove("eth")
    with pytest.raises(UsageError, match="lower-case"):
        fleet.add("B T C", config_of(), "test", wall_ms())
    fleet.close()


def test_keys_in_the_environment_name_accounts() -> None:
    environ = {"GRIDMM_MAIN_API_KEY": "k", "GRIDMM_MAIN_API_SECRET": "s", "GRIDMM_SUB_2_API_KEY": "k"}
    environ |= {"GRIDMM_API_KEY": "k", "GRIDMM_GRID__MODE": "long"}
    assert accounts_of(environ) == ["main", "paper", "sub-2"]
    assert accounts_of({"GRIDMM_MAIN_API_KEY": ""}) == ["paper"], "a compose file cannot leave a variable out"
    assert accounts_of(environ, ["main"]) == ["main"]


class Bench:
    """Workers in this process, one after the other, whose sessions end when they are told."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.fleet, self.folder = Fleet(engine), folder
        self.says: list[str] = []
        self.played: list[str] = []

    async def play(self, part: Part) -> Receipt:
        """Note that a grid was taken, and end it."""
        self.played.append(part.grid)
        empty = dict.fromkeys(Receipt._fields, 0)
        return Receipt(**empty)  # type: ignore[arg-type]

    def work(self, accounts: list[str], until: Callable[[], bool]) -> None:
        """Let a worker work until something is so."""

        async def main() -> None:
            end = asyncio.Event()
            worker = Worker(
                self.fleet, f"bench-{id(end)}", accounts, self.folder, self.says.append, session=self.play
            )
            task = asyncio.create_task(worker.run(end))
            async with asyncio.timeout(60):
                while not until():
                    await asyncio.sleep(0.1)
            end.set()
            await task

        asyncio.run(main())


def test_a_grid_waits_for_a_worker_that_has_its_account(engine: Engine, tmp_path: Path) -> None:
    bench = Bench(engine, tmp_path)
    bench.fleet.add("btc", config_of(account__name="main"), "test", wall_ms())
    bench.fleet.add("eth", config_of(), "test", wall_ms())
    bench.work(["paper"], lambda: "eth" in bench.played and any("btc" in line for line in bench.says))
    assert bench.played == ["eth"]
    (line,) = [line for line in bench.says if line.startswith("btc")]
    assert "waits for account main, this worker has paper. Set GRIDMM_MAIN_API_KEY" in line
    bench.work(["main"], lambda: {one.state for one in bench.fleet.members()} == {"ended"})
    assert bench.played == ["eth", "btc"]
    bench.fleet.close()


def test_a_grid_that_cannot_run_ends_with_the_reason(engine: Engine, tmp_path: Path) -> None:
    bench = Bench(engine, tmp_path)

    async def refuse(part: Part) -> Receipt:
        raise Refused(f"grid {part.grid}", "its state is damaged", "Restore it")

    bench.play = refuse  # type: ignore[method-assign]
    bench.fleet.add("btc", config_of(), "test", wall_ms())
    bench.work(["paper"], lambda: bench.fleet.members()[0].state == "ended")
    assert bench.fleet.members()[0].note == "grid btc: its state is damaged. Restore it."
    bench.fleet.close()


def test_two_workers_never_overspend_an_account(engine: Engine) -> None:
    """Many grids ask for more than there is, all at once, each over a connection of its own."""
    accounts = Accounts(engine)
    accounts.limit(Account("main", "USDT", Decimal(10_000), Decimal(20)))
    given, refused = list[str](), list[str]()
    barrier = threading.Barrier(8)

    def ask(number: int) -> None:
        barrier.wait()
        for turn in range(5):
            grid = f"g{number}-{turn}"
            try:
                accounts.grant(Grant("main", grid, "USDT", Decimal(1_500), Decimal(1)))
                given.append(grid)
            except Refused:
                refused.append(grid)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    grants = accounts.grants()
    assert len(given) + len(refused) == 40 and refused
    assert sum(grant.exposure for grant in grants) == 9_000 and len(given) == 6
    assert json.dumps(sorted(given)) == json.dumps(sorted(grant.grid for grant in grants))
