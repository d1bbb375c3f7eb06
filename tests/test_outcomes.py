"""Every answer of an exchange means what the table says, on the exceptions that ccxt itself raises."""

from __future__ import annotations

import asyncio
import csv
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import ccxt
import ccxt.async_support
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridmm import outcomes
from gridmm.exchange import Accepted, NotSent, Rejected, RejectReason, Unknown
from gridmm.outcomes import (
    COMMANDS,
    FATAL,
    TABLE,
    UNLISTED,
    Answer,
    Remedy,
    Row,
    Verdict,
    answered,
    classify,
    refused,
    rows,
)

URLS = {
    "binance": "https://api.binance.com/api/v3/order",
    "binanceusdm": "https://fapi.binance.com/fapi/v1/order",
    "okx": "https://www.okx.com/api/v5/trade/order",
    "bybit": "https://api.bybit.com/v5/order/create",
    "bitget": "https://api.bitget.com/api/v2/spot/trade/place-order",
    "gate": "https://api.gateio.ws/api/v4/spot/orders",
}
METHOD = {"place": "POST", "cancel": "DELETE", "query": "GET"}


@cache
def client(exchange: str) -> Any:
    """Return ccxt's client; it connects to nothing."""
    return getattr(ccxt, exchange)()


def body_of(exchange: str, code: str, message: str) -> str:
    """Return an answer as the exchange writes it."""
    if exchange in ("binance", "binanceusdm"):
        return json.dumps({"code": int(code), "msg": message})
    if exchange == "okx":
        item = {"clOrdId": "GMA1", "ordId": "", "sCode": code, "sMsg": message, "tag": ""}
        outer = {"code": code, "data": [], "msg": message}
        inner = {"code": "1", "data": [item], "inTime": "1", "msg": "", "outTime": "2"}
        return json.dumps(inner if code.startswith("51") else outer)
    if exchange == "bybit":
        return json.dumps(
            {"retCode": int(code), "retMsg": message, "result": {}, "retExtInfo": {}, "time": 1}
        )
    if exchange == "bitget":
        return json.dumps({"code": code, "msg": message, "requestTime": 1, "data": None})
    return json.dumps({"label": code, "message": message})


def raised(
    exchange: str, command: str, body: str, status: int = 400, text: str = "Bad Request"
) -> ccxt.BaseError:
    """Return what ccxt raises for an answer, in the two steps of its `fetch`."""
    try:
        parsed = json.loads(body)
    except ValueError:
        parsed = None
    x, url, method = client(exchange), URLS[exchange], METHOD[command]
    try:
        x.handle_errors(status, text, url, method, {}, body, parsed, {}, None)
        x.handle_http_status_code(status, text, url, method, body)
    except ccxt.BaseError as error:
        return error
    raise AssertionError(f"ccxt takes {status} {body} for a success")


class Case(NamedTuple):
    """One answer of an exchange, what ccxt makes of it, and what it means."""

    exchange: str
    command: str
    code: str
    message: str
    ccxt: str
    means: str


with (Path(__file__).parent / "fixtures" / "outcomes.csv").open(encoding="utf-8", newline="") as file:
    CASES = [Case(**line) for line in csv.DictReader(file)]
NAMES = [f"{case.exchange} {case.code} {case.message[:30]}" for case in CASES]


def meaning(verdict: Verdict) -> str:
    """Return a verdict in the one word that the cases are written in."""
    if verdict.row.answer != Answer.REJECTED:
        return verdict.row.answer.name
    if verdict.row.remedy in (Remedy.NONE, Remedy.WAIT):
        return str(verdict.row.reason)
    assert verdict.row.reason == RejectReason.OTHER
    return verdict.row.remedy.name


def wrong(case: Case) -> str:
    """Return what is wrong with the table, or with ccxt, for one case; empty where all is well."""
    body = body_of(case.exchange, case.code, case.message)
    error = raised(case.exchange, case.command, body)
    if type(error).__name__ != case.ccxt:
        return f"ccxt raised {type(error).__name__}, was {case.ccxt}"
    for verdict in (
        classify(case.exchange, case.command, error, body=body),
        classify(case.exchange, case.command, error),
    ):
        if case.code not in verdict.row.codes:
            return f"{verdict.row.name} decided, not a row of the code"
        if case.ccxt not in verdict.row.exceptions:
            return f"{verdict.row.name} does not name {case.ccxt}"
        if meaning(verdict) != case.means:
            return f"{verdict.row.name} said {meaning(verdict)}, must be {case.means}"
    return ""


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_code(case: Case) -> None:
    assert wrong(case) == ""


@pytest.mark.parametrize("row", [row for row in TABLE if row.codes], ids=lambda row: row.name)
def test_row_is_reached_by_each_of_its_codes(row: Row) -> None:
    mine = [case for case in CASES if case.exchange in row.exchange and case.code in row.codes]
    for exchange in row.exchange:
        told = {case.code for case in mine if case.exchange == exchange and row.text in case.message}
        assert told == set(row.codes), "a code of this row has no case"
    assert {case.ccxt for case in mine if row.text in case.message} >= set(row.exceptions)


def test_no_name_is_given_twice() -> None:
    assert [name for name, count in Counter(row.name for row in TABLE).items() if count > 1] == []
    assert len({case[:4] for case in CASES}) == len(CASES)


class Status(NamedTuple):
    """An HTTP status without a code, and what it means."""

    exchange: str
    status: int
    body: str
    ccxt: str
    means: str


HTML = "<html><head><title>{0}</title></head><body><center><h1>{0}</h1></center></body></html>"
BUSY = HTML.format("503 Service Unavailable")
BANNED = body_of("binance", "-1003", "Way too much request weight used; IP banned until 1659146400000.")
FORBIDDEN = HTML.format("403 Forbidden")
BARRED = '{"code":0,"msg":"Service unavailable from a restricted location according to the terms of use."}'
STATUSES = [
    Status("binance", 418, BANNED, "DDoSProtection", "RATE_LIMIT"),
    Status("binanceusdm", 418, BANNED, "DDoSProtection", "RATE_LIMIT"),
    Status("binance", 429, body_of("binance", "-1015", "Too many."), "DDoSProtection", "RATE_LIMIT"),
    Status("binanceusdm", 429, "", "DDoSProtection", "RATE_LIMIT"),
    Status("okx", 429, "", "ExchangeNotAvailable", "RATE_LIMIT"),
    Status("bybit", 429, "", "RateLimitExceeded", "RATE_LIMIT"),
    Status("bitget", 429, "", "RateLimitExceeded", "RATE_LIMIT"),
    Status("gate", 429, "", "RateLimitExceeded", "RATE_LIMIT"),
    Status("bybit", 403, FORBIDDEN, "RateLimitExceeded", "RATE_LIMIT"),
    Status("binance", 403, FORBIDDEN, "ExchangeNotAvailable", "RATE_LIMIT"),
    Status("binanceusdm", 403, FORBIDDEN, "ExchangeNotAvailable", "RATE_LIMIT"),
    Status("okx", 403, FORBIDDEN, "ExchangeNotAvailable", "UNKNOWN"),
    Status("binance", 451, BARRED, "ExchangeNotAvailable", "ACCOUNT"),
    Status("okx", 451, "", "ExchangeNotAvailable", "ACCOUNT"),
    Status("binance", 401, "", "AuthenticationError", "KEY"),
    Status("binance", 500, HTML.format("500"), "ExchangeNotAvailable", "UNKNOWN"),
    Status("binanceusdm", 502, HTML.format("502 Bad Gateway"), "ExchangeNotAvailable", "UNKNOWN"),
    Status("binanceusdm", 503, BUSY, "ExchangeNotAvailable", "UNKNOWN"),
    Status("okx", 503, BUSY, "ExchangeNotAvailable", "UNKNOWN"),
    Status("bybit", 504, HTML.format("504 Gateway Time-out"), "RequestTimeout", "UNKNOWN"),
    Status("gate", 500, HTML.format("500"), "ExchangeNotAvailable", "UNKNOWN"),
    Status("bitget", 404, HTML.format("404"), "ExchangeNotAvailable", "UNKNOWN"),
]


@pytest.mark.parametrize("told", [True, False], ids=["status told", "status read"])
@pytest.mark.parametrize("case", STATUSES, ids=lambda case: f"{case.exchange} {case.status}")
def test_status(case: Status, told: bool) -> None:
    """The status decides, whether the caller tells it or it must be read from ccxt's message."""
    for command in COMMANDS:
        error = raised(case.exchange, command, case.body, case.status, "Said")
        assert type(error).__name__ == case.ccxt
        verdict = classify(case.exchange, command, error, status=case.status * told)
        assert meaning(verdict) == case.means, verdict.row.name
        assert case.ccxt in verdict.row.exceptions
        assert bool(verdict.fatal) == (case.means in ("ACCOUNT", "KEY"))


def test_ban_raises_the_alarm_and_tells_its_end() -> None:
    verdict = classify("binance", "place", raised("binance", "place", BANNED, 418, "I'm a teapot"))
    assert (verdict.row.alarm, verdict.until_ms, verdict.retry_ms) == (True, 1_659_146_400_000, 120_000)
    busy = classify(
        "binance", "place", raised("binance", "place", body_of("binance", "-1003", "Too much."), 429)
    )
    assert (busy.row.alarm, busy.until_ms) == (False, None)


def test_retry_after_is_obeyed_only_where_waiting_helps() -> None:
    limited = raised("binance", "place", "", 429, "Too Many Requests")
    assert classify("binance", "place", limited, retry_after_ms=37_000).retry_ms == 37_000
    assert classify("binance", "place", limited, retry_after_ms=0).retry_ms == 0
    assert classify("binance", "place", limited).retry_ms == 10_000
    poor = raised(
        "binance",
        "place",
        body_of("binance", "-2010", "Account has insufficient balance for requested action."),
    )
    assert classify("binance", "place", poor, retry_after_ms=37_000).retry_ms == 0


CLASSES = {
    "AccountSuspended AccountNotEnabled RestrictedLocation ManualInteractionNeeded": "ACCOUNT",
    "PermissionDenied": "PERMISSION",
    "AuthenticationError": "KEY",
    "InsufficientFunds": "FUNDS",
    "OrderImmediatelyFillable": "POST_ONLY",
    "DuplicateOrderId": "DUPLICATE",
    "MarketClosed ContractUnavailable BadSymbol": "MARKET",
    "InvalidNonce ChecksumError": "CLOCK",
    "DDoSProtection RateLimitExceeded": "RATE_LIMIT",
    "RequestTimeout ExchangeNotAvailable OnMaintenance OperationFailed NetworkError": "UNKNOWN",
    "BadResponse NullResponse CancelPending": "UNKNOWN",
    "ExchangeError InvalidOrder BadRequest OperationRejected NotSupported ArgumentsRequired": "UNKNOWN",
    "OrderNotFillable OrderNotCached NoChange BaseError": "UNKNOWN",
}


@pytest.mark.parametrize(
    ("name", "means"), [(name, means) for names, means in CLASSES.items() for name in names.split()]
)
def test_class(name: str, means: str) -> None:
    for exchange in (*URLS, "kraken"):
        error = getattr(ccxt, name)(f"{exchange} something that no table knows")
        assert meaning(classify(exchange, "place", error)) == means


def test_missing_order_means_nothing_for_an_order_that_is_being_placed() -> None:
    error = ccxt.OrderNotFound("kraken no such order")
    assert [meaning(classify("kraken", command, error)) for command in COMMANDS] == [
        "UNKNOWN",
        "UNKNOWN_ORDER",
        "UNKNOWN_ORDER",
    ]


def test_row_of_a_class_or_status_is_reached() -> None:
    reached = {classify("kraken", "cancel", ccxt.OrderNotFound("kraken")).row.name}
    for case in STATUSES:
        reached.add(
            classify(case.exchange, "place", raised(case.exchange, "place", case.body, case.status)).row.name
        )
    for names in CLASSES:
        for name in names.split():
            reached.add(classify("kraken", "cancel", getattr(ccxt, name)("kraken")).row.name)
            reached.add(classify("kraken", "place", getattr(ccxt, name)("kraken")).row.name)
    missing = {row.name for row in TABLE if not row.codes and not row.cause} - reached
    assert missing == set()


def test_every_class_is_one_of_ccxts() -> None:
    known = {name for row in TABLE for name in row.exceptions}
    assert {name for name in known if not hasattr(ccxt, name)} == {"TimeoutError", "CancelledError"}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("exchange", URLS)
def test_unknown_code_is_unknown_and_says_so(exchange: str, command: str) -> None:
    code = "SOMETHING_NEW" if exchange == "gate" else "-9999" if "binance" in exchange else "99999"
    verdict = classify(
        exchange, command, raised(exchange, command, body_of(exchange, code, "Something new."))
    )
    assert verdict.row is UNLISTED and verdict.row.alarm and verdict.code == code
    outcome = verdict.outcome("GMA1")
    assert isinstance(outcome, Unknown)
    assert (
        "not in this table" in outcome.reason
        and code in outcome.reason
        and "Something new." in outcome.reason
    )


def test_locked_key_is_not_taken_for_a_throttle() -> None:
    """After one success ccxt calls -2015 a throttle, for which one would wait; our table asks the code."""
    x = client("binance")
    x.options["hasAlreadyAuthenticatedSuccessfully"] = True
    try:
        error = raised(
            "binance",
            "place",
            body_of("binance", "-2015", "Invalid API-key, IP, or permissions for action."),
            401,
        )
    finally:
        x.options["hasAlreadyAuthenticatedSuccessfully"] = False
    assert type(error).__name__ == "DDoSProtection"
    assert meaning(classify("binance", "place", error)) == "PERMISSION"


def test_fatal_says_who_must_act() -> None:
    for row in TABLE:
        verdict = Verdict(row)
        assert bool(verdict.fatal) == (row.remedy in FATAL)
        assert not verdict.fatal or (row.alarm and row.reason == RejectReason.OTHER)
    missing = ccxt.AuthenticationError('binance requires "apiKey" credential')
    assert classify("binance", "place", missing).fatal == "whoever holds the key"


def test_outcome_has_the_type_of_its_answer() -> None:
    kinds = {Answer.REJECTED: Rejected, Answer.NOT_SENT: NotSent, Answer.UNKNOWN: Unknown}
    for row in TABLE:
        outcome = Verdict(row, "17", "said").outcome("GMA1")
        assert type(outcome) is kinds[row.answer]
        assert not isinstance(outcome, Rejected) or outcome.reason == row.reason


# The wire: ccxt's own `fetch` on sockets that misbehave.

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def fetched(serve: Serve | None, method: str, first: Serve | None = None) -> tuple[BaseException, int]:
    """Return what ccxt raises on a server of ours, and how many requests reached it.

    Args:
        serve: Answers one connection; None where nobody listens.
        method: HTTP method.
        first: Answers a GET before, on a connection that is kept, after which nobody listens any more.
    """
    seen = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                seen += 1
                if first is not None and seen == 1:
                    await first(reader, writer)
                    continue
                if serve is not None:
                    await serve(reader, writer)
                break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    if serve is None and first is None:
        server.close()
    x = ccxt.async_support.binance({"timeout": 300})
    try:
        if first is not None:
            await x.fetch(url, "GET")
            server.close()
        await x.fetch(url, method)
    except ccxt.BaseError as error:
        return error, seen
    finally:
        await x.close()
        server.close()
    raise AssertionError("this server answered")


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say nothing for longer than anybody waits."""
    await asyncio.sleep(2)


async def drop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Close after the request came."""


async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Promise more than is sent."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{")
    await writer.drain()


async def garble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send what is no HTTP."""
    writer.write(b"\x00\xff not http at all\r\n\r\n")
    await writer.drain()


async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer and keep the connection."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
    await writer.drain()


@pytest.mark.parametrize("serve", [hang, drop, cut, garble])
def test_request_that_arrived_and_was_not_answered_is_unknown(serve: Serve) -> None:
    error, seen = asyncio.run(fetched(serve, "POST"))
    assert seen == 1, "a POST is never repeated"
    for exchange in URLS:
        assert meaning(classify(exchange, "place", error)) == "UNKNOWN"


def test_refused_connection_carried_no_order() -> None:
    error, seen = asyncio.run(fetched(None, "POST"))
    assert type(error.__cause__).__name__ == "ClientConnectorError" and seen == 0
    assert isinstance(classify("binance", "place", error).outcome("GMA1"), NotSent)


def test_name_that_does_not_resolve_carried_no_order() -> None:
    async def ask() -> BaseException:
        x = ccxt.async_support.binance({"timeout": 5_000})
        try:
            await x.fetch("http://nowhere.invalid/", "POST")
        except ccxt.BaseError as error:
            return error
        finally:
            await x.close()
        raise AssertionError("nowhere answered")

    error = asyncio.run(ask())
    assert isinstance(classify("binance", "place", error).outcome("GMA1"), NotSent)


def test_refused_repetition_of_a_cancel_is_no_proof() -> None:
    """The DELETE arrives, its connection breaks, the client repeats it by itself and is refused."""
    error, seen = asyncio.run(fetched(drop, "DELETE", first=keep))
    assert seen == 2, "the GET, and the DELETE that nobody answered"
    assert type(error.__cause__).__name__ == "ClientConnectorError"
    for exchange in ("binance", "binanceusdm", "gate"):
        assert meaning(classify(exchange, "cancel", error)) == "UNKNOWN"
    for exchange in ("okx", "bybit", "bitget"):
        assert meaning(classify(exchange, "cancel", error)) == "NOT_SENT", "cancels there are POST"


def test_what_was_handled_meanwhile_proves_nothing() -> None:
    refusal, _ = asyncio.run(fetched(None, "POST"))
    try:
        try:
            raise refusal
        except ccxt.ExchangeNotAvailable:
            raise ccxt.RequestTimeout("binance POST")  # noqa: B904  what a second try would do
    except ccxt.RequestTimeout as error:
        assert error.__context__ is refusal
        assert meaning(classify("binance", "place", error)) == "UNKNOWN"


# Answers without an exception.


def test_item_of_a_batch() -> None:
    x = client("binanceusdm")
    message = "Due to the order could not be executed as maker, the Post Only order will be rejected."
    crossed = x.parse_order({"code": -5022, "msg": message})
    resting = x.parse_order({"orderId": 17, "clientOrderId": "GMA1", "status": "NEW", "symbol": "BTCUSDT"})
    assert meaning(answered("binanceusdm", "place", crossed)) == "POST_ONLY"
    assert answered("binanceusdm", "place", resting).outcome("GMA1") == Accepted("GMA1", "17")
    okx = client("okx").parse_order(
        {"clOrdId": "GMA1", "ordId": "", "sCode": "51008", "sMsg": "Insufficient", "tag": ""}
    )
    assert meaning(answered("okx", "place", okx)) == "FUNDS"
    fine = client("okx").parse_order({"clOrdId": "GMA1", "ordId": "31", "sCode": "0", "sMsg": "", "tag": ""})
    assert answered("okx", "place", fine).outcome("GMA1") == Accepted("GMA1", "31")
    label = {"info": {"succeeded": False, "label": "BALANCE_NOT_ENOUGH", "message": "Not enough balance"}}
    assert meaning(answered("gate", "place", label)) == "FUNDS"


def test_answer_without_an_id_is_believed_by_nobody() -> None:
    orders: list[dict[str, Any]] = [{}, {"id": None}, {"id": ""}, {"info": {}}, {"info": None}, {"info": []}]
    for order in orders:
        assert meaning(answered("bybit", "place", order)) == "UNKNOWN"
    assert meaning(answered("bybit", "place", {"id": "1", "status": "rejected"})) == "OTHER"


def test_code_of_one_order_means_what_its_exception_means() -> None:
    for case in CASES:
        verdict = refused(case.exchange, case.command, case.code, case.message)
        assert meaning(verdict) == case.means, case
    assert refused("bybit", "place", "424242", "New.").row is UNLISTED


# Anything else.


@given(
    st.sampled_from([*URLS, "kraken"]),
    st.sampled_from(COMMANDS),
    st.sampled_from(["ExchangeError", "InvalidOrder", "BadRequest", "BaseError"]),
    st.text() | st.from_regex(r'\{"(code|sCode|retCode|label)": ?.{0,30}\}?', fullmatch=True),
)
def test_garbage_is_unknown_and_kills_nobody(exchange: str, command: str, kind: str, body: str) -> None:
    """Whatever the body: only a code or a piece of text of a row makes anything but Unknown of a broad class."""
    verdict = classify(exchange, command, getattr(ccxt, kind)(body), body=body)
    verdict.outcome("GMA1")
    if verdict.row is not UNLISTED:
        assert verdict.code in verdict.row.codes or verdict.row.text or verdict.row.status


@pytest.mark.parametrize(
    "body", ["[" * 100_000, '{"data":' * 50_000, '{"code": {"code": 1}}', '{"data": [1, null, []]}']
)
def test_hostile_body_is_unknown(body: str) -> None:
    assert meaning(classify("okx", "place", ccxt.ExchangeError("okx"), body=body)) == "UNKNOWN"


def test_unknown_command_is_refused() -> None:
    with pytest.raises(ValueError, match="must be one of place, cancel, query"):
        classify("binance", "amend", ccxt.ExchangeError("binance"))


def test_module_is_cheap_to_import() -> None:
    code = "import sys, gridmm.outcomes; print([m for m in ('ccxt', 'aiohttp', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("[]", "['numpy']")


# The guard is guarded: each wrong table, and each wrong ccxt, is noticed.


def failures() -> list[Case]:
    """Return the cases that fail now."""
    return [case for case in CASES if wrong(case)]


@pytest.mark.parametrize(
    "number", [n for n, row in enumerate(TABLE) if row.codes], ids=lambda n: TABLE[n].name
)
def test_planted_row_is_noticed(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    row = TABLE[number]
    mine = [case for case in CASES if case.exchange in row.exchange and case.code in row.codes]
    changed = Answer.UNKNOWN if row.answer == Answer.REJECTED else Answer.REJECTED
    plants: dict[str, tuple[Row, ...]] = {
        "lost": (),
        "another answer": (replace(row, answer=changed, reason=row.reason or RejectReason.OTHER),),
        "a code less": (replace(row, codes=row.codes[1:]),),
    }
    for name, plant in plants.items():
        monkeypatch.setattr(outcomes, "TABLE", (*TABLE[:number], *plant, *TABLE[number + 1 :]))
        assert any(wrong(case) for case in mine), f"nobody noticed a row that was {name}"


def test_planted_order_of_rows_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes, "TABLE", tuple(sorted(TABLE, key=lambda row: bool(row.text))))
    assert {case.code for case in failures()} == {"-1013", "-2010", "-2011", "-1008", "INVALID_PARAM_VALUE"}


def test_moved_code_of_ccxt_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(client("okx").exceptions["exact"], "51008", ccxt.InvalidOrder)
    monkeypatch.setitem(client("bybit").exceptions["exact"], "170007", ccxt.ExchangeError)
    assert [(case.exchange, case.code) for case in failures()] == [("okx", "51008"), ("bybit", "170007")]


@pytest.mark.parametrize(
    "line",
    [
        "-1 | InvalidOrder | FILTER",
        "-1 | InvalidOrder | FILTERS | x",
        '-1 "x | A | FILTER | x',
        "-1 | A | | x",
    ],
)
def test_line_that_is_no_row_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="is no row"):
        rows(line)
