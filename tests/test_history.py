"""A download that was cut ends byte for byte where an uncut one does, and never lies about what is missing."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import ccxt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridmm import history
from gridmm.cli import run_command
from gridmm.errors import ExchangeUnreachable, TapeError, UsageError
from gridmm.history import Growing, Line, Progress, Wanted, download, mark_of
from gridmm.tape_info import tape_info
from history_server import HOUR_MS, MINUTE_MS, START_MS, Past, Served, serving

FOREVER = 2**62
SPOT = Wanted("binance", "BTC/USDT", "1m", START_MS, FOREVER)
PERP = Wanted("binance", "BTC/USDT:USDT", "1m", START_MS, FOREVER)
TRADES = Wanted("binance", "BTC/USDT", "trades", START_MS, FOREVER)
PERP_TRADES = Wanted("binance", "BTC/USDT:USDT", "trades", START_MS, FOREVER)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[Past], Served]]:
    """Serve a past until the test is over."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        yield lambda past: stack.enter_context(serving(past, tmp_path))


def fetch(served: Served, wanted: Wanted, path: Path) -> Progress:
    """Download with the real client, which waits in the exchange's time."""

    async def run() -> Progress:
        session = served.session()
        client = history.client(wanted.exchange, wanted.symbol, session)
        client.enableRateLimit, client.timeout = False, 5_000
        try:
            return await download(Line(client, served.past.wait), wanted, path)
        finally:
            await client.close()
            await session.close()

    return asyncio.run(run())


def expected(past: Past, wanted: Wanted) -> str:
    """What the file must hold."""
    return past.trades_file() if wanted.trades else past.candles_file()


@pytest.mark.parametrize("wanted", [SPOT, PERP, TRADES, PERP_TRADES], ids=lambda w: w.file.stem)
def test_all_pages_come_to_the_file_that_the_past_says(
    wanted: Wanted, serve: Callable[[Past], Served], tmp_path: Path
) -> None:
    past = Past(missing={5, 6, 1_200}, skipped={77, 1_500, 1_501})
    served, path = serve(past), tmp_path / wanted.file
    progress = fetch(served, wanted, path)
    assert path.read_text() == expected(past, wanted)
    minutes = [(5, 7), (1_200, 1_201)]
    holes = [(START_MS + a * MINUTE_MS, START_MS + b * MINUTE_MS) for a, b in minutes]
    assert list(progress.gaps) == ([(9_077, 9_078), (10_500, 10_502)] if wanted.trades else holes)
    info = tape_info(path)
    assert info.missing == 3 and info.instrument.symbol == wanted.symbol
    assert info.lines == progress.rows == progress.new
    # twice the market and its clock; pages of a thousand, less the row that each begins with
    assert past.requests == progress.requests <= 9
    assert set(past.hosts) <= {"api.binance.com", "fapi.binance.com"}


@pytest.mark.parametrize("wanted", [SPOT, PERP_TRADES], ids=lambda w: w.file.stem)
@pytest.mark.parametrize("request_", range(1, 8))
def test_cut_at_any_request_and_resumed_it_is_the_uncut_file(
    wanted: Wanted, request_: int, serve: Callable[[Past], Served], tmp_path: Path
) -> None:
    past = Past(missing={3, 1_700}, skipped={1_300}, dead_from=request_)
    served, path, uncut = serve(past), tmp_path / wanted.file, tmp_path / "whole.csv"
    with pytest.raises(ExchangeUnreachable, match="goes on where it was"):
        fetch(served, wanted, path)
    kept = path.read_text() if path.exists() else ""
    assert expected(past, wanted).startswith(kept)
    past.dead_from = 0
    again = fetch(served, wanted, path)
    assert again.new == again.rows - max(0, kept.count("\n") - 1)
    fetch(served, wanted, uncut)
    assert path.read_bytes() == uncut.read_bytes() == expected(past, wanted).encode()
    assert mark_of(path).read_bytes() == mark_of(uncut).read_bytes()
    assert fetch(served, wanted, path).new == 0


def test_a_plug_pulled_between_the_rows_and_their_mark_costs_nothing(
    serve: Callable[[Past], Served], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    past, path = Past(), tmp_path / "BTCUSDT.csv"
    served, saves, save = serve(past), [], Growing.save

    def pulled(self: Growing) -> None:
        saves.append(self.mark.rows)
        if len(saves) == 4:
            raise KeyboardInterrupt
        save(self)

    monkeypatch.setattr(Growing, "save", pulled)
    with pytest.raises(KeyboardInterrupt):
        fetch(served, SPOT, path)
    monkeypatch.undo()
    assert path.read_text().count("\n") > json.loads(mark_of(path).read_text())["rows"]
    with path.open("a") as file:
        file.write("1704067200000,4")  # and the disk had taken half of a row
    fetch(served, SPOT, path)
    assert path.read_text() == past.candles_file()


def test_the_first_mark_alone_is_enough_to_go_on(
    serve: Callable[[Past], Served], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, served = tmp_path / "BTCUSDT.csv", serve(Past(minutes=50))

    def pulled(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Growing, "append", pulled)
    with pytest.raises(KeyboardInterrupt):
        fetch(served, SPOT, path)
    monkeypatch.undo()
    assert path.read_bytes() == b"" and mark_of(path).exists()
    fetch(served, SPOT, path)
    assert path.read_text() == served.past.candles_file()


def test_a_later_end_adds_what_is_new_and_the_minute_that_runs_stays_out(
    serve: Callable[[Past], Served], tmp_path: Path
) -> None:
    past, path = Past(minutes=100), tmp_path / "BTCUSDT.csv"
    served = serve(past)
    early = Wanted("binance", "BTC/USDT", "1m", START_MS, START_MS + 40 * MINUTE_MS + 59_999)
    assert fetch(served, early, path).rows == 40
    assert fetch(served, SPOT, path).new == 59
    past.minutes = 1_300
    assert fetch(served, SPOT, path).rows == 1_299
    assert path.read_text() == past.candles_file()


def test_it_waits_as_long_as_it_is_told_and_a_dropped_line_is_asked_again(
    serve: Callable[[Past], Served], tmp_path: Path
) -> None:
    past, path = Past(minutes=5_000, weight_max=5, dropped={2, 5}), tmp_path / "BTCUSDT.csv"
    fetch(serve(past), SPOT, path)
    assert path.read_text() == past.candles_file()
    assert past.told >= 2 and past.impatient == 0
    assert past.clock_s >= past.told * past.retry_after_s


def test_one_that_does_not_wait_would_be_noticed(
    serve: Callable[[Past], Served], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    past = Past(minutes=5_000, weight_max=5)
    served = serve(past)

    async def hurry(self: Past, seconds: float) -> None:
        pass

    monkeypatch.setattr(Past, "wait", hurry)
    with pytest.raises(ExchangeUnreachable, match="wants 9999 s of silence"):
        fetch(served, SPOT, tmp_path / "BTCUSDT.csv")
    assert past.impatient == 1


def test_half_an_answer_and_one_that_is_none_are_asked_for_again(
    serve: Callable[[Past], Served], tmp_path: Path
) -> None:
    past, path = Past(halved={3}, babbled={1, 2, 5}), tmp_path / "BTCUSDT.csv"
    assert fetch(serve(past), SPOT, path).requests > 8
    assert path.read_text() == past.candles_file()


def test_a_candle_that_one_answer_left_out_is_asked_for_again(
    serve: Callable[[Past], Served], tmp_path: Path
) -> None:
    past, path = Past(hidden={200, 201, 800}, missing={500}), tmp_path / "BTCUSDT.csv"
    progress = fetch(serve(past), SPOT, path)
    assert path.read_text() == past.candles_file()
    assert progress.gaps == ((START_MS + 500 * MINUTE_MS, START_MS + 501 * MINUTE_MS),)


def test_a_past_that_changed_is_refused(serve: Callable[[Past], Served], tmp_path: Path) -> None:
    past, path = Past(minutes=50), tmp_path / "BTCUSDT.csv"
    served = serve(past)
    fetch(served, SPOT, path)
    before = path.read_bytes()
    past.minutes, past.changed = 80, {48}
    with pytest.raises(TapeError, match="2024-01-01 00:48:00: the exchange says otherwise than before"):
        fetch(served, SPOT, path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (PERP, "it holds candles of 1m of BTC/USDT from binance"),
        (TRADES, "asked for are trades of BTC/USDT"),
        (Wanted("binance", "BTC/USDT", "1m", START_MS + MINUTE_MS, FOREVER), "since 2024-01-01 00:01:00"),
        (Wanted("binance", "BTC/USDT", "5m", START_MS, FOREVER), "asked for are candles of 5m"),
    ],
)
def test_a_file_of_something_else_is_left_alone(
    other: Wanted, says: str, serve: Callable[[Past], Served], tmp_path: Path
) -> None:
    path, served = tmp_path / "BTCUSDT.csv", serve(Past(minutes=20))
    fetch(served, SPOT, path)
    before = path.read_bytes(), mark_of(path).read_bytes()
    with pytest.raises(UsageError, match=says):
        fetch(served, other, path)
    assert (path.read_bytes(), mark_of(path).read_bytes()) == before


def test_a_file_that_is_not_ours_or_was_tampered_with_is_left_alone(
    serve: Callable[[Past], Served], tmp_path: Path
) -> None:
    served, path = serve(Past(minutes=20)), tmp_path / "BTCUSDT.csv"
    path.write_text("my diary\n")
    with pytest.raises(UsageError, match="not one that a download began"):
        fetch(served, SPOT, path)
    assert path.read_text() == "my diary\n"
    path.unlink()
    fetch(served, SPOT, path)
    for spoilt in (path.read_text().replace("40126", "40127"), path.read_text()[:-5]):
        whole = path.read_text()
        assert spoilt != whole
        path.write_text(spoilt)
        with pytest.raises(UsageError, match="somebody else wrote to it"):
            fetch(served, SPOT, path)
        assert path.read_text() == spoilt
        path.write_text(whole)
    mark_of(path).write_text("{}")
    with pytest.raises(UsageError, match="cannot be read as the mark"):
        fetch(served, SPOT, path)


def test_two_downloads_do_not_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "BTCUSDT.csv"
    with (
        history.growing(path, SPOT),
        pytest.raises(UsageError, match="another download writes to it"),
        history.growing(path, SPOT),
    ):
        pytest.fail("both have it")


def test_what_the_exchange_has_not_is_a_question_of_usage(
    serve: Callable[[Past], Served], tmp_path: Path
) -> None:
    served, path = serve(Past()), tmp_path / "x.csv"
    for wanted, says in (
        (Wanted("binance", "DOGE/USDT", "1m", START_MS, FOREVER), "binance has no such market"),
        (Wanted("binance", "BTC/USDT", "7m", START_MS, FOREVER), "Choose one of 1s, 1m"),
        (Wanted("binance", "BTC/USDT", "1M", START_MS, FOREVER), "no such candles"),
        (Wanted("okx", "BTC/USDT", "trades", START_MS, FOREVER), "only Binance numbers trades"),
        (Wanted("mtgox", "BTC/USDT", "1m", START_MS, FOREVER), "ccxt does not know it"),
    ):
        with pytest.raises(UsageError, match=says):
            fetch(served, wanted, path)
        assert not path.exists()


def test_nothing_beyond_this_machine_is_reached(serve: Callable[[Past], Served], tmp_path: Path) -> None:
    okx = Wanted("okx", "BTC/USDT", "1m", START_MS, FOREVER)
    served = serve(Past())
    with pytest.raises(ExchangeUnreachable):
        fetch(served, okx, tmp_path / "x.csv")
    assert served.past.requests == 0


@contextmanager
def reached(served: Served, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the command find the exchange on this machine."""
    real = history.client

    def client(exchange: str, symbol: str, session: Any = None) -> Any:
        made = real(exchange, symbol, served.session())
        made.own_session = True
        return made

    with monkeypatch.context() as patch:
        patch.setattr(history, "client", client)
        yield


def test_the_command_fetches_a_tape_that_a_grid_runs_on(
    serve: Callable[[Past], Served],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    served = serve(Past(minutes=300))
    words = [
        "data",
        "download",
        "--symbol",
        "BTC/USDT:USDT",
        "--from",
        "2024-01-01",
        "--to",
        "2024-01-01T02:00",
    ]
    with reached(served, monkeypatch):
        assert run_command(words) == 0
        said = capsys.readouterr().out
        assert said.startswith("BTCUSDT-perp-binance-1m.csv: 120 candles, 120 of them new, 0 gaps\nnext: ")
        assert run_command([*words[:-2], "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
    assert (found["rows"], found["new"], found["file"]) == (299, 179, "BTCUSDT-perp-binance-1m.csv")
    play = [
        "run",
        "--engine",
        "simple",
        "--feed",
        "tape:BTCUSDT-perp-binance-1m.csv",
        "--speed",
        "max",
        "--json",
    ]
    assert run_command(play) == 0
    receipt = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert receipt["symbol"] == "BTC/USDT:USDT"


def test_the_command_says_how_to_go_on(
    serve: Callable[[Past], Served],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def at_once(seconds: float) -> None:
        pass

    monkeypatch.setattr(history.Line.__init__, "__defaults__", (at_once, 0))
    served, out = serve(Past(dead_from=4)), str(tmp_path / "a.csv")
    words = ["data", "download", "--symbol", "BTC/USDT", "--from", "2024-01-01", "--out", out]
    with reached(served, monkeypatch):
        assert run_command(words) == 6
        assert "Run the same command again: it goes on where it was" in capsys.readouterr().err
        assert run_command([*words[:3], "BTC/USDT:USDT", *words[4:]]) == 6  # nothing was fetched of it yet
    assert run_command([*words[:5], "yesterday"]) == 2


def test_the_bar_follows_the_market(capsys: pytest.CaptureFixture[str]) -> None:
    from gridmm.cli_data import _bar

    with _bar(True, Wanted("binance", "BTC/USDT", "1m", START_MS, START_MS + HOUR_MS)) as tell:
        tell(Progress(START_MS + HOUR_MS, 60, 60, 3, ()))
    assert "60 rows, to 2024-01-01 01:00:00, 0 gaps" in " ".join(capsys.readouterr().err.split())


class Small:
    """An exchange in memory: answers from a window of `page` minutes, and now and then not at all."""

    id, timeframes, last_response_headers = "small", {"1m": "1m"}, None
    markets: ClassVar = {"BTC/USDT": 1}
    last_json_response = ()

    def __init__(self, there: set[int], minutes: int, page: int, fails: set[int]) -> None:
        self.there, self.minutes, self.page, self.fails, self.asked = there, minutes, page, fails, 0

    def parse_timeframe(self, interval: str) -> int:
        """Length of a candle in seconds."""
        return 60

    def feature_value(self, *words: object) -> int:
        """Rows in a page."""
        return self.page

    async def load_markets(self, reload: bool) -> None:
        """Nothing to load."""

    async def fetch_time(self) -> int:
        """Its clock."""
        return START_MS + self.minutes * MINUTE_MS + 5

    async def fetch_ohlcv(
        self, symbol: str, interval: str, since: int, limit: int, params: dict
    ) -> list[list]:
        """A window of candles."""
        self.asked += 1
        if self.asked in self.fails:
            raise ccxt.AuthenticationError("cut")  # not worth asking again: the download ends here
        first = (since - START_MS) // MINUTE_MS
        last = min(first + self.page - 1, self.minutes, (params.get("until", 2**62) - START_MS) // MINUTE_MS)
        return [
            [START_MS + k * MINUTE_MS, "2", "3", "1", "2", str(k)]
            for k in range(first, last + 1)
            if k in self.there
        ]


@settings(max_examples=150, deadline=None)
@given(
    there=st.sets(st.integers(0, 90), max_size=90),
    page=st.integers(2, 40),
    fails=st.sets(st.integers(1, 40), max_size=8),
)
def test_any_holes_any_cuts_any_pages_come_to_the_same_file(
    there: set[int], page: int, fails: set[int]
) -> None:
    async def run(client: Small, path: Path) -> Progress:
        wanted = Wanted("small", "BTC/USDT", "1m", START_MS, FOREVER)
        while True:
            try:
                return await download(Line(client), wanted, path)
            except ExchangeUnreachable:
                continue

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.csv")
        progress = asyncio.run(run(Small(there, 91, page, fails), path))
        rows = path.read_text().splitlines()[1:]
    times = [(int(row.partition(",")[0]) - START_MS) // MINUTE_MS for row in rows]
    assert times == sorted(there)
    holes = {
        k for a, b in progress.gaps for k in range((a - START_MS) // MINUTE_MS, (b - START_MS) // MINUTE_MS)
    }
    assert holes == (set(range(min(there), max(there))) - there if there else set())
