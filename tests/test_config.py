"""A configuration works, or all that is wrong with it is said at once; secrets never show."""

from __future__ import annotations

import re
import tomllib
import traceback
from collections.abc import Callable
from contextlib import chdir
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gridmm.config import (
    REQUIRED,
    Config,
    Secrets,
    at_price,
    config_hash,
    from_environment,
    lines_of,
    load,
    on_market,
    parse_toml,
    template,
)
from gridmm.errors import ConfigError
from gridmm.rules import findings, speed_of
from gridmm.schema import catalogue, text_of
from gridmm.settings import Settings
from gridmm.units import Instrument

SECRET = "do-not-print-me-7f3a"
CAP = 'max_position = "50 %"\n'
SPOT = '[instrument]\nsymbol = "A/B"\nmarket = "spot"\n'
Load = Callable[..., Config]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Load a text as gridmm.toml with an empty environment."""
    monkeypatch.chdir(tmp_path)

    def load_text(text: str, **how: object) -> Config:
        Path("gridmm.toml").write_text(text, encoding="utf-8")
        return load(Path("gridmm.toml"), **{"environ": {}, **how})  # type: ignore[arg-type]

    return load_text


def refusal(config: Load, text: str, **how: object) -> str:
    """Return the message of a refused text; each of its lines says what, why and what to do."""
    with pytest.raises(ConfigError) as raised:
        config(text, **how)
    message = str(raised.value)
    assert len(message.splitlines()) == len(raised.value.problems)
    for problem in raised.value.problems:
        assert problem.what and problem.why and problem.todo, problem
    return message


BAD = [
    # what a person may get wrong, and what the message must name
    (
        "unknown key",
        "grid_sise = 3",
        r"gridmm.toml:3: grid_sise in \[grid\]: no such parameter. Did you mean grid_size\?",
    ),
    (
        "other table",
        "leverage = 3",
        r"leverage in \[grid\]: no such parameter in this table. It belongs to \[paper\]",
    ),
    ("unheard of", "xyzzy = 3", r"xyzzy in \[grid\]: no such parameter. Remove it"),
    (
        "text for a count",
        'grid_size = "many"',
        r'gridmm.toml:3: grid_size = "many": .*not a number. Write a whole number',
    ),
    ("fraction for a count", "grid_size = 1.5", r"grid_size = 1.5: .*not a whole number"),
    ("flag for a count", "grid_size = true", r"grid_size = true: .*not a number"),
    ("table for a count", "grid_size = {a = 1}", r"grid_size = a table: .*not a number"),
    ("list for an amount", "order_notional = [1]", r"order_notional = a list: .*not a number"),
    ("date for a time", "flip_dwell = 2026-01-01", r"flip_dwell = .*: .*not a number"),
    ("not a number", "skew_factor = nan", r"skew_factor = NaN: .*not a finite number"),
    ("infinite", "skew_factor = inf", r"skew_factor = Infinity: .*not a finite number"),
    (
        "above its range",
        "skew_factor = 1.5",
        r"skew_factor = 1.5: the value is more than 1. .*\(>= 0, <= 1\)",
    ),
    ("below its range", "grid_size = 0", r"grid_size = 0: the value is less than 1"),
    ("zero", 'price_interval = "0"', r'price_interval = "0": the value is not more than 0'),
    ("unknown unit", 'price_interval = "20 pips"', r"unknown unit 'pips'. Write a price difference"),
    (
        "unknown choice",
        'mode = "both"',
        r'mode = "both": .*not one of its values. Write "long" or "short" or "neutral"',
    ),
    ("time without unit", "flip_dwell = 1.5", r"flip_dwell = 1.5: the value has no unit"),
    ("word for a flag", 'allow_losing_interval = "yes"', r"not true or false. Write true or false"),
    (
        "losing interval",
        'price_interval = "3 bps"',
        r'gridmm.toml:3: price_interval = "3 bps" loses money on every round trip: two maker fees cost 4 bps '
        r"\(2 bps each\). Set price_interval to at least 4 bps",
    ),
    ("losing floor", "fee_floor = 1", r'fee_floor = "1": below 2 .* Set fee_floor to at least 2'),
    ("floor above cap", 'price_interval = "5 bps"\ninterval_cap = 1', r"nothing would ever open"),
    ("bounds swapped", "price_min = 2\nprice_max = 1", r"not below price_max = 1"),
    ("cell above the cap", 'order_notional = "60 %"', r"one cell is 60 %, so nothing would ever open"),
    (
        "cell below the minimum",
        "order_notional = 2",
        r"smallest order of BTC/USDT:USDT is 5. Set order_notional to at least 5",
    ),
    ("gross below net", 'gross_limit = "10 %"', r"below max_position = 50 %"),
    (
        "nothing to open",
        "buy_levels = 0\nsell_levels = 0",
        r"nothing would ever open. Set one of them above 0",
    ),
    (
        "neutral on spot",
        'mode = "neutral"\n' + SPOT,
        r"on spot nothing can be sold before it is held. Set seed",
    ),
    ("no room for closes", "grid_size = 50", r"leave no room for closing ones"),
    (
        "value for a table",
        "[risk]\ndrawdown = 5",
        r"drawdown in \[risk\]: it is a table, .* Write \[risk.drawdown\] on",
    ),
    ("unknown table", "[exchnge]\nname = 1", r"\[exchnge\]: no such table. The tables are account, atr,"),
    ("near table", "[papr]\nequity = 1", r"\[papr\]: no such table. Did you mean \[paper\]\?"),
    (
        "trigger's key",
        "[risk.drawdown]\nlimt = 5",
        r"limt in \[risk.drawdown\]: no such parameter. Did you mean limit\?",
    ),
    (
        "wrong kind",
        '[instrument]\nmarket = "spot"',
        r'symbol = "BTC/USDT:USDT": market = "spot", and the name',
    ),
    ("no pair", '[instrument]\nsymbol = "BTCUSDT"', r"it does not name base and quote. Write \"BTC/USDT\""),
    (
        "fee without unit",
        "[instrument]\nmaker_fee = 0.02",
        r"maker_fee = 0.02: the value has no unit. Write a share",
    ),
    (
        "number for a name",
        "[instrument]\nsymbol = 5",
        r"symbol = 5: the value is not text. Write text in quotes",
    ),
    (
        "unknown source",
        '[feed]\nsource = "tap:x"',
        r'source = "tap:x": no such source of prices. Write "demo"',
    ),
    ("speed", '[feed]\nspeed = "fast"', r'speed = "fast": it is neither max nor a number'),
    ("trend", "[trend]\nleave_ratio = 3", r'leave_ratio = "3": it is not below enter_ratio = 2'),
    ("backoff", '[execution]\nbackoff = "2 min"', r"it is longer than backoff_max"),
    ("symbols", "[risk.volume_spike]\nsymbols = 3", r"symbols = 3: the value is not a list of symbols"),
    (
        "symbols that nobody watches",
        '[risk.volume_spike]\nsymbols = ["ETH/USDT"]\nrequire = "all"',
        r'symbols = \["ETH/USDT"\]: no feed brings the candles of other symbols: .* Remove symbols from \[risk',
    ),
    (
        "no seed on a perpetual",
        "seed = 1",
        r"seed = .* Remove seed",
    ),
    ("seed without base", "seed = 1\n" + SPOT, r"the paper account does not hold it. Set base to at least 1"),
]


@pytest.mark.parametrize(("text", "words"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_mistake_is_named_with_its_reason_and_remedy(config: Load, text: str, words: str) -> None:
    message = refusal(config, f"[grid]\n{CAP}{text}\n")
    assert re.search(words, message), message


def test_all_mistakes_are_said_at_once_in_the_order_of_the_file(config: Load) -> None:
    message = refusal(
        config,
        "[atr]\nlength = 1\n[grid]\nprice_interval = '3 bps'\nmode = 'both'\ngrid_sise = 1\n[trend]\nleave_ratio = 3\n",
    )
    places = [line.split(" ")[0] for line in message.splitlines()]
    assert places == [
        "gridmm.toml:",  # max_position is missing
        "gridmm.toml:2:",
        "gridmm.toml:4:",
        "gridmm.toml:5:",
        "gridmm.toml:6:",
        "gridmm.toml:8:",
    ]


def test_a_rule_is_silent_about_a_default_that_stands_in_for_a_broken_value(config: Load) -> None:
    message = refusal(config, f"[grid]\n{CAP}price_interval = '3 bps'\n[instrument]\nmaker_fee = 'cheap'\n")
    assert "cheap" in message and "loses money" not in message


def test_a_file_must_name_its_cap_and_the_demo_need_not(config: Load) -> None:
    assert REQUIRED == ("grid.max_position",)
    assert "max_position is missing" in refusal(config, "")
    assert str(load(environ={}).settings.grid.max_position) == "50 %"
    assert str(config("", environ={"GRIDMM_GRID__MAX_POSITION": "0.5"}).settings.grid.max_position) == "0.5"


@pytest.mark.parametrize(
    ("text", "fee", "words"),
    [
        ("5 bps", "2 bps", "is raised to 8 bps: the floor is 4 one-way fees"),
        ("8 bps", "2 bps", None),
        ("1 bps", "-1 bps", None),
    ],
)
def test_between_two_fees_and_the_floor_a_warning_names_both(
    config: Load, text: str, fee: str, words: str | None
) -> None:
    warnings = config(f"[grid]\n{CAP}price_interval = '{text}'\n[instrument]\nmaker_fee = '{fee}'\n").warnings
    assert [words in str(warning) and text in str(warning) for warning in warnings if words] == (
        [True] if words else []
    )
    assert bool(warnings) == bool(words)


def test_a_losing_interval_can_be_allowed_and_is_still_warned_of(config: Load) -> None:
    losing = f"[grid]\n{CAP}price_interval = '3 bps'\nallow_losing_interval = true\n"
    (warning,) = config(losing + "fee_floor = 0\n").warnings
    assert "loses money on every round trip" in str(warning)
    (warning,) = config(losing).warnings
    assert "is raised to 8 bps" in str(warning)


def test_an_interval_in_price_units_is_judged_at_a_price(config: Load) -> None:
    text = f"[grid]\n{CAP}price_interval = '3'\n"
    assert config(text).warnings == ()
    message = refusal(config, text, price=Decimal(60_000))
    assert (
        "two maker fees at 60000 cost 24 (2 bps each). Set price_interval to at least 24 in [grid] (48"
        in message
    )


def test_a_written_file_checks_clean_and_says_what_the_defaults_say(config: Load) -> None:
    written = config(template())
    assert written.warnings == ()
    assert written.settings == Settings()
    assert {key for key, origin in written.origins.items() if origin != "default"} >= {"grid.max_position"}


def test_a_written_file_checks_clean_with_every_comment_removed(config: Load) -> None:
    everything = re.sub(r"(?m)^# (\w+ = )", r"\1", template())
    settings_of_all = config(everything).settings
    assert settings_of_all == Settings()
    assert everything.count("\n[") == len({p.table for p in catalogue(Settings)})


def test_a_written_file_takes_other_values(config: Load) -> None:
    text = template({"instrument.symbol": 'A"B/C:C', "instrument.tick": "0.5", "grid.max_position": "2"})
    assert config(text).settings.instrument.symbol == 'A"B/C:C'


def test_every_value_knows_its_origin(config: Load) -> None:
    text = '[grid]\nmax_position = "0.5"\n\n[risk]\ndrawdown = {limit = "8 %",\n action = "halt"}\n[feed]\nspeed = "2"\n'
    text = text.replace(",\n", ", ")
    found = config(
        text,
        environ={
            "GRIDMM_GRID__GRID_SIZE": "7",
            "GRIDMM_FEED__SPEED": "3",
            "GRIDMM_RISK__STALE_PRICE__LIMIT": "9 s",
        },
        options={"feed.speed": ("60", "--speed")},
    )
    assert {key: origin for key, origin in found.origins.items() if origin != "default"} == {
        "grid.max_position": "gridmm.toml:2",
        "risk.drawdown.limit": "gridmm.toml:5",
        "risk.drawdown.action": "gridmm.toml:5",
        "risk.stale_price.limit": "environment GRIDMM_RISK__STALE_PRICE__LIMIT",
        "grid.grid_size": "environment GRIDMM_GRID__GRID_SIZE",
        "feed.speed": "command line --speed",
    }
    assert found.settings.grid.grid_size == 7 and found.settings.feed.speed == "60"
    assert found.settings.risk.stale_price.limit == 9_000


def test_a_wrong_value_from_the_environment_names_its_variable(config: Load) -> None:
    message = refusal(
        config, f"[grid]\n{CAP}", environ={"GRIDMM_GRID__GRID_SIZE": "x", "GRIDMM_GRID__NO": "1"}
    )
    assert "environment GRIDMM_GRID__GRID_SIZE: grid_size" in message
    assert "environment GRIDMM_GRID__NO: no in [grid]" in message


def test_the_keys_of_an_account_are_secrets_as_well(config: Load) -> None:
    found = config(f"[grid]\n{CAP}", environ={"GRIDMM_MAIN_API_SECRET": SECRET, "GRIDMM_MAIN_API_KEY": "k"})
    assert not found.warnings and dict(row[:2] for row in found.rows())["GRIDMM_MAIN_API_SECRET"] == "set"
    assert found.secrets.hide(f"refused: {SECRET}") == "refused: ***" and SECRET not in repr(found.secrets)


def test_secrets_show_nowhere(config: Load) -> None:
    environ = {"GRIDMM_API_SECRET": SECRET, "GRIDMM_GRID__MODE": SECRET, "GRIDMM_API_KYE": SECRET}
    found = config(f"[grid]\n{CAP}", environ={k: v for k, v in environ.items() if "MODE" not in k})
    assert found.secrets.reveal("GRIDMM_API_SECRET") == SECRET
    rows = dict(row[:2] for row in found.rows())
    assert (rows["GRIDMM_API_SECRET"], rows["GRIDMM_API_KEY"]) == ("set", "not set")
    assert "Did you mean GRIDMM_API_KEY" in str(found.warnings[0])
    for text in (
        repr(found),
        str(found),
        repr(found.rows()),
        repr(found.secrets),
        str(found.warnings),
        template(),
    ):
        assert SECRET not in text
    long = "x" * 30 + SECRET
    assert "x" * 30 not in refusal(config, "", environ={"GRIDMM_API_SECRET": long, "GRIDMM_GRID__MODE": long})
    try:  # even where the secret was put into another variable, and even in a traceback
        config(f"[grid]\n{CAP}", environ=environ)
    except ConfigError as error:
        assert SECRET not in "".join(traceback.format_exception(error))


@pytest.mark.parametrize(
    "text",
    [
        f"[exchange]\napi_secret = '{SECRET}'\n",
        f"[grid]\napi_key = '{SECRET}'\n",
        f"password = '{SECRET}'\n",
        f"[feed]\nsource = 'postgresql://user:{SECRET}@host/db'\n",
        f"[grid]\nmode = 'postgresql://a-user-with-a-long-name:{SECRET}@host/db'\n",
    ],
)
def test_a_secret_in_a_file_is_refused_without_being_repeated(config: Load, text: str) -> None:
    message = refusal(config, f"{text}")
    assert SECRET not in message
    assert (
        "postgresql" in message or "secrets never stand in a file. Remove it and set GRIDMM_API_" in message
    )


def test_secrets_are_not_settings() -> None:
    assert from_environment({"GRIDMM_API_SECRET": SECRET}) == {}
    assert SECRET not in repr(Secrets({"GRIDMM_API_SECRET": SECRET}))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff\xfe", "it is not UTF-8 text"),
        (b"[grid]\nprice_interval = 20 bps\n", "gridmm.toml:2: not TOML at column 21"),
        (b"x = " + b"[" * 5_000, "not TOML"),
        (b"x = " + b"9" * 5_000, "not TOML: a number or a nesting is out of bounds"),
        (b"#" * 1_000_001, "it is larger than 1000000 bytes"),
    ],
)
def test_an_unreadable_file_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "gridmm.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as raised:
        load(path, environ={})
    assert words in str(raised.value)


def test_a_missing_file_and_a_folder_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such file. Write one with `gridmm config init"):
        load(tmp_path / "no.toml", environ={})
    with pytest.raises(
        ConfigError, match=r"is a folder: a configuration is one file. Name a file in it, such as"
    ):
        load(tmp_path, environ={})
    with chdir(tmp_path), pytest.raises(ConfigError) as raised:
        load(Path(), environ={})
    assert str(raised.value).startswith(f"{tmp_path} is a folder"), "a path of one dot is lost in a sentence"


def test_a_byte_order_mark_is_no_mistake(config: Load) -> None:
    assert config(f"\ufeff[grid]\n{CAP}").settings.grid.mode == "long"


words = st.sampled_from(sorted({part for p in catalogue(Settings) for part in p.key.split(".")}))
scalars = st.one_of(
    st.integers().map(str),
    st.floats().map(lambda x: repr(x).replace("+", "")),
    st.booleans().map(lambda x: str(x).lower()),
    st.text(st.characters(codec="utf-8", exclude_characters="'", exclude_categories=["Cc", "Cs"])).map(
        lambda t: f"'{t}'"
    ),
    st.just("[1, {a = [2]}]"),
    st.just("{limit = 5, x = {y = {z = {}}}}"),
    st.just("1979-05-27"),
    st.just('"""\n[grid]\nmode = 1\n"""'),
)
lines = st.one_of(
    words.map(lambda w: f"[{w}]"),
    st.tuples(words, words).map(lambda w: f"[{w[0]}.{w[1]}]"),
    st.tuples(words, scalars).map(lambda w: f"{w[0]} = {w[1]}"),
    st.tuples(words, words, scalars).map(lambda w: f"{w[0]}.{w[1]} = {w[2]}"),
    st.text(max_size=20),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(lines, max_size=12).map("\n".join))
@example("a." * 2_000 + "b = 1")
@example("grid = [[grid]]")
@example("[[grid]]\nmode = 1")
@example("[grid]\nskew_factor = 1e9999999999999999999")
@example("[grid]\nmode = {mode = {mode = {mode = {mode = 1}}}}")
@example("''.'' = 1")
@example("[risk]\ndrawdown = 1\n[risk.rejects]\nlimit = -1")
def test_garbage_is_refused_and_never_crashes(config: Load, text: str) -> None:
    try:
        found = config(text, environ={"GRIDMM_GRID__MAX_POSITION": "50 %"})
    except ConfigError as error:
        assert error.problems
        assert all(line.isprintable() for line in str(error).splitlines())
    else:
        assert found.rows()


@given(st.lists(lines, max_size=12).map("\n".join))
def test_lines_point_at_lines_that_hold_the_key(text: str) -> None:
    content = text.splitlines()
    for path, line in lines_of(text).items():
        assert 1 <= line <= len(content)
        assert not path or path[-1].split(".")[0].strip() in content[line - 1]


def test_a_key_within_a_long_text_is_no_key() -> None:
    assert lines_of('a = """\n[b]\nc = 1\n"""\nd = 2') == {("a",): 1, ("d",): 5}


def test_numbers_with_a_point_are_never_binary() -> None:
    assert parse_toml("x = 0.1", "f")["x"] == Decimal("0.1")


def test_on_a_market_the_users_word_stands_and_the_rest_is_the_markets(config: Load) -> None:
    market = Instrument("ETH/USDT:USDT", "perpetual", Decimal("0.01"), Decimal("0.001"), maker_fee_ppm=-25)
    found = on_market(config(f"[grid]\n{CAP}[instrument]\nmaker_fee = '1 bps'\n"), market, "tape week.csv")
    assert (
        found.settings.instrument.symbol == "ETH/USDT:USDT" and found.settings.instrument.maker_fee.ppm == 100
    )
    assert (found.origins["instrument.tick"], found.origins["instrument.maker_fee"]) == (
        "tape week.csv",
        "gridmm.toml:4",
    )
    with pytest.raises(ConfigError, match='market = "perpetual", and the name is that of the other kind'):
        on_market(config(f"[grid]\n{CAP}[instrument]\nsymbol = 'ETH/USDT'\n"), market, "tape week.csv")


def test_the_hash_of_a_configuration_is_of_its_values(config: Load) -> None:
    plain, same = config(f"[grid]\n{CAP}"), config(f"# other text\n[feed]\nspeed = '9'\n[grid]\n{CAP}")
    other = config("[grid]\nmax_position = '49 %'\n")
    assert config_hash(plain.settings) == config_hash(same.settings) != config_hash(other.settings)


def test_every_parameter_is_described() -> None:
    for p in catalogue(Settings):
        assert p.meaning.endswith("."), p.key
        assert p.unit and p.example and p.change in ("now", "epoch", "start"), p.key
        assert p.default or p.left_out, p.key
        if p.default:
            tomllib.loads(f"x = {p.default}")
            written = text_of(Settings(), p.key)
            assert Settings.read(_nested(p.key, tomllib.loads(f"x = {written}")["x"])) == Settings(), p.key


def _nested(key: str, value: object) -> dict[str, object]:
    """Return one value as tables."""
    head, _, rest = key.partition(".")
    return {head: _nested(rest, value) if rest else value}


def test_the_defaults_pass_every_rule() -> None:
    assert findings(Settings()) == []
    (found,) = findings(Settings(), Decimal(60_000))
    assert found.warning and found.key == "grid.order_notional"
    assert findings(Settings(), Decimal(50_000)) == []  # two lots of 50 are the 100 that were asked for


@pytest.mark.parametrize(
    ("text", "speed"),
    [("max", None), ("60", Fraction(60)), ("0.1", Fraction(1, 10)), (" 2.5 ", Fraction(5, 2))],
)
def test_a_speed_is_read_exactly(text: str, speed: Fraction | None) -> None:
    assert speed_of(text) == speed


@pytest.mark.parametrize("text", ["0", "-1", "1e3", "1/3", "inf", "nan", "", "fast", "MAX"])
def test_a_speed_that_is_none_is_refused_where_it_is_written(config: Load, text: str) -> None:
    with pytest.raises(ValueError, match="must be 'max' or a number above 0"):
        speed_of(text)
    assert "it is neither max nor a number" in refusal(config, f"[grid]\n{CAP}[feed]\nspeed = '{text}'\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("price_interval = '0.002'", 'less than two ticks of 0.1. Did you mean "20 bps" (0.2 %)?'),
        ("price_interval = '0.0025'", 'Did you mean "25 bps" (0.25 %)?'),
        (
            "price_interval = 0.00000001",
            'Set price_interval to at least 0.2 in [grid], or to a share such as "20 bps"',
        ),
        ("price_interval = '0.1'", "Set price_interval to at least 0.2 in [grid]"),
        (
            "price_interval = '24.05'",
            "it is not a multiple of the tick 0.1. Set price_interval to 24.1 in [grid]",
        ),
    ],
)
@pytest.mark.parametrize("price", [None, Decimal(60_000)])
def test_an_interval_that_lost_its_unit_is_named_once_with_the_share(
    config: Load, text: str, words: str, price: Decimal | None
) -> None:
    message = refusal(config, f"[grid]\n{CAP}{text}\n", price=price)
    assert words in message
    assert len(message.splitlines()) == 1


def test_the_ticks_and_lots_of_a_tape_are_not_guessed(config: Load) -> None:
    text = f"[grid]\n{CAP}price_interval = '0.000002'\norder_notional = 2\n[feed]\nsource = 'tape:x.csv'\n"
    loaded = config(text)
    ether = Instrument("XRP/ETH", "spot", Decimal("0.0000001"), Decimal(1), min_notional=Decimal("0.01"))
    assert on_market(loaded, ether, "tape x.csv").warnings == ()
    coarse = Instrument("XRP/ETH", "spot", Decimal("0.01"), Decimal(1))
    with pytest.raises(ConfigError, match=r"gridmm.toml:3: price_interval .* less than two ticks of 0.01"):
        on_market(loaded, coarse, "tape x.csv")
    assert "less than two ticks" in refusal(config, text + "[instrument]\ntick = '0.01'\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "order_notional = 40",
            'gridmm.toml:3: order_notional = "40": at 60000 it is 0 lots, and the smallest order is 1',
        ),
        ("max_position = '0.001'\norder_notional = 180", "it is 1 lots, less than one cell of 3"),
        ("[instrument]\nmin_notional = 110", "it is 1 lots, and the smallest order is 2 (120)"),
        ("[instrument]\nmin_quantity = '0.0015'", "it is 1 lots, and the smallest order is 2 (120)"),
    ],
)
def test_at_a_price_a_file_is_judged_in_lots(config: Load, text: str, words: str) -> None:
    text = f"[grid]\n{text}\n" if "max_position" in text else f"[grid]\n{CAP}{text}\n"
    if "min_notional" not in text:
        assert config(text)
    assert words in refusal(config, text, price=Decimal(60_000))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "order_notional = '0.01 %'",
            "of an equity of 10000 it is 1, and the smallest order of BTC/USDT:USDT is 5",
        ),
        (
            "max_position = '0.0005'",
            "the smallest order of BTC/USDT:USDT is 0.001, so nothing would ever open",
        ),
        (
            "order_notional = 200\nmax_position = '1 %'",
            "of an equity of 10000 it is 100, less than one cell of 200",
        ),
    ],
)
def test_what_needs_no_price_is_judged_without_one(config: Load, text: str, words: str) -> None:
    cap = "" if "max_position" in text else CAP
    assert words in refusal(config, f"[grid]\n{cap}{text}\n")


@pytest.mark.parametrize(("notional", "warned"), [("100", True), ("66", False), ("67", True), ("120", False)])
def test_a_cell_that_lots_make_much_smaller_is_named_with_both_sizes(
    config: Load, notional: str, warned: bool
) -> None:
    loaded = config(f"[grid]\n{CAP}order_notional = {notional}\n")
    assert loaded.warnings == ()
    warnings = [str(warning) for warning in at_price(loaded, Decimal(60_000)).warnings]
    assert len(warnings) == warned
    if warned:
        assert (
            f'gridmm.toml:3: order_notional = "{notional}" is {notional}, and an order is 60:' in warnings[0]
        )


def test_a_default_that_does_not_fit_is_placed_by_file_and_table(config: Load) -> None:
    message = refusal(config, f"[grid]\n{CAP}grid_size = 50\n")
    assert message.startswith("gridmm.toml, default in [execution]: max_open_orders = 100: ")
    with pytest.raises(ConfigError, match=r"^default in \[execution\]: max_open_orders"):
        load(environ={"GRIDMM_GRID__GRID_SIZE": "50"})
    coarse = Instrument("BTC/USDT:USDT", "perpetual", Decimal("0.1"), Decimal("0.1"))
    with pytest.raises(ConfigError, match=r"^gridmm.toml, default in \[grid\]: order_notional"):
        on_market(config(f"[grid]\n{CAP}"), coarse, "tape", Decimal(60_000))
