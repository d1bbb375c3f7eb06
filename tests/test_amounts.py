"""Amounts are read exactly or refused in a few words; nothing that a person could write raises anything else."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridmm.amounts import Measure, duration_ms, duration_text, measure, number, share

ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.decimals(),
    st.text(),
    st.lists(st.integers(), max_size=2),
    st.dates(),
    st.from_regex(r"[+-]?[0-9]{1,25}(\.[0-9]{1,25})? ?(ms|s|min|h|d|bps|bp|ppm|%|x)?", fullmatch=True),
)


@given(ANYTHING)
def test_a_parser_returns_or_raises_value_error(value: Any) -> None:
    for parse in (number, measure, share, duration_ms):
        try:
            parse(value)
        except ValueError as error:
            assert str(error).startswith(("is ", "has "))


@given(st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**9), max_value=10**9))
def test_a_number_is_what_was_written(value: Decimal) -> None:
    assert number(str(f"{value:f}")) == value == number(value)


@given(st.integers(0, 3_650 * 86_400_000))
def test_a_time_reads_back(milliseconds: int) -> None:
    assert duration_ms(duration_text(milliseconds)) == milliseconds == duration_ms(milliseconds)


@given(st.integers(-(10**9), 10**9), st.sampled_from(["bps", "%", "ppm"]))
def test_a_share_reads_back(count: int, unit: str) -> None:
    read = measure(f"{count} {unit}")
    assert measure(str(read)) == read
    assert read.ppm == count * {"bps": 100, "%": 10_000, "ppm": 1}[unit]


@pytest.mark.parametrize(
    ("text", "ppm"),
    [("2 bps", 200), ("2bps", 200), ("2 bp", 200), ("0.02 %", 200), ("200 ppm", 200), ("-0.5 bps", -50)],
)
def test_one_share_in_every_unit(text: str, ppm: int) -> None:
    assert share(text).ppm == ppm


def test_a_measure_is_an_amount_or_a_share_of_something() -> None:
    assert Measure(Decimal(24)).of(Decimal(60_000)) == 24
    assert Measure(Decimal(20), "bps").of(Decimal(60_000)) == 120


@pytest.mark.parametrize(
    ("parse", "value", "words"),
    [
        (number, 0.1, "is not a number"),
        (number, True, "is not a number"),
        (number, "nan", "is not a number"),
        (number, Decimal("inf"), "is not a finite number"),
        (number, Decimal("1e99999999"), "has more than 18 digits"),
        (number, "1" * 70, "is not a number"),
        (number, "\u0661", "is not a number"),
        (measure, "5 pips", "has the unknown unit 'pips'"),
        (measure, "0.00001 %", "is finer than one part per million"),
        (share, "0.02", "has no unit"),
        (duration_ms, "1.5", "has no unit"),
        (duration_ms, "0.5 ms", "is finer than a millisecond"),
        (duration_ms, "-1 s", "is negative"),
        (duration_ms, "4000 d", "is longer than ten years"),
        (duration_ms, "1 week", "has the unknown unit 'week'"),
    ],
)
def test_a_refusal_says_why(parse: Any, value: object, words: str) -> None:
    with pytest.raises(ValueError, match=f"^{words}"):
        parse(value)
