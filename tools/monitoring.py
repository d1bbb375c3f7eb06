"""Write what Prometheus and Grafana read from what the package says: `python -m tools.monitoring`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

from gridmm.alerts import prometheus_rules
from tools.notebooks import ROOT

RULES = "deploy/prometheus/alerts.yml"
DASHBOARD = "deploy/grafana/dashboards/gridmm.json"
SOURCE = {"type": "prometheus", "uid": "${source}"}
OURS = '{grid=~"$grid"}'


class Panel(NamedTuple):
    """One picture: its title, its unit, how wide of 24 columns, and its queries with their legends."""

    title: str
    unit: str
    width: int
    queries: tuple[tuple[str, str], ...]
    kind: str = "timeseries"
    high: int = 7


PANELS = (
    Panel("Ready", "bool_yes_no", 3, (("min(gridmm_ready)", ""),), "stat", 4),
    Panel("Risk mode (0 normal, 1 reduce only, 2 halted)", "none", 5, ((f"max(gridmm_risk_mode{OURS})", ""),), "stat", 4),
    Panel("Total result, quote", "none", 4, ((f"sum(gridmm_realized_pnl{OURS} + gridmm_unrealized_pnl{OURS})", ""),), "stat", 4),
    Panel("Inventory skew", "none", 4, ((f"gridmm_inventory_skew{OURS}", "{{grid}}"),), "stat", 4),
    Panel("Active slots", "none", 4, ((f"gridmm_active_slots{OURS}", "{{grid}}"),), "stat", 4),
    Panel("Residual: anything but 0 is an alarm", "none", 4, ((f"max(abs(gridmm_pnl_residual{OURS}))", ""),), "stat", 4),
    Panel("Price and the middle of the windows", "none", 12, (("gridmm_price{grid=~\"$grid\",kind=~\"last|center\"}", "{{grid}} {{kind}}"),)),
    Panel("Result, quote", "none", 12, (
        (f"gridmm_realized_pnl{OURS}", "{{grid}} realized"),
        (f"gridmm_realized_pnl{OURS} + gridmm_unrealized_pnl{OURS}", "{{grid}} total"),
    )),
    Panel("Where the profit came from, quote", "none", 12, ((f"gridmm_pnl_part{OURS}", "{{grid}} {{part}}"),)),
    Panel("Position and its limit, base", "none", 12, (
        (f"gridmm_position_base{OURS}", "{{grid}}"),
        (f"gridmm_position_limit_base{OURS}", "{{grid}} limit"),
    )),
    Panel("Triggers: value over limit", "percentunit", 12, (
        (f"gridmm_trigger_value{OURS} / (gridmm_trigger_limit{OURS} > 0)", "{{grid}} {{trigger}}"),
    )),
    Panel("Orders, and levels without one", "none", 12, (
        (f"gridmm_orders{OURS}", "{{grid}} {{state}}"),
        (f"gridmm_empty_levels{OURS}", "{{grid}} empty: {{reason}}"),
    )),
    Panel("Fills and decisions a minute", "none", 12, (
        (f"60 * rate(gridmm_fills_total{OURS}[5m])", "{{grid}} fills"),
        (f"60 * rate(gridmm_decisions_total{OURS}[5m])", "{{grid}} decisions"),
    )),
    Panel("Orders sent, by outcome, a minute", "none", 12, (
        (f"60 * rate(gridmm_order_outcomes_total{OURS}[5m])", "{{grid}} {{outcome}} {{reason}}"),
        (f"gridmm_orders_per_fill{OURS}", "{{grid}} orders a fill"),
    )),
    Panel("From an event to its saved plan", "s", 12, (
        (f"histogram_quantile(0.5, sum by (le, grid) (rate(gridmm_plan_seconds_bucket{OURS}[5m])))", "{{grid}} median"),
        (f"histogram_quantile(0.99, sum by (le, grid) (rate(gridmm_plan_seconds_bucket{OURS}[5m])))", "{{grid}} p99"),
    )),
    Panel("Commits", "s", 12, (
        (f"histogram_quantile(0.5, sum by (le, grid) (rate(gridmm_commit_seconds_bucket{OURS}[5m])))", "{{grid}} median"),
        (f"histogram_quantile(0.99, sum by (le, grid) (rate(gridmm_commit_seconds_bucket{OURS}[5m])))", "{{grid}} p99"),
    )),
    Panel("How old what it knows is", "s", 12, (
        (f"gridmm_price_age_seconds{OURS}", "{{grid}} price"),
        (f"gridmm_stream_silent_seconds{OURS}", "{{grid}} stream {{stream}}"),
        (f"gridmm_doubt_age_seconds{OURS}", "{{grid}} oldest order in doubt"),
        (f"gridmm_loop_age_seconds{OURS}", "{{grid}} loop"),
    )),
    Panel("Requests a minute, and the budget that is left", "none", 12, (
        (f"60 * rate(gridmm_requests_total{OURS}[5m])", "{{grid}} {{kind}}"),
        (f"100 * gridmm_request_budget_ratio{OURS}", "{{grid}} budget left, %"),
    )),
    Panel("Troubles of the connection, in the last hour", "none", 12, (
        (f"increase(gridmm_throttles_total{OURS}[1h])", "{{grid}} told to wait"),
        (f"increase(gridmm_stream_cuts_total{OURS}[1h])", "{{grid}} streams cut"),
        (f"increase(gridmm_bad_frames_total{OURS}[1h])", "{{grid}} bad frames"),
        (f"increase(gridmm_requests_late_total{OURS}[1h])", "{{grid}} too late"),
    )),
    Panel("Starts and lattices", "none", 12, (
        (f"gridmm_incarnation{OURS}", "{{grid}} start"),
        (f"gridmm_epoch{OURS}", "{{grid}} lattice"),
        (f"increase(gridmm_defects_total{OURS}[1h])", "{{grid}} defects"),
    )),
)  # fmt: skip


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana reads it."""
    x = y = row = 0
    panels: list[dict[str, Any]] = []
    for number, panel in enumerate(PANELS, 1):
        if x + panel.width > 24:
            x, y, row = 0, y + row, 0
        targets = [
            {"refId": chr(65 + at), "expr": query, "legendFormat": legend, "datasource": SOURCE}
            for at, (query, legend) in enumerate(panel.queries)
        ]
        panels.append(
            {
                "id": number,
                "type": panel.kind,
                "title": panel.title,
                "datasource": SOURCE,
                "gridPos": {"x": x, "y": y, "w": panel.width, "h": panel.high},
                "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
                "targets": targets,
            }
        )
        x, row = x + panel.width, max(row, panel.high)
    grid = {
        "name": "grid", "label": "Grid", "type": "query", "datasource": SOURCE, "multi": True, "includeAll": True,
        "query": "label_values(gridmm_grid_info, grid)", "refresh": 2, "current": {"text": "All", "value": "$__all"},
    }  # fmt: skip
    source = {"name": "source", "label": "Source", "type": "datasource", "query": "prometheus"}
    return {
        "uid": "gridmm",
        "title": "gridmm",
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [source, grid]},
        "panels": panels,
    }


def written() -> dict[str, str]:
    """Return what the files should hold, by path."""
    return {RULES: prometheus_rules(), DASHBOARD: json.dumps(dashboard(), indent=1) + "\n"}


def main(root: Path = ROOT) -> int:
    """Write the files."""
    for name, text in written().items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(f"wrote {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
