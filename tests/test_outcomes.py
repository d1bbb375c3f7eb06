"""Every answer that the table knows, raised by ccxt's own code from the exchange's literal words."""

from __future__ import annotations

import json
from typing import Any

import ccxt
import pytest

from gridmm.exchange import NotSent, Rejected, RejectReason, Unknown
from gridmm.outcomes import TABLE, code_in, outcome_of, row_of

R = RejectReason
SPOT, PERPETUAL = "https://api.binance.com/api/v3/order", "https://fapi.binance.com/fapi/v1/order"

# url, HTTP status, code and message as Binance documents them, what it means
ANSWERS = [
    (SPOT, 400, -2010, "Account has insufficient balance for requested action.", R.FUNDS),
    (SPOT, 400, -2010, "Order would immediately match and take.", R.POST_ONLY),
    (SPOT, 400, -2010, "Duplicate order sent.", R.DUPLICATE),
    (SPOT, 400, -2010, "This action is disabled on this account.", R.OTHER),
    (SPOT, 400, -1013, "Filter failure: NOTIONAL", R.NOTIONAL),
    (SPOT, 400, -1013, "Filter failure: MIN_NOTIONAL", R.NOTIONAL),
    (SPOT, 400, -1013, "Filter failure: PRICE_FILTER", R.FILTER),
    (SPOT, 400, -1013, "Filter failure: LOT_SIZE", R.FILTER),
    (SPOT, 400, -1111, "Precision is over the maximum defined for this asset.", R.FILTER),
    (PERPETUAL, 400, -1111, "Precision is over the maximum defined for this asset.", R.FILTER),
    (PERPETUAL, 400, -4003, "Quantity less than zero.", R.FILTER),
    (PERPETUAL, 400, -4004, "Quantity less than min quantity.", R.FILTER),
    (PERPETUAL, 400, -4005, "Quantity greater than max quantity.", R.FILTER),
    (PERPETUAL, 400, -4014, "Price not increased by tick size.", R.FILTER),
    (PERPETUAL, 400, -4016, "Limit price can't be higher than 66000.", R.FILTER),
    (PERPETUAL, 400, -4024, "Limit price can't be lower than 54000.", R.FILTER),
    (PERPETUAL, 400, -4164, "Order's notional must be no smaller than 100.0 (unless you choose reduce only)", R.NOTIONAL),
    (PERPETUAL, 400, -4116, "ClientOrderId is duplicated.", R.DUPLICATE),
    (PERPETUAL, 400, -2019, "Margin is insufficient.", R.FUNDS),
    (PERPETUAL, 400, -2022, "ReduceOnly Order is rejected.", R.REDUCE_ONLY),
    (PERPETUAL, 400, -5022, "Due to the order could not be executed as maker, the Post Only order will be rejected.", R.POST_ONLY),
    (SPOT, 400, -2011, "Unknown order sent.", R.UNKNOWN_ORDER),
    (PERPETUAL, 400, -2011, "Unknown order sent.", R.UNKNOWN_ORDER),
    (SPOT, 400, -2013, "Order does not exist.", R.UNKNOWN_ORDER),
    (SPOT, 429, -1003, "Too much request weight used; current limit is 6000 request weight per 1 MINUTE.", R.RATE_LIMIT),
    (SPOT, 418, -1003, "Way too much request weight used; IP banned until 1700000000000.", R.RATE_LIMIT),
    (SPOT, 400, -1015, "Too many new orders; current limit is 100 orders per 10 SECOND.", R.RATE_LIMIT),
    (SPOT, 400, -1021, "Timestamp for this request is outside of the recvWindow.", R.OTHER),
    (SPOT, 400, -1022, "Signature for this request is not valid.", R.OTHER),
    (SPOT, 401, -2014, "API-key format invalid.", R.OTHER),
    (SPOT, 401, -2015, "Invalid API-key, IP, or permissions for action.", R.OTHER),
    (SPOT, 503, -1007, "Timeout waiting for response from backend server. Send status unknown; execution status unknown.", None),
    (PERPETUAL, 503, -1000, "Unknown error, please check your request or try again later.", None),
    (SPOT, 500, -1001, "Internal error; unable to process your request. Please try again.", None),
    (SPOT, 500, -1006, "An unexpected response was received from the message bus. Execution status unknown.", None),
]  # fmt: skip
CLASSES: list[tuple[type[Exception], RejectReason | None]] = [
    (ccxt.RequestTimeout, None), (ccxt.OperationFailed, None), (ccxt.ExchangeNotAvailable, None),
    (ccxt.NetworkError, None), (ccxt.RateLimitExceeded, R.RATE_LIMIT), (ccxt.DDoSProtection, R.RATE_LIMIT),
    (ccxt.OrderImmediatelyFillable, R.POST_ONLY), (ccxt.OrderNotFillable, R.POST_ONLY),
    (ccxt.InsufficientFunds, R.FUNDS), (ccxt.DuplicateOrderId, R.DUPLICATE), (ccxt.OrderNotFound, R.UNKNOWN_ORDER),
    (ccxt.InvalidNonce, R.OTHER), (ccxt.PermissionDenied, R.OTHER), (ccxt.AuthenticationError, R.OTHER),
]  # fmt: skip


def raised(url: str, status: int, body: Any) -> Exception:
    """Return what ccxt raises for an answer."""
    client, text = (ccxt.binance if url == SPOT else ccxt.binanceusdm)(), json.dumps(body)
    try:
        client.handle_errors(status, "", url, "POST", {}, text, body, {}, "")
        client.handle_http_status_code(status, "", url, "POST", text)
    except ccxt.BaseError as error:
        return error
    raise AssertionError(f"ccxt takes {text} for a yes")


def judged(outcome: object) -> RejectReason | None:
    """Return the reason of a refusal, None for what is unknown."""
    assert isinstance(outcome, Rejected | Unknown), outcome
    return outcome.reason if isinstance(outcome, Rejected) else None


@pytest.mark.parametrize(("url", "status", "code", "message", "meant"), ANSWERS)
def test_an_answer_means_what_the_exchange_says(
    url: str, status: int, code: int, message: str, meant: RejectReason | None
) -> None:
    error = raised(url, status, {"code": code, "msg": message})
    assert code_in(str(error)) in ("", str(code))
    assert judged(outcome_of(error, "A", "binance")) == meant


@pytest.mark.parametrize(("kind", "meant"), CLASSES)
def test_a_class_without_a_code_means_what_it_is(kind: type[Exception], meant: RejectReason | None) -> None:
    assert judged(outcome_of(kind("somewhere GET https://…"), "A", "elsewhere")) == meant


def test_every_row_is_raised_by_some_answer() -> None:
    met = set()
    for url, status, code, message, _ in ANSWERS:
        error = raised(url, status, {"code": code, "msg": message})
        met.add(
            row_of(
                "binance", code_in(str(error)), tuple(one.__name__ for one in type(error).__mro__), str(error)
            )
        )
        met.add(row_of("binance", str(code), (), message))
    for kind, _ in CLASSES:
        met.add(row_of("", "", tuple(one.__name__ for one in kind.__mro__), ""))
    assert not set(TABLE) - met


def test_a_html_page_is_no_answer() -> None:
    client = ccxt.binance()
    with pytest.raises(ccxt.BaseError) as caught:
        client.handle_http_status_code(502, "Bad Gateway", SPOT, "POST", "<html>502</html>")
    assert isinstance(outcome_of(caught.value, "A", "binance"), Unknown)


def test_an_answer_that_nobody_knows_is_unknown() -> None:
    error = raised(SPOT, 400, {"code": -9999, "msg": "Something new."})
    outcome = outcome_of(error, "A", "binance")
    assert isinstance(outcome, Unknown) and "gridmm does not know" in outcome.reason


def test_a_connection_that_was_never_made_carried_nothing() -> None:
    class ClientConnectorError(OSError):
        """Named as aiohttp's."""

    error = ccxt.ExchangeNotAvailable("binance POST")
    error.__cause__ = ClientConnectorError("refused")
    assert isinstance(outcome_of(error, "A", "binance"), NotSent)
    error.__cause__ = ConnectionResetError("dropped")
    assert isinstance(outcome_of(error, "A", "binance"), Unknown)


def test_a_wrong_row_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = tuple(row._replace(reason=R.OTHER) if row.code == "-2019" else row for row in TABLE)
    monkeypatch.setattr("gridmm.outcomes.TABLE", wrong)
    with pytest.raises(AssertionError):
        test_an_answer_means_what_the_exchange_says(PERPETUAL, 400, -2019, "Margin is insufficient.", R.FUNDS)
