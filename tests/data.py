"""Real recordings that are not part of the repository: where they are, and what to do without them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tools.notebooks import ROOT

FOLDER = Path(os.environ.get("GRIDMM_DATA") or ROOT.parent / "shared" / "data")


def real(name: str) -> Path:
    """Return the path of a real recording; skip the test where it is absent.

    `GRIDMM_DATA` names another folder. With `GRIDMM_REQUIRE_DATA=1` an absent file is a failure.
    """
    path = FOLDER / name
    if path.is_file():
        return path
    reason = f"real market data {name} is not in {FOLDER} (GRIDMM_DATA names another folder)"
    if os.environ.get("GRIDMM_REQUIRE_DATA") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
