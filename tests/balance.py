"""Spread the tests over workers: what takes long begins first, and files that can be split are.

With `--dist loadfile` a file is one unit, since its tests share fixtures and the cells of a notebook a kernel. Many
tests here wait for processes rather than compute: units that wait should run beside units that compute, so the
slowest come first and none of them waits behind another.
"""

from __future__ import annotations

from typing import Any

from xdist.scheduler import LoadFileScheduling

# Their tests share nothing: each is a unit.
SPLIT = (
    "tests/test_durable_kill.py", "tests/test_pythons.py", "tests/test_recordings.py", "tests/test_faults.py",
    "tests/test_deploy.py",
)  # fmt: skip
# Seconds on two idle cores; what is not named takes less than ten. `--durations=30` tells.
_KILLS = "tests/test_durable_kill.py::test_killed_at_any_moment_it_knows_every_order"
_GONE = "tests/test_durable_kill.py::test_a_database_that_is_gone_for_ten_seconds_costs_nothing"
_TAPE = "tests/test_recordings.py::test_a_recording_trades_and_adds_up"
SECONDS = {
    f"{_KILLS}[postgres]": 90,
    "tests/test_runbooks.py": 100,
    "tests/test_site.py": 90,
    "tests/test_secrets.py": 60,
    "tests/test_deploy.py::test_the_steps_of_the_container_file_make_a_grid_that_runs": 58,
    "tests/test_why.py": 55,
    "tests/test_backtest.py": 50,
    "tests/test_monitor.py": 36,
    "tests/test_why_not.py": 25,
    "tests/test_plan.py": 25,
    "tests/test_alerts.py": 30,
    "tests/test_backup.py": 25,
    "tests/test_monitor_page.py": 25,
    "tests/test_simulation_mutants.py": 90,
    "tests/test_fuzz_wire.py": 65,
    f"{_KILLS}[sqlite]": 55,
    "tests/test_simulation.py": 60,
    "tests/test_live.py": 65,
    "tests/test_wire_kills.py": 58,
    "tests/test_exchange_contract.py": 55,
    "tests/test_entrance.py": 40,
    "tests/test_fleet.py": 40,
    "tests/test_small_exchanges.py": 36,
    "tests/test_wire_trade.py": 30,
    "tests/test_gateway.py": 30,
    "tests/test_parity.py": 25,
    "tests/test_load.py": 24,
    "tests/test_cli_fleet.py": 20,
    "tests/test_kill.py": 32,
    "tests/test_cli.py": 30,
    f"{_TAPE}[btcperp_202201]": 30,
    "tests/test_core_properties.py": 25,
    "tests/test_naive_model.py": 20,
    "tests/test_notebooks.py": 20,
    _GONE: 20,
    "tests/test_wheel.py": 18,
    "tests/test_slot_search.py": 18,
    f"{_TAPE}[xrpeth_201910]": 15,
    "nbs/operations/130_first_run.ipynb": 12,
    "tests/test_exchange_server.py": 12,
}


class Balanced(LoadFileScheduling):
    """Hands out the slowest unit that is left."""

    def _split_scope(self, nodeid: str) -> str:
        """Return the unit of a test."""
        file = nodeid.partition("::")[0]
        return nodeid if file in SPLIT else file

    def _assign_work_unit(self, node: Any) -> None:
        """Give a worker the slowest unit that is left, or the quickest where it waits behind a slow one."""
        busy = [unit for unit, tests in self.assigned_work[node].items() if not all(tests.values())]
        choose = min if any(unit in SECONDS for unit in busy) else max
        unit = choose(self.workqueue, key=lambda unit: SECONDS.get(unit, 0))
        self.workqueue.move_to_end(unit, last=False)
        super()._assign_work_unit(node)

    def _reschedule(self, node: Any) -> None:
        """Give a worker more when it runs its last test but one: it needs to know the next, and no more."""
        if not self.workqueue or self._pending_of(self.assigned_work[node]) < 2:
            super()._reschedule(node)
