"""Rules that fire when they should, a dashboard whose every query means something, and a runbook behind each alert."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from gridmm.alerts import RULES, Alerts, Rule, prometheus_rules
from gridmm.metrics import METRICS
from gridmm.v1.status_pb2 import GridStatus, Status
from prometheus_server import prometheus, tool
from test_live import served, typed
from test_monitor import ask, eventually, running
from tools import monitoring
from tools.notebooks import ROOT

NAMES = {metric.name for metric in METRICS}
OTHERS = {"gridmm_ready", "gridmm_build_info", "gridmm_plan_seconds", "gridmm_commit_seconds"}

# What Prometheus sees, by alert: series over minutes, in promtool's words, that must set it off; and the minute.
FIRES: dict[str, tuple[dict[str, str], str]] = {
    "GridmmHalted": ({"gridmm_risk_mode": "0 0 2 2"}, "3m"),
    "GridmmRiskMode": ({"gridmm_risk_mode": "0 0 1 1"}, "3m"),
    "GridmmPositionMismatch": ({'gridmm_trigger_active{trigger="MISMATCH"}': "0 1"}, "1m"),
    "GridmmOrdersMismatch": ({'gridmm_trigger_active{trigger="ABSENT_ORDER"}': "0 1"}, "1m"),
    "GridmmStrayOrder": ({'gridmm_trigger_active{trigger="STRAY_ORDER"}': "0 1"}, "1m"),
    "GridmmStuckSlots": ({"gridmm_doubt_age_seconds": "0 61"}, "1m"),
    "GridmmPriceStale": ({"gridmm_price_age_seconds": "0 61"}, "1m"),
    "GridmmStreamSilent": ({'gridmm_stream_silent_seconds{stream="orders"}': "0 61"}, "1m"),
    "GridmmExchangeUnreachable": ({"gridmm_banned": "0 1"}, "1m"),
    "GridmmBudgetLow": ({"gridmm_request_budget_ratio": "1 0.05 0.05"}, "2m"),
    "GridmmKeysRefused": ({'gridmm_order_outcomes_total{outcome="Rejected",reason="OTHER"}': "0 2 4 8"}, "3m"),
    "GridmmResidual": ({"gridmm_pnl_residual": "0 -0.01"}, "1m"),
    "GridmmLateFill": ({'gridmm_trigger_active{trigger="LATE_FILL"}': "0 1"}, "1m"),
    "GridmmRestarts": ({"gridmm_incarnation": "1 2 3 4"}, "3m"),
    "GridmmStopUnfinished": ({"gridmm_stopping": "1x10"}, "6m"),
    "GridmmCommitSlow": (
        {f'gridmm_commit_seconds_bucket{{grid="a",le="{le}"}}': counts for le, counts in
         {"0.5": "0x20", "1": "0+60x20", "+Inf": "0+60x20"}.items()},
        "15m",
    ),
    "GridmmHangs": ({"gridmm_loop_age_seconds": "0 16"}, "1m"),
    "GridmmDown": ({'up{job="gridmm"}': "1 0 0 0"}, "3m"),
    "GridmmDefect": ({"gridmm_defects_total": "0 1 1"}, "2m"),
    "GridmmTwoVersions": (
        {'gridmm_build_info{version="1",instance="a"}': "1x70", 'gridmm_build_info{version="2",instance="b"}': "1x70"},
        "61m",
    ),
}  # fmt: skip

# The same troubles as the process itself sees them.
SEEN: dict[str, dict[str, Any]] = {
    "GridmmHalted": {"risk_mode": "HALTED"},
    "GridmmRiskMode": {"risk_mode": "REDUCE_ONLY"},
    "GridmmPositionMismatch": {"triggers": [{"name": "MISMATCH", "active": True}]},
    "GridmmOrdersMismatch": {"triggers": [{"name": "ABSENT_ORDER", "active": True}]},
    "GridmmStrayOrder": {"triggers": [{"name": "STRAY_ORDER", "active": True}]},
    "GridmmStuckSlots": {"doubtful": [{"slot": "1/-3#17", "age_ms": 61_000}]},
    "GridmmPriceStale": {"price_age_ms": 61_000},
    "GridmmStreamSilent": {"streams": [{"name": "orders", "silent_ms": 61_000}]},
    "GridmmExchangeUnreachable": {"traffic": {"banned": True, "budget_left_pct": 50}},
    "GridmmBudgetLow": {"traffic": {"budget_left_pct": 5}},
    "GridmmResidual": {"parts": {"residual": "-0.01"}},
    "GridmmLateFill": {"triggers": [{"name": "LATE_FILL", "active": True}]},
    "GridmmStopUnfinished": {"stop": "CANCEL"},
    "GridmmHangs": {"loop_age_ms": 16_000},
    "GridmmDefect": {"defects": 1},
}
WELL: dict[str, Any] = {"grid": "a", "risk_mode": "NORMAL", "stop": "RUN", "parts": {"residual": "0"}}


def test_what_is_committed_is_what_the_package_says() -> None:
    for name, text in monitoring.written().items():
        assert (ROOT / name).read_text(encoding="utf-8") == text, f"{name}: run python -m tools.monitoring"


def test_prometheus_understands_the_rules(tmp_path: Path) -> None:
    rules = tmp_path / "alerts.yml"
    rules.write_text(prometheus_rules())
    done = subprocess.run(
        (tool("promtool"), "check", "rules", rules), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and f"{len(RULES)} rules found" in done.stdout, done.stdout + done.stderr


def promtool_tests(rules: Path, expected: dict[str, bool]) -> dict[str, Any]:
    """Return promtool's test file: each alert alone, with whether it fires at its minute."""
    tests = []
    for rule in RULES:
        series, at = FIRES[rule.name]
        labels = {"severity": rule.severity}
        fired = [{"exp_labels": labels}] if expected[rule.name] else []
        tests.append(
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [],
                "name": rule.name,
                "alert_rule_test": [{"eval_time": at, "alertname": rule.name, "exp_alerts": fired}],
            }
        )
    return {"rule_files": [str(rules)], "evaluation_interval": "1m", "tests": tests}


def failed(folder: Path, expected: dict[str, bool]) -> set[str]:
    """Run promtool's tests, each in a file of its own; return the alerts that did not do as expected."""
    rules = folder / "alerts.yml"
    rules.write_text(prometheus_rules())
    wrong = set()
    for test in promtool_tests(rules, expected)["tests"]:
        path = folder / f"{test['name']}.yml"
        path.write_text(
            json.dumps({"rule_files": [str(rules)], "evaluation_interval": "1m", "tests": [test]})
        )
        done = subprocess.run(
            (tool("promtool"), "test", "rules", path), capture_output=True, text=True, check=False
        )
        said = done.stdout + done.stderr
        fires = f'alertname="{test["name"]}"' in said.partition("got:")[2]
        if done.returncode and fires != expected[test["name"]]:
            wrong.add(test["name"])
    return wrong


def test_every_rule_fires_on_its_trouble(tmp_path: Path) -> None:
    assert set(FIRES) == {rule.name for rule in RULES}
    assert failed(tmp_path, dict.fromkeys(FIRES, True)) == set()


def test_a_rule_that_does_not_fire_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "GridmmStuckSlots"
    monkeypatch.setitem(FIRES, name, ({"gridmm_doubt_age_seconds": "0 59"}, "1m"))
    assert failed(tmp_path, dict.fromkeys(FIRES, True)) == {name}


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.holds], ids=lambda rule: rule.name)
def test_the_process_sees_the_same_troubles(rule: Rule) -> None:
    def fired(look: dict[str, Any], after_s: int) -> set[str]:
        alerts = Alerts()
        alerts.now(Status(now_ms=0, grids=[GridStatus(**look)]))
        return {one.name for one in alerts.now(Status(now_ms=after_s * 1_000, grids=[GridStatus(**look)]))}

    assert fired(WELL, 10_000) == set()
    assert fired(WELL | SEEN[rule.name], rule.lasts_s) == {rule.name}
    if rule.lasts_s:
        assert fired(WELL | SEEN[rule.name], rule.lasts_s - 1) == set()


def test_every_rule_that_can_be_seen_is_seen() -> None:
    assert set(SEEN) == {rule.name for rule in RULES if rule.holds}


def test_every_query_names_metrics_that_there_are() -> None:
    for panel in monitoring.PANELS:
        for query, _ in panel.queries:
            for name in re.findall(r"gridmm_[a-z_]+", query):
                assert re.sub("_(bucket|count|sum)$", "", name) in NAMES | OTHERS, (panel.title, name)
    for rule in RULES:
        for name in re.findall(r"gridmm_[a-z_]+", rule.expression):
            assert re.sub("_(bucket|count|sum)$", "", name) in NAMES | OTHERS, rule.name


@pytest.mark.timeout(400)
def test_prometheus_scrapes_a_session_and_every_picture_has_a_curve(tmp_path: Path) -> None:
    tool("prometheus")
    file = tmp_path / "grid.toml"
    file.write_text('[grid]\nmode = "long"\nmax_position = "10 %"\nprice_interval = "10 bps"\n')
    with served(tmp_path) as words:
        options = words[1:]
        with running(tmp_path, *options, "--config", str(file)) as (address, process):
            target = address.removeprefix("http://")
            with prometheus(tmp_path, target, ROOT / monitoring.RULES) as server:
                eventually(lambda: server.query('up{job="gridmm"} == 1'))
                eventually(lambda: ask(address, "/readyz").code == 200)
                eventually(lambda: server.query("gridmm_decisions_total > 1"))
                time.sleep(3)  # a rate wants two scrapes
                empty = []
                for panel in monitoring.PANELS:
                    for query, _ in panel.queries:
                        asked = query.replace("$grid", ".+")
                        if not server.query(asked):
                            empty.append(asked)
                missing = {name for query in empty for name in re.findall(r"gridmm_[a-z_]+", query)}
                assert missing <= {"gridmm_empty_levels", "gridmm_orders_per_fill"}, empty
                assert server.alerts() == set()
                process.kill()
                eventually(lambda: server.query('ALERTS{alertname="GridmmDown"}'))


def test_a_live_session_has_what_the_words_of_its_receipt_say(tmp_path: Path) -> None:
    """The line that a session prints at its end and the metrics count the same requests."""
    with served(tmp_path) as words:
        done = typed(tmp_path, *words, "--monitor", "off", "--duration", "3", "--json")
        assert done.returncode == 0 and "monitor" not in done.stderr, done.stderr
