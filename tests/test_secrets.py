"""No command shows, keeps or sends a secret: marked ones are planted everywhere, and looked for everywhere."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus

import click
import pytest

from gridmm.cli import cli
from test_live import served

MARK = "Marked/Secret+"  # with signs that an address writes otherwise
NAMES = ("GRIDMM_API", "GRIDMM_MAIN_API", "GRIDMM_PAPER_API")
SECRETS = {f"{name}_{part}": f"{MARK}{name}{part}" for name in NAMES for part in ("KEY", "SECRET", "PASSWORD")} | {
    "GRIDMM_MONITOR_TOKEN": f"{MARK}token", "PGPASSWORD": f"{MARK}postgres",
    "GRIDMM_ALERT_WEBHOOK": f"https://127.0.0.1:9/{MARK}webhook", "GRIDMM_ALERT_SLACK": f"https://127.0.0.1:9/{MARK}slack",
    "GRIDMM_ALERT_TELEGRAM_TOKEN": f"{MARK}telegram", "GRIDMM_ALERT_TELEGRAM_CHAT": "42",
    "GRIDMM_ALERT_TELEGRAM_SITE": "http://127.0.0.1:9",
}  # fmt: skip
NOWHERE = f"postgresql://bot:{quote(MARK, safe='')}@127.0.0.1:1/none"

# One line for each command, typed in a folder where a grid of the demo has traded; {served} is what an exchange of our
# own says that a client types, and `live` a configuration whose account is `main`.
LINES: dict[str, list[str]] = {
    "run": [
        "run --duration 60 --speed max --json --db gridmm.sqlite",
        "run {served} --config live.toml --duration 3 --db live.sqlite --json --monitor 127.0.0.1:0",
        "run --exchange binance --live --config live.toml --endpoint 127.0.0.1:1",
        "run --exchange binance --endpoint 127.0.0.1:1 --ca none.pem --config live.toml",
        "run --config leaky.toml",
        "--debug run {served} --config other.toml --duration 2 --db other.sqlite --monitor off",
    ],
    "worker": [f"worker --db {NOWHERE}"],
    "fleet add": [f"fleet add live.toml --db {NOWHERE}"],
    "fleet list": [f"fleet list --db {NOWHERE}"],
    "fleet remove": [f"fleet remove btc --why x --db {NOWHERE}"],
    "fleet account": [f"fleet account main --db {NOWHERE}"],
    "status": ["status", f"status --db {NOWHERE}", f"--debug status --db {NOWHERE}", "status --db live.sqlite --json"],
    "orders": ["orders", f"orders --db {NOWHERE}"],
    "fills": ["fills --json", f"fills --db {NOWHERE}"],
    "commands": ["commands", f"commands --db {NOWHERE}"],
    "stop": ["stop --cancel --why test --wait 0", f"stop --cancel --why test --db {NOWHERE}"],
    "pause": ["pause --why test --wait 0"],
    "risk reset": ["risk reset all --why test --wait 0"],
    "clear": ["clear -1 --why test --wait 0"],
    "reload": ["reload --config live.toml --why test --wait 0", "reload --config leaky.toml --why test"],
    "adopt": ["adopt 0.01 --cost 60000 --why test --yes --json --wait 0"],
    "config init": ["config init new.toml"],
    "config check": ["config check live.toml", "config check leaky.toml"],
    "config suggest": ["config suggest --symbol BTC/USDT:USDT --fee 2bps --atr 10bps --write suggested.toml"],
    "config show": ["config show --config live.toml", "config show --config leaky.toml", "config show"],
    "tape info": ["tape info live.toml"],
    "warm-up": ["warm-up"],
    "doctor": ["doctor {served} --config live.toml --db live.sqlite", "doctor {served} --config other.toml"],
    "data download": ["data download {download} --symbol BTC/USDT:USDT --from 2026-01-01 --to 2026-01-01T01:00 --out d.csv.gz"],
    "exchange serve": ["exchange serve --host 192.0.2.1 --port 1", "exchange serve --speed none"],
    "capsule": ["capsule --around 1min --out night.capsule", f"capsule --around 1h --db {NOWHERE}"],
    "replay": ["replay night.capsule --json", "replay live.toml"],
    "plan": ["plan --config live.toml", "plan --config live.toml --db live.sqlite --json", "plan --config leaky.toml", f"plan --db {NOWHERE}"],
    "apply": ["apply --config live.toml --plan 1-00000000 --why x", f"apply --plan 1-00000000 --why x --db {NOWHERE}"],
    "why-not": ["why-not 60000", f"why-not 60000 --db {NOWHERE}"],
    "why": ["why -1", "why -1 --json --db live.sqlite", f"why -1 --db {NOWHERE}"],
    "runbook": ["runbook stuck_slots --db gridmm.sqlite --out records", f"runbook risk_mode --db {NOWHERE}"],
    "backup": ["backup copies", f"backup copies --db {NOWHERE}"],
    "restore": ["restore live.toml"],
}  # fmt: skip


def commands(group: click.Group, above: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the names of all commands, those of groups with the group's name before them."""
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        if isinstance(found, click.Group):
            yield from commands(found, (*above, name))
        else:
            yield " ".join((*above, name))


def written(secret: str) -> set[bytes]:
    """Return the ways in which a secret may be written: as it is, in an address, and within base64."""
    ways = {secret, quote(secret), quote(secret, safe=""), quote_plus(secret)}
    found = {way.encode() for way in ways}
    for lead in range(3):  # base64 of what it stands within depends on how many bytes come before
        code = base64.b64encode(b"\0" * lead + secret.encode()).rstrip(b"=")
        found |= {
            code[(4 if lead else 0) : -2],
            code[(4 if lead else 0) : -2].replace(b"+", b"-").replace(b"/", b"_"),
        }
    return found


WRITTEN = {name: written(MARK + text.partition(MARK)[2]) for name, text in SECRETS.items() if MARK in text}


def leaks(data: bytes) -> list[str]:
    """Return the names of the secrets that stand in some bytes."""
    return [name for name, ways in WRITTEN.items() if any(way in data for way in ways)]


def test_a_leak_would_be_seen() -> None:
    secret = SECRETS["GRIDMM_MAIN_API_SECRET"]
    for text in (
        secret,
        f"x={quote(secret, safe='')}",
        base64.b64encode(f"user:{secret}!".encode()).decode(),
    ):
        assert "GRIDMM_MAIN_API_SECRET" in leaks(f"before {text} after".encode()), text
    assert leaks(b"GRIDMM_MAIN_API_SECRET is set") == []


def test_every_command_is_tried() -> None:
    """A command that is added has to be added here."""
    assert set(commands(cli)) == set(LINES)


@pytest.mark.timeout(600)
def test_no_command_shows_or_keeps_a_secret(tmp_path: Path) -> None:
    environment = {
        name: text for name, text in os.environ.items() if not name.startswith("GRIDMM_")
    } | SECRETS
    rest = '[grid]\nmax_position = "10 %"\n[instrument]\nsymbol = "BTC/USDT:USDT"\n'
    (tmp_path / "live.toml").write_text(rest + '[account]\nname = "main"\n')
    (tmp_path / "other.toml").write_text(rest + '[account]\nname = "other"\n')
    (tmp_path / "leaky.toml").write_text(
        rest + f'[exchange]\napi_secret = "{SECRETS["GRIDMM_API_SECRET"]}"\n'
    )
    key, secret = SECRETS["GRIDMM_MAIN_API_KEY"], SECRETS["GRIDMM_MAIN_API_SECRET"]
    environment |= {"GRIDMM_OTHER_API_KEY": key, "GRIDMM_OTHER_API_SECRET": secret + "x"}  # a wrong signature
    place = tmp_path / "exchange"
    place.mkdir()
    with served(place, "--key", key, "--secret", secret) as words:
        reach = " ".join(words[words.index("--exchange") :])
        reach = reach.replace("gridmm-exchange-ca.pem", str(place / "gridmm-exchange-ca.pem"))
        for lines in LINES.values():
            for line in lines:
                download = f"--exchange binance {reach.partition('binance ')[2]}"
                argv = line.replace("{served}", reach).replace("{download}", download).split()
                done = subprocess.run(
                    (sys.executable, "-m", "gridmm", *argv), cwd=tmp_path, env=environment, capture_output=True, check=False,
                    timeout=120, stdin=subprocess.DEVNULL,
                )  # fmt: skip
                assert leaks(done.stdout + done.stderr) == [], f"{line}:\n{done.stderr.decode()[-500:]}"
                if line == LINES["run"][1]:
                    assert done.returncode == 0, f"the marked keys really traded: {done.stderr.decode()}"
                if line == LINES["run"][5]:
                    assert done.returncode, "a wrong signature was taken"
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and place not in path.parents]
    assert len(kept) > 10
    for path in kept:
        if path.name != "leaky.toml":
            assert leaks(path.read_bytes()) == [], path
