"""A client order id comes back as what it was made of, and a slip in any one character is noticed."""

import re
import string
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridmm.client_id import (
    LENGTH,
    MAX_CELL,
    MAX_EPOCH,
    MAX_INCARNATION,
    MAX_INSTANCE,
    MAX_SEQUENCE,
    START_S,
    ClientId,
    check_character,
    decode,
    encode,
    instance_of,
    is_ours,
    start_number,
)
from gridmm.names import Meta
from gridmm.units import Instrument
from gridmm.venues import VENUES

BTC = Instrument("BTC/USDT", "spot", Decimal("0.1"), Decimal("0.001"))
SYMBOLS = string.digits + string.ascii_uppercase
LIMITS = {
    "instance": (0, MAX_INSTANCE),
    "incarnation": (0, MAX_INCARNATION),
    "epoch": (0, MAX_EPOCH),
    "cell": (-MAX_CELL - 1, MAX_CELL),
    "leg": (0, 1),
    "sequence": (0, MAX_SEQUENCE),
}
parts = st.builds(
    ClientId,
    direction=st.sampled_from((-1, 1)),
    **{name: st.integers(low, high) for name, (low, high) in LIMITS.items()},
)
LOWEST = ClientId(direction=-1, **{name: low for name, (low, _) in LIMITS.items()})
HIGHEST = ClientId(direction=1, **{name: high for name, (_, high) in LIMITS.items()})


@given(parts)
def test_an_id_says_what_it_was_made_of(order):
    name = encode(order)
    assert decode(name) == order
    assert re.fullmatch("GM[A-Z0-9]{24}", name)
    assert len(name) == LENGTH <= min(venue.id_max for venue in VENUES.values())
    assert is_ours(name) and is_ours(name, order.instance) and not is_ours(name, order.instance ^ 1)


@pytest.mark.parametrize("order", [LOWEST, HIGHEST], ids=["lowest", "highest"])
def test_the_extremes_fit(order):
    assert decode(encode(order)) == order


@given(parts, parts)
def test_two_orders_never_share_an_id(one, other):
    assert (encode(one) == encode(other)) == (one == other)


@given(parts, st.integers(0, LENGTH - 1), st.sampled_from(SYMBOLS + string.ascii_lowercase + "-_ é٣"))
def test_a_slip_in_any_one_character_is_noticed(order, place, character):
    name = encode(order)
    wrong = name[:place] + character + name[place + 1 :]
    assert is_ours(wrong) == (wrong == name)


@given(parts, st.integers(0, LENGTH), st.sampled_from(SYMBOLS))
def test_a_character_too_many_or_too_few_is_noticed(order, place, character):
    name = encode(order)
    assert not is_ours(name[:place] + character + name[place:])
    assert place == LENGTH or not is_ours(name[:place] + name[place + 1 :])


def test_nearly_every_swap_of_neighbours_is_noticed():
    """The standard promises no more than that: about one swap in two hundred slips through."""
    names = [encode(ClientId(i * 7_919, 5, 2, -i, 1, i % 2, i * 104_729)) for i in range(130)]
    swapped = [
        name[:i] + name[i + 1] + name[i] + name[i + 2 :]
        for name in names
        for i in range(LENGTH - 1)
        if name[i] != name[i + 1]
    ]
    assert sum(map(is_ours, swapped)) < len(swapped) / 100


@pytest.mark.parametrize("name", LIMITS)
def test_what_is_out_of_bounds_is_refused_by_name(name):
    low, high = LIMITS[name]
    for value in (low - 1, high + 1, 2**63 - 1, -(2**63)):
        with pytest.raises(ValueError, match=name):
            encode(LOWEST._replace(**{name: value}))


@pytest.mark.parametrize("direction", [0, 2, -2])
def test_a_cell_is_long_or_short(direction):
    with pytest.raises(ValueError, match="direction"):
        encode(LOWEST._replace(direction=direction))


@pytest.mark.parametrize(
    ("foreign", "says"),
    [
        ("", "not one of our"),
        ("x-R4BD3S82a1b2c3", "not one of our"),
        ("web_9f1c", "not one of our"),
        ("GM", "2 characters"),
        (encode(LOWEST).lower(), "not one of our"),
        (encode(LOWEST)[:-1] + "?", "check"),
    ],
)
def test_what_is_not_ours_is_refused_with_the_reason(foreign, says):
    assert not is_ours(foreign)
    with pytest.raises(ValueError, match=says):
        decode(foreign)


def test_an_order_without_id_is_not_ours():
    assert not is_ours(None)


def test_the_check_is_the_standards():
    """A Global Release Identifier, which ISO 7064 MOD 37,36 protects too."""
    assert check_character("A12425GABC1234002") == "M"


def test_instances_are_stable_and_small():
    assert instance_of("binance BTC/USDT") == instance_of("binance BTC/USDT")
    assert len({instance_of(f"grid {i}") for i in range(500)}) >= 498
    assert all(0 <= instance_of(f"grid {i}") <= MAX_INSTANCE for i in range(500))


@given(st.integers(START_S, START_S + 10**9), st.integers(1, 10**9))
def test_a_later_start_has_a_higher_number(at_s, later_s):
    assert 1 <= start_number(at_s * 1_000) < start_number((at_s + later_s + 1) * 1_000)


@pytest.mark.parametrize("now_ms", [-(10**15), 0, 10**12])
def test_a_clock_that_is_wrong_gives_the_first_number(now_ms):
    assert start_number(now_ms) == 1


@given(st.integers(1, 10**9), st.integers(1, MAX_INCARNATION))
def test_the_ids_of_two_starts_within_twelve_days_differ(start, later):
    one, other = (Meta(BTC, instance=7, incarnation=number) for number in (start, start + later))
    assert one.name(5, 1, 2, 1, 0) != other.name(5, 1, 2, 1, 0)
