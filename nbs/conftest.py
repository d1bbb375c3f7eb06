"""nbval runs what nbdev keeps: this file makes the two agree on the notebooks below it."""

import re

import pytest

_NOT_RUN = re.compile(r"^\s*#\s*\|\s*eval:\s*false\b", re.MULTILINE | re.IGNORECASE)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Compare cells that nbdev_clean emptied of counts, and leave out those that opt out.

    nbval reads an empty `execution_count` as "never run": it would fail a cell that shows an
    output and compare nothing of one that shows none.
    """
    left_out = []
    for item in items:
        cell = getattr(item, "cell", None)
        if cell is None:
            continue
        if cell.execution_count is None:
            cell.execution_count = 1
        if _NOT_RUN.search(cell.source):
            left_out.append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
