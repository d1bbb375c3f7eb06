"""Every format becomes the same rows; prices are exact; a line that is wrong is named and nothing is played."""

from __future__ import annotations

import gzip
import io
import json
import time
import zipfile
from collections.abc import Callable
from decimal import Decimal
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import real
from gridmm.decimals import BadNumber, in_steps, parse, scale, step
from gridmm.errors import TapeError
from gridmm.tape import PATHS, Reading, Row, Tape, bar_rows, between, load, read, sealed
from gridmm.tape_files import read_columns
from gridmm.tape_info import gaps, info_of, tape_info
from gridmm.units import Instrument

MS = 1_735_689_600_000  # 2025-01-01
BTC = Instrument("BTC/USDT", "spot", Decimal("0.01"), Decimal("0.00001"))

KLINES = (
    "1735689600000000,93576.00,93610.93,93537.50,93610.93,8.21827,1735689659999999,768978.1,1631,3.95,370.9,0\n"
    "1735689660000000,93610.93,93652.00,93606.20,93652.00,0.00000,1735689719999999,0.0,0,0.0,0.0,0\n"
)
AGG_SPOT = "3358127,93576.00,0.00021,4359,4360,1735689600017904,true,True\n3358128,93576.01,1.5,4361,4361,1735689600020000,FALSE,True\n"
AGG_FUTURES = (
    "2489,93548.8,0.001,5809,5810,1735689601073,true\n2490,93548.9,0.010,5811,5811,1735689601073,false\n"
)
TRADES_SPOT = "4359,93576.00000000,0.00021000,19.65096000,1735689600017904,True,True\n4360,93576.01,0.5,46788.005,1735689600017904,False,True\n"
TRADES_FUTURES = (
    "5809,93548.8,0.001,93.5488,1735689601073,true\n5810,93548.9,0.010,935.489,1735689601074,false\n"
)
PLAIN = "13519807,0.00141342,23.0,1570752011620,True\n13519808,0.00141266,54.0,1570752011621,False\n"
QUOTE_BARS = "1735689600000,99.9,102,98.5,101.1,0.5,100.1,102.4,98.9,101.3,0.25\n"
BARS = f"{MS},100,104,98,103,9\n{MS + 60_000},103,103,100,101,7\n"
TURNOVER = f"{MS},100,104,98,103,9,909.5\n{MS + 60_000},103,103,100,101,7,700\n"
BOOK = (
    "17,100.1,2.5,100.2,3.5,1735689600000,1735689600003\n18,100.1,2.0,100.3,0.5,1735689600000,1735689600004\n"
)

HEADERS = {
    "klines": "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore",
    "agg_spot": "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker,is_best_match",
    "agg_futures": "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker",
    "trades_spot": "id,price,qty,quote_qty,time,is_buyer_maker,is_best_match",
    "trades_futures": "id,price,qty,quote_qty,time,is_buyer_maker",
    "plain": "id,price,qty,time,is_buyer_maker",
    "quote_bars": "open_time,bid_open,bid_high,bid_low,bid_close,bid_size,ask_open,ask_high,ask_low,ask_close,ask_size",
    "bars": "Open Time,Open,High,Low,Close,Volume",
    "turnover": "timestamp,open,high,low,close,volume,turnover",
}
FORMATS = {
    # content, words, market, rows by kind
    "klines": (KLINES, "Binance klines", "spot", {Row.PATH: 4, Row.CANDLE: 2}),
    "agg_spot": (AGG_SPOT, "Binance aggTrades, spot", "spot", {Row.TRADE: 2}),
    "agg_futures": (AGG_FUTURES, "Binance aggTrades, futures", "perpetual", {Row.TRADE: 2}),
    "trades_spot": (TRADES_SPOT, "Binance trades, spot", "spot", {Row.TRADE: 2}),
    "trades_futures": (TRADES_FUTURES, "Binance trades, futures", "perpetual", {Row.TRADE: 2}),
    "plain": (PLAIN, "trades", "spot", {Row.TRADE: 2}),
    "quote_bars": (QUOTE_BARS, "bid and ask bars", "spot", {Row.QUOTE: 4, Row.CANDLE: 1}),
    "bars": (BARS, "bars", "spot", {Row.PATH: 8, Row.CANDLE: 2}),
    "turnover": (TURNOVER, "bars", "spot", {Row.PATH: 8, Row.CANDLE: 2}),
}


def zipped(text: str, *names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, text)
    return buffer.getvalue()


PACKINGS: dict[str, Callable[[str], bytes]] = {
    "plain": lambda text: text.encode(),
    "windows": lambda text: b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode(),
    "gzip": lambda text: gzip.compress(text.encode(), mtime=0),
    "zip": lambda text: zipped(text, "BTCUSDT-2025-01.csv"),
    "blank lines": lambda text: ("\n" + text.replace("\n", "\n\n")).encode(),
}


def put(folder: Path, text: str | bytes, name: str = "BTCUSDT.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def refused(path: Path, *words: str, **options: str) -> str:
    """Check that a file is refused in one line that names it; return the line."""
    with pytest.raises(TapeError) as caught:
        load(path, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message and caught.value.exit_code == 2
    for word in words:
        assert word in message
    return message


# --- formats ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("header", [False, True])
@pytest.mark.parametrize("form", FORMATS)
def test_every_format_in_every_packing_is_the_same_tape(
    tmp_path: Path, form: str, header: bool, packing: str
) -> None:
    text, words, market, kinds = FORMATS[form]
    bare = load(put(tmp_path, text))
    packed = PACKINGS[packing](f"{HEADERS[form]}\n{text}" if header else text)
    reading = read(put(tmp_path, packed, f"BTCUSDT-{packing}.dat"))
    assert reading.columns.form.startswith(words.split(" with")[0])
    assert reading.tape.instrument.market == market
    assert {Row(k): int((reading.tape.kind == k).sum()) for k in set(reading.tape.kind.tolist())} == kinds
    assert reading.tape.sha == bare.sha


def test_dumps_of_quotes_are_read(tmp_path: Path) -> None:
    header = "update_id,best_bid_price,best_bid_qty,best_ask_price,best_ask_qty,transaction_time,event_time\n"
    tape = load(put(tmp_path, header + BOOK))
    assert tape.instrument.market == "perpetual"
    assert tape.row(1) == (MS, Row.QUOTE, 1001, 1003, 20, 5, 0)


def test_a_trade_is_a_row(tmp_path: Path) -> None:
    tape = load(put(tmp_path, AGG_SPOT), instrument=BTC)
    assert tape.row(0) == (MS + 17, Row.TRADE, 9_357_600, 21, -1, 3_358_127, 0)
    assert tape.row(1) == (MS + 20, Row.TRADE, 9_357_601, 150_000, 1, 3_358_128, 0)


def test_trades_that_do_not_say_who_took_have_no_side(tmp_path: Path) -> None:
    info_path = put(tmp_path, f"time,price,size\n{MS},10.5,1\n{MS},10.4,2\n")
    tape = load(info_path)
    assert tape.c.tolist() == [0, 0] and tape.d.tolist() == [1, 2]
    assert "trades do not say who took" in tape_info(info_path).warnings


def test_bars_become_their_path_and_a_candle(tmp_path: Path) -> None:
    tape = load(put(tmp_path, BARS))
    assert tape.a.tolist() == [
        100,
        98,
        104,
        103,
        100,
        103,
        103,
        100,
        101,
        103,
    ]  # up: low first; down: high first
    assert tape.b.tolist() == [2, 2, 2, 3, 104, 1, 1, 1, 4, 103]
    assert tape.time_ms[:6].tolist() == [MS, MS + 20_000, MS + 40_000, MS + 59_999, MS + 60_000, MS + 60_000]
    assert tape.row(4) == (MS + 60_000, Row.CANDLE, 100, 104, 98, 103, 9)


def test_bid_and_ask_bars_become_quotes(tmp_path: Path) -> None:
    tape = load(put(tmp_path, QUOTE_BARS))
    assert tape.a.tolist() == [999, 985, 1020, 1011, 1000]
    assert tape.b.tolist() == [1001, 989, 1024, 1013, 1022]
    assert tape.c.tolist()[:4] == [50] * 4 and tape.d.tolist()[:4] == [25] * 4
    assert tape.row(4)[1:] == (Row.CANDLE, 1000, 1022, 987, 1012, 0)


@pytest.mark.parametrize("unit", [1, 1_000, 1_000_000, 1_000_000_000])
def test_the_unit_of_time_is_told_by_its_size(tmp_path: Path, unit: int) -> None:
    seconds = MS // 1_000
    tape = load(put(tmp_path, f"{seconds * unit},1,1,1,1,1\n{(seconds + 60) * unit},1,1,1,1,1\n"))
    assert tape.time_ms[0] == MS and tape.time_ms[-1] == MS + 120_000


def test_the_length_of_bars_is_seen(tmp_path: Path) -> None:
    assert (
        read(
            put(tmp_path, f"{MS},1,1,1,1,1\n{MS + 300_000},1,1,1,1,1\n{MS + 1_500_000},1,1,1,1,1\n")
        ).period_ms
        == 300_000
    )
    assert read(put(tmp_path, f"{MS},1,1,1,1,1\n")).period_ms == 60_000
    one = KLINES.splitlines()[0].replace("1735689659999999", "1735693199999999")
    assert read(put(tmp_path, one)).period_ms == 3_600_000


# --- raw frames ------------------------------------------------------------------------------------------------------

NS = MS * 1_000_000


def frame(at: int, name: str, data: dict[str, object], symbol: str = "btcusdt") -> str:
    return f"{NS + at * 1_000_000} " + json.dumps(
        {"stream": f"{symbol}@{name}", "data": data}, separators=(",", ":")
    )


def quote(at: int, bid: str, ask: str, **more: object) -> str:
    return frame(
        at, "bookTicker", {"u": 1, "s": "BTCUSDT", "b": bid, "B": "1.500", "a": ask, "A": "0.250", **more}
    )


def trade(at: int, price: str, number: int, name: str = "trade", **more: object) -> str:
    data = {"e": name, "s": "BTCUSDT", "p": price, "q": "0.006", "m": True, **more}
    return frame(at, name, data | {"t" if name == "trade" else "a": number})


def test_frames_are_sorted_into_used_unused_and_unknown(tmp_path: Path) -> None:
    lines = [
        frame(0, "depth@100ms", {"e": "depthUpdate", "b": [], "a": []}),
        quote(1, "100.0", "100.1", e="bookTicker"),
        f'{NS + 1_000_000} {{"lastUpdateId":1,"bids":[],"asks":[]}}',
        f'{NS + 1_000_000} {{"result":null,"id":1}}',
        trade(2, "100.1", 7, X="MARKET"),
        trade(2, "0", 8, X="NA"),
        frame(3, "markPrice@1s", {"e": "markPriceUpdate", "s": "BTCUSDT"}),
        frame(4, "surprise@x", {"s": "BTCUSDT"}),
        f'{NS + 5_000_000} {{"e":"somethingElse"}}',
        f'{NS + 6_000_000} {{"stream":"!miniTicker@arr","data":[]}}',
    ]
    path = put(tmp_path, "\n".join(lines) + "\n")
    tape, info = load(path), tape_info(path)
    assert tape.row(0) == (MS + 1, Row.QUOTE, 1000, 1001, 15 * 100, 250, 0)
    assert tape.row(1) == (MS + 2, Row.TRADE, 1001, 6, -1, 7, 0)
    unused = ("depth", "rest-snapshot", "answer", "trade NA", "markPrice", "miniTicker")
    assert info.unused == dict.fromkeys(unused, 1)
    assert info.unknown == {"surprise@x": 1, "somethingElse": 1}
    assert info.lines + sum(info.unused.values()) + sum(info.unknown.values()) == len(lines)
    assert any("'surprise@x' are not known" in warning for warning in info.warnings)
    assert info.instrument == Instrument("BTC/USDT:USDT", "perpetual", Decimal("0.1"), Decimal("0.001"))


def test_single_trades_are_preferred_to_aggregated_ones(tmp_path: Path) -> None:
    both = [trade(1, "100.1", 7), trade(1, "100.1", 3, "aggTrade"), trade(2, "100.2", 8)]
    path = put(tmp_path, "\n".join(both))
    assert load(path).d.tolist() == [7, 8] and tape_info(path).unused == {"aggTrade": 1}
    assert load(put(tmp_path, trade(1, "100.1", 3, "aggTrade"))).d.tolist() == [3]


def test_frames_out_of_turn_are_sorted_by_local_time(tmp_path: Path) -> None:
    path = put(tmp_path, "\n".join([quote(5, "9.9", "10.1"), trade(1, "10.0", 1), trade(5, "10.1", 2)]))
    tape = load(path)
    assert tape.time_ms.tolist() == [MS + 1, MS + 5, MS + 5] and tape.kind.tolist() == [2, 1, 2]
    assert "frames were sorted by local time at 1 places" in tape_info(path).warnings


def test_one_of_several_markets_is_chosen_by_name(tmp_path: Path) -> None:
    other = quote(2, "50.0", "50.5").replace("BTCUSDT", "ETHUSDT").replace("btcusdt", "ethusdt")
    path = put(tmp_path, "\n".join([quote(1, "100.0", "100.1"), other]))
    refused(path, "several markets", "BTCUSDT, ETHUSDT")
    refused(path, "symbol ADAUSDT", symbol="ADAUSDT")
    tape = load(path, symbol="ETHUSDT")
    assert tape.instrument.symbol == "ETH/USDT" and len(tape) == 1
    assert tape_info(path, symbol="ETHUSDT").unused == {"other symbols": 1}


def test_frames_that_stand_alone_are_told_by_their_content(tmp_path: Path) -> None:
    lines = [
        f'{NS} {{"u":1,"s":"BTCUSDT","b":"10.0","B":"1","a":"10.1","A":"2"}}',
        f'{NS} {{"e":"trade","s":"BTCUSDT","t":5,"p":"10.1","q":"1","m":false,"M":true}}',
        f'{NS} {{"e":"depthUpdate","s":"BTCUSDT"}}',
    ]
    path = put(tmp_path, "\n".join(lines))
    assert load(path).kind.tolist() == [1, 2] and tape_info(path).unused == {"depth": 1}
    assert load(path).instrument.market == "spot"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"stream":"btcusdt@trade","data":{}}', "it must be the local time"),
        (f"{NS} not json", "it is no JSON object"),
        (f"{NS} [1]", "it is no JSON object"),
        (f"{2**63} {{}}", "it must be the local time"),
        (frame(2, "trade", {"s": "BTCUSDT", "p": "1", "q": "1"}), "a trade frame"),
        (frame(2, "trade", {"s": "BTCUSDT", "p": 1.5, "q": "1", "m": True, "t": 1}), "a trade frame"),
        (trade(2, "x", 9), "price was 'x': it is not a number"),
        (trade(2, "-1", 9), "price was -1"),
        (quote(2, "100.2", "100.1"), "the bid is not below the ask"),
    ],
)
def test_a_bad_frame_is_named(tmp_path: Path, line: str, words: str) -> None:
    path = put(tmp_path, "\n".join([quote(1, "100.0", "100.1"), "", line]))
    refused(path, f"{path}:3: ", words)


def test_frames_without_a_price_are_refused(tmp_path: Path) -> None:
    refused(put(tmp_path, frame(0, "depth@0ms", {})), "no quote and no trade", "the file holds depth")
    refused(put(tmp_path, '{"stream":"btcusdt@trade"}\n'), "frames without local time")


# --- bad files and bad lines -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b" \n\n", "the file is empty"),
        (b"\xff\xfe\x00binary", "the file is no text"),
        (b"1,2\x003,4\n", "the file is no text"),
        (gzip.compress(BARS.encode(), mtime=0)[:-12], "the compressed file is damaged"),
        (b"\x1f\x8bnot gzip at all", "the"),
        (zipped(BARS, "a.csv", "b.csv"), "a zip of 2 files"),
        (zipped(BARS, "a.csv")[:-30], "the compressed file is damaged"),
        (HEADERS["bars"].encode(), "the file holds a header only"),
        (b"time,price\n1735689600000,5\n", "no known format has them"),
        (b"1,2,3\n", "3 columns without a header"),
        (b"5,true,7,8,9,10\n", "booleans in [2]"),
    ],
)
def test_a_file_that_is_no_tape_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    refused(put(tmp_path, content), words)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere.csv", "the file cannot be read")
    refused(tmp_path, "the file cannot be read")


def swapped(text: str, line: int, old: str, new: str) -> str:
    lines = text.splitlines()
    assert old in lines[line - 1]
    lines[line - 1] = lines[line - 1].replace(old, new, 1)
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (swapped(BARS, 2, "103,103", "103,x"), 2, "high was 'x': it is not a number"),
        (swapped(BARS, 2, "103,103", "103,nan"), 2, "high was 'nan'"),
        (swapped(BARS, 2, "103,103", "103,"), 2, "high was ''"),
        (swapped(BARS, 2, "103,103", "0,103"), 2, "open was 0: it must be > 0"),
        (swapped(BARS, 2, ",7", ",-7"), 2, "volume was -7: it must be >= 0"),
        (swapped(BARS, 2, ",7", ""), 2, "5 cells: the file has 6 columns"),
        (swapped(BARS, 2, ",7", ",7,8"), 2, "7 cells"),
        (swapped(BARS, 2, str(MS + 60_000), str(MS)), 2, "time was 2025-01-01 00:00:00: the row before was"),
        (swapped(BARS, 2, str(MS + 60_000), "12"), 2, "open_time was 12"),
        (swapped(BARS, 2, str(MS + 60_000), "1735689660000.5"), 2, "open_time was"),
        (swapped(BARS, 2, "103,103,100", "103,102,100"), 2, "they do not enclose the bar"),
        (swapped(BARS, 1, "98", "101"), 1, "they do not enclose the bar"),
        (swapped(BARS, 2, "103,103", "1e-30,103"), 2, "it is less than one tick"),
        (swapped(BARS, 2, ",7", "," + "1" * 30), 2, "it has more than 18 digits"),
        (swapped(BARS, 2, ",7", "," + "1" * 100), 2, "it is not a number"),
        (swapped(BARS, 2, ",7", "," + "٧"), 2, "it is not a number"),
        (swapped(BARS, 2, ",7", "," + "1_0"), 2, "it is not a number"),
        (swapped(BARS, 2, ",7", "," + "1e999"), 2, "it is too small or too large"),
        (swapped(AGG_SPOT, 2, "FALSE", "maybe"), 2, "is_buyer_maker was 'maybe'"),
        (swapped(AGG_SPOT, 2, "1735689600020000", "1735689600016000"), 2, "time was"),
        (swapped(QUOTE_BARS, 1, "101.3", "101.0"), 1, "the bid is not below the ask"),
        (swapped(QUOTE_BARS, 1, "101.3", "103"), 1, "ask_high and ask_low"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, text: str, line: int, words: str) -> None:
    path = put(tmp_path, text)
    refused(path, f"{path}:{line}: ", words)
    below = put(tmp_path, "\n" + text, "shifted.csv")
    refused(below, f"{below}:{line + 1}: ", words)


def test_a_cell_without_end_is_named(tmp_path: Path) -> None:
    path = put(tmp_path, BARS + '"' + "9" * 200_000)
    refused(path, f"{path}:3: the line")


def test_numbers_too_large_for_their_steps_are_refused(tmp_path: Path) -> None:
    path = put(tmp_path, f"{MS},100,100,100,100,100000000000\n")
    fine = Instrument("BTC/USDT", "spot", Decimal(1), Decimal("1e-8"))
    with pytest.raises(
        TapeError, match=r"too large to count in steps of 1e-8: .*|too large to count in steps of 1e-8\."
    ):
        load(path, instrument=fine)


@pytest.mark.parametrize(("option", "value"), [("path", "random"), ("volume", "shares")])
def test_an_unknown_option_is_refused(tmp_path: Path, option: str, value: str) -> None:
    with pytest.raises(TapeError, match=value):
        load(put(tmp_path, BARS), **{option: value})  # type: ignore[arg-type]


# --- exactness -------------------------------------------------------------------------------------------------------

DECIMALS = st.decimals(min_value=-(10**6), max_value=10**6, allow_nan=False, allow_infinity=False, places=8)


@given(
    st.lists(
        st.one_of(DECIMALS.map(str), DECIMALS.map(lambda d: f"{d:E}"), DECIMALS.map(lambda d: f"{d:f}000")),
        max_size=30,
    )
)
def test_text_is_read_like_decimal_reads_it(texts: list[str]) -> None:
    numbers = parse(texts)
    for text, mantissa, digits in zip(texts, numbers.mantissa.tolist(), numbers.digits.tolist(), strict=True):
        assert Decimal(mantissa).scaleb(-digits) == Decimal(text)
        assert digits == 0 or mantissa % 10


@given(st.lists(st.text(alphabet="0123456789.-+eE nia_", max_size=24), min_size=1, max_size=5))
def test_whatever_is_no_number_is_refused_by_its_place(texts: list[str]) -> None:
    try:
        numbers = parse(texts)
    except BadNumber as error:
        assert error.index < len(texts)
    else:
        for text, mantissa, digits in zip(
            texts, numbers.mantissa.tolist(), numbers.digits.tolist(), strict=True
        ):
            assert Decimal(mantissa).scaleb(-digits) == Decimal(text.strip())


@given(
    st.lists(DECIMALS, min_size=1, max_size=30),
    st.sampled_from(["0.01", "0.5", "1", "5", "0.0001", "10"]).map(Decimal),
    st.booleans(),
)
def test_steps_are_rounded_as_said(prices: list[Decimal], size: Decimal, nearest: bool) -> None:
    steps = in_steps(parse([str(price) for price in prices]), size, nearest)
    for price, whole, off in zip(prices, steps.whole.tolist(), steps.off.tolist(), strict=True):
        assert off == (price % size != 0)
        rest = price - whole * size
        assert (
            -size / 2 < rest <= size / 2 if nearest and rest != -size / 2 else (nearest or 0 <= rest < size)
        )


@given(
    ticks=st.lists(st.integers(1, 10**9), min_size=1, max_size=50),
    lots=st.lists(st.integers(0, 10**9), min_size=50, max_size=50),
    digits=st.integers(0, 8),
    zeros=st.integers(0, 3),
)
@settings(max_examples=60)
def test_what_is_written_in_ticks_is_read_in_ticks(
    tmp_path_factory: pytest.TempPathFactory, ticks: list[int], lots: list[int], digits: int, zeros: int
) -> None:
    market = Instrument("BTC/USDT", "spot", Decimal(1).scaleb(-digits), Decimal("0.001"))
    text = "".join(
        f"{i},{market.price(p):f}{'0' * zeros if digits else ''},{market.quantity(q):f},{MS + i},{'True' if q % 2 else 'false'}\n"
        for i, (p, q) in enumerate(zip(ticks, lots, strict=False))
    )
    tape = load(put(tmp_path_factory.getbasetemp(), text), instrument=market)
    assert tape.a.tolist() == ticks and tape.b.tolist() == lots[: len(ticks)]
    assert tape.c.tolist() == [-1 if q % 2 else 1 for q in lots[: len(ticks)]]
    inferred = load(put(tmp_path_factory.getbasetemp(), text))
    assert [inferred.instrument.price(t) for t in inferred.a] == [market.price(t) for t in ticks]


BAR = st.lists(st.integers(1, 10**6), min_size=4, max_size=4).map(sorted)


@given(
    st.lists(st.tuples(BAR, st.booleans(), st.integers(0, 10**6)), min_size=1, max_size=20),
    st.sampled_from(PATHS),
)
def test_a_path_stays_in_its_bar_and_keeps_its_volume(
    bars: list[tuple[list[int], bool, int]], path: str
) -> None:
    ohlc = np.array([[b[1], b[3], b[0], b[2]] if up else [b[2], b[3], b[0], b[1]] for b, up, _ in bars]).T
    lots = np.array([v for _, _, v in bars])
    rows = bar_rows(np.arange(len(bars)) * 60_000, 60_000, ohlc, lots, path)
    assert (np.diff(rows[0]) >= 0).all()
    at = 0
    for (o, h, low, c), volume in zip(ohlc.T.tolist(), lots.tolist(), strict=True):
        if volume:
            points, at = rows[:, at : at + 4], at + 4
            assert points[2, 0] == o and points[2, 3] == c and sorted(points[2, 1:3].tolist()) == [low, h]
            assert points[3].sum() == volume and (points[1] == Row.PATH).all()
            way, other = (int(np.abs(np.diff(p)).sum()) for p in (points[2], points[2][[0, 2, 1, 3]]))
            assert path != "pessimistic" or way <= other
        assert rows[1:, at].tolist() == [Row.CANDLE, o, h, low, c, volume]
        at += 1
    assert at == rows.shape[1]


def test_the_order_of_a_bar_can_be_forced(tmp_path: Path) -> None:
    path = put(tmp_path, BARS)
    assert load(path, path="ohlc").a[1:3].tolist() == [104, 98]
    assert load(path, path="olhc").a[6:8].tolist() == [100, 103]
    assert len({load(path, path=order).sha for order in PATHS}) == 3


# --- the instrument --------------------------------------------------------------------------------------------------


def trades_at(*prices: str) -> str:
    return "".join(f"{i},{price},1,{MS + i},true\n" for i, price in enumerate(prices))


def test_the_tick_is_the_step_that_prices_share() -> None:
    assert step(parse(["100", "101.5", "99.25"])) == Decimal("0.01")
    assert step(parse(["100", "200"])) == 1
    assert step(parse([f"{i / 2}" for i in range(2_000, 4_000)]), fives=True) == Decimal("0.5")
    assert step(parse([f"{i / 2}" for i in range(2_000, 2_900)]), fives=True) == Decimal("0.1")
    assert step(parse([f"{5 * i}" for i in range(2_000, 4_000)]), fives=True) == 5
    assert step(parse(["8.880099999999999"]), digits_max=8) == Decimal("1e-8")


def test_a_few_strays_are_rounded_and_reported(tmp_path: Path) -> None:
    path = put(tmp_path, trades_at(*(str(46_000 + i) for i in range(2_000)), "46319.375", "46319.5"))
    tape, info = load(path), tape_info(path)
    assert tape.instrument.tick == 1 and tape.a[-2:].tolist() == [46_319, 46_320]
    assert "2 of 2002 prices lay between ticks of 1 and were rounded" in info.warnings


def test_the_wrong_tick_is_refused_at_its_first_price(tmp_path: Path) -> None:
    path = put(tmp_path, trades_at("46000", "46000.1", "46000.2"))
    coarse = Instrument("BTC/USDT", "spot", Decimal("0.5"), Decimal(1))
    with pytest.raises(TapeError, match=r":2: price was 46000\.1: it lies between two ticks of 0\.5"):
        load(path, instrument=coarse)


def test_a_quantity_between_lots_is_rounded_down(tmp_path: Path) -> None:
    text = f"1,100,1.999,{MS},true\n2,100,0.0009,{MS},true\n"
    tape = load(put(tmp_path, text), instrument=Instrument("BTC/USDT", "spot", Decimal(1), Decimal("0.001")))
    assert tape.b.tolist() == [1_999, 0]


def test_quotes_between_ticks_never_get_better(tmp_path: Path) -> None:
    header = "best_bid_price,best_bid_qty,best_ask_price,best_ask_qty,time\n"
    rows = "".join(f"100,1,101,1,{MS}\n" for _ in range(2_000)) + f"100.7,1,101.2,1,{MS}\n"
    tape = load(put(tmp_path, header + rows))
    assert (tape.a[-1], tape.b[-1]) == (100, 102)


def test_volume_in_quote_currency_is_divided_by_the_price(tmp_path: Path) -> None:
    path = put(tmp_path, f"{MS},100,100,100,100,250.5\n")
    market = Instrument("BTC/USDT", "spot", Decimal("0.1"), Decimal("0.01"))
    assert load(path, instrument=market, volume="quote").e[-1] == 250
    assert load(path, instrument=market).e[-1] == 25_050


@pytest.mark.parametrize(
    ("name", "symbol"),
    [
        ("BTCUSDT-1m-2025-01.csv", "BTC/USDT"),
        ("eth-usdc_trades.csv.gz", "ETH/USDC"),
        ("btcperp_1m.csv", "BTC/USD:USD"),
        ("1000SHIBUSDT_perp.csv", "1000SHIB/USDT:USDT"),
        ("solusdt_spot.csv", "SOL/USDT"),
        ("ETHBTC.csv", "ETH/BTC"),
        ("week.csv", "BASE/QUOTE"),
    ],
)
def test_the_name_hints_at_the_symbol(tmp_path: Path, name: str, symbol: str) -> None:
    path = put(tmp_path, BARS, name)
    assert load(path).instrument.symbol == symbol
    assert (symbol == "BASE/QUOTE") == any("symbol is not known" in w for w in tape_info(path).warnings)


# --- tapes -----------------------------------------------------------------------------------------------------------


def test_a_tape_is_known_by_content_and_steps(tmp_path: Path) -> None:
    tape = load(put(tmp_path, BARS))
    assert (
        load(put(tmp_path, gzip.compress(BARS.encode(), mtime=0), "other.gz"), instrument=tape.instrument).sha
        == tape.sha
    )
    finer = Instrument("BTC/USDT", "spot", Decimal("0.1"), Decimal(1))
    assert load(put(tmp_path, BARS), instrument=finer).sha != tape.sha
    assert load(put(tmp_path, BARS.replace(",9\n", ",8\n"))).sha != tape.sha


def test_a_tape_knows_its_rows(tmp_path: Path) -> None:
    tape = load(put(tmp_path, BARS))
    assert len(tape) == tape.rows == 10 and tape.part(9) is tape and tape.name == "BTCUSDT"
    for row in (-1, 10):
        with pytest.raises(IndexError, match=f"row {row} was asked"):
            tape.part(row)
    cut = between(tape, MS + 60_000, MS + 90_000)
    assert cut.row(0) == tape.row(4) and len(cut) == 3 and len(between(tape, 0, 5)) == 0
    with pytest.raises(ValueError, match="time went back"):
        sealed(Tape.of(tape.instrument, "x", [column[::-1] for column in tape.columns()]))
    with pytest.raises(ValueError, match="not of equal length"):
        sealed(Tape.of(tape.instrument, "x", [*tape.columns()[:6], tape.e[:3]]))


def test_gaps_are_counted_and_reported(tmp_path: Path) -> None:
    hour = f"{MS},1,1,1,1,1\n{MS + 60_000},1,1,1,1,1\n{MS + 3_600_000},1,1,1,1,1\n"
    info = tape_info(put(tmp_path, hour))
    assert info.gaps == ((MS + 120_000, MS + 3_600_000),) and info.missing == 58
    assert "58 bars are missing" in info.warnings and info.duration_ms == 3_660_000
    skipping = tape_info(put(tmp_path, f"5,1,1,{MS},true\n9,1,1,{MS + 1},true\n"))
    assert skipping.missing == 3 and skipping.gaps == ()
    busy = MS + np.concatenate([np.arange(1_000), 900_000 + np.arange(1_000)])
    assert gaps(busy) == ((MS + 999, MS + 900_000),) and gaps(busy[:1]) == ()


def test_a_recording_of_silent_bars_has_prices(tmp_path: Path) -> None:
    info = tape_info(put(tmp_path, f"{MS},5,6,4,5,0\n{MS + 60_000},5,6,4,5,0\n"))
    assert info.rows == {"candle": 2} and info.low == info.high == 5


def test_what_is_seen_is_told(tmp_path: Path) -> None:
    path = put(
        tmp_path,
        "\n".join([quote(1, "100.0", "100.1", e="bookTicker"), trade(2, "100.1", 7)]),
        'odd "name".ndjson',
    )
    market = tape_info(path).instrument
    assert (market.symbol, market.market, str(market.tick), str(market.lot)) == (
        "BTC/USDT:USDT",
        "perpetual",
        "0.1",
        "0.001",
    )
    assert market.maker_fee_ppm == 200
    assert str(tape_info(path)).splitlines()[0].startswith('file      odd "name".ndjson: raw frames, 2 rows')


def test_scale_refuses_what_does_not_fit() -> None:
    with pytest.raises(BadNumber, match="too large to count"):
        scale(parse(["123456789012"]), 10)


# --- real recordings -------------------------------------------------------------------------------------------------

REAL = {
    # symbol, market, tick, lot, rows of the tape, rounded prices, gaps
    "adausdt_perp_1m_202506.csv.gz": ("ADA/USDT:USDT", "0.0001", "1", 215_817, 0, 0),
    "binance_spot_btcusdt_20240808_raw.ndjson.gz": ("BTC/USDT", "0.01", "0.00001", 37_797, 0, 0),
    "binance_spot_ethusdt_20240808_raw.ndjson.gz": ("ETH/USDT", "0.01", "0.0001", 30_183, 0, 0),
    "binance_usdm_btcusdt_20240808_raw.ndjson.gz": ("BTC/USDT:USDT", "0.1", "0.001", 87_402, 0, 0),
    "btcperp_ftx_1m_202201.csv.gz": ("BTC/USD:USD", "1", "0.0001", 225_155, 41, 0),
    "btcusdc_binanceus_1m_202303.csv.gz": ("BTC/USDC", "0.01", "0.000001", 99_316, 0, 0),
    "btcusdt_perp_1m_202506.csv.gz": ("BTC/USDT:USDT", "0.1", "0.001", 215_825, 0, 0),
    "lean_binance_perp_adausdt_1m_trades.csv.gz": ("ADA/USDT:USDT", "0.0001", "1", 7_200, 0, 0),
    "lean_coinbase_btcusd_1m_quotes.csv.gz": ("BTC/USD", "0.01", "0.00000001", 35_940, 0, 10),
    "lean_coinbase_btcusd_1m_trades.csv.gz": ("BTC/USD", "0.01", "0.00000001", 62_115, 0, 99),
    "lean_coinbase_btcusd_1s_trades.csv.gz": ("BTC/USD", "0.01", "0.00000001", 57_600, 0, 10_910),
    "lean_coinbase_ethusd_1m_quotes.csv.gz": ("ETH/USD", "0.01", "0.00000001", 28_750, 0, 9),
    "lean_coinbase_ethusd_1m_trades.csv.gz": ("ETH/USD", "0.01", "0.00000001", 26_645, 0, 3),
    "lean_coinbase_ltcusd_1m_trades.csv.gz": ("LTC/USD", "0.01", "0.00000001", 19_435, 0, 4),
    "xrpeth_binance_aggtrades_20191011.csv.gz": ("XRP/ETH", "0.00000001", "1", 12_477, 0, 15),
}


@cache
def seen(path: Path) -> Reading:
    return read(path)


@pytest.mark.parametrize("name", REAL)
def test_real_recordings_are_understood(name: str) -> None:
    symbol, tick, lot, rows, rounded, holes = REAL[name]
    reading = seen(real(name))
    market = reading.tape.instrument
    assert (market.symbol, market.tick, market.lot) == (symbol, Decimal(tick), Decimal(lot))
    assert (len(reading.tape), reading.rounded) == (rows, rounded)
    assert reading.columns.unknown == {} and len(info_of(reading).gaps) == holes


def test_no_frame_of_a_real_recording_is_lost() -> None:
    path = real("binance_usdm_btcusdt_20240808_raw.ndjson.gz")
    with gzip.open(path) as file:
        lines = sum(1 for line in file if line.strip())
    info = info_of(seen(path))
    assert info.lines + sum(info.unused.values()) == lines
    assert info.unused == {"depth": 6_551, "rest-snapshot": 1} and info.missing == 0


@pytest.mark.parametrize(
    "name", ["btcusdt_perp_1m_202506.csv.gz", "xrpeth_binance_aggtrades_20191011.csv.gz"]
)
def test_real_prices_are_exact(name: str) -> None:
    path = real(name)
    tape = seen(path).tape
    prices = tape.a[tape.kind == Row.TRADE] if "agg" in name else tape.d[tape.kind == Row.CANDLE]
    with gzip.open(path, "rt") as file:
        column = next(file).rstrip().split(",").index("price" if "agg" in name else "close")
        written = [line.rstrip().split(",")[column] for line in file]
    assert len(written) == len(prices)
    for text, ticks in zip(written[::7], prices[::7].tolist(), strict=True):
        assert tape.instrument.price(ticks) == Decimal(text)


def test_large_recordings_load_fast(note: Callable[[str], None]) -> None:
    for name, limit in (
        ("binance_usdm_btcusdt_20240808_raw.ndjson.gz", 2.0),
        ("btcperp_ftx_1m_202201.csv.gz", 1.0),
    ):
        path = real(name)
        start = time.process_time()
        rows = len(load(path))
        took = time.process_time() - start
        note(f"loading {name}: {rows} rows in {took:.2f} s")
        assert took < 4 * limit  # a shared machine; the note shows the number that matters


def test_a_dump_of_quote_volume_is_pointed_at() -> None:
    info = info_of(seen(real("btcperp_ftx_1m_202201.csv.gz")))
    assert any("volume = quote" in warning for warning in info.warnings)
    other = info_of(seen(real("btcusdt_perp_1m_202506.csv.gz")))
    assert not any("volume = quote" in warning for warning in other.warnings)


def test_columns_name_what_they_read(tmp_path: Path) -> None:
    columns = read_columns(put(tmp_path, "\n\n" + TURNOVER))
    assert columns.lines.tolist() == [3, 4] and "turnover" not in columns.numbers
